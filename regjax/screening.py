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

from regjax import certificates, conditioning, models, objective, trees, workers
from regjax.free_block import rescaled
from regjax.penalties.extent import of_inputs
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
SHARE = 0.9  # of the tolerance is for the working set, the rest for all others


class Part(NamedTuple):
    """A problem of some inputs only.

    Attributes:
      problem: linear in m inputs.
      data: of their columns.
      inputs: [m] which they are.
    """

    problem: Problem
    data: Data
    inputs: np.ndarray


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
        info)`, arrays [l, F, ...], by the engine; starts are [l, F, ...] for some
        inputs, [F, ...] for all.
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
    solved, second = jax.tree.map(lambda a: a[None], now), now
    solved_at, second_at = lams[:1], lams[0]

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
                done.append(solve(problem, data, lane, now, lams[at:], tell))
                break
            size = len(inputs)
            stretch = stretch[: stretch_of(count, size)]
            part, narrow = part_of(problem, data, inputs), _of_inputs(lane, inputs)
            ends, line = (_narrowed(tree, inputs, -2) for tree in (solved, second))
            begun = _starts(stretch, (ends, solved_at), (line, second_at))
            params, info = solve(part.problem, part.data, narrow, begun, stretch)
            if np.any(info.status == Status.running):
                break
            found = _look(problem, data, part, lane, stretch, params, info.step)
            good, info = _judge(found, info, inputs, tol)
            solved, solved_at = found.params, stretch
            second, second_at = now, before
            if good:
                done.append(trees.rows((found.params, info), slice(good)))
                now, grad = trees.rows((found.params, found.measured.grad), good - 1)
                before, missing, later = stretch[good - 1], none, none
            if good < len(stretch):
                failed = trees.rows(found, good)
                missing = missing | failed.enters.any(axis=0) | _nonzero(failed.params)
                later = np.logical_or.reduce(found.enters[good:], axis=(0, 1))
                second, second_at = now, before
            at += good
    if not done:
        raise KeyboardInterrupt
    return jax.tree.map(lambda *a: np.concatenate(a), *done)


def _starts(
    lams: np.ndarray,
    solved: tuple[Params, np.ndarray],
    second: tuple[Params, float],
) -> Params:
    """Where lams [l] begin, [l, F, ...].

    At their own params, where inputs were missing; else on the secant through the last
    that were solved and others, at most twice as far, without changes of sign.

    Args:
      lams: descending.
      solved: params [m, F, ...] of the lams [m] before, the last of which may be among
        these.
      second: params [F, ...] and lam.
    """
    (params, known), (others, at) = solved, second
    place = np.searchsorted(-known, -lams)
    own = np.isin(lams, known)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(lams / known[-1]) / np.log(known[-1] / at)
    ratio = np.where(np.isfinite(ratio) & ~own, np.clip(ratio, 0, 2), 0.0)

    def start(params: np.ndarray, other: np.ndarray) -> np.ndarray:
        near = params[np.where(own, place, -1)]
        far = ratio.reshape(-1, *[1] * other.ndim).astype(params.dtype)
        moved = near + far * (near - other)
        return np.where((moved * near > 0) | (far == 0), moved, 0).astype(params.dtype)

    return jax.tree.map(start, params, others)


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


def part_of(problem: Problem, data: Data, inputs: np.ndarray) -> Part:
    """Of these inputs, those first that are not penalised."""
    aid: Any = data.aid
    intercept = models.has_intercept(problem.model)
    problem = problem._replace(
        model=models.linear(len(inputs), data.y.shape[1], intercept),
        penalty=of_inputs(problem.penalty, inputs),
    )
    columns = np.cumsum(aid.moves.inputs >= 0) - 1  # the free ones come first
    aid = aid._replace(
        moves=aid.moves._replace(inputs=columns),
        metric=_narrowed(aid.metric, inputs),
        free=np.arange(aid.free.size, dtype=np.int32),
        null=aid.null * np.asarray(SHARE, aid.null.dtype),
    )
    data = data._replace(aid=aid)
    if data.XT is None:
        X = trees.jitted(_taken, data.X, inputs, 1)
        data = conditioning.with_turned(problem, data._replace(X=X))
    else:  # rows of X' are read at once, columns of X number by number
        XT = trees.jitted(_taken, data.XT, inputs, 0)
        data = data._replace(X=trees.jitted(jnp.transpose, XT))
        kept = conditioning.keeps_turned(problem, data)
        data = data._replace(XT=XT if kept else None)
    return Part(problem, data, inputs)


def _taken(X: Array, inputs: Array, axis: int) -> Array:
    return jnp.take(X, inputs, axis=axis)


def _of_inputs(lane: Lane, inputs: np.ndarray) -> Lane:
    if lane.scaling is None:
        return lane
    return lane._replace(scaling=tuple(a[:, inputs] for a in lane.scaling))


def _narrowed(params: Params, inputs: np.ndarray, axis: int = 0) -> Params:
    layer = params[0]
    return ({**layer, "w": np.take(layer["w"], inputs, axis)},)


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
    own, most = _of_inputs(lane, part.inputs).scaling, _looked_at(len(lane.weights))
    lams, looks = np.asarray(lams, data.X.dtype), []
    for begin in range(0, len(lams), most):
        few = trees.rows((lams, params, step), slice(begin, begin + most))
        # Filled up, so that all stretches share the programs.
        more = most - len(few[0])
        few = jax.tree.map(lambda a, n=more: np.concatenate([a, *[a[-1:]] * n]), few)
        whole, eta = trees.jitted(_widened, data.X.shape[1], part, own, few[1])
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


def _widened(p: int, part: Part, scaling: Any, params: Params) -> tuple[Params, Array]:
    """Params [l, F, ...] of a part as those of p inputs, and their eta."""

    def one(scaling, params) -> tuple[Params, Array]:
        small = rescaled(part.data, scaling)
        w = params[0]["w"]
        zero = jnp.zeros((p, w.shape[1]), w.dtype)
        eta = objective.linear_predictor(part.problem.model, params, small)
        return ({**params[0], "w": zero.at[part.inputs].set(w)},), eta

    folds = jax.vmap(one)
    return jax.vmap(lambda params: folds(scaling, params))(params)


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
