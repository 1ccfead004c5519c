"""From checked input to solved lanes: what `fit_path` and `cross_validate` share.

`prepare` checks everything and measures the null model, `grid_of` finds the lams,
`solve` hands lam x fold x seed to the engine, `assemble` makes a Path of one fold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from regjax import brackets, conditioning, grids, inputs, lanes, screening, solvers
from regjax.ground import Ground, find_ground
from regjax.names import one_of, whole_number
from regjax.progress import progress_bar
from regjax.results import Path
from regjax.types import Data, Info, Lane, Method, Params, Problem, Status

DIRECTIONS = ("sparse_to_dense", "dense_to_sparse")
LAMS_A_CHAIN, CHAINS = 8, 32


class Task(NamedTuple):
    """What the sweeps of one call share.

    Attributes:
      problem: the equation.
      solver: the method.
      ground: data, starts and null model.
      key: of starts and batches.
      seeds: starting points per lam.
      wanted: how many lams, or which.
      chains: per fold and seed, or None.
      direction: of the chains.
      progress: as `fit_path` takes it.
      center: [p] taken off the columns by `standardize`; None: nothing.
      scale: [p] they were divided by.
      has_offset: whether there is one.
      feature_names: of a data frame's columns.
      dense: whether `warm` is to train what all lams start from.
    """

    problem: Problem
    solver: Method
    ground: Ground
    key: Any
    seeds: int
    wanted: int | np.ndarray
    chains: int | None
    direction: str
    progress: Any
    center: np.ndarray | None
    scale: np.ndarray | None
    has_offset: bool
    feature_names: tuple[str, ...] | None
    dense: bool = False

    @property
    def count(self) -> int:
        """How many lams."""
        return self.wanted if isinstance(self.wanted, int) else len(self.wanted)


class Folds(NamedTuple):
    """What lanes of different folds do not share.

    Attributes:
      weights: [F, n] sample weights.
      scaling: `(center, scale)` [F, p], of the columns as `ground` has them; or None.
    """

    weights: np.ndarray
    scaling: tuple[np.ndarray, np.ndarray] | None


def prepare(
    problem: Problem,
    X: Any,
    y: Any,
    lams: Any,
    *,
    solver: Method | None,
    chains: int | None,
    direction: str,
    seeds: int,
    sample_weight: Any,
    offset: Any,
    standardize: bool,
    init: Params | str | None,
    key: Any,
    progress: Any,
    validation: Any = None,
    few_rows: bool = False,
) -> Task:
    """Check everything; arguments as of `fit_path` and `find_ground`.

    Raises:
      ValueError: input that cannot be used; the message names the argument.
    """
    problem = inputs.check_problem(problem)
    wanted = inputs.check_lams(lams)
    count = wanted if isinstance(wanted, int) else len(wanted)
    seeds = whole_number("seeds", seeds)
    chains = None if chains is None else inputs.check_chains(chains, count)
    direction = one_of("direction", direction, DIRECTIONS)
    data, weights = inputs.check_data(problem, X, y, sample_weight, offset)
    solver = pick_solver(problem) if solver is None else solver
    solver = inputs.check_solver(solver, data.X.dtype)
    center = scale = None
    if standardize:
        raw = np.asarray(data.X)
        center, scale = inputs.standardisation(raw, weights)
        scaled = ((raw - center) / scale).astype(raw.dtype)
        data = data._replace(X=scaled)
    if validation is not None:
        held_out = inputs.check_validation(problem, validation, data, center, scale)
        if not solver.rounds:
            raise ValueError(
                "validation: only training by minibatches stops early: "
                "solver=rj.solvers.minibatch()"
            )
        data = data._replace(validation=held_out)
    key = inputs.check_key(key)
    dense = isinstance(init, str)
    if dense:
        one_of("init", init, ("dense",))
        init = None
    asked = init, key, seeds, solver.reduces, solver.reduces and few_rows
    return Task(
        problem=problem,
        solver=solver,
        ground=find_ground(problem, data, weights, *asked),
        key=key,
        seeds=seeds,
        wanted=wanted,
        chains=chains,
        direction=direction,
        progress=progress,
        center=center,
        scale=scale,
        has_offset=offset is not None,
        feature_names=tuple(map(str, X.columns)) if hasattr(X, "columns") else None,
        dense=dense,
    )


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


def pick_solver(problem: Problem) -> Method:
    """What `solver=None` means: full batch where the loss is convex in params."""
    if grids.has_null_model(problem):
        return solvers.proximal_gradient()
    return solvers.minibatch()


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
    return unflatten(params, info, len(lams), copies)


def unflatten(
    params: Params, info: Info, count: int, copies: tuple[int, ...]
) -> tuple[Params, Info, np.ndarray]:
    """Lanes [N], lam by lam, as `[l, *copies]` of the lams that are finished.

    Returns:
      `(params, info, finished [count])`.

    Raises:
      KeyboardInterrupt: no lam has finished.
    """
    done = info.status.reshape(count, -1) != Status.running
    finished = done.all(axis=1)
    if not finished.any():
        raise KeyboardInterrupt

    def apart(a: np.ndarray) -> np.ndarray:
        return a.reshape(count, *copies, *a.shape[1:])[finished]

    params, info = jax.tree.map(apart, (params, info))
    return params, info, np.asarray(finished)


def run_lanes(
    task: Task,
    problem: Problem,
    data: Data,
    many: Lane,
    starts: Params,
    chains: Sequence[np.ndarray],
) -> tuple[Params, Info]:
    """Lanes [N] of a problem and rows that are not the task's own."""
    with progress_bar(task.progress) as tell:
        return _engine(task, problem, data, many, starts, chains, len(many.lam), tell)


def _run(
    task: Task, lams: np.ndarray, folds: Folds | None, room: int
) -> tuple[Params, Info]:
    """Lanes [N]: lam by lam, within a lam fold by fold, within a fold seed by seed."""
    ground, lane = task.ground, task.ground.lane
    if folds is not None:
        lane = lane._replace(weights=folds.weights, scaling=folds.scaling)
    plain = task.chains is None and task.direction == DIRECTIONS[0] and task.seeds == 1
    fits = screening.applies(task.solver, task.problem, ground.data)
    with progress_bar(task.progress) as tell:
        if plain and fits and len(lams) > 1:
            return _screened(task, lane, lams, tell)
        many = _lanes(lane, lams, task.seeds, ground.data.X.dtype)
        chains = _chains(task, len(lams), len(many.lam) // len(lams))
        given = task.problem, ground.data, many, ground.starts, chains
        return _engine(task, *given, room, tell)


def _lanes(lane: Lane, lams: np.ndarray, seeds: int, dtype: Any) -> Lane:
    """Of every lam, fold and seed, [N]."""
    folds = len(lane.weights) if np.ndim(lane.weights) == 2 else 1
    each = np.meshgrid(lams, np.arange(folds), np.arange(seeds), indexing="ij")
    lam, fold, seed = (a.reshape(-1) for a in each)
    return lane._replace(lam=lam.astype(dtype), seed=seed, fold=fold)


def _engine(
    task: Task,
    problem: Problem,
    data: Data,
    many: Lane,
    starts: Params,
    chains: Sequence[np.ndarray],
    room: int,
    tell: Callable | None,
) -> tuple[Params, Info]:
    one = jax.tree.map(lambda a: a[0], starts)
    slots = lanes.slots_for(task.solver, problem, data, one, room)
    # A stream of its own, so that no start shares its bits with the batches.
    key = jax.random.fold_in(task.key, np.uint32(2**32 - 1))
    given = task.solver, problem, data, many, starts, chains, key, slots
    return lanes.run(*given, room=room, on_progress=tell)


def _screened(
    task: Task, lane: Lane, lams: np.ndarray, tell: Callable | None
) -> tuple[Params, Info]:
    """By working sets of inputs; lanes that are not finished have status `running`."""
    lane = lane._replace(weights=np.atleast_2d(lane.weights))
    folds, data = len(lane.weights), task.ground.data

    def solve(problem, part, lane, starts, lams, on_progress=None):
        if folds == 1:
            lane = lane._replace(weights=lane.weights[0])
        many = _lanes(lane, lams, 1, data.X.dtype)
        many = many._replace(seed=many.fold)  # each fold has a start of its own
        own = task._replace(chains=len(lams)) if part is not data else task
        chains = _chains(own, len(lams), folds)
        given = task, problem, part, many, starts, chains, len(many.lam)
        found = _engine(*given, on_progress)
        return jax.tree.map(lambda a: a.reshape(len(lams), folds, *a.shape[1:]), found)

    start = jax.tree.map(lambda a: a[0], task.ground.starts)
    given = task.solver, task.problem, data, lane, start, lams
    found = screening.run(*given, solve, tell)
    left = len(lams) - len(found[1].status)

    def flat(a: np.ndarray) -> np.ndarray:
        a = np.pad(a, [(0, left)] + [(0, 0)] * (a.ndim - 1))
        return a.reshape(-1, *a.shape[2:])

    params, info = jax.tree.map(flat, found)
    info.status[len(info.status) - left * folds :] = Status.running
    return params, info


def _chains(task: Task, count: int, copies: int) -> list[np.ndarray]:
    """Numbers of lanes: the chains of the smallest lams, the longest work, first."""
    chains = task.chains
    if chains is None:
        chains = count
        if grids.is_convex(task.problem):
            # A few warm starts pay; many of them, once there are chains enough.
            length = max(LAMS_A_CHAIN, count * copies // CHAINS)
            chains = -(-count // length)
        elif grids.has_null_model(task.problem):
            chains = 1  # each lam from its neighbour: one branch of local minima
    parts: Sequence[np.ndarray] = np.array_split(np.arange(count), min(chains, count))
    if chains < count:
        parts = parts[::-1]
    if task.direction == "dense_to_sparse":
        parts = [part[::-1] for part in parts]
    return [part * copies + copy for part in parts for copy in range(copies)]


def assemble(task: Task, lams: np.ndarray, params: Params, info: Info) -> Path:
    """A Path of lanes [L, seeds, ...], all finished."""
    ground = task.ground
    if task.seeds == 1:
        params, info = jax.tree.map(lambda a: a[:, 0], (params, info))
    if ground.mean is not None:
        params = conditioning.move_intercept(params, ground.mean, -1.0)
    info = _mark_degenerate(info, ground)
    return Path(
        lams=lams.astype(ground.data.X.dtype),
        params=params,
        **info._asdict(),
        dev_ratio=dev_ratio(np.asarray(info.loss), ground.null, ground.saturated),
        null_loss=ground.null,
        saturated_loss=ground.saturated,
        seeds=task.seeds,
        problem=task.problem,
        center=task.center,
        scale=task.scale,
        has_offset=task.has_offset,
        feature_names=task.feature_names,
    )


def _mark_degenerate(info: Info, ground: Ground) -> Info:
    """Where the null model is perfect already, to rounding."""
    rounding = 8 * float(np.finfo(info.loss.dtype).eps) * (1 + abs(ground.null))
    if ground.null - ground.saturated > rounding:
        return info
    degenerate = np.int32(Status.degenerate)
    fitted = np.isin(info.status, (Status.converged, Status.floor))
    return info._replace(status=np.where(fitted, degenerate, info.status))


def dev_ratio(loss: np.ndarray, null: float, saturated: float) -> np.ndarray:
    """1 - deviance / null deviance; 0 where the null model is already perfect."""
    room = null - saturated
    if not room > 0:
        return np.zeros_like(loss)
    return 1 - (loss - saturated) / room
