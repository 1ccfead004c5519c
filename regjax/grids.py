r"""Where a path begins and ends: null model, lambda_max, the grid.

The null model fits the unpenalised params alone, the penalised ones being 0.
With an affine model and g the gradient there, zero stays optimal down to
`penalty.lambda_max(g)`. A network with hidden layers has no such lam, since zero
hidden weights are stationary for every lam: it is bracketed by a coarse sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from regjax import objective, trees
from regjax.types import Array, Data, Params, Problem

# glmnet's: at l1_ratio below this, the grid starts where this l1_ratio would.
SMALLEST_L1_RATIO = 1e-3


def geometric(largest: float, ratio: float, count: int) -> np.ndarray:
    """Geometric grid, [count], from `largest` down to `ratio * largest`."""
    return np.geomspace(largest, largest * ratio, count)


def ratio_for(n: int, p: int) -> float:
    """glmnet's rule for the length of a grid: 1e-4 if n >= p, else 1e-2."""
    return 1e-4 if n >= p else 1e-2


def null_params(problem: Problem, params: Params, data: Data, shares: Array) -> Params:
    """Fit the unpenalised params of an affine model alone, by damped Newton.

    Args:
      problem: with an affine model and a convex loss.
      params: only their structure is used.
      data: rows.
      shares: [n] sample weights over their sum.

    Returns:
      Params like `params`, 0 where penalised.
    """
    free, restore = ravel_pytree(trees.free_part(params, penalised(problem, params)))
    zeros = jax.tree.map(jnp.zeros_like, params)
    if free.size == 0:
        return zeros

    def whole(x: Array) -> Params:
        return trees.with_free_part(zeros, penalised(problem, params), restore(x))

    def loss(x: Array) -> Array:
        return objective.smooth(problem, whole(x), data, shares)

    return whole(newton(loss, jnp.zeros_like(free)))


def null_loss(problem: Problem, params: Params, data: Data, shares: Array) -> Array:
    """Mean loss of the best constant linear predictor, [].

    The constant is 0 where the model has no unpenalised params to make one.
    """
    if all(jax.tree.leaves(penalised(problem, params))):
        return _constant_loss(problem, data, shares, jnp.zeros(data.y.shape[-1]))

    def loss(eta: Array) -> Array:
        return _constant_loss(problem, data, shares, eta)

    return loss(newton(loss, jnp.zeros(data.y.shape[-1], shares.dtype)))


def _constant_loss(problem: Problem, data: Data, shares: Array, eta: Array) -> Array:
    rows = data.X.shape[0]
    constant = problem.model._replace(
        apply=lambda eta, X: jnp.broadcast_to(eta[None, :], (rows, eta.shape[0]))
    )
    return objective.data_loss(problem._replace(model=constant), eta, data, shares)


def penalised(problem: Problem, params: Params) -> Any:
    """Which leaves the penalty sees, a pytree of bool."""
    return (problem.penalty.selected or trees.select)(params)


def newton(fn: Callable[[Array], Array], start: Array, most: int = 50) -> Array:
    """Minimise a smooth convex function of a few variables, [q] -> [].

    Newton's method; each step is halved until the value falls, and directions in
    which the Hessian is flat are left alone.
    """

    def step(carry):
        x, _, count = carry
        hessian = jax.hessian(fn)(x)
        # The common shift of softmax intercepts is a flat direction; this little on
        # the diagonal bends the way there, not where it ends.
        flat = 1e-6 * jnp.trace(hessian) / x.size + jnp.finfo(x.dtype).tiny
        direction = jnp.linalg.solve(hessian + flat * jnp.eye(x.size), jax.grad(fn)(x))
        sizes = 0.5 ** jnp.arange(30, dtype=x.dtype)
        values = jax.lax.map(lambda size: fn(x - size * direction), sizes)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        best = jnp.argmin(values)
        falls = values[best] < fn(x)
        return jnp.where(falls, x - sizes[best] * direction, x), falls, count + 1

    def more(carry):
        return carry[1] & (carry[2] < most)

    return jax.lax.while_loop(more, step, (start, jnp.array(True), 0))[0]


def null_gradient(
    problem: Problem, params: Params, data: Data, shares: Array
) -> Params:
    """Gradient of the smooth part at the null model of an affine model."""
    null = null_params(problem, params, data, shares)
    return jax.grad(objective.smooth, argnums=1)(problem, null, data, shares)


def lambda_max(problem: Problem, params: Params, data: Data, shares: Array) -> Array:
    """Smallest lam at which every penalised weight is 0, [], for an affine model.

    Args:
      problem: with an affine model and a convex loss.
      params: only their structure is used.
      data: rows.
      shares: [n] sample weights over their sum.

    Returns:
      [], in units of lam; inf for a penalty that never selects.
    """
    return problem.penalty.lambda_max(null_gradient(problem, params, data, shares))


def largest_slope(problem: Problem, grad: Params) -> Array:
    """`max |g|` over the penalised weights, []."""
    chosen = penalised(problem, grad)
    return trees.max_selected(lambda g: jnp.max(jnp.abs(g)), chosen, grad)


def top_of_grid(problem: Problem, params: Params, data: Data, shares: Array) -> Array:
    """`lambda_max`, at most 1e3 max |g|: what a grid of an affine model starts at."""
    grad = null_gradient(problem, params, data, shares)
    bound = largest_slope(problem, grad) / SMALLEST_L1_RATIO
    return jnp.minimum(problem.penalty.lambda_max(grad), bound)


def slope(problem: Problem, params: Params, data: Data, shares: Array) -> Array:
    """`max |g|` over the penalised weights at some params, []."""
    grad = jax.grad(objective.smooth, argnums=1)(problem, params, data, shares)
    return largest_slope(problem, grad)


def coarse(slope: float) -> np.ndarray:
    """Coarse grid for the bracket of a network, [16], descending.

    Args:
      slope: `max |g|` at a starting point, where hidden units still carry a signal.
    """
    return geometric(10.0 * slope, 1e-4, 16)


def bracket(lams: np.ndarray, empty: np.ndarray) -> float | None:
    """Smallest lam of a coarse sweep that, with all above it, empties the model.

    Args:
      lams: [L] descending.
      empty: [L] bool.

    Returns:
      That lam; None if the largest does not empty it.
    """
    if not empty[0]:
        return None
    return float(lams[int(np.argmin(np.append(empty, False))) - 1])
