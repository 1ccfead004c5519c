r"""The equation.

.. math:: F(w; \lambda) = \frac{1}{S} \sum_i s_i \, \ell(f(x_i; w) + o_i, y_i)
          + \lambda \, \Omega(w) + \frac{\rho}{2} \|w\|^2, \qquad S = \sum_i s_i

`smooth` is what a gradient sees; the penalty is met by its prox.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from regjax import trees
from regjax.models import is_linear
from regjax.types import Array, Data, Model, Params, Problem

NARROW = 128  # columns of X, at most


def linear_predictor(model: Model, params: Params, data: Data) -> Array:
    """Eta with the offset, [n, k]."""
    eta = apply(model, params, data)
    return eta if data.offset is None else eta + data.offset


def apply(model: Model, params: Params, data: Data) -> Array:
    """Eta without the offset, [n, k]; columns standardised as `data.scaling` says."""
    if data.scaling is None and data.XT is None:
        return model.apply(params, data.X)
    if not is_linear(model):
        center, scale = data.scaling  # pyright: ignore
        return model.apply(params, (data.X - center[None]) / scale[None])
    w = params[0]["w"]
    shift = params[0].get("b", jnp.zeros(w.shape[1], w.dtype))
    if data.scaling is not None:  # of w, so that no lane has an X of its own
        center, scale = data.scaling
        w = w / scale[:, None]
        shift = shift - center @ w
    turned = data.XT is not None and is_narrow(data)
    eta = (w.T @ data.XT).T if turned else data.X @ w
    return eta + shift[None]


def is_narrow(data: Data) -> bool:
    """Whether X' row by row, where it is kept, serves eta; else the gradient."""
    return data.X.shape[1] <= NARROW


def data_loss(problem: Problem, params: Params, data: Data, shares: Array) -> Array:
    """Weighted loss `sum_i shares_i * loss_i`.

    Args:
      problem: the equation.
      params: of the model.
      data: rows.
      shares: [n] sample weights over their sum; a row of share 0 is left out,
        whatever its loss.

    Returns:
      [].
    """
    eta = linear_predictor(problem.model, params, data)
    # Select before the loss as well: 0 * inf is nan, also in a gradient.
    kept = shares > 0
    eta = jnp.where(kept[:, None], eta, 0.0)
    losses = problem.loss.value(eta, data.y)
    return jnp.sum(jnp.where(kept, shares * losses, 0.0))


def penalised(problem: Problem, params: Params) -> Any:
    """Which leaves the penalty sees, a pytree of bool."""
    return (problem.penalty.selected or trees.select)(params)


def ridge(problem: Problem, params: Params) -> Array:
    """`ridge/2 |weights|^2`, biases left out."""
    squares = trees.sum_selected(lambda w: jnp.sum(w**2), trees.select(params), params)
    return 0.5 * problem.ridge * squares


def smooth(problem: Problem, params: Params, data: Data, shares: Array) -> Array:
    """The smooth part: data loss plus ridge, []."""
    return data_loss(problem, params, data, shares) + ridge(problem, params)


def objective(
    problem: Problem, params: Params, data: Data, shares: Array, lam: Array
) -> Array:
    """F(params; lam), []."""
    return smooth(problem, params, data, shares) + problem.penalty.value(params, lam)


def prox_step(
    problem: Problem, params: Params, grad: Params, lam: Array, step: Any
) -> Params:
    """`prox(params - step * grad, lam, step)`."""
    moved = jax.tree.map(lambda w, g: w - step * g, params, grad)
    return problem.penalty.prox(moved, lam, step)


def kkt_residual(
    problem: Problem, params: Params, grad: Params, lam: Array, step: Array
) -> Array:
    """Max-norm of `(w - prox_step(w)) / step`, []; 0 iff w is stationary.

    In units of the gradient, so of lam. For a convex problem it bounds the
    distance of a subgradient of F from 0.
    """
    moved = prox_step(problem, params, grad, lam, step)
    return trees.max_abs(jax.tree.map(lambda w, v: (w - v) / step, params, moved))
