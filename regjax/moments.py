"""Squared error on many rows is squared error on few: only second moments count.

Rows are read in blocks and never copied as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from regjax.conditioning import blocks
from regjax.losses import is_squared
from regjax.models import is_linear
from regjax.types import Data, Problem

LEAST_GAIN = 2  # how many times fewer rows are worth it
CHEAP = 2**26  # products in moments that are always made in float64
LOOSE = 1e-4  # tolerance from which on they need not be
LEVEL = 1e-4  # least eigenvalue of correlations at which float32 is good enough
BLOCK = 2**21  # numbers in a block of rows
LEAST_SIZE = 1e-15  # of a column whose square is no trouble to float32


def pay(problem: Problem, data: Data) -> bool:
    """Whether `fewer_rows` applies and pays: linear, squared error, many rows."""
    n, m = len(data.X), 1 + data.X.shape[1] + data.y.shape[1]
    known = is_linear(problem.model) and is_squared(problem.loss)
    return known and n > LEAST_GAIN * m


def fewer_rows(
    data: Data, weights: np.ndarray, mean: np.ndarray | None, tol: float
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
      tol: of the gap, relative to the null loss.

    Returns:
      `(data, weights [m])`, m = 1 + p + k, in the dtype of X.
    """
    X, y = np.asarray(data.X), np.asarray(data.y)
    if data.offset is not None:
        y = y - np.asarray(data.offset)
    p, m = X.shape[1], 1 + X.shape[1] + y.shape[1]
    rows = Rows(X, y, weights, np.zeros(p, X.dtype) if mean is None else mean)
    R = _triangle(rows, m) if X.dtype == np.float64 else _root_of_moments(rows, m, tol)
    reflector = np.full(m, -1 / np.sqrt(m))
    reflector[0] += np.sign(R[0, 0])
    R -= np.outer(reflector, reflector @ R) * (2 / (reflector @ reflector))
    R *= np.sqrt(m)
    few = R.astype(X.dtype)
    return Data(few[:, 1 : p + 1], few[:, p + 1 :]), np.ones(m, X.dtype)


class Rows(NamedTuple):
    """What Z is made of: [n, p], [n, k], [n] weights, [p] the mean."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    mean: np.ndarray

    def parts(self, dtype: Any) -> Iterator[np.ndarray]:
        """Z of a block of rows, times the roots of their weights.

        The next block takes the place of the one before.
        """
        p, m = self.X.shape[1], 1 + self.X.shape[1] + self.y.shape[1]
        roots = np.sqrt(self.weights, dtype=dtype)
        most = len(self.X[next(blocks(self.X, BLOCK))])
        buffer = np.empty((most, m), dtype)
        for rows in blocks(self.X, BLOCK):
            Z, root = buffer[: len(self.X[rows])], roots[rows, None]
            Z[:, 0] = 1
            np.subtract(self.X[rows], self.mean, out=Z[:, 1 : p + 1])
            Z[:, p + 1 :] = self.y[rows]
            if not np.all(root == 1):
                Z *= root
            yield Z


def _root_of_moments(rows: Rows, m: int, tol: float) -> np.ndarray:
    """R of float32 rows; the moments in float64 where float32 might show, or cheap.

    Where it does not show in the solution it may in the gap: one of 4e-5 was claimed as
    1e-6, of columns of zeros and ones, whose products are all rounded alike.
    """
    exact = tol < LOOSE or len(rows.X) * m**2 <= CHEAP
    with np.errstate(over="ignore", invalid="ignore"):  # looked for in them
        moments, centred = _moments(rows, m, np.float64 if exact else np.float32)
    if not (exact or _well_conditioned(moments, centred)):
        moments, centred = _moments(rows, m, np.float64)
    R = np.zeros_like(moments)
    R[0] = moments[0] / np.sqrt(moments[0, 0])
    R[1:, 1:] = _root(centred)
    return R


def _well_conditioned(moments: np.ndarray, centred: np.ndarray) -> bool:
    """Whether float32 is good enough for them.

    Moments square the condition number. An error e in all of them costs the solution
    `|e w|^2 / level` of the objective at most, if no correlation matrix of the columns
    and y has an eigenvalue below the level.
    """
    size = np.sqrt(np.diag(moments))[1:]
    if not np.all((size > LEAST_SIZE) & (size < 1 / LEAST_SIZE)):
        return False
    correlations = (centred / np.outer(size, size)).astype(np.float32)
    correlations[np.diag_indices_from(correlations)] -= LEVEL
    try:
        np.linalg.cholesky(correlations)
    except np.linalg.LinAlgError:
        return False
    return True


def _moments(rows: Rows, m: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """`Z' diag(a) Z`, and without its first row and column about the mean.

    Products of blocks are made in `dtype`, their sum in float64.
    """
    total = np.zeros((m, m))
    for Z in rows.parts(dtype):
        total += Z.T @ Z
    total /= rows.weights.sum(dtype=float)
    first = total[0, 1:]
    return total, total[1:, 1:] - np.outer(first, first) / total[0, 0]


def _root(moments: np.ndarray) -> np.ndarray:
    """Upper triangular, or any other matrix whose square they are."""
    try:
        return np.linalg.cholesky(moments).T
    except np.linalg.LinAlgError:  # columns that depend on each other
        size = np.sqrt(np.diag(moments).clip(0))
        unit = size + (size == 0)
        values, vectors = np.linalg.eigh(moments / np.outer(unit, unit))
        return np.sqrt(values.clip(0))[:, None] * vectors.T * size


def _triangle(rows: Rows, m: int) -> np.ndarray:
    R = np.zeros((0, m))
    for Z in rows.parts(np.float64):
        R = np.linalg.qr(np.concatenate([R, Z]), mode="r")
    R /= np.sqrt(rows.weights.sum(dtype=float))
    return np.concatenate([R, np.zeros((m - len(R), m))])
