"""`relax`: refit every model of a path on its own support, all lams at once.

The penalty that selects also shrinks what it selects. Here each lane keeps the zeros of
its lam and is fitted again without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from regjax import (
    assembly,
    conditioning,
    grids,
    inputs,
    objective,
    solvers,
    sweep,
    trees,
    workers,
)
from regjax.models import has_intercept
from regjax.names import number
from regjax.penalties.extent import is_bounded, with_bounds_times
from regjax.results import Path
from regjax.task import DIRECTIONS, Task, prepare
from regjax.types import Array, Data, Lane, Method, Params, Penalty, Problem

MOST_ITERATIONS = 20_000  # of a convex refit: separable classes have no minimiser


@workers.catching_interrupt
def relax(
    problem: Problem,
    path: Path,
    X: Any,
    y: Any,
    gamma: float = 0.0,
    *,
    solver: Method | None = None,
    sample_weight: Any = None,
    offset: Any = None,
    key: Any = None,
    progress: bool | Callable[[float, int, str], None] = False,
) -> Path:
    r"""Refit with the support of every lam frozen.

    Penalised weights that are 0 in the path stay 0; all others are fitted again,
    within the penalty's bounds. Where all are 0 that gives the null model.

    Args:
      problem: the equation that the path solved. Its ridge stays.
      path: of `fit_path`, with any number of seeds.
      X: [n, p] raw inputs, as `fit_path` took them.
      y: [n] or [n, k].
      gamma: how much of the penalty is left, in [0, 1]. Of an affine model the params
        are `gamma * path + (1 - gamma) * refit`, as in glmnet; a network is refitted
        with `gamma * lam`. 0: without penalty, 1: with all of it.
      solver: see `fit_path`; None: `proximal_gradient` where the loss is convex in
        the params, else `minibatch()`.
      sample_weight: as `fit_path` took it.
      offset: as `fit_path` took it.
      key: of the batches.
      progress: as of `fit_path`.

    Returns:
      A Path of the same lams (of those that had finished, after a Ctrl-C). `penalty`
      is what is left of it, `kkt` the residual of the refit; of a blend it is inf.

    Raises:
      ValueError: gamma outside of [0, 1]; a path of another model; input that cannot
        be used.

    Source: Meinshausen (2007), Comput. Stat. Data Anal. 52; Hastie, Tibshirani &
    Tibshirani (2020), Stat. Sci. 35, for the blend.
    """
    gamma = number("gamma", gamma)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma: must be in [0, 1], got {gamma:g}")
    blends = grids.has_null_model(inputs.check_problem(problem))
    if solver is None and blends:
        solver = solvers.proximal_gradient(max_iter=MOST_ITERATIONS)
    X = inputs.check_inputs(X)
    left = 0.0 if blends else gamma
    task = prepare(
        problem,
        X if path.center is None else _scaled_as(path, X),
        y,
        left * path.lams,  # 0: what no penalty shrinks does not run away
        solver=solver,
        chains=None,
        direction=DIRECTIONS[0],
        seeds=path.seeds,
        sample_weight=sample_weight,
        offset=offset,
        standardize=False,
        init=None,
        key=key,
        progress=progress,
    )
    starts = _starts(task, path)
    params, info, finished = _refit(task, path, starts, left)
    found = assembly.assemble(task, path.lams[finished], params, info)
    if blends and gamma > 0:
        found = _blend(task, path.take(finished), found, gamma)
    return found.replace(
        center=path.center,
        scale=path.scale,
        feature_names=path.feature_names,
        class_names=path.class_names,
        chosen=path.chosen,
        settings=path.settings,
    )


def _scaled_as(path: Path, X: np.ndarray) -> np.ndarray:
    """As the path standardised it, in the dtype that X has if it is a float."""
    scaled = (X - path.center) / path.scale
    return scaled.astype(X.dtype) if X.dtype.kind == "f" else scaled


def _starts(task: Task, path: Path) -> Params:
    """Params of all lanes, [L * seeds, ...], lam by lam, as the solver sees the data.

    Raises:
      ValueError: they are not those of the problem's model.
    """
    like = jax.tree.map(lambda a: a[0], task.ground.own)
    lead = 1 if path.seeds == 1 else 2
    one = jax.tree.map(lambda a: np.asarray(a)[(0,) * lead], path.params)
    try:
        inputs.check_init(one, like)
    except ValueError as error:
        raise ValueError(f"path: is of another model: {error}") from None
    params = jax.tree.map(
        lambda a: np.asarray(a).reshape(-1, *np.shape(a)[lead:]), path.params
    )
    frame = task.ground.frame
    return params if frame is None else frame.solved(params)


def _refit(task: Task, path: Path, starts: Params, gamma: float) -> Any:
    """`(params, info, finished)` as of `sweep.solve`, without its folds."""
    count = len(path) * path.seeds
    chosen = objective.penalised(task.problem, jax.tree.map(lambda a: a[0], starts))
    supports = jax.tree.map(
        lambda on, w: w != 0 if on else np.ones_like(w, bool), chosen, starts
    )
    lams = np.repeat(np.asarray(path.lams, float), path.seeds)
    penalty, ground = task.problem.penalty, task.ground
    data, scale = ground.data._replace(aid=None, XT=None), None
    if gamma == 0 and _scales(task.problem, chosen):
        data, scale = _scaled(data, np.asarray(ground.lane.weights))
        starts = _times(starts, scale)
        penalty = with_bounds_times(penalty, scale)
    penalty = frozen(penalty, supports, lams, gamma)
    problem = task.problem._replace(penalty=penalty)
    which = np.arange(count)
    lane: Lane = ground.lane._replace(
        lam=which.astype(data.X.dtype), seed=which, fold=np.zeros(count, int)
    )
    chains = [which[i : i + 1] for i in range(count)]
    params, info = sweep.run_lanes(task, problem, data, lane, starts, chains)
    if scale is not None:
        params = _within_bounds(task.problem.penalty, _times(params, 1 / scale))
    return assembly.unflatten(params, info, len(path), (path.seeds,))


def _within_bounds(penalty: Penalty, params: Params) -> Params:
    """Params [N, ...]; they may be out by rounding."""
    if not is_bounded(penalty):
        return params
    return trees.fetched(jax.vmap(lambda one: penalty.prox(one, 0.0, 0.0))(params))


def _scales(problem: Problem, chosen: Params) -> bool:
    """Whether columns may be scaled: only the loss, and their bounds, see weights."""
    if not (has_intercept(problem.model) and problem.ridge == 0):
        return False
    return not (chosen[0]["b"] and is_bounded(problem.penalty))


def _scaled(data: Data, weights: np.ndarray) -> tuple[Data, np.ndarray]:
    X = np.asarray(data.X)
    shares = weights / weights.sum(dtype=float)
    _, squares = conditioning.centred(X, None, shares)
    scale = np.where(squares > 0, np.sqrt(squares), 1.0).astype(X.dtype)
    return data._replace(X=X / scale), scale


def _times(params: Params, scale: np.ndarray) -> Params:
    layer = params[0]
    return ({**layer, "w": layer["w"] * scale[:, None]},)


def frozen(
    penalty: Penalty, supports: Params, lams: np.ndarray, gamma: float
) -> Penalty:
    """What is left of a penalty where lane i may leave 0 on its support only.

    Args:
      penalty: of the path.
      supports: pytree of bool [N, ...], one of each lane.
      lams: [N] of the lanes.
      gamma: what lam is multiplied by; at 0 only support and bounds are left.

    Returns:
      A Penalty whose `lam` is the number of a lane.
    """
    left = gamma > 0 or is_bounded(penalty)
    bound = (penalty if left else None, supports, lams, gamma)
    return penalty._replace(
        value=Partial(_value, *bound),
        prox=Partial(_prox, *bound),
        conjugate=None,
        dual_scale=None,
        convex=False,
        by_input=False,
        squares=None,
        config=None,
    )


def _value(penalty, supports, lams, gamma, params: Params, lam: Array) -> Array:
    if penalty is None:
        return jnp.zeros_like(jax.tree.leaves(params)[0], shape=())
    return penalty.value(params, gamma * lams[lam.astype(int)])


def _prox(penalty, supports, lams, gamma, params, lam: Array, step: Any) -> Params:
    lane = lam.astype(int)
    support = trees.rows(supports, lane)
    kept = jax.tree.map(lambda on, w: jnp.where(on, w, 0.0), support, params)
    if penalty is None:
        return kept
    moved = penalty.prox(kept, gamma * lams[lane], step)
    return jax.tree.map(lambda on, w: jnp.where(on, w, 0.0), support, moved)


def _blend(task: Task, path: Path, refit: Path, gamma: float) -> Path:
    """Params between those of the path and of the refit, measured once more."""
    params = jax.tree.map(
        lambda a, b: (b + gamma * (a - b)).astype(b.dtype),  # exact where they agree
        path.params,
        refit.params,
    )
    found = refit.replace(params=params)
    ground, problem = task.ground, task.problem
    weights = np.asarray(ground.lane.weights)
    shares = (weights / weights.sum()).astype(weights.dtype)
    given = problem, ground.data, shares, _starts(task, found)
    loss, ridge = (
        np.asarray(a).reshape(refit.loss.shape) for a in trees.jitted(_losses, *given)
    )
    unknown = np.full_like(loss, np.inf)
    return found.replace(
        loss=loss,
        objective=loss + ridge,
        dev_ratio=assembly.dev_ratio(loss, ground.null, ground.saturated),
        kkt=unknown,
        gap=unknown,
    )


def _losses(problem, data, shares, params) -> tuple[Array, Array]:
    def one(w: Params) -> tuple[Array, Array]:
        ridge = objective.ridge(problem, w)
        return objective.data_loss(problem, w, data, shares), jnp.asarray(ridge)

    return jax.lax.map(one, params)
