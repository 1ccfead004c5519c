"""Whole certified paths: real data in float64, a user's own model, any params."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets

import regjax as rj
from regjax import conditioning, objective
from regjax.solvers import fista

LOSSES = {
    "diabetes": rj.losses.half_squared_error(),
    "breast_cancer": rj.losses.sigmoid_binary_cross_entropy(),
    "wine": rj.losses.softmax_cross_entropy(),
    "counts": rj.losses.poisson_nll(),
}


def load(name):
    if name == "counts":
        rng = np.random.default_rng(0)
        X = rng.standard_normal((300, 20))
        return X, rng.poisson(np.exp(0.5 * X[:, 0] - 0.3 * X[:, 1])).astype(float), 1
    more = {"scaled": False} if name == "diabetes" else {}
    found = getattr(datasets, f"load_{name}")(**more)
    return found.data, found.target, 3 if name == "wine" else 1


def problem(name, penalty, p, k):
    return rj.Problem(rj.models.linear(p, k), LOSSES[name], penalty)


@pytest.mark.parametrize(
    "name, penalty, standardize",
    [
        ("diabetes", rj.penalties.l1(), False),
        ("breast_cancer", rj.penalties.elastic_net(0.5), True),
        ("breast_cancer", rj.penalties.l1(), False),
        ("wine", rj.penalties.l1(), True),
        ("wine", rj.penalties.group(), True),
        ("counts", rj.penalties.l2(), False),
    ],
    ids=lambda value: getattr(value, "config", (value,))[0],
)
def test_every_lam_of_a_path_is_proved_in_float64(x64, name, penalty, standardize):
    """gap <= 1e-10 P(null) at 100 lams over 4 decades, raw scales of 1e-3 ... 1e3."""
    X, y, k = load(name)
    path = rj.fit_path(
        problem(name, penalty, X.shape[1], k), X, y, standardize=standardize
    )
    assert len(path) == 100 and path.lams[-1] < 1.1e-4 * path.lams[0]
    assert np.all(path.status == rj.Status.converged)
    assert np.all(path.gap <= 1e-10 * path.null_loss)
    assert np.all(np.diff(path.loss) <= 2 * path.gap[:-1] + 1e-15)


def own(p):
    """An affine model of two blocks, a constant part, and a free intercept."""
    half = p // 2

    def apply(params, X):
        left = X[:, :half] @ params["left"]
        return left + X[:, half:] @ params["right"] + params["bias"][None, :] + 0.5

    def init(key):
        sizes = {"left": (half, 1), "right": (p - half, 1), "bias": (1,)}
        return {name: jnp.zeros(size) for name, size in sizes.items()}

    return rj.Model(init, apply, affine=True)


def test_a_users_own_affine_model_is_certified(x64):
    """It reaches the minimum of the linear model that it is."""
    X, y, _ = load("diabetes")
    lasso = problem("diabetes", rj.penalties.l1(), 10, 1)
    lams = [20.0, 2.0, 0.2]
    theirs = rj.fit_path(lasso._replace(model=own(10)), X, y, lams)
    ours = rj.fit_path(lasso, X, y, lams)
    assert np.all(theirs.status == rj.Status.converged)
    assert np.all(theirs.gap <= 1e-10 * theirs.null_loss)
    room = np.maximum(theirs.gap, ours.gap)
    assert np.all(np.abs(theirs.objective - ours.objective) <= room)


@pytest.mark.parametrize("name", LOSSES)
def test_certify_bounds_the_distance_of_any_params(x64, name):
    """Of the path's own params, of disturbed ones, and of none at all."""
    X, y, k = load(name)
    penalty = rj.penalties.l1()
    this = problem(name, penalty, X.shape[1], k)
    X = (X - X.mean(0)) / X.std(0)
    lams = np.array([0.1, 0.01]) * (y.std() if name == "diabetes" else 1.0)
    path = rj.fit_path(this, X, y, lams)
    rng = np.random.default_rng(0)
    for i, lam in enumerate(path.lams):
        best = jax.tree.map(lambda a, i=i: a[i], path.params)
        near = jax.tree.map(lambda a: a + 1e-2 * rng.standard_normal(a.shape), best)
        zero = jax.tree.map(np.zeros_like, best)
        for params in (best, near, zero):
            gap = rj.certify(this, X, y, lam, params)
            eta = X @ params[0]["w"] + params[0]["b"]
            target = np.eye(k)[y] if name == "wine" else y[:, None].astype(float)
            value = float(jnp.mean(this.loss.value(jnp.asarray(eta), target)))
            value += lam * np.abs(params[0]["w"]).sum()
            assert gap >= value - path.objective[i] - 1e-12
        assert rj.certify(this, X, y, lam, best) <= 1e-9 * path.null_loss


def test_a_network_has_no_gap():
    X = np.arange(8, dtype=np.float32).reshape(4, 2)
    y = np.arange(4)
    net = rj.models.mlp([2, 2, 1])
    this = rj.Problem(net, rj.losses.half_squared_error(), rj.penalties.l1())
    with pytest.raises(ValueError, match="^problem:"):
        rj.certify(this, X, y, 0.1, net.init(jax.random.key(0)))
    assert np.all(np.isinf(rj.fit_path(this, X, y, [0.1]).gap))


def test_constant_y_is_degenerate():
    X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    this = rj.Problem(
        rj.models.linear(3), rj.losses.half_squared_error(), rj.penalties.l1()
    )
    path = rj.fit_path(this, X, np.full(20, 7.0, np.float32), [0.1, 0.01])
    assert np.all(path.status == rj.Status.degenerate)
    assert np.all(path.n_nonzero == 0) and np.all(path.dev_ratio == 0)


@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e3])
def test_units_of_y_make_nothing_degenerate(unit):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)).astype(np.float32)
    y = X @ [2.0, -1.0, 0.0] + rng.standard_normal(60)
    this = problem("diabetes", rj.penalties.l1(), 3, 1)
    path = rj.fit_path(
        this, X, (unit * y).astype(np.float32), unit * np.array([1, 0.1])
    )
    assert np.all(path.status == rj.Status.converged)
    flat = np.full(60, 7 * unit, np.float32)
    assert rj.fit(this, X, flat, 0.1 * unit).status == rj.Status.degenerate


def test_outputs_of_different_size_do_not_hinder_each_other():
    """One count is 30,000 times the other on average; one y is constant."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 6)).astype(np.float32)
    rates = np.exp(0.2 * X[:, :1]) * [1e3, 0.03]
    y = rng.poisson(rates).astype(np.float32)
    path = rj.fit_path(problem("counts", rj.penalties.l1(), 6, 2), X, y, 8)
    assert np.all(path.gap <= 1e-4 * path.null_loss)
    signal = X[:, 0] + 0.5 * rng.standard_normal(200)
    y = np.stack([np.full(200, 3e6), 2 * signal], axis=1).astype(np.float32)
    path = rj.fit_path(problem("diabetes", rj.penalties.l1(), 6, 2), X, y, 8)
    assert np.all(path.status == rj.Status.converged)


@pytest.mark.parametrize(
    "shape, offset", [((40, 3), None), ((500, 3), 100.0), ((20, 200), None)]
)
def test_a_large_mean_of_y_costs_no_digits(shape, offset):
    """Kelvins, years: float32 is proved as if y were centred, by all three ways."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape).astype(np.float32)
    y = (X[:, :2] @ [6.0, -5.0] + 4 * rng.standard_normal(len(X))).astype(np.float32)
    this = problem("diabetes", rj.penalties.l1(), shape[1], 1)
    given = {"offset": None if offset is None else np.full(len(y), offset, np.float32)}
    far, level = y + np.float32(2000), 2000 - (offset or 0)
    near, path = rj.fit_path(this, X, y, 10), rj.fit_path(this, X, far, 10, **given)
    assert np.all(path.status == rj.Status.converged)
    np.testing.assert_allclose(path.lams, near.lams, rtol=1e-3)
    room = path.gap + near.gap + 1e-3 * near.objective
    assert np.all(np.abs(path.objective - near.objective) <= room)
    b = near.params[0]["b"]
    np.testing.assert_allclose(path.params[0]["b"] - level, b, atol=0.05)
    cv = rj.cross_validate(this, X, far, folds=4, lams=path.lams, **given)
    errors = np.mean((cv.out_of_fold[:, 0, :, 0] - far) ** 2, axis=1)
    np.testing.assert_allclose(cv.mean, errors, rtol=1e-3)


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "counts"])
@pytest.mark.parametrize("mean", [1e4, 3e6])
def test_the_rounding_of_an_intercept_beside_large_means_is_in_the_gap(name, mean, x64):
    """That of the params that are returned, on the given X; one column is constant."""
    rng = np.random.default_rng(1)
    X = (rng.standard_normal((60, 8)) + mean).astype(np.float32)
    X[:, 3] = 0.7 * mean
    eta = (X.astype(float) - X.mean(0, dtype=float)) @ rng.standard_normal(8)
    y = {
        "diabetes": eta + rng.standard_normal(60),
        "breast_cancer": eta > rng.logistic(size=60),
        "counts": rng.poisson(np.exp(0.5 * eta)),
    }[name].astype(np.float32)
    this, lams = problem(name, rj.penalties.l1(), 8, 1), [0.1, 0.03, 0.01]
    path = rj.fit_path(this, X, y, lams)
    best = rj.fit_path(this, X.astype(float), y.astype(float), path.lams.astype(float))
    assert path.gap.dtype == np.float32
    for i, lam in enumerate(best.lams):
        (layer,) = jax.tree.map(lambda a: np.asarray(a, float), path[i].params)
        eta = X.astype(float) @ layer["w"] + layer["b"]
        value = float(jnp.mean(this.loss.value(jnp.asarray(eta), y[:, None])))
        value += lam * np.abs(layer["w"]).sum()
        assert layer["w"][3] == 0 and np.any(layer["w"])
        away = value - best.objective[i]
        assert away <= 1.01 * path.gap[i]  # of a loss that is not quite a parabola
        assert abs(path.objective[i] - value) <= 1.01 * path.gap[i]
        if path.status[i] == rj.Status.converged:
            assert path.gap[i] <= 1.001e-5 * path.null_loss


def test_no_gap_of_params_that_are_out_of_bounds():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 2)).astype(np.float32), np.arange(20.0)
    y = y.astype(np.float32)
    for given in ({"bounds": (0, np.inf)}, {"factors": [1, np.inf]}):
        this = problem("diabetes", rj.penalties.l1(**given), 2, 1)
        w = np.array([[0.5], [-1e-9]], np.float32)
        params = ({"w": w, "b": np.zeros(1, np.float32)},)
        assert rj.certify(this, X, y, 0.1, params) == np.inf
        assert np.isfinite(rj.certify(this, X, y, 0.1, ({**params[0], "w": w > 0},)))


def powers(ages, count):
    return np.stack([ages ** (j + 1) for j in range(count)], axis=1)


@pytest.mark.parametrize(
    "free",
    [
        lambda rng: rng.standard_normal((60, 3)) * [1, 1e-2, 1e5],
        lambda rng: powers(rng.uniform(20, 80, 60), 3),
    ],
    ids=["three sizes", "powers of an age"],
)
@pytest.mark.parametrize("loss", ["diabetes", "breast_cancer"])
def test_unpenalised_columns_of_any_size(free, loss, x64):
    """The grid begins at the exact lambda_max, and all lams are proved."""
    rng = np.random.default_rng(0)
    columns = free(rng)
    X = np.concatenate([columns, rng.standard_normal((60, 4))], axis=1)
    y = (columns - columns.mean(0)) @ (1 / columns.std(0)) + 2 * X[:, -1]
    y = y + 3 * rng.standard_normal(60)
    if loss == "breast_cancer":
        y = (y > y.mean()).astype(float)
    factors = [0] * columns.shape[1] + [1] * 4
    this = problem(loss, rj.penalties.l1(factors=factors), X.shape[1], 1)
    path = rj.fit_path(this, X, y, 10)
    assert np.all(path.status == rj.Status.converged)
    assert np.all(path.gap <= 1e-11 * path.null_loss)
    near = path.lams[0] * np.array([1 + 1e-7, 1 - 1e-4])
    beside = rj.fit_path(this, X, y, near).params[0]["w"][:, -4:]
    assert np.all(beside[0] == 0) and np.any(beside[1] != 0)


def test_a_saturated_fit_is_proved_in_float64_as_in_float32(x64):
    """Its eta is large, and so is what rounding leaves of the intercepts' slopes."""
    data = rj.datasets.load("digits")
    X = data.X.astype(float)
    softmax = rj.losses.softmax_cross_entropy()
    this = rj.Problem(rj.models.linear(64, 10), softmax, rj.penalties.l1())
    lams = np.geomspace(6e-2, 6e-6, 10)
    for tol in (1e-3, 4e-5):
        solver = rj.solvers.proximal_gradient(tol=tol)
        path = rj.fit_path(this, X.astype(np.float32), data.y, lams, solver=solver)
        assert path.gap.dtype == np.float32
        for i in (5, 7, 9):
            found = rj.certify(this, X, data.y, lams[i], path[i].params)
            np.testing.assert_allclose(found, path.gap[i], rtol=0.02)


@pytest.mark.parametrize(("n", "p"), [(500_000, 2), (100_000, 5), (1000, 500)])
def test_means_of_columns_are_good_to_a_hundredth_of_their_deviation(n, p):
    """Of float32 columns whose means are a thousand deviations."""
    X = np.random.default_rng(0).normal(1000, 1, (n, p)).astype(np.float32)
    found = conditioning.column_means(X, np.ones(n, np.float32))
    np.testing.assert_allclose(found, X.mean(axis=0, dtype=float), atol=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 3), (1, 1), (5,), (1100, 500)])
def test_copies_that_a_cpu_shares(monkeypatch, shape, dtype):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    given = conditioning.unfilled((np.prod(shape) + 1,), dtype)[1:]  # begins beside
    given[:] = np.arange(given.size)
    given = given.reshape(shape)
    copy = conditioning.shareable(given.T)
    large = copy.nbytes >= conditioning.LARGE_PAGE
    multiple = conditioning.LARGE_PAGE if large else conditioning.ALIGNED
    assert copy.ctypes.data % multiple == 0 and copy.flags.c_contiguous
    assert not np.shares_memory(copy, given)
    np.testing.assert_array_equal(copy, given.T)
    assert conditioning.shareable(copy) is copy


@pytest.mark.parametrize("narrow", [True, False])
def test_x_turned_changes_no_path(x64, monkeypatch, narrow):
    """Narrow models of one output take eta from X', large wide ones the gradient."""
    solver = rj.solvers.proximal_gradient(tol=1e-11)
    X, y, k = load("breast_cancer" if narrow else "wine")
    this = problem(
        "breast_cancer" if narrow else "wine", rj.penalties.l1(), X.shape[1], k
    )
    folds = np.arange(len(y)) % 3
    found = []
    for kept in (True, False):
        monkeypatch.setattr(objective, "NARROW", 128 if narrow and kept else 0)
        large = 0 if kept and not narrow else np.inf
        monkeypatch.setattr(conditioning, "LARGE", large)
        jax.clear_caches()  # these are no part of a program's key
        rows = rj.types.Data(X, np.zeros((len(y), k)))
        on_cpu = jax.default_backend() == "cpu"
        assert conditioning.keeps_turned(this, rows) == (kept and on_cpu)
        given = this, X, y, folds, 6
        cv = rj.cross_validate(*given, solver=solver, standardize=True)
        found.append((cv.path.objective, cv.path.params, cv.mean))
    jax.clear_caches()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found
    )


def test_x_turned_is_kept_where_it_pays(monkeypatch):
    """Of narrow models with one output, and of wide X beyond the cache."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")

    def kept(n, p, k):
        given = jax.ShapeDtypeStruct((n, p), "f4"), jax.ShapeDtypeStruct((n, k), "f4")
        loss = rj.losses.half_squared_error()
        this = rj.Problem(rj.models.linear(p, k), loss, rj.penalties.l1())
        return conditioning.keeps_turned(this, rj.types.Data(*given))

    assert kept(500, 128, 1) and not kept(500, 128, 2) and not kept(500, 129, 1)
    assert kept(4000, 300, 1) and kept(4000, 300, 10) and not kept(10**6, 300, 1)


@pytest.mark.parametrize("name, factor", [("wine", 1e3), ("diabetes", np.nan)])
def test_a_bad_guess_of_the_next_lam_is_undone(x64, monkeypatch, name, factor):
    """Where the steps of a lam begin is a guess; by slots and by the Gram matrix."""
    X, y, k = load(name)
    this = problem(name, rj.penalties.l1(), X.shape[1], k)
    solver, found = rj.solvers.proximal_gradient(tol=1e-8), []
    for guess in (fista.secant, lambda *given: scaled(given[2][0], factor)):
        monkeypatch.setattr(fista, "secant", guess)
        jax.clear_caches()  # it is no part of a program's key
        path = rj.fit_path(this, X, y, 12, solver=solver, standardize=True)
        assert np.all(path.status == rj.Status.converged)
        found.append(path)
    jax.clear_caches()
    assert found[1].n_iter.sum() > found[0].n_iter.sum()
    room = 1e-8 * found[0].null_loss
    np.testing.assert_allclose(found[0].objective, found[1].objective, atol=room)


def scaled(params, factor):
    return jax.tree.map(lambda a: a * factor, params)
