"""Smaller networks with the same outputs, against the network they came from."""

import itertools

import jax
import numpy as np
import pytest

import regjax as rj
from regjax.models import ACTIVATIONS

SIZES = {0: [7, 3], 1: [7, 6, 2], 2: [7, 5, 6, 1], 3: [6, 5, 4, 5, 2]}


def sparse_network(rng, sizes, dtype=float, share=0.4, bias=True, skip=False):
    """Params with rows, columns and single weights zeroed."""
    layers = []
    for d_in, d_out in itertools.pairwise(sizes):
        w = rng.standard_normal((d_in, d_out))
        w = w * (rng.random((d_in, 1)) > share) * (rng.random((1, d_out)) > share / 2)
        layer = {"w": w * (rng.random(w.shape) > share)}
        if bias:
            layer["b"] = rng.standard_normal(d_out) * (rng.random(d_out) > 0.3)
        layers.append(layer)
    if skip:
        theta = rng.standard_normal((sizes[0], sizes[-1]))
        layers[0]["skip"] = theta * (rng.random((sizes[0], 1)) > share)
    return jax.tree.map(lambda a: a.astype(dtype), tuple(layers))


def eta(model, params, X):
    return np.asarray(model.apply(jax.tree.map(jax.numpy.asarray, params), X))


def assert_same_outputs(model, params, small, X, tol):
    found = eta(small.model, small.params, X[:, small.inputs])
    expected = eta(model, params, X)
    scale = max(np.abs(expected).max(), 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tol * scale)
    assert found.dtype == expected.dtype
    shapes = jax.tree.map(np.shape, small.params)
    like = jax.eval_shape(small.model.init, jax.random.key(0))
    assert shapes == jax.tree.map(np.shape, like)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_stay_the_same(activation, depth, bias, x64):
    """To 1e-12 in float64, whatever is zero; a second time changes nothing."""
    rng = np.random.default_rng(depth)
    sizes = SIZES[depth]
    model = rj.models.mlp(sizes, activation, bias)
    X = rng.standard_normal((9, sizes[0]))
    smaller = 0
    for trial in range(12):
        params = sparse_network(rng, sizes, share=0.1 * (trial % 8), bias=bias)
        small = rj.compress(params, model)
        assert_same_outputs(model, params, small, X, 1e-12)
        left = small.model.config[1]["sizes"]
        smaller += left != sizes
        again = rj.compress(small.params, small.model)
        assert again.model.config == small.model.config
        assert again.inputs.tolist() == list(range(left[0]))
    assert smaller >= 4


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_with_a_skip_stay_the_same(bias, x64):
    rng = np.random.default_rng(0)
    model = rj.models.mlp([7, 5, 6, 2], "tanh", bias, skip=True)
    X = rng.standard_normal((9, 7))
    for trial in range(12):
        share = 0.1 * (trial % 8)
        params = sparse_network(rng, [7, 5, 6, 2], share=share, bias=bias, skip=True)
        small = rj.compress(params, model)
        assert_same_outputs(model, params, small, X, 1e-12)
        read = np.any(params[0]["skip"] != 0, axis=1)
        assert set(np.flatnonzero(read)) <= set(small.inputs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_stay_the_same_in_float32(activation):
    rng = np.random.default_rng(1)
    model = rj.models.mlp([7, 5, 6, 2], activation)
    X = rng.standard_normal((9, 7)).astype(np.float32)
    for _ in range(4):
        params = sparse_network(rng, [7, 5, 6, 2], np.float32)
        small = rj.compress(params, model)
        assert_same_outputs(model, params, small, X, 1e-6)
        assert all(a.dtype == np.float32 for a in jax.tree.leaves(small.params))


def test_what_does_nothing_is_left_out_and_no_more():
    """Input 1 goes with the unit that alone reads it; unit 2 is a constant."""
    w = np.array([[1.0, 0, 0, 2], [0, 3, 0, 0], [0, 0, 0, 4]])
    b = np.array([0.1, 0.2, 0.3, 0.4])
    v = np.array([[1.0, 2], [0, 0], [5, 0], [0, 6]])
    params = ({"w": w, "b": b}, {"w": v, "b": np.zeros(2)})
    small = rj.compress(params, rj.models.mlp([3, 4, 2], "tanh"))
    assert small.inputs.tolist() == [0, 2]
    assert small.model.config[1]["sizes"] == [2, 2, 2]
    np.testing.assert_array_equal(small.params[0]["w"], [[1, 2], [0, 4]])
    np.testing.assert_array_equal(small.params[0]["b"], [0.1, 0.4])
    np.testing.assert_array_equal(small.params[1]["w"], [[1, 2], [0, 6]])
    np.testing.assert_allclose(small.params[1]["b"], [5 * np.tanh(0.3), 0], rtol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_constant_unit_without_biases_stays_unless_it_is_zero(activation):
    w, v = np.array([[1.0, 0], [2, 0]]), np.array([[1.0], [3]])
    model = rj.models.mlp([2, 2, 1], activation, bias=False)
    small = rj.compress(({"w": w}, {"w": v}), model)
    units = 2 if activation == "sigmoid" else 1
    assert small.model.config[1]["sizes"] == [2, units, 1]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_layer_leaves_one_of_everything_below_it(empty, skip, x64):
    """And, with biases, above: a constant. A skip's inputs stay."""
    rng = np.random.default_rng(2)
    sizes = [4, 5, 3, 2]
    model = rj.models.mlp(sizes, "softplus", skip=skip)
    params = sparse_network(rng, sizes, share=0.0, skip=skip)
    params[empty]["w"][:] = 0
    small = rj.compress(params, model)
    assert small.model.config[1]["sizes"] == [4 if skip else 1, 1, 1, 2]
    assert small.inputs.tolist() == (list(range(4)) if skip else [0])
    assert_same_outputs(model, params, small, rng.standard_normal((5, 4)), 1e-12)


def test_a_dense_network_stays_as_it_is():
    model = rj.models.mlp([3, 4, 2])
    params = model.init(jax.random.key(0))
    small = rj.compress(params, model)
    jax.tree.map(np.testing.assert_array_equal, small.params, params)
    assert small.model.config == model.config
    assert small.inputs.tolist() == [0, 1, 2]


def test_bad_input_is_one_clear_error():
    model = rj.models.mlp([3, 4, 2])
    params = model.init(jax.random.key(0))
    for other in (
        rj.Model(model.init, model.apply),
        rj.models.mlp([3, 4, 2], jax.numpy.sin),
    ):
        with pytest.raises(ValueError, match="model: .*models.mlp"):
            rj.compress(params, other)
    whole = jax.tree.map(lambda a: a[None], params)
    for wrong in (whole, params[:1], {"w": np.ones(3)}):
        with pytest.raises(ValueError, match="params: .*path"):
            rj.compress(wrong, model)
