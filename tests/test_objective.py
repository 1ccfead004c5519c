"""The equation, by hand in NumPy, and the seed's update rules from it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy.special import expit, gammaln, logsumexp, softmax

import regjax as rj
from regjax import objective
from regjax.types import Data

N, D, M, K = 9, 4, 3, 2
LAM, RIDGE, L1_RATIO = 0.3, 0.05, 0.7


def network(loss, penalty=None, ridge=0.0, bias=True):
    """The seed's network: inputs, sigmoid units, outputs."""
    model = rj.models.mlp([D, M, K], activation="sigmoid", bias=bias)
    return rj.Problem(model, loss, penalty or rj.penalties.l1(), ridge)


def random_params(rng, bias=True):
    sizes = [(D, M), (M, K)]
    layers = [{"w": rng.normal(size=size)} for size in sizes]
    for layer, (_, width) in zip(layers, sizes, strict=True):
        layer.update({"b": rng.normal(size=width)} if bias else {})
    return tuple(layers)


@pytest.mark.parametrize("columns", [1, K], ids=["offset [n, 1]", "offset [n, k]"])
def test_the_objective_is_the_equation(columns, x64):
    """F = 1/S sum s_i loss(f(x_i) + o_i, y_i) + lam Omega(w) + ridge/2 |w|^2."""
    rng = np.random.default_rng(0)
    X, offset = rng.normal(size=(N, D)), rng.normal(size=(N, columns))
    y, weights = np.eye(K)[rng.integers(K, size=N)], rng.integers(0, 4, size=N) * 1.0
    params = random_params(rng)

    hidden = expit(X @ params[0]["w"] + params[0]["b"])
    eta = hidden @ params[1]["w"] + params[1]["b"] + offset
    losses = logsumexp(eta, axis=1) - (y * eta).sum(1)
    w = np.concatenate([layer["w"].ravel() for layer in params])
    data_loss = (weights * losses).sum() / weights.sum()
    smooth = data_loss + RIDGE / 2 * (w**2).sum()
    whole = smooth + LAM * oracles.elastic_net(w, L1_RATIO)

    penalty = rj.penalties.elastic_net(L1_RATIO)
    problem = network(rj.losses.softmax_cross_entropy(), penalty, RIDGE)
    args = problem, params, Data(X, y, offset), weights / weights.sum()
    np.testing.assert_allclose(objective.data_loss(*args), data_loss, rtol=1e-14)
    np.testing.assert_allclose(objective.smooth(*args), smooth, rtol=1e-14)
    np.testing.assert_allclose(objective.objective(*args, LAM), whole, rtol=1e-14)


def test_fit_reports_the_terms_of_the_equation(x64):
    """fit's loss, penalty and objective are those of its params, by hand."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(N, D)), rng.poisson(2.0, size=N)
    weights, offset = rng.integers(1, 4, size=N), rng.normal(size=N)
    problem = rj.Problem(
        rj.models.linear(D),
        rj.losses.poisson_nll(),
        rj.penalties.elastic_net(L1_RATIO),
        ridge=RIDGE,
    )
    fit = rj.fit(problem, X, y, 0.05, sample_weight=weights, offset=offset)
    w, b = fit.params[0]["w"][:, 0], fit.params[0]["b"][0]
    eta = X @ w + b + offset
    losses = np.exp(eta) - y * eta + gammaln(y + 1)
    loss = (weights * losses).sum() / weights.sum()
    penalty = 0.05 * oracles.elastic_net(w, L1_RATIO)
    np.testing.assert_allclose(fit.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(fit.penalty, penalty, rtol=1e-12)
    ridge = RIDGE / 2 * (w**2).sum()
    np.testing.assert_allclose(fit.objective, loss + penalty + ridge, rtol=1e-12)


def infinite_at_zero(eta, y):
    """The exponential distribution by its rate: a user's loss, inf at eta = 0."""
    return jnp.sum(y * eta - jnp.log(eta), axis=-1)


def test_float32_data_are_fitted_in_float32_where_64_bits_are_on(x64):
    """The dtype of X is that of the fit, in minibatch training and in full batch."""
    X, y, _ = rj.datasets.sparse_regression(0, 60, 8, 3)
    loss, penalty = rj.losses.half_squared_error(), rj.penalties.elastic_net(0.5)
    problem = rj.Problem(rj.models.linear(8), loss, penalty, RIDGE)
    solver = rj.solvers.minibatch(epochs=1, polish=1)
    fit = rj.fit(problem, np.float32(X), np.float32(y), 0.1, solver=solver)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((fit.params, fit.objective))}
    assert dtypes == {np.dtype(np.float32)}


@pytest.mark.parametrize("loss", [*rj.losses.REGISTRY.values(), infinite_at_zero])
def test_a_row_of_zero_weight_is_left_out_whatever_its_loss(loss):
    """Value and gradient are those of the other rows, though 0 * inf is NaN."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(N, D)), np.eye(K)[rng.integers(K, size=N)]
    X[:3] = 1e30
    model = rj.models.mlp([D, M, K], activation="relu")
    loss = rj.Loss(loss) if loss is infinite_at_zero else loss()
    problem = rj.Problem(model, loss, rj.penalties.l1())
    params = jax.tree.map(lambda w: jnp.float32(np.abs(w)), random_params(rng))
    X, y = jnp.float32(X), jnp.float32(y)
    shares = jnp.where(jnp.arange(N) < 3, 0, 1 / (N - 3))

    @jax.jit
    def value_and_gradient(data, shares):
        return jax.value_and_grad(objective.smooth, argnums=1)(
            problem, params, data, shares
        )

    kept = value_and_gradient(Data(X[3:], y[3:]), shares[3:])
    chex.assert_tree_all_finite(kept)
    chex.assert_trees_all_close(
        value_and_gradient(Data(X, y), shares), kept, rtol=1e-5, atol=1e-6
    )


def test_integer_weights_are_repeated_rows(x64):
    """Weight s_i counts as s_i copies of row i, in value and gradient."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(N, D)), rng.normal(size=(N, K))
    counts, params = rng.integers(0, 4, size=N), random_params(rng)
    problem = network(rj.losses.half_squared_error(), ridge=RIDGE)
    repeated = Data(np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0))
    equal = np.full(counts.sum(), 1 / counts.sum())
    smooth = functools.partial(objective.smooth, problem)
    value_and_gradient = jax.jit(jax.value_and_grad(smooth))
    chex.assert_trees_all_close(
        value_and_gradient(params, Data(X, y), counts / counts.sum()),
        value_and_gradient(params, repeated, equal),
        rtol=1e-12,
    )


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_the_seeds_update_rules_corrected_are_the_gradient(penalty, x64):
    """With z = sigmoid(W'x), y = softmax(V'z), Omega' = sign(w) for l1 and w for l2,

    -dF/dV = (1/n) sum (t - y) z - lam Omega'(V)
    -dF/dW = (1/n) sum_n sum_k (t - y)_k V_mk z_m (1 - z_m) x_d - lam Omega'(W).
    """
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(N, D)), np.eye(K)[rng.integers(K, size=N)]
    params = random_params(rng, bias=False)
    W, V = params[0]["w"], params[1]["w"]
    z = expit(x @ W)
    error = t - softmax(z @ V, axis=1)
    slope = {"l1": np.sign, "l2": lambda w: w}[penalty]
    ascent_V = np.einsum("nk,nm->mk", error, z) / N - LAM * slope(V)
    data_W = np.einsum("nk,mk,nm,nm,nd->dm", error, V, z, 1 - z, x) / N
    ascent_W = data_W - LAM * slope(W)

    loss, omega = rj.losses.softmax_cross_entropy(), rj.penalties.REGISTRY[penalty]()
    problem = network(loss, omega, bias=False)
    equal = np.full(N, 1 / N)
    whole = functools.partial(objective.objective, problem)
    gradient = jax.jit(jax.grad(whole))(params, Data(x, t), equal, LAM)
    np.testing.assert_allclose(-gradient[0]["w"], ascent_W, rtol=0, atol=1e-12)
    np.testing.assert_allclose(-gradient[1]["w"], ascent_V, rtol=0, atol=1e-12)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_the_kkt_residual_is_zero_at_the_optimum_only(l1_ratio, x64):
    """It is |w - prox(w - step g)| / step; a shift of w by 1e-3 shows in full."""
    X, y, _ = rj.datasets.sparse_regression(0, 60, 8, 3, rho=0.5)
    w, b = oracles.least_squares(X, y, 0.1, l1_ratio)
    penalty = rj.penalties.elastic_net(l1_ratio)
    loss = rj.losses.half_squared_error()
    problem = rj.Problem(rj.models.linear(8), loss, penalty)
    data, equal = Data(X, y[:, None]), np.full(60, 1 / 60)

    @jax.jit
    def residual(w, step):
        params = ({"w": w[:, None], "b": jnp.array([b])},)
        gradient = jax.grad(objective.smooth, argnums=1)(problem, params, data, equal)
        return objective.kkt_residual(problem, params, gradient, 0.1, step)

    for step in (0.1, 1.0):
        assert residual(w, step) < 1e-12
        moved = w + 1e-3 * (np.arange(8) == np.argmax(np.abs(w)))
        slope = X.T @ (X @ moved + b - y) / 60
        ahead = moved - step * slope
        shrunk = np.sign(ahead) * np.maximum(np.abs(ahead) - step * 0.1 * l1_ratio, 0)
        shrunk /= 1 + step * 0.1 * (1 - l1_ratio)
        intercept = np.mean(X @ moved + b - y)
        by_hand = max(np.abs(moved - shrunk).max() / step, np.abs(intercept))
        np.testing.assert_allclose(residual(moved, step), by_hand, rtol=1e-10)
        assert by_hand > 1e-4
