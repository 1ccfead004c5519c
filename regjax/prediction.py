"""From the params of a path to predictions, at every lam or between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regjax import model_checks
from regjax.losses import binary_outputs
from regjax.names import nonnegative
from regjax.types import Loss, Params, Problem


def params_at(lams: np.ndarray, params: Params, lam: Any, affine: bool) -> Params:
    """Params at one lam.

    Args:
      lams: [L] descending.
      params: pytree, [L, ...].
      lam: [] >= 0; outside of lams their nearest end is taken.
      affine: interpolate linearly in lam; else take the nearest in log lam.

    Returns:
      Params without [L].

    Raises:
      ValueError: lam is no finite number >= 0.
    """
    lam = nonnegative("lam", lam)
    descending = np.asarray(lams, float)
    if affine:
        at = np.interp(lam, descending[::-1], np.arange(len(lams))[::-1])
    else:
        tiny = np.finfo(float).tiny
        at = float(np.argmin(np.abs(np.log((descending + tiny) / (lam + tiny)))))
    low = int(at)
    share = lams.dtype.type(at - low)
    if share == 0:
        return jax.tree.map(lambda a: a[low], params)
    return jax.tree.map(lambda a: (1 - share) * a[low] + share * a[low + 1], params)


def check_taken(lams: np.ndarray) -> np.ndarray:
    """Some lams of a path, [l], which descend as all of them do.

    Raises:
      ValueError: one alone, none, or in another order.
    """
    if np.ndim(lams) != 1:
        raise ValueError("lams: take some by a slice or an index array")
    if lams.size == 0:
        raise ValueError("lams: none is left")
    if np.any(np.diff(lams) > 0):
        raise ValueError("lams: those of a path descend, take them in its order")
    return lams


def coef(
    layer: dict[str, Any], center: np.ndarray | None, scale: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Weights [..., p, k] and intercepts [..., k] in raw units of X."""
    w = np.asarray(layer["w"])
    b = np.asarray(layer.get("b", np.zeros_like(w[..., 0, :])))
    if scale is not None:
        w = w / np.asarray(scale)[:, None]
        b = b - np.einsum("p,...pk->...k", np.asarray(center), w)
    return {"w": w, "b": b}


def class_numbers(loss: Loss, mean: np.ndarray) -> np.ndarray:
    """The likeliest class, [..., n, k] to [..., n].

    Of one output: whether above 1/2; of several binary ones each of them, [..., n, k].
    """
    k = mean.shape[-1]
    if k > 1 and binary_outputs(loss, k):
        return (mean > 0.5).astype(int)
    if k == 1:
        return (mean[..., 0] > 0.5).astype(int)
    return np.argmax(mean, axis=-1)


def typed(loss: Loss, eta: Any, type: str, names: Sequence[str] | None) -> np.ndarray:
    """What `Path.predict` gives of eta [..., n, k]: itself, the mean, or classes.

    Raises:
      ValueError: classes of a loss that has none.
    """
    if type == "link":
        return np.asarray(eta)
    mean = eta if loss.mean is None else loss.mean(eta)
    if type == "response":
        return np.asarray(mean)
    if not loss.classes:
        raise ValueError("type: 'class' needs a loss of classes")
    numbers = class_numbers(loss, np.asarray(mean))
    return numbers if names is None else np.array(names)[numbers]


def score(loss: Loss, mean: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Accuracy or R2 of predictions [..., n, k] of the targets [n, k], [...]."""
    if loss.classes:
        right = class_numbers(loss, mean) == class_numbers(loss, truth)
        return np.mean(right.reshape(*mean.shape[:-2], -1), axis=-1)
    residual = np.mean((mean - truth) ** 2, axis=(-2, -1))
    spread = np.mean((truth - truth.mean(0)) ** 2)
    return 1 - residual / spread if spread > 0 else np.full_like(residual, np.nan)


def eta(problem: Problem, params: Params, X: jax.Array, seeds: int) -> jax.Array:
    """Eta of every lane, a few lanes at a time.

    Raises:
      ValueError: a model of the user's own cannot take X.
    """
    if problem.model.config is None:
        model_checks.outputs(problem.model, X)
    one = jax.jit(lambda p: problem.model.apply(p, X))
    params = jax.tree.map(jnp.asarray, params)
    if seeds > 1:
        one = jax.vmap(one)
    lams = len(jax.tree.leaves(params)[0])
    return jax.lax.map(one, params, batch_size=min(lams, 128))
