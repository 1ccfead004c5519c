"""The ridge penalty."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from regjax.penalties.l1 import lambda_max as l1_lambda_max
from regjax.penalties.separable import separable
from regjax.types import Array, Penalty


def l2(where: Any = None) -> Penalty:
    r"""Ridge: :math:`\Omega(w) = \tfrac12 \sum_j w_j^2`, half the squared norm.

    It shrinks and never selects: zero is optimal for no lam, unless g = 0.

    Args:
      where: which leaves; None for all but biases (see `trees.select`).

    Source: Hoerl & Kennard (1970), Technometrics 12.
    """
    return separable(value, prox, lambda_max, (), where, ("l2", {"where": where}))


def value(w: Array, lam: Array) -> Array:
    """`lam * 1/2 sum w^2`."""
    return lam * 0.5 * jnp.sum(w**2)


def prox(v: Array, lam: Array, step: Array) -> Array:
    r"""Shrinkage with t = step * lam.

    .. math:: \arg\min_w \tfrac12 \|w - v\|_2^2 + t \tfrac12 \|w\|_2^2 = v / (1 + t)

    Args:
      v: [...] point to shrink.
      lam: [] weight of the penalty.
      step: [] or [...] step size, per coordinate if an array.

    Returns:
      [...].
    """
    return v / (1.0 + step * lam)


def lambda_max(g: Array) -> Array:
    """+inf: no finite lam makes 0 optimal, unless g is 0 (then 0)."""
    return jnp.where(l1_lambda_max(g) > 0, jnp.inf, 0.0).astype(g.dtype)
