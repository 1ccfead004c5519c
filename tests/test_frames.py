"""Unpenalised columns that nearly depend on each other: solved, and proved."""

import jax
import numpy as np
import pytest

import regjax as rj
from regjax import frames, moments
from regjax.types import Data

FREE = np.array([0, 0, 1, 1, 1, 1.0])
LOSSES = {
    "squared": (rj.losses.half_squared_error(), 1),
    "binary": (rj.losses.sigmoid_binary_cross_entropy(), 1),
    "softmax": (rj.losses.softmax_cross_entropy(), 3),
    "poisson": (rj.losses.poisson_nll(), 1),
}


def near_twins(name, apart, n=300):
    """Two columns that are `apart` deviations from each other; y follows what is left.

    Returns:
      X in float32, the same with what is left in place of the second, y.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 6))
    X[:, 1] = X[:, 0] + apart * rng.standard_normal(n)
    X = (X + [7, 7, 0, 0, 3, 0]).astype(np.float32)
    plain = X.astype(float)
    plain[:, 1] = (plain[:, 1] - plain[:, 0]) / apart
    eta = plain[:, 1] + plain[:, 2]
    y = {
        "squared": eta + 0.3 * rng.standard_normal(n),
        "binary": eta > rng.logistic(size=n),
        "softmax": np.digitize(eta + rng.logistic(size=n), [-1, 1]),
        "poisson": rng.poisson(np.exp(0.5 * eta)),
    }[name]
    return X, plain, y.astype(np.float32 if name == "squared" else int)


def problem(name, factors=FREE, **more):
    loss, k = LOSSES[name]
    penalty = rj.penalties.l1(factors=factors, **more)
    return rj.Problem(rj.models.linear(len(factors), k), loss, penalty)


def objective(name, X, y, lam, params):
    """In float64, by NumPy, of the loss as it is defined."""
    (layer,) = jax.tree.map(lambda a: np.asarray(a, float), params)
    eta = X @ layer["w"] + layer["b"]
    value = {
        "squared": lambda: 0.5 * (eta[:, 0] - y) ** 2,
        "binary": lambda: np.logaddexp(0, eta[:, 0]) - y * eta[:, 0],
        "softmax": lambda: np.logaddexp.reduce(eta, axis=1) - eta[np.arange(len(y)), y],
        "poisson": lambda: np.exp(eta[:, 0]) - y * eta[:, 0],
    }[name]()
    return value.mean() + lam * np.sum(FREE[:, None] * np.abs(layer["w"]))


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("name", [*LOSSES, "squared, all rows"])
def test_a_gap_beside_near_twins_is_true(name, apart, x64, monkeypatch):
    """Against the same problem in float64, told what is left of the second column."""
    name, *rest = name.split(",")
    if rest:
        monkeypatch.setattr(moments, "LEAST_GAIN", 1e9)
    X, plain, y = near_twins(name, apart)
    path = rj.fit_path(problem(name), X, y, 4)
    wide = y.astype(float) if name == "squared" else y
    best = rj.fit_path(problem(name), plain, wide, path.lams.astype(float))
    assert path.gap.dtype == np.float32 and np.all(best.status == 0)
    for i, lam in enumerate(best.lams):
        own = objective(name, X.astype(float), y, lam, path[i].params)
        least = objective(name, plain, y, lam, best[i].params)
        assert -1e-9 < own - least <= path.gap[i]
    if apart >= 1e-4:
        assert np.all(path.status == rj.Status.converged)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_raw_years_beside_their_squares_are_proved(dtype, x64):
    """In float64 a gap of .59 was left, in float32 a false one claimed."""
    rng = np.random.default_rng(0)
    years = rng.integers(1990, 2021, 400).astype(float)
    more = rng.standard_normal((400, 4))
    y = 1e-2 * (years - 2005) ** 2 + more[:, 0] + rng.standard_normal(400)
    X = np.column_stack([years, years**2, more]).astype(dtype)
    path = rj.fit_path(problem("squared"), X, y.astype(dtype), 20)
    assert np.all(path.status == rj.Status.converged)
    for i in (0, 10, 19):
        given = X.astype(float), y, path.lams[i], path[i].params
        assert rj.certify(problem("squared"), *given) <= 1.1e-5 * path.null_loss


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_column_of_ones_beside_years_is_proved(dtype, x64):
    """Which stands for the intercept of a model that has none: columns keep means."""
    rng = np.random.default_rng(0)
    years = rng.integers(1990, 2021, 300).astype(float)
    X = np.column_stack([np.ones(300), years, rng.standard_normal((300, 4))])
    y = 0.1 * (years - 2005) + X[:, 2] + rng.standard_normal(300)
    model = rj.models.linear(6, bias=False)
    this = problem("squared")._replace(model=model)
    path = rj.fit_path(this, X.astype(dtype), y.astype(dtype), 4)
    best = rj.fit_path(problem("squared"), X, y, path.lams.astype(float))
    assert np.all(path.status == rj.Status.converged)
    for i in range(4):
        w = path.params[0]["w"][i, :, 0].astype(float)
        loss = 0.5 * np.mean((X.astype(dtype) @ w - y) ** 2)
        own = loss + path.lams[i] * np.abs(w[2:]).sum()
        assert -1e-6 < own - best.objective[i] <= path.gap[i] + 1e-6


@pytest.mark.parametrize("kind", ["twins", "one of three", "a constant"])
def test_columns_that_depend_on_each_other_stay_certified(kind, x64):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((200, 6)).astype(np.float32)
    if kind == "twins":
        X[:, 1] = 2.54 * X[:, 0]  # to rounding
    elif kind == "one of three":
        X[:, :3] = np.eye(3)[rng.integers(0, 3, 200)]
    else:
        X[:, 1] = 1e6 / 3
    factors = np.where(np.arange(6) < 3, 0.0, 1.0)
    y = (X[:, [0, 3]].sum(1) + rng.standard_normal(200)).astype(np.float32)
    this = problem("squared", factors)
    path = rj.fit_path(this, X, y, 10)
    assert np.all(path.status == rj.Status.converged)
    w = path.params[0]["w"]
    assert np.abs(w).max() < 10
    np.testing.assert_array_equal(path.n_nonzero, np.sum(w != 0, axis=(1, 2)))
    for i in (0, 9):
        eta = X.astype(float) @ w[i, :, 0] + path.params[0]["b"][i]
        loss = 0.5 * np.mean((eta - y) ** 2)
        np.testing.assert_allclose(path.loss[i], loss, rtol=1e-5)


def frame(penalty=None, ridge=0.0, inputs=6, dtype=np.float32, n=50):
    X = np.random.default_rng(0).standard_normal((n, inputs)).astype(dtype) + 5
    y, a = np.zeros((n, 2), dtype), np.ones(n, dtype)
    a[::3] = 0
    penalty = rj.penalties.l1(factors=FREE) if penalty is None else penalty
    model = rj.models.linear(inputs, 2)
    this = rj.Problem(model, rj.losses.half_squared_error(), penalty, ridge)
    params = ({"b": np.zeros(2, dtype), "w": np.zeros((inputs, 2), dtype)},)
    free = np.arange(2 + 2 * 2)
    return X, a, frames.frame_of(this, params, Data(X, y), a, free)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_are_orthonormal_and_params_come_back(dtype):
    X, a, found = frame(dtype=dtype)
    np.testing.assert_array_equal(found.inputs, [0, 1])
    solved = found.columns(X) - found.left
    shares, eps = a / a.sum(), np.finfo(dtype).eps
    own = solved[:, :2]
    np.testing.assert_allclose(own.T @ (shares[:, None] * own), np.eye(2), atol=9 * eps)
    np.testing.assert_allclose(shares @ solved, np.zeros(6), atol=9 * eps)
    np.testing.assert_array_equal(found.columns(X)[:, 2:], X[:, 2:])
    rng = np.random.default_rng(1)
    w, b = rng.standard_normal((3, 6, 2)), rng.standard_normal((3, 2))
    given = ({"w": w.astype(dtype), "b": b.astype(dtype)},)
    there = found.solved(given)
    eta = solved @ there[0]["w"] + there[0]["b"][:, None]
    raw = X.astype(float) @ w + b[:, None]
    np.testing.assert_allclose(eta, raw, atol=400 * eps)
    back = found.given(there)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=99 * eps), back, given
    )


@pytest.mark.parametrize(
    "more",
    [
        {"penalty": rj.penalties.l1(factors=FREE, bounds=(-1, 1))},
        {"penalty": rj.penalties.l1(factors=FREE, bounds=(0, np.inf))},
        {"ridge": 0.1},
    ],
    ids=["bounds", "a bound", "ridge"],
)
def test_columns_stay_where_their_weights_count(more):
    X, _, found = frame(**more)
    assert found.inputs.size == 0 and found.columns(X) is X


def test_every_other_call_takes_and_gives_raw_params(x64):
    """`fit` from params, `certify`, `relax`, `cross_validate`: of X as it was given."""
    X, plain, y = near_twins("squared", 1e-3)
    X, y, this = X.astype(float), y.astype(float), problem("squared")
    lams = [0.3, 0.1, 0.01]
    weights = np.where(np.arange(300) % 7, 1.0, 0.0)
    path = rj.fit_path(this, X, y, lams, sample_weight=weights)
    best = rj.fit_path(this, plain, y, lams, sample_weight=weights)
    np.testing.assert_allclose(path.objective, best.objective, rtol=1e-9)
    np.testing.assert_allclose(path.predict(X), best.predict(plain), atol=1e-5)
    here = path[1].params
    gap = rj.certify(this, X, y, path.lams[1], here, sample_weight=weights)
    assert gap <= 1e-10
    again = rj.fit(this, X, y, lams[1], init=here, sample_weight=weights)
    np.testing.assert_allclose(again.objective, path.objective[1], rtol=1e-9)
    refit, other = (
        rj.relax(this, found, columns, y, sample_weight=weights)
        for found, columns in ((path, X), (best, plain))
    )
    np.testing.assert_allclose(refit.loss, other.loss, rtol=1e-6)
    number = np.arange(300) % 4
    for standardize in (False, True):
        more = {"lams": lams, "sample_weight": weights, "standardize": standardize}
        cv, other = (
            rj.cross_validate(this, columns, y, number, **more)
            for columns in (X, plain)
        )
        np.testing.assert_allclose(cv.out_of_fold, other.out_of_fold, atol=1e-4)
        np.testing.assert_allclose(cv.mean, other.mean, rtol=1e-6)
        np.testing.assert_allclose(
            cv.path.predict(X), other.path.predict(plain), atol=1e-4
        )
