"""From checked input to solved lanes: what `fit_path` and `cross_validate` share.

`prepare` checks everything and measures the null model, `grid_of` finds the lams,
`solve` hands lam x fold x seed to the engine, `assemble` makes a Path of one fold.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import conditioning, grids, inputs, lanes, solvers
from regjax.ground import Ground, find_ground
from regjax.names import one_of, whole_number
from regjax.progress import progress_bar
from regjax.results import Path
from regjax.types import Info, Method, Params, Problem, Status

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
    init: Params | None,
    key: Any,
    progress: Any,
) -> Task:
    """Check everything; arguments as of `fit_path`.

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
        data = data._replace(X=jnp.asarray(scaled))
    key = inputs.check_key(key)
    return Task(
        problem=problem,
        solver=solver,
        ground=find_ground(problem, data, weights, init, key, seeds, solver.centred),
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
    )


def pick_solver(problem: Problem) -> Method:
    """What `solver=None` means: full batch where convex, else minibatch."""
    if grids.is_convex(problem):
        return solvers.proximal_gradient()
    return solvers.minibatch()


def grid_of(task: Task) -> np.ndarray:
    """The lams, [L] descending: those given, or an automatic grid over all rows.

    Raises:
      ValueError: no automatic grid.
    """
    if not isinstance(task.wanted, int):
        return task.wanted
    ground = task.ground
    own = jax.tree.map(lambda a: a[0], ground.own)
    shares = ground.lane.weights / ground.lane.weights.sum()
    slope = float(ground.lane.scale)
    sweep = functools.partial(_coarse, task)
    args = (ground.free, slope, ground.null, sweep)
    top = grids.top(task.problem, own, ground.data, shares, *args)
    n, p = ground.data.X.shape[:2]
    return grids.geometric(top, grids.ratio_for(n, p), task.wanted)


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
    done = info.status.reshape(len(lams), -1) != Status.running
    finished = done.all(axis=1)
    if not finished.any():
        raise KeyboardInterrupt

    def apart(a: np.ndarray) -> np.ndarray:
        return a.reshape(len(lams), *copies, *a.shape[1:])[finished]

    params, info = jax.tree.map(apart, (params, info))
    return params, info, np.asarray(finished)


def _run(
    task: Task, lams: np.ndarray, folds: Folds | None, room: int
) -> tuple[Params, Info]:
    """Lanes [N]: lam by lam, within a lam fold by fold, within a fold seed by seed."""
    ground, seeds = task.ground, task.seeds
    count, copies = len(lams), seeds
    lane = ground.lane
    if folds is not None:
        copies *= len(folds.weights)
        lane = lane._replace(weights=folds.weights, scaling=folds.scaling)
    lane = lane._replace(
        lam=np.repeat(lams, copies).astype(ground.data.X.dtype),
        seed=np.tile(np.arange(seeds), count * copies // seeds),
        fold=np.tile(np.repeat(np.arange(copies // seeds), seeds), count),
    )
    one = jax.tree.map(lambda a: a[0], ground.starts)
    slots = lanes.slots_for(task.solver, task.problem, ground.data, one, room)
    # A stream of its own, so that no start shares its bits with the batches.
    order_key = jax.random.fold_in(task.key, np.uint32(2**32 - 1))
    with progress_bar(task.progress) as on_progress:
        return lanes.run(
            task.solver,
            task.problem,
            ground.data,
            lane,
            ground.starts,
            _chains(task, count, copies),
            order_key,
            slots,
            room=room,
            on_progress=on_progress,
        )


def _chains(task: Task, count: int, copies: int) -> list[np.ndarray]:
    """Numbers of lanes: the chains of the smallest lams, the longest work, first."""
    chains = task.chains
    if chains is None:
        chains = count
        if grids.is_convex(task.problem):
            # A few warm starts pay; many of them, once there are chains enough.
            length = max(LAMS_A_CHAIN, count * copies // CHAINS)
            chains = -(-count // length)
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
        dev_ratio=_dev_ratio(np.asarray(info.loss), ground.null, ground.saturated),
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
    converged = info.status == Status.converged
    return info._replace(status=np.where(converged, degenerate, info.status))


def _dev_ratio(loss: np.ndarray, null: float, saturated: float) -> np.ndarray:
    """1 - deviance / null deviance; 0 where the null model is already perfect."""
    room = null - saturated
    if not room > 0:
        return np.zeros_like(loss)
    return 1 - (loss - saturated) / room
