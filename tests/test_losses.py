"""The contract of a loss, over every one in the registry."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, gammaln, logsumexp, softmax

import regjax as rj


class Oracle(NamedTuple):
    """Closed forms in NumPy: value(eta, y) -> [n]; mean, its inverse; draw y."""

    value: Callable
    mean: Callable
    link: Callable
    draw: Callable


def one_hot(rng, n, k):
    return np.eye(k)[rng.integers(k, size=n)]


def clipped_log(y):
    """ln y; where y is 0, so low that exp of it is 0 to rounding."""
    return np.log(np.maximum(y, 1e-30))


ORACLES = {
    "softmax_cross_entropy": Oracle(
        lambda eta, t: logsumexp(eta, axis=-1) - (t * eta).sum(-1),
        lambda eta: softmax(eta, axis=-1),
        clipped_log,
        one_hot,
    ),
    "sigmoid_binary_cross_entropy": Oracle(
        lambda eta, y: (np.logaddexp(0, eta) - y * eta).sum(-1),
        expit,
        lambda y: clipped_log(y) - clipped_log(1 - y),
        lambda rng, n, k: rng.integers(2, size=(n, k)).astype(float),
    ),
    "half_squared_error": Oracle(
        lambda eta, y: 0.5 * ((eta - y) ** 2).sum(-1),
        lambda eta: eta,
        lambda y: y,
        lambda rng, n, k: rng.normal(size=(n, k)),
    ),
    "poisson_nll": Oracle(
        lambda eta, y: (np.exp(eta) - y * eta + gammaln(y + 1)).sum(-1),
        np.exp,
        clipped_log,
        lambda rng, n, k: rng.poisson(2.0, size=(n, k)).astype(float),
    ),
}
EXTREMES = [0.0, 1.0, -20.0, 20.0, -90.0, 90.0, -1e3, 1e3, -1e4, 1e4]

every_loss = pytest.mark.parametrize("name", ORACLES)


def loss_and_oracle(name):
    return rj.losses.REGISTRY[name](), ORACLES[name]


def rows(name, n=40, k=3, scale=3.0):
    """Random eta and hard targets of a loss, [n, k] float64."""
    rng = np.random.default_rng(0)
    return scale * rng.normal(size=(n, k)), ORACLES[name].draw(rng, n, k)


def extreme_rows(name):
    """Every pair of extreme etas with both kinds of target, [n, 2]."""
    eta = np.array([(a, b) for a in EXTREMES for b in EXTREMES])
    eta = np.concatenate([eta, eta])
    y = np.repeat([[0.0, 1.0], [1.0, 0.0]], len(eta) // 2, axis=0)
    return eta, y


def gradient(loss, eta, y):
    return jax.jit(jax.grad(lambda eta: jnp.sum(loss.value(eta, y))))(eta)


def test_every_registered_loss_is_tested_here():
    """Adding a loss is one function, one line in REGISTRY, and one oracle above."""
    assert set(ORACLES) == set(rj.losses.REGISTRY)


@every_loss
def test_the_value_is_its_closed_form(name, x64):
    """One number per row, summed over outputs, at moderate eta."""
    loss, oracle = loss_and_oracle(name)
    eta, y = rows(name)
    value = loss.value(eta, y)
    chex.assert_shape(value, (40,))
    np.testing.assert_allclose(value, oracle.value(eta, y), rtol=1e-12, atol=1e-13)


@every_loss
def test_the_mean_is_the_inverse_link(name, x64):
    """mean(eta) = E[y] under the model that the loss is the likelihood of."""
    loss, oracle = loss_and_oracle(name)
    eta, _ = rows(name)
    np.testing.assert_allclose(loss.mean(eta), oracle.mean(eta), rtol=1e-12)


@every_loss
def test_the_value_is_right_in_float32_up_to_1e4(name):
    """To single precision of the largest term; Poisson above its range is +inf."""
    loss, oracle = loss_and_oracle(name)
    eta, y = extreme_rows(name)
    value = np.asarray(loss.value(jnp.float32(eta), jnp.float32(y)))
    assert value.dtype == np.float32
    with np.errstate(over="ignore"):
        expected = oracle.value(eta, y).astype(np.float32)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    assert name == "poisson_nll" or np.all(np.isfinite(value))


@every_loss
def test_the_gradient_is_right_in_float32_up_to_1e4(name):
    """mean(eta) - y, never NaN; +inf only where the Poisson loss itself is."""
    loss, oracle = loss_and_oracle(name)
    eta, y = extreme_rows(name)
    slope = np.asarray(gradient(loss, jnp.float32(eta), jnp.float32(y)))
    with np.errstate(over="ignore"):
        expected = (oracle.mean(eta) - y).astype(np.float32)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)
    assert name == "poisson_nll" or np.all(np.isfinite(slope))


@every_loss
def test_the_gradient_is_mean_minus_y(name, x64):
    """All links are canonical: d loss / d eta = mean(eta) - y."""
    loss, oracle = loss_and_oracle(name)
    eta, y = rows(name)
    expected = oracle.mean(eta) - y
    np.testing.assert_allclose(gradient(loss, eta, y), expected, atol=1e-12)


@every_loss
def test_the_gradient_is_the_numerical_derivative_of_the_closed_form(name, x64):
    """Central differences, with soft labels where the loss takes them."""
    loss, oracle = loss_and_oracle(name)
    eta, y = rows(name, n=5, scale=1.0)
    y = 0.7 * y + 0.3 * ORACLES[name].draw(np.random.default_rng(1), 5, 3)
    h, numeric = 1e-5, np.empty_like(eta)
    for j, e in enumerate(h * np.eye(3)):
        rise = oracle.value(eta + e, y) - oracle.value(eta - e, y)
        numeric[:, j] = rise / (2 * h)
    np.testing.assert_allclose(gradient(loss, eta, y), numeric, atol=1e-8)


@every_loss
def test_saturated_is_the_least_value_over_all_eta(name, x64):
    """No eta goes below it, and eta = link(y) reaches it, soft labels included."""
    loss, oracle = loss_and_oracle(name)
    eta, hard = rows(name)
    soft = 0.7 * hard + 0.3 * np.roll(hard, 1, axis=0)
    for y in (hard, soft):
        least = loss.saturated(y)
        chex.assert_shape(least, (40,))
        reached = oracle.value(oracle.link(y), y)
        np.testing.assert_allclose(least, reached, atol=1e-10)
        for scale in (0.0, 0.01, 1.0, 10.0):
            near = oracle.link(y) + scale * eta
            assert np.all(oracle.value(near, y) >= least - 1e-10)


@pytest.mark.parametrize("name", sorted(set(ORACLES) - {"softmax_cross_entropy"}))
def test_y_of_rows_and_eta_of_one_column_are_never_n_by_n(name):
    """y [n] and y [n, 1] are the same targets of eta [n, 1]."""
    loss, _ = loss_and_oracle(name)
    eta, y = map(jnp.float32, rows(name, n=7, k=1))
    value = loss.value(eta, y[:, 0])
    chex.assert_shape((value, loss.saturated(y[:, 0])), (7,))
    chex.assert_trees_all_equal(value, loss.value(eta, y))
    chex.assert_trees_all_equal(loss.saturated(y[:, 0]), loss.saturated(y))
    slopes = gradient(loss, eta, y[:, 0]), gradient(loss, eta, y)
    chex.assert_shape(slopes, (7, 1))
    chex.assert_trees_all_equal(*slopes)
    encoded = loss.encode(np.asarray(y[:, 0]), 1)
    np.testing.assert_array_equal(encoded, np.asarray(y))


@every_loss
def test_a_y_of_another_shape_than_eta_is_refused(name):
    """Also float y [k] with eta [k, k], which NumPy would broadcast row by row."""
    loss, _ = loss_and_oracle(name)
    eta = jnp.zeros((3, 3))
    for y in (jnp.zeros(3), jnp.zeros((3, 1)), jnp.zeros((1, 3)), jnp.zeros((2, 3))):
        with pytest.raises(AssertionError):
            loss.value(eta, y)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_integer_labels_are_one_hot_rows(dtype):
    """softmax: label j is the row with 1 at j, in value, gradient and encode."""
    loss = rj.losses.softmax_cross_entropy()
    eta, t = map(jnp.float32, rows("softmax_cross_entropy"))
    labels = np.argmax(t, axis=1).astype(dtype)
    chex.assert_trees_all_equal(loss.value(eta, labels), loss.value(eta, t))
    chex.assert_trees_all_equal(gradient(loss, eta, labels), gradient(loss, eta, t))
    for y in (labels, labels.astype(float), labels[:, None], np.asarray(t)):
        np.testing.assert_array_equal(loss.encode(y, 3), t)


def test_integer_labels_of_two_classes_are_probabilities():
    """sigmoid: 0 and 1 as integers or booleans are 0. and 1."""
    loss = rj.losses.sigmoid_binary_cross_entropy()
    eta, y = map(jnp.float32, rows("sigmoid_binary_cross_entropy", k=1))
    for labels in (y.astype(int), y.astype(bool)):
        chex.assert_trees_all_equal(loss.value(eta, labels[:, 0]), loss.value(eta, y))
        np.testing.assert_array_equal(loss.encode(np.asarray(labels), 1), y)


def test_two_softmax_outputs_are_one_sigmoid_output():
    """softmax(eta)[1] = sigmoid(eta_1 - eta_0): the two losses are the same number."""
    eta, y = extreme_rows("softmax_cross_entropy")
    two = rj.losses.softmax_cross_entropy().value(jnp.float32(eta), jnp.float32(y))
    difference = jnp.float32(eta[:, 1:] - eta[:, :1])
    binary = rj.losses.sigmoid_binary_cross_entropy()
    one = binary.value(difference, jnp.float32(y[:, 1:]))
    np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-6)


def test_many_lanes_compiled_give_what_one_gives():
    """XLA for CPU (jaxlib 0.10.2) got logsumexp(eta - eta_target) wrong by 0.8."""
    rng = np.random.default_rng(0)
    eta = jnp.asarray(rng.standard_normal((16, 1797, 10)), jnp.float32)
    y = jnp.asarray(np.eye(10, dtype=np.float32)[rng.integers(0, 10, 1797)])

    def mean(eta):
        return jnp.mean(rj.losses.softmax_cross_entropy().value(eta, y))

    compiled = jax.jit(jax.vmap(mean))(eta)
    np.testing.assert_allclose(compiled, [mean(one) for one in eta], rtol=1e-5)
