"""Paths of networks: grids over the sizes of models, dense starts, early stopping."""

import jax
import numpy as np
import pytest

import regjax as rj
from regjax import brackets


@pytest.fixture(scope="module")
def friedman():
    """Two inputs of ten matter."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (200, 10)).astype(np.float32)
    y = (X[:, 0] ** 2 + 2 * X[:, 1] + 0.05 * rng.standard_normal(200)).astype(
        np.float32
    )
    return X, y


def selecting(penalty=None):
    model = rj.models.mlp([10, 8, 1], "tanh")
    penalty = penalty or rj.penalties.group(where="0/w")
    return rj.Problem(model, rj.losses.half_squared_error(), penalty, ridge=1e-3)


def counts(path):
    return np.any(path.params[0]["w"] != 0, axis=-1).sum(-1)


def test_an_automatic_grid_runs_from_no_input_to_all_of_them(friedman):
    """And many sizes between are met, each by few lams."""
    X, y = friedman
    path = rj.fit_path(selecting(), X, y, lams=24)
    found = counts(path)
    assert found[0] == 0 and found[-1] >= 9
    assert len(np.unique(found)) >= 7
    assert np.all(np.diff(path.lams) < 0)
    plain = rj.fit_path(selecting(), X, y, np.geomspace(path.lams[0], 1e-4, 24))
    assert len(np.unique(counts(plain))) <= len(np.unique(found))


def test_spread_lams_are_even_in_size_and_keep_their_ends():
    """Where sizes jump, lams are close to each other."""
    lams = np.geomspace(1, 1e-4, 9)
    sizes = np.array([0, 0, 0, 1, 90, 92, 92, 100, 100])
    grid = brackets.spread(lams, sizes, 21)
    assert len(grid) == 21 and np.all(np.diff(grid) < 0)
    np.testing.assert_allclose(grid[[0, -1]], [1, lams[7]])
    jump = np.sum((grid < lams[3]) & (grid > lams[4]))
    assert jump >= 12


@pytest.mark.parametrize("sizes", [[0, 0, 0], [0, 5, 3], [0, 2, np.inf]])
def test_a_grid_is_finite_whatever_the_sizes(sizes):
    grid = brackets.spread(np.array([1.0, 0.1, 0.01]), np.minimum(sizes, 9), 5)
    assert np.all(np.isfinite(grid)) and np.all(np.diff(grid) < 0)


def test_a_dense_start_is_one_model_for_all_lams_of_a_seed(friedman):
    """What it starts from is the fit at lam 0, whatever the grid."""
    X, y = friedman
    solver = rj.solvers.minibatch(epochs=3, polish=2)
    given = {"solver": solver, "seeds": 2}
    dense = rj.fit_path(selecting(), X, y, [0.0], **given)
    for seed in range(2):
        start = jax.tree.map(lambda a, s=seed: a[0, s], dense.params)
        path = rj.fit_path(selecting(), X, y, [0.3, 0.01], init="dense", **given)
        same = rj.fit_path(selecting(), X, y, [0.3, 0.01], init=start, **given)
        jax.tree.map(
            lambda a, b, s=seed: np.testing.assert_allclose(
                a[:, s], b[:, s], rtol=2e-4, atol=2e-5
            ),
            path.params,
            same.params,
        )


def test_a_dense_start_would_leak_into_folds(friedman):
    with pytest.raises(ValueError, match="init: a model trained on all rows"):
        rj.cross_validate(selecting(), *friedman, 3, [0.1], init="dense")


def test_an_unknown_start_is_refused(friedman):
    with pytest.raises(ValueError, match="init: unknown name 'sparse'"):
        rj.fit_path(selecting(), *friedman, [0.1], init="sparse")


@pytest.fixture(scope="module")
def noise():
    """Much noise, few rows: training too long is worse."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((90, 10)).astype(np.float32)
    y = (X[:, 0] + 2 * rng.standard_normal(90)).astype(np.float32)
    return (X[:45], y[:45]), (X[45:], y[45:])


def held_out(path, rows):
    X, y = rows
    eta = path.predict(X)[..., 0]
    return 0.5 * np.mean((eta - y) ** 2, axis=-1)


@pytest.mark.parametrize("polish", [0, 10])
def test_validation_rows_stop_training_early(noise, polish):
    """The params kept are those of the epoch of least validation loss."""
    train, valid = noise
    problem = selecting()._replace(ridge=0.0)
    problem = problem._replace(penalty=rj.penalties.l1())
    lams = [1e-2, 1e-4]

    def solver(epochs):
        rate = 0.02  # constant, so that shorter runs are the beginnings of longer ones

        def optimizer(penalty, lam):
            return rj.transforms.proximal_adam(rate, penalty, lam)

        return rj.solvers.minibatch(optimizer, 16, epochs, polish=polish)

    stopped = rj.fit_path(problem, *train, lams, solver=solver(60), validation=valid)
    whole = rj.fit_path(problem, *train, lams, solver=solver(60))
    assert np.all(held_out(stopped, valid) < held_out(whole, valid))
    assert np.all(stopped.n_iter <= 60 + polish)
    np.testing.assert_allclose(stopped.scores["valid"], stopped.score(*valid))
    if polish == 0:
        for i, epochs in enumerate(stopped.n_iter):
            short = rj.fit_path(problem, *train, lams, solver=solver(int(epochs)))
            np.testing.assert_allclose(
                stopped.params[0]["w"][i], short.params[0]["w"][i], rtol=1e-4, atol=1e-5
            )


def test_validation_rows_are_standardised_as_training_rows_are(noise):
    train, valid = noise
    solver = rj.solvers.minibatch(epochs=8, polish=2)
    given = {"lams": [1e-2], "solver": solver}
    scaled = rj.fit_path(
        selecting(), *train, **given, validation=valid, standardize=True
    )
    center, scale = train[0].mean(0), train[0].std(0)
    rows = [((X - center) / scale, y) for X, y in (train, valid)]
    by_hand = rj.fit_path(selecting(), *rows[0], **given, validation=rows[1])
    np.testing.assert_allclose(scaled.loss, by_hand.loss, rtol=1e-3)
    np.testing.assert_array_equal(scaled.n_iter, by_hand.n_iter)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (3, r"validation: must be \(X, y\)"),
        ((np.zeros((4, 9)), np.zeros(4)), r"validation: X: rows have shape \[9\]"),
        ((np.zeros((4, 10)), np.zeros(5)), "validation: y: has shape"),
        ((np.full((4, 10), np.nan), np.zeros(4)), "validation: X: 40 of 40 numbers"),
        (
            (np.zeros((4, 10)), np.zeros(4), np.zeros(4)),
            "validation: needs an offset if and only if",
        ),
    ],
)
def test_unusable_validation_rows_are_refused(friedman, validation, message):
    with pytest.raises(ValueError, match=message):
        rj.fit_path(selecting(), *friedman, [0.1], validation=validation)


def test_a_certified_path_has_nothing_to_stop_early(friedman):
    X, y = friedman
    problem = selecting()._replace(model=rj.models.linear(10))
    problem = problem._replace(penalty=rj.penalties.l1())
    with pytest.raises(ValueError, match="validation: only training by minibatches"):
        rj.fit_path(problem, X, y, [0.1], validation=(X, y))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_three_times_the_training_selects_nearly_the_same_inputs(activation):
    """At a given lam the count changes by at most 5 % of the inputs."""
    digits = rj.datasets.load("digits")
    model = rj.models.mlp([64, 32, 10], activation)
    loss, penalty = rj.losses.softmax_cross_entropy(), rj.penalties.group(where="0/w")
    problem = rj.Problem(model, loss, penalty, ridge=1e-2)
    lams = np.geomspace(0.05, 0.002, 6)
    short, long = (
        counts(rj.fit_path(problem, digits.X[::2], digits.y[::2], lams, solver=solver))
        for solver in (
            rj.solvers.minibatch(epochs=20, polish=50),
            rj.solvers.minibatch(epochs=60, polish=150),
        )
    )
    assert np.all(np.abs(short - long) <= 0.05 * 64)
    assert short[0] < 30 and short[-1] > 40


def test_a_model_that_is_empty_at_every_coarse_lam_has_a_geometric_grid():
    """Nothing tells its sizes apart; the grid goes on below what was tried."""

    def sweep(lams, seeds):
        zero = np.zeros(len(lams))
        info = rj.types.Info(*[zero] * 9)
        return None, info._replace(status=zero.astype(int), n_nonzero=zero.astype(int))

    problem = selecting()
    params = jax.device_get(problem.model.init(jax.random.key(0)))
    grid = brackets.bracketed(problem, params, 1.0, 1.0, sweep, 1e-2, 5)
    np.testing.assert_allclose(grid, np.geomspace(1e-3, 1e-5, 5))
