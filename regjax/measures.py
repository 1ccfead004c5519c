"""How well held-out rows are predicted, by the names that glmnet's users know.

Every measure is better when smaller, but for the area under the ROC curve. Conventions
are those of `cv.glmnet`: a deviance is twice the loss above the saturated one, fitted
probabilities are clipped to [1e-5, 1 - 1e-5] in it, and errors of probabilities are
summed over classes, of which a binary output has two. Of several binary outputs the
misclassification is the mean, all else the sum. Where y are proportions, it is what
they leave for the other classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from regjax.losses import binary_outputs
from regjax.names import one_of
from regjax.types import Loss

CLIP = 1e-5
MEASURES = ("deviance", "misclassification", "mse", "mae", "auc")
LEAST_ROWS_FOR_AUC = 10


def check_measure(measure: Any, loss: Loss, y: np.ndarray) -> str:
    """A measure that fits the loss.

    Args:
      measure: its name.
      loss: which the problem has.
      y: [n, k] as the loss encodes it.

    Returns:
      The name.

    Raises:
      ValueError: an unknown one, or one for targets of another kind.
    """
    one_of("measure", measure, MEASURES)
    if measure == "misclassification" and not loss.classes:
        raise ValueError("measure: 'misclassification' needs a loss of classes")
    k = y.shape[1]
    two = k == (1 if binary_outputs(loss, k) else 2)
    if measure == "auc" and not (loss.classes and two):
        raise ValueError("measure: 'auc' needs two classes, or one binary output")
    if measure == "auc" and not np.isin(y, (0, 1)).all():
        raise ValueError("measure: 'auc' needs targets 0 and 1")
    return measure


def check_rows(measure: str, counts: np.ndarray) -> None:
    """Whether folds of so many rows will do.

    Raises:
      ValueError: one does not.
    """
    if measure == "auc" and counts.mean() < LEAST_ROWS_FOR_AUC:
        raise ValueError(f"measure: 'auc' needs {LEAST_ROWS_FOR_AUC} rows a fold")


def by_row(measure: str, loss: Loss, eta: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Any measure but the AUC.

    Args:
      measure: its name.
      loss: of the problem.
      eta: [..., n, k] linear predictors.
      y: [n, k] as the loss encodes it.

    Returns:
      [..., n]; nan where eta is.
    """
    mean = _mean(loss, eta)
    if measure == "deviance":
        return _deviance(loss, eta, mean, y)
    binary = binary_outputs(loss, y.shape[1])
    if measure == "misclassification":
        if binary:
            wrong = np.mean(np.where(mean > 0.5, 1 - y, y), axis=-1)
        else:
            wrong = 1 - y[np.arange(len(y)), mean.argmax(-1)]
        return np.where(np.isnan(mean).any(-1), np.nan, wrong)
    twice = 2 if binary else 1  # both classes
    away = mean - y
    return twice * np.sum(away**2 if measure == "mse" else np.abs(away), axis=-1)


def _mean(loss: Loss, eta: np.ndarray) -> np.ndarray:
    return np.asarray(eta if loss.mean is None else loss.mean(eta), float)


def _deviance(loss: Loss, eta: Any, mean: np.ndarray, y: np.ndarray) -> np.ndarray:
    if loss.classes:
        p = np.clip(mean, CLIP, 1 - CLIP)
        fits = _xlogx(y) - y * np.log(p)
        if binary_outputs(loss, y.shape[1]):
            fits = fits + _xlogx(1 - y) - (1 - y) * np.log(1 - p)
        return 2 * np.sum(fits, axis=-1)
    rows, y = eta.reshape(-1, *y.shape), y.astype(eta.dtype)
    value = np.stack([np.asarray(loss.value(e, y), float) for e in rows])
    least = 0.0 if loss.saturated is None else np.asarray(loss.saturated(y), float)
    return 2 * (value - least).reshape(eta.shape[:-1])


def _xlogx(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))


def auc(eta: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve; ties count one half.

    Args:
      eta: [..., n, k], k = 1, or 2 classes.
      y: [n, k], 0 and 1.
      weights: [n].

    Returns:
      [...]; nan where one class has no weight.
    """
    score = eta[..., 0] if y.shape[1] == 1 else eta[..., 1] - eta[..., 0]
    positive = y[:, -1] > 0.5
    found = [_auc(row, positive, weights) for row in score.reshape(-1, len(y))]
    return np.array(found).reshape(score.shape[:-1])


def _auc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    if not np.all(np.isfinite(score)):
        return np.nan
    _, place = np.unique(score, return_inverse=True)
    up, down = (np.bincount(place, weights * on) for on in (positive, ~positive))
    area = np.sum(up * (np.cumsum(down) - 0.5 * down))
    room = up.sum() * down.sum()
    return float(area / room) if room > 0 else np.nan
