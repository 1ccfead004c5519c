"""Losses per example, stable in float32 for |eta| up to 1e4.

Each takes the linear predictor `eta [n, k]` and targets `y`: `[n, k]`, or `[n]`
where k is 1 or y holds integer labels; `y [n]` never meets `eta [n, 1]` as
`[n, n]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import entr, gammaln, xlogy
from jax.tree_util import Partial

from regjax import counts, targets
from regjax.types import Array, Loss


def softmax_cross_entropy() -> Loss:
    r"""Multinomial negative log-likelihood.

    .. math:: -\sum_k t_k \ln \mathrm{softmax}(\eta)_k

    y: [n] integer labels in 0 ... k-1, or [n, k] rows that sum to 1.
    """
    return Loss(
        value=Partial(_softmax),
        conjugate=Partial(_softmax_conjugate),
        saturated=Partial(_softmax_saturated),
        mean=Partial(jax.nn.softmax),
        curvature=0.5,
        encode=Partial(targets.classes),
        classes=True,
        fenchel_young=Partial(_softmax_fenchel_young),
        hessian=Partial(_softmax_hessian),
        balanced=True,
        config=("softmax_cross_entropy", {}),
        link=Partial(targets.log_shares),
    )


def sigmoid_binary_cross_entropy() -> Loss:
    r"""Binary negative log-likelihood, summed over outputs.

    .. math:: \ln(1 + e^\eta) - y \eta

    y: [n] or [n, k], in [0, 1].
    """
    return Loss(
        value=Partial(_binary),
        conjugate=Partial(_binary_conjugate),
        saturated=Partial(_binary_saturated),
        mean=Partial(jax.nn.sigmoid),
        curvature=0.25,
        encode=Partial(targets.probabilities),
        classes=True,
        fenchel_young=Partial(_binary_fenchel_young),
        hessian=Partial(_binary_hessian),
        config=("sigmoid_binary_cross_entropy", {}),
        link=Partial(targets.log_odds),
    )


def half_squared_error() -> Loss:
    r"""Half the squared error, summed over outputs: :math:`(\eta - y)^2 / 2`.

    y: [n] or [n, k], real.
    """
    return Loss(
        value=Partial(_squared),
        conjugate=Partial(_squared_conjugate),
        saturated=Partial(_squared_saturated),
        mean=Partial(_identity),
        curvature=1.0,
        encode=Partial(targets.real),
        fenchel_young=Partial(_squared_fenchel_young),
        hessian=Partial(_squared_hessian),
        config=("half_squared_error", {}),
    )


def poisson_nll() -> Loss:
    r"""Poisson negative log-likelihood with log link, summed over outputs.

    .. math:: e^\eta - y \eta + \ln y!

    +inf where exp(eta) is above the range of the dtype. y: [n] or [n, k], >= 0.
    """
    return Loss(
        value=Partial(_poisson),
        conjugate=Partial(_poisson_conjugate),
        saturated=Partial(_poisson_saturated),
        mean=Partial(jnp.exp),
        encode=Partial(targets.counts),
        fenchel_young=Partial(_poisson_fenchel_young),
        hessian=Partial(_poisson_hessian),
        config=("poisson_nll", {}),
        link=Partial(targets.log),
    )


def is_squared(loss: Loss) -> bool:
    """Whether the loss is `half_squared_error`."""
    return loss.config is not None and loss.config[0] == "half_squared_error"


def binary_outputs(loss: Loss, k: int) -> bool:
    """Whether k outputs are each a yes or no of its own, not one of k classes."""
    own = loss.config is not None and loss.config[0] == "sigmoid_binary_cross_entropy"
    return loss.classes and (k == 1 or own)


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
    return _cross_entropy(eta, _one_hot(y, eta))


@jax.custom_jvp
def _cross_entropy(eta: Array, t: Array) -> Array:
    # Not logsumexp(eta - eta_target): compiled for many lanes, XLA for CPU got that
    # wrong (jaxlib 0.10.2; tests/test_losses.py).
    return -_sum(t * _log_softmax(eta))[..., 0]


def _log_softmax(eta: Array) -> Array:
    """With all digits also of a class that is all but certain: `-ln(1 + x)`."""
    below = eta - jnp.max(eta, axis=-1, keepdims=True)
    top = below == 0
    rest, ties = _sum(jnp.where(top, 0.0, jnp.exp(below))), _sum(top.astype(eta.dtype))
    return below - jnp.log1p(rest + (ties - 1))


def _sum(a: Array) -> Array:
    """Over classes, [..., 1].

    By a product: XLA for CPU would sum anew for every number that the sum meets.
    """
    ones = jnp.ones((a.shape[-1], 1), a.dtype)
    return jnp.matmul(a, ones, precision=jax.lax.Precision.HIGHEST)


@_cross_entropy.defjvp
def _(primals, tangents):
    (eta, t), (deta, dt) = primals, tangents
    slope = _probabilities(eta) * jnp.sum(t, axis=-1, keepdims=True) - t
    moved = jnp.sum(slope * deta, axis=-1) - jnp.sum(_log_softmax(eta) * dt, -1)
    return _cross_entropy(eta, t), moved


def _probabilities(eta: Array) -> Array:
    e = jnp.exp(eta - jax.lax.stop_gradient(jnp.max(eta, axis=-1, keepdims=True)))
    return e / _sum(e)


def _softmax_conjugate(v: Array, y: Array) -> Array:
    """`sum_k q ln q` of `q = v + t`; inf where q is no distribution."""
    q = v + _one_hot(y, v)
    inside = _near(jnp.sum(q, axis=-1), 1.0) & jnp.all(q >= -_tiny(q), axis=-1)
    return jnp.where(inside, -jnp.sum(_entropy(q), axis=-1), jnp.inf)


def _softmax_fenchel_young(eta: Array, v: Array, y: Array) -> Array:
    """KL divergence from softmax(eta) to `q = v + t`, of terms >= 0."""
    q = jnp.maximum(v + _one_hot(y, eta), 0.0)
    log_p = _log_softmax(eta)
    terms = xlogy(q, q) - q * log_p - q + jnp.exp(log_p)
    return _sum(jnp.maximum(terms, 0.0))[..., 0]


def _softmax_hessian(eta: Array, y: Array) -> tuple[Array, Array]:
    p = _probabilities(eta)
    return p, p


def _softmax_saturated(y: Array) -> Array:
    return jnp.sum(entr(y), axis=-1)


def _binary(eta: Array, y: Array) -> Array:
    return jnp.sum(_binary_terms(eta, _aligned(y, eta)), axis=-1)


@jax.custom_jvp
def _binary_terms(eta: Array, y: Array) -> Array:
    """`softplus(eta) - y eta`, without the cancellation at large |eta|."""
    small = _log1p(jnp.exp(-jnp.abs(eta)))
    return small + y * jnp.maximum(-eta, 0) + (1 - y) * jnp.maximum(eta, 0)


@_binary_terms.defjvp
def _(primals, tangents):
    (eta, y), (deta, dy) = primals, tangents
    high, low = _sigmoids(eta)
    slope = (1 - y) * high - y * low
    return _binary_terms(eta, y), slope * deta - eta * dy


@jax.custom_jvp
def _sigmoids(eta: Array) -> tuple[Array, Array]:
    """Sigmoid of eta and of -eta, by one exponential."""
    e = jnp.exp(-jnp.abs(eta))
    large = 1 / (1 + e)
    small = e * large
    return jnp.where(eta > 0, large, small), jnp.where(eta > 0, small, large)


@_sigmoids.defjvp
def _(primals, tangents):  # |eta| has no derivative at 0, these have
    high, low = _sigmoids(*primals)
    bent = high * low * tangents[0]
    return (high, low), (bent, -bent)


def _log1p(x: Array) -> Array:
    """`log(1 + x)` of x in [0, 1], by the series of `2 artanh(x / (2 + x))`.

    XLA for CPU computes its own log1p one number at a time, in places: 6 times slower.
    """
    z = x / (2 + x)  # at most 1/3: each term is a ninth of the one before
    terms = math.ceil(-math.log(jnp.finfo(x.dtype).eps, 9))
    series = jnp.zeros_like(z)
    for k in reversed(range(terms)):
        series = 1 / (2 * k + 1) + z**2 * series
    return 2 * z * series


def _binary_conjugate(v: Array, y: Array) -> Array:
    """`q ln q + (1 - q) ln(1 - q)` of `q = v + y`; inf outside of [0, 1]."""
    q = v + _aligned(y, v)
    inside = (q >= -_tiny(q)) & (q <= 1 + _tiny(q))
    value = -_entropy(q) - _entropy(1 - q)
    return jnp.sum(jnp.where(inside, value, jnp.inf), axis=-1)


def _binary_fenchel_young(eta: Array, v: Array, y: Array) -> Array:
    """KL divergence from sigmoid(eta) to `q = v + y`."""
    q = jnp.clip(v + _aligned(y, eta), 0.0, 1.0)
    terms = xlogy(q, q) + xlogy(1 - q, 1 - q) + _binary_terms(eta, q)
    return jnp.sum(jnp.maximum(terms, 0.0), axis=-1)


def _binary_hessian(eta: Array, y: Array) -> tuple[Array, Array]:
    high, low = _sigmoids(eta)
    return high * low, jnp.zeros_like(eta)


def _binary_saturated(y: Array) -> Array:
    y = y.reshape(y.shape[0], -1)
    return jnp.sum(entr(y) + entr(1 - y), axis=-1)


def _squared(eta: Array, y: Array) -> Array:
    return 0.5 * jnp.sum((eta - _aligned(y, eta)) ** 2, axis=-1)


def _squared_conjugate(v: Array, y: Array) -> Array:
    """`v y + v^2 / 2`."""
    return jnp.sum(v * _aligned(y, v) + 0.5 * v**2, axis=-1)


def _squared_fenchel_young(eta: Array, v: Array, y: Array) -> Array:
    """`(eta - y - v)^2 / 2`."""
    return 0.5 * jnp.sum((eta - _aligned(y, eta) - v) ** 2, axis=-1)


def _squared_hessian(eta: Array, y: Array) -> tuple[Array, Array]:
    return jnp.ones_like(eta), jnp.zeros_like(eta)


def _squared_saturated(y: Array) -> Array:
    return jnp.zeros(y.shape[0], y.dtype)


def _poisson(eta: Array, y: Array) -> Array:
    return jnp.sum(counts.poisson(eta, _aligned(y, eta)), axis=-1)


def _poisson_conjugate(v: Array, y: Array) -> Array:
    """`q ln q - q - ln y!` of `q = v + y`; inf below 0."""
    y = _aligned(y, v)
    q = v + y
    value = -_entropy(q) - q - gammaln(y + 1)
    return jnp.sum(jnp.where(q >= -_tiny(y), value, jnp.inf), axis=-1)


def _poisson_fenchel_young(eta: Array, v: Array, y: Array) -> Array:
    """The divergence from exp(eta) to `q = v + y`."""
    q = jnp.maximum(v + _aligned(y, eta), 0.0)
    return jnp.sum(counts.divergence(eta, q), axis=-1)


def _poisson_hessian(eta: Array, y: Array) -> tuple[Array, Array]:
    return jnp.exp(eta), jnp.zeros_like(eta)


def _poisson_saturated(y: Array) -> Array:
    return jnp.sum(counts.least(y.reshape(y.shape[0], -1)), axis=-1)


def _entropy(q: Array) -> Array:
    """`-q ln q`, 0 at 0 and for rounding below it."""
    return entr(jnp.maximum(q, 0.0))


def _tiny(like: Array) -> Array:
    """Rounding of numbers like these."""
    return 8 * jnp.finfo(like.dtype).eps * jnp.maximum(jnp.abs(like), 1.0)


def _near(a: Array, b: float) -> Array:
    return jnp.abs(a - b) <= _tiny(a)


REGISTRY: dict[str, Callable[[], Loss]] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "sigmoid_binary_cross_entropy": sigmoid_binary_cross_entropy,
    "half_squared_error": half_squared_error,
    "poisson_nll": poisson_nll,
}
