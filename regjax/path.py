"""`fit` and `fit_path`: one lam, or a whole path of them at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import grids, inputs, lanes, solvers, trees
from regjax.names import whole_number
from regjax.progress import progress_bar
from regjax.results import Fit, Path
from regjax.types import Data, Info, Lane, Model, Params, Problem, Stage


def fit(
    problem: Problem,
    X: Any,
    y: Any,
    lam: float,
    *,
    solver: tuple[Stage, ...] | None = None,
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
    solver: tuple[Stage, ...] | None = None,
    seeds: int = 1,
    sample_weight: Any = None,
    offset: Any = None,
    standardize: bool = False,
    init: Params | None = None,
    key: Any = None,
    progress: bool | Callable[[int, int, str], None] = False,
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
        model with a convex loss and penalty, else `minibatch()`.
      seeds: how many starting points per lam. Seed s starts from
        `model.init(fold_in(key, s))` (a convex problem from its null model); all
        lams of a seed share that start and all lanes share their batches, so
        adding a lam or a seed changes no other, bitwise (but for a lane all alone,
        whose program is narrower: to rounding).
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
    seeds = whole_number("seeds", seeds)
    data, weights = inputs.check_data(problem, X, y, sample_weight, offset)
    solver = pick_solver(problem) if solver is None else inputs.check_solver(solver)
    center = scale = None
    if standardize:
        raw = np.asarray(data.X)
        center, scale = inputs.standardisation(raw, weights)
        scaled = ((raw - center) / scale).astype(raw.dtype)
        data = data._replace(X=jnp.asarray(scaled))
    key = inputs.check_key(key)
    starts = _starts(problem, data, weights, init, key, seeds)

    own = jax.tree.map(lambda a: a[0], starts.own)
    shares = weights / weights.sum()
    null = grids.null_loss(problem, own, data, shares)
    if not np.isfinite(null):
        raise ValueError(f"y: the loss of the null model is {null:g}; rescale y")
    saturated = _saturated(problem, data, shares)
    lane = _lane(problem, data, weights, starts, null, saturated)
    slope = float(lane.scale)
    sweep = functools.partial(
        _sweep, _Task(solver, problem, data, lane, starts.used, key, progress)
    )
    if isinstance(wanted, int):
        top = grids.top(problem, own, data, shares, slope, null, sweep)
        n, p = data.X.shape[:2]
        wanted = grids.geometric(top, grids.ratio_for(n, p), wanted)
    params, info = _by_lam(sweep(wanted, seeds), seeds)
    return Path(
        lams=wanted[: len(info.status)].astype(data.X.dtype),
        params=params,
        **info._asdict(),
        dev_ratio=_dev_ratio(np.asarray(info.loss), null, saturated),
        null_loss=null,
        saturated_loss=saturated,
        seeds=seeds,
        problem=problem,
        center=center,
        scale=scale,
        has_offset=offset is not None,
        feature_names=tuple(map(str, X.columns)) if hasattr(X, "columns") else None,
    )


def pick_solver(problem: Problem) -> tuple[Stage, ...]:
    """What `solver=None` means: full batch where convex, else minibatch."""
    if grids.is_convex(problem):
        return solvers.proximal_gradient()
    return solvers.minibatch()


def _by_lam(lanes_found: tuple[Params, Info], seeds: int) -> tuple[Params, Info]:
    """Lanes [M, ...] as [L, ...] or [L, seeds, ...]; an unfinished lam is dropped."""
    kept = len(lanes_found[1].status) // seeds
    lead = (kept,) if seeds == 1 else (kept, seeds)

    def fold(a: np.ndarray) -> np.ndarray:
        return a[: kept * seeds].reshape(*lead, *a.shape[1:])

    return jax.tree.map(fold, lanes_found)


class _Starts(NamedTuple):
    """Starting params of every seed, [seeds, ...]: the model's own, those used."""

    own: Params
    used: Params


def _starts(
    problem: Problem, data: Data, weights: np.ndarray, init: Any, key: Any, seeds: int
) -> _Starts:
    own = jax.device_get(trees.jitted(_draw, problem.model, key, np.arange(seeds)))
    own = jax.tree.map(lambda a: a.astype(data.X.dtype), own)
    grids.penalised(problem, own)  # an error if `where` matches nothing
    one = jax.tree.map(lambda a: a[0], own)
    if grids.is_convex(problem):
        one = grids.null_params(problem, one, data, weights / weights.sum())
        own = jax.tree.map(lambda a: np.stack([np.asarray(a)] * seeds), one)
    if init is None:
        return _Starts(own, own)
    given = inputs.check_init(init, one)
    return _Starts(own, jax.tree.map(lambda a: np.stack([a] * seeds), given))


def _draw(model: Model, key: Any, seeds: Any) -> Params:
    return jax.vmap(lambda s: model.init(jax.random.fold_in(key, s)))(seeds)


class _Task(NamedTuple):
    """What the sweeps of one `fit_path` share."""

    solver: tuple[Stage, ...]
    problem: Problem
    data: Data
    lane: Lane
    starts: Params
    key: Any
    progress: Any


def _sweep(task: _Task, lams: np.ndarray, seeds: int) -> tuple[Params, Info]:
    """All lanes of a grid, lam by lam and within a lam seed by seed."""
    dtype = task.data.X.dtype
    lane = task.lane._replace(
        lam=np.repeat(lams, seeds).astype(dtype),
        seed=np.tile(np.arange(seeds), len(lams)),
        scale=np.asarray(task.lane.scale, dtype),
        ceiling=np.asarray(task.lane.ceiling, dtype),
    )
    one = jax.tree.map(lambda a: a[0], task.starts)
    slots = lanes.slots_for(task.problem, task.data, one, len(lane.lam))
    # A stream of its own, so that no start shares its bits with the batches.
    order_key = jax.random.fold_in(task.key, np.uint32(2**32 - 1))
    with progress_bar(task.progress) as on_progress:
        return lanes.run(
            task.solver,
            task.problem,
            task.data,
            lane,
            task.starts,
            order_key,
            slots,
            on_progress,
        )


def _lane(
    problem: Problem,
    data: Data,
    weights: np.ndarray,
    starts: _Starts,
    null: float,
    saturated: float,
) -> Lane:
    """What the lanes of all sweeps share; lam and seed are still empty."""
    shares, none = weights / weights.sum(), np.zeros(0, data.X.dtype)
    own, used = (jax.tree.map(lambda a: a[0], start) for start in starts)
    loss, slope = grids.at_start(problem, own, data, shares)
    if starts.used is not starts.own:
        loss = max(loss, grids.at_start(problem, used, data, shares)[0])
    ceiling = _ceiling(max(null, loss), saturated)
    return Lane(none, weights, none, np.asarray(slope), np.asarray(ceiling))


def _ceiling(worst: float, saturated: float) -> float:
    """Mean loss above which training has diverged: ten times that of the start."""
    room = max(worst - saturated, 1e-3 * abs(worst))
    return worst + 10 * room if room > 0 else np.inf


def _saturated(problem: Problem, data: Data, shares: np.ndarray) -> float:
    if problem.loss.saturated is None:
        return 0.0
    least = np.asarray(trees.jitted(_saturated_losses, problem.loss, data.y))
    return float((shares * least)[shares > 0].sum())


def _saturated_losses(loss: Any, y: Any) -> Any:
    return loss.saturated(y)


def _dev_ratio(loss: np.ndarray, null: float, saturated: float) -> np.ndarray:
    """1 - deviance / null deviance; 0 where the null model is already perfect."""
    room = null - saturated
    if not room > 0:
        return np.zeros_like(loss)
    return 1 - (loss - saturated) / room
