"""Steps by the Gram matrix: the same path as by slots, and nothing lost."""

import signal

import jax
import numpy as np
import pytest

import regjax as rj
from regjax import lanes, side_by_side, workers
from regjax.solvers import gram

N, P, K = 80, 12, 2


def rows(dtype=np.float32):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, P)) @ np.diag(np.geomspace(0.1, 10, P))
    X[:, 3:6] += X[:, :1]
    y = X[:, :6] @ rng.standard_normal((6, K)) + rng.standard_normal((N, K))
    return (X + 1).astype(dtype), (y + 3).astype(dtype)


FACTORS = np.ones(P)
FACTORS[[2, 7]], FACTORS[9] = 0, np.inf
CASES = {
    "l1": (rj.penalties.l1(), {}),
    "elastic net": (rj.penalties.elastic_net(0.3), {"ridge": 0.1, "bias": False}),
    "factors": (rj.penalties.l1(factors=FACTORS), {"ridge": 0.1}),
    "bounds": (rj.penalties.l1(bounds=(-0.1, 0.2)), {"chains": 1}),
    "groups": (rj.penalties.group(), {"sample_weight": np.arange(N) % 4}),
    "standardised": (rj.penalties.sparse_group(0.5), {"standardize": True}),
    "from dense": (
        rj.penalties.l1(),
        {"direction": "dense_to_sparse", "offset": np.linspace(-5, 5, N, dtype="f4")},
    ),
}


def paths(name, dtype, monkeypatch, **more):
    """By Gram matrix, then by slots alone; and how many lams slots had before that."""
    penalty, given = CASES[name]
    X, y = rows(dtype)
    given = {**given, **more}
    model = rj.models.linear(P, K, bias=given.pop("bias", True))
    loss, ridge = rj.losses.half_squared_error(), given.pop("ridge", 0.0)
    problem = rj.Problem(model, loss, penalty, ridge=ridge)
    by_slots, run = [], lanes.run

    def counted(method, problem, data, many, *rest, **other):
        by_slots.append(len(many.lam))
        return run(method, problem, data, many, *rest, **other)

    monkeypatch.setattr(lanes, "run", counted)
    path = rj.fit_path(problem, X, y, 40, **given)
    before = sum(by_slots)
    monkeypatch.setattr(gram, "applies", lambda *_: False)
    return path, rj.fit_path(problem, X, y, 40, **given), before


@pytest.mark.parametrize("name", CASES)
def test_the_path_is_that_by_slots(name, monkeypatch):
    path, plain, left = paths(name, np.float32, monkeypatch)
    assert left == 0  # of so few inputs: there is no second program to compile
    assert np.all(path.status == rj.Status.converged)
    room = 1e-5 * path.null_loss
    assert np.all(path.gap <= room)
    np.testing.assert_allclose(path.objective, plain.objective, atol=room)
    np.testing.assert_array_equal(path.lams, plain.lams)


def test_float64_to_the_last_digits(x64, monkeypatch):
    solver = rj.solvers.proximal_gradient(tol=1e-13)
    path, plain, _ = paths("factors", float, monkeypatch, solver=solver)
    assert np.all(path.gap <= 1e-13 * path.null_loss)
    np.testing.assert_allclose(path.objective, plain.objective, rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        path.params,
        plain.params,
    )


def test_from_a_start_that_is_far(monkeypatch):
    """The intercept as well, which no Gram matrix knows."""
    init = ({"w": np.full((P, K), 3.0), "b": np.full(K, -50.0)},)
    path, plain, left = paths("l1", np.float32, monkeypatch, init=init)
    assert left == 0 and np.all(path.status == rj.Status.converged)
    room = 1e-5 * path.null_loss
    np.testing.assert_allclose(path.objective, plain.objective, atol=room)


def test_what_takes_too_long_goes_on_in_the_engine(monkeypatch):
    monkeypatch.setattr(gram, "limits", lambda data: side_by_side.Limits(4, 1, 8))
    told = []
    path, plain, left = paths(
        "l1", np.float32, monkeypatch, progress=lambda *a: told.append(a)
    )
    assert 0 < left < 40
    assert np.all(path.status == rj.Status.converged)
    room = 1e-5 * path.null_loss
    np.testing.assert_allclose(path.objective, plain.objective, atol=room)
    by_slots = told.index((0.0, 40, "lams"), 1) if (0.0, 40, "lams") in told[1:] else -1
    first = [done for done, *_ in told[:by_slots]]
    assert first == sorted(first) and first[0] == 40 - left and first[-1] == 40
    assert {total for _, total, _ in told} == {40}


def test_a_ctrl_c_keeps_what_is_done(monkeypatch):
    monkeypatch.setattr(gram, "limits", lambda data: side_by_side.Limits(4, 1, 8))
    X, y = rows()
    loss, penalty = rj.losses.half_squared_error(), rj.penalties.l1()
    problem = rj.Problem(rj.models.linear(P, K), loss, penalty)
    pressed = []

    def press(*_):
        if not pressed:
            pressed.append(signal.raise_signal(signal.SIGINT))

    path = rj.fit_path(problem, X, y, 40, progress=press)
    assert 0 < len(path) < 40 and np.all(path.status == rj.Status.converged)


def fail(*_):
    raise AssertionError("by the Gram matrix")


@pytest.mark.parametrize(
    "more", [{"lams": [1.0, 0.0]}, {"loss": "poisson_nll"}], ids=str
)
def test_what_it_is_not_for(more, monkeypatch):
    monkeypatch.setattr(side_by_side, "run", fail)
    X, y = rows()
    loss = getattr(rj.losses, more.get("loss", "half_squared_error"))()
    problem = rj.Problem(rj.models.linear(P, K), loss, rj.penalties.l1())
    path = rj.fit_path(problem, X, np.abs(y), more.get("lams", [1.0, 0.5]))
    assert np.all(path.status == rj.Status.converged)


def test_seeds_share_it(monkeypatch):
    monkeypatch.setattr(lanes, "run", fail)
    X, y = rows()
    problem = rj.Problem(
        rj.models.linear(P, K), rj.losses.half_squared_error(), rj.penalties.l1()
    )
    path = rj.fit_path(problem, X, y, [1.0, 0.5], seeds=2)
    assert np.all(path.status == rj.Status.converged)
    w = path.params[0]["w"]
    np.testing.assert_allclose(w[:, 0], w[:, 1], atol=1e-4)


def test_a_penalised_intercept_is_no_column_of_it(monkeypatch):
    monkeypatch.setattr(side_by_side, "run", fail)
    X, y = rows()
    everything = ({"w": True, "b": True},)
    penalty = rj.penalties.l1(where=everything)
    problem = rj.Problem(
        rj.models.linear(P, K), rj.losses.half_squared_error(), penalty
    )
    path = rj.fit_path(problem, X, y, [1.0, 0.5, 0.1])
    assert np.all(path.status == rj.Status.converged)
    for i in range(3):
        gap = rj.certify(problem, X, y, path.lams[i], path[i].params)
        assert gap <= 2e-5 * path.null_loss


def test_each_core_has_chains_of_its_own_where_a_step_is_some_work(monkeypatch):
    """Nine chains on one core, then five and four on two."""
    X, y = rows()
    loss, penalty = rj.losses.half_squared_error(), rj.penalties.l1()
    problem = rj.Problem(rj.models.linear(P, K), loss, penalty)
    crews, work = [], workers.work
    monkeypatch.setattr(
        workers, "work", lambda task, crew: crews.append(crew) or work(task, crew)
    )
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    one = rj.fit_path(problem, X, y, 20, chains=9)
    monkeypatch.setattr(gram, "SMALL", P - 1)
    two = rj.fit_path(problem, X, y, 20, chains=9)
    assert [len(crew) for crew in crews] == [1, 2]
    assert np.all(two.status == rj.Status.converged)
    np.testing.assert_array_equal(one.lams, two.lams)
    np.testing.assert_allclose(one.objective, two.objective, atol=1e-5 * one.null_loss)
