"""fit and fit_path: grids, seeds, keys, weights, and what lanes owe each other."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

import regjax as rj
from regjax import grids


def two_moons(n=120, p=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)).astype(np.float32)
    y = (np.sin(2 * X[:, 0]) + X[:, 1] > 0).astype(int)
    return X, y


def network(p=5, penalty=None, ridge=0.0, hidden=6):
    model = rj.models.mlp([p, hidden, 2])
    loss = rj.losses.softmax_cross_entropy()
    return rj.Problem(model, loss, penalty or rj.penalties.l1(), ridge)


def lasso(p=5):
    return rj.Problem(
        rj.models.linear(p, 1), rj.losses.half_squared_error(), rj.penalties.l1()
    )


QUICK = rj.solvers.minibatch(batch_size=32, epochs=4, polish=5)
LAMS = np.array([0.03, 0.01, 0.003, 0.001])


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_lams_are_kept_whole_and_sorted_descending():
    X, y = two_moons()
    path = rj.fit_path(network(), X, y, lams=[1e-3, 0.1, 0.0, 1e-2], solver=QUICK)
    np.testing.assert_allclose(path.lams, [0.1, 1e-2, 1e-3, 0.0], rtol=1e-6)
    assert path.loss.shape == path.status.shape == (4,)


def test_no_random_key_is_used_twice(no_key_reuse):
    """By starts, batches, folds; in the sweep that brackets lam, too."""
    X, y = two_moons()
    rj.fit_path(network(), X, y, 3, seeds=2, solver=QUICK)
    rj.cross_validate(network(), X, y, 3, LAMS, seeds=2, solver=QUICK)


def test_adding_a_lam_changes_no_other():
    """A lane depends on its own lam only: bitwise."""
    X, y = two_moons()
    few = rj.fit_path(network(), X, y, lams=LAMS, solver=QUICK)
    more = rj.fit_path(network(), X, y, lams=[*LAMS, 0.5, 2e-3], solver=QUICK)
    rows = [int(np.argmin(np.abs(more.lams - lam))) for lam in few.lams]
    assert_same(few.params, more.take(np.array(rows)).params)


def test_adding_a_seed_changes_no_other():
    X, y = two_moons()
    one = rj.fit_path(network(), X, y, lams=LAMS, solver=QUICK)
    five = rj.fit_path(network(), X, y, lams=LAMS, solver=QUICK, seeds=5)
    assert five.loss.shape == (4, 5)
    assert five.params[0]["w"].shape == (4, 5, 5, 6)
    assert_same(one.params, jax.tree.map(lambda a: a[:, 0], five.params))
    assert len(np.unique(five.objective[0])) == 5


def test_seeds_start_from_fold_in_of_the_key():
    """Seed s starts from model.init(fold_in(key, s)); no step is made at lam = 0."""
    X, y = two_moons()
    problem = network()
    frozen = rj.solvers.minibatch(
        lambda penalty, lam: optax.set_to_zero(), epochs=1, polish=0
    )
    key = jax.random.key(7)
    path = rj.fit_path(problem, X, y, lams=[0.0], solver=frozen, seeds=3, key=key)
    for seed in range(3):
        start = problem.model.init(jax.random.fold_in(key, seed))
        found = jax.tree.map(lambda a, s=seed: a[0, s], path.params)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, start)


@pytest.mark.parametrize("key", [None, 3])
def test_fit_is_seed_0_of_fit_path(key):
    X, y = two_moons()
    key = None if key is None else jax.random.key(key)
    path = rj.fit_path(network(), X, y, lams=LAMS, solver=QUICK, seeds=2, key=key)
    for i, lam in enumerate(LAMS):
        one = rj.fit(network(), X, y, lam, solver=QUICK, key=key)
        np.testing.assert_allclose(one.objective, path.objective[i, 0], rtol=1e-5)


def test_fit_and_path_agree_in_float64(x64):
    X, y = two_moons()
    X = X.astype(np.float64)
    path = rj.fit_path(network(), X, y, lams=LAMS, solver=QUICK)
    assert path.params[0]["w"].dtype == path.lams.dtype == np.float64
    for i, lam in enumerate(LAMS):
        one = rj.fit(network(), X, y, lam, solver=QUICK)
        np.testing.assert_allclose(one.objective, path.objective[i], rtol=1e-12)


def test_a_diverging_lam_changes_no_other():
    """Coupled decay with lr * lam > 2 blows up: frozen, finite, alone."""
    X, y = two_moons()
    solver = rj.solvers.minibatch(
        lambda penalty, lam: optax.chain(
            rj.transforms.add_l2_decay(lam), optax.sgd(0.1)
        ),
        batch_size=16,
        epochs=12,
        polish=3,
    )
    problem = network(penalty=rj.penalties.l2())
    without = rj.fit_path(problem, X, y, lams=LAMS, solver=solver)
    path = rj.fit_path(problem, X, y, lams=[*LAMS, 1e5], solver=solver)
    assert path.status[0] == rj.Status.diverged
    assert np.all(path.status[1:] != rj.Status.diverged)
    assert_same(path.take(slice(1, None)).params, without.params)
    for leaf in jax.tree.leaves(path.params):
        assert np.all(np.isfinite(leaf))
    for name in ("loss", "penalty", "objective", "kkt", "dev_ratio"):
        assert not np.any(np.isnan(getattr(path, name))), name


def test_a_finite_blow_up_is_a_divergence_too():
    X, y = two_moons()
    solver = rj.solvers.minibatch("adam", 32, 10, polish=3, learning_rate=1e6)
    path = rj.fit_path(network(), X, y, LAMS, solver=solver)
    assert np.all(np.isfinite(path.loss))
    assert np.all(path.status[path.loss > 100] == rj.Status.diverged)
    assert np.any(path.status == rj.Status.diverged)


def test_changing_lam_or_building_the_problem_again_never_compiles_again():
    X, y = two_moons()
    traces = []

    def activation(z):
        traces.append(1)
        return jax.nn.sigmoid(z)

    def run(lams, l1_ratio, ridge, learning_rate=0.02):
        model = rj.models.mlp([5, 6, 2], activation)
        problem = rj.Problem(
            model,
            rj.losses.softmax_cross_entropy(),
            rj.penalties.elastic_net(l1_ratio),
            ridge,
        )
        solver = rj.solvers.minibatch(
            batch_size=32, epochs=2, polish=2, learning_rate=learning_rate
        )
        rj.fit_path(problem, X, y, lams=lams, solver=solver)
        return len(traces)

    first = run([0.1, 0.01], 0.5, 0.0)
    assert run([0.2, 0.05], 0.5, 0.0) == first
    assert run([0.2, 0.05, 1e-3, 1e-4], 0.7, 0.01) == first
    assert run(30, 0.7, 0.01, learning_rate=0.01) == first
    assert run([0.3], 0.7, 0.01) > first, "one lane alone is a program of its own"


def test_a_user_optimizer_built_twice_compiles_once():
    X, y = two_moons()
    traces = []

    def activation(z):
        traces.append(1)
        return jax.nn.sigmoid(z)

    problem = rj.Problem(
        rj.models.mlp([5, 6, 2], activation),
        rj.losses.softmax_cross_entropy(),
        rj.penalties.l1(),
    )
    counts = []
    for _ in range(2):
        solver = rj.solvers.minibatch(
            partial(rj.transforms.proximal_adam, 1e-2), epochs=2, polish=2
        )
        rj.fit_path(problem, X, y, lams=[0.1, 0.01], solver=solver)
        counts.append(len(traces))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("solver", [None, QUICK], ids=["convex", "minibatch"])
def test_weight_scale_does_not_matter(solver):
    X, y = two_moons()
    problem = lasso() if solver is None else network()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y)).astype(np.float32)
    a = rj.fit_path(problem, X, y, LAMS, solver=solver, sample_weight=weights)
    b = rj.fit_path(problem, X, y, LAMS, solver=solver, sample_weight=7 * weights)
    plain = rj.fit_path(problem, X, y, LAMS, solver=solver)
    np.testing.assert_allclose(a.objective, b.objective, rtol=1e-4)
    assert np.max(np.abs(a.objective - plain.objective)) > 1e-4


def test_integer_weights_are_repeated_rows_and_zero_leaves_out(x64):
    X, y = two_moons()
    X = X.astype(np.float64)
    counts = np.random.default_rng(1).integers(0, 4, len(y))
    solver = rj.solvers.proximal_gradient(tol=1e-9)
    weighted = rj.fit_path(lasso(), X, y, LAMS, solver=solver, sample_weight=counts)
    rows = np.repeat(np.arange(len(y)), counts)
    repeated = rj.fit_path(lasso(), X[rows], y[rows], LAMS, solver=solver)
    np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-10)


def test_offset_enters_eta_and_is_not_fitted(x64):
    """With offset X v the least squares solution moves by v exactly."""
    X, y = two_moons()
    X = X.astype(np.float64)
    v = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    solver = rj.solvers.proximal_gradient(tol=1e-10)
    plain = rj.fit(lasso(), X, y, 0.0, solver=solver)
    moved = rj.fit(lasso(), X, y, 0.0, solver=solver, offset=X @ v)
    np.testing.assert_allclose(
        moved.params[0]["w"][:, 0] + v, plain.params[0]["w"][:, 0], atol=1e-7
    )


def test_standardize_solves_on_scaled_columns_and_predicts_on_raw_ones(x64):
    X, y = two_moons()
    X = X.astype(np.float64) * [1, 10, 0.1, 100, 1] + [0, 5, 0, -3, 1]
    solver = rj.solvers.proximal_gradient(tol=1e-10)
    path = rj.fit_path(lasso(), X, y, LAMS, solver=solver, standardize=True)
    Z = (X - X.mean(0)) / X.std(0)
    by_hand = rj.fit_path(lasso(), Z, y, LAMS, solver=solver)
    np.testing.assert_allclose(path.objective, by_hand.objective, rtol=1e-10)
    np.testing.assert_allclose(path.predict(X), by_hand.predict(Z), atol=1e-6)
    raw = path.coef()
    np.testing.assert_allclose(
        X @ raw["w"][2] + raw["b"][2], path.predict(X)[2], atol=1e-6
    )


def test_init_starts_every_seed_from_the_given_params():
    X, y = two_moons()
    given = ({"w": np.ones((5, 6)), "b": np.zeros(6)},)
    given += ({"w": np.ones((6, 2)), "b": np.zeros(2)},)
    frozen = rj.solvers.minibatch(
        lambda penalty, lam: optax.set_to_zero(), epochs=1, polish=0
    )
    path = rj.fit_path(network(), X, y, [0.0], solver=frozen, init=given, seeds=2)
    np.testing.assert_array_equal(path.params[0]["w"], np.ones((1, 2, 5, 6)))


def test_the_reported_numbers_are_those_of_the_equation():
    X, y = two_moons()
    problem = network(ridge=0.1)
    path = rj.fit_path(problem, X, y, LAMS, solver=QUICK)
    for i, lam in enumerate(LAMS):
        (first, second) = jax.tree.map(lambda a, i=i: a[i], path.params)
        h = 1 / (1 + np.exp(-(X @ first["w"] + first["b"])))
        eta = h @ second["w"] + second["b"]
        log_p = eta - np.log(np.exp(eta).sum(1, keepdims=True))
        loss = -np.mean(log_p[np.arange(len(y)), y])
        weights = [first["w"], second["w"]]
        penalty = lam * sum(np.abs(w).sum() for w in weights)
        ridge = 0.05 * sum((w**2).sum() for w in weights)
        np.testing.assert_allclose(path.loss[i], loss, rtol=1e-5)
        np.testing.assert_allclose(path.penalty[i], penalty, rtol=1e-5)
        np.testing.assert_allclose(path.objective[i], loss + penalty + ridge, rtol=1e-5)
        assert path.n_nonzero[i] == sum((w != 0).sum() for w in weights)
        null = -np.mean(np.log([np.mean(y == label) for label in y]))
        np.testing.assert_allclose(path.dev_ratio[i], 1 - loss / null, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_automatic_grid_of_an_affine_model_starts_at_lambda_max(seed, x64):
    """At lambda_max nothing is selected, just below it something is."""
    X, y = two_moons(seed=seed)
    solver = rj.solvers.proximal_gradient(tol=1e-9)
    path = rj.fit_path(lasso(), X.astype(float), y, 50, solver=solver)
    top = np.max(np.abs(X.astype(float).T @ (y - y.mean()))) / len(y)
    np.testing.assert_allclose(path.lams[0], top, rtol=1e-9)
    np.testing.assert_allclose(path.lams[-1] / path.lams[0], 1e-4, rtol=1e-6)
    just_below = rj.fit(lasso(), X.astype(float), y, 0.999 * top, solver=solver)
    assert path.n_nonzero[0] == 0 and just_below.n_nonzero == 1


def test_the_automatic_grid_of_a_network_starts_at_an_empty_model():
    X, y = two_moons()
    path = rj.fit_path(network(), X, y, 20, solver=rj.solvers.minibatch(batch_size=32))
    assert path.n_nonzero[0] == 0
    assert path.n_nonzero[-1] > 0
    assert len(path) == 20


def test_l2_gets_a_grid_too():
    X, y = two_moons()
    for problem in (
        lasso()._replace(penalty=rj.penalties.l2()),
        network(penalty=rj.penalties.l2()),
    ):
        path = rj.fit_path(problem, X, y, 10)
        assert np.all(np.isfinite(path.lams)) and path.dev_ratio[0] < 0.05


def test_predict_interpolates_affine_models_and_takes_the_nearest_network():
    X, y = two_moons()
    path = rj.fit_path(lasso(), X, y, [0.1, 0.05])
    halfway = path.predict(X, lam=0.075)
    np.testing.assert_allclose(halfway, path.predict(X).mean(0), atol=1e-5)
    np.testing.assert_allclose(path.predict(X, lam=9.0), path.predict(X)[0], atol=1e-6)
    net = rj.fit_path(network(), X, y, [0.1, 0.001], solver=QUICK)
    np.testing.assert_allclose(net.predict(X, lam=0.0011), net.predict(X)[1], atol=1e-6)
    assert net.predict(X, type="class").shape == (2, len(y))
    np.testing.assert_allclose(net.predict(X).sum(-1), 1, atol=1e-5)


def test_part_of_a_path_keeps_its_order():
    X, y = two_moons()
    path = rj.fit_path(lasso(), X, y, [0.1, 0.05, 0.01])
    np.testing.assert_array_equal(path.take([0, 2]).lams, path.lams[::2])
    for which in (slice(None, None, -1), slice(3, None), [2, 0], 1):
        with pytest.raises(ValueError, match="^lams: "):
            path.take(which)


def test_a_data_frame_must_have_the_columns_of_the_fit():
    class Frame(np.ndarray):
        columns = ["left", "right"]

    X, y = two_moons()
    path = rj.fit_path(lasso(), X.view(Frame), y, [0.1])
    assert path.feature_names == ("left", "right")
    np.testing.assert_array_equal(path.predict(X), path.predict(X.view(Frame)))
    other = X.view(Frame)
    other.columns = ["right", "left"]
    with pytest.raises(ValueError, match="^X: column 0 is 'right'"):
        path.predict(other)
    with pytest.raises(ValueError, match="^validation: X: column 0 is 'right'"):
        given = {"solver": QUICK, "validation": (other, y)}
        rj.fit_path(network(), X.view(Frame), y, [0.1], **given)


def test_score_is_accuracy_or_r2():
    X, y = two_moons()
    net = rj.fit_path(network(), X, y, LAMS, solver=QUICK)
    accuracy = (net.predict(X, type="class") == y).mean(1)
    np.testing.assert_allclose(net.score(X, y), accuracy)
    linear = rj.fit_path(lasso(), X, y, LAMS)
    residual = ((linear.predict(X)[..., 0] - y) ** 2).mean(1)
    np.testing.assert_allclose(linear.score(X, y), 1 - residual / y.var(), atol=1e-5)


def test_proximal_gradient_agrees_with_scikit_learn(x64):
    from sklearn.linear_model import ElasticNet

    data = rj.datasets.load("diabetes")
    model = rj.models.linear(10, 1)
    problem = rj.Problem(
        model, rj.losses.half_squared_error(), rj.penalties.elastic_net(0.5)
    )
    solver = rj.solvers.proximal_gradient(tol=1e-14)
    path = rj.fit_path(problem, data.X, data.y, [1.0, 0.1, 0.01], solver=solver)
    assert np.all(path.status == rj.Status.converged)
    for i, lam in enumerate(path.lams):
        peer = ElasticNet(alpha=lam, l1_ratio=0.5, tol=1e-14, max_iter=100_000)
        peer.fit(data.X, data.y)
        np.testing.assert_allclose(path.coef()["w"][i, :, 0], peer.coef_, rtol=1e-6)


def test_the_objective_never_rises_along_proximal_gradient():
    X, y = two_moons()
    values = [
        rj.fit(
            network(), X, y, 1e-3, solver=rj.solvers.proximal_gradient(max_iter=count)
        ).objective
        for count in (1, 10, 100)
    ]
    assert np.all(np.diff(values) <= 1e-6)


def test_the_null_model_is_not_searched_for_once_it_is_found(monkeypatch):
    """At the optimum no halved step goes down, and none is tried."""
    calls, measure = [], grids._derivatives_at
    monkeypatch.setattr(
        grids, "_derivatives_at", lambda *a: calls.append(a) or measure(*a)
    )
    rng = np.random.default_rng(4)  # one of those where rounding leaves a slope
    X, y = rng.standard_normal((500, 3)), rng.standard_normal(500)
    problem = rj.Problem(
        rj.models.linear(3), rj.losses.half_squared_error(), rj.penalties.l1()
    )
    rj.fit_path(problem, X.astype(np.float32), y.astype(np.float32), 3)
    assert 0 < len(calls) <= 4


@pytest.mark.parametrize("loss", ["poisson_nll", "sigmoid_binary_cross_entropy"])
def test_the_null_model_that_a_link_knows_is_measured_once(monkeypatch, loss):
    """And searched for all the same where the link is of another loss."""
    calls, measure = [], grids._derivatives_at
    monkeypatch.setattr(
        grids, "_derivatives_at", lambda *a: calls.append(a) or measure(*a)
    )
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2)).astype(np.float32)
    y = rng.integers(2, size=60)
    own = getattr(rj.losses, loss)()
    problem = rj.Problem(rj.models.linear(2), own, rj.penalties.l1())
    path = rj.fit_path(problem, X, y, 2)
    assert len(calls) == 1
    wrong = own._replace(link=lambda means: means + 3)
    again = rj.fit_path(problem._replace(loss=wrong), X, y, 2)
    assert len(calls) > 2
    np.testing.assert_allclose(again.null_loss, path.null_loss, rtol=1e-6)
    np.testing.assert_allclose(again.lams, path.lams, rtol=2e-3)
    with pytest.raises(ValueError, match="loss: link must give"):
        bad = own._replace(link=lambda means: 0.0)
        rj.fit_path(problem._replace(loss=bad), X, y, 2)
