"""What each loss takes for y: checked, and as floats [n, k]; its links."""

from __future__ import annotations

import numpy as np


def real(y: np.ndarray, k: int) -> np.ndarray:
    """Numbers [n] (k = 1) or [n, k].

    Raises:
      ValueError: another shape.
    """
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or y.shape[1] != k:
        raise ValueError(f"y: has shape {list(y.shape)}, the model has {k} outputs")
    if not np.issubdtype(y.dtype, np.floating):
        y = y.astype(float)
    return y


def counts(y: np.ndarray, k: int) -> np.ndarray:
    """Numbers >= 0, not necessarily whole.

    Raises:
      ValueError: another shape; a negative number.
    """
    y = real(y, k)
    if y.min() < 0:
        raise ValueError(f"y: poisson counts must be >= 0, got {y.min():g}")
    return y


def probabilities(y: np.ndarray, k: int) -> np.ndarray:
    """0, 1 or in between.

    Raises:
      ValueError: another shape; a number that is no probability.
    """
    y = real(y, k)
    if y.min() < 0 or y.max() > 1:
        raise ValueError(
            f"y: labels must be 0 or 1 (or in between), got {y.min():g} ... {y.max():g}"
        )
    return y


def classes(y: np.ndarray, k: int) -> np.ndarray:
    """Labels 0 ... k - 1, or rows of k probabilities; rows of probabilities come out.

    Raises:
      ValueError: a single output; another shape; no labels, no probabilities.
    """
    if k < 2:
        raise ValueError(
            "model: softmax needs 2 or more outputs, it has 1 "
            "(for two classes in one output: sigmoid_binary_cross_entropy)"
        )
    if y.ndim == 2 and y.shape[1] == k:
        y = real(y, k)
        if y.min() < 0 or np.abs(y.sum(1) - 1).max() > 1e-3:
            raise ValueError("y: rows of class probabilities must be >= 0, sum to 1")
        return y / y.sum(1, keepdims=True)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"y: has shape {list(y.shape)}, the model has {k} outputs")
    if np.any(y != np.round(y)):
        raise ValueError("y: labels must be integers (or one-hot rows)")
    if y.min() < 0 or y.max() >= k:
        raise ValueError(
            f"y: labels must be 0 ... {k - 1}, got {int(y.min())} ... {int(y.max())}"
        )
    return np.eye(k, dtype=np.float32)[y.astype(int)]


def log(means: np.ndarray) -> np.ndarray:
    """Ln, -inf at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(means)


def log_odds(means: np.ndarray) -> np.ndarray:
    """`ln p - ln(1 - p)` of each."""
    return log(means) - log(1 - means)


def log_shares(means: np.ndarray) -> np.ndarray:
    """Ln, less its mean over classes."""
    with np.errstate(invalid="ignore"):
        return log(means) - np.mean(log(means))
