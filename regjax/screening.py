"""Many inputs: few are solved for, all are certified.

A stretch of lams is solved on a working set of inputs: those that are nonzero, and
those whose gradients are expected to come next. Then the duality gap over all inputs
is measured. Lams that meet the tolerance are done; the first that does not names the
inputs that were missing, those after it what comes next. Working sets have few sizes,
so that few programs are compiled.

Source: Johnson & Guestrin (2015), ICML.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from regjax import models, stretches, trees, workers
from regjax.parts import narrowed
from regjax.solvers.proximal_gradient import tolerance
from regjax.stretches import Found, Stretch
from regjax.types import (
    Data,
    Info,
    Lane,
    Method,
    Params,
    Problem,
    Status,
)

LEAST_INPUTS = 512
WIDE, LEAST_NUMBERS = 6, 2**18  # so many inputs a row, in an X of so many numbers
LARGE = 2**21  # numbers of any other X
SMALLEST, GROWTH = 64, 4  # sizes of working sets
LARGER, LESS_GROWTH = 256, 2  # from here on
ROOM = 1.25  # of a working set, times the inputs that are known to be needed
LONG = 2  # times as many lams at a time in the smallest sets


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
        info)`, arrays [l, F, ...], by the engine, of all inputs or what is too much
        for `stretches`; starts are [s, F, ...], one for all lams or one for each.
      on_progress: as of `lanes.run`.

    Returns:
      `(params, info)`, arrays [l, F, ...]; of fewer lams after a Ctrl-C.
    """
    count, at, done = len(lane.weights), 0, []
    tol = tolerance(method.tol, data.X.dtype) * float(data.aid.null)  # pyright: ignore
    now, before = jax.tree.map(lambda a: np.stack([a] * count), start), np.nan
    size, none = SMALLEST, np.zeros(data.X.shape[1], bool)
    missing = later = none
    ends = _upto(lams, _length(count, size))[[0, -1]].astype(data.X.dtype)
    given = problem, data, lane, now, *ends
    pushes = np.asarray(trees.jitted(stretches.first_pushes, *given))
    alone = jax.tree.map(lambda a: a[None], now)
    behind = Behind(alone, np.array([np.inf]), now, np.nan)
    rising = _rising(on_progress)

    def tell(more: float, *_: Any) -> None:
        rising(at * count + more, len(lams) * count, "lams")

    with workers.catch_interrupt() as interrupted:
        while at < len(lams) and not interrupted():
            tell(0)
            inputs = _choose(data, pushes, missing | _nonzero(now), later, size)
            if inputs is None:
                begun = jax.tree.map(lambda a: a[None], now)
                done.append(solve(problem, data, lane, begun, lams[at:], tell))
                break
            size = len(inputs)
            length = _length(count, size)
            few = lams[at : at + length]
            given = problem, data, lane, _stretch(lams, at, length, inputs, behind)
            found, info = stretches.solve(
                method, *given, partial(solve, on_progress=tell)
            )
            if np.any(info.status == Status.running):
                break
            data = _paced(data, inputs, info)
            found, info = trees.rows((found, info), slice(len(few)))
            good, found, info = _judge(found, info, inputs, tol)
            behind = Behind(found.params, few, now, before)
            if good:
                done.append(trees.rows((found.params, info), slice(good)))
                now, pushes = trees.rows((found.params, found.pushes), good - 1)
                before, missing, later = few[good - 1], none, none
            if good < len(few):
                failed = trees.rows(found, good)
                missing = missing | failed.enters.any(axis=0) | _nonzero(failed.params)
                later = np.any(found.enters[good:], axis=(0, 1))
                behind = behind._replace(second=now, at=before)
            at += good
    if not done:
        raise KeyboardInterrupt
    return jax.tree.map(lambda *a: np.concatenate(a), *done)


def _rising(on_progress: Callable | None) -> Callable[[float, int, str], None]:
    """Progress that never falls, though a lam may be solved again."""
    most = 0.0

    def tell(done: float, total: int, label: str) -> None:
        nonlocal most
        most = max(most, min(done, total))
        if on_progress is not None:
            on_progress(most, total, label)

    return tell


def _stretch(
    lams: np.ndarray, at: int, length: int, inputs: np.ndarray, behind: Behind
) -> Stretch:
    """The next lams, from at on, in these inputs; the last is repeated.

    Those that were solved before begin at their own params, others on the secant.
    """
    lams, ahead = _upto(lams[at:], length), _upto(lams[at:], 2 * length)[length:]
    known, dtype = behind.lams, behind.second[0]["w"].dtype
    own, place = np.isin(lams, known), np.searchsorted(-known, -lams)
    near = trees.rows(behind.params, np.where(own, place, -1))
    last = np.where(own, lams, known[-1])
    numbers = (a.astype(dtype) for a in (lams, ahead, last, np.asarray(behind.at)))
    lams, ahead, last, second = numbers
    return Stretch(inputs, lams, ahead, near, last, behind.second, second)


def _upto(lams: np.ndarray, length: int) -> np.ndarray:
    """So many of them, the last repeated."""
    return lams[np.minimum(np.arange(length), len(lams) - 1)]


def _paced(data: Data, inputs: np.ndarray, info: Info) -> Data:
    """Data whose next steps begin as long as the last ones of a stretch.

    The bound that the first began with is loose, ten times and more where losses
    saturate, and steps are slow to forget it.
    """
    aid: Any = data.aid
    sizes = jax.tree.leaves(narrowed(aid.metric, inputs))
    step = float(np.min(info.step[-1])) * max(float(np.max(m)) for m in sizes)
    most = float(aid.curvature)
    first = min(1 / step, most) if step > 0 else most
    first = np.asarray(first, aid.curvature.dtype)
    return data._replace(aid=aid._replace(first=first))


def _judge(
    found: Found, info: Info, inputs: np.ndarray, tol: float
) -> tuple[int, Found, Info]:
    """How many lams are done, and what is known of all of them.

    A lam is not done where the gap is above the tolerance and an input outside of the
    working set would leave 0.
    """
    enters = np.array(found.enters)
    enters[..., inputs] = False
    fair = (info.status == Status.converged) | (info.status == Status.floor)
    measured = found.measured
    loose = fair & (measured.gap > tol)
    again = loose.any(axis=1) & enters.any(axis=(1, 2))
    status = np.where(loose, Status.floor, info.status)
    status = np.where(fair & ~loose, Status.converged, status).astype(np.int32)
    good = int(np.argmax(np.append(again, True)))
    names = "gap", "loss", "penalty", "objective"
    values = {name: getattr(measured, name) for name in names}
    info = info._replace(**values, kkt=found.kkt, status=status)
    return good, found._replace(enters=enters), info


def _nonzero(params: Params) -> np.ndarray:
    """Which inputs any fold uses, [p] bool."""
    w = params[0]["w"]
    return (w != 0).any(axis=(0, 2))


def _choose(
    data: Data, pushes: np.ndarray, needed: np.ndarray, later: np.ndarray, size: int
) -> np.ndarray | None:
    """The next working set, of pushes [F, p]; None: all inputs.

    It is no smaller than `size`, that of the set before, and has all that is needed;
    what would enter later [p] as well if it grows by a step at most, else if there is
    room.
    """
    free = data.aid.moves.inputs  # pyright: ignore
    free = free[free >= 0]
    needed[free] = True
    both, most = needed | later, min(_size(size, size), needed.size // 2)
    if _size(size, both.sum()) <= most:
        needed = both
    size = _size(size, needed.sum())
    if 2 * size > needed.size:
        return None
    push = pushes.max(axis=0)
    rank = np.where(needed, np.inf, push + later * push.max())
    chosen = np.zeros(needed.size, bool)
    chosen[np.argpartition(-rank, size)[:size]] = True
    chosen[free] = False
    return np.concatenate([free, np.flatnonzero(chosen)])[:size]


def _size(before: int, needed: int) -> int:
    """Of a working set that has room for more than is needed."""
    while before < needed * ROOM:
        before *= GROWTH if before < LARGER else LESS_GROWTH
    return before


def _length(folds: int, inputs: int) -> int:
    """How many lams are solved at a time, in so many inputs."""
    return stretches.looked_at(folds) * (LONG if inputs <= SMALLEST else 1)
