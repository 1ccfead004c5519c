"""What is said of a lane at its end: the same words from every solver."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from regjax import certificates, objective, trees
from regjax.types import Array, Data, Info, Lane, Params, Problem, Status


def shares(lane: Lane) -> Array:
    """Sample weights over their sum, [n]."""
    return lane.weights / jnp.sum(lane.weights)


@trees.exact
def report(
    problem: Problem,
    data: Data,
    lane: Lane,
    params: Params,
    *,
    step: Array,
    tol: Array | float,
    status: Array,
    n_iter: Array,
) -> Info:
    """Measure a finished lane.

    Args:
      problem: the equation.
      data: all rows.
      lane: lam and weights.
      params: final ones.
      step: [] step size at which the KKT residual is taken.
      tol: [] largest residual that counts as converged, in units of lane.scale.
      status: [] what the solver knows; `diverged` stays.
      n_iter: [] iterations made.

    Returns:
      Info; not one number of it is NaN (an unmeasurable residual is inf).
    """
    smooth, grad = jax.value_and_grad(objective.smooth, argnums=1)(
        problem, params, data, shares(lane)
    )
    kkt = objective.kkt_residual(problem, params, grad, lane.lam, step)
    kkt = jnp.where(jnp.isnan(kkt), jnp.inf, kkt)
    penalty = problem.penalty.value(params, lane.lam)
    loss = smooth - objective.ridge(problem, params)
    lost = ~jnp.isfinite(smooth + penalty) | (loss > lane.ceiling)
    lost = lost | (status == Status.diverged)
    ended = jnp.where(kkt <= tol * lane.scale, Status.converged, Status.max_iter)
    return Info(
        status=jnp.where(lost, Status.diverged, ended).astype(jnp.int32),
        n_iter=jnp.asarray(n_iter, jnp.int32),
        step=step,
        kkt=kkt,
        gap=certificates.gap_of(problem, data, shares(lane), lane.lam, params),
        loss=_no_nan(loss),
        penalty=_no_nan(penalty),
        objective=_no_nan(smooth + penalty),
        n_nonzero=count_nonzero(problem, params),
    )


def _no_nan(x: Array) -> Array:
    return jnp.where(jnp.isnan(x), jnp.inf, x)


def count_nonzero(problem: Problem, params: Params) -> Array:
    """Penalised weights that are not 0, [] int32."""
    counts = jax.tree.map(
        lambda m, w: jnp.sum(w != 0) if m else jnp.zeros((), int),
        objective.penalised(problem, params),
        params,
    )
    return sum(jax.tree.leaves(counts), start=jnp.zeros((), int)).astype(jnp.int32)
