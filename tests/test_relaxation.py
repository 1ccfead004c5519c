"""Refits on frozen supports, against least squares and scipy."""

import jax
import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

import regjax as rj


def data(n=80, p=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * [1, 10, 0.1, 1, 1, 3] + 5
    y = X @ [1.0, 0.2, 0, -1, 0, 0] + 0.5 * rng.standard_normal(n)
    return X, y


def lasso(p=6):
    model, loss = rj.models.linear(p), rj.losses.half_squared_error()
    return rj.Problem(model, loss, rj.penalties.l1())


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_refit_of_a_lasso_is_least_squares_on_its_support(
    standardize, weighted, x64
):
    """And the null model where the support is empty."""
    X, y = data()
    weights = np.arange(80) % 4 if weighted else None
    given = {"sample_weight": weights}
    path = rj.fit_path(lasso(), X, y, 8, standardize=standardize, **given)
    relaxed = rj.relax(lasso(), path, X, y, **given)
    a = np.ones(80) if weights is None else weights
    coef = relaxed.coef()
    assert np.all((coef["w"] != 0) == (path.coef()["w"] != 0))
    for i in range(8):
        used = path.coef()["w"][i, :, 0] != 0
        Z = np.column_stack([np.ones(80), X[:, used]]) * np.sqrt(a)[:, None]
        best = np.linalg.lstsq(Z, y * np.sqrt(a))[0]
        np.testing.assert_allclose(coef["w"][i, used, 0], best[1:], rtol=1e-7)
        np.testing.assert_allclose(coef["b"][i, 0], best[0], rtol=1e-6)
    np.testing.assert_allclose(relaxed.loss[0], path.null_loss)
    assert np.all(relaxed.status == rj.Status.converged)
    assert np.all(relaxed.penalty == 0)
    predicted = relaxed.predict(X, lam=relaxed.lams[3])[:, 0]
    loss = np.average(0.5 * (predicted - y) ** 2, weights=a)
    np.testing.assert_allclose(loss, relaxed.loss[3], rtol=1e-9)


def test_a_ridge_stays_in_the_refit(x64):
    """argmin of the loss and ridge/2 |w|^2 on the support, by scipy."""
    X, y = data()
    problem = lasso()._replace(ridge=0.5)
    path = rj.fit_path(problem, X, y, [0.5])
    relaxed = rj.relax(problem, path, X, y)
    used = path.coef()["w"][0, :, 0] != 0
    assert 0 < used.sum() < 6

    def objective(v):
        residual = X[:, used] @ v[1:] + v[0] - y
        return 0.5 * np.mean(residual**2) + 0.25 * np.sum(v[1:] ** 2)

    best = minimize(objective, np.zeros(1 + used.sum()), tol=1e-12)
    np.testing.assert_allclose(relaxed.objective[0], best.fun, rtol=1e-9)
    np.testing.assert_allclose(
        relaxed.coef()["w"][0, used, 0], best.x[1:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("standardize", [False, True])
def test_a_refit_stays_within_bounds(standardize, x64):
    """Bounded least squares on the support, by scipy."""
    X, y = data()
    penalty = rj.penalties.l1(bounds=(-0.5, 0.6))
    problem = lasso()._replace(penalty=penalty)
    path = rj.fit_path(problem, X, y, [0.5, 0.05], standardize=standardize)
    relaxed = rj.relax(problem, path, X, y)
    Z = (X - X.mean(0)) / X.std(0) if standardize else X - X.mean(0)
    for i in range(2):
        w = relaxed.params[0]["w"][i, :, 0]
        used = path.params[0]["w"][i, :, 0] != 0
        best = lsq_linear(Z[:, used], y - y.mean(), (-0.5, 0.6), tol=1e-14)
        np.testing.assert_allclose(w[used], best.x, atol=1e-5)
        assert np.all((w >= -0.5) & (w <= 0.6)) and np.any(np.isin(w, (-0.5, 0.6)))
    half = rj.relax(problem, path, X, y, gamma=0.5).params[0]["w"]
    assert np.all((half >= -0.5) & (half <= 0.6))


def test_bounds_of_an_intercept_hold_in_a_refit(x64):
    """Where the penalty has it too; columns are then not scaled."""
    X, y = data()
    X = X - X.mean(0)
    penalty = rj.penalties.l1(bounds=(-0.5, 0.6), where=".*")
    problem = lasso()._replace(penalty=penalty)
    path = rj.fit_path(problem, X, y, [0.05])
    relaxed = rj.relax(problem, path, X, y)
    used = path.params[0]["w"][0, :, 0] != 0
    Z = np.column_stack([np.ones(80), X[:, used]])
    best = lsq_linear(Z, y, (-0.5, 0.6), tol=1e-14)
    np.testing.assert_allclose(relaxed.params[0]["b"][0, 0], best.x[0], atol=1e-5)
    np.testing.assert_allclose(relaxed.loss[0], best.cost / 80, rtol=1e-6)


@pytest.mark.parametrize("high", [0.6, np.inf])
def test_a_bounded_refit_of_raw_columns_is_as_good_as_of_scaled_ones(high):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((100, 6)) * [0.1, 1, 10, 100, 1e3, 1]).astype(np.float32)
    y = (X / X.std(0)) @ [1.0, 0.5, 1.0, 0.3, 0.7, 0.4] + rng.standard_normal(100)
    y = y.astype(np.float32)
    problem = lasso()._replace(penalty=rj.penalties.l1(bounds=(0, high)))
    path = rj.fit_path(problem, X, y, [1.0, 0.1, 0.01])
    relaxed = rj.relax(problem, path, X, y)
    assert np.all(relaxed.status == rj.Status.converged)
    for i in range(3):
        w = relaxed.params[0]["w"][i, :, 0]
        used = path.params[0]["w"][i, :, 0] != 0
        Z = (X - X.mean(0, dtype=float))[:, used]
        best = lsq_linear(Z, y - y.mean(dtype=float), (0, high), tol=1e-14)
        np.testing.assert_allclose(relaxed.loss[i], best.cost / 100, rtol=1e-4)
        assert np.all((w >= 0) & (w <= np.float32(high)))


def test_gamma_blends_the_params_of_a_linear_model(x64):
    X, y = data()
    y = (y > y.mean()).astype(int)
    loss = rj.losses.sigmoid_binary_cross_entropy()
    problem = lasso()._replace(loss=loss)
    path = rj.fit_path(problem, X, y, [0.1, 0.03], standardize=True)
    refit, half, whole = (
        rj.relax(problem, path, X, y, gamma) for gamma in (0.0, 0.5, 1.0)
    )
    for name in "wb":
        a, b = path.coef()[name], refit.coef()[name]
        np.testing.assert_allclose(half.coef()[name], 0.5 * (a + b), rtol=1e-12)
        np.testing.assert_allclose(whole.coef()[name], a, rtol=1e-12)
    np.testing.assert_allclose(whole.loss, path.loss, rtol=1e-9)
    assert np.all(refit.loss < half.loss) and np.all(half.loss < path.loss)
    eta = half.predict(X, type="link")[..., 0]
    np.testing.assert_allclose(
        half.loss, np.mean(np.logaddexp(0, eta) - y * eta, axis=1), rtol=1e-9
    )
    assert np.all(np.isinf(half.kkt))


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((120, 5)).astype(np.float32)
    y = ((X[:, 0] > 0) ^ (X[:, 1] > 0)).astype(int)
    model = rj.models.mlp([5, 8, 2], "tanh")
    penalty = rj.penalties.group(where="0/w")
    loss = rj.losses.softmax_cross_entropy()
    problem = rj.Problem(model, loss, penalty, ridge=1e-3)
    path = rj.fit_path(problem, X, y, [1.0, 0.05, 0.01], seeds=2)
    return problem, path, X, y


def test_a_network_keeps_its_zeros_and_fits_better(network):
    """Lane by lane; of an empty model the null model is left."""
    problem, path, X, y = network
    relaxed = rj.relax(problem, path, X, y)
    before, after = path.params[0]["w"], relaxed.params[0]["w"]
    assert np.all(after[before == 0] == 0)
    assert np.all(before[0] == 0) and np.any(before[1] == 0)
    assert relaxed.loss.shape == (3, 2)
    assert np.all(relaxed.loss[1:] <= path.loss[1:] + 1e-5)
    np.testing.assert_allclose(relaxed.loss[0], path.null_loss, rtol=1e-3)


def test_a_network_keeps_as_much_of_the_penalty_as_gamma_says(network):
    problem, path, X, y = network
    half = rj.relax(problem, path, X, y, gamma=0.5)
    own = problem.penalty
    for i in range(3):
        params = jax.tree.map(lambda a, i=i: a[i, 1], half.params)
        value = own.value(params, 0.5 * path.lams[i])
        np.testing.assert_allclose(half.penalty[i, 1], value, rtol=1e-5)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, np.nan, "half"])
def test_gamma_out_of_range_is_refused(network, gamma):
    problem, path, X, y = network
    with pytest.raises(ValueError, match="gamma"):
        rj.relax(problem, path, X, y, gamma)


def test_a_path_of_another_model_is_refused(network):
    problem, path, X, y = network
    other = problem._replace(model=rj.models.mlp([5, 4, 2]))
    with pytest.raises(ValueError, match="path: is of another model: init"):
        rj.relax(other, path, X, y)


def test_a_path_from_a_file_is_refitted_and_keeps_the_choice_of_lam(tmp_path):
    X, y = data()
    X = X.astype(np.float32)
    path = rj.cross_validate(lasso(), X, y.astype(np.float32), 4, 6).path
    path.save(tmp_path / "path.npz")
    loaded = rj.load(tmp_path / "path.npz")
    relaxed = rj.relax(lasso(), loaded, X, y.astype(np.float32))
    assert relaxed.chosen == path.chosen
    at = relaxed.predict(X, lam="1se")
    np.testing.assert_array_equal(at, relaxed.predict(X, lam=path.chosen["1se"]))


def test_a_standardised_path_of_float32_is_refitted_without_a_warning():
    X, y = (a.astype(np.float32) for a in data())
    path = rj.fit_path(lasso(), X, y, 4, standardize=True)
    relaxed = rj.relax(lasso(), path, X, y)
    assert np.all(relaxed.loss <= path.loss + 1e-6)
