"""Minibatch training finds the exact support, and the polish is why."""

import functools
from functools import partial

import numpy as np
import oracles
import pytest

import regjax as rj

N, P, LAM = 256, 64, 0.1
# seed and correlation of neighbouring columns
DESIGNS = {
    "independent": (17, 0.0),
    "correlated": (33, 0.5),
    "very correlated": (18, 0.8),
}
PENALTIES = {"lasso": 1.0, "elastic net": 0.7}
OPTIMISERS = {
    "adam": "adam",
    "constant sgd": partial(rj.transforms.proximal_sgd, 1e-2),
}

every_design = pytest.mark.parametrize("design", DESIGNS)
every_penalty = pytest.mark.parametrize("penalty", PENALTIES)
every_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS)


@functools.cache
def regression(design):
    """The same numbers in float64 as float32 will see."""
    seed, rho = DESIGNS[design]
    X, y, _ = rj.datasets.sparse_regression(seed, N, P, 8, rho=rho)
    return X.astype(np.float32), y.astype(np.float32)


@functools.cache
def truth(design, penalty):
    """Weights and objective of the independent solver, clear of ties in float32."""
    X, y = (a.astype(float) for a in regression(design))
    l1_ratio = PENALTIES[penalty]
    w, b = oracles.least_squares(X, y, LAM, l1_ratio)
    slope = X.T @ (X @ w + b - y) / N
    assert np.abs(slope[w == 0]).max() < 0.99 * LAM * l1_ratio
    assert np.abs(w[w != 0]).min() > 5e-3
    return w, oracles.squared_objective(w, b, X, y, LAM, l1_ratio)


def fitted(design, penalty, optimiser, polish, **settings):
    """A fit by batches of 32."""
    omega = rj.penalties.elastic_net(PENALTIES[penalty])
    problem = rj.Problem(rj.models.linear(P), rj.losses.half_squared_error(), omega)
    solver = rj.solvers.minibatch(optimiser, batch_size=32, polish=polish, **settings)
    return rj.fit(problem, *regression(design), LAM, solver=solver)


def support(fit):
    return fit.params[0]["w"][:, 0] != 0


@every_design
@every_penalty
@every_optimiser
def test_with_polish_the_support_is_exact(design, penalty, optimiser):
    """Full-batch prox steps at the end leave the optimum's nonzeros and no others."""
    w, best = truth(design, penalty)
    for polish in (30, 100):  # by default, and as many as every design needs
        fit = fitted(design, penalty, OPTIMISERS[optimiser], polish)
        np.testing.assert_array_equal(support(fit), w != 0)
    assert fit.status == rj.Status.converged
    assert fit.n_nonzero == np.sum(w != 0)
    found = fit.params[0]["w"][:, 0].astype(float), float(fit.params[0]["b"][0])
    X, y = (a.astype(float) for a in regression(design))
    at = oracles.squared_objective(*found, X, y, LAM, PENALTIES[penalty])
    assert -1e-12 < at / best - 1 < 1e-5


@every_design
@every_penalty
@every_optimiser
def test_without_polish_the_support_is_wrong(design, penalty, optimiser):
    """A zero moves whenever the noisy gradient exceeds lam."""
    w, _ = truth(design, penalty)
    fit = fitted(design, penalty, OPTIMISERS[optimiser], polish=0, epochs=30)
    assert np.any(support(fit) != (w != 0))
    assert fit.status == rj.Status.max_iter


@pytest.mark.parametrize("rate, epochs", [(1e-2, 200), (1e-3, 1000)])
def test_no_learning_rate_is_small_enough_to_do_without_polish(rate, epochs):
    """A small step makes small false weights, but as many of them."""
    w, _ = truth("independent", "lasso")
    sgd = partial(rj.transforms.proximal_sgd, rate)
    fit = fitted("independent", "lasso", sgd, polish=0, epochs=epochs)
    false = fit.params[0]["w"][:, 0][w == 0]
    assert np.sum(false != 0) > 20
    assert np.abs(false).max() < rate
    np.testing.assert_array_equal(support(fit)[w != 0], True)


def test_an_epoch_of_tiny_steps_follows_the_gradient_of_all_rows(x64):
    """Batches are unbiased for sum s_i loss_i / S: their mean is the full gradient."""
    rng = np.random.default_rng(0)
    X, y = (a.astype(float) for a in regression("correlated"))
    weights = rng.exponential(size=N)
    rate, w, b = 1e-7, rng.normal(size=P), 0.3
    loss, ridge = rj.losses.half_squared_error(), 0.2
    problem = rj.Problem(rj.models.linear(P), loss, rj.penalties.l1(), ridge)
    sgd = partial(rj.transforms.proximal_sgd, rate)
    solver = rj.solvers.minibatch(sgd, batch_size=32, epochs=1, polish=0)
    start = ({"w": w[:, None], "b": np.array([b])},)
    fit = rj.fit(
        problem, X, y, 0.0, solver=solver, init=start, sample_weight=weights
    ).params[0]
    residual = weights * (X @ w + b - y) / weights.sum()
    batches = N // 32
    np.testing.assert_allclose(
        (w - fit["w"][:, 0]) / (batches * rate), X.T @ residual + ridge * w, atol=1e-4
    )
    np.testing.assert_allclose(
        (b - fit["b"][0]) / (batches * rate), residual.sum(), atol=1e-4
    )
