"""The ridge penalty."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from regjax import trees
from regjax.penalties.extent import check_extent
from regjax.penalties.l1 import lambda_max as l1_lambda_max
from regjax.penalties.separable import Parts, separable
from regjax.types import Array, Params, Penalty


def l2(where: Any = None, factors: Any = None, bounds: Any = None) -> Penalty:
    r"""Ridge: :math:`\Omega(w) = \tfrac12 \sum_j w_j^2`, half the squared norm.

    It shrinks and never selects: zero is optimal for no lam, unless g = 0.

    Args:
      where: which leaves; None for all but biases (see `trees.select`).
      factors: [p], one per input (a leaf's first axis), that lam is multiplied by:
        0 for not penalised, inf for excluded; not rescaled. None for 1.
      bounds: (low, high) of the coefficients, each [] or [p], with 0 inside;
        `(0, inf)` for none below 0. Those of a standardised path bound its
        standardised coefficients. None for no bounds.

    Raises:
      ValueError: factors negative or all 0 or inf; bounds that exclude 0.

    Source: Hoerl & Kennard (1970), Technometrics 12.
    """
    parts = Parts(value, prox, lambda_max, (), split)
    penalty = separable("l2", parts, {}, where, factors, bounds)
    extent = check_extent(factors, bounds)
    if extent.bounded or extent.excludes:
        return penalty
    return penalty._replace(squares=Partial(_squares, extent, penalty.selected))


def value(w: Array, lam: Array) -> Array:
    """`sum lam/2 w^2`, lam [] or beside w."""
    return 0.5 * trees.total(lam * w**2)


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


def _squares(extent, selected, params: Params, lam: Array) -> Params:
    def one(on: bool, w: Array) -> Any:
        return lam * extent.finite_factors(w) if on else 0.0

    return jax.tree.map(one, selected(params), params)


def lambda_max(g: Array) -> Array:
    """+inf: no finite lam makes 0 optimal, unless g is 0 (then 0)."""
    return jnp.where(l1_lambda_max(g) > 0, jnp.inf, 0.0).astype(g.dtype)


def split(lam: Array) -> tuple[Array, Array]:
    """Weights of |w| and of w^2 / 2."""
    return jnp.zeros_like(lam), lam
