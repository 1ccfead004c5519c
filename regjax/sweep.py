"""From a task to solved lanes: what `fit_path` and `cross_validate` share.

`grid_of` finds the lams, `solve` hands lam x fold x seed to the engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from regjax import (
    assembly,
    brackets,
    grids,
    lanes,
    screening,
    side_by_side,
    trees,
    workers,
)
from regjax.progress import progress_bar
from regjax.solvers import gram
from regjax.task import DIRECTIONS, Task
from regjax.types import Data, Info, Lane, Params, Problem, Status

LAMS_A_CHAIN, CHAINS = 8, 32


class Folds(NamedTuple):
    """What lanes of different folds do not share.

    Attributes:
      weights: [F, n] sample weights.
      scaling: `(center, scale)` [F, p], of the columns as `ground` has them; or None.
    """

    weights: np.ndarray
    scaling: tuple[np.ndarray, np.ndarray] | None


class Work(NamedTuple):
    """Lanes of one problem; as of `lanes.run`."""

    problem: Problem
    data: Data
    lanes: Lane
    starts: Params
    chains: Sequence[np.ndarray]


def warm(task: Task) -> Task:
    """Where all lams of a seed start from one model trained at lam 0, with that.

    Raises:
      KeyboardInterrupt: it was stopped.
      ValueError: training diverged.
    """
    if not task.dense:
        return task
    params, info = _run(task, np.zeros(1), None, task.seeds)
    if np.any(info.status == Status.running):
        raise KeyboardInterrupt
    if np.any(info.status == Status.diverged):
        raise ValueError("init: training the dense model at lam 0 diverged")
    return task._replace(ground=task.ground._replace(starts=params))


def grid_of(task: Task) -> np.ndarray:
    """The lams, [L] descending: those given, or an automatic grid over all rows.

    Raises:
      ValueError: no automatic grid.
    """
    if not isinstance(task.wanted, int):
        return task.wanted
    ground, problem = task.ground, task.problem
    own = jax.tree.map(lambda a: a[0], ground.own)
    ratio = grids.ratio_for(*ground.data.X.shape[:2])
    if grids.has_null_model(problem):
        top = grids.top(ground.start, ground.data.X.dtype)
        return grids.geometric(top, ratio, task.wanted)
    given = ground.start.slope, ground.null, functools.partial(_coarse, task)
    return brackets.bracketed(problem, own, *given, ratio, task.wanted)


def _coarse(task: Task, lams: np.ndarray, seeds: int) -> tuple[Params, Info]:
    return _run(task._replace(seeds=seeds), lams, None, task.count * task.seeds)


def solve(
    task: Task, lams: np.ndarray, folds: Folds | None = None
) -> tuple[Params, Info, np.ndarray]:
    """All lanes of a grid.

    Args:
      task: of `prepare`.
      lams: [L].
      folds: None for one fold of all rows.

    Returns:
      `(params, info, finished [L])`, arrays [l, F, seeds, ...] of the l finished lams.

    Raises:
      KeyboardInterrupt: no lam has finished.
    """
    copies = (1 if folds is None else len(folds.weights)), task.seeds
    params, info = _run(task, lams, folds, len(lams) * copies[0] * copies[1])
    return assembly.unflatten(params, info, len(lams), copies)


def run_lanes(
    task: Task,
    problem: Problem,
    data: Data,
    many: Lane,
    starts: Params,
    chains: Sequence[np.ndarray],
) -> tuple[Params, Info]:
    """Lanes [N] of a problem and rows that are not the task's own."""
    workers.stop_if_interrupted()
    with progress_bar(task.progress) as tell:
        work = Work(problem, data, many, starts, chains)
        return _engine(task, work, len(many.lam), tell)


def _run(
    task: Task, lams: np.ndarray, folds: Folds | None, room: int
) -> tuple[Params, Info]:
    """Lanes [N]: lam by lam, within a lam fold by fold, within a fold seed by seed."""
    workers.stop_if_interrupted()
    ground, lane = task.ground, task.ground.lane
    if folds is not None:
        lane = lane._replace(weights=folds.weights, scaling=folds.scaling)
    plain = task.chains is None and task.direction == DIRECTIONS[0] and task.seeds == 1
    fits = screening.applies(task.solver, task.problem, ground.data)
    with progress_bar(task.progress) as tell:
        if plain and fits and len(lams) > 1:
            return _screened(task, lane, lams, tell)
        many = _lanes(lane, lams, task.seeds, ground.data.X.dtype)
        given = task.problem, ground.data, many, ground.starts
        quick = gram.applies(task.solver, *given[:3])
        chains = _chains(task, len(lams), len(many.lam) // len(lams), quick)
        return _engine(task, Work(*given, chains), room, tell)


def _lanes(lane: Lane, lams: np.ndarray, seeds: int, dtype: Any) -> Lane:
    """Of every lam, fold and seed, [N]."""
    folds = len(lane.weights) if np.ndim(lane.weights) == 2 else 1
    each = np.meshgrid(lams, np.arange(folds), np.arange(seeds), indexing="ij")
    lam, fold, seed = (a.reshape(-1) for a in each)
    return lane._replace(lam=lam.astype(dtype), seed=seed, fold=fold)


def _engine(
    task: Task, work: Work, room: int, tell: Callable | None
) -> tuple[Params, Info]:
    """Side by side where there is a Gram matrix, and the rest by slots."""
    wanted = 1 if room == 1 else len(work.chains)
    if not gram.applies(task.solver, *work[:3]):
        return _by_slots(task, work, wanted, room, tell)
    work = work._replace(data=gram.with_matrix(work.data, work.lanes))
    limits = gram.limits(work.data)
    with workers.catch_interrupt() as interrupted:
        found = side_by_side.run(task.solver.build, *work, limits)
        left = found[1].status == Status.running
        done = int(np.sum(~left))

        def tell_all(more: float, _: int, label: str) -> None:
            if tell is not None:
                tell(done + more, len(left), label)

        tell_all(0, 0, "lams")
    if done == len(left) or interrupted():
        return found
    chains = [chain[left[chain]] for chain in work.chains if left[chain].any()]
    if task.chains is None:  # the hard lams are side by side
        cut = [np.array_split(c, -(-len(c) // LAMS_A_CHAIN)) for c in chains]
        chains = [part for parts in cut for part in parts]
    rest = _by_slots(task, _gone_on(work, found[0], chains), wanted, room, tell_all)

    def filled(a: np.ndarray, values: np.ndarray) -> np.ndarray:
        a = a.copy()
        a[left] = values
        return a

    return jax.tree.map(filled, found, rest)


def _gone_on(work: Work, params: Params, chains: Sequence[np.ndarray]) -> Work:
    """Some chains of it, each from what its first lane has reached."""
    seed, kept = work.lanes.seed.copy(), np.sort(np.concatenate(chains))
    for chain in chains:
        seed[chain] = chain[0]
    few = work.lanes._replace(
        lam=work.lanes.lam[kept], seed=seed[kept], fold=work.lanes.fold[kept]
    )
    chains = [np.searchsorted(kept, chain) for chain in chains]
    return work._replace(lanes=few, starts=params, chains=chains)


def _by_slots(
    task: Task, work: Work, wanted: int, room: int, tell: Callable | None
) -> tuple[Params, Info]:
    one = jax.tree.map(lambda a: a[0], work.starts)
    slots = lanes.slots_for(task.solver, work.problem, work.data, one, wanted)
    # A stream of its own, so that no start shares its bits with the batches.
    key = trees.jitted(jax.random.fold_in, task.key, np.uint32(2**32 - 1))
    return lanes.run(task.solver, *work, key, slots, room=room, on_progress=tell)


def _screened(
    task: Task, lane: Lane, lams: np.ndarray, tell: Callable | None
) -> tuple[Params, Info]:
    """By working sets of inputs; lanes that are not finished have status `running`."""
    lane = lane._replace(weights=np.atleast_2d(lane.weights))
    folds, data = len(lane.weights), task.ground.data

    def solve(problem, rows, lane, starts, lams, on_progress=None):
        if folds == 1:
            lane = lane._replace(weights=lane.weights[0])
        many = _lanes(lane, lams, 1, data.X.dtype)
        kept = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), starts)
        seed = np.arange(len(many.lam)) % len(jax.tree.leaves(kept)[0])
        many = many._replace(seed=seed)  # each fold has a start of its own, or lam too
        # Lams with starts of their own are chains of their own.
        apart = len(jax.tree.leaves(starts)[0]) > 1
        own = task._replace(chains=len(lams)) if apart else task
        work = Work(problem, rows, many, kept, _chains(own, len(lams), folds))
        found = _engine(own, work, len(many.lam), on_progress)
        return jax.tree.map(lambda a: a.reshape(len(lams), folds, *a.shape[1:]), found)

    start = jax.tree.map(lambda a: a[0], task.ground.starts)
    # Numbers that only build the penalty again would be arguments of all programs.
    penalty = task.problem.penalty._replace(config=None)
    problem = task.problem._replace(penalty=penalty)
    given = task.solver, problem, data, lane, start, lams
    found = screening.run(*given, solve, tell)
    left = len(lams) - len(found[1].status)

    def flat(a: np.ndarray) -> np.ndarray:
        a = np.pad(a, [(0, left)] + [(0, 0)] * (a.ndim - 1))
        return a.reshape(-1, *a.shape[2:])

    params, info = jax.tree.map(flat, found)
    info.status[len(info.status) - left * folds :] = Status.running
    return params, info


def _chains(
    task: Task, count: int, copies: int, quick: bool = False
) -> list[np.ndarray]:
    """Numbers of lanes: the chains of the smallest lams, the longest work, first."""
    chains = task.chains
    if chains is None:
        chains = count
        if grids.is_convex(task.problem):
            # A few warm starts pay; many of them, once there are chains enough.
            least = gram.lams_a_chain(task.ground.data) if quick else LAMS_A_CHAIN
            length = max(least, count * copies // CHAINS)
            chains = -(-count // length)
        elif grids.has_null_model(task.problem):
            chains = 1  # each lam from its neighbour: one branch of local minima
    parts: Sequence[np.ndarray] = np.array_split(np.arange(count), min(chains, count))
    if chains < count:
        parts = parts[::-1]
    if task.direction == "dense_to_sparse":
        parts = [part[::-1] for part in parts]
    return [part * copies + copy for part in parts for copy in range(copies)]
