"""The lasso penalty."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from regjax.penalties.separable import separable
from regjax.types import Array, Penalty


def l1(where: Any = None) -> Penalty:
    r"""Lasso: :math:`\Omega(w) = \sum_j |w_j|`.

    Exact zeros come from its prox. Zero is optimal iff `max |g| <= lam`.

    Args:
      where: which leaves; None for all but biases (see `trees.select`).

    Source: Tibshirani (1996), JRSS-B 58.
    """
    return separable(value, prox, lambda_max, (), where, ("l1", {"where": where}))


def norm(w: Array) -> Array:
    """Sum of absolute values; its gradient is sign(w), which is 0 at 0."""
    # jax.grad(jnp.abs)(0.) is 1, which would push every exact zero.
    return jnp.sum(w * jax.lax.stop_gradient(jnp.sign(w)))


def value(w: Array, lam: Array) -> Array:
    """`lam * sum |w|`."""
    return lam * norm(w)


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
    return jnp.max(jnp.abs(g), initial=0.0)
