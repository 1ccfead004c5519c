"""The minimax concave penalty: the lasso for small weights, constant for large."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from regjax import trees
from regjax.names import number
from regjax.penalties.l1 import lambda_max
from regjax.penalties.separable import Parts, separable
from regjax.types import Array, Penalty


def mcp(gamma: float = 3.0, where: Any = None, factors: Any = None) -> Penalty:
    r"""Minimax concave penalty, a function of w and lam that is not lam * Omega.

    .. math:: p(w; \lambda) = \int_0^{|w|} \lambda \max(1 - s / (\gamma \lambda), 0) ds

    The lasso's slope lam at 0, none from `gamma lam` on: large weights are not
    shrunk. gamma to infinity is `l1`. Not convex, so without certificates.

    Zero is a fixed point of prox steps t <= gamma iff `max |g| <= lam`. At longer
    steps the prox passes to the other side of its hill and only `max |g| <= lam
    sqrt(gamma / t)` keeps zero, so that `lambda_max` is that of t <= gamma.

    Args:
      gamma: > 1 and finite; a run-time value under jit.
      where: which leaves; None for all but biases (see `trees.select`).
      factors: [p], one per input (a leaf's first axis), that lam is multiplied by:
        0 for not penalised, inf for excluded; not rescaled. None for 1.

    Raises:
      ValueError: gamma not above 1 or not finite; factors negative or all 0 or inf.

    Source: Zhang (2010), Annals of Statistics 38.
    """
    gamma = number("gamma", gamma)
    if not 1.0 < gamma < float("inf"):
        raise ValueError(f"gamma: must be above 1 and finite, got {gamma:g}")
    parts = Parts(value, prox, _lambda_max, (gamma,))
    return separable("mcp", parts, {"gamma": gamma}, where, factors)


def value(w: Array, lam: Array, gamma: Array) -> Array:
    """`sum lam m - m^2 / (2 gamma)`, m = min(|w|, gamma lam)."""
    # As in l1.norm: the slope of |w| at 0 is 0.
    size = w * jax.lax.stop_gradient(jnp.sign(w))
    m = jnp.minimum(size, gamma * lam)
    return trees.total(m * (lam - m / (2 * gamma)))


def prox(v: Array, lam: Array, step: Array, gamma: Array) -> Array:
    r"""Firm threshold; at step >= gamma a hard one.

    .. math:: \arg\min_w \tfrac12 (w - v)^2 + t\, p(w; \lambda)

    With t < gamma: 0 up to t lam, `(|v| - t lam) / (1 - t / gamma)` up to gamma lam,
    then v. Else the middle piece is concave, so that 0 or v is best: v from
    `lam sqrt(t gamma)` on, where both cost the same.

    Args:
      v: [...] point to shrink.
      lam: [] or beside v.
      step: [] or [...] step size t, per coordinate if an array.
      gamma: [].

    Returns:
      [...], a global minimiser, 0 where 0 and v tie.
    """
    size, firm = jnp.abs(v), step < gamma
    slope = jnp.where(firm, 1 - step / gamma, 1.0)
    between = jnp.maximum(size - step * lam, 0.0) / slope
    between = jnp.where(firm, jnp.minimum(between, size), 0.0)
    end = lam * jnp.where(firm, gamma, jnp.sqrt(jnp.maximum(step, gamma) * gamma))
    return jnp.where(size > end, v, jnp.sign(v) * between)


def _lambda_max(g: Array, gamma: Array) -> Array:
    """`max |g|`, whatever gamma is."""
    return lambda_max(g)
