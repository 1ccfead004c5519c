"""`fit` and `fit_path`: one lam, or a whole path of them at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import certificates, conditioning, grids, inputs, lanes, solvers, trees
from regjax.ground import Ground, find_ground
from regjax.names import one_of, whole_number
from regjax.progress import progress_bar
from regjax.results import Fit, Path
from regjax.types import Info, Method, Params, Problem, Status

DIRECTIONS = ("sparse_to_dense", "dense_to_sparse")
LAMS_A_CHAIN = 8


def fit(
    problem: Problem,
    X: Any,
    y: Any,
    lam: float,
    *,
    solver: Method | None = None,
    sample_weight: Any = None,
    offset: Any = None,
    standardize: bool = False,
    init: Params | None = None,
    key: Any = None,
) -> Fit:
    """Minimise F(params; lam) for one lam: seed 0 of `fit_path` with the same key.

    Args:
      problem: the equation.
      X: [n, p] inputs; more axes if the model takes them.
      y: [n] or [n, k], as the loss takes it.
      lam: [] weight of the penalty, >= 0.
      solver: see `fit_path`.
      sample_weight: see `fit_path`.
      offset: see `fit_path`.
      standardize: see `fit_path`.
      init: see `fit_path`.
      key: see `fit_path`.

    Returns:
      A Fit: params and what `Path` says of one lam.

    Raises:
      ValueError: input that cannot be used; the message names the argument.
    """
    lam = inputs.check_lam(lam)
    path = fit_path(
        problem,
        X,
        y,
        lams=np.array([lam]),
        solver=solver,
        sample_weight=sample_weight,
        offset=offset,
        standardize=standardize,
        init=init,
        key=key,
    )
    return path[0]


def fit_path(
    problem: Problem,
    X: Any,
    y: Any,
    lams: Any = 100,
    *,
    solver: Method | None = None,
    chains: int | None = None,
    direction: str = "sparse_to_dense",
    seeds: int = 1,
    sample_weight: Any = None,
    offset: Any = None,
    standardize: bool = False,
    init: Params | None = None,
    key: Any = None,
    progress: bool | Callable[[float, int, str], None] = False,
) -> Path:
    """Minimise F(params; lam) for many lams at once.

    Args:
      problem: the equation.
      X: [n, p] inputs; more axes if the model takes them. float64 is kept if jax
        has 64 bits on.
      y: [n] or [n, k], as the loss takes it.
      lams: how many, on an automatic geometric grid (see `regjax.grids`); or which,
        [L], all kept, sorted descending.
      solver: from `regjax.solvers`. None picks `proximal_gradient()` for an affine
        model with a convex loss and penalty, where it certifies every lam by a
        duality gap; else `minibatch()`, which ends with a polish.
      chains: into how many chains of neighbouring lams the path is cut. Within a
        chain each lam starts from the one before; chains run side by side. 1 is
        glmnet's path. None: chains of about 8 where convex, else one per lam.
      direction: of every chain: "sparse_to_dense", from the largest lam, or
        "dense_to_sparse".
      seeds: how many starting points per lam. Seed s starts from
        `model.init(fold_in(key, s))` (a convex problem from its null model); all
        lams of a seed share that start and all lanes share their batches. So with
        one lam per chain adding a lam or a seed changes no other, bitwise (but for
        a lane all alone, whose program is narrower: to rounding).
      sample_weight: [n], >= 0; the loss is the weighted mean. None for 1.
      offset: [n] or [n, k], added to the linear predictor and not fitted.
      standardize: fit on columns of weighted mean 0 and standard deviation 1 (1/n).
        The path keeps both, so that `predict` takes raw X and `coef` is in raw
        units; `params` are those of the standardised problem.
      init: params to start from instead of the model's own.
      key: a jax.random key; None for `jax.random.key(0)`.
      progress: show a bar (needs tqdm), or a function `(done, total, label)`.

    Returns:
      A Path. After a Ctrl-C it holds the lams that had finished; if none had,
      KeyboardInterrupt goes on.

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
    ground = find_ground(problem, data, weights, init, key, seeds, solver.centred)

    sweep = functools.partial(
        _sweep, _Task(solver, problem, ground, key, chains, direction, count, progress)
    )
    if isinstance(wanted, int):
        top = _top(problem, ground, sweep)
        n, p = data.X.shape[:2]
        wanted = grids.geometric(top, grids.ratio_for(n, p), wanted)
    params, info, finished = _by_lam(sweep(wanted, seeds), seeds)
    if ground.mean is not None:
        params = conditioning.move_intercept(params, ground.mean, -1.0)
    info = _mark_degenerate(info, ground)
    return Path(
        lams=wanted[finished].astype(data.X.dtype),
        params=params,
        **info._asdict(),
        dev_ratio=_dev_ratio(np.asarray(info.loss), ground.null, ground.saturated),
        null_loss=ground.null,
        saturated_loss=ground.saturated,
        seeds=seeds,
        problem=problem,
        center=center,
        scale=scale,
        has_offset=offset is not None,
        feature_names=tuple(map(str, X.columns)) if hasattr(X, "columns") else None,
    )


def _mark_degenerate(info: Info, ground: Ground) -> Info:
    """Where the null model is perfect already, to rounding."""
    rounding = 8 * float(np.finfo(info.loss.dtype).eps) * (1 + abs(ground.null))
    if ground.null - ground.saturated > rounding:
        return info
    degenerate = np.int32(Status.degenerate)
    converged = info.status == Status.converged
    return info._replace(status=np.where(converged, degenerate, info.status))


def certify(
    problem: Problem,
    X: Any,
    y: Any,
    lam: float,
    params: Params,
    *,
    sample_weight: Any = None,
    offset: Any = None,
) -> float:
    """How far given params are from the minimum, at most: any solver's, any peer's.

    Args:
      problem: with an affine model, a convex loss and penalty.
      X: [n, p], as `fit_path` takes it.
      y: [n] or [n, k], as the loss takes it.
      lam: [] weight of the penalty, >= 0.
      params: of the model, on these X.
      sample_weight: [n]; None for 1.
      offset: [n] or [n, k]; None for none.

    Returns:
      The duality gap, in units of the mean loss: `F(params) - min F` is no larger.

    Raises:
      ValueError: input that cannot be used; a problem that is not convex.
    """
    problem, lam = inputs.check_problem(problem), inputs.check_lam(lam)
    if not (grids.is_convex(problem) and conditioning.is_certifiable(problem)):
        raise ValueError(
            "problem: only an affine model with a convex loss and penalty, whose "
            "conjugates are known, has a duality gap; see Path.kkt for all others"
        )
    data, weights = inputs.check_data(problem, X, y, sample_weight, offset)
    key = jax.random.key(0)
    ground = find_ground(problem, data, weights, params, key, 1, centred=True)
    given = jax.tree.map(lambda a: a[0], ground.starts)
    shares = (weights / weights.sum()).astype(data.X.dtype)
    args = (problem, ground.data, shares, np.asarray(lam, data.X.dtype), given)
    return float(trees.jitted(certificates.gap_of, *args))


def pick_solver(problem: Problem) -> Method:
    """What `solver=None` means: full batch where convex, else minibatch."""
    if grids.is_convex(problem):
        return solvers.proximal_gradient()
    return solvers.minibatch()


def _by_lam(
    lanes_found: tuple[Params, Info], seeds: int
) -> tuple[Params, Info, np.ndarray]:
    """Lanes [N, ...] as [L, ...] or [L, seeds, ...], and which lams have finished.

    Raises:
      KeyboardInterrupt: none has.
    """
    done = lanes_found[1].status.reshape(-1, seeds) != Status.running
    finished = done.all(axis=1)
    if not finished.any():
        raise KeyboardInterrupt
    lead = (len(finished),) if seeds == 1 else (len(finished), seeds)

    def fold(a: np.ndarray) -> np.ndarray:
        return a.reshape(*lead, *a.shape[1:])[finished]

    params, info = jax.tree.map(fold, lanes_found)
    return params, info, finished  # pyright: ignore


class _Task(NamedTuple):
    """What the sweeps of one `fit_path` share."""

    solver: Method
    problem: Problem
    ground: Ground
    key: Any
    chains: int | None
    direction: str
    count: int
    progress: Any


def _sweep(task: _Task, lams: np.ndarray, seeds: int) -> tuple[Params, Info]:
    """All lanes of a grid, lam by lam and within a lam seed by seed."""
    ground, count = task.ground, len(lams)
    lane = ground.lane._replace(
        lam=np.repeat(lams, seeds).astype(ground.data.X.dtype),
        seed=np.tile(np.arange(seeds), count),
        fold=np.zeros(count * seeds, np.int32),
    )
    one = jax.tree.map(lambda a: a[0], ground.starts)
    slots = lanes.slots_for(
        task.solver, task.problem, ground.data, one, task.count * seeds
    )
    chains = _default_chains(task, count) if task.chains is None else task.chains
    # A stream of its own, so that no start shares its bits with the batches.
    order_key = jax.random.fold_in(task.key, np.uint32(2**32 - 1))
    with progress_bar(task.progress) as on_progress:
        return lanes.run(
            task.solver,
            task.problem,
            ground.data,
            lane,
            ground.starts,
            _chains(count, seeds, min(chains, count), task.direction),
            order_key,
            slots,
            room=task.count * seeds,
            on_progress=on_progress,
        )


def _default_chains(task: _Task, count: int) -> int:
    """One per lam; where convex, a few warm starts pay."""
    return -(-count // LAMS_A_CHAIN) if grids.is_convex(task.problem) else count


def _chains(count: int, seeds: int, chains: int, direction: str) -> list[np.ndarray]:
    """Numbers of lanes: the chain of the smallest lams, the longest work, first."""
    parts = np.array_split(np.arange(count), chains)
    if chains < count:
        parts = parts[::-1]
    if direction == "dense_to_sparse":
        parts = [part[::-1] for part in parts]
    return [part * seeds + seed for part in parts for seed in range(seeds)]


def _top(problem: Problem, ground: Ground, sweep: Callable) -> float:
    """Where an automatic grid starts."""
    data = ground.data
    own = jax.tree.map(lambda a: a[0], ground.own)
    shares = ground.lane.weights / ground.lane.weights.sum()
    slope = float(ground.lane.scale)
    args = (ground.free, slope, ground.null, sweep)
    return grids.top(problem, own, data, shares, *args)


def _dev_ratio(loss: np.ndarray, null: float, saturated: float) -> np.ndarray:
    """1 - deviance / null deviance; 0 where the null model is already perfect."""
    room = null - saturated
    if not room > 0:
        return np.zeros_like(loss)
    return 1 - (loss - saturated) / room
