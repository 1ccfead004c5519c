r"""Where a path begins and ends: null model, lambda_max, the grid.

The null model fits the unpenalised params alone, the penalised ones being 0.
With an affine model and g the gradient there, zero stays optimal down to
`penalty.lambda_max(g)`. A network with hidden layers has no such lam, since zero
hidden weights are stationary for every lam: it is bracketed by a coarse sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import objective, trees
from regjax.certificates import pull_back, slopes_of
from regjax.conditioning import weighted_sum
from regjax.free_block import Block
from regjax.types import Array, Data, Loss, Model, Params, Problem

# glmnet's: at l1_ratio below this, the grid starts where this l1_ratio would.
SMALLEST_L1_RATIO = 1e-3
ITERATIONS, LONGEST_STEP, HALVINGS = 200, 100.0, 30  # of Newton's method


def geometric(largest: float, ratio: float, count: int) -> np.ndarray:
    """Geometric grid, [count], from `largest` down to `ratio * largest`."""
    return np.geomspace(largest, largest * ratio, count)


def ratio_for(n: int, p: int) -> float:
    """glmnet's rule for the length of a grid: 1e-4 if n >= p, else 1e-2."""
    return 1e-4 if n >= p else 1e-2


def null_model(
    problem: Problem, params: Params, data: Data, shares: Array
) -> tuple[float, Array]:
    """The best constant linear predictor.

    It is 0 where the model has no unpenalised params to make one.

    Args:
      problem: the equation.
      params: only their structure is used.
      data: rows.
      shares: [n] sample weights over their sum.

    Returns:
      Its mean loss, and itself [k].

    Raises:
      ValueError: the mean loss is not finite; a link does not give [k].
    """
    rows = data._replace(X=np.zeros((len(data.X), 1), data.X.dtype), XT=None)
    constant = problem._replace(model=Model(init=_nothing, apply=_constant))
    args = (constant, rows, shares)
    eta = np.zeros(data.y.shape[1], data.X.dtype)
    if all(jax.tree.leaves(objective.penalised(problem, params))):
        null = float(trees.jitted(_constant_loss, eta, *args))
    else:
        known = _known_constant(problem.loss, data, shares)
        if known is not None:
            eta = known
        elif data.offset is not None:  # start where the loss is not saturated
            eta = eta - np.sum(shares[:, None] * np.asarray(data.offset), axis=0)
        k = eta.size if problem.loss.balanced else 1
        eta, null = newton(_constant_loss, eta, args, k, known is not None)
    if not np.isfinite(null):
        raise ValueError(f"y: the loss of the null model is {null:g}; rescale y")
    return null, eta


def _known_constant(loss: Loss, data: Data, shares: Array) -> np.ndarray | None:
    """By the loss's link the eta [k] of the least mean loss; None: not known."""
    if loss.link is None or data.offset is not None:
        return None
    wide = np.asarray(shares, float)
    means = weighted_sum(wide, np.asarray(data.y)) / wide.sum()
    eta = np.asarray(loss.link(means), data.X.dtype)
    if eta.shape != means.shape:
        raise ValueError(f"loss: link must give {means.shape}, got {eta.shape}")
    return eta if np.all(np.isfinite(eta)) else None


def _nothing(key: Array) -> Params:
    return ()


def _constant(eta: Array, X: Array) -> Array:
    return jnp.broadcast_to(eta[None, :], (X.shape[0], eta.shape[0]))


def _constant_loss(eta: Array, problem: Problem, data: Data, shares: Array) -> Array:
    return objective.data_loss(problem, eta, data, shares)


def null_params(
    problem: Problem, params: Params, data: Data, shares: Array, free: np.ndarray
) -> Params:
    """Fit the unpenalised params of an affine model alone.

    Args:
      problem: with an affine model and a convex loss.
      params: only their structure is used.
      data: rows.
      shares: [n] sample weights over their sum.
      free: [q] places of the unpenalised ones in the flattened params.

    Returns:
      Params like `params`, 0 where penalised.
    """
    zero = jax.tree.map(np.zeros_like, params)
    if free.size == 0:
        return zero
    block = Block(free, objective.penalised(problem, params))  # pyright: ignore
    args = (block, zero, problem, data, shares)
    k = data.y.shape[1]
    alike = problem.loss.balanced and free.size % k == 0
    begun = np.zeros(free.size, data.X.dtype)
    values, _ = newton(_free_loss, begun, args, k if alike else 1)
    return trees.fetched(block.put(zero, values))


def _free_loss(values, block, zero, problem, data, shares) -> Array:
    return objective.smooth(problem, block.put(zero, values), data, shares)


def is_convex(problem: Problem) -> bool:
    """Whether F is convex: an affine model, a convex loss and penalty."""
    return has_null_model(problem) and bool(problem.penalty.convex)


def has_null_model(problem: Problem) -> bool:
    """Whether the smooth part is convex: a path starts at its null model, known."""
    return bool(problem.model.affine and problem.loss.convex)


def newton(
    fn: Callable[..., Array],
    x: np.ndarray,
    args: tuple,
    k: int = 1,
    trusted: bool = False,
) -> tuple[np.ndarray, float]:
    """Minimise `fn(x, *args)`, smooth and convex in a few variables, on the host.

    Newton's method; each step is halved until the value falls, or at the level of
    rounding the slope.

    Args:
      fn: module-level, [q] -> [].
      x: [q], where to start.
      args: what fn takes besides.
      k: how many neighbours are outputs of one column, to be scaled alike.
      trusted: whether x is the answer, unless its slope says otherwise.

    Returns:
      `(x [q], fn(x))`, where no step lowers either any more.
    """
    found = _derivatives_at(fn, x, args)
    for _ in range(ITERATIONS):
        _, slope, hessian = found
        direction = _newton_direction(slope, hessian, k, np.finfo(x.dtype).eps)
        # Half of this is left to gain; the step after this one gains its square.
        settled = 0 <= slope @ direction <= np.finfo(x.dtype).eps * abs(found[0])
        if settled and trusted:
            break
        trusted = False
        step = _descend(fn, x, args, found, direction, 1 if settled else HALVINGS)
        if step is None and not settled:
            # Where the loss is saturated the Hessian is 0, the direction without bound.
            length = max(float(np.max(np.abs(direction))), LONGEST_STEP)
            far = direction * (LONGEST_STEP / length)
            step = _descend(fn, x, args, found, far, HALVINGS)
        if step is None:
            break
        x, found = step
        if settled:
            break
    return x, float(found[0])


def _newton_direction(slope: Any, hessian: Any, k: int, eps: float) -> np.ndarray:
    """Of a Hessian whose columns are scaled, so that their units are of no account.

    The common shift of softmax intercepts is a flat direction; a little on the diagonal
    bends the way there, not where it ends. Its k outputs of a column are scaled alike,
    so that intercepts that sum to 0 still do.
    """
    squares = np.repeat(np.diagonal(hessian).reshape(-1, k).mean(axis=1), k)
    size = np.sqrt(np.where(squares > 0, squares, 1.0))
    bend = min(1e-6, np.sqrt(eps)) * np.eye(size.size)
    scaled = hessian / size[:, None] / size + bend
    return np.linalg.solve(scaled, slope / size) / size


def _descend(
    fn: Callable, x: Any, args: tuple, found: list, direction: Any, most: int
) -> Any:
    """The longest of `most` halved steps that goes down, and what is found there."""
    value, slope, _ = found
    for halvings in range(most):
        with np.errstate(over="ignore"):  # an inf is no descent
            new = (x - 0.5**halvings * direction).astype(x.dtype)
        there = _derivatives_at(fn, new, args)
        # Near the end the value is flat to rounding, the slope is not yet.
        level = there[0] <= value + 4 * np.finfo(x.dtype).eps * abs(value)
        flatter = np.max(np.abs(there[1])) < np.max(np.abs(slope))
        if there[0] < value or (level and flatter):
            return new, there
    return None


def _derivatives_at(fn: Callable, x: Any, args: tuple) -> list[Any]:
    """Value, slope and Hessian on the host, in float64."""
    found = trees.fetched(trees.jitted(_derivatives, fn, x, args))
    return [np.asarray(value, float) for value in found]


def _derivatives(fn: Callable, x: Array, args: tuple) -> tuple[Array, Array, Array]:
    def twice(x: Array) -> tuple[Array, tuple[Array, Array]]:
        value, slope = jax.value_and_grad(fn)(x, *args)
        return slope, (value, slope)

    hessian, (value, slope) = jax.jacfwd(twice, has_aux=True)(x)
    return value, slope, hessian


class Start(NamedTuple):
    """What is measured where a fit begins.

    Attributes:
      loss: mean loss.
      slope: `max |g|` over the penalised weights; 1 if of no use.
      lambda_max: smallest lam at which every penalised weight stays 0, if these are
        the null params of a convex problem; inf for a penalty that never selects.
    """

    loss: float
    slope: float
    lambda_max: float


def at_start(
    problem: Problem, params: Params, data: Data, shares: Array, free: np.ndarray
) -> Start:
    """Measure params; the gradients at `free` [q], fitted ones, say nothing."""
    found = trees.fetched(trees.jitted(_at_start, problem, params, data, shares, free))
    loss, slope, highest = (float(x) for x in found)
    return Start(loss, slope if 0 < slope < np.inf else 1.0, highest)


def _at_start(problem, params, data, shares, free) -> tuple[Array, Array, Array]:
    eta = objective.linear_predictor(problem.model, params, data)
    losses, slopes = slopes_of(problem.loss, eta, data.y, shares)
    grad = pull_back(problem.model, params, data, slopes)
    pulled = jax.grad(objective.ridge, argnums=1)(problem, params)
    grad = jax.tree.map(jnp.add, grad, pulled)
    slope = largest_slope(problem, grad)
    block = Block(free, objective.penalised(problem, params))
    still = block.put(grad, jnp.zeros(free.shape, slope.dtype))
    return jnp.sum(losses), slope, problem.penalty.lambda_max(still)


def largest_slope(problem: Problem, grad: Params) -> Array:
    """`max |g|` over the penalised weights, []."""
    chosen = objective.penalised(problem, grad)
    return trees.max_selected(lambda g: jnp.max(jnp.abs(g)), chosen, grad)


def top(start: Start, dtype: Any) -> float:
    """Where the grid of a problem with a known null model starts: lambda_max.

    Args:
      start: what was measured there.
      dtype: of the data.

    Raises:
      ValueError: there is no such lam.
    """
    found = min(start.lambda_max, start.slope / SMALLEST_L1_RATIO)
    # So that rounding in another program does not let a weight in at the first lam.
    found *= 1 + 8 * float(np.finfo(dtype).eps)
    if not 0 < found < np.inf:
        raise ValueError(
            "lams: no automatic grid, because no penalised weight has a gradient at "
            "the null model (is y constant, or X?); give the lams"
        )
    return found
