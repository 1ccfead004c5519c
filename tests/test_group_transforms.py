"""Optimisers with penalties that tie weights together: one step for a whole group."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

import regjax as rj
from regjax.transforms import proximal, proximal_adam, proximal_sgd

N, P, K, STEPS, LAM = 60, 8, 3, 3000, 0.3

# name -> how to make it from (rate, penalty, lam), and a rate that suits the data
OPTIMISERS = {
    "sgd": (proximal_sgd, 0.2),
    "momentum": (partial(proximal_sgd, momentum=0.9), 0.05),
    "nesterov": (partial(proximal_sgd, momentum=0.9, nesterov=True), 0.05),
    # eps: see test_transforms
    "adam": (partial(proximal_adam, eps=2e-3), 0.02),
    "nadam": (partial(proximal_adam, nesterov=True, eps=2e-3), 0.02),
}
ROWS, COLUMNS = np.indices((P, K))
NUMBERS = np.array([0, 0, 1, 1, 2, 2, 2, 3])
SIZES = K * np.bincount(NUMBERS)
# name -> penalty, and how `oracles` writes it: group of each weight, c_g, l1_ratio
PENALTIES = {
    "rows": (rj.penalties.group(), (ROWS, np.ones(P))),
    "columns": (rj.penalties.group(axis=0), (COLUMNS, np.ones(K))),
    "groups": (rj.penalties.group(groups=NUMBERS), (NUMBERS[ROWS], np.ones(4))),
    "sized groups": (
        rj.penalties.group(groups=NUMBERS, size_weights=True),
        (NUMBERS[ROWS], np.sqrt(SIZES)),
    ),
    "factors": (
        rj.penalties.group(factors=np.linspace(0, 2, P)),
        (ROWS, np.linspace(0, 2, P)),
    ),
    "sparse groups": (rj.penalties.sparse_group(0.5), (ROWS, np.ones(P), 0.5)),
}
GROUP = PENALTIES["rows"][0]

every_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS)
every_penalty = pytest.mark.parametrize("penalty", PENALTIES)
stateful_optimiser = pytest.mark.parametrize("optimiser", ["momentum", "adam"])
any_groups = pytest.mark.parametrize("penalty", ["rows", "columns", "groups"])


@functools.cache
def regression():
    """Correlated inputs that are not centred, and three outputs of three inputs.

    The last output follows none of them, so that a column can be empty.
    """
    X, _, _ = rj.datasets.sparse_regression(1, N, P, 3, rho=0.5)
    rng = np.random.default_rng(1)
    W = np.zeros((P, K))
    W[[0, 1, 5], :2] = [[1.0, -0.5], [0.4, 1.5], [-2.0, 0.2]]
    return X + 0.3, X @ W + 0.5 + 0.3 * rng.normal(size=(N, K))


@functools.cache
def optimum(penalty, lam=LAM):
    X, Y = regression()
    return oracles.group_least_squares(
        X, Y, lam, oracles.Groups(*PENALTIES[penalty][1])
    )


def squared_loss(params):
    """Mean half squared error, params {"w": [p, k], "b": [k]}."""
    X, Y = regression()
    eta = X @ params["w"] + params["b"][None]
    return 0.5 * jnp.mean(jnp.sum((eta - Y) ** 2, axis=1))


def steps(optimizer, loss=squared_loss, start=None):
    """Full-batch training by hand: no part of the library but the optimiser."""
    start = start or {"w": jnp.zeros((P, K)), "b": jnp.zeros(K)}

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, _ = jax.lax.fori_loop(0, STEPS, step, (start, optimizer.init(start)))
    return params


def train(optimizer):
    return jax.tree.map(np.asarray, steps(optimizer))


def excess(params, penalty, lam=LAM):
    """Relative height of the objective above the independent solver's."""
    X, Y = regression()
    groups = oracles.Groups(*PENALTIES[penalty][1])
    loss = 0.5 * np.sum((Y - X @ params["w"] - params["b"]) ** 2) / N
    return (loss + lam * groups.value(params["w"])) / optimum(penalty, lam)[0] - 1


def assert_optimal(params, penalty, lam=LAM):
    """The objective to 1e-10 of the independent solver's, and its exact support."""
    assert abs(excess(params, penalty, lam)) <= 1e-10
    support = optimum(penalty, lam)[1] != 0
    np.testing.assert_array_equal(params["w"] != 0, support)
    assert 0 < support.sum() < P * K


@every_optimiser
@every_penalty
def test_every_optimiser_reaches_the_optimum_and_its_exact_support(
    optimiser, penalty, x64
):
    """A fixed point satisfies 0 in g + lam dOmega(w), group by group."""
    make, rate = OPTIMISERS[optimiser]
    assert_optimal(train(make(rate, PENALTIES[penalty][0], LAM)), penalty)


@every_optimiser
def test_the_threshold_of_a_group_follows_the_schedule(optimiser, x64):
    """The same fixed point under a moving rate."""
    make, rate = OPTIMISERS[optimiser]
    rate = optax.cosine_decay_schedule(rate, STEPS)
    assert_optimal(train(make(rate, GROUP, LAM)), "rows")


def unpooled_adam(penalty, pool):
    """optax.adam, and the prox at its step of each coordinate, after `pool`."""
    rate = optax.cosine_decay_schedule(0.02, STEPS)

    def step_size(state):
        adam, scaling = state
        v = jax.tree.map(lambda nu: nu / (1 - 0.999**adam.count), adam.nu)
        lr = rate(scaling.count - 1)
        return jax.tree.map(lambda v: lr / (jnp.sqrt(v) + 1e-8), pool(v))

    return proximal(optax.adam(rate), penalty, LAM, step_size)


def selected(w, penalty):
    """How many weights of each group are not 0, and how many there are."""
    numbers = PENALTIES[penalty][1][0].ravel()
    return np.bincount(numbers, w.ravel() != 0), np.bincount(numbers)


@any_groups
def test_the_learning_rate_as_threshold_of_adam_solves_another_problem(penalty, x64):
    """soft(lr lam) ends 26 %, 22 % and 22 % above the optimum, with all weights."""
    omega, rate = PENALTIES[penalty][0], optax.cosine_decay_schedule(0.02, STEPS)
    adam = optax.adam(rate)
    params = train(proximal(adam, omega, LAM, lambda state: rate(state[1].count - 1)))
    assert excess(params, penalty) > 0.1 and np.all(params["w"] != 0)


@any_groups
def test_pooling_in_the_prox_alone_solves_another_problem(penalty, x64):
    """An update by coordinate, a threshold by group: 9 %, 18 % and 16 % above."""
    omega = PENALTIES[penalty][0]
    params = train(unpooled_adam(omega, omega.pool))
    assert excess(params, penalty) > 1e-3


@pytest.mark.parametrize("penalty", ["rows", "groups"])
def test_a_step_per_coordinate_tears_groups_apart(penalty, x64):
    """Nothing pooled: near the optimum (2e-7), but groups are zero in part."""
    params = train(unpooled_adam(PENALTIES[penalty][0], lambda v: v))
    assert 1e-8 < excess(params, penalty) < 1e-5
    on, size = selected(params["w"], penalty)
    assert np.any((on != 0) & (on != size))


@any_groups
def test_the_learning_rate_as_threshold_under_momentum_solves_a_tenth_of_lam(
    penalty, x64
):
    """The fixed point of prox(lr lam) is the optimum of lam (1 - b), b = 0.9."""
    sgd, omega = optax.sgd(0.05, momentum=0.9), PENALTIES[penalty][0]
    params = train(proximal(sgd, omega, LAM, lambda state: 0.05))
    assert excess(params, penalty) > 0.1
    assert abs(excess(params, penalty, LAM / 10)) < 1e-10


def adam_by_hand(w, gradients, rates, groups, lam, b1, b2, eps, nesterov):
    """Kingma & Ba's update with the mean square of each group, and the prox."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    sizes = np.bincount(groups.numbers.ravel())
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        square = (groups.norms(g) ** 2 / sizes)[groups.numbers]
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * square
        mean = m / (1 - b1**t)
        if nesterov:
            mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        step = rate / (np.sqrt(v / (1 - b2**t)) + eps)
        w = groups.prox(w - step * mean, step * lam)
    return w


@any_groups
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_first_updates_of_adam_are_those_by_hand(nesterov, penalty, x64):
    """Mean square of a group in both places, at a moving rate; a bias as in Adam."""
    rng, rates = np.random.default_rng(0), np.array([0.3, 0.1, 0.2, 0.05])
    gradients, start = rng.normal(size=(4, P, K)), 0.5 * rng.normal(size=(P, K))
    start[0, 0] += 6  # in a group that stays
    omega, as_written = PENALTIES[penalty]
    groups, lam = oracles.Groups(*as_written), 2.5
    moments = {"b1": 0.7, "b2": 0.9, "eps": 1e-3}
    expected = adam_by_hand(
        start, gradients, rates, groups, lam, nesterov=nesterov, **moments
    )
    assert 0 < np.sum(expected == 0) < P * K

    def rate(count):
        return jnp.asarray(rates)[count]

    ours = proximal_adam(rate, omega, lam, nesterov=nesterov, **moments)
    own = (optax.nadam if nesterov else optax.adam)(rate, **moments)
    params, b = {"w": start, "b": np.zeros(K)}, np.zeros(K)
    state, own_state = ours.init(params), own.init(b)
    for g in gradients:
        updates, state = ours.update({"w": g, "b": g[0]}, state, params)
        params = optax.apply_updates(params, updates)
        updates, own_state = own.update(g[0], own_state, b)
        b = optax.apply_updates(b, updates)
    np.testing.assert_allclose(params["w"], expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(params["b"], b, rtol=1e-14)


@stateful_optimiser
def test_lam_is_batched_by_vmap(optimiser, x64):
    """One compiled run serves many lams, and each reaches its own optimum."""
    make, rate = OPTIMISERS[optimiser]
    lams, omega = np.array([0.5, LAM, 0.1]), PENALTIES["sized groups"][0]
    batched = jax.jit(jax.vmap(lambda lam: steps(make(rate, omega, lam))))(lams)
    for i, lam in enumerate(lams.tolist()):
        params = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), batched)
        assert_optimal(params, "sized groups", lam)


@stateful_optimiser
def test_inject_hyperparams_makes_rate_and_lam_part_of_the_state(optimiser, x64):
    """Set in the state before a run, they are what that run solves."""
    make, rate = OPTIMISERS[optimiser]
    injected = optax.inject_hyperparams(make)(0.1, PENALTIES["groups"][0], lam=9.0)
    state = injected.init({"w": jnp.zeros((P, K)), "b": jnp.zeros(K)})
    state.hyperparams["learning_rate"] = jnp.asarray(rate)
    state.hyperparams["lam"] = jnp.asarray(LAM)
    ready = injected._replace(init=lambda params: state)
    assert_optimal(train(ready), "groups")


@stateful_optimiser
def test_multi_steps_is_one_step_with_the_mean_gradient(optimiser):
    """The square that is pooled is that of the mean gradient."""
    make, rate = OPTIMISERS[optimiser]
    gradients = jnp.float32(np.random.default_rng(0).normal(size=(6, 5, 2)))
    w = jnp.linspace(-0.1, 0.1, 10).reshape(5, 2)
    single = make(rate, GROUP, 0.2)
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


TREES = {
    "an array": lambda: jnp.full((2, 3), 0.1),
    "a dict of dicts": lambda: {
        "dense": {"kernel": jnp.full((2, 3), 0.1), "bias": jnp.full(3, 0.1)}
    },
    "a list with holes": lambda: [None, {"w": jnp.full(2, 0.1), "b": None}],
    "a filter": lambda: ({"w": jnp.full((2, 2, 1, 3), 0.1)}, {"w": jnp.ones((3, 1))}),
    "half precision": lambda: {"w": jnp.full((2, 3), 0.1, jnp.bfloat16)},
}


@pytest.mark.parametrize("tree", TREES)
def test_any_pytree_gets_exact_zeros_in_its_weights_only(tree):
    """Shapes and dtypes stay; a bias moves by the gradient alone."""
    params, optimizer = TREES[tree](), proximal_adam(1e-3, GROUP, 1e4)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(ones, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        if "bias" in jax.tree_util.keystr(path):
            assert np.all((0.09 < leaf) & (leaf < 0.1))
        else:
            np.testing.assert_array_equal(leaf, 0)


@every_optimiser
def test_a_hierarchy_ends_where_it_is_stationary(optimiser, x64):
    """Skip and first layer of an input in one group: both have its step."""
    X, Y = regression()
    omega, lam, size = rj.penalties.hierarchical(0.5), 0.4, 4
    mix = 0.3 * np.random.default_rng(2).normal(size=(size, K))
    start = {"skip": jnp.full((P, K), 0.1), "w": jnp.full((P, size), 0.02)}

    def loss(params):
        eta = X @ params["skip"] + jnp.tanh(X @ params["w"]) @ mix
        return 0.5 * jnp.mean(jnp.sum((eta - Y) ** 2, axis=1))

    make, rate = OPTIMISERS[optimiser]
    rate = optax.cosine_decay_schedule(rate, STEPS)
    params = steps(make(rate, omega, lam), loss, start)
    moved = jax.tree.map(lambda w, g: w - 0.1 * g, params, jax.grad(loss)(params))
    chex.assert_trees_all_close(omega.prox(moved, lam, 0.1), params, atol=1e-9)
    rows = np.concatenate([params["skip"], params["w"]], axis=1) != 0
    np.testing.assert_array_equal(rows.any(axis=1), rows.all(axis=1))
    assert 0 < rows.any(axis=1).sum() < P


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("penalty", ["group", "hierarchical"])
def test_networks_by_minibatches_drop_whole_inputs_without_polish(penalty, optimizer):
    """Of ten inputs two matter."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (200, 10)).astype(np.float32)
    y = (X[:, 0] ** 2 + 2 * X[:, 1]).astype(np.float32)
    skip = penalty == "hierarchical"
    omega = rj.penalties.hierarchical(5.0) if skip else rj.penalties.group(where="0/w")
    model = rj.models.mlp([10, 8, 1], "tanh", skip=skip)
    problem = rj.Problem(model, rj.losses.half_squared_error(), omega, ridge=1e-3)
    solver = rj.solvers.minibatch(optimizer, batch_size=50, epochs=30, polish=0)
    path = rj.fit_path(problem, X, y, [100.0, 1.0, 0.3], solver=solver)
    layer = path.params[0]
    rows = np.concatenate([layer["w"], layer["skip"]], -1) if skip else layer["w"]
    rows = rows != 0
    np.testing.assert_array_equal(rows.any(axis=-1), rows.all(axis=-1))
    count = rows.any(axis=-1).sum(axis=-1)
    assert count[0] == 0 and 0 < count[1] < 10
    assert np.all(rows.any(axis=-1)[1:, 1])
    np.testing.assert_array_equal(path.status[1:], rj.Status.max_iter)
    assert path.status[0] in (rj.Status.converged, rj.Status.max_iter)
    assert np.all(np.isfinite(path.kkt)) and np.all(np.isfinite(path.objective))
    np.testing.assert_allclose(path.loss[0], path.null_loss, rtol=1e-2)
