"""What is known before the first sweep: data as solved, starts, null model, scales."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import (
    certificates,
    conditioning,
    frames,
    grids,
    inputs,
    model_checks,
    moments,
    objective,
    trees,
)
from regjax.models import has_intercept, is_linear, linear_zeros
from regjax.types import Array, Data, Lane, Model, Params, Penalty, Problem


class Ground(NamedTuple):
    """What all sweeps of one `fit_path` share.

    Attributes:
      data: as solved: centred where an intercept takes the means up.
      frame: the coordinates in which it is solved; None: those that are given.
      own: [seeds, ...] the model's own starts; the null model where it is known.
      start: what was measured at the first of them.
      starts: [seeds, ...] those that are used.
      lane: what all lanes share; lam, seed and fold are still empty.
      null: mean loss of the best constant linear predictor.
      saturated: least mean loss of any model.
    """

    data: Data
    frame: frames.Frame | None
    own: Params
    start: grids.Start
    starts: Params
    lane: Lane
    null: float
    saturated: float


def find_ground(
    problem: Problem,
    data: Data,
    weights: np.ndarray,
    init: Any,
    key: Any,
    seeds: int,
    centred: bool,
    few_rows: float | None = None,
) -> Ground:
    """Prepare data and starts, and measure the null model.

    Args:
      problem: the equation.
      data: checked rows.
      weights: [n] sample weights.
      init: params to start from, or None.
      key: of the starts.
      seeds: how many of them.
      centred: whether to centre where an intercept takes the means up.
      few_rows: tolerance of the gap, if rows may be exchanged for fewer of the same
        moments; None: they may not.

    Raises:
      ValueError: rows that depend on each other; init that does not fit; a null
        model of infinite loss; a column whose square is beyond the dtype.
    """
    dtype = data.X.dtype
    convex, frame = grids.has_null_model(problem), None
    known = problem.model.config is not None
    own = _own_starts(problem.model, key, seeds, dtype, convex)
    one = jax.tree.map(lambda a: a[0], own)
    if not known:
        model_checks.check_eta(problem.model, one, np.asarray(data.X))
    chosen = objective.penalised(problem, one)  # an error if `where` matches nothing
    given = None if init is None else inputs.check_init(init, one)
    intercept = has_intercept(problem.model) and not chosen[0]["b"]
    if intercept:
        inputs.check_intercepts(problem.loss, np.asarray(data.y)[weights > 0])
    free = conditioning.free_places(problem, one) if convex else np.zeros(0, int)
    if convex and centred:
        frame = frames.frame_of(problem, one, data, weights, free)
    if frame is not None and given is not None:
        given = frame.solved(given)
    few_rows = few_rows if convex and moments.pay(problem, data) else None
    asked = problem, data, weights, frame, convex, few_rows
    data, weights, squares = _conditioned(*asked)
    shares = weights / weights.sum()
    null, constant = grids.null_model(problem, one, data, shares)
    if convex:
        aid = conditioning.aid(problem, one, data, shares, null, free, squares)
        if intercept and free.size == constant.size:
            one = ({**jax.tree.map(np.zeros_like, one[0]), "b": constant},)
        else:
            one = grids.null_params(problem, one, data, shares, free)  # pyright: ignore
        one = _within_bounds(problem, one, data._replace(aid=aid), shares)
        own = _repeated(one, seeds)
        if problem.penalty.convex and conditioning.is_certifiable(problem):
            data = data._replace(aid=aid)
    saturated = _saturated(problem, data, shares)
    start = grids.at_start(problem, one, data, shares, free)
    worst = max(null, start.loss)
    if given is not None:
        worst = max(worst, grids.at_start(problem, given, data, shares, free).loss)
    nothing = np.zeros(0, dtype)
    scale, ceiling = np.array([start.slope, _ceiling(worst, saturated)], dtype)
    return Ground(
        data=data,
        frame=frame,
        own=own,
        start=start,
        starts=own if given is None else _repeated(given, seeds),
        lane=Lane(nothing, weights, nothing, nothing, scale, ceiling),
        null=null,
        saturated=saturated,
    )


def _conditioned(
    problem: Problem,
    data: Data,
    weights: np.ndarray,
    frame: frames.Frame | None,
    convex: bool,
    few_rows: float | None,
) -> tuple[Data, np.ndarray, np.ndarray | None]:
    """Rows as solved, on the device; their weights; mean squares of linear columns."""
    center, dtype = None, data.X.dtype
    if frame is not None:
        center = frame.left.astype(dtype)
        data = data._replace(X=frame.columns(np.asarray(data.X)))
        if np.any(frame.y):
            data = data._replace(y=(np.asarray(data.y) - frame.y).astype(dtype))
    if few_rows is not None:
        data, weights = moments.fewer_rows(data, weights, center, few_rows)
        center = None
    X, squares = np.asarray(data.X), None
    if convex and is_linear(problem.model):
        shares = weights / weights.sum(dtype=float)
        X, squares = conditioning.centred(X, center, shares)
    data = data._replace(X=conditioning.shareable(X))
    if convex:
        data = conditioning.with_turned(problem, data)
    return jax.device_put(data), weights, squares


def _within_bounds(
    problem: Problem, null: Params, data: Data, shares: np.ndarray
) -> Params:
    """The null model where unpenalised coordinates have bounds too."""
    inside = trees.fetched(trees.jitted(_project, problem.penalty, null))
    if all(jax.tree.leaves(jax.tree.map(np.array_equal, inside, null))):
        return null
    shares = shares.astype(data.X.dtype)
    return trees.fetched(trees.jitted(_refit, problem, inside, data, shares))


def _project(penalty: Penalty, params: Params) -> Params:
    return penalty.prox(params, 0.0, 0.0)


def _refit(problem: Problem, params: Params, data: Data, shares: Array) -> Params:
    eta = objective.linear_predictor(problem.model, params, data)
    lam = jnp.zeros((), eta.dtype)
    look = certificates.look_at(problem, data, shares, params, eta)
    steps = certificates.NEWTON_STEPS_FROM_AFAR
    return certificates.refit(problem, data, shares, lam, look, steps).params


def _own_starts(model: Model, key: Any, seeds: int, dtype: Any, convex: bool) -> Params:
    """The model's own, [seeds, ...]; a linear model's without asking its `init`."""
    if convex and is_linear(model):
        return _repeated(linear_zeros(model, dtype), seeds)
    drawn = trees.fetched(trees.jitted(_draw, model, key, np.arange(seeds)))
    return jax.tree.map(lambda a: a.astype(dtype), drawn)


def _draw(model: Model, key: Any, seeds: Any) -> Params:
    return jax.vmap(lambda s: model.init(jax.random.fold_in(key, s)))(seeds)


def _repeated(params: Params, seeds: int) -> Params:
    return jax.tree.map(lambda a: np.stack([np.asarray(a)] * seeds), params)


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
