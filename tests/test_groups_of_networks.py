"""Groups where networks have them: inputs, units, filters, heads, layers."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regjax as rj

FACTORIES = {
    "group": rj.penalties.group,
    "sparse_group": partial(rj.penalties.sparse_group, 0.4, size_weights=True),
}
every_factory = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


def network(seed=0):
    """Params of a convolution and a dense layer, as Flax would have them."""
    rng = np.random.default_rng(seed)
    return {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)), "bias": rng.normal(size=4)},
        "dense": {"kernel": rng.normal(size=(8, 6)), "bias": rng.normal(size=6)},
    }


HEADS = np.broadcast_to(np.array([0, 0, 1, 1, 2, 2]), (8, 6))
# name -> (arguments, leaf, the groups as masks of that leaf)
KINDS = {
    "inputs": ({"where": "dense/kernel"}, "dense", [np.s_[j] for j in range(8)]),
    "units": (
        {"where": "dense/k", "axis": 0},
        "dense",
        [np.s_[:, j] for j in range(6)],
    ),
    "filters": (
        {"where": "^conv/kernel$", "axis": (0, 1, 2)},
        "conv",
        [np.s_[..., j] for j in range(4)],
    ),
    "channels": (
        {"where": "^conv/kernel$", "axis": (0, 1, 3)},
        "conv",
        [np.s_[:, :, j] for j in range(2)],
    ),
    "group numbers of inputs": (
        {"where": "dense/kernel", "groups": [0, 0, 1, 1, 1, 2, 2, 0]},
        "dense",
        [np.s_[[0, 1, 7]], np.s_[[2, 3, 4]], np.s_[[5, 6]]],
    ),
    "lists of inputs": (
        {"where": "dense/kernel", "groups": [[0, 7, 1], (3, 2, 4), range(5, 7)]},
        "dense",
        [np.s_[[0, 1, 7]], np.s_[[2, 3, 4]], np.s_[[5, 6]]],
    ),
    "heads": (
        {"where": "dense/kernel", "groups": HEADS},
        "dense",
        [np.s_[:, 2 * j : 2 * j + 2] for j in range(3)],
    ),
    "a layer": ({"where": "^conv/kernel", "axis": None}, "conv", [np.s_[:]]),
}


@every_factory
@pytest.mark.parametrize("name", KINDS)
def test_a_group_is_what_it_is_said_to_be(name, factory, x64):
    """Omega, prox and pool group by group; all other leaves are left alone."""
    given, layer, groups = KINDS[name]
    penalty, one = factory(**given), factory(axis=None)  # one: an array is a group
    params = network()
    leaf = params[layer]["kernel"]
    alone = [one.value({"w": leaf[g]}, 0.5) for g in groups]
    np.testing.assert_allclose(penalty.value(params, 0.5), sum(alone), rtol=1e-13)
    lambda_max = jax.jit(one.lambda_max)
    highest = max(lambda_max({"w": leaf[g]}) for g in groups)
    found = jax.jit(penalty.lambda_max)(params)
    np.testing.assert_allclose(found, highest, rtol=1e-13)
    moved, pooled = penalty.prox(params, 1.3, 0.5), penalty.pool(params)
    for g in groups:
        expected = one.prox({"w": leaf[g]}, 1.3, 0.5)["w"]
        found, mean = (np.asarray(t[layer]["kernel"])[g] for t in (moved, pooled))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(mean, leaf[g].mean())
    for tree in (moved, pooled):
        tree[layer]["kernel"] = leaf
        chex.assert_trees_all_equal(tree, params)


def test_lists_of_inputs_are_kept_as_numbers():
    """Both forms are the same penalty, in files too."""
    lists = rj.penalties.group(groups=[[0, 3], [2], [1, 4]])
    numbers = rj.penalties.group(groups=[0, 2, 1, 0, 2])
    assert lists.config == numbers.config
    assert rj.penalties.build(lists.config).config == lists.config
    assert rj.penalties.group(axis=None).config[1]["axis"] is None
    assert rj.penalties.group(groups=HEADS).config is None


def test_numbers_of_single_weights_are_the_lasso(x64):
    """An array of the leaf's own shape, each weight a group."""
    numbers = np.random.default_rng(0).permutation(48).reshape(8, 6)
    penalties = rj.penalties.group(groups=numbers), rj.penalties.l1()
    w = {"w": network()["dense"]["kernel"]}
    moved = [p.prox(w, 0.4, 0.7)["w"] for p in penalties]
    np.testing.assert_allclose(*moved, rtol=1e-13, atol=1e-15)


def test_a_network_loses_whole_inputs_and_whole_units():
    """More of them at the larger lam; the inputs that matter stay."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)).astype(np.float32)
    y = (np.tanh(2 * X[:, 0]) - X[:, 1]).astype(np.float32)
    penalty = rj.penalties.combined(
        rj.penalties.group(where="0/w"),
        rj.penalties.sparse_group(0.2, axis=0, where="1/w"),
    )
    model = rj.models.mlp([6, 8, 8, 1], activation="tanh")
    problem = rj.Problem(model, rj.losses.half_squared_error(), penalty, ridge=1e-3)
    solver = rj.solvers.minibatch("sgd", epochs=20, polish=50)
    path = rj.fit_path(problem, X, y, [0.1, 0.003], solver=solver)
    inputs, units = (np.asarray(path.params[layer]["w"]) != 0 for layer in (0, 1))
    inputs, units = inputs.any(2), units.any(1)
    assert 2 <= inputs[0].sum() < inputs[1].sum() and np.all(inputs[:, :2])
    assert 0 < units[0].sum() < units[1].sum()


def test_groups_are_batched_and_keep_float32():
    """vmap over lam; numbers of groups are run-time values of one program."""
    penalty = rj.penalties.group(groups=HEADS, where="dense/kernel")
    params = jax.tree.map(np.float32, network())
    lams = jnp.float32([0.0, 0.5, 50.0])
    moved = jax.vmap(lambda lam: penalty.prox(params, lam, np.float32(1)))(lams)
    assert moved["dense"]["kernel"].dtype == np.float32
    first, _, last = moved["dense"]["kernel"]
    np.testing.assert_array_equal(first, params["dense"]["kernel"])
    assert not np.any(last)
