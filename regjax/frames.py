"""Columns as they are solved: centred, and those that are not penalised orthonormal.

Both only change the coordinates of what the penalty does not see. An intercept makes up
for the means; unpenalised columns that nearly depend on each other, as an age and a
year of birth, would hide from float32 what is left to gain along their difference.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from regjax.conditioning import MOST_RESPONSES, column_means, unheld, weighted_sum
from regjax.losses import is_squared
from regjax.models import has_intercept, is_linear
from regjax.types import Data, Params, Problem

ROUNDING = 2.0  # units in the last place that columns differ by and yet are the same


class Frame(NamedTuple):
    """A linear model's coordinates as solved, beside those that are given.

    Attributes:
      center: [p] means of the columns, taken off.
      y: [k] taken off the targets of squared error, which else are rounded in units of
        their mean; 0 of other losses.
      inputs: [m] unpenalised inputs whose columns are exchanged for orthonormal ones of
        the same span; none where that would change the problem, or nothing.
      turn: [m, m] whose product with weights of theirs gives weights of the given
        columns; invertible.
      spanned: [m] bool, which of them are more than rounding; the others are 0.
    """

    center: np.ndarray
    y: np.ndarray
    inputs: np.ndarray
    turn: np.ndarray
    spanned: np.ndarray

    def columns(self, X: np.ndarray) -> np.ndarray:
        """X [n, p] with its unpenalised columns exchanged; the means are still on."""
        if self.inputs.size == 0:
            return X
        own = X[:, self.inputs].astype(float) - self.center[self.inputs]
        X = X.copy()
        X[:, self.inputs] = own @ np.where(self.spanned, self.turn, 0.0)
        return X

    @property
    def left(self) -> np.ndarray:
        """[p] means of these columns."""
        center = self.center.copy()
        center[self.inputs] = 0
        return center

    def solved(self, params: Params) -> Params:
        """Params in these coordinates, of given ones; leading axes stay."""
        exchanged = self._exchanged(params, np.linalg.inv(self.turn))
        return _lifted(exchanged, self._shift(params))

    def given(self, params: Params) -> Params:
        """Params of the given columns, of solved ones; leading axes stay."""
        exchanged = self._exchanged(params, self.turn)
        return _lifted(exchanged, -self._shift(exchanged))

    def unpenalised(self, params: Params) -> np.ndarray:
        """Solved intercepts and weights of orthonormal columns, [..., m + 1, k]."""
        own = self._own(params)[..., self.spanned, :]
        if "b" not in params[0]:
            return own
        b = np.asarray(params[0]["b"], float)
        return np.concatenate([b[..., None, :], own], axis=-2)

    def count(self, params: Params) -> np.ndarray:
        """How many weights of exchanged columns are not 0, [...]."""
        return np.sum(self._own(params) != 0, axis=(-2, -1))

    def _own(self, params: Params) -> np.ndarray:
        return np.asarray(params[0]["w"])[..., self.inputs, :].astype(float)

    def _exchanged(self, params: Params, turn: np.ndarray) -> Params:
        if self.inputs.size == 0:
            return params
        w = np.array(params[0]["w"])
        w[..., self.inputs, :] = turn @ self._own(params)
        return ({**params[0], "w": w},)

    def _shift(self, params: Params) -> np.ndarray:
        """What means add to the intercept, [..., k], by weights of given columns."""
        w = np.asarray(params[0]["w"], float)
        return np.einsum("p,...pk->...k", self.center, w) - self.y


def _lifted(params: Params, shift: np.ndarray) -> Params:
    """Params whose intercept, if they have one, is moved in float64."""
    layer = params[0]
    if "b" not in layer:
        return params
    b = np.asarray(layer["b"], float) + shift
    return ({**layer, "b": b.astype(layer["b"].dtype)},)


def frame_of(
    problem: Problem, params: Params, data: Data, weights: np.ndarray, free: np.ndarray
) -> Frame | None:
    """Of a linear model whose intercept, if it has one, is not penalised; else None.

    Without an intercept columns keep their means.

    Args:
      problem: with a convex loss.
      params: only their structure is used.
      data: rows.
      weights: [n], not all 0.
      free: [q] places of the unpenalised coordinates in the flattened params.
    """
    if not is_linear(problem.model):
        return None
    X, k = np.asarray(data.X), data.y.shape[1]
    center, level, places = np.zeros(X.shape[1]), np.zeros(k), free
    shares = weights / weights.sum(dtype=float)
    intercept = has_intercept(problem.model)
    if intercept:  # the biases flatten first
        if not np.array_equal(free[:k], np.arange(k)):
            return None
        places = free[k:] - k
        center = column_means(X, weights).astype(float)
        level = _level(problem, data, weights)
    inputs, counts = np.unique(places // k, return_counts=True)
    several = inputs.size > 1 and inputs.size * len(X) <= MOST_RESPONSES
    whole = several and np.all(counts == k) and problem.ridge == 0
    if not (whole and unheld(problem, params, free)):
        none = np.zeros(0, int)
        frame = Frame(center, level, none, np.zeros((0, 0)), none > 0)
        return frame if intercept else None
    own = X[:, inputs] - center[inputs]
    if intercept:  # means are of the dtype of X
        rest = weighted_sum(shares, own)
        center[inputs] += rest
        own -= rest
    turn, spanned = _orthonormal(own, shares, np.finfo(X.dtype).eps)
    return Frame(center, level, inputs, turn, spanned)


def _level(problem: Problem, data: Data, weights: np.ndarray) -> np.ndarray:
    """Weighted means of y [k] without the offset, of squared error."""
    y = np.asarray(data.y, float)
    if not is_squared(problem.loss):
        return np.zeros(y.shape[1])
    if data.offset is not None:
        y = y - np.asarray(data.offset)
    return weighted_sum(weights, y) / weights.sum(dtype=float)


def _orthonormal(
    columns: np.ndarray, shares: np.ndarray, eps: float
) -> tuple[np.ndarray, Any]:
    """`(turn [m, m], spanned [m])` of columns [n, m] in float64."""
    size = np.sqrt(weighted_sum(shares, columns**2))
    size = np.where(size > 0, size, 1.0)
    rows = np.sqrt(shares)[:, None] * (columns / size)
    _, values, vectors = np.linalg.svd(np.linalg.qr(rows, mode="r"))
    values = np.append(values, np.zeros(len(size) - len(values)))
    spanned = values > ROUNDING * eps * np.sqrt(len(size))
    return vectors.T / np.where(spanned, values, 1.0) / size[:, None], spanned
