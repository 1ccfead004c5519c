"""LassoNet's penalty: its prox, what it selects, and the problems that it solves."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import regjax as rj
from regjax import objective, trees
from regjax.solvers import monotone
from regjax.types import Data, Lane

P, K, H = 6, 3, 4
FACTORS = [1.0, 0.5, 2.0, 0.0, np.inf, 3.0]
RATIOS = [0.0, 0.3, 10.0]


def draw(seed=0, p=P, k=K, h=H):
    """Params of many sizes, as of `mlp([p, h, k], skip=True)`."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.1, 1.0, 5.0], (p, 1))
    first = {"w": rng.normal(size=(p, h)), "skip": scale * rng.normal(size=(p, k))}
    return (first | {"b": rng.normal(size=h)}, {"w": rng.normal(size=(h, k))})


def cost(theta, W, v, U, t):
    """1/2 |theta - v|^2 + 1/2 |W - U|^2 + t |theta|."""
    squares = np.sum((theta - v) ** 2) + np.sum((W - U) ** 2)
    return 0.5 * squares + t * np.linalg.norm(theta)


def published(v, U, t, M):
    """Hier-Prox of one input as LassoNet prints it: search the interval of m.

    Source: Lemhadri et al. (2021), JMLR 22, algorithm 2; several outputs as there in
    section 3.3, and lam_bar = 0.
    """
    u = np.sort(np.abs(U))[::-1]
    for m in range(len(u) + 1):
        push = 1 - (t - M * u[:m].sum()) / np.linalg.norm(v)
        x = max(push, 0.0) / (1 + m * M**2)
        w = M * x * np.linalg.norm(v)
        if m == len(u) or u[m] <= w:
            return x * v, np.sign(U) * np.minimum(np.abs(U), w)
    raise AssertionError


def by_scipy(v, U, t, M):
    """The least cost: W is U clipped to the box that theta leaves, theta by search."""

    def outer(theta):
        box = M * np.linalg.norm(theta)
        return cost(theta, np.clip(U, -box, box), v, U, t)

    starts = [v, 3 * v, 0.1 * v, 0 * v + 0.1, -v]
    options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 4000, "maxfev": 4000}
    found = [
        minimize(outer, start, method="Nelder-Mead", options=options)
        for start in starts
    ]
    return min([outer(0 * v), *(f.fun for f in found)])


def prox(params, lam, step=1.0, M=10.0, **kwargs):
    """The library's, one program for every M, lam and step."""
    penalty = rj.penalties.hierarchical(M, **kwargs)
    moved = trees.jitted(_prox, penalty, params, lam, step)
    return jax.tree.map(np.asarray, moved)


def _prox(penalty, params, lam, step):
    return penalty.prox(params, lam, step)


@pytest.mark.parametrize("k", [1, K])
@pytest.mark.parametrize("M", RATIOS)
def test_the_prox_is_the_published_one_on_random_input(M, k, x64):
    """Bias and later layers stay; an input's threshold is step * lam * c_j."""
    for seed, t in itertools.product(range(10), [0.0, 0.3, 2.0]):
        params = draw(seed, k=k)
        moved = prox(params, 2 * t, 0.5, M)
        for j in range(P):
            theta, W = published(params[0]["skip"][j], params[0]["w"][j], t, M)
            np.testing.assert_allclose(moved[0]["skip"][j], theta, rtol=0, atol=1e-13)
            np.testing.assert_allclose(moved[0]["w"][j], W, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(moved[0]["b"], params[0]["b"])
        chex.assert_trees_all_equal(moved[1], params[1])


@pytest.mark.parametrize("M", RATIOS)
def test_the_prox_is_what_scipy_finds(M, x64):
    """argmin 1/2 |theta - v|^2 + 1/2 |W - U|^2 + t c |theta|, max |W| <= M |theta|."""
    params, t = draw(1), 0.7
    moved = prox(params, t, 1.0, M, factors=FACTORS)
    c = np.array(FACTORS)
    for j in np.flatnonzero(np.isfinite(c)):
        theta, W = moved[0]["skip"][j], moved[0]["w"][j]
        assert np.abs(W).max() <= M * np.linalg.norm(theta) * (1 + 1e-14)
        v, U = params[0]["skip"][j], params[0]["w"][j]
        least = by_scipy(v, U, t * c[j], M)
        np.testing.assert_allclose(cost(theta, W, v, U, t * c[j]), least, rtol=1e-8)
    assert not np.any(moved[0]["skip"][4]) and not np.any(moved[0]["w"][4])


@pytest.mark.parametrize("M", [0.5, 3.0])
def test_the_prox_beats_a_grid_of_every_feasible_point(M, x64):
    """One output and one hidden unit: theta and W on a grid of 401 x 401."""
    theta, W = np.meshgrid(np.linspace(-3, 3, 401), np.linspace(-3, 3, 401))
    feasible = np.abs(W) <= M * np.abs(theta)
    params = draw(2, p=12, k=1, h=1)
    params[0]["skip"][0] = 0.0  # the direction of theta is free there
    for t in (0.0, 0.5):
        moved = prox(params, t, 1.0, M)
        for j in range(12):
            v, U = params[0]["skip"][j, 0], params[0]["w"][j, 0]
            grid = 0.5 * ((theta - v) ** 2 + (W - U) ** 2) + t * np.abs(theta)
            ours = cost(moved[0]["skip"][j], moved[0]["w"][j], v, U, t)
            assert ours <= grid[feasible].min() + 1e-14


def test_a_feasible_point_stays_bit_by_bit_where_nothing_is_taken_off():
    """Also its zeros; so a start is only ever moved if the penalty forbids it."""
    params = jax.tree.map(np.float32, draw())
    first = {**params[0], "w": np.clip(params[0]["w"], -0.1, 0.1)}
    first["skip"][1] = first["w"][1] = 0.0
    params = (first, params[1])
    for lam, step in [(0.0, 2.0), (2.0, 0.0)]:
        chex.assert_trees_all_equal(prox(params, lam, step), params)


@pytest.mark.parametrize("M", RATIOS)
@pytest.mark.parametrize("lam", [0.0, 0.5, 1e30])
def test_value_prox_and_derivatives_are_finite_at_zero(lam, M):
    """At all zeros, and at a zero skip whose first-layer row is not 0."""
    zero = jax.tree.map(lambda a: np.zeros_like(a, np.float32), draw(p=3))
    half = jax.tree.map(np.array, zero)
    half[0]["w"][1] = [1.0, -0.5, 0.0, 0.5]
    half[0]["skip"][2] = 1e-25  # its square is 0 in float32
    penalty = rj.penalties.hierarchical(M)
    jacobian = trees.jitted(_derivatives, penalty, lam, 1.0, zero, half)
    chex.assert_tree_all_finite(jacobian)
    gradient = jax.grad(penalty.value)(jax.tree.map(jnp.asarray, zero), lam)
    assert penalty.value(zero, lam) == 0
    assert not any(map(np.any, jax.tree.leaves(gradient)))
    moved = prox(half, 0.0, 1.0, M)
    largest = M * np.linalg.norm(moved[0]["skip"][1])
    np.testing.assert_allclose(np.abs(moved[0]["w"][1]).max(), largest, rtol=1e-5)


def _derivatives(penalty, lam, step, *points):
    both = [
        (
            penalty.prox(w, lam, step),
            jax.jacobian(penalty.prox, (0, 1, 2))(w, lam, step),
        )
        for w in points
    ]
    return both


def test_the_jacobian_is_the_numerical_one(x64):
    """In the point and in lam, where no two lines of the prox meet."""
    params, shift, h = draw(3), draw(4), 1e-6
    penalty = rj.penalties.hierarchical(0.3)

    def moved(x):
        w = jax.tree.map(lambda a, b: a + x * b, params, shift)
        return penalty.prox(w, 0.7 + x, 0.5)

    _, found = jax.jvp(moved, (0.0,), (1.0,))
    numeric = jax.tree.map(lambda a, b: (a - b) / (2 * h), moved(h), moved(-h))
    chex.assert_trees_all_close(found, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("factors", [None, FACTORS])
def test_the_value_is_the_skips_norm_inside_and_infinite_outside(factors, x64):
    """lam sum c_j |theta_j|; a W beyond M |theta_j| by a thousandth is outside."""
    penalty = rj.penalties.hierarchical(0.5, factors=factors)
    params = prox(draw(), 0.0, 1.0, 0.5, factors=factors)
    theta, W = params[0]["skip"], params[0]["w"]
    c = np.ones(P) if factors is None else np.where(np.isinf(factors), 0, factors)
    expected = 0.7 * np.sum(c * np.linalg.norm(theta, axis=1))
    np.testing.assert_allclose(penalty.value(params, 0.7), expected, rtol=1e-13)
    for j in (0, 3):
        beyond = W.copy()
        beyond[j, 1] = 0.5 * np.linalg.norm(theta[j]) * 1.001
        outside = ({**params[0], "w": beyond}, params[1])
        assert penalty.value(outside, 0.7) == np.inf
    if factors:
        entered = theta + (np.arange(P) == 4)[:, None]
        assert penalty.value(({**params[0], "skip": entered}, params[1]), 0.7) == np.inf


@pytest.mark.parametrize("factors", [None, FACTORS])
@pytest.mark.parametrize("M", RATIOS)
def test_lambda_max_is_the_smallest_that_keeps_zero(M, factors, x64):
    """max (|g_skip_j| + M |g_Wj|_1) / c_j, over what is penalised."""
    penalty = rj.penalties.hierarchical(M, factors=factors)
    c = np.ones(P) if factors is None else np.array(factors)
    for seed in range(5):
        g = draw(seed)
        one = np.linalg.norm(g[0]["skip"], axis=1) + M * np.abs(g[0]["w"]).sum(1)
        expected = np.max(one / np.where(c > 0, c, np.inf))
        largest = float(penalty.lambda_max(g))
        np.testing.assert_allclose(largest, expected, rtol=1e-14)
        down = jax.tree.map(lambda a: -0.3 * a, g)
        for share, kept in [(1 + 1e-9, False), (1 - 1e-9, True)]:
            moved = prox(down, share * largest, 0.3, M, factors=factors)[0]
            assert np.any(moved["skip"][c > 0]) == kept
            assert np.any(moved["w"][c > 0]) == (kept and M > 0)


def test_pool_averages_over_an_inputs_numbers_in_both_leaves(x64):
    """And the prox with steps that differ within an input takes that mean."""
    penalty, params, steps = rj.penalties.hierarchical(0.3), draw(), draw(5)
    steps = jax.tree.map(np.abs, steps)
    pooled = penalty.pool(steps)
    both = np.concatenate([steps[0]["skip"], steps[0]["w"]], axis=1)
    for name in ("skip", "w"):
        mean = np.broadcast_to(both.mean(1)[:, None], steps[0][name].shape)
        np.testing.assert_allclose(pooled[0][name], mean, rtol=1e-14)
    np.testing.assert_array_equal(pooled[0]["b"], steps[0]["b"])
    chex.assert_trees_all_equal(pooled[1], steps[1])
    moved, same = prox(params, 0.7, steps, 0.3), prox(params, 0.7, pooled, 0.3)
    chex.assert_trees_all_close(moved, same, rtol=1e-13)
    for j in range(P):
        t = 0.7 * both[j].mean()
        theta, W = published(params[0]["skip"][j], params[0]["w"][j], t, 0.3)
        np.testing.assert_allclose(moved[0]["skip"][j], theta, rtol=0, atol=1e-13)
        np.testing.assert_allclose(moved[0]["w"][j], W, rtol=0, atol=1e-13)


def test_leaves_of_your_own_pytree_are_found_by_key_path(x64):
    """Here a linear layer apart, and units on two axes; all other leaves stay."""
    first, last = draw()
    tree = {
        "linear": {"kernel": first["skip"], "bias": np.ones(K)},
        "units": {"kernel": first["w"].reshape(P, 2, 2), "bias": np.ones(4)},
        "top": [last["w"]],
    }
    given = {"skip": "linear/kernel", "where": "^units/k"}
    moved, ours = prox(tree, 0.7, **given), prox((first, last), 0.7)[0]
    np.testing.assert_array_equal(moved["linear"]["kernel"], ours["skip"])
    np.testing.assert_array_equal(moved["units"]["kernel"].reshape(P, H), ours["w"])
    chosen = rj.penalties.hierarchical(**given).selected(tree)
    assert chosen["linear"]["kernel"] and chosen["units"]["kernel"]
    assert sum(jax.tree.leaves(chosen)) == 2


def test_two_ratios_are_one_program_and_float32_stays(x64):
    """M is a number at run time, like lam."""
    a, b = (trees.partition(rj.penalties.hierarchical(M))[1] for M in RATIOS[:2])
    assert a == b
    params = jax.tree.map(np.float32, draw())
    penalty = rj.penalties.hierarchical()
    moved = (penalty.prox(params, 0.5, 0.5), penalty.value(params, 0.5))
    assert {a.dtype for a in jax.tree.leaves(moved)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("M", [-1e-9, np.nan, np.inf, "ten", None])
def test_an_unusable_ratio_is_refused(M):
    with pytest.raises(ValueError, match="^M: must be"):
        rj.penalties.hierarchical(M)


@pytest.mark.parametrize("given", [{"skip": "("}, {"where": "("}, {"where": [True]}])
def test_a_where_or_skip_that_is_no_regex_is_refused(given):
    with pytest.raises(ValueError, match=f"^{next(iter(given))}: .* regex"):
        rj.penalties.hierarchical(**given)


@pytest.mark.parametrize(
    ("given", "params", "message"),
    [
        (
            {},
            rj.models.mlp([3, 2, 1]),
            "skip: 'skip.' .*mlp.*skip=True.; .*0/b, 0/w",
        ),
        ({}, {"skip": np.ones((3, 1)), "a": {"skip": np.ones(3)}}, "skip: .* 2 leaves"),
        ({}, {"skip": np.ones((3, 1)), "b": np.ones(2)}, "where=None matches 0"),
        (
            {},
            {"skip": np.ones((3, 1)), "v": np.ones(3), "w": np.ones(3)},
            "where=None matches 2 .*v, w",
        ),
        (
            {"where": "u"},
            {"skip": np.ones((3, 1)), "w": np.ones(3)},
            "where='u' matches",
        ),
        ({}, {"skip": np.ones((3, 1)), "w": np.ones((2, 3))}, "where: the first axes"),
        ({}, {"skip": np.ones(()), "w": np.ones(())}, "where: the first axes"),
        ({"factors": [1.0]}, rj.models.mlp([3, 2, 1], skip=True), "factors: has 1 num"),
    ],
)
def test_params_that_do_not_fit_are_an_error_of_every_function(given, params, message):
    """The message begins with the argument and names the key paths."""
    if isinstance(params, rj.Model):
        params = params.init(jax.random.key(0))
    penalty = rj.penalties.hierarchical(**given)
    for call in (
        lambda: penalty.value(params, 1.0),
        lambda: penalty.prox(params, 1.0, 1.0),
        lambda: penalty.lambda_max(params),
        lambda: penalty.selected(params),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


def friedman(n=200, p=10, dtype=np.float64):
    """y = 10 sin(pi x0 x1) + 10 x2^2 + 10 x3 + 5 x4 + noise, over its deviation.

    Friedman's (1991), but for x2: his 20 (x2 - 1/2)^2 has no linear part.
    """
    rng = np.random.default_rng(0)
    U = rng.random((n, p))
    y = 10 * np.sin(np.pi * U[:, 0] * U[:, 1]) + 10 * U[:, 2] ** 2
    y = y + 10 * U[:, 3] + 5 * U[:, 4] + rng.normal(size=n)
    return dtype((U - 0.5) * 12**0.5), dtype((y - y.mean()) / y.std())


def network(p, h, k=1, M=10.0, ridge=0.0, loss=None):
    return rj.Problem(
        rj.models.mlp([p, h, k], "tanh", skip=True),
        loss or rj.losses.half_squared_error(),
        rj.penalties.hierarchical(M),
        ridge,
    )


@pytest.mark.filterwarnings("ignore:penalty. it leaves 1/w free:UserWarning")
def test_a_ratio_of_zero_is_the_path_of_the_convex_solver(x64):
    """W is 0, so it is the group lasso: the same minimum, to 1e-6 of it."""
    rng = np.random.default_rng(0)
    X, k = rng.normal(size=(60, 8)), 3
    y = X[:, :3] @ rng.normal(size=(3, k)) + 0.5 * rng.normal(size=(60, k))
    y, loss = y.argmax(1), rj.losses.softmax_cross_entropy()
    linear = rj.Problem(rj.models.linear(8, k), loss, rj.penalties.group())
    convex = rj.fit_path(linear, X, y, lams=[0.3, 0.1, 0.03, 0.01])
    solver = rj.solvers.proximal_gradient(tol=1e-8, max_iter=20_000)
    net = network(8, 4, k, M=0.0, loss=loss)
    ours = rj.fit_path(net, X, y, lams=convex.lams, solver=solver)
    np.testing.assert_allclose(ours.objective, convex.objective, rtol=1e-6)
    skip, w = np.asarray(ours.params[0]["skip"]), np.asarray(convex.params[0]["w"])
    np.testing.assert_array_equal(skip.any(-1), w.any(-1))
    np.testing.assert_allclose(skip, w, atol=1e-3)
    assert not np.any(ours.params[0]["w"])


def test_the_empty_network_is_stationary_from_lambda_max_on(x64):
    """With skip and W at 0 and the output bias fitted; at a lower lam it is not."""
    X, y = friedman()
    problem = network(10, 4, M=3.0)
    first, last = problem.model.init(jax.random.key(0))
    first = {**first, "w": 0 * first["w"], "b": first["b"] + 0.3}
    constant = np.tanh(0.3) * last["w"].sum(0)
    params = (first, {**last, "b": y.mean() - constant})
    data, share = Data(X, y[:, None]), np.full(len(y), 1 / len(y))
    slopes = trees.jitted(_slopes, problem, params, data, share)
    largest = float(problem.penalty.lambda_max(slopes))

    def residual(lam):
        args = (problem, params, slopes, lam, 0.1)
        return trees.jitted(objective.kkt_residual, *args)

    assert residual(largest * (1 + 1e-9)) < 1e-12
    assert residual(largest * 0.99) > 1e-4


def _slopes(problem, params, data, share):
    return jax.grad(objective.smooth, argnums=1)(problem, params, data, share)


def test_a_path_goes_from_all_inputs_to_none_by_way_of_the_true_ones():
    """5 of 10 inputs are true; one that is out of the skip is out of the network."""
    X, y = friedman(dtype=np.float32)
    path = rj.fit_path(
        network(10, 8, ridge=1e-2),
        X,
        y,
        np.geomspace(100, 0.03, 12),
        solver=rj.solvers.proximal_gradient(tol=1e-3, max_iter=400),
        direction="dense_to_sparse",
        chains=1,
    )
    skip, w = (np.asarray(path.params[0][name]) for name in ("skip", "w"))
    selected = skip.any(2)
    assert not np.any(w[~selected])
    assert not np.any(selected[0]) and np.all(selected[-1])
    true = np.all(selected == (np.arange(10) < 5), axis=1)
    assert np.any(true) and path.dev_ratio[true].max() > 0.75
    counts = np.count_nonzero(skip, (1, 2)) + np.count_nonzero(w, (1, 2))
    np.testing.assert_array_equal(path.n_nonzero, counts)


def test_monotone_steps_never_raise_the_objective(x64):
    """Nor leave the constraint, though points between them do, and the start did."""
    X, y = friedman()
    problem, lam = network(10, 8, ridge=1e-3), 0.05
    data, weights = Data(X, y[:, None]), np.ones(len(y))
    lane = Lane(np.array(lam), weights, *np.zeros((2, 1), int), 1.0, np.inf)
    start = problem.model.init(jax.random.key(0))
    assert problem.penalty.value(start, lam) == np.inf
    solver = monotone.build(1e-9, 300, problem, data)

    @jax.jit
    def run(start):
        first = solver.init(lane, start)
        return first.value, jax.lax.scan(
            lambda s, _: (solver.step(lane, s, None), (s.value, s.params, s.ahead)),
            first,
            length=300,
        )[1]

    begun, (values, params, ahead) = run(start)
    assert np.isfinite(begun)
    assert np.all(np.diff(values) <= 1e-14) and values[-1] < 0.5 * begun
    inside = jax.vmap(problem.penalty.value, (0, None))
    assert np.all(np.isfinite(inside(params, lam)))
    assert not np.all(np.isfinite(inside(ahead, lam)))


def test_sgd_stops_at_a_stationary_point_of_the_stated_problem(x64):
    """Full batch, with momentum: the KKT residual at the end is 0 to rounding."""
    X, y = friedman(n=100, p=6)
    sgd = functools.partial(rj.transforms.proximal_sgd, 0.01, momentum=0.9)
    solver = rj.solvers.minibatch(sgd, batch_size=None, epochs=8000, polish=0)
    fit = rj.fit(network(6, 3, M=2.0, ridge=0.05), X, y, 0.4, solver=solver)
    skip = np.asarray(fit.params[0]["skip"])
    assert fit.kkt < 1e-10
    assert 0 < np.count_nonzero(skip) < 6 and np.any(fit.params[0]["w"])


def test_a_saved_path_loads_with_an_equal_penalty_and_its_skip(tmp_path):
    X, y = friedman(n=40, dtype=np.float32)
    penalty = rj.penalties.hierarchical(3.0, where="0/w", factors=[1.0] * 9 + [np.inf])
    problem = network(10, 3, ridge=1e-3)._replace(penalty=penalty)
    quick = rj.solvers.minibatch(epochs=1, polish=1)
    path = rj.fit_path(problem, X, y, [0.1, 0.01], solver=quick)
    path.save(tmp_path / "path.npz")
    again = rj.load(tmp_path / "path.npz")
    assert again.problem.penalty.config == penalty.config
    assert again.problem.model.config == problem.model.config
    np.testing.assert_array_equal(again.predict(X), path.predict(X))
    params = jax.tree.map(lambda a: a[1], path.params)
    value = again.problem.penalty.value(params, 0.3)
    assert value == penalty.value(params, 0.3) and np.isfinite(value)
