r"""How far from the minimum: the duality gap of an affine model.

With shares a, slopes `v_i = dloss_i / deta_i` and `z = -X'(a s v) - ridge part`, any s
in [0, 1] at which z is 0 on all unpenalised coordinates gives the bound

.. math:: F(w) - \min F \le \sum_i a_i \, \mathrm{FY}_i(\eta_i, s v_i)
          + \tfrac{\rho}{2} (1 - s)^2 \|w\|^2
          + \lambda\Omega(w) + (\lambda\Omega)^*(s z) - s \langle z, w \rangle

where FY is the Fenchel-Young loss, `value + conjugate - v . eta`: 0 at s = 1. It is
the usual `P - D`, in an order that does not cancel. Three s are tried: 1, the largest
at which the conjugate is finite, and 0.

Departures from the textbook: the unpenalised block is fitted first, by a few steps of
Newton (`refit`), because a z that is not 0 there bounds nothing; an estimate of what
rounding can hide is added, so that the bound holds in float32 as well.

Source: Fenchel-Young losses of Blondel, Martins & Niculae (2020), JMLR 21.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from regjax import objective, trees
from regjax.free_block import Block
from regjax.models import is_linear
from regjax.objective import linear_predictor
from regjax.types import Aid, Array, Data, Loss, Model, Params, Problem

NEWTON_STEPS = 1
NEWTON_STEPS_FROM_AFAR = 20
TINY = 1e-30


class Certificate(NamedTuple):
    """What is known of params, measured.

    Attributes:
      gap: [] upper bound on `objective - minimum`, rounding included.
      rounding: [] the part of it that is an allowance for rounding.
      loss: [] weighted mean loss.
      penalty: [] lam * Omega.
      objective: [] loss + penalty + ridge.
      grad: gradient of the smooth part, like params.
    """

    gap: Array
    rounding: Array
    loss: Array
    penalty: Array
    objective: Array
    grad: Params


def pull_back(model: Model, params: Params, data: Data, slopes: Array) -> Params:
    """`X' slopes`, of any affine model: the pull-back of eta, like params."""
    if is_linear(model):
        total = jnp.sum(slopes, axis=0)
        # XLA for CPU packs X anew for X' slopes; for slopes' X only beyond the cache.
        if data.XT is None or objective.is_narrow(data):
            w = (slopes.T @ data.X).T
        else:
            w = data.XT @ slopes
        if data.scaling is not None:
            center, scale = data.scaling
            w = (w - center[:, None] * total[None]) / scale[:, None]
        return ({"w": w, "b": total} if "b" in params[0] else {"w": w},)
    _, transpose = jax.vjp(lambda w: objective.apply(model, w, data), params)
    return transpose(slopes)[0]


def slopes_of(loss: Loss, eta: Array, y: Array, shares: Array) -> tuple[Array, Array]:
    """`(shares * losses [n], shares * dloss/deta [n, k])`, 0 where the share is.

    A function of its own to jit, which traces it once for all its calls in a program.
    """
    return trees.jitted(_slopes_of, loss, eta, y, shares)


def _slopes_of(loss: Loss, eta: Array, y: Array, shares: Array) -> tuple[Array, Array]:
    kept = shares > 0
    # Select before the loss as well: 0 * inf is nan.
    losses, pull = jax.vjp(
        lambda e: loss.value(e, y), jnp.where(kept[:, None], eta, 0.0)
    )
    (slopes,) = pull(jnp.where(kept, shares, 0.0))
    return jnp.where(kept, shares * losses, 0.0), slopes


class Look(NamedTuple):
    """Params of one lane, and what their loss is made of.

    Attributes:
      params: of the model.
      eta: [n, k] linear predictor, offset included.
      losses: [n] times their shares.
      slopes: [n, k] derivatives of those.
    """

    params: Params
    eta: Array
    losses: Array
    slopes: Array


def look_at(
    problem: Problem, data: Data, shares: Array, params: Params, eta: Array
) -> Look:
    """A Look."""
    losses, slopes = slopes_of(problem.loss, eta, data.y, shares)
    if problem.loss.balanced:
        slopes = _balanced(slopes, data.y)
    return Look(params, eta, losses, slopes)


def _balanced(slopes: Array, y: Array) -> Array:
    """Slopes [n, k] whose rows sum to 0, that of a certain label from the others.

    It is `p - 1`, which has the digits of 1 and not its own where a row is fitted well.
    """
    certain = y == 1
    others = jnp.where(certain, 0.0, slopes)
    # A sum by a product, as in the loss.
    total = others @ jnp.ones((slopes.shape[1], 1), slopes.dtype)
    return jnp.where(certain, -total, slopes)


def refit(
    problem: Problem,
    data: Data,
    shares: Array,
    lam: Array,
    look: Look,
    steps: int = NEWTON_STEPS,
) -> Look:
    """Fit the unpenalised coordinates, all others held.

    Args:
      problem: affine and convex.
      data: rows, with an Aid that names the unpenalised coordinates; one that its
        bounds hold back is left where it is.
      shares: [n] sample weights over their sum.
      lam: [] weight of the penalty.
      look: where to start.
      steps: of Newton.

    Returns:
      A Look, nowhere of a larger objective.
    """
    free, moves = data.aid.free, data.aid.moves  # pyright: ignore
    if free.shape[0] == 0:
        return look
    block = Block(free, objective.penalised(problem, look.params))
    selected = trees.select(look.params)
    weights = jax.tree.map(
        lambda on, w: jnp.full(w.shape, on, w.dtype), selected, look.params
    )
    ridge = problem.ridge * block.get(weights)

    def inside(params: Params, values: Array) -> Array:
        """As far as bounds allow."""
        if block.apart(params):
            return values
        return block.get(problem.penalty.prox(block.put(params, values), lam, 0.0))

    def step(_, now: Look) -> Look:
        here = block.get(now.params)
        slope = moves.back(now.slopes) + ridge * here
        kept = jnp.where(shares[:, None] > 0, now.eta, 0.0)
        hessian = moves.hessian(problem.loss, kept, data.y, shares) + jnp.diag(ridge)
        pushed = here - slope / (jnp.diagonal(hessian) + TINY)
        active = inside(now.params, pushed) != here
        alike = problem.loss.balanced and moves.columns is not None
        k = now.eta.shape[1] if alike else 1
        there = inside(now.params, here + _newton(hessian, slope, active, k))
        eta = now.eta + moves.forward(there - here, now.eta.shape[1])
        new = look_at(problem, data, shares, block.put(now.params, there), eta)
        before, after = (trees.total(a.losses) for a in (now, new))
        bent = 0.5 * jnp.sum(ridge * (there**2 - here**2))
        slack = 4 * jnp.finfo(eta.dtype).eps * jnp.abs(before)
        return trees.where(after + bent <= before + slack, new, now)  # False for NaN

    return jax.lax.fori_loop(0, steps, step, look)


def _newton(hessian: Array, slope: Array, active: Array, k: int) -> Array:
    """The Newton step of the active coordinates, 0 in the others.

    Columns are scaled, so that their units are of no account: of softmax the k outputs
    of each alike, so that intercepts that sum to 0 still do.
    """
    squares = jnp.diagonal(hessian).reshape(-1, k)
    squares = jnp.broadcast_to(jnp.mean(squares, axis=1)[:, None], squares.shape)
    size = jnp.sqrt(jnp.where(squares > 0, squares, 1.0)).reshape(-1)
    both = active[:, None] & active[None, :]
    hessian = jnp.where(both, hessian / size[:, None] / size[None, :], 0.0)
    # The common shift of softmax intercepts is flat; this bends only the way.
    level = jnp.sqrt(jnp.finfo(slope.dtype).eps)
    hessian = hessian + jnp.diag(jnp.where(active, level, 1.0))
    slope = jnp.where(active, slope / size, 0.0)
    factor = jax.scipy.linalg.cho_factor(hessian)
    found = jax.scipy.linalg.cho_solve(factor, slope)
    plain = slope / jnp.diagonal(hessian)
    return -jnp.where(jnp.isfinite(found), found, plain) / size


def certificate(
    problem: Problem, data: Data, shares: Array, lam: Array, look: Look
) -> Certificate:
    """Measure params whose free block is fitted; arguments as of `refit`."""
    loss, penalty = problem.loss, problem.penalty
    params, eta, losses, slopes = look
    grad = pull_back(problem.model, params, data, slopes)
    ridge, ridge_grad = jax.value_and_grad(objective.ridge, argnums=1)(problem, params)
    grad = jax.tree.map(jnp.add, grad, ridge_grad)
    data_loss, omega = trees.total(losses), penalty.value(params, lam)
    eps = jnp.finfo(eta.dtype).eps
    turnover = trees.total(jnp.abs(losses)) + trees.total(jnp.abs(slopes * eta))
    rounding = 2 * eps * (turnover + jnp.abs(omega) + ridge)

    # Slopes are mean - y, and the mean is that of an eta that is rounded itself.
    terms = jnp.abs(slopes) + shares[:, None] * jnp.abs(data.y)
    if loss.hessian is not None:
        kept = shares[:, None] > 0
        bent, _ = loss.hessian(jnp.where(kept, eta, 0.0), data.y)
        terms = terms + jnp.where(kept, shares[:, None] * bent * jnp.abs(eta), 0.0)
    z, stuck = _settled(problem, grad, terms, data.aid)  # pyright: ignore
    inner = trees.vdot(z, params)
    whole = omega + penalty.conjugate(z, lam) - inner  # s = 1: FY and ridge part are 0  # pyright: ignore
    s = _scale(problem, z, lam)
    shrunk = jax.tree.map(lambda a: s * a, z)
    part = (
        _fenchel_young(loss, eta, s * slopes, data.y, shares)
        + (1 - s) ** 2 * ridge
        + omega
        + penalty.conjugate(shrunk, lam)  # pyright: ignore
        - s * inner
    )
    nothing = (
        data_loss - _least_loss(loss, eta, data.y, shares) + ridge + omega
    )  # s = 0
    bounds = jnp.where(stuck, jnp.inf, jnp.stack([whole, part]))
    bounds = jnp.append(bounds, nothing)
    gap = jnp.min(jnp.where(jnp.isnan(bounds), jnp.inf, bounds))
    return Certificate(
        gap=jnp.maximum(gap, 0.0) + rounding,
        rounding=rounding,
        loss=data_loss,
        penalty=omega,
        objective=data_loss + omega + ridge,
        grad=grad,
    )


def _settled(
    problem: Problem, grad: Params, terms: Array, aid: Aid
) -> tuple[Params, Array]:
    """`(z, whether z is nonzero where it must not)`; 0 where zero to rounding."""
    z, chosen = jax.tree.map(jnp.negative, grad), objective.penalised(problem, grad)
    if aid.free.shape[0]:
        block = Block(aid.free, chosen)
        values = block.get(z)
        rounding = 16 * jnp.finfo(values.dtype).eps * aid.moves.sizes(terms)
        z = block.put(z, jnp.where(jnp.abs(values) <= rounding, 0.0, values))
    left = [jnp.any(leaf != 0) for leaf in trees.free_part(z, chosen)]
    return z, jnp.any(jnp.array(left)) if left else jnp.array(False)


def _scale(problem: Problem, z: Params, lam: Array) -> Array:
    """The largest s at which the conjugate of s z is finite, []."""
    if problem.penalty.dual_scale is not None:
        return problem.penalty.dual_scale(z, lam)
    return jnp.minimum(1.0, lam / jnp.maximum(problem.penalty.lambda_max(z), lam))


def _fenchel_young(
    loss: Loss, eta: Array, scaled: Array, y: Array, shares: Array
) -> Array:
    """`sum_i a_i FY(eta_i, v_i)` of `scaled = a v`, []."""
    kept = shares > 0
    eta = jnp.where(kept[:, None], eta, 0.0)
    v = scaled / jnp.where(kept, shares, 1.0)[:, None]
    if loss.fenchel_young is not None:
        terms = loss.fenchel_young(eta, v, y)
    else:
        terms = loss.value(eta, y) + loss.conjugate(v, y) - jnp.sum(v * eta, axis=-1)  # pyright: ignore
    return shares @ jnp.where(kept, terms, 0.0)


def _least_loss(loss: Loss, eta: Array, y: Array, shares: Array) -> Array:
    """What no linear predictor can be below: minus the conjugate at 0, []."""
    if loss.saturated is not None:
        terms = loss.saturated(y)
    else:
        terms = -loss.conjugate(jnp.zeros_like(eta), y)  # pyright: ignore
    return jnp.sum(jnp.where(shares > 0, shares * terms, 0.0))


def gap_of(
    problem: Problem, data: Data, shares: Array, lam: Array, params: Params
) -> Array:
    """Upper bound on `F(params) - min F`, of any params; inf where there is none.

    The free block is fitted in a copy; what that gains is part of the gap.
    """
    if data.aid is None:
        return jnp.full_like(lam, jnp.inf)
    given = (problem, data, shares, lam)
    eta = linear_predictor(problem.model, params, data)
    look = look_at(problem, data, shares, params, eta)
    best = certificate(*given, refit(*given, look, NEWTON_STEPS_FROM_AFAR))
    here = objective.objective(problem, params, data, shares, lam)
    gap = best.gap + jnp.maximum(here - best.objective, 0.0)
    return jnp.where(jnp.isnan(gap), jnp.inf, gap)  # both are inf out of bounds
