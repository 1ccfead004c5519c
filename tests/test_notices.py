"""A warning where nothing holds some weights of a network: there is no minimiser."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regjax as rj
from regjax import notices

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = X[:, 0] - X[:, 1]
SOLVER = rj.solvers.minibatch(batch_size=20, epochs=2, polish=0)
ROWS = rj.penalties.group(where="0/w")


def problem(penalty=ROWS, ridge=0.0, model=None):
    model = model or rj.models.mlp([4, 3, 3, 1], "relu")
    return rj.Problem(model, rj.losses.half_squared_error(), penalty, ridge)


def caught(call, *args, **given):
    """Warnings of a call, and what it gives."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call(*args, **given)
    return found, result


def fit(problem, lam=0.1):
    return rj.fit(problem, X, Y, lam, solver=SOLVER)


def test_a_layer_that_nothing_holds_warns_once_at_the_callers_line():
    """W / c, V * c keeps the model and sends the penalty to 0."""
    found, _ = caught(fit, problem())
    assert [w.category for w in found] == [UserWarning]
    assert found[0].filename == __file__
    message = str(found[0].message)
    assert "1/w, 2/w free" in message and "Problem(..., ridge=0.01)" in message


def own():
    """A user's own network."""
    start = {"first": jnp.ones((4, 2)), "bias": jnp.zeros(2), "last": jnp.ones((2, 1))}
    return rj.Model(
        lambda key: start,
        lambda w, X: jnp.tanh(X @ w["first"] + w["bias"][None]) @ w["last"],
    )


SKIP = rj.models.mlp([4, 3, 1], "tanh", skip=True)
WARNS = {
    "first layer": (problem(), "1/w, 2/w free"),
    "last layer": (problem(rj.penalties.l2(where="2/w")), "0/w, 1/w free"),
    "a mask": (
        problem(
            rj.penalties.l1(where={"first": True, "bias": True, "last": False}),
            model=own(),
        ),
        "leaves last free",
    ),
    "hierarchical": (problem(rj.penalties.hierarchical(), model=SKIP), "1/w free"),
}
HELD = {
    "ridge": problem(ridge=1e-3),
    "all layers": problem(rj.penalties.l1()),
    "l2 on the others": problem(
        rj.penalties.combined(ROWS, rj.penalties.l2(where="[12]/w"))
    ),
    "affine": problem(rj.penalties.l1(where="b"), model=rj.models.linear(4)),
    "own network": problem(rj.penalties.l1(), model=own()),
    "free skip": problem(rj.penalties.l1(where="w"), model=SKIP),
}


def looked_at(problem):
    return caught(
        notices.warn_of_free_weights, problem, problem.model.init(jax.random.key(0))
    )


@pytest.mark.parametrize("name", WARNS)
def test_the_leaves_that_are_free_are_named(name):
    given, message = WARNS[name]
    (found,), _ = looked_at(given)
    assert message in str(found.message)


@pytest.mark.parametrize("name", HELD)
def test_weights_that_something_holds_do_not_warn(name):
    assert not looked_at(HELD[name])[0]


def test_every_public_call_warns_once_and_a_refit_without_penalty_never():
    """The dense start, the folds and lam 0 add none."""
    free, given = problem(), {"solver": SOLVER}
    found, path = caught(rj.fit_path, free, X, Y, [0.3, 0.0], init="dense", **given)
    assert len(found) == 1
    assert not caught(fit, free, lam=0.0)[0]
    assert len(caught(rj.cross_validate, free, X, Y, 2, [0.1], **given)[0]) == 1
    assert len(caught(rj.relax, free, path, X, Y, 0.5, **given)[0]) == 1
    assert not caught(rj.relax, free, path, X, Y, **given)[0]
