"""Smoothly clipped absolute deviation: the lasso for small weights, then nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from regjax import trees
from regjax.names import number
from regjax.penalties.l1 import lambda_max
from regjax.penalties.separable import Parts, separable
from regjax.types import Array, Penalty


def scad(a: float = 3.7, where: Any = None, factors: Any = None) -> Penalty:
    r"""SCAD, a function of w and lam that is not lam * Omega.

    .. math:: p(w; \lambda) = \int_0^{|w|} \min\left(\lambda,
              \frac{\max(a \lambda - s, 0)}{a - 1}\right) ds

    The lasso up to lam, no slope from `a lam` on: large weights are not shrunk. Not
    convex, so without certificates.

    Zero is a fixed point of prox steps t <= a + 1 iff `max |g| <= lam`; at longer
    steps only `max |g| <= lam sqrt((a + 1) / t)` keeps zero, so that `lambda_max` is
    that of t <= a + 1.

    Args:
      a: > 2 and finite; a run-time value under jit.
      where: which leaves; None for all but biases (see `trees.select`).
      factors: [p], one per input (a leaf's first axis), that lam is multiplied by:
        0 for not penalised, inf for excluded; not rescaled. None for 1.

    Raises:
      ValueError: a not above 2 or not finite; factors negative or all 0 or inf.

    Source: Fan & Li (2001), JASA 96.
    """
    a = number("a", a)
    if not 2.0 < a < float("inf"):
        raise ValueError(f"a: must be above 2 and finite, got {a:g}")
    parts = Parts(value, prox, _lambda_max, (a,))
    return separable("scad", parts, {"a": a}, where, factors)


def value(w: Array, lam: Array, a: Array) -> Array:
    """`sum lam min(|w|, lam)`, and what the falling slope adds up to a lam."""
    # As in l1.norm: the slope of |w| at 0 is 0.
    size = w * jax.lax.stop_gradient(jnp.sign(w))
    lasso = jnp.minimum(size, lam)
    u = jnp.minimum(jnp.maximum(size, lam), a * lam)
    bent = (u - lam) * (a * lam - (u + lam) / 2) / (a - 1)
    return trees.total(lam * lasso + bent)


def prox(v: Array, lam: Array, step: Array, a: Array) -> Array:
    r"""Soft threshold, then a slope back to v; at step >= a - 1 a jump to v.

    .. math:: \arg\min_w \tfrac12 (w - v)^2 + t\, p(w; \lambda)

    With t < a - 1: soft up to (1 + t) lam, `((a - 1) |v| - t a lam) / (a - 1 - t)` up
    to a lam, then v. Else the middle piece is concave, so that soft or v is best: v
    from where both cost the same, `lam (a + 1 + t) / 2` with t < a + 1 (soft is not 0
    there), else `lam sqrt(t (a + 1))`.

    Args:
      v: [...] point to shrink.
      lam: [] or beside v.
      step: [] or [...] step size t, per coordinate if an array.
      a: [].

    Returns:
      [...], a global minimiser, the smaller where two tie.
    """
    size, smooth = jnp.abs(v), step < a - 1
    soft = jnp.maximum(size - step * lam, 0.0)
    slope = jnp.where(smooth, a - 1 - step, 1.0)
    back = ((a - 1) * size - step * a * lam) / slope
    back = jnp.minimum(jnp.maximum(back, soft), size)
    between = jnp.where(smooth & (size > (1 + step) * lam), back, soft)
    root = jnp.sqrt(jnp.maximum(step, a + 1) * (a + 1))
    jump = jnp.where(step < a + 1, (a + 1 + step) / 2, root)
    end = lam * jnp.where(smooth, a, jump)
    return jnp.where(size > end, v, jnp.sign(v) * between)


def _lambda_max(g: Array, a: Array) -> Array:
    """`max |g|`, whatever a is."""
    return lambda_max(g)
