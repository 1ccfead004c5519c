"""Penalty factors from a pilot fit: the adaptive lasso."""

from __future__ import annotations

from typing import Any

import numpy as np

from regjax.names import positive


def adaptive_factors(w: Any, power: float = 1.0) -> np.ndarray:
    """Factors `1 / |w_j|^power` for the `factors=` of a penalty.

    Inputs that the pilot fit finds large are penalised less; one that it leaves out
    is excluded. As in the paper they are not normalised, so lam is in units of the
    pilot's weights to the power (glmnet would rescale them to a sum of p).

    Args:
      w: [p] or [p, k, ...] weights of the pilot fit, one row per input; an input's
        size is the norm of its row.
      power: above 0; 1 and 2 are usual.

    Returns:
      [p], inf where w is 0.

    Raises:
      ValueError: w is all 0, not finite or has no axis; power not above 0.

    Source: Zou (2006), JASA 101; for groups Wang & Leng (2008), CSDA 52.
    """
    power = positive("power", power)
    w = np.asarray(w, float)
    if w.ndim == 0 or w.size == 0 or not np.all(np.isfinite(w)):
        raise ValueError(
            f"w: must be [p] or [p, k] finite weights, got shape {list(w.shape)}"
        )
    size = np.abs(w) if w.ndim == 1 else np.linalg.norm(w.reshape(len(w), -1), axis=1)
    with np.errstate(divide="ignore", over="ignore"):
        factors = size**-power
    if np.all(np.isinf(factors)):
        raise ValueError("w: all weights of the pilot fit are 0, nothing is left")
    return factors
