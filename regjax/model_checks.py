"""What a user's own model and loss must be: float params, rows that stand alone."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten_with_path

from regjax import trees
from regjax.models import is_linear
from regjax.types import Array, Loss, Model, Params

# Linen's collection, NNX's type of variable, Haiku's moving averages.
STATISTICS = re.compile(r"\b(batch_stats|BatchStat|mean_ema|var_ema)\b")
ADVICE = "use LayerNorm or GroupNorm, or running averages (use_running_average=True)"


def outputs(model: Model, X: Array) -> int:
    """Number of outputs k of a model on inputs like X, without computing anything.

    Raises:
      ValueError: params that cannot be trained; the model cannot take X, or its eta
        is not [n, k].
    """
    if model.config is None:
        check_params(model)
    elif is_linear(model) and X.shape[1:] == (model.config[1]["sizes"][0],):
        return model.config[1]["sizes"][1]
    X_like = jax.ShapeDtypeStruct(X.shape, np.dtype(np.float32))
    try:
        eta = trees.shape_of(_eta, model, jax.random.key(0), X_like)
    except Exception as error:  # a framework's errors are of its own kinds
        if model.config is not None and X.ndim == 2:
            takes = model.config[1]["sizes"][0]
            if X.shape[1] != takes:
                raise ValueError(
                    f"X: has {X.shape[1]} columns, the model takes {takes}"
                ) from None
        first = _first_line(error)
        if STATISTICS.search(first):
            raise ValueError(f"model: batch statistics: {first}; {ADVICE}") from error
        raise ValueError(
            f"X: the model cannot take shape {list(X.shape)}: {first}"
        ) from error
    shape = getattr(eta, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != X.shape[0]:
        got = f"a {type(eta).__name__}" if shape is None else list(shape)
        raise ValueError(
            f"model: apply must give eta [n, k] = [{X.shape[0]}, k], got {got}"
        )
    return shape[1]


def _eta(model: Model, key: Any, X: Any) -> Any:
    return model.apply(model.init(key), X)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_params(model: Model) -> None:
    """Refuse what cannot be trained, from the shapes of `model.init(key)`.

    Raises:
      ValueError: init fails; a leaf that is no float array; batch statistics.
    """
    try:
        trees.shape_of(_refuse, model, jax.random.key(0))
    except _Refused as error:
        raise ValueError(f"model: init gives {error}") from None
    except Exception as error:
        raise ValueError(f"model: init(key) fails: {_first_line(error)}") from error


class _Refused(Exception):
    """A leaf that cannot be trained."""


def _refuse(model: Model, key: Any) -> None:
    # Within the trace, which a function among the leaves could not leave.
    for path, leaf in _leaves_or_statistics(model.init(key)):
        if STATISTICS.search(f"{path} {type(leaf).__name__}"):
            raise _Refused(
                f"{path}, a statistic of batches and no weight; keep it out of params, "
                f"and {ADVICE}"
            )
        dtype = getattr(leaf, "dtype", np.dtype(type(leaf)))
        if not jnp.issubdtype(dtype, jnp.floating):
            kind = dtype if hasattr(leaf, "dtype") else type(leaf).__name__
            raise _Refused(
                f"{path} of type {kind}; params are float arrays, keep the rest out of "
                "them: eqx.partition(net, eqx.is_inexact_array), "
                "nnx.split(net, nnx.Param, ...)"
            )


def _leaves_or_statistics(params: Params) -> list[tuple[str, Any]]:
    found, _ = tree_flatten_with_path(
        params, is_leaf=lambda node: bool(STATISTICS.fullmatch(type(node).__name__))
    )
    return [(trees.key_path(path), leaf) for path, leaf in found]


def check_eta(model: Model, params: Params, X: np.ndarray) -> None:
    """Rows that stand alone, and affine where the model says so; as below."""
    check_rows(model, params, X)
    if model.affine:
        check_affine(model, params, X)


def check_rows(model: Model, params: Params, X: np.ndarray) -> None:
    """Refuse a model whose eta of one row depends on another row.

    Two rows a and b that differ go through apply as (a, b), (a, a) and (b, b), by one
    program: all that may change a row's eta is its neighbour. Once at the start, and
    once with all params moved, which brings out what a layer of zeros hides.

    Args:
      model: not the library's own.
      params: its start.
      X: [n, ...] inputs as the model gets them.

    Raises:
      ValueError: eta of a row changes with its neighbour, by more than 1e-4 of the
        largest number in eta; apply does not take two rows.
    """
    near = X[:100]
    differs = (near != near[0]).reshape(len(near), -1).any(axis=1)
    if not differs.any():
        return
    pair = np.stack([near[0], near[np.argmax(differs)]])
    for at in (params, moved(params)):
        together, first, second = (
            eta_at(model, at, pair[which]) for which in ([0, 1], [0, 0], [1, 1])
        )
        alone = np.stack([first[0], second[1]])
        if not np.all(np.isfinite([together, alone])):
            continue  # no evidence: moved params may be none that the model can have
        scale = max(np.abs(together).max(), np.abs(alone).max())
        if np.abs(together - alone).max() > 1e-4 * scale:
            raise ValueError(
                "model: the rows depend on each other, as with batch statistics, which "
                f"would leak held-out rows into every fold; {ADVICE}"
            )


def check_affine(model: Model, params: Params, X: np.ndarray) -> None:
    """Refuse `affine=True` of a model whose eta is no affine function of its params.

    Args:
      model: that says so, and is not the library's own.
      params: its start.
      X: [n, ...] inputs as the model gets them.

    Raises:
      ValueError: eta halfway between two params is not the mean of theirs, by more
        than 1e-3 of the largest number in eta.
    """
    there = moved(params)
    halfway = jax.tree.map(lambda a, b: (a + b) / 2, params, there)
    here, there, halfway = (eta_at(model, p, X[:2]) for p in (params, there, halfway))
    scale = max(np.abs(here).max(), np.abs(there).max())
    if np.abs(here + there - 2 * halfway).max() > 1e-3 * scale:
        raise ValueError("model: affine=True, but eta is not affine in the params")


def check_loss(loss: Loss, y: np.ndarray, k: int) -> None:
    """Refuse a loss of the user's own that does not give one number for every row.

    Raises:
      ValueError: it is one, or value(eta, y) fails.
    """
    if loss.config is not None:
        return
    like = [jax.ShapeDtypeStruct(s, np.float32) for s in ((len(y), k), y.shape)]
    try:
        shape = np.shape(trees.shape_of(_losses, loss, *like))
    except Exception as error:
        raise ValueError(
            f"loss: value(eta [n, k], y) fails: {_first_line(error)}"
        ) from error
    if shape != (len(y),):
        raise ValueError(f"loss: value must give [n] = [{len(y)}], got {list(shape)}")


def _losses(loss: Loss, eta: Array, y: Array) -> Array:
    return loss.value(eta, y)


def moved(params: Params) -> Params:
    """Params with noise of size 0.1 on every number, the same in every call."""
    rng = np.random.default_rng(0)

    def one(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        noise = rng.standard_normal(leaf.shape, np.float32)
        return leaf + (0.1 * noise).astype(leaf.dtype)

    return jax.tree.map(one, params)


def eta_at(model: Model, params: Params, X: np.ndarray) -> np.ndarray:
    """Eta of some rows, float64.

    Raises:
      ValueError: apply fails.
    """
    try:
        return np.asarray(trees.jitted(_apply, model, params, X), np.float64)
    except Exception as error:
        raise ValueError(
            f"model: apply cannot take {len(X)} of the rows: {_first_line(error)}"
        ) from error


def _apply(model: Model, params: Params, X: Array) -> Array:
    return model.apply(params, X)
