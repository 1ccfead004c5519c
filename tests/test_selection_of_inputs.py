"""Which inputs a path uses: selected, importance, at, and the column of the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regjax as rj
from regjax import storage
from regjax.results import PER_LANE

SQUARED = rj.losses.half_squared_error()
LAMS = np.array([1.0, 0.3, 0.1, 0.03])


def path_of(model, params, status=0, penalty=None, **more):
    """A path with these params [L, ...] (more=dict(seeds=S): [L, S, ...])."""
    shape = (4, more["seeds"]) if "seeds" in more else (4,)
    arrays = {name: np.zeros(shape) for name in PER_LANE}
    arrays["status"] = np.broadcast_to(status, shape).astype(np.int32)
    problem = rj.Problem(model, SQUARED, penalty or rj.penalties.l1())
    given = {"null_loss": 1.0, "saturated_loss": 0.0, "problem": problem}
    return rj.Path(lams=LAMS, params=params, **arrays, **given, **more)


def rows(used, *shape, seed=0):
    """Weights [..., p, *shape]; a row that is used may have zeros, not only zeros."""
    w = np.random.default_rng(seed).standard_normal((*used.shape, *shape))
    if shape:
        w[..., 1::2] = 0
    return w * used.reshape(*used.shape, *[1] * len(shape))


# Inputs of four lams: 1 enters first, 0 comes and goes, 3 is never used.
USED = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], bool)


def linear_path(used=USED, status=0, **more):
    p = used.shape[-1]
    params = ({"w": rows(used, 2), "b": np.ones((*used.shape[:-1], 2))},)
    return path_of(rj.models.linear(p, 2), params, status, **more)


@pytest.fixture(scope="module")
def network():
    """Group lasso on the inputs of a network, two of ten matter; two seeds."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (120, 10)).astype(np.float32)
    y = (X[:, 0] ** 2 + 2 * X[:, 1]).astype(np.float32)
    problem = rj.Problem(
        rj.models.mlp([10, 10, 1], "tanh"),
        SQUARED,
        rj.penalties.group(where="0/w"),
        ridge=1e-3,
    )
    solver = rj.solvers.minibatch(batch_size=40, epochs=10, polish=10)
    lams = [3.0, 0.1, 0.03, 0.003]
    path = rj.fit_path(problem, X, y, lams, seeds=2, solver=solver)
    return path.replace(scores={"r2": path.score(X, y)}), X


def test_inputs_of_a_network_are_used_where_their_row_is_not_zero(network):
    """Its second layer has 10 rows too, and they do not count."""
    path, _ = network
    used = np.any(path.params[0]["w"] != 0, axis=-1)
    assert path.selected.shape == (4, 2, 10) and path.selected.dtype == bool
    np.testing.assert_array_equal(path.selected, used)
    counts = used.sum(-1)
    assert np.all(counts[0] == 0) and np.all(counts[-1] > 2)
    assert np.all(used[1:, :, 1])
    assert path.selected is path.selected  # computed once


def test_a_skip_reads_the_inputs_too():
    w, skip = rows(USED, 4), np.zeros((4, 4, 1))
    skip[0, 3] = 1
    later = np.ones((4, 4, 1))
    model = rj.models.mlp([4, 4, 1], bias=False, skip=True)
    path = path_of(model, ({"w": w, "skip": skip}, {"w": later}))
    expected = USED.copy()
    expected[0, 3] = True
    np.testing.assert_array_equal(path.selected, expected)


def test_importance_is_the_largest_lam_at_which_an_input_is_used():
    np.testing.assert_array_equal(linear_path().importance, [0.1, 0.3, 0.03, 0])


def test_a_diverged_lane_uses_nothing_that_counts():
    """For the importance and for the choice of a lam."""
    diverged = rj.Status.diverged
    path = linear_path(status=[0, diverged, 0, 0])
    np.testing.assert_array_equal(path.importance, [0.1, 0.1, 0.03, 0])
    assert path.at(n_features=1).lam == 1.0
    assert path.selected[1, 1]
    with pytest.raises(ValueError, match="n_features: .*all diverged"):
        linear_path(status=diverged).at(n_features=4)


def test_importance_of_a_lasso_on_orthogonal_columns_is_its_correlation(x64):
    """w_j = soft(c_j, lam), c = X'y / n: used iff lam < |c_j|. Largest such lam."""
    rng = np.random.default_rng(0)
    X, _ = np.linalg.qr(np.column_stack([np.ones(40), rng.standard_normal((40, 6))]))
    X = X[:, 1:] * np.sqrt(40)  # centred, X'X = n
    y = X @ [3, -2, 1, 0.5, 0.1, 0] + 0.1 * rng.standard_normal(40)
    lams = np.geomspace(4, 1e-3, 30)
    problem = rj.Problem(rj.models.linear(6), SQUARED, rj.penalties.l1())
    path = rj.fit_path(problem, X, y, lams)
    size = np.abs(X.T @ y) / 40
    expected = [np.max(lams[lams < c], initial=0) for c in size]
    np.testing.assert_allclose(path.importance, expected)
    for most in range(1, 6):
        chosen = path.at(n_features=most)
        assert np.any(chosen.params[0]["w"] != 0, axis=1).sum() == most
        inside = lams[lams >= np.sort(size)[::-1][most]]
        np.testing.assert_allclose(chosen.lam, inside.min())


def test_at_takes_the_most_inputs_that_are_allowed_then_the_smallest_lam():
    rng = np.random.default_rng(1)
    for _ in range(100):
        used = rng.random((4, 5)) < rng.random((4, 1))
        most = int(rng.integers(6))
        path, counts = linear_path(used), used.sum(-1)
        allowed = [(n, -lam) for n, lam in zip(counts, LAMS, strict=True) if n <= most]
        if not allowed:
            with pytest.raises(ValueError, match=f"fewest is {counts.min()}"):
                path.at(n_features=most)
            continue
        one = path.at(n_features=most)
        assert (one.path.selected.sum(), -one.lam) == max(allowed)
        place = LAMS.tolist().index(one.lam)
        np.testing.assert_array_equal(one.params[0]["w"], path.params[0]["w"][place])


@pytest.mark.parametrize(
    ("most", "said"), [(-1, "at least 0"), (5, "4 inputs, got 5"), (2.0, "integer")]
)
def test_at_refuses_other_numbers(most, said):
    with pytest.raises(ValueError, match=f"^n_features: .*{said}"):
        linear_path().at(n_features=most)


def test_each_seed_has_a_path_of_its_own(network):
    path, X = network
    with pytest.raises(ValueError, match=r"path.seed\(0\)"):
        path.at(n_features=3)
    np.testing.assert_array_equal(path.importance.shape, (2, 10))
    for seed in range(2):
        one = path.seed(seed)
        assert one.seeds == 1 and one.loss.shape == (4,)
        np.testing.assert_array_equal(one.loss, path.loss[:, seed])
        np.testing.assert_array_equal(one.scores["r2"], path.scores["r2"][:, seed])
        np.testing.assert_array_equal(one.importance, path.importance[seed])
        few = one.at(n_features=9)
        assert few.path.selected.sum() <= 9
        expected = path.predict(X, lam=few.lam)[seed]
        np.testing.assert_allclose(few.predict(X), expected, rtol=1e-5, atol=1e-6)
    assert path.seed(1).seed(0).seeds == 1
    for wrong in (2, -1, 0.5):
        with pytest.raises(ValueError, match="^seed: "):
            path.seed(wrong)


def test_the_table_counts_inputs_where_a_penalty_selects_groups(network):
    path, _ = network
    header, *lines = str(path).splitlines()
    assert header.split()[:4] == ["Df", "Inputs", "%Dev", "Lambda"]
    shown = [float(line.split()[2]) for line in lines]
    np.testing.assert_allclose(shown, path.selected.sum(-1).mean(-1), atol=0.5)
    plain = path.problem._replace(penalty=rj.penalties.l1())
    for other in (path.replace(problem=plain), path.replace(problem=None)):
        assert "Inputs" not in str(other)
    assert "Inputs" not in str(linear_path(penalty=rj.penalties.group()))
    filters = {"kernel": np.zeros((4, 3, 2))}
    model = own(lambda params, X: jnp.ones((len(X), 1)) * X[:, :1], kernel=(3, 2))
    penalty = rj.penalties.group(axis=0)
    bare = path_of(model, filters, penalty=penalty, input_shape=(4,))
    assert "Inputs" not in str(bare)


def test_a_file_keeps_the_shape_of_inputs_and_an_older_one_is_read(network, tmp_path):
    path, _ = network
    path.save(tmp_path / "path.npz")
    back = rj.load(tmp_path / "path.npz")
    assert back.input_shape == path.input_shape == (10,)
    header, arrays = storage.load(tmp_path / "path.npz")
    del header["input_shape"]
    storage.save(tmp_path / "old.npz", header, arrays)
    old = rj.load(tmp_path / "old.npz")
    assert old.input_shape is None
    for found in (back, old):
        np.testing.assert_array_equal(found.selected, path.selected)


def own(apply, **shapes):
    """A model of the user's own, its start all zeros."""
    return rj.Model(
        init=lambda key: {name: jnp.zeros(shape) for name, shape in shapes.items()},
        apply=apply,
    )


def deep(params, X):
    """Leaf a, of p rows too, is behind b."""
    return jnp.tanh(X @ params["b"]) @ params["a"] @ params["c"]


def with_skip(params, X):
    return deep(params, X) + X @ params["skip"]


def shifted(params, X):
    return jnp.tanh((X - 1) @ params["w"]) @ params["v"]


def gated(params, X):
    return jnp.tanh((X * params["gate"][None, :]) @ params["bias"]) @ params["c"]


def flattened(params, X):
    return jnp.tanh(X.reshape(len(X), -1) @ params["w"]) @ params["c"]


def tied(params, X):
    return jnp.tanh(X @ params["w"]) @ params["w"].T @ params["c"]


P, H = 6, 6
OWN = {  # name: apply, shapes, which leaves read the inputs, shape of an input
    "deep": (deep, {"b": (P, H), "a": (H, P), "c": (P, 2)}, ["b"], (P,)),
    "with skip": (
        with_skip,
        {"b": (P, H), "a": (H, P), "c": (P, 2), "skip": (P, 2)},
        ["b", "skip"],
        (P,),
    ),
    "shifted": (shifted, {"w": (P, H), "v": (H, 1)}, ["w"], (P,)),
    # The leaf that is not penalised, by its name, is not what selects.
    "gated": (gated, {"bias": (P, 5), "c": (5, 2), "gate": (P,)}, ["gate"], (P,)),
    "images": (flattened, {"w": (P, H), "c": (H, 2)}, ["w"], (3, 2)),
    "tied": (tied, {"w": (P, 5), "c": (P, 2)}, ["w"], (P,)),
}


@pytest.mark.parametrize("name", OWN)
def test_inputs_of_any_model_are_used_as_its_outputs_say(name):
    """Where selected is False moving the input moves nothing, where True it does."""
    apply, shapes, reading, input_shape = OWN[name]
    used = np.random.default_rng(0).random((4, P)) < 0.5
    rng = np.random.default_rng(1)
    params = {
        leaf: rows(used, *shape[1:], seed=len(leaf))
        if leaf in reading
        else rng.standard_normal((4, *shape))
        for leaf, shape in shapes.items()
    }
    path = path_of(own(apply, **shapes), params, input_shape=input_shape)
    np.testing.assert_array_equal(path.selected, used)
    X = np.ones((P + 1, P)) + np.eye(P + 1, P)  # input j is moved in row j
    for i in range(4):
        one = jax.tree.map(lambda a, i=i: a[i], params)
        # Row by row: the last rows of a product may be rounded in another order.
        rows_of_X = jnp.asarray(X.reshape(P + 1, 1, *input_shape))
        eta = np.concatenate([apply(one, row) for row in rows_of_X])
        moved = np.any(eta[:P] != eta[P:], axis=1)
        np.testing.assert_array_equal(moved, used[i])


def test_a_leaf_without_penalty_that_reads_the_inputs_uses_them_all():
    rng = np.random.default_rng(0)
    params = {"w": rows(USED, 3), "bias": rng.standard_normal((4, 4, 3))}
    model = own(
        lambda params, X: X @ params["w"] + jnp.tanh(X) @ params["bias"],
        w=(4, 3),
        bias=(4, 3),
    )
    path = path_of(model, params, input_shape=(4,))
    assert np.all(path.selected)
    where = rj.penalties.l1(where="1/w")
    layers = ({"w": np.ones((4, 4, 3))}, {"w": np.zeros((4, 3, 1))})
    model = rj.models.mlp([4, 3, 1], bias=False)
    assert np.all(path_of(model, layers, penalty=where).selected)


def convolution(params, X):
    images = X.reshape(len(X), 3, 4, 1)
    h = jax.lax.conv_general_dilated(
        images, params["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(h).reshape(len(X), -1) @ params["v"]


NOT_BY_ROWS = {
    # A dense layer of 12 rows behind the filters: no rows of inputs.
    "filters": (convolution, {"w": (3, 3, 1, 1), "v": (12, 2)}),
    # [out, in], as Equinox has it, and square.
    "columns": (lambda params, X: X @ params["w"].T, {"w": (12, 12)}),
    "no leaf": (lambda params, X: X[:, :3] + params["v"][None, :], {"v": (3,)}),
}


@pytest.mark.parametrize("name", NOT_BY_ROWS)
def test_inputs_that_no_leaf_has_on_its_first_axis_are_one_clear_error(name):
    apply, shapes = NOT_BY_ROWS[name]
    params = {leaf: np.ones((4, *shape)) for leaf, shape in shapes.items()}
    path = path_of(own(apply, **shapes), params, input_shape=(12,))
    with pytest.raises(ValueError, match="^selected: .*12 inputs .*first axis"):
        path.selected  # noqa: B018
    with pytest.raises(ValueError, match="^selected: .*input_shape"):
        path.replace(input_shape=None).at(n_features=3)
    with pytest.raises(ValueError, match="^problem: "):
        path.replace(problem=None).importance  # noqa: B018
