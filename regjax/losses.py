"""Losses per example, stable in float32 for |eta| up to 1e4.

Each takes the linear predictor `eta [n, k]` and targets `y`: `[n, k]`, or `[n]`
where k is 1 or y holds integer labels; `y [n]` never meets `eta [n, 1]` as
`[n, n]`.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr, gammaln, xlogy
from jax.tree_util import Partial

from regjax.types import Array, Loss


def softmax_cross_entropy() -> Loss:
    r"""Multinomial negative log-likelihood.

    .. math:: -\sum_k t_k \ln \mathrm{softmax}(\eta)_k

    y: [n] integer labels in 0 ... k-1, or [n, k] rows that sum to 1.
    """
    return _loss(
        "softmax_cross_entropy",
        _softmax,
        _softmax_saturated,
        jax.nn.softmax,
        _classes,
        True,
    )


def sigmoid_binary_cross_entropy() -> Loss:
    r"""Binary negative log-likelihood, summed over outputs.

    .. math:: \ln(1 + e^\eta) - y \eta

    y: [n] or [n, k], in [0, 1].
    """
    return _loss(
        "sigmoid_binary_cross_entropy",
        _binary,
        _binary_saturated,
        jax.nn.sigmoid,
        _probabilities,
        True,
    )


def half_squared_error() -> Loss:
    r"""Half the squared error, summed over outputs: :math:`(\eta - y)^2 / 2`.

    y: [n] or [n, k], real.
    """
    return _loss(
        "half_squared_error", _squared, _squared_saturated, _identity, _real, False
    )


def poisson_nll() -> Loss:
    r"""Poisson negative log-likelihood with log link, summed over outputs.

    .. math:: e^\eta - y \eta + \ln y!

    +inf where exp(eta) is above the range of the dtype. y: [n] or [n, k], >= 0.
    """
    return _loss("poisson_nll", _poisson, _poisson_saturated, jnp.exp, _counts, False)


def _loss(
    name: str,
    value: Callable,
    saturated: Callable,
    mean: Callable,
    encode: Callable,
    classes: bool,
) -> Loss:
    """Wrap module-level functions, so that equal losses compile once."""
    return Loss(
        value=Partial(value),
        saturated=Partial(saturated),
        mean=Partial(mean),
        encode=Partial(encode),
        classes=classes,
        config=(name, {}),
    )


def _identity(eta: Array) -> Array:
    return eta


def _aligned(y: Array, eta: Array) -> Array:
    """Y [n] as [n, 1] where eta is [n, 1]."""
    y = jnp.asarray(y, eta.dtype)
    if y.ndim == 1 and eta.shape[-1] == 1:
        y = y[:, None]
    chex.assert_equal_shape([eta, y])
    return y


def _one_hot(y: Array, eta: Array) -> Array:
    y = jnp.asarray(y)
    if y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer):
        return jax.nn.one_hot(y, eta.shape[-1], dtype=eta.dtype)
    chex.assert_equal_shape([eta, y])
    return y.astype(eta.dtype)


def _softmax(eta: Array, y: Array) -> Array:
    t = _one_hot(y, eta)
    # Shifted by the target's own logit, so that no two numbers near 1e4 cancel.
    at_target = jnp.sum(t * eta, axis=-1, keepdims=True)
    return jax.nn.logsumexp(eta - at_target, axis=-1)


def _softmax_saturated(y: Array) -> Array:
    return jnp.sum(entr(y), axis=-1)


def _binary(eta: Array, y: Array) -> Array:
    y = _aligned(y, eta)
    # softplus(eta) - y eta, without the cancellation at large |eta|.
    terms = y * jax.nn.softplus(-eta) + (1 - y) * jax.nn.softplus(eta)
    return jnp.sum(terms, axis=-1)


def _binary_saturated(y: Array) -> Array:
    y = y.reshape(y.shape[0], -1)
    return jnp.sum(entr(y) + entr(1 - y), axis=-1)


def _squared(eta: Array, y: Array) -> Array:
    return 0.5 * jnp.sum((eta - _aligned(y, eta)) ** 2, axis=-1)


def _squared_saturated(y: Array) -> Array:
    return jnp.zeros(y.shape[0], y.dtype)


def _poisson(eta: Array, y: Array) -> Array:
    y = _aligned(y, eta)
    return jnp.sum(jnp.exp(eta) - y * eta + gammaln(y + 1), axis=-1)


def _poisson_saturated(y: Array) -> Array:
    y = y.reshape(y.shape[0], -1)
    return jnp.sum(y - xlogy(y, y) + gammaln(y + 1), axis=-1)


def _columns(y: np.ndarray, k: int) -> np.ndarray:
    """Y as float [n, k]."""
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or y.shape[1] != k:
        raise ValueError(f"y: has shape {list(y.shape)}, the model has {k} outputs")
    if not np.issubdtype(y.dtype, np.floating):
        y = y.astype(float)
    return y


def _real(y: np.ndarray, k: int) -> np.ndarray:
    return _columns(y, k)


def _counts(y: np.ndarray, k: int) -> np.ndarray:
    y = _columns(y, k)
    if y.min() < 0:
        raise ValueError(f"y: poisson counts must be >= 0, got {y.min():g}")
    return y


def _probabilities(y: np.ndarray, k: int) -> np.ndarray:
    y = _columns(y, k)
    if y.min() < 0 or y.max() > 1:
        raise ValueError(
            f"y: labels must be 0 or 1 (or in between), got {y.min():g} ... {y.max():g}"
        )
    return y


def _classes(y: np.ndarray, k: int) -> np.ndarray:
    if k < 2:
        raise ValueError(
            "model: softmax needs 2 or more outputs, it has 1 "
            "(for two classes in one output: sigmoid_binary_cross_entropy)"
        )
    if y.ndim == 2 and y.shape[1] == k:
        y = _columns(y, k)
        if y.min() < 0 or np.abs(y.sum(1) - 1).max() > 1e-3:
            raise ValueError("y: rows of class probabilities must be >= 0, sum to 1")
        return y
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


REGISTRY: dict[str, Callable[[], Loss]] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_binary_cross_entropy": sigmoid_binary_cross_entropy,
    "half_squared_error": half_squared_error,
    "poisson_nll": poisson_nll,
}
