"""Few rows with the second moments of many."""

import jax
import numpy as np
import pytest

import regjax as rj
from regjax import moments
from regjax.types import Data


def rows(dtype, n=500, p=7, k=2, dependent=False):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p)) * 10.0 ** np.arange(-3, p - 3) + 5
    if dependent:
        X[:, 3], X[:, 4] = X[:, 1], 5
    y = rng.standard_normal((n, k))
    return X.astype(dtype), y.astype(dtype), rng.integers(0, 3, n).astype(dtype)


def mean_squares(X, y, a, w, b):
    return a / a.sum() @ (X.astype(float) @ w + b - y) ** 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dependent", [False, True])
def test_every_linear_predictor_has_the_same_mean_square(dtype, dependent):
    """For any w and b, to rounding of the columns."""
    X, y, a = rows(dtype, dependent=dependent)
    mean = X.mean(0)
    data, ones = moments.fewer_rows(Data(X, y), a, mean, 1e-5)
    assert data.X.shape == (10, 7) and data.X.dtype == dtype and np.all(ones == 1)
    rng, spread = np.random.default_rng(1), X.std(0)
    for size in (0.0, 1.0, 100.0):
        w = size * rng.standard_normal((7, 2)) / np.where(spread, spread, 1)[:, None]
        b = size * rng.standard_normal(2)
        many = mean_squares(X - mean.astype(float), y, a, w, b)
        few = mean_squares(data.X, data.y, ones, w, b)
        np.testing.assert_allclose(few, many, rtol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    "more",
    [
        {"standardize": True, "sample_weight": np.arange(400) % 3},
        {"offset": np.linspace(-1, 1, 400)},
        {"sample_weight": np.arange(400) % 3},
    ],
    ids=["standardize", "offset", "weights"],
)
def test_the_path_is_that_of_all_rows(x64, monkeypatch, more):
    X, y, _ = rows(float, 400, 6, 2)
    y = y + X[:, :2] * [100, 3]
    model = rj.models.linear(6, 2, bias="offset" not in more)
    problem = rj.Problem(model, rj.losses.half_squared_error(), rj.penalties.group())
    assert moments.pay(problem, Data(X, y))
    # At the default tolerance of 1e-12 params are free to differ by 1e-3.
    solver = rj.solvers.proximal_gradient(tol=1e-14)
    path = rj.fit_path(problem, X, y, 20, solver=solver, **more)
    monkeypatch.setattr(moments, "LEAST_GAIN", 1e9)
    plain = rj.fit_path(problem, X, y, 20, solver=solver, **more)
    np.testing.assert_allclose(path.lams, plain.lams, rtol=1e-9)
    np.testing.assert_allclose(path.objective, plain.objective, rtol=1e-9)
    np.testing.assert_allclose(path.dev_ratio, plain.dev_ratio, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        path.params,
        plain.params,
    )
    if "standardize" not in more:
        proved = rj.certify(problem, X, y, path.lams[9], path[9].params, **more)
        assert proved <= 2e-12 * path.null_loss


def test_only_squared_error_of_a_linear_model_has_fewer_rows():
    data = Data(np.zeros((500, 7)), np.zeros((500, 1)))
    squared, penalty = rj.losses.half_squared_error(), rj.penalties.l1()
    linear, net = rj.models.linear(7), rj.models.mlp([7, 2, 1])
    assert moments.pay(rj.Problem(linear, squared, penalty), data)
    assert not moments.pay(rj.Problem(net, squared, penalty), data)
    assert not moments.pay(rj.Problem(linear, rj.losses.poisson_nll(), penalty), data)
    few = data._replace(X=np.zeros((15, 7)))
    assert not moments.pay(rj.Problem(linear, squared, penalty), few)


def products_in(monkeypatch):
    """The dtypes in which moments are taken from now on."""
    seen, own = [], moments._moments
    monkeypatch.setattr(moments, "CHEAP", 0)
    monkeypatch.setattr(
        moments, "_moments", lambda rows, m, d: seen.append(d) or own(rows, m, d)
    )
    return seen


@pytest.mark.parametrize(
    ("distance", "noise", "scale", "wide"),
    [
        (1.0, 0.3, 1.0, False),
        (1.0, 0.3, 1e12, False),
        (1e-3, 0.3, 1.0, True),
        (1.0, 1e-3, 1.0, True),
        (1.0, 0.3, 1e18, True),
        (1.0, 0.3, 1e-18, True),
    ],
)
def test_float32_moments_only_where_they_do_not_show(
    monkeypatch, distance, noise, scale, wide
):
    """Near copies of a column, hardly any noise, squares out of range: float64."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 12)) + 3
    X[:, 1] = X[:, 0] + distance * rng.standard_normal(2000)
    y = X @ rng.standard_normal(12) + noise * rng.standard_normal(2000)
    X = X.astype(np.float32)
    X[:, 5] *= np.float32(scale)
    seen = products_in(monkeypatch)
    mean = X.mean(0, dtype=float).astype(np.float32)
    data = Data(X, y[:, None].astype(np.float32))
    few, _ = moments.fewer_rows(data, np.ones(2000, np.float32), mean, 1e-4)
    assert seen == [np.float32, np.float64][: 1 + wide]
    assert np.all(np.isfinite(few.X))


def test_moments_of_few_products_are_float64_at_any_tolerance(monkeypatch):
    X, y, a = rows(np.float32)
    seen, count = products_in(monkeypatch), len(X) * 10**2
    for cheap in (count, count - 1):
        monkeypatch.setattr(moments, "CHEAP", cheap)
        moments.fewer_rows(Data(X, y), a, X.mean(0), 1e-4)
    assert seen[:2] == [np.float64, np.float32]


def test_a_path_by_float32_moments_is_proved_on_all_rows(x64, monkeypatch):
    """The gaps that the few rows give are those of the many, in float64."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((3000, 30)) @ rng.standard_normal((30, 30))).astype("f4")
    y = X[:, 0] / 3 + rng.standard_normal(3000).astype("f4")
    seen = products_in(monkeypatch)
    model = rj.models.linear(30)
    problem = rj.Problem(model, rj.losses.half_squared_error(), rj.penalties.l1())
    solver = rj.solvers.proximal_gradient(tol=1e-4)
    path = rj.fit_path(problem, X, y, 30, solver=solver)
    assert seen == [np.float32] and path.gap.dtype == np.float32
    for i in range(0, 30, 5):
        given = problem, X.astype(float), y.astype(float), path.lams[i], path[i].params
        assert rj.certify(*given) <= 1.1e-4 * path.null_loss


def test_the_gap_of_rare_events_is_within_the_tolerance(x64, monkeypatch):
    """Float32 rounds equal products alike: four times the tolerance was measured."""
    rng = np.random.default_rng(5)
    Z = rng.standard_normal((60_000, 60))
    y = Z @ (rng.standard_normal(60) * (rng.random(60) < 0.3))
    y = (y + rng.standard_normal(60_000)).astype(np.float32)
    X = (Z > 1.5).astype(np.float32)
    seen = products_in(monkeypatch)
    loss, penalty = rj.losses.half_squared_error(), rj.penalties.l1()
    problem = rj.Problem(rj.models.linear(60), loss, penalty)
    path = rj.fit_path(problem, X, y, 20)
    assert seen == [np.float64] and path.gap.dtype == np.float32
    for i in (9, 12, 15, 18, 19):
        params = path[i].params
        gap = rj.certify(problem, X.astype(float), y, path.lams[i], params)
        assert gap <= 1e-5 * path.null_loss


def test_the_gap_of_raw_columns_at_small_lams_is_the_measured_one(x64):
    """By moments in float32 half of it was claimed."""
    data = rj.datasets.load("diabetes")
    X, y = data.X.astype(np.float32), data.y.astype(np.float32)
    loss, penalty = rj.losses.half_squared_error(), rj.penalties.l1()
    problem = rj.Problem(rj.models.linear(10), loss, penalty)
    assert moments.pay(problem, Data(X, y[:, None]))
    solver = rj.solvers.proximal_gradient(tol=1e-5)
    path = rj.fit_path(problem, X, y, 60, solver=solver)
    for i in (45, 54, 57, 59):
        params = path[i].params
        gap = rj.certify(problem, X.astype(float), y, path.lams[i], params)
        assert gap <= 1.15 * path.gap[i]
