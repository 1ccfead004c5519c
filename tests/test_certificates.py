"""The duality gap of affine models: a true bound, reached, whatever the input."""

import functools

import jax
import numpy as np
import oracles
import pytest

import regjax as rj
from regjax import certificates, inputs, objective
from regjax.ground import find_ground

LOSSES = {
    "half_squared_error": rj.losses.half_squared_error(),
    "sigmoid_binary_cross_entropy": rj.losses.sigmoid_binary_cross_entropy(),
    "softmax_cross_entropy": rj.losses.softmax_cross_entropy(),
    "poisson_nll": rj.losses.poisson_nll(),
}
# name -> the l1_ratio of `oracles.Convex`
PENALTIES = {"l1": 1.0, "elastic_net": 0.5, "l2": 0.0, "group": None}
N, P = 40, 8
FACTORS = {
    "free": np.array([0.0, 0.5, 1, 2, 1, 1, 4, 0.25]),
    "excluded": np.array([np.inf, 0.5, 1, 2, np.inf, 1, 4, 0.25]),
}
SITUATIONS = {
    "plain": {},
    "weights": {"weights": (np.arange(N) % 4).astype(float)},
    "offset": {"offset": np.sin(np.arange(N)).astype(np.float32).astype(float)},
    "free": {"factors": FACTORS["free"]},
    "excluded": {"factors": FACTORS["excluded"]},
    "nonnegative": {"low": 0.0},
    "box": {"low": -0.3125, "high": 0.1875},
    "ridge": {"ridge": 0.125},
    "no bias": {"bias": False},
    "all": {
        "weights": (np.arange(N) % 4).astype(float),
        "offset": np.sin(np.arange(N)).astype(np.float32).astype(float),
        "factors": FACTORS["free"],
        "low": np.r_[-np.inf, np.full(P - 1, -0.125)],
        "ridge": 0.125,
    },
}
LAMS = np.array([2.0**-3, 2.0**-6])
USABLE = (rj.Status.converged, rj.Status.floor)

every_loss = pytest.mark.parametrize("loss", LOSSES)
every_penalty = pytest.mark.parametrize("penalty", PENALTIES)


def outputs(loss):
    return 3 if loss == "softmax_cross_entropy" else 1


@functools.cache
def data(loss, n=N, p=P, seed=0):
    """X [n, p] that float32 holds exactly, and y [n]: no class is separable."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)).astype(np.float32).astype(float)
    eta = 0.3 + X[:, 0] - 0.7 * X[:, 1 % p] + 0.5 * X[:, -1] + rng.standard_normal(n)
    y = {
        "half_squared_error": lambda: eta.astype(np.float32).astype(float),
        "sigmoid_binary_cross_entropy": lambda: (eta > 0).astype(int),
        "softmax_cross_entropy": lambda: np.digitize(eta, [-0.5, 0.9]),
        "poisson_nll": lambda: rng.poisson(np.exp(0.5 * eta)),
    }[loss]()
    return X, y


def targets(loss, y):
    """[n, k] as `oracles.Convex` takes them."""
    return np.eye(3)[y] if loss == "softmax_cross_entropy" else y[:, None].astype(float)


def equation(loss, penalty, situation, p=P):
    """The Problem; one program for many situations, since all are run-time values."""
    factors = situation.get("factors", np.ones(p))
    if penalty == "group":
        penalty = rj.penalties.group(factors=factors)
    else:
        bounds = situation.get("low", -np.inf), situation.get("high", np.inf)
        ratio = PENALTIES[penalty]
        penalty = rj.penalties.elastic_net(ratio, factors=factors, bounds=bounds)
    model = rj.models.linear(p, outputs(loss), bias=situation.get("bias", True))
    return rj.Problem(model, LOSSES[loss], penalty, situation.get("ridge", 0.0))


def exactly(loss, penalty, situation, lam, X, y):
    """The same problem for NumPy."""
    given = dict(situation)
    if "offset" in given:
        given["offset"] = given["offset"][:, None]
    return oracles.Convex(loss, X, targets(loss, y), lam, PENALTIES[penalty], **given)


@functools.cache
def reference(loss, penalty, name, lam):
    X, y = data(loss)
    return exactly(loss, penalty, SITUATIONS[name], lam, X, y).minimum()[0]


def solve(loss, penalty, name, tol, dtype):
    situation = SITUATIONS[name]
    X, y = data(loss)
    y = y.astype(dtype) if y.dtype == float else y
    return rj.fit_path(
        equation(loss, penalty, situation),
        X.astype(dtype),
        y,
        LAMS,
        solver=rj.solvers.proximal_gradient(tol=tol),
        sample_weight=np.asarray(situation.get("weights", np.ones(N)), dtype),
        offset=np.asarray(situation.get("offset", np.zeros(N)), dtype),
    )


def measured(problem, path, i):
    """Float64 objective of the i-th params."""
    layer = path.params[0]
    w, k = np.asarray(layer["w"][i], float), problem.y.shape[1]
    b = np.asarray(layer["b"][i], float) if "b" in layer else np.zeros(k)
    return problem.objective(w, b)


def assert_bounded(loss, penalty, name, tol, dtype):
    path = solve(loss, penalty, name, tol, dtype)
    X, y = data(loss)
    eps = np.finfo(dtype).eps
    assert np.all(np.isfinite(path.gap))
    for i, lam in enumerate(LAMS):
        least = reference(loss, penalty, name, lam)
        problem = exactly(loss, penalty, SITUATIONS[name], lam, X, y)
        excess = measured(problem, path, i) - least
        assert excess >= -1e-13 * max(abs(least), 1)
        assert excess <= path.gap[i] + 1e-14 * abs(least)
        assert abs(measured(problem, path, i) - path.objective[i]) <= path.gap[i] + (
            32 * eps * abs(least)
        )
        assert path.status[i] in USABLE, path.status
        if path.status[i] == rj.Status.converged:
            assert path.gap[i] <= tol * path.null_loss * (1 + eps)


def cases(wide):
    """Many situations, few programs: another number of free coordinates compiles."""
    rare = {
        ("half_squared_error", "elastic_net"),
        ("poisson_nll", "elastic_net"),
        ("softmax_cross_entropy", "group"),
    }
    for loss in LOSSES:
        for penalty in PENALTIES:
            for name, situation in SITUATIONS.items():
                bounded = "low" in situation
                compiled = name in ("free", "all", "no bias")
                if penalty == "group" and bounded:
                    continue
                if penalty in ("l1", "l2") and name != "plain":
                    continue
                if compiled and not (wide and (loss, penalty) in rare):
                    continue
                if not wide and (penalty != "elastic_net" or name != "plain"):
                    continue
                yield loss, penalty, name


@pytest.mark.parametrize(("loss", "penalty", "name"), list(cases(wide=True)))
def test_the_gap_bounds_the_distance_to_the_minimum(loss, penalty, name, x64):
    """gap >= F(w) - min F >= 0, min F of a NumPy solver; at every tol."""
    for tol in (1e-2, 1e-3, 1e-10):
        assert_bounded(loss, penalty, name, tol, np.float64)


@pytest.mark.parametrize(("loss", "penalty", "name"), list(cases(wide=False)))
def test_the_gap_bounds_the_distance_to_the_minimum_in_float32(loss, penalty, name):
    """The same of float32 params, measured in float64: rounding is allowed for."""
    for tol in (1e-2, 1e-3, 1e-5):
        assert_bounded(loss, penalty, name, tol, np.float32)


def fit(loss, X, y, lams=20, tol=1e-5, penalty="l1", situation=None, **given):
    """A fit by the program of the tests above."""
    situation = situation or {}
    given = {"offset": np.zeros(len(X), np.float32)} | given
    return rj.fit_path(
        equation(loss, penalty, situation, X.shape[1]),
        X,
        y,
        lams,
        solver=rj.solvers.proximal_gradient(tol=tol),
        **given,
    )


def assert_no_nan(path):
    for name in ("loss", "penalty", "objective", "gap", "kkt", "dev_ratio", "step"):
        assert not np.any(np.isnan(getattr(path, name))), name
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(path.params))


def in_float32(loss, n=N):
    X, y = data(loss, n)
    return X.astype(np.float32), y.astype(np.float32) if y.dtype == float else y


@every_loss
def test_a_tolerance_near_rounding_ends_converged_or_at_the_floor(loss):
    """In float32, 1e-6 of the null loss: never max_iter."""
    path = fit(loss, *in_float32(loss), tol=1e-6)
    assert np.all(np.isin(path.status, USABLE)), path.status


def test_a_tolerance_below_rounding_is_refused():
    with pytest.raises(ValueError, match="^tol:"):
        fit("half_squared_error", *in_float32("half_squared_error"), tol=1e-9)


@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "l2"])
@every_loss
def test_lambda_max_is_the_smallest_lam_of_an_empty_model(loss, penalty, x64):
    """All penalised weights are 0 at 1.001 lambda_max, not at 0.99 lambda_max."""
    X, y = data(loss)
    bounds = {"low": np.r_[0, np.full(P - 1, -np.inf)], "high": np.r_[np.full(P, 0.25)]}
    free = {"factors": np.r_[0, FACTORS["excluded"][1:]]}
    held = free | (bounds if penalty != "group" else {})
    two = loss in ("half_squared_error", "softmax_cross_entropy")
    for situation in ({}, held) if two else ({},):
        given = {"penalty": penalty, "situation": situation, "tol": 1e-12}
        top = fit(loss, X, y, 2, **given).lams[0]
        path = fit(loss, X, y, top * np.array([1.001, 0.99]), **given)
        w = path.params[0]["w"][:, situation.get("factors", np.ones(P)) > 0]
        assert not np.any(w[0])
        assert np.any(w[1])


@every_loss
def test_a_row_of_weight_0_is_a_row_left_out(loss, x64):
    X, y = data(loss)
    weights = np.ones(N)
    weights[30:] = 0
    all_rows = fit(loss, X, y, LAMS, tol=1e-14, sample_weight=weights)
    fewer = fit(loss, X[:30], y[:30], LAMS, tol=1e-14)
    np.testing.assert_allclose(all_rows.objective, fewer.objective, rtol=1e-10)


def test_a_penalised_intercept_may_have_a_class_without_rows(x64):
    X, y = data("softmax_cross_entropy")
    penalty = rj.penalties.l1(where=".*")
    model = rj.models.linear(P, 4)
    problem = rj.Problem(model, LOSSES["softmax_cross_entropy"], penalty)
    assert np.all(rj.fit_path(problem, X, y, LAMS).status == rj.Status.converged)
    with pytest.raises(ValueError, match="^y: no row is of class 3"):
        rj.fit_path(problem._replace(penalty=rj.penalties.l1()), X, y, LAMS)


DEGENERATE = {
    "constant": lambda X: np.c_[X[:, 1:], np.full(N, 3, np.float32)],
    "zero": lambda X: np.c_[X[:, 1:], np.zeros(N, np.float32)],
    "duplicate": lambda X: np.c_[X[:, 1:], X[:, 1]],
    "collinear": lambda X: np.c_[X[:, 1:], X[:, 1] + X[:, 2]],
    "tiny column": lambda X: X * np.r_[1e-20, np.ones(P - 1)].astype(np.float32),
    "huge column": lambda X: X * np.r_[1e20, np.ones(P - 1)].astype(np.float32),
    "tiny": lambda X: X * np.float32(1e-20),
    "far from 0": lambda X: X + 1000,
    "int": lambda X: np.round(3 * X).astype(int),
    "bool": lambda X: X > 0,
    "uint8": lambda X: np.round(50 * np.abs(X)).astype(np.uint8),
    "float16": lambda X: X.astype(np.float16),
}


@pytest.mark.parametrize("name", DEGENERATE)
@every_loss
def test_degenerate_inputs_end_certified_or_are_refused(loss, name):
    """No NaN anywhere; a lam ends converged or at the floor, or X is an error."""
    X, y = in_float32(loss)
    try:
        path = fit(loss, DEGENERATE[name](X), y)
    except ValueError as error:
        assert str(error).startswith(("X:", "lams:"))
        return
    assert_no_nan(path)
    assert np.all(np.isin(path.status, USABLE)), path.status


@every_loss
def test_without_a_penalty_the_fit_ends_too(loss):
    """lam = 0, a minimiser exists: not all iterations are used."""
    path = fit(loss, *in_float32(loss), [1e-8, 0.0])
    assert_no_nan(path)
    assert not np.any(path.status == rj.Status.max_iter), path.status


def test_separable_classes_without_a_penalty_have_no_minimiser():
    X, _ = in_float32("sigmoid_binary_cross_entropy")
    path = fit("sigmoid_binary_cross_entropy", X, (X[:, 0] > 0).astype(int), [0.0])
    assert_no_nan(path)
    assert path.status[0] == rj.Status.unbounded


@pytest.mark.parametrize("margin", [5.0, 15.0, 30.0])
def test_slopes_of_well_fitted_rows_have_all_digits_in_float32(margin):
    """`p - 1` has those of 1: a gap at a small lam is made of such slopes."""
    rng = np.random.default_rng(0)
    y = np.eye(3, dtype=np.float32)[rng.integers(3, size=60)]
    y[:6] = [0.5, 0.5, 0.0]  # soft labels
    y[6:9] = [0.0, 0.2, 0.8]
    eta = np.float32(rng.normal(size=y.shape) + margin * y)
    shares = np.float32(rng.integers(3, size=60) / 60)
    softmax = rj.losses.softmax_cross_entropy()
    this = rj.Problem(rj.models.linear(2, 3), softmax, rj.penalties.l1())
    rows = rj.types.Data(np.ones((60, 2), np.float32), y)
    found = certificates.look_at(this, rows, shares, (), eta).slopes
    p = np.exp(np.float64(eta))
    p /= p.sum(1, keepdims=True)
    others = np.sum(np.where(y == 1, 0, p), axis=1, keepdims=True)
    exact = shares[:, None] * np.where(y == 1, -others, p - y)
    hard = y.max(1) == 1
    np.testing.assert_allclose(found[hard], exact[hard], rtol=1e-5)
    np.testing.assert_allclose(found[~hard], exact[~hard], atol=1e-7)


@pytest.mark.parametrize("seed", range(8))
def test_intercepts_are_fitted_where_the_gain_is_below_rounding(seed):
    """Else their slopes are left at 1e-7, which is no 0 where lam is 1e-6."""
    rng = np.random.default_rng(seed)
    y = np.eye(3, dtype=np.float32)[rng.integers(3, size=400)]
    eta = np.float32(8 * y + rng.standard_normal(y.shape))
    softmax = rj.losses.softmax_cross_entropy()
    this = rj.Problem(rj.models.linear(3, 3), softmax, rj.penalties.l1())
    data, weights = inputs.check_data(this, eta, y.argmax(1), None, None)
    key = jax.random.key(0)
    data = find_ground(this, data, weights, None, key, 1, centred=True).data
    shares = weights / weights.sum()
    w, lam = np.eye(3, dtype=np.float32), np.float32(1e-6)

    def at(b, steps):
        params = ({"w": w, "b": b},)
        moved = objective.linear_predictor(this.model, params, data)
        look = certificates.look_at(this, data, shares, params, moved)
        return certificates.refit(this, data, shares, lam, look, steps)

    best = np.asarray(at(eta.mean(0), 30).params[0]["b"])  # columns are centred
    near = best + np.float32(1e-4) * rng.standard_normal(3).astype(np.float32)
    before, after = (np.abs(at(near, k).slopes.sum(0)).max() for k in (0, 1))
    assert after < 0.1 * before
