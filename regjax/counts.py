"""The Poisson loss of one count, to all its digits however large the count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, xlogy

from regjax.types import Array

STIRLING = 16.0  # from here on factorials are taken by a series


@jax.custom_jvp
def poisson(eta: Array, y: Array) -> Array:
    """`exp(eta) - y eta + ln y!`, without the cancellation at large counts."""
    return divergence(eta, y) + least(y)


@poisson.defjvp
def _(primals, tangents):
    (eta, y), (deta, dy) = primals, tangents
    slopes = jnp.exp(eta) - y, digamma(y + 1) - eta
    return poisson(eta, y), slopes[0] * deta + slopes[1] * dy


def divergence(eta: Array, q: Array) -> Array:
    """`exp(eta) - q - q (eta - ln q)`, of terms >= 0."""
    x = eta - jnp.log(jnp.where(q > 0, q, 1.0))
    # exp(x) - 1 - x; by its series where that would cancel.
    near = jnp.abs(x) < 0.1
    small = jnp.where(near, x, 0.0)
    series = jnp.ones_like(small)
    for k in range(9, 2, -1):
        series = 1 + small / k * series
    terms = q * jnp.where(near, 0.5 * small**2 * series, jnp.expm1(x) - x)
    return jnp.where(q > 0, terms, jnp.exp(eta))


def least(y: Array) -> Array:
    """`y - y ln y + ln y!`, of large counts by Stirling's series."""
    large = jnp.maximum(y, STIRLING)
    series = jnp.zeros_like(large)
    for c in (1188, -1680, 1260, -360, 12):
        series = series / large**2 + 1 / c
    far = 0.5 * jnp.log(2 * jnp.pi * large) + series / large
    few = jnp.minimum(y, STIRLING)
    return jnp.where(y > STIRLING, far, few - xlogy(few, few) + gammaln(few + 1))
