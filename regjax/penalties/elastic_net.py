"""The elastic-net penalty: lasso and ridge in fixed proportion."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from regjax.names import number
from regjax.penalties.l1 import lambda_max as l1_lambda_max
from regjax.penalties.l1 import prox as soft_threshold
from regjax.penalties.l1 import value as l1_value
from regjax.penalties.l2 import prox as shrink
from regjax.penalties.l2 import value as l2_value
from regjax.penalties.separable import Parts, separable
from regjax.types import Array, Penalty


def elastic_net(
    l1_ratio: float, where: Any = None, factors: Any = None, bounds: Any = None
) -> Penalty:
    r"""Elastic net, with r = `l1_ratio`.

    .. math:: \Omega(w) = r \|w\|_1 + (1 - r) \tfrac12 \|w\|_2^2

    The numbers of scikit-learn's `ElasticNet(alpha, l1_ratio)` and of glmnet's
    `(lambda, alpha)`. r = 1 is `l1`, r = 0 is `l2`.

    Args:
      l1_ratio: share of the lasso, in [0, 1]; a run-time value under jit.
      where: which leaves; None for all but biases (see `trees.select`).
      factors: [p], one per input (a leaf's first axis), that lam is multiplied by:
        0 for not penalised, inf for excluded; not rescaled. None for 1.
      bounds: (low, high) of the coefficients, each [] or [p], with 0 inside;
        `(0, inf)` for none below 0. Those of a standardised path bound its
        standardised coefficients. None for no bounds.

    Raises:
      ValueError: l1_ratio outside [0, 1]; factors negative or all 0 or inf; bounds
        that exclude 0.

    Source: Zou & Hastie (2005), JRSS-B 67.
    """
    l1_ratio = number("l1_ratio", l1_ratio)
    if not 0.0 <= l1_ratio <= 1.0:
        raise ValueError(f"l1_ratio: must be in [0, 1], got {l1_ratio:g}")
    parts = Parts(value, prox, lambda_max, (l1_ratio,), split)
    arguments = {"l1_ratio": l1_ratio}
    return separable("elastic_net", parts, arguments, where, factors, bounds)


def value(w: Array, lam: Array, r: Array) -> Array:
    """`lam * (r sum |w| + (1 - r)/2 sum w^2)`."""
    return l1_value(w, lam * r) + l2_value(w, lam * (1 - r))


def prox(v: Array, lam: Array, step: Array, r: Array) -> Array:
    r"""Soft threshold, then shrink, with t = step * lam.

    .. math:: \arg\min_w \tfrac12 \|w - v\|_2^2
              + t \left( r \|w\|_1 + (1 - r) \tfrac12 \|w\|_2^2 \right)
              = \frac{\mathrm{soft}(v, t r)}{1 + t (1 - r)}

    Args:
      v: [...] point to shrink.
      lam: [] weight of the penalty.
      step: [] or [...] step size, per coordinate if an array.
      r: [] share of the lasso.

    Returns:
      [...], exactly 0 where `|v| <= t r`.
    """
    return shrink(soft_threshold(v, lam * r, step), lam * (1 - r), step)


def lambda_max(g: Array, r: Array) -> Array:
    """`max |g| / r`; +inf at r = 0 unless g is 0."""
    largest = l1_lambda_max(g)
    return jnp.where(largest > 0, largest / jnp.where(r > 0, r, 0.0), 0.0)


def split(lam: Array, r: Array) -> tuple[Array, Array]:
    """Weights of |w| and of w^2 / 2."""
    return lam * r, lam * (1 - r)
