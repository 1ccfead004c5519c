"""The lasso penalty."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from regjax import trees
from regjax.penalties.separable import Parts, separable
from regjax.types import Array, Penalty


def l1(where: Any = None, factors: Any = None, bounds: Any = None) -> Penalty:
    r"""Lasso: :math:`\Omega(w) = \sum_j |w_j|`.

    Exact zeros come from its prox. Zero is optimal iff `max |g| <= lam`.

    Args:
      where: which leaves; None for all but biases (see `trees.select`).
      factors: [p], one per input (a leaf's first axis), that lam is multiplied by:
        0 for not penalised, inf for excluded; not rescaled. None for 1.
      bounds: (low, high) of the coefficients, each [] or [p], with 0 inside;
        `(0, inf)` for none below 0. Those of a standardised path bound its
        standardised coefficients. None for no bounds.

    Raises:
      ValueError: factors negative or all 0 or inf; bounds that exclude 0.

    Source: Tibshirani (1996), JRSS-B 58.
    """
    parts = Parts(value, prox, lambda_max, (), split)
    return separable("l1", parts, {}, where, factors, bounds)


def norm(w: Array) -> Array:
    """Sum of absolute values; its gradient is sign(w), which is 0 at 0."""
    # jax.grad(jnp.abs)(0.) is 1, which would push every exact zero.
    return trees.total(w * jax.lax.stop_gradient(jnp.sign(w)))


def value(w: Array, lam: Array) -> Array:
    """`sum lam |w|`, lam [] or beside w."""
    return norm(lam * w)


def prox(v: Array, lam: Array, step: Array) -> Array:
    r"""Soft thresholding with t = step * lam.

    .. math:: \arg\min_w \tfrac12 \|w - v\|_2^2 + t \|w\|_1
              = \mathrm{sign}(v) \max(|v| - t, 0)

    Args:
      v: [...] point to shrink.
      lam: [] weight of the penalty.
      step: [] or [...] step size, per coordinate if an array.

    Returns:
      [...], exactly 0 where `|v| <= t`.
    """
    t = step * lam
    return jnp.sign(v) * jnp.maximum(jnp.abs(v) - t, 0.0)


def lambda_max(g: Array) -> Array:
    """`max |g|`."""
    return trees.largest(jnp.abs(g))


def split(lam: Array) -> tuple[Array, Array]:
    """Weights of |w| and of w^2 / 2."""
    return lam, jnp.zeros_like(lam)
