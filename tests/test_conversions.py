"""Other packages' numbers give other packages' fits."""

import numpy as np
import pytest

import regjax as rj
from regjax import conversions

pytestmark = pytest.mark.usefixtures("x64")
TIGHT = rj.solvers.proximal_gradient(tol=1e-15)


def data():
    raw = rj.datasets.load("breast_cancer")
    X = (raw.X[:200, :8] - raw.X[:200, :8].mean(0)) / raw.X[:200, :8].std(0)
    return X, raw.y[:200]


def problem(loss, penalty):
    return rj.Problem(rj.models.linear(8), loss, penalty)


def test_ridge_of_scikit_learn():
    from sklearn.linear_model import Ridge

    X, y = data()
    lam = conversions.sklearn_ridge(3.0, len(y))
    ours = rj.fit(
        problem(rj.losses.half_squared_error(), rj.penalties.l2()), X, y, lam,
        solver=TIGHT,
    )  # fmt: skip
    peer = Ridge(3.0).fit(X, y)
    np.testing.assert_allclose(ours.params[0]["w"][:, 0], peer.coef_, rtol=1e-6)


def test_logistic_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    X, y = data()
    lam = conversions.sklearn_logistic(0.5, len(y))
    ours = rj.fit(
        problem(rj.losses.sigmoid_binary_cross_entropy(), rj.penalties.l2()), X, y,
        lam, solver=TIGHT,
    )  # fmt: skip
    peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(ours.params[0]["w"][:, 0], peer.coef_[0], rtol=1e-5)


def test_mlp_of_scikit_learn():
    """Its loss on a batch of B rows is mean loss + alpha / (2 B) |w|^2."""
    from sklearn.neural_network import MLPClassifier

    X, y = data()
    net = MLPClassifier(
        (4,), activation="logistic", alpha=0.7, batch_size=200, max_iter=1,
        solver="sgd", learning_rate_init=1e-12, shuffle=False, random_state=0,
    )  # fmt: skip
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.fit(X, y)
    params = tuple(
        {"w": w, "b": b} for w, b in zip(net.coefs_, net.intercepts_, strict=True)
    )
    lam = conversions.sklearn_mlp(0.7, 200)
    mlp = rj.Problem(
        rj.models.mlp([8, 4, 1]),
        rj.losses.sigmoid_binary_cross_entropy(),
        rj.penalties.l2(),
    )
    eta = mlp.model.apply(params, X)
    ours = mlp.loss.value(eta, y).mean() + mlp.penalty.value(params, lam)
    np.testing.assert_allclose(ours, net.loss_, rtol=1e-9)


def test_the_seeds_lambda_is_for_sums_of_losses():
    """Its objective over n is ours, up to sign: loss / n + lambda / (2n) |w|^2."""
    X, y = data()
    w = np.linspace(-1, 1, 8)[:, None]
    losses = rj.losses.sigmoid_binary_cross_entropy().value(X @ w, y)
    seeds = losses.sum() + 4.0 / 2 * (w**2).sum()
    lam = conversions.seed(4.0, len(y))
    params = ({"w": w, "b": np.zeros(1)},)
    ours = losses.mean() + rj.penalties.l2().value(params, lam)
    np.testing.assert_allclose(ours, seeds / len(y), rtol=1e-12)


def test_glmnet_rescales_its_penalty_factors():
    np.testing.assert_allclose(conversions.glmnet_factors([0, 1, 3]), [0, 0.75, 2.25])
