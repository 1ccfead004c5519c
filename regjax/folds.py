"""Which rows a fold holds out, and how the folds' values become a curve.

Source: the curve and its standard error are those of `cv.glmnet`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from regjax.losses import binary_outputs
from regjax.names import whole_number
from regjax.types import Loss

UNUSED = -1  # the stratum of rows of weight 0


def assign(
    folds: Any, loss: Loss, y: np.ndarray, weights: np.ndarray, seed: int
) -> np.ndarray:
    """The fold number 0 ... K - 1 of every row, [n].

    Args:
      folds: how many, at random and stratified by class, several binary outputs
        not (their combinations may be rare); or [n] numbers of the caller's own,
        any integers.
      loss: whether there are classes.
      y: [n, k] as the loss encodes it.
      weights: [n]; rows of weight 0 train nothing, and are shared out last.
      seed: of the random ones.

    Raises:
      ValueError: fewer than 2 folds or more than rows (of the rarest class); a fold
        that is empty, holds all rows of a class (of any output), or all rows.
    """
    classes, used, first = _classes(loss, y), weights > 0, 0
    try:
        given = np.asarray(folds)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"folds: must be a count, or [n] integers: {error}") from None
    if given.ndim == 0:
        strata = classes[0] if len(classes) == 1 else np.zeros(len(y), int)
        count = _count(folds, strata[used])
        number = _random(count, np.where(used, strata, UNUSED), seed)
    else:
        number, first = _given(given, len(y))
    for fold in range(number.max() + 1):
        _check_fold(first + fold, number == fold, classes, used)
    return number


def _classes(loss: Loss, y: np.ndarray) -> np.ndarray:
    """Class numbers [1, n], of k binary outputs [k, n]; all 0 where there are none."""
    if not loss.classes or not np.isin(y, (0, 1)).all():
        return np.zeros((1, len(y)), int)
    if binary_outputs(loss, y.shape[1]):
        return y.T.astype(int)
    return y.argmax(axis=1)[None]


def _count(folds: Any, classes: np.ndarray) -> int:
    count = whole_number("folds", folds, least=2)
    rarest = int(np.unique(classes, return_counts=True)[1].min())
    if count > rarest:
        what = "the rarest class has" if classes.max() else "there are"
        raise ValueError(f"folds: {count} folds, but {what} {rarest} rows only")
    return count


def _random(count: int, classes: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    number = np.empty(len(classes), int)
    begun = 0  # so that remainders of the classes do not all go to the first folds
    for kind in reversed(range(UNUSED, classes.max() + 1)):
        rows = rng.permutation(np.flatnonzero(classes == kind))
        number[rows] = (begun + np.arange(len(rows))) % count
        begun += len(rows)
    return number


def _given(given: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Numbers from 0 on, and what the caller calls the first."""
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise ValueError(
            f"folds: must be a count, or [{n}] integers, got "
            f"{given.dtype} {list(given.shape)}"
        )
    found, number = np.unique(given, return_inverse=True)
    first = int(found[0])
    if len(found) == 1:
        raise ValueError("folds: there must be at least 2")
    missing = [i for i, fold in enumerate(found.tolist()) if fold != first + i]
    if missing:
        raise ValueError(f"folds: fold {first + missing[0]} is empty")
    return number, first


def _check_fold(
    fold: int, held: np.ndarray, classes: np.ndarray, used: np.ndarray
) -> None:
    if not np.any(used & held):
        raise ValueError(f"folds: fold {fold} holds no row of positive weight")
    for output, own in enumerate(classes):
        for kind in np.unique(own[used]):
            if np.any(used & ~held & (own == kind)):
                continue
            what = f"all rows of class {kind}" if own.max() else "all rows"
            what += f" of output {output}" if len(classes) > 1 else ""
            raise ValueError(f"folds: fold {fold} holds {what}: nothing to train on")


def curve(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean over folds and its standard error.

    Args:
      values: [K, L]; nan where a fold has none.
      weights: [K] of the folds.

    Returns:
      `(mean [L], se [L])` over the folds that have a value, K of them:
      `se^2 = sum w (v - mean)^2 / sum w / (K - 1)`; nan where fewer than 2 have.
    """
    known = ~np.isnan(values)
    weights = np.where(known, weights[:, None], 0.0)
    values = np.where(known, values, 0.0)
    count = np.where(known.sum(0) > 1, known.sum(0), np.nan)
    total = np.where(weights.sum(0) > 0, weights.sum(0), np.nan)
    mean = (weights * values).sum(0) / total
    spread = (weights * (values - mean) ** 2).sum(0) / total
    return mean, np.sqrt(spread / (count - 1))


def choose(mean: np.ndarray, se: np.ndarray, usable: np.ndarray) -> tuple[int, int]:
    """Places of `lam_min` and `lam_1se` in lams that descend.

    Args:
      mean: [L], smaller is better.
      se: [L].
      usable: [L] bool.

    Raises:
      ValueError: no lam is usable.
    """
    usable = usable & np.isfinite(mean) & np.isfinite(se)
    if not usable.any():
        raise ValueError(
            "lams: none is usable: at each some fold diverged or has no finite measure"
        )
    best = int(np.argmin(np.where(usable, mean, np.inf)))
    within = usable & (mean <= mean[best] + se[best])
    return best, int(np.argmax(within))
