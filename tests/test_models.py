"""The linear skip of a network: its numbers, its files, its errors."""

import jax
import numpy as np
import pytest

import regjax as rj
from regjax import trees
from regjax.models import has_intercept, is_linear

SIZES = [4, 5, 3, 2]


def test_a_skip_adds_a_linear_model_to_eta():
    """eta = network(x) + skip' x, and it starts as the network alone."""
    model, plain = rj.models.mlp(SIZES, "tanh", skip=True), rj.models.mlp(SIZES, "tanh")
    X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    params = model.init(jax.random.key(1))
    assert not np.any(params[0]["skip"]) and params[0]["skip"].shape == (4, 2)
    rest = ({k: v for k, v in params[0].items() if k != "skip"}, *params[1:])
    np.testing.assert_array_equal(model.apply(params, X), plain.apply(rest, X))
    skip = np.arange(8, dtype=np.float32).reshape(4, 2)
    params = ({**params[0], "skip": skip}, *params[1:])
    expected = plain.apply(rest, X) + X @ skip
    np.testing.assert_allclose(model.apply(params, X), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
def test_the_weights_are_one_normal_draw_with_and_without_a_skip(skip):
    """W_l is the next d_in d_out of them, over sqrt(d_in)."""
    params = rj.models.mlp(SIZES, skip=skip).init(jax.random.key(3))
    left = np.asarray(jax.random.normal(jax.random.key(3), (4 * 5 + 5 * 3 + 3 * 2,)))
    for layer, d_in, d_out in zip(params, SIZES[:-1], SIZES[1:], strict=True):
        draw, left = left[: d_in * d_out], left[d_in * d_out :]
        expected = draw.reshape(d_in, d_out) / np.sqrt(d_in)
        np.testing.assert_allclose(layer["w"], expected, rtol=1e-6)


def test_a_skip_is_no_linear_model_and_its_key_path_is_0_skip():
    model = rj.models.mlp(SIZES, bias=False, skip=True)
    assert not model.affine and not is_linear(model) and not has_intercept(model)
    paths = trees.key_paths(model.init(jax.random.key(0)))
    assert paths == ["0/skip", "0/w", "1/w", "2/w"]


def test_a_skip_without_a_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="^skip: without a hidden layer"):
        rj.models.mlp([4, 2], skip=True)


def test_the_config_builds_the_same_model_again():
    """Without a skip it is what it was before there were skips."""
    model = rj.models.mlp(SIZES, "relu", skip=True)
    name, arguments = model.config
    again = rj.models.REGISTRY[name](**arguments)
    assert trees.partition(again) == trees.partition(model)
    plain = {"sizes": SIZES, "activation": "sigmoid", "bias": True}
    assert rj.models.mlp(SIZES).config == ("mlp", plain)
