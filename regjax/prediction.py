"""From the params of a path to predictions, at every lam or between two."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regjax import model_checks
from regjax.names import number
from regjax.types import Params, Problem


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
    lam = _usable_lam(lam)
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


def _usable_lam(lam: Any) -> float:
    lam = number("lam", lam)
    if not 0 <= lam < np.inf:
        raise ValueError(f"lam: must be a finite number >= 0, got {lam}")
    return lam


def class_number(mean: np.ndarray) -> np.ndarray:
    """The likeliest class: [..., k] to [...]; of one output, whether above 1/2."""
    if mean.shape[-1] == 1:
        return (mean[..., 0] > 0.5).astype(int)
    return np.argmax(mean, axis=-1)


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
