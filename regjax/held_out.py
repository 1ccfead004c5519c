"""What rows that are held out are predicted, and how well."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from regjax import folds, measures, objective, trees
from regjax.task import Task
from regjax.types import Array, Data, Model, Params


def as_given(task: Task, X: Any, offset: Any, weights: np.ndarray) -> Data:
    """The rows of the task, those of weight 0 their own: others stood in for them."""
    ground = task.ground
    data = jax.tree.map(
        np.asarray, Data(ground.data.X, ground.data.y, ground.data.offset)
    )
    none = np.flatnonzero(weights == 0)
    if none.size == 0:
        return data
    own = np.asarray(X)[none].astype(float)
    if task.center is not None:
        own = (own - task.center) / task.scale
    if ground.frame is not None:
        own = ground.frame.columns(own) - ground.frame.left
    rows = data._replace(X=data.X.copy())
    rows.X[none] = own
    if data.offset is not None:
        rows = rows._replace(offset=data.offset.copy())
        rows.offset[none] = np.asarray(offset).reshape(data.offset.shape)[none]
    return rows


def out_of_fold(
    model: Model, data: Data, params: Params, number: np.ndarray, scaling: Any
) -> np.ndarray:
    """Eta of every row by the fold that held it out, [L, seeds, n, k]."""
    counts = np.bincount(number)
    lead = jax.tree.leaves(params)[0].shape
    shape = lead[0], lead[2], *data.y.shape
    eta = np.empty(shape, data.X.dtype)
    for k, many in enumerate(counts):
        rows = np.flatnonzero(number == k)
        # Filled up, so that folds of all sizes share one program.
        filled = np.append(rows, np.zeros(counts.max() - many, int))
        own = jax.tree.map(lambda a, k=k: a[:, k + 1], params)
        held = jax.tree.map(lambda a, rows=filled: a[rows], data)
        if scaling is not None:
            held = held._replace(scaling=tuple(a[k + 1] for a in scaling))
        found = np.asarray(trees.jitted(_etas, model, own, held))
        eta[:, :, rows] = found[:, :, :many]
    return eta


def uncentred(task: Task, eta: np.ndarray) -> np.ndarray:
    """Eta beside y as it was given, of that beside y as solved."""
    frame = task.ground.frame
    if frame is None or not np.any(frame.y):
        return eta
    return (eta + frame.y).astype(eta.dtype)


def _etas(model: Model, params: Params, data: Data) -> Array:
    """Of params [L, seeds, ...]."""
    one = jax.vmap(lambda p: objective.linear_predictor(model, p, data))
    lams = len(jax.tree.leaves(params)[0])
    return jax.lax.map(one, params, batch_size=min(lams, 128))


def values(
    measure: str,
    loss: Any,
    eta: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    number: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The measure of every fold [K, L, seeds], and the folds' weights [K]."""
    found, of_fold = [], []
    for k in range(number.max() + 1):
        rows = (number == k) & (weights > 0)
        a = weights[rows].astype(float)
        if measure == "auc":
            value = measures.auc(eta[:, :, rows], y[rows], a)
        else:
            each = measures.by_row(measure, loss, eta[:, :, rows], y[rows])
            value = each @ a / a.sum()
        found.append(value)
        of_fold.append(a.sum())
    return np.stack(found), np.array(of_fold)


def error_over_rows(
    measure: str, loss: Any, eta: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Standard error of a measure's mean as if every row were a fold, [L]."""
    each = measures.by_row(measure, loss, eta, y).mean(axis=1)
    return folds.curve(each.T, weights.astype(float))[1]
