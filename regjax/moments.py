"""Squared error on many rows is squared error on few: only second moments count.

Rows are read in blocks and never copied as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from regjax.conditioning import blocks
from regjax.models import is_linear
from regjax.types import Data, Problem

LEAST_GAIN = 2  # how many times fewer rows are worth it


def pay(problem: Problem, data: Data) -> bool:
    """Whether `fewer_rows` applies and pays: linear, squared error, many rows."""
    config = problem.loss.config
    squared = config is not None and config[0] == "half_squared_error"
    n, m = len(data.X), 1 + data.X.shape[1] + data.y.shape[1]
    return squared and is_linear(problem.model) and n > LEAST_GAIN * m


def fewer_rows(
    data: Data, weights: np.ndarray, mean: np.ndarray | None
) -> tuple[Data, np.ndarray]:
    r"""Few rows, of equal weight, with the second moments of many.

    With shares a, Z = [1, X - mean, y - offset] and R'R = Z' diag(a) Z, the m rows of
    :math:`\sqrt m H R` have the same weighted moments, so for every w and b the same
    mean squared error. H is the reflection that makes the first column 1 again,
    which is what an intercept expects.

    Args:
      data: [n, p], [n, k].
      weights: [n], not all 0.
      mean: [p] to be taken off the columns; None for 0.

    Returns:
      `(data, weights [m])`, m = 1 + p + k, in the dtype of X.
    """
    X, y = np.asarray(data.X), np.asarray(data.y)
    if data.offset is not None:
        y = y - np.asarray(data.offset)
    p, m = X.shape[1], 1 + X.shape[1] + y.shape[1]
    roots = np.sqrt(weights / weights.sum(dtype=float))[:, None]

    def block(rows: slice) -> np.ndarray:
        Z = np.empty((len(X[rows]), m))
        Z[:, :1] = 1
        np.subtract(X[rows], 0.0 if mean is None else mean, out=Z[:, 1 : p + 1])
        Z[:, p + 1 :] = y[rows]
        return np.multiply(Z, roots[rows], out=Z)

    # Moments square the condition number: for float32 only, in float64.
    triangle = _root_of_moments if X.dtype == np.float32 else _triangle
    R = triangle((block(rows) for rows in blocks(X)), m)
    reflector = np.full(m, -1 / np.sqrt(m))
    reflector[0] += np.sign(R[0, 0])
    R -= np.outer(reflector, reflector @ R) * (2 / (reflector @ reflector))
    R *= np.sqrt(m)
    few = R.astype(X.dtype)
    return Data(few[:, 1 : p + 1], few[:, p + 1 :]), np.ones(m, X.dtype)


def _root_of_moments(parts: Iterator[np.ndarray], m: int) -> np.ndarray:
    moments = np.zeros((m, m))
    for Z in parts:
        moments += Z.T @ Z
    first = moments[0] / np.sqrt(moments[0, 0])
    rest = moments[1:, 1:] - np.outer(first[1:], first[1:])
    R = np.zeros_like(moments)
    R[0] = first
    try:
        R[1:, 1:] = np.linalg.cholesky(rest).T
    except np.linalg.LinAlgError:  # columns that depend on each other
        size = np.sqrt(np.diag(rest).clip(0))
        unit = size + (size == 0)
        values, vectors = np.linalg.eigh(rest / np.outer(unit, unit))
        R[1:, 1:] = np.sqrt(values.clip(0))[:, None] * vectors.T * size
    return R


def _triangle(parts: Iterator[np.ndarray], m: int) -> np.ndarray:
    R = np.zeros((0, m))
    for Z in parts:
        R = np.linalg.qr(np.concatenate([R, Z]), mode="r")
    return np.concatenate([R, np.zeros((m - len(R), m))])
