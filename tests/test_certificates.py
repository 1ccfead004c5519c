"""The duality gap of affine models: a true bound, reached, whatever the input."""

import functools

import numpy as np
import oracles
import pytest

import regjax as rj

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
TENTH = float(np.float32(0.1))  # numbers that float32 holds too
SITUATIONS = {
    "plain": {},
    "weights": {"weights": (np.arange(N) % 4).astype(float)},
    "offset": {"offset": np.sin(np.arange(N)).astype(np.float32).astype(float)},
    "free": {"factors": FACTORS["free"]},
    "excluded": {"factors": FACTORS["excluded"]},
    "nonnegative": {"low": 0.0},
    "box": {"low": -3 * TENTH, "high": 2 * TENTH},
    "ridge": {"ridge": 0.125},
    "no bias": {"bias": False},
    "all": {
        "weights": (np.arange(N) % 4).astype(float),
        "offset": np.sin(np.arange(N)).astype(np.float32).astype(float),
        "factors": FACTORS["free"],
        "low": np.r_[-np.inf, np.full(P - 1, -TENTH)],
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
    if penalty == "group" and ("low" in SITUATIONS[name] or "high" in SITUATIONS[name]):
        pytest.skip("a group has no bounds")
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


# Many situations, few programs: the numbers differ, not the code.
every_situation = pytest.mark.parametrize("name", SITUATIONS)


@every_situation
@every_penalty
@every_loss
def test_the_gap_bounds_the_distance_to_the_minimum(loss, penalty, name, x64):
    """gap >= F(w) - min F >= 0, min F of a NumPy solver; at every tol."""
    for tol in (1e-2, 1e-3, 1e-10):
        assert_bounded(loss, penalty, name, tol, np.float64)


@pytest.mark.parametrize(
    "name", [name for name, s in SITUATIONS.items() if s.get("bias", True)]
)
@every_penalty
@every_loss
def test_the_gap_bounds_the_distance_to_the_minimum_in_float32(loss, penalty, name):
    """The same of float32 params, measured in float64: rounding is allowed for."""
    for tol in (1e-2, 1e-3, 1e-5):
        assert_bounded(loss, penalty, name, tol, np.float32)
