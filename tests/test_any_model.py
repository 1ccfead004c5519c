"""Networks of Flax, Equinox and Haiku: a Model in three lines, and the same calls."""

from typing import NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import regjax as rj
from regjax import model_checks, trees

digits = rj.datasets.load("digits")
X, y = digits.X[:240].astype(np.float32), digits.y[:240]
LAMS = [1.0, 1e-2, 1e-3]
SOFTMAX = rj.losses.softmax_cross_entropy()
SOLVER = rj.solvers.minibatch(batch_size=60, epochs=5, polish=0)
KEY = jax.random.key(0)


def flax_linen():
    layers = [linen.Dense(6), linen.tanh, linen.LayerNorm(), linen.Dense(10)]
    net = linen.Sequential(layers)
    return rj.Model(
        init=lambda key: net.init(key, X[:1])["params"],
        apply=lambda params, X: net.apply({"params": params}, X),
    )


class Net(nnx.Module):
    def __init__(self, key, norm=nnx.LayerNorm):
        rngs = nnx.Rngs(key)
        self.hidden = nnx.Linear(64, 6, rngs=rngs)
        self.norm = norm(6, rngs=rngs)
        self.out = nnx.Linear(6, 10, rngs=rngs)

    def __call__(self, X):
        return self.out(self.norm(jnp.tanh(self.hidden(X))))


def flax_nnx():
    graph = nnx.graphdef(Net(KEY))
    return rj.Model(
        init=lambda key: nnx.state(Net(key)),
        apply=lambda params, X: nnx.merge(graph, params)(X),
    )


def equinox_mlp(key):
    return eqx.nn.MLP(64, 10, 6, 1, jnp.tanh, key=key)


def equinox():
    rest = eqx.filter(equinox_mlp(KEY), eqx.is_inexact_array, inverse=True)
    return rj.Model(
        init=lambda key: eqx.filter(equinox_mlp(key), eqx.is_inexact_array),
        apply=lambda params, X: jax.vmap(eqx.combine(params, rest))(X),
    )


def haiku():
    def layers(X):
        hidden = jnp.tanh(hk.Linear(6)(X))
        return hk.Linear(10)(hk.LayerNorm(-1, True, True)(hidden))

    net = hk.without_apply_rng(hk.transform(layers))
    return rj.Model(init=lambda key: net.init(key, X[:1]), apply=net.apply)


MODELS = {f.__name__: f for f in (flax_linen, flax_nnx, equinox, haiku)}
# What is penalised by default, and what is not.
LEAVES = {
    "flax_linen": (
        ["layers_0/kernel", "layers_3/kernel"],
        ["layers_0/bias", "layers_2/bias", "layers_2/scale", "layers_3/bias"],
    ),
    "flax_nnx": (
        ["hidden/kernel", "out/kernel"],
        ["hidden/bias", "norm/bias", "norm/scale", "out/bias"],
    ),
    "equinox": (
        ["layers/0/weight", "layers/1/weight"],
        ["layers/0/bias", "layers/1/bias"],
    ),
    "haiku": (
        ["linear/w", "linear_1/w"],
        ["layer_norm/offset", "layer_norm/scale", "linear/b", "linear_1/b"],
    ),
}


class Case(NamedTuple):
    name: str
    problem: rj.Problem
    path: rj.Path


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    problem = rj.Problem(MODELS[request.param](), SOFTMAX, rj.penalties.l1())
    path = rj.fit_path(problem, X, y, LAMS, seeds=2, solver=SOLVER)
    return Case(request.param, problem, path)


def leaves(params):
    return dict(zip(trees.key_paths(params), jax.tree.leaves(params), strict=True))


def test_weights_are_penalised_and_biases_and_scales_are_not(case):
    weights, free = LEAVES[case.name]
    start = case.problem.model.init(KEY)
    assert sorted(trees.key_paths(start)) == sorted(weights + free)
    chosen = jax.tree.leaves(case.problem.penalty.selected(start))
    pairs = zip(trees.key_paths(start), chosen, strict=True)
    assert {name for name, on in pairs if on} == set(weights)


def test_the_box_around_a_leaf_is_no_part_of_its_name():
    """But a key of the user's own is."""
    state = nnx.state(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
    assert trees.key_paths({"a": state}) == ["a/bias", "a/kernel"]
    assert trees.key_paths({"a": {"value": 1.0}, "value": 2.0}) == ["a/value", "value"]


def test_zeros_are_exact_and_biases_are_fitted(case):
    weights, free = LEAVES[case.name]
    found = leaves(case.path.params)
    counts = sum((found[name] != 0).sum(axis=(-2, -1)) for name in weights)
    np.testing.assert_array_equal(counts, case.path.n_nonzero)
    assert counts[0].max() == 0 and counts[-1].min() > 0
    assert counts[-1].max() < 64 * 6 + 6 * 10
    outer = [name for name in free if name.endswith(("bias", "b"))][-1]
    assert np.all(found[outer][0] != 0)
    assert set(case.path.status.ravel().tolist()) <= {0, 1}


def test_predictions_are_the_networks_own(case):
    one = jax.tree.map(lambda a: a[2, 1], case.path.params)
    eta = case.problem.model.apply(one, X)
    link = case.path.predict(X, type="link")
    assert link.shape == (3, 2, 240, 10)
    np.testing.assert_allclose(link[2, 1], eta, rtol=1e-3, atol=1e-4)
    labels = case.path.predict(X, lam=LAMS[-1], type="class")
    np.testing.assert_array_equal(labels[1], np.argmax(link[2, 1], axis=1))
    score = case.path.score(X, y)
    np.testing.assert_allclose(score[2], (labels == y).mean(axis=1))
    assert score.shape == (3, 2) and score[2].min() > 0.3
    with pytest.raises(ValueError, match=r"^X: the model cannot take shape .240, 5."):
        case.path.predict(X[:, :5])


def test_a_path_comes_back_in_its_own_pytree(case, tmp_path):
    case.path.save(tmp_path / "path.npz")
    back = rj.load(tmp_path / "path.npz", problem=case.problem)
    assert jax.tree.structure(back.params) == jax.tree.structure(case.path.params)
    jax.tree.map(np.testing.assert_array_equal, back.params, case.path.params)
    np.testing.assert_array_equal(back.predict(X), case.path.predict(X))
    bare = rj.load(tmp_path / "path.npz")  # no problem, but its numbers
    assert set(leaves(bare.params)) == set(leaves(case.path.params))


def test_fit_is_seed_0_of_the_path(case):
    one = rj.fit(case.problem, X, y, LAMS[-1], solver=SOLVER)
    np.testing.assert_allclose(one.objective, case.path.objective[-1, 0], rtol=1e-3)
    np.testing.assert_allclose(one.score(X, y), case.path.score(X, y)[-1, 0], atol=0.02)


def test_cross_validation_chooses_a_lam(case):
    cv = rj.cross_validate(case.problem, X, y, folds=2, lams=LAMS, solver=SOLVER)
    assert np.all(np.isfinite(cv.mean)) and cv.lam_min < LAMS[0]
    assert cv.path.predict(X, lam="min").shape == (240, 10)
    assert cv.path.score(X, y)[-1] > cv.path.score(X, y)[0]


class ConvNet(linen.Module):
    @linen.compact
    def __call__(self, images):
        h = linen.Conv(6, (3, 3), strides=2, padding="VALID", name="conv")(images)
        h = linen.relu(h).reshape(len(images), -1)
        return linen.Dense(10, name="dense")(h)


def test_whole_filters_of_a_convolution_become_zero_along_the_path():
    """Group lasso on filters, chosen by key path: none, some, then all of them."""
    net, images = ConvNet(), X.reshape(-1, 8, 8, 1)
    model = rj.Model(
        init=lambda key: net.init(key, images[:1])["params"],
        apply=lambda params, images: net.apply({"params": params}, images),
    )
    filters = rj.penalties.group(axis=(0, 1, 2), where="conv.*kernel")
    problem = rj.Problem(model, SOFTMAX, filters, ridge=1e-3)
    solver = rj.solvers.minibatch(batch_size=60, epochs=20, polish=3)
    path = rj.fit_path(problem, images, y, [3.0, 0.3, 0.1, 1e-3], solver=solver)
    kernel = path.params["conv"]["kernel"]
    assert kernel.shape == (4, 3, 3, 1, 6)
    within = (kernel != 0).reshape(4, 9, 6)
    np.testing.assert_array_equal(within.any(axis=1), within.all(axis=1))
    kept = within.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(path.n_nonzero, 9 * kept)
    assert kept[0] == 0 and 0 < kept[1] < 6 and kept[-1] == 6
    assert np.all(path.params["dense"]["kernel"] != 0)
    assert path.score(images, y)[-1] > 0.8


def normalised(running=False, last=linen.initializers.ones):
    """A network with BatchNorm, its statistics kept apart from params."""
    middle = linen.BatchNorm(use_running_average=running)
    net = linen.Sequential([linen.Dense(6), middle, linen.Dense(10, kernel_init=last)])
    statistics = net.init(KEY, X[:2])["batch_stats"]

    def apply(params, X):
        variables = {"params": params, "batch_stats": statistics}
        return net.apply(variables, X, mutable=["batch_stats"])[0]

    return rj.Model(lambda key: net.init(key, X[:2])["params"], apply)


def updating():
    """BatchNorm in training mode, without a place for its new averages."""
    net = linen.BatchNorm(use_running_average=False)
    variables = net.init(KEY, X[:2])
    return rj.Model(
        init=lambda key: net.init(key, X[:2])["params"],
        apply=lambda params, X: net.apply({**variables, "params": params}, X),
    )


def nnx_in_training():
    graph, _, rest = nnx.split(Net(KEY, nnx.BatchNorm), nnx.Param, ...)
    return rj.Model(
        init=lambda key: nnx.state(Net(key, nnx.BatchNorm), nnx.Param),
        apply=lambda params, X: nnx.merge(graph, params, rest)(X),
    )


def haiku_with_state(X):
    return hk.Linear(10)(hk.BatchNorm(True, True, 0.9)(X, is_training=True))


def all_variables():
    net = linen.Sequential([linen.Dense(6), linen.BatchNorm(False), linen.Dense(10)])
    return rj.Model(
        init=lambda key: net.init(key, X[:2]),
        apply=lambda variables, X: net.apply(variables, X, mutable="batch_stats")[0],
    )


def whitened(params, X):
    return (X - X.mean(axis=0, keepdims=True)) @ params["w"]


def of(params, apply=None):
    """A linear model with something else among its params."""

    def init(key):
        return {"w": jnp.zeros((64, 10)), "extra": {"thing": params}}

    return rj.Model(init, apply or (lambda params, X: X @ params["w"]))


REFUSED = {
    "rows depend on each other": {
        "linen": normalised,
        "linen behind zeros": lambda: normalised(last=linen.initializers.zeros),
        "whitened": lambda: of(
            0.0, lambda params, X: (X - X.mean(0, keepdims=True)) @ params["w"]
        ),
    },
    "batch statistics": {"linen": updating, "nnx": nnx_in_training},
    "statistic of batches": {
        "linen": all_variables,
        "nnx": lambda: rj.Model(
            init=lambda key: nnx.state(Net(key, nnx.BatchNorm)),
            apply=lambda params, X: X[:, :10],
        ),
        "haiku": lambda: rj.Model(
            init=lambda key: hk.transform_with_state(haiku_with_state).init(key, X[:2]),
            apply=lambda params, X: X[:, :10],
        ),
    },
    "activation of type": {
        "equinox": lambda: rj.Model(equinox_mlp, lambda net, X: jax.vmap(net)(X))
    },
    "extra/thing of type int32": {"array": lambda: of(jnp.arange(3))},
    "extra/thing of type int;": {"number": lambda: of(3)},
    "extra/thing of type bool": {"array": lambda: of(np.array([True]))},
    "extra/thing of type str": {"word": lambda: of("relu")},
    "extra/thing of type function": {"function": lambda: of(haiku_with_state)},
    "extra/thing of type key": {"key": lambda: of(jax.random.key(0))},
    "eta .n, k. .* got a tuple": {
        "two results": lambda: of(0.0, lambda params, X: (X @ params["w"], params))
    },
    "affine=True, but": {
        "cubes": lambda: of(
            0.0, lambda params, X: (X @ params["w"] + 0.1) ** 3
        )._replace(affine=True)
    },
    "init.key. fails": {
        "arguments": lambda: rj.Model(lambda: {}, lambda params, X: X[:, :10])
    },
}
CALLS = [(said, name) for said, cases in REFUSED.items() for name in cases]


@pytest.mark.parametrize(("said", "name"), CALLS)
def test_what_cannot_be_trained_is_one_clear_error(said, name):
    problem = rj.Problem(REFUSED[said][name](), SOFTMAX, rj.penalties.l1())
    with pytest.raises(ValueError, match=f"^model: .*{said}") as caught:
        rj.fit(problem, X, y, 0.1)
    assert len(str(caught.value)) < 300


def test_a_mask_in_the_form_of_a_network_is_not_called():
    net = eqx.filter(equinox_mlp(KEY), eqx.is_inexact_array)
    matrices = jax.tree.map(lambda leaf: leaf.ndim == 2, net)
    assert callable(matrices)
    found = rj.penalties.l1(where=matrices).selected(net)
    assert jax.tree.leaves(found) == jax.tree.leaves(matrices)


def test_running_averages_and_zero_starts_are_no_batch_statistics():
    for model in (normalised(running=True), of(0.0)):
        model_checks.check_params(model)
        model_checks.check_rows(model, model.init(KEY), X)
    same = np.tile(X[:1], (5, 1))  # rows that tell nothing
    model_checks.check_rows(normalised(), normalised().init(KEY), same)
