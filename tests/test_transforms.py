"""Any optimiser, followed by the right prox, solves the stated problem."""

import functools
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

import regjax as rj
from regjax.transforms import (
    add_l1_decay,
    add_l2_decay,
    proximal,
    proximal_adam,
    proximal_sgd,
)

N, P, STEPS, LAM = 60, 8, 3000, 0.15

# The intercept's gradient vanishes. There Adam at a constant rate comes to rest only if
# rate * curvature / eps, here 10, is below 2 (1 + b1) / (1 - b1) = 38; NAdam, below
# that over 1 + 2 b1, 13.6.
adam = partial(proximal_adam, eps=2e-3)

# name -> how to make it from (rate, penalty, lam), and a rate that suits the data
OPTIMISERS = {
    "sgd": (proximal_sgd, 0.2),
    "momentum": (partial(proximal_sgd, momentum=0.9), 0.05),
    "nesterov": (partial(proximal_sgd, momentum=0.9, nesterov=True), 0.05),
    "adam": (adam, 0.02),
    "nadam": (partial(adam, nesterov=True), 0.02),
}
# name -> penalty, and the l1_ratio with which `oracles` writes it
PENALTIES = {
    "l1": (rj.penalties.l1(), 1.0),
    "elastic_net": (rj.penalties.elastic_net(0.5), 0.5),
    "l2": (rj.penalties.l2(), 0.0),
}
L1, ELASTIC_NET = PENALTIES["l1"][0], PENALTIES["elastic_net"][0]

every_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS)
stateful_optimiser = pytest.mark.parametrize("optimiser", ["momentum", "adam"])
selecting_penalty = pytest.mark.parametrize("penalty", ["l1", "elastic_net"])


@functools.cache
def regression():
    """Correlated inputs that are not centred, [60, 8], and a sparse truth."""
    X, y, _ = rj.datasets.sparse_regression(1, N, P, 3, rho=0.5)
    return X + 0.3, y


@functools.cache
def classification():
    X, _ = regression()
    noise = np.random.default_rng(0).logistic(size=N)
    return X, (X[:, 0] - X[:, 1] + noise > 0) * 1.0


@functools.cache
def lasso(lam=LAM, l1_ratio=1.0):
    return oracles.least_squares(*regression(), lam, l1_ratio)


def excess(w, b, lam=LAM, l1_ratio=1.0):
    """Relative height of the objective above the independent solver's."""
    at = [
        oracles.squared_objective(*point, *regression(), lam, l1_ratio)
        for point in ((np.asarray(w), np.asarray(b)), lasso(lam, l1_ratio))
    ]
    return at[0] / at[1] - 1


def squared_loss(params):
    """Mean half squared error, params {"w": [p], "b": []}."""
    X, y = regression()
    return 0.5 * jnp.mean((X @ params["w"] + params["b"] - y) ** 2)


def logistic_loss(params):
    """Mean binary cross-entropy, params {"w": [p], "b": []}."""
    X, y = classification()
    eta = X @ params["w"] + params["b"]
    return jnp.mean(jnp.logaddexp(0.0, eta) - y * eta)


def train(optimizer, loss=squared_loss):
    """Full-batch training by hand: no part of the library but the optimiser."""
    start = {"w": jnp.zeros(P), "b": jnp.zeros(())}

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, STEPS, step, (start, optimizer.init(start)))
    return params


def assert_optimal(params, lam=LAM, l1_ratio=1.0):
    """The objective to 1e-8 of the independent solver's, and its exact support."""
    assert abs(excess(params["w"], params["b"], lam, l1_ratio)) <= 1e-8
    support = lasso(lam, l1_ratio)[0] != 0
    np.testing.assert_array_equal(np.asarray(params["w"]) != 0, support)
    assert 0 < support.sum() < P


@every_optimiser
@selecting_penalty
def test_every_optimiser_reaches_the_optimum_and_its_exact_support(
    optimiser, penalty, x64
):
    """A fixed point of the proximal optimiser satisfies 0 in g + lam dOmega(w)."""
    (make, rate), (omega, l1_ratio) = OPTIMISERS[optimiser], PENALTIES[penalty]
    loss = rj.losses.half_squared_error()
    layer = fitted(partial(make, rate), loss, omega, *regression(), LAM)
    assert layer["w"].dtype == np.float64
    assert_optimal({"w": layer["w"][:, 0], "b": layer["b"][0]}, LAM, l1_ratio)


@every_optimiser
@selecting_penalty
def test_the_threshold_follows_the_schedule_of_the_learning_rate(
    optimiser, penalty, x64
):
    """The same fixed point under a moving rate, in a training loop by hand."""
    (make, rate), (omega, l1_ratio) = OPTIMISERS[optimiser], PENALTIES[penalty]
    rate = optax.cosine_decay_schedule(rate, STEPS)
    assert_optimal(train(make(rate, omega, LAM)), LAM, l1_ratio)


def test_logistic_regression_by_fit_with_a_schedule_is_optimal_too(x64):
    """The same fixed point where the curvature is not constant."""
    optimizer = partial(proximal_adam, optax.cosine_decay_schedule(0.1, STEPS))
    loss, lam = rj.losses.sigmoid_binary_cross_entropy(), 0.05
    layer = fitted(optimizer, loss, ELASTIC_NET, *classification(), lam)
    assert_optimal_logistic(layer["w"][:, 0], layer["b"][0], lam, 0.5)


@every_optimiser
def test_every_optimiser_solves_logistic_regression(optimiser, x64):
    """In a training loop by hand."""
    (make, rate), lam = OPTIMISERS[optimiser], 0.05
    rate = optax.cosine_decay_schedule(5 * rate, STEPS)
    params = train(make(rate, L1, lam), logistic_loss)
    assert_optimal_logistic(params["w"], params["b"], lam, 1.0)


def fitted(optimizer, loss, penalty, X, y, lam):
    """The layer of a linear model, by full-batch training through `rj.fit`."""
    problem = rj.Problem(rj.models.linear(P), loss, penalty)
    solver = rj.solvers.minibatch(optimizer, batch_size=None, epochs=STEPS, polish=0)
    return rj.fit(problem, X, y, lam, solver=solver).params[0]


def assert_optimal_logistic(w, b, lam, l1_ratio):
    """As `assert_optimal`, for the classes."""
    best = oracles.logistic(*classification(), lam, l1_ratio)
    at, least = (
        oracles.logistic_objective(*point, *classification(), lam, l1_ratio)
        for point in ((np.asarray(w), np.asarray(b)), best)
    )
    assert abs(at / least - 1) <= 1e-8
    np.testing.assert_array_equal(np.asarray(w) != 0, best[0] != 0)
    assert 0 < np.sum(best[0] != 0) < P


def rmsprop_and_its_step(rate):
    """RMSProp, and the step that it gave each coordinate of the gradient."""
    optimizer = optax.chain(
        optax.scale_by_rms(decay=0.99, eps=1e-12),
        optax.scale_by_schedule(lambda count: -rate(count)),
    )

    def step_size(state):
        rms, scaling = state
        lr = rate(scaling.count - 1)
        return jax.tree.map(lambda nu: lr / jnp.sqrt(nu + 1e-12), rms.nu)

    return optimizer, step_size


def adam_and_its_step(rate):
    """optax.adam itself, with the step read off its state."""

    def step_size(state):
        adam, _ = state
        correction = 1 - 0.999**adam.count
        return jax.tree.map(
            lambda nu: rate / (jnp.sqrt(nu / correction) + 1e-8), adam.nu
        )

    return optax.adam(rate), step_size


@selecting_penalty
@pytest.mark.parametrize(
    "optimizer, step_size",
    [
        (optax.sgd(0.2), lambda state: 0.2),
        (optax.sgd(0.05, momentum=0.9), lambda state: 0.05 / (1 - 0.9)),
        adam_and_its_step(0.02),
        rmsprop_and_its_step(optax.cosine_decay_schedule(0.02, STEPS)),
    ],
    ids=["sgd", "momentum", "adam", "rmsprop"],
)
def test_proximal_makes_any_optax_optimiser_solve_the_problem(
    optimizer, step_size, penalty, x64
):
    """In a training loop written by hand, given the step that the gradient gets."""
    omega, l1_ratio = PENALTIES[penalty]
    assert_optimal(train(proximal(optimizer, omega, LAM, step_size)), LAM, l1_ratio)


def test_arguments_that_an_optimiser_wants_besides_reach_it():
    """As optax's own wrappers do: `value=` for a line search, here the step."""

    def update(updates, state, params=None, *, rate):
        return jax.tree.map(lambda g: -rate * g, updates), rate

    inner = optax.GradientTransformationExtraArgs(lambda params: 0.0, update)
    transform = proximal(inner, L1, 2.0, lambda state: state)
    w, gradient = jnp.array([1.0, 0.1]), jnp.array([1.0, 1.0])
    updates, _ = transform.update(gradient, transform.init(w), w, rate=0.1)
    np.testing.assert_allclose(w + updates, [0.7, 0.0], rtol=1e-6)


def test_coupled_l2_before_a_proximal_lasso_is_the_elastic_net(x64):
    """The ridge part may be in the gradient: lam r by prox, lam (1 - r) by decay."""
    lasso_part = adam(0.02, L1, 0.5 * LAM)
    optimizer = optax.chain(add_l2_decay(0.5 * LAM), lasso_part)
    assert_optimal(train(optimizer), LAM, 0.5)


def test_the_learning_rate_as_threshold_under_momentum_solves_a_tenth_of_lam(x64):
    """The fixed point of soft(lr lam) is the optimum of lam (1 - b), b = 0.9."""
    optimizer = proximal(optax.sgd(0.05, momentum=0.9), L1, LAM, lambda state: 0.05)
    params = train(optimizer)
    assert excess(params["w"], params["b"], LAM) > 0.05
    w, b = lasso(LAM / 10)
    np.testing.assert_allclose(params["w"], w, atol=1e-10)
    np.testing.assert_allclose(params["b"], b, atol=1e-10)


def test_the_learning_rate_as_threshold_of_adam_solves_another_problem(x64):
    """soft(lr lam) ends far above the optimum; ProxGen's metric does not."""
    rate = optax.cosine_decay_schedule(0.02, STEPS)
    wrong = proximal(optax.adam(rate), L1, LAM, lambda state: rate(state[1].count - 1))
    params = train(wrong)
    assert excess(params["w"], params["b"]) > 0.05
    assert_optimal(train(proximal_adam(rate, L1, LAM)))


def test_gradient_clipping_moves_the_fixed_point(x64):
    """At the optimum |g| is of order lam; a lower ceiling leaves the prox alone."""
    rate = optax.cosine_decay_schedule(0.2, STEPS)
    clipped = optax.chain(
        optax.clip_by_global_norm(0.5 * LAM), proximal_sgd(rate, L1, LAM)
    )
    params = train(clipped)
    assert excess(params["w"], params["b"]) > 0.05


def test_coupled_l2_before_adam_is_ridge_and_adamw_is_not(x64):
    """AdamW's decay is outside of the preconditioner: it lands near least squares."""
    (X, y), rate = regression(), optax.cosine_decay_schedule(0.05, STEPS)
    centred = X - X.mean(0)

    def ridge(lam):
        gram = centred.T @ centred / N + lam * np.eye(P)
        return np.linalg.solve(gram, centred.T @ (y - y.mean()) / N)

    coupled = train(optax.chain(add_l2_decay(LAM), optax.adam(rate)))
    np.testing.assert_allclose(coupled["w"], ridge(LAM), atol=1e-8)
    np.testing.assert_allclose(
        coupled["b"], y.mean() - X.mean(0) @ ridge(LAM), atol=1e-8
    )
    mask = {"w": True, "b": False}
    decoupled = train(optax.adamw(rate, weight_decay=LAM, mask=mask))["w"]
    to_ridge, to_ols = (np.linalg.norm(decoupled - ridge(lam)) for lam in (LAM, 0.0))
    assert to_ols < 0.2 * to_ridge


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_decays_add_the_gradient_of_their_penalty(dtype, x64):
    """lam sign(w), 0 at 0, and lam w; nothing for biases."""
    rng = np.random.default_rng(0)
    w = np.array([-2.0, 0.0, 1e-30, 3.0], dtype)
    params = {"w": w, "b": w}
    g = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(dtype), params)
    for decay, slope in ((add_l1_decay, np.sign(w)), (add_l2_decay, w)):
        transform = decay(np.float32(0.25))
        updates, _ = transform.update(g, transform.init(params), params)
        np.testing.assert_allclose(updates["w"], g["w"] + 0.25 * slope, rtol=1e-12)
        np.testing.assert_array_equal(updates["b"], g["b"])
        assert updates["w"].dtype == dtype


@pytest.mark.parametrize("decay", [add_l1_decay, add_l2_decay])
@pytest.mark.parametrize("mask", ["^b$", {"w": False, "b": True}])
def test_a_decay_takes_its_leaves_from_the_mask(decay, mask):
    """A regex on the key path or a pytree of bools, biases included."""
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    transform = decay(0.5, mask)
    updates, _ = transform.update(params, transform.init(params), params)
    np.testing.assert_array_equal(updates["w"], 1.0)
    np.testing.assert_array_equal(updates["b"], 1.5)


@pytest.mark.parametrize(
    "optimizer",
    [optax.sgd(0.1), optax.sgd(0.02, momentum=0.9), optax.adam(0.01)],
    ids=["sgd", "momentum", "adam"],
)
def test_the_l1_subgradient_gives_no_zeros(optimizer, x64):
    """It hovers around them, near the optimum, where the prox gives exact ones."""
    params = train(optax.chain(add_l1_decay(LAM), optimizer))
    assert np.all(params["w"] != 0)
    assert 1e-8 < excess(params["w"], params["b"]) < 0.05


@every_optimiser
@pytest.mark.parametrize("penalty", PENALTIES)
def test_one_step_lowers_the_objective(optimiser, penalty, x64):
    """Where the penalty's slope is above the data's: its sign is that of a cost."""
    (make, _), (omega, l1_ratio) = OPTIMISERS[optimiser], PENALTIES[penalty]
    assert_one_step_lowers(partial(make, 1e-3, omega), l1_ratio)


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adam, optax.rmsprop])
@pytest.mark.parametrize("decay, l1_ratio", [(add_l1_decay, 1), (add_l2_decay, 0)])
def test_one_step_with_a_decay_lowers_the_objective(optimizer, decay, l1_ratio, x64):
    """The decays are added to the gradient, with the sign of a cost."""
    assert_one_step_lowers(
        lambda lam: optax.chain(decay(lam), optimizer(1e-3)), l1_ratio
    )


def assert_one_step_lowers(make, l1_ratio):
    rng = np.random.default_rng(0)
    w = rng.choice([-1, 1], size=P) * rng.uniform(1, 2, size=P)
    params = {"w": w, "b": np.array(0.5)}
    X, y = regression()
    error = X @ w + 0.5 - y
    gradient = {"w": X.T @ error / N, "b": error.mean()}
    lam = 3 * np.abs(gradient["w"]).max()
    optimizer = make(lam)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    after = jax.tree.map(np.asarray, optax.apply_updates(params, updates))
    before, now = (
        oracles.squared_objective(p["w"], p["b"], X, y, lam, l1_ratio)
        for p in (params, after)
    )
    assert now < before


def shrink(v, t, l1_ratio):
    """The prox of the elastic net with threshold t."""
    soft = np.sign(v) * np.maximum(np.abs(v) - t * l1_ratio, 0)
    return soft / (1 + t * (1 - l1_ratio))


def sgd_by_hand(w, gradients, rates, lam, l1_ratio, momentum, nesterov):
    """Momentum b: the update weighs past gradients by 1, b, b^2, ...; so the prox."""
    trace, weight = np.zeros_like(w), 0.0
    for g, rate in zip(gradients, rates, strict=True):
        trace, weight = g + momentum * trace, 1 + momentum * weight
        ahead, total = trace, weight
        if nesterov:
            ahead, total = g + momentum * trace, 1 + momentum * weight
        w = shrink(w - rate * ahead, rate * total * lam, l1_ratio)
    return w


def adam_by_hand(w, gradients, rates, lam, l1_ratio, b1, b2, eps, nesterov):
    """Kingma & Ba's update, and the prox with the step of each coordinate."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        mean = m / (1 - b1**t)
        if nesterov:
            mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        step = rate / (np.sqrt(v / (1 - b2**t)) + eps)
        w = shrink(w - step * mean, step * lam, l1_ratio)
    return w


BY_HAND = {
    proximal_sgd: (sgd_by_hand, {"momentum": 0.8}),
    proximal_adam: (adam_by_hand, {"b1": 0.7, "b2": 0.9, "eps": 1e-3}),
}


@pytest.mark.parametrize("make", BY_HAND)
@pytest.mark.parametrize("nesterov", [False, True])
@selecting_penalty
def test_the_first_updates_are_those_by_hand(make, nesterov, penalty, x64):
    """The threshold is that of the very update: filling buffers, a moving rate."""
    omega, l1_ratio = PENALTIES[penalty]
    by_hand, numbers = BY_HAND[make]
    rng, rates = np.random.default_rng(0), np.array([0.3, 0.1, 0.2, 0.05])
    gradients, start = rng.normal(size=(4, 20)), 0.5 * rng.normal(size=20)
    lam = 0.7
    expected = by_hand(
        start, gradients, rates, lam, l1_ratio, nesterov=nesterov, **numbers
    )
    assert np.any(expected == 0)

    def schedule(count):
        return jnp.asarray(rates)[count]

    optimizer = make(schedule, omega, lam, nesterov=nesterov, **numbers)
    w, state = start, optimizer.init(start)
    for g in gradients:
        updates, state = optimizer.update(g, state, w)
        w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(w, expected, rtol=1e-12, atol=1e-14)


@every_optimiser
def test_lam_is_batched_by_vmap(optimiser, x64):
    """One compiled run serves many lams, and each reaches its own optimum."""
    make, rate = OPTIMISERS[optimiser]
    lams = np.array([0.5, LAM, 0.05])
    batched = jax.jit(jax.vmap(lambda lam: train(make(rate, L1, lam))))(lams)
    for i, lam in enumerate(lams.tolist()):
        assert_optimal(jax.tree.map(lambda leaf, i=i: leaf[i], batched), lam)


@stateful_optimiser
def test_inject_hyperparams_makes_rate_and_lam_part_of_the_state(optimiser, x64):
    """Set in the state before a run, they are what that run solves."""
    make, rate = OPTIMISERS[optimiser]
    injected = optax.inject_hyperparams(make)(0.1, penalty=L1, lam=9.0)
    start = {"w": jnp.zeros(P), "b": jnp.zeros(())}
    state = injected.init(start)
    assert set(state.hyperparams) >= {"learning_rate", "lam"}
    state.hyperparams["learning_rate"] = jnp.asarray(rate)
    state.hyperparams["lam"] = jnp.asarray(LAM)
    ready = injected._replace(init=lambda params: state)
    assert_optimal(train(ready))


def test_inject_hyperparams_takes_a_schedule_of_lam(x64):
    """With no gradient and plain SGD, w shrinks by rate * lam_t at update t."""
    lams = jnp.array([0.5, 0.1, 0.2])
    injected = optax.inject_hyperparams(proximal_sgd)(
        0.1, penalty=L1, lam=lambda count: lams[count]
    )
    w = jnp.array([1.0, -1.0])
    state = injected.init(w)
    for _ in lams:
        updates, state = jax.jit(injected.update)(jnp.zeros(2), state, w)
        w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(w, [0.92, -0.92], rtol=1e-12)


@stateful_optimiser
def test_multi_steps_is_one_step_with_the_mean_gradient(optimiser):
    """Params move every k-th call only, and its prox is the only one."""
    make, rate = OPTIMISERS[optimiser]
    gradients = jnp.float32(np.random.default_rng(0).normal(size=(6, 5)))
    w = jnp.linspace(-0.1, 0.1, 5)
    single = make(rate, ELASTIC_NET, 0.2)
    multi = optax.MultiSteps(single, every_k_schedule=3)
    one_update, three_updates = jax.jit(single.update), jax.jit(multi.update)
    found, expected = w, w
    multi_state, single_state = multi.init(w), single.init(w)
    for i, g in enumerate(gradients, start=1):
        updates, multi_state = three_updates(g, multi_state, found)
        found = optax.apply_updates(found, updates)
        if i % 3 == 0:
            mean = gradients[i - 3 : i].mean(0)
            updates, single_state = one_update(mean, single_state, expected)
            expected = optax.apply_updates(expected, updates)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(found == 0, expected == 0)


class Layer(NamedTuple):
    """A pytree of a user."""

    kernel: jax.Array
    bias: jax.Array


TREES = {
    "an array": lambda: jnp.full((2, 3), 0.1),
    "a dict of dicts": lambda: {
        "dense": {"kernel": jnp.full((2, 3), 0.1), "bias": jnp.full(3, 0.1)}
    },
    "a list with holes": lambda: [None, {"w": jnp.full(2, 0.1), "b": None}],
    "a NamedTuple": lambda: (Layer(jnp.full(2, 0.1), jnp.full((), 0.1)),),
    "half precision": lambda: {"w": jnp.full(2, 0.1, jnp.bfloat16)},
}


@pytest.mark.parametrize("tree", TREES)
def test_any_pytree_gets_exact_zeros_in_its_weights_only(tree):
    """w + (0 - w) is 0 in any dtype; a bias moves by the gradient alone."""
    params, optimizer = TREES[tree](), proximal_adam(1e-3, L1, 1e3)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(ones, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        if "bias" in jax.tree_util.keystr(path):
            assert np.all((0.09 < leaf) & (leaf < 0.1))
        else:
            np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize(
    "transform",
    [
        proximal_sgd(0.1, L1, 0.1),
        proximal_adam(0.1, L1, 0.1),
        add_l1_decay(0.1),
        add_l2_decay(0.1),
    ],
    ids=["proximal_sgd", "proximal_adam", "add_l1_decay", "add_l2_decay"],
)
def test_an_update_without_params_says_so(transform):
    """A prox of nothing is no prox: the message gives the call."""
    state = transform.init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"update\(updates, state, params\)"):
        transform.update(jnp.ones(2), state)


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("lam", lambda: rj.transforms.add_l1_decay(-0.1)),
        ("lam", lambda: rj.transforms.add_l2_decay(optax.constant_schedule(0.1))),
        ("lam", lambda: rj.transforms.proximal_sgd(0.1, rj.penalties.l1(), np.nan)),
        ("momentum", lambda: rj.transforms.proximal_sgd(0.1, rj.penalties.l1(), 1, 1)),
        ("penalty", lambda: rj.transforms.proximal_sgd(0.1, rj.penalties.l1, 0.1)),
        ("penalty", lambda: rj.transforms.proximal_adam(0.1, "l1", 0.1)),
    ],
)
def test_what_no_transform_can_use_is_one_clear_error(argument, make):
    with pytest.raises(ValueError, match=f"^{argument}: must be "):
        make()
