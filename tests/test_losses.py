"""The contract of a loss, over every one in the registry."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
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


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100, 10**4, 10**7])
@pytest.mark.parametrize("off", [0.0, 1e-3, -0.099, 0.101, 2.0])
def test_large_counts_cost_poisson_no_digits(count, off, x64):
    """Against decimals of 40 digits."""
    with localcontext() as context:
        context.prec = 40
        eta = np.log(max(count, 0.5)) + off
        exact = Decimal(eta)
        value = exact.exp() - count * exact + log_factorial(count)
        least = count - (count * Decimal(count).ln() if count else 0)
        least += log_factorial(count)
    loss, y = rj.losses.poisson_nll(), np.full((1, 1), float(count))
    found = loss.value(np.full((1, 1), eta), y)[0], loss.saturated(y)[0]
    wanted = float(value), float(least)
    slack = abs(off) * count * np.spacing(eta)  # eta itself is rounded
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-14 + 8 * abs(slack))
    small = np.float32(eta)[None, None], np.float32(y)
    error = abs(np.expm1(off)) * count * np.spacing(np.float32(abs(eta)))
    rough = loss.value(*small)[0], loss.saturated(small[1])[0]
    np.testing.assert_allclose(rough, wanted, rtol=2e-6, atol=1e-6 + 4 * error)


def log_factorial(count):
    """In decimals: exact below 1,000, by Stirling's series above."""
    if count < 1000:
        return Decimal(math.factorial(count)).ln()
    n, pi = Decimal(count), Decimal("3.14159265358979323846264338327950288419717")
    series = 1 / (12 * n) - 1 / (360 * n**3) + 1 / (1260 * n**5) - 1 / (1680 * n**7)
    return (n + Decimal("0.5")) * n.ln() - n + (2 * pi).ln() / 2 + series


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


def test_small_binary_losses_keep_their_digits():
    """Confident and right: the loss is exp(-eta), to relative single precision."""
    loss = rj.losses.sigmoid_binary_cross_entropy()
    eta = np.linspace(-85, 85, 401, dtype=np.float32)[:, None]
    y = np.float32(eta > 0)
    value = jax.jit(loss.value)(eta, y)
    wrong = np.exp(-np.abs(eta.astype(float)))
    np.testing.assert_allclose(value, np.log1p(wrong)[:, 0], rtol=1e-6)
    slope = gradient(loss, eta, jnp.asarray(y))
    expected = (1 - 2 * y) * wrong / (1 + wrong)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
    bent = jax.jvp(lambda e: gradient(loss, e, y), (0 * eta,), (1 + 0 * eta,))[1]
    np.testing.assert_array_equal(bent, 0.25)


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


def dual_points(name, n=40, k=3):
    """y, and v within the conjugate's domain: `v + y` is a mean, [n, k] float64."""
    eta, y = rows(name, n, k)
    return y, ORACLES[name].mean(0.5 * eta[::-1]) - y


@every_loss
def test_the_conjugate_is_the_supremum_that_scipy_finds(name, x64):
    """sup over eta of v . eta - value(eta, y), by BFGS on the closed form."""
    loss, oracle = loss_and_oracle(name)
    y, v = dual_points(name, n=8)
    found = loss.conjugate(v, y)
    chex.assert_shape(found, (8,))
    for i in range(8):

        def negative(eta, i=i):
            return oracle.value(eta[None], y[i : i + 1])[0] - v[i] @ eta

        largest = -minimize(negative, np.zeros(3), tol=1e-10).fun
        np.testing.assert_allclose(found[i], largest, atol=1e-7)


@every_loss
def test_fenchel_and_young_of_a_loss(name, x64):
    """conjugate(v) >= v . eta - value(eta) for every eta, far ones too."""
    loss, oracle = loss_and_oracle(name)
    y, v = dual_points(name)
    eta, _ = rows(name)
    for scale in (0.0, 0.1, 1.0, 10.0):
        bound = (v * scale * eta).sum(-1) - oracle.value(scale * eta, y)
        assert np.all(loss.conjugate(v, y) >= bound - 1e-10 * np.abs(bound))


OUTSIDE = {
    "softmax_cross_entropy": [
        ([0.2, -0.3, 0.3], "sum above 0"),
        ([0.2, -0.3, -0.1], "sum below 0"),
        ([-0.1, 0.0, 0.1], "q below 0"),
        ([0.5, -1.1, 0.6], "q above 1"),
    ],
    "sigmoid_binary_cross_entropy": [
        ([0.0, 0.01, 0.0], "q above 1"),
        ([-0.01, 0.0, 0.0], "q below 0"),
        ([0.0, -1.01, 0.0], "q below 0"),
    ],
    "half_squared_error": [],
    "poisson_nll": [([-0.01, 0.0, 0.0], "q below 0"), ([1, -1.01, 0], "q below 0")],
}


@pytest.mark.parametrize(
    ("name", "v"), [(name, v) for name, all_v in OUTSIDE.items() for v, _ in all_v]
)
def test_the_conjugate_is_infinite_outside_of_its_domain(name, v, x64):
    """With y = (0, 1, 0): some direction of eta raises v . eta - value for ever."""
    loss, oracle = loss_and_oracle(name)
    y, v = np.array([[0.0, 1.0, 0.0]]), np.array([v])
    assert loss.conjugate(v, y)[0] == np.inf
    directions = [*np.eye(3), *-np.eye(3), np.ones(3), -np.ones(3)]
    rises = []
    for d in directions:
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = (v @ d * t - oracle.value(t * d[None], y) for t in (1e3, 1e5))
            rises.append(high[0] - low[0])
    assert np.nanmax(rises) > 900


@every_loss
def test_the_conjugate_is_finite_on_the_edge_of_its_domain(name):
    """q = v + y of 0 and 1, and rounding beyond, is inside in float32."""
    loss, _ = loss_and_oracle(name)
    y = jnp.float32([[0.0, 1.0, 0.0]])
    for q in ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [-1e-7, 1 + 1e-7, 0.0]):
        value = loss.conjugate(jnp.float32([q]) - y, y)
        assert np.all(np.isfinite(value))


@every_loss
def test_the_conjugate_is_finite_at_every_gradient_in_float32(name):
    """theta = the gradient, or a part of it, is what the certificates ask about."""
    loss, _ = loss_and_oracle(name)
    for k in (3, 1000):
        eta, y = map(jnp.float32, rows(name, k=k))
        v = gradient(loss, eta, y)
        for share in (1.0, 0.7, 1e-3, 0.0):
            assert np.all(np.isfinite(loss.conjugate(share * v, y)))


@every_loss
def test_fenchel_young_is_value_plus_conjugate_minus_product(name, x64):
    """Never below 0; in float64 the naive sum is exact enough to compare."""
    loss, oracle = loss_and_oracle(name)
    y, v = dual_points(name)
    eta, _ = rows(name)
    found = loss.fenchel_young(eta, v, y)
    chex.assert_shape(found, (40,))
    naive = oracle.value(eta, y) + loss.conjugate(v, y) - (v * eta).sum(-1)
    np.testing.assert_allclose(found, naive, rtol=1e-9, atol=1e-9)
    assert np.all(naive > 1e-3)


@every_loss
def test_fenchel_young_is_zero_at_the_gradient(name, x64):
    """v = d value / d eta is the one dual point without a gap, labels soft or hard."""
    loss, oracle = loss_and_oracle(name)
    eta, hard = rows(name)
    for y in (hard, 0.7 * hard + 0.3 * np.roll(hard, 1, axis=0)):
        v = oracle.mean(eta) - y
        scale = 1 + np.abs(oracle.value(eta, y))
        assert np.all(np.abs(loss.fenchel_young(eta, v, y)) <= 1e-12 * scale)


@every_loss
def test_fenchel_young_is_never_negative(name):
    """Rounding included: a gap below 0 would certify what is not so."""
    loss, _ = loss_and_oracle(name)
    eta, y = map(jnp.float32, rows(name, n=400))
    v = gradient(loss, eta, y)
    for share in (1.0, 1 - 1e-6, 0.99):
        assert np.all(np.asarray(loss.fenchel_young(eta, share * v, y)) >= 0)


@every_loss
def test_fenchel_young_is_accurate_where_the_naive_sum_cancels(name):
    """float32, far from 0, against float64: value, conjugate and v . eta are large."""
    rng = np.random.default_rng(0)
    far = {
        "softmax_cross_entropy": 1e3,
        "sigmoid_binary_cross_entropy": 10.0,
        "half_squared_error": 1e3,
        "poisson_nll": 9.0,
    }[name]
    loss, oracle = loss_and_oracle(name)
    eta = np.float32(far + 0.3 * rng.normal(size=(100, 3)))
    y = np.float32(0 * eta if far == 10 else oracle.draw(rng, 100, 3))
    if name == "poisson_nll":
        y = np.float32(rng.poisson(oracle.mean(eta.astype(float))))
    # Nearly the gradient: the gap is a small part of each of its three terms.
    v = np.float32(0.99 * (oracle.mean(eta.astype(float)) - y))
    found = np.asarray(loss.fenchel_young(eta, v, y), float)
    naive = loss.value(eta, y) + loss.conjugate(v, y) - np.sum(v * eta, -1)
    eta, v, y = (a.astype(float) for a in (eta, v, y))
    q = v + y
    if name == "softmax_cross_entropy":
        q /= q.sum(-1, keepdims=True)  # v was rounded
    exact = oracle.value(eta, q) - oracle.value(oracle.link(q), q)
    error, careless = np.abs(found - exact).max(), np.abs(naive - exact).max()
    assert error < 0.2 * careless


def test_the_binary_loss_bends_at_zero_as_well(x64):
    """One exponential of |eta| serves both sides, and |eta| has a corner at 0."""
    loss = rj.losses.sigmoid_binary_cross_entropy()

    def one(eta, y):
        return loss.value(eta[None, None], y[None, None])[0]

    eta = jnp.array([-800.0, -1e-9, -0.0, 0.0, 1e-9, 800.0])
    slope = jax.vmap(jax.grad(one), (0, None))(eta, jnp.array(1.0))
    np.testing.assert_allclose(slope, jax.nn.sigmoid(eta) - 1, atol=1e-15)
    bend = jax.vmap(jax.hessian(one), (0, None))(eta, jnp.array(1.0))
    np.testing.assert_allclose(bend, [0, 0.25, 0.25, 0.25, 0.25, 0], atol=1e-15)


@every_loss
def test_the_hessian_is_jaxs_own(name, x64):
    """diag(d) - u u' is the second derivative of each row's value."""
    loss, _ = loss_and_oracle(name)
    eta, y = rows(name)
    d, u = loss.hessian(eta, y)
    chex.assert_shape((d, u), (40, 3))
    found = jax.vmap(jnp.diag)(d) - u[:, :, None] * u[:, None, :]

    def one(eta, y):
        return loss.value(eta[None], y[None])[0]

    expected = jax.vmap(jax.hessian(one))(eta, y)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@every_loss
def test_slopes_of_a_balanced_loss_sum_to_zero(name, x64):
    """Those of softmax, labels soft or hard; of no other loss."""
    loss, _ = loss_and_oracle(name)
    eta, hard = rows(name)
    for y in (hard, 0.7 * hard + 0.3 * np.roll(hard, 1, axis=0)):
        sums = np.sum(gradient(loss, eta, y), axis=1)
        assert (np.abs(sums).max() < 1e-14) == loss.balanced


@every_loss
def test_the_curvature_bounds_the_hessian(name, x64):
    """No eta has a larger eigenvalue, and some eta comes near; None: no bound."""
    loss, oracle = loss_and_oracle(name)
    eta, y = rows(name, n=400)
    eta[0] = [0.0, 0.0, -50.0]
    d, u = map(np.asarray, loss.hessian(eta, y))
    largest = np.linalg.eigvalsh(
        [np.diag(a) - np.outer(b, b) for a, b in zip(d, u, strict=True)]
    )
    if loss.curvature is None:
        steep = loss.hessian(eta + 50, y)[0]
        assert name == "poisson_nll" and np.max(steep) > 1e15
        return
    assert 0.99 * loss.curvature < largest.max() <= loss.curvature * (1 + 1e-12)
    assert largest.min() > -1e-12


@every_loss
def test_dual_functions_are_finite_up_to_1e4(name):
    """Labels 0 and 1, v the gradient or 0; Poisson above its range is +inf, not NaN."""
    loss, _ = loss_and_oracle(name)
    eta, y = map(jnp.float32, extreme_rows(name))
    if name == "poisson_nll":
        high = jnp.any(eta >= 90, axis=-1)
        gap = loss.fenchel_young(eta, 0 * y, y)
        assert np.all(np.isposinf(gap[high])) and np.all(gap >= 0)
        assert not np.any(np.isnan(loss.hessian(eta, y)[0]))
        eta, y = eta[~high], y[~high]
    for v in (gradient(loss, eta, y), jnp.zeros_like(eta)):
        chex.assert_tree_all_finite(
            (loss.conjugate(v, y), loss.fenchel_young(eta, v, y), loss.hessian(eta, y))
        )


def test_duals_of_integer_labels_are_those_of_one_hot_rows():
    """softmax: conjugate and fenchel_young take labels as value does."""
    loss = rj.losses.softmax_cross_entropy()
    eta, t = map(jnp.float32, rows("softmax_cross_entropy"))
    labels, v = np.argmax(t, axis=1), 0.5 * gradient(loss, eta, t)
    chex.assert_trees_all_equal(loss.conjugate(v, labels), loss.conjugate(v, t))
    both = [loss.fenchel_young(eta, v, target) for target in (labels, t)]
    chex.assert_trees_all_equal(*both)


@pytest.mark.parametrize("name", sorted(set(ORACLES) - {"softmax_cross_entropy"}))
def test_duals_of_rows_and_of_one_column_are_the_same(name):
    """y [n] and y [n, 1] are the same targets of eta [n, 1]."""
    loss, _ = loss_and_oracle(name)
    eta, y = map(jnp.float32, rows(name, n=7, k=1))
    v = 0.5 * gradient(loss, eta, y)
    chex.assert_trees_all_equal(loss.conjugate(v, y[:, 0]), loss.conjugate(v, y))
    both = [loss.fenchel_young(eta, v, target) for target in (y[:, 0], y)]
    chex.assert_shape(both, (7,))
    chex.assert_trees_all_equal(*both)


def test_class_probabilities_that_nearly_sum_to_1_have_a_finite_conjugate():
    """encode takes rows that sum to 1 within 1e-3: their gradients are dual points."""
    loss = rj.losses.softmax_cross_entropy()
    y = loss.encode(np.float32([[0.5, 0.3, 0.2004]]), 3)
    v = gradient(loss, jnp.zeros((1, 3)), jnp.asarray(y))
    assert np.all(np.isfinite(loss.conjugate(v, y)))


@pytest.mark.parametrize("margin", [0.0, 5.0, 15.0, 40.0])
def test_softmax_of_well_fitted_rows_has_all_digits_in_float32(margin):
    """`-ln p` has the rounding of 1: the mean of a fit has steps of 1e-7."""
    rng = np.random.default_rng(0)
    y = np.eye(4, dtype=np.float32)[rng.integers(4, size=200)]
    eta = np.float32(rng.standard_normal(y.shape) + margin * y)
    eta[:20] = margin  # classes alike
    y[20:30] = [0.5, 0.5, 0.0, 0.0]
    found = rj.losses.softmax_cross_entropy().value(eta, y)
    wide = eta.astype(float)
    below = wide[:, None, :] - wide[:, :, None]  # of the others, at each class
    below[:, np.arange(4), np.arange(4)] = -np.inf
    exact = np.sum(y * np.log1p(np.exp(below).sum(-1)), axis=-1)
    np.testing.assert_allclose(found, exact, rtol=1e-5)


@every_loss
def test_the_link_is_where_the_mean_loss_is_least(name):
    """In all digits, and not finite where it has no minimiser."""
    loss, oracle = loss_and_oracle(name)
    if loss.link is None:  # its targets are centred: the search begins at the end
        assert name == "half_squared_error"
        return
    _, y = rows(name)
    eta = loss.link(y.mean(axis=0))
    np.testing.assert_allclose(oracle.mean(eta), y.mean(axis=0), rtol=1e-12)
    assert not np.all(np.isfinite(loss.link(np.zeros(3))))
