"""Many inputs: few are solved for, all are certified.

A stretch of lams is solved on a working set of inputs: those that are nonzero, and
those whose gradients come next. Then the duality gap over all inputs is measured. Lams
that meet the tolerance are done; the first that does not names the inputs that were
missing, those after it what comes next. Working sets have few sizes, so that few
programs are compiled.

Source: Johnson & Guestrin (2015), ICML.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import certificates, models, objective, trees, workers
from regjax.free_block import rescaled
from regjax.parts import Part, lane_of, narrowed, part_of, widened
from regjax.solvers import fista
from regjax.solvers.proximal_gradient import tolerance
from regjax.types import (
    Array,
    Data,
    Info,
    Lane,
    Method,
    Params,
    Penalty,
    Problem,
    Status,
)

LEAST_INPUTS = 512
WIDE, LEAST_NUMBERS = 6, 2**18  # so many inputs a row, in an X of so many numbers
LARGE = 2**21  # numbers of any other X
SMALLEST, GROWTH = 64, 4  # sizes of working sets
LARGER, LESS_GROWTH = 1024, 2  # from here on
ROOM = 1.25  # of a working set, times the inputs that are known to be needed
LANES, LONG = 8, 2  # solved at a time; so many times more in the smallest sets


class Found(NamedTuple):
    """What a look at all inputs finds, [l, F, ...] of lams and folds.

    Attributes:
      params: of all inputs.
      measured: their certificate.
      kkt: residual.
      enters: [..., p] bool, whether an input would leave 0.
    """

    params: Params
    measured: certificates.Certificate
    kkt: Array
    enters: Array


class Behind(NamedTuple):
    """What the next stretch begins from.

    Attributes:
      params: [m, F, ...] all that the last stretch has found, done or not.
      lams: [m] theirs.
      second: [F, ...] params of a lam that is done, for a secant through them and the
        last ones.
      at: their lam; NaN: none is done yet.
    """

    params: Params
    lams: np.ndarray
    second: Params
    at: float


def applies(method: Method, problem: Problem, data: Data) -> bool:
    """Whether there are inputs worth leaving out, and a certificate that notices."""
    aid, penalty = data.aid, problem.penalty
    if aid is None or not (method.reduces and penalty.by_input):
        return False
    known = models.is_linear(problem.model) and aid.moves.columns is not None
    return known and _pays(*data.X.shape)


def _pays(n: int, p: int) -> bool:
    return p >= LEAST_INPUTS and n * p >= (LEAST_NUMBERS if p >= WIDE * n else LARGE)


def run(
    method: Method,
    problem: Problem,
    data: Data,
    lane: Lane,
    start: Params,
    lams: np.ndarray,
    solve: Callable[..., tuple[Params, Info]],
    on_progress: Callable[[float, int, str], None] | None = None,
) -> tuple[Params, Info]:
    """Solve every lam of every fold.

    Args:
      method: a solver that `reduces`.
      problem: of all inputs; it `applies`.
      data: rows, with an Aid.
      lane: what all lanes share; weights [F, n], scaling [F, p] or None.
      start: params that all folds start from.
      lams: [L] descending.
      solve: `solve(problem, data, lane, starts, lams [l], on_progress) -> (params,
        info)`, arrays [l, F, ...], by the engine; starts are [s, F, ...], one for all
        lams or at least one for each.
      on_progress: as of `lanes.run`.

    Returns:
      `(params, info)`, arrays [l, F, ...]; of fewer lams after a Ctrl-C.
    """
    count, at, done = len(lane.weights), 0, []
    tol = tolerance(method.tol, data.X.dtype) * float(data.aid.null)  # pyright: ignore
    now = jax.tree.map(lambda a: np.stack([a] * count), start)
    grad = trees.fetched(trees.jitted(_gradients, problem, data, lane, now))
    before, size, none = lams[0], SMALLEST, np.zeros(data.X.shape[1], bool)
    missing = later = none
    alone = jax.tree.map(lambda a: a[None], now)
    behind = Behind(alone, np.array([np.inf]), now, np.nan)

    def tell(more: float, *_: Any) -> None:
        if on_progress is not None:
            on_progress(at * count + more, len(lams) * count, "lams")

    with workers.catch_interrupt() as interrupted:
        while at < len(lams) and not interrupted():
            tell(0)
            known = missing | _nonzero(now), later, size
            stretch = lams[at : at + stretch_of(count, size)]
            inputs = _choose(problem, data, grad, *known, stretch, before)
            if inputs is None:
                begun = jax.tree.map(lambda a: a[None], now)
                done.append(solve(problem, data, lane, begun, lams[at:], tell))
                break
            size = len(inputs)
            stretch = stretch[: stretch_of(count, size)]
            part, narrow = part_of(problem, data, inputs), lane_of(lane, inputs)
            begun = _starts(stretch, behind, part, stretch_of(count, size))
            params, info = solve(part.problem, part.data, narrow, begun, stretch)
            if np.any(info.status == Status.running):
                break
            found = _look(problem, data, part, lane, stretch, params, info.step)
            data = _paced(data, part, info)
            good, info = _judge(found, info, inputs, tol)
            at_now = float(before) if done else np.nan
            behind = Behind(found.params, stretch, now, at_now)
            if good:
                done.append(trees.rows((found.params, info), slice(good)))
                now, grad = trees.rows((found.params, found.measured.grad), good - 1)
                before, missing, later = stretch[good - 1], none, none
            if good < len(stretch):
                failed = trees.rows(found, good)
                missing = missing | failed.enters.any(axis=0) | _nonzero(failed.params)
                later = np.logical_or.reduce(found.enters[good:], axis=(0, 1))
                behind = behind._replace(second=now, at=before if done else np.nan)
            at += good
    if not done:
        raise KeyboardInterrupt
    return jax.tree.map(lambda *a: np.concatenate(a), *done)


def _starts(lams: np.ndarray, behind: Behind, part: Part, size: int) -> Params:
    """Where lams [l], descending, begin in the part's inputs: [size, F, ...].

    Those that were solved before begin at their own params; others on the secant. The
    last is repeated, so that stretches of any length share a program.
    """
    lams, known = np.pad(lams, (0, size - len(lams)), "edge"), behind.lams
    own, place = np.isin(lams, known), np.searchsorted(-known, -lams)
    last = narrowed(behind.params, part.inputs, axis=-2)
    near = trees.rows(last, np.where(own, place, -1))
    second = narrowed(behind.second, part.inputs, axis=-2)
    points = np.where(own, known[-1], lams), known[-1], behind.at
    points = (np.asarray(lam, part.data.X.dtype) for lam in points)
    given = part.problem, near, second, *points
    return trees.fetched(trees.jitted(_on_the_secant, *given))


def _on_the_secant(
    problem: Problem, near: Params, second: Params, lams: Array, last: Array, at: Array
) -> Params:
    def one(near: Params, second: Params, lam: Array) -> Params:
        ahead = fista.secant(problem, lam, (near, last), (second, at))
        return problem.penalty.prox(ahead, 0.0, 0.0)  # within bounds

    folds = jax.vmap(one, in_axes=(0, 0, None))
    return jax.vmap(folds, in_axes=(0, None, 0))(near, second, lams)


def _paced(data: Data, part: Part, info: Info) -> Data:
    """Data whose next steps begin as long as the last ones of a stretch.

    The bound that the first began with is loose, ten times and more where losses
    saturate, and steps are slow to forget it.
    """
    aid: Any = data.aid
    sizes = jax.tree.leaves(part.data.aid.metric)  # pyright: ignore
    step = float(np.min(info.step[-1])) * max(float(np.max(m)) for m in sizes)
    most = float(aid.curvature)
    first = min(1 / step, most) if step > 0 else most
    first = np.asarray(first, aid.curvature.dtype)
    return data._replace(aid=aid._replace(first=first))


def _judge(
    found: Found, info: Info, inputs: np.ndarray, tol: float
) -> tuple[int, Info]:
    """How many lams are done, and what is known of all of them.

    A lam is not done where the gap is above the tolerance and an input outside of the
    working set would leave 0.
    """
    found.enters[..., inputs] = False
    fair = (info.status == Status.converged) | (info.status == Status.floor)
    measured = found.measured
    loose = fair & (measured.gap > tol)
    again = loose.any(axis=1) & found.enters.any(axis=(1, 2))
    status = np.where(loose, Status.floor, info.status)
    status = np.where(fair & ~loose, Status.converged, status).astype(np.int32)
    good = int(np.argmax(np.append(again, True)))
    names = "gap", "loss", "penalty", "objective"
    values = {name: getattr(measured, name) for name in names}
    return good, info._replace(**values, kkt=found.kkt, status=status)


def _nonzero(params: Params) -> np.ndarray:
    """Which inputs any fold uses, [p] bool."""
    w = params[0]["w"]
    return (w != 0).any(axis=(0, 2))


def _choose(
    problem: Problem,
    data: Data,
    grad: Params,
    needed: np.ndarray,
    later: np.ndarray,
    size: int,
    lams: np.ndarray,
    before: float,
) -> np.ndarray | None:
    """The next working set, of `grad [F, ...]` at the lam before; None: all inputs.

    It is no smaller than `size`, that of the set before, and has all that is needed;
    what would enter later [p] as well if it grows by a step at most, else if there is
    room.
    """
    low = np.asarray(max(2 * lams[-1] - before, lams[-1] / 4), data.X.dtype)
    pushes = np.asarray(trees.jitted(_pushes, problem.penalty, grad, low))
    free = data.aid.moves.inputs  # pyright: ignore
    free = free[free >= 0]
    needed[free] = True
    both, most = needed | later, min(_size(size, size), needed.size // 2)
    if _size(size, both.sum()) <= most:
        needed = both
    size = _size(size, needed.sum())
    if 2 * size > needed.size:
        return None
    rank = np.where(needed, np.inf, pushes + later * np.max(pushes))
    rest = np.setdiff1d(np.argpartition(-rank, size)[:size], free)
    return np.concatenate([free, rest])[:size]


def _size(before: int, needed: int) -> int:
    """Of a working set that has room for more than is needed."""
    while before < needed * ROOM:
        before *= GROWTH if before < LARGER else LESS_GROWTH
    return before


def _pushes(penalty: Penalty, grad: Params, lam: Array) -> Array:
    """How far each input would leave 0 in a step of 1, [p]; the most of folds."""

    def one(grad: Params) -> Array:
        minus = jax.tree.map(jnp.negative, grad)
        return jnp.max(jnp.abs(penalty.prox(minus, lam, 1.0)[0]["w"]), axis=1)

    return jnp.max(jax.vmap(one)(grad), axis=0)


def _gradients(problem: Problem, data: Data, lane: Lane, params: Params) -> Params:
    def one(weights: Array, scaling: Any, params: Params) -> Params:
        here, a = rescaled(data, scaling), weights / jnp.sum(weights)
        return jax.grad(objective.smooth, argnums=1)(problem, params, here, a)

    return jax.vmap(one)(lane.weights, lane.scaling, params)


def _look(
    problem: Problem,
    data: Data,
    part: Part,
    lane: Lane,
    lams: np.ndarray,
    params: Params,
    step: Array,
) -> Found:
    """Of params [l, F, ...] of a part."""
    own, most = lane_of(lane, part.inputs).scaling, _looked_at(len(lane.weights))
    lams, looks = np.asarray(lams, data.X.dtype), []
    for begin in range(0, len(lams), most):
        few = trees.rows((lams, params, step), slice(begin, begin + most))
        # Filled up, so that all stretches share the programs.
        more = most - len(few[0])
        few = jax.tree.map(lambda a, n=more: np.concatenate([a, *[a[-1:]] * n]), few)
        whole, eta = trees.jitted(widened, data.X.shape[1], part, own, few[1])
        given = problem, data, lane.weights, lane.scaling, few[0]
        looks.append(trees.jitted(_looks, *given, whole, eta, few[2]))
    looks = trees.fetched(looks)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(lams)], *looks)


def stretch_of(folds: int, inputs: int) -> int:
    """How many lams are solved at a time, in so many inputs."""
    return _looked_at(folds) * (LONG if inputs <= SMALLEST else 1)


def _looked_at(folds: int) -> int:
    """How many lams are looked at at a time."""
    return max(2, LANES // folds)


def _looks(problem, data, weights, scaling, lams, params, eta, step) -> Found:
    def one(weights, scaling, lam, params, eta, step) -> Found:
        here, a = rescaled(data, scaling), weights / jnp.sum(weights)
        look = certificates.look_at(problem, here, a, params, eta)
        look = certificates.refit(problem, here, a, lam, look)
        found = certificates.certificate(problem, here, a, lam, look)
        kkt = objective.kkt_residual(problem, look.params, found.grad, lam, step)
        pushed = jax.tree.map(jnp.negative, found.grad)
        moved = problem.penalty.prox(pushed, lam, 1.0)[0]["w"]
        return Found(look.params, found, kkt, jnp.any(moved != 0, axis=1))

    folds = jax.vmap(one, in_axes=(0, 0, None, 0, 0, 0))
    return jax.vmap(lambda *own: folds(weights, scaling, *own))(lams, params, eta, step)
