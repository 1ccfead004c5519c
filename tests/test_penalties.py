"""The contract of a penalty, over every one in the registry."""

import inspect
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nonconvex import NONCONVEX
from penalty_variants import SUMS, VARIANTS, P
from scipy.optimize import minimize_scalar

import regjax as rj

# name -> penalty, and the l1_ratio with which `oracles` writes its Omega
PENALTIES = {
    "l1": (rj.penalties.l1(), 1.0),
    "l2": (rj.penalties.l2(), 0.0),
    "elastic_net(0)": (rj.penalties.elastic_net(0.0), 0.0),
    "elastic_net(0.05)": (rj.penalties.elastic_net(0.05), 0.05),
    "elastic_net(0.5)": (rj.penalties.elastic_net(0.5), 0.5),
    "elastic_net(1)": (rj.penalties.elastic_net(1.0), 1.0),
}
# Of two leaves: tested in test_hierarchical.py.
ELSEWHERE = {"hierarchical"}
FACTORIES = [f for n, f in rj.penalties.REGISTRY.items() if n not in ELSEWHERE]
SELECTING = [name for name, (_, r) in PENALTIES.items() if r > 0]
BIASES = ("b", "bias", "intercept")
SIZE = 6

every_penalty = pytest.mark.parametrize("name", PENALTIES)
vectors = hnp.arrays(
    np.float32,
    SIZE,
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)
thresholds = st.floats(0, 100, width=32, allow_subnormal=False)
positives = st.floats(2**-7, 64, width=32)


@partial(jax.jit, static_argnums=0)
def prox_of(name, v, lam, step):
    """Prox of one array, through a penalty on the pytree {"w": array}."""
    penalty, _ = PENALTIES[name]
    return penalty.prox({"w": v}, lam, step)["w"]


def prox(name, v, lam, step=1.0):
    return np.asarray(prox_of(name, v, lam, step))


def test_every_registered_penalty_is_tested_here():
    """Adding a penalty is one file, one line in REGISTRY, and one line here."""
    alone = set(VARIANTS) - set(SUMS)
    tested = {re.match(r"\w+", n)[0] for n in (*PENALTIES, *alone, *NONCONVEX)}
    assert tested | ELSEWHERE == set(rj.penalties.REGISTRY)


@every_penalty
def test_the_value_is_lam_times_omega(name, x64):
    """value(w, lam) = lam (r |w|_1 + (1 - r)/2 |w|_2^2), summed over leaves."""
    penalty, r = PENALTIES[name]
    rng = np.random.default_rng(0)
    params = [{"w": rng.normal(size=(2, 3)), "b": rng.normal(size=3)} for _ in "ab"]
    omega = sum(oracles.elastic_net(layer["w"], r) for layer in params)
    np.testing.assert_allclose(penalty.value(params, 0.7), 0.7 * omega, rtol=1e-14)


@every_penalty
def test_the_gradient_of_the_value_is_its_numerical_derivative(name, x64):
    """Away from 0, d value / dw_j by central differences of Omega."""
    penalty, r = PENALTIES[name]
    w, h = np.array([1.5, -0.3, 0.02, -7.0]), 1e-5
    shifts = h * np.eye(4)
    numeric = [
        (oracles.elastic_net(w + e, r) - oracles.elastic_net(w - e, r)) / (2 * h)
        for e in shifts
    ]
    gradient = jax.grad(lambda w: penalty.value({"w": w}, 0.7))(w)
    np.testing.assert_allclose(gradient, 0.7 * np.array(numeric), rtol=1e-8)


@every_penalty
def test_the_gradient_of_the_value_at_exact_zero_is_zero(name):
    """The minimum-norm subgradient: an exact zero is not pushed by autodiff."""
    penalty, _ = PENALTIES[name]
    gradient = jax.grad(penalty.value)({"w": jnp.zeros((2, 3))}, 0.7)
    np.testing.assert_array_equal(gradient["w"], 0.0)


@every_penalty
def test_the_prox_minimises_the_formula_of_its_docstring(name, x64):
    """prox(v, t) = argmin 1/2 |w - v|^2 + t Omega(w), found by Brent's method."""
    _, r = PENALTIES[name]
    lam, step = 0.8, 0.5
    v = np.concatenate([np.linspace(-2, 2, 41), lam * step * r * np.array([-1, 1])])

    def formula(w, v):
        return 0.5 * (w - v) ** 2 + step * lam * oracles.elastic_net(w, r)

    found = prox(name, v, lam, step)
    for vj, wj in zip(v, found, strict=True):
        brent = minimize_scalar(
            formula, args=(vj,), bounds=(-3, 3), method="bounded", options={"xatol": 0}
        )
        assert abs(wj - brent.x) < 1e-6
        assert formula(wj, vj) <= brent.fun + 1e-15


@every_penalty
def test_the_prox_beats_its_neighbours(name, x64):
    """No w near prox(v, t), at any distance, has a lower 1/2 |w - v|^2 + t Omega."""
    _, r = PENALTIES[name]
    rng = np.random.default_rng(0)
    for _ in range(20):
        v = rng.normal(size=SIZE) * rng.choice([0.1, 1.0, 10.0])
        lam, step = rng.exponential(size=2)

        def formula(w, v=v, t=step * lam):
            return 0.5 * np.sum((w - v) ** 2) + t * oracles.elastic_net(w, r)

        w = prox(name, v, lam, step)
        for scale in np.geomspace(1e-6, 1, 13):
            near = w + scale * rng.normal(size=SIZE) * (rng.random(SIZE) < 0.5)
            assert formula(w) <= formula(near) * (1 + 1e-14)


@every_penalty
def test_zero_times_the_penalty_is_the_identity(name):
    """prox(v, 0) = v bit by bit, whether step or lam is 0."""
    v = np.array([0.0, 1e-30, -3.0, 1e30, 0.1, -0.0], np.float32)
    np.testing.assert_array_equal(prox(name, v, 0.0, 2.0), v)
    np.testing.assert_array_equal(prox(name, v, 2.0, 0.0), v)


@every_penalty
@given(v=vectors, t=thresholds)
def test_nothing_expands_or_changes_sign(name, v, t):
    """|prox(v, t)| <= |v| coordinate by coordinate, on the same side of 0."""
    w = prox(name, v, t)
    assert np.all(np.abs(w) <= np.abs(v))
    assert np.all(w * v >= 0)


@every_penalty
@given(u=vectors, v=vectors, t=thresholds)
def test_the_prox_is_firmly_nonexpansive(name, u, v, t):
    """|P u - P v|^2 <= <P u - P v, u - v>, for every convex penalty."""
    penalty, _ = PENALTIES[name]
    assert penalty.convex
    u, v = u.astype(float), v.astype(float)
    moved = prox(name, np.float32(u), t) - prox(name, np.float32(v), t).astype(float)
    rounding = 1e-6 * (np.abs(u).max() + np.abs(v).max()) * np.abs(u - v).max()
    assert moved @ moved <= moved @ (u - v) + rounding


@every_penalty
@given(v=vectors, t=positives)
def test_moreaus_decomposition_holds(name, v, t):
    """v = P v + t z with Omega(P v) + Omega*(z) = <P v, z>, for convex penalties.

    Omega*(z) = sum max(|z| - r, 0)^2 / (2 (1 - r)); at r = 1, 0 on |z| <= 1.
    """
    _, r = PENALTIES[name]
    w = prox(name, v, t).astype(float)
    z = (v - w) / t
    excess = np.maximum(np.abs(z) - r, 0)
    rounding = 1e-6 * (1 + np.abs(v).max() / t)
    if r == 1:
        assert np.all(excess <= rounding)
        conjugate = 0.0
    else:
        conjugate = np.sum(excess**2) / (2 * (1 - r))
    gap = oracles.elastic_net(w, r) + conjugate - w @ z
    assert abs(gap) <= rounding * (1 + np.abs(w).sum() + np.abs(z).sum())


@every_penalty
@pytest.mark.parametrize("lam", [0.0, 0.5, 1e30])
def test_value_and_jacobian_are_finite_at_zero_and_at_the_kink(name, lam):
    """Also in lam and in step, so that hyperparameters can be differentiated."""
    penalty, r = PENALTIES[name]
    jacobian = jax.jit(jax.jacobian(partial(prox_of, name), argnums=(0, 1, 2)))
    for v in (0.0, lam * r, -lam * r):
        w = jnp.full(2, v, jnp.float32)
        chex.assert_tree_all_finite((prox_of(name, w, lam, 1.0), jacobian(w, lam, 1.0)))
    gradient = jax.grad(penalty.value)({"w": jnp.zeros(2)}, lam)
    chex.assert_tree_all_finite((penalty.value({"w": jnp.zeros(2)}, lam), gradient))


@every_penalty
def test_the_step_may_differ_from_coordinate_to_coordinate(name):
    """A pytree of steps is one prox per coordinate; one scalar a leaf works too."""
    penalty, _ = PENALTIES[name]
    rng = np.random.default_rng(0)
    params = {"u": rng.normal(size=(2, 3)), "v": rng.normal(size=4)}
    params = jax.tree.map(np.float32, params)
    steps = jax.tree.map(lambda w: rng.exponential(size=w.shape), params)
    steps = jax.tree.map(np.float32, steps)
    found = penalty.prox(params, 0.4, steps)
    for key, w in params.items():
        for index in np.ndindex(w.shape):
            alone = penalty.prox({"w": w[index]}, 0.4, steps[key][index])["w"]
            np.testing.assert_allclose(found[key][index], alone, rtol=1e-6)
    by_leaf = penalty.prox(params, 0.4, {"u": 0.1, "v": 2.0})
    np.testing.assert_array_equal(by_leaf["u"], penalty.prox(params, 0.4, 0.1)["u"])
    np.testing.assert_array_equal(by_leaf["v"], penalty.prox(params, 0.4, 2.0)["v"])


@every_penalty
def test_float32_stays_float32_where_64_bits_are_on(name, x64):
    """Value, prox and lambda_max have the dtype of the params."""
    penalty, _ = PENALTIES[name]
    params, lam = {"w": np.ones(3, np.float32)}, np.float32(0.1)
    assert penalty.prox(params, lam, lam)["w"].dtype == np.float32
    assert penalty.lambda_max(params).dtype == np.float32
    assert penalty.value(params, lam).dtype == np.float32


@every_penalty
def test_lam_may_be_traced_and_batched(name):
    """vmap over lam under jit is one call per lam."""
    v, lams = jnp.linspace(-1, 1, SIZE), jnp.array([0.0, 0.1, 0.5])
    together = jax.jit(jax.vmap(lambda lam: prox_of(name, v, lam, 0.5)))(lams)
    each = [prox(name, v, lam, 0.5) for lam in lams]
    np.testing.assert_allclose(together, np.stack(each), rtol=1e-6)


@every_penalty
def test_biases_are_never_penalised(name):
    """Value, prox and lambda_max see no leaf whose last key is that of a bias."""
    penalty, _ = PENALTIES[name]
    weights = {"w": jnp.full((2, 2), 0.1)}
    params = {"layer": {**weights, **{bias: jnp.full(2, 5.0) for bias in BIASES}}}
    assert penalty.value(params, 1.0) == penalty.value(weights, 1.0)
    assert penalty.lambda_max(params) == penalty.lambda_max(weights)
    moved = penalty.prox(params, 1.0, 1.0)["layer"]
    assert np.all(np.abs(moved["w"]) < 0.1)
    for bias in BIASES:
        np.testing.assert_array_equal(moved[bias], params["layer"][bias])


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize(
    "where",
    [
        "0/",
        "^net/0/(w|b)$",
        {"net": ({"w": True, "b": True}, {"b": False, "w": False})},
        {"net": (True, False)},
    ],
    ids=["regex", "anchored regex", "mask", "prefix mask"],
)
def test_where_chooses_the_leaves(factory, where):
    """A regex on the key path, or a mask: it may include biases, and only it counts."""
    penalty = make(factory, where=where)
    layer = {"w": jnp.ones(2), "b": jnp.ones(1)}
    params = {"net": (layer, layer)}
    moved = penalty.prox(params, 1.0, 0.5)["net"]
    assert all(np.all(leaf < 1) for leaf in jax.tree.leaves(moved[0]))
    chex.assert_trees_all_equal(moved[1], layer)
    alone = sum(make(factory).value({"w": jnp.ones(size)}, 1.0) for size in (1, 2))
    np.testing.assert_allclose(penalty.value(params, 1.0), alone, rtol=1e-6)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("where", ["kernel", ({"b": False, "w": False},)])
def test_a_where_that_matches_nothing_is_an_error_that_names_the_key_paths(
    factory, where
):
    """Silence here would mean an unpenalised fit."""
    penalty = make(factory, where=where)
    params = ({"w": jnp.ones(2), "b": jnp.ones(1)},)
    message = f"where={re.escape(repr(where))} .*0/b, 0/w"
    for call in (penalty.value, penalty.prox, lambda p, *_: penalty.lambda_max(p)):
        with pytest.raises(ValueError, match=message):
            call(params, 1.0, *[1.0] * (call is penalty.prox))


def test_a_mask_that_does_not_fit_is_an_error():
    """The message says which argument."""
    with pytest.raises(ValueError, match="where: the mask does not fit"):
        rj.penalties.l1(where={"v": True}).value({"w": jnp.ones(2)}, 1.0)


def make(factory, **kwargs):
    """A penalty with the arguments it needs."""
    takes = inspect.signature(factory).parameters
    needed = {"l1_ratio": 0.5} if "l1_ratio" in takes else {}
    return factory(**needed, **kwargs)


@pytest.mark.parametrize("name", SELECTING)
@given(g=vectors, step=positives)
def test_lambda_max_is_the_smallest_that_keeps_zero(name, g, step):
    """0 is a fixed point of the prox step iff lam >= lambda_max(gradient at 0)."""
    g = np.where(np.abs(g) < 1e-3, 0, g)
    penalty, _ = PENALTIES[name]
    largest = float(penalty.lambda_max({"w": g}))
    assert not np.any(prox(name, -step * g, 1.001 * largest, step))
    assert not np.any(g) or np.any(prox(name, -step * g, 0.999 * largest, step))


@pytest.mark.parametrize("name", sorted(set(PENALTIES) - set(SELECTING)))
def test_a_penalty_without_l1_never_selects(name):
    """lambda_max is inf, and no lam makes a zero; it is 0 where g is 0."""
    penalty, _ = PENALTIES[name]
    g = np.array([0.0, -1e-3, 2.0], np.float32)
    assert penalty.lambda_max({"w": g}) == np.inf
    assert penalty.lambda_max({"w": 0 * g}) == 0
    np.testing.assert_array_equal(prox(name, g, 1e6) != 0, g != 0)


@pytest.mark.parametrize("l1_ratio", [-0.1, 1.1, np.nan, np.inf])
def test_an_l1_ratio_outside_of_0_to_1_is_refused(l1_ratio):
    """Outside, one half of the penalty would reward large weights."""
    for factory in (rj.penalties.elastic_net, rj.penalties.sparse_group):
        with pytest.raises(ValueError, match=r"l1_ratio: must be in \[0, 1\]"):
            factory(l1_ratio)


@pytest.mark.parametrize("factory", rj.penalties.REGISTRY.values())
@pytest.mark.parametrize(
    "factors",
    [
        [1.0, -1e-9],
        [1.0, np.nan],
        [1.0, -np.inf],
        [0.0, np.inf],
        [0.0, 0.0],
        [np.inf],
        [[1.0, 2.0]],
        1.0,
        [],
        "ab",
        [[1], [1, 2]],
    ],
)
def test_unusable_factors_are_refused(factory, factors):
    """Negative would reward; all 0 or inf leaves nothing for lam to do."""
    with pytest.raises(ValueError, match="^factors: "):
        make(factory, factors=factors)


BOUNDED = [
    f
    for f in rj.penalties.REGISTRY.values()
    if "bounds" in inspect.signature(f).parameters
]


@pytest.mark.parametrize("factory", BOUNDED)
@pytest.mark.parametrize(
    "bounds",
    [
        (0.1, 1),
        (-1, -0.1),
        (1, -1),
        (np.nan, 1),
        (0, np.nan),
        ([-1, 0.1], 1),
        (-1, [1, -0.1]),
        (0,),
        (0, 1, 2),
        3,
        "ab",
        ([[0.0]], 1),
        (None, 1),
    ],
)
def test_unusable_bounds_are_refused(factory, bounds):
    """0, where every path begins, is within them."""
    with pytest.raises(ValueError, match="^bounds: "):
        make(factory, bounds=bounds)


@pytest.mark.parametrize("factory", BOUNDED)
def test_bounds_of_two_lengths_are_refused(factory):
    """Both are one per input; by the call at the latest, which says so."""
    with pytest.raises(ValueError, match="^bounds: "):
        penalty = make(factory, bounds=(-np.ones(3), np.ones(4)))
        penalty.prox({"w": jnp.ones((4, 1))}, 1.0, 1.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"groups": [0, 2, 0]}, "groups: must be numbered 0"),
        ({"groups": [1, 2]}, "groups: must be numbered 0"),
        ({"groups": [-1, 0]}, "groups: must be numbered 0"),
        ({"groups": [0.0, 1.0]}, "groups: must be .p. whole"),
        ({"groups": []}, "groups: must be .p. whole"),
        ({"groups": 3}, "groups: must be .p. whole"),
        ({"groups": [[0, 1], [1, 2]]}, "groups: input 1 is in two groups"),
        ({"groups": [[0, 0], [1, 2]]}, "groups: input 0 is in two groups"),
        ({"groups": [[0, 1], [3]]}, "groups: input 2 is in no group"),
        ({"groups": [[0, -1], [1]]}, "groups: inputs are numbered from 0, got -1"),
        ({"groups": [[0, 1], []]}, "groups: list 1 must be whole numbers, one or"),
        ({"groups": [[0.0, 1.0]]}, "groups: list 0 must be whole numbers"),
        ({"groups": ["ab", [1]]}, "groups: list 0 must be whole numbers"),
        ({"groups": [[[0]], [1]]}, "groups: list 0 must be whole numbers"),
        ({"groups": [[0, 1], 2]}, "groups: must be .p. whole"),
        ({"axis": "rows"}, "axis: must be"),
        ({"axis": None, "factors": [1.0]}, "factors: a group must be within one"),
        ({"axis": 0.5}, "axis: must be"),
        ({"axis": ()}, "axis: must be"),
        ({"axis": (0, "b")}, "axis: must be"),
        ({"axis": 0, "factors": [1.0]}, "factors: a group must be within one input"),
        ({"axis": (1, 0), "factors": [1.0]}, "factors: a group must be within"),
        ({"groups": [0, 1], "factors": [1.0, 2.0]}, "factors: a group must be within"),
    ],
)
def test_unusable_groups_are_refused(kwargs, message):
    """The message names the argument."""
    for factory in (rj.penalties.group, rj.penalties.sparse_group):
        with pytest.raises(ValueError, match=f"^{message}"):
            make(factory, **kwargs)


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (rj.penalties.l1(factors=[1.0, 2.0]), "factors: has 2 numbers, but w .*4, 3"),
        (rj.penalties.sparse_group(0.5, factors=[1.0] * 3), "factors: has 3 numbers"),
        (rj.penalties.l2(factors=[1.0] * 3), "factors: has 3 numbers"),
        (rj.penalties.group(factors=[1.0] * 3), "factors: has 3 numbers"),
        (rj.penalties.l1(bounds=([0.0] * 3, np.inf)), "bounds: has 3 numbers"),
        (rj.penalties.l1(bounds=(0, [np.inf] * 3)), "bounds: has 3 numbers"),
        (
            rj.penalties.group(groups=[0, 1, 1]),
            r"groups: has 3 numbers, but w has .*: input 3 is in no group",
        ),
        (
            rj.penalties.sparse_group(0.5, groups=[[0, 1, 2], [4, 3]]),
            r"groups: has 5 numbers, but w has shape .4, 3.: choose",
        ),
        (
            rj.penalties.group(groups=np.zeros((4, 2), int)),
            r"groups: has shape .4, 2., but w has shape .4, 3.; choose",
        ),
        (rj.penalties.group(axis=2), "axis: .2,. does not fit shape .4, 3"),
        (rj.penalties.group(axis=-3), "axis: .-3,. does not fit"),
        (rj.penalties.group(axis=(1, -1)), "axis: .1, -1. does not fit"),
        (
            rj.penalties.group(axis=-2, factors=[1.0] * 4),
            "factors: a group must be within one input",
        ),
    ],
)
def test_what_does_not_fit_a_leaf_is_an_error_of_every_function(penalty, message):
    """Lengths go with the leaf's first axis, here 4 of [4, 3]."""
    params = {"w": jnp.ones((4, 3))}
    for call in (
        lambda: penalty.value(params, 1.0),
        lambda: penalty.prox(params, 1.0, 1.0),
        lambda: penalty.lambda_max(params),
        lambda: penalty.conjugate(params, 1.0),
        lambda: penalty.dual_scale(params, 1.0),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


def test_factors_of_a_leaf_of_one_axis_are_across_its_group():
    """A leaf [p] is one group of axis -1: one factor per input has no meaning."""
    penalty = rj.penalties.group(factors=[1.0, 0.0, 2.0])
    with pytest.raises(ValueError, match="^factors: a group must be within one input"):
        penalty.value({"w": jnp.ones(3)}, 1.0)


@pytest.mark.parametrize("factory", FACTORIES)
def test_factors_of_another_length_are_refused_by_fit(factory):
    """Before anything is compiled, and the message begins with the argument."""
    X, y = fitting_data()
    problem = rj.Problem(
        rj.models.linear(P, 1),
        rj.losses.half_squared_error(),
        make(factory, factors=[1.0, 2.0]),
    )
    with pytest.raises(ValueError, match="^factors: has 2 numbers"):
        rj.fit(problem, X, y, 0.1)


def fitting_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, P)).astype(np.float32)
    return X, (X[:, 0] - 2 * X[:, 5]).astype(np.float32)
