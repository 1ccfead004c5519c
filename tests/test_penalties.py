"""The contract of a penalty, over every one in the registry."""

import re
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize, minimize_scalar

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
    tested = {re.match(r"\w+", name)[0] for name in (*PENALTIES, *VARIANTS)}
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
    needed = {"l1_ratio": 0.5} if factory is rj.penalties.elastic_net else {}
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
    with pytest.raises(ValueError, match=r"l1_ratio: must be in \[0, 1\]"):
        rj.penalties.elastic_net(l1_ratio)


# From here on: factors, bounds and groups, on one leaf of 6 inputs and 2 outputs.


class Variant(NamedTuple):
    """A penalty, and its Omega in NumPy.

    Omega(w) is the sum over pieces (indices into the flattened leaf, c) of
    `c (r |w_piece| + (1 - r)/2 |w_piece|^2)`, inf outside of low <= w <= high; what
    is excluded has low = high = 0.
    """

    penalty: Any
    r: float
    pieces: list
    low: np.ndarray
    high: np.ndarray

    def omega(self, w):
        w = np.reshape(w, -1)
        if np.any(w < self.low) or np.any(w > self.high):
            return np.inf
        norms = np.array([np.sqrt(np.sum(w[i] ** 2)) for i, _ in self.pieces])
        c = np.array([c for _, c in self.pieces])
        return np.sum(c * (self.r * norms + (1 - self.r) / 2 * norms**2))

    def feasible(self, w):
        return np.clip(w, self.low.reshape(P, K), self.high.reshape(P, K))

    @property
    def excluded(self):
        return ((self.low == 0) & (self.high == 0)).reshape(P, K)

    @property
    def free(self):
        """Not penalised and not excluded."""
        free = np.zeros(P * K, bool)
        for i, c in self.pieces:
            free[i] = c == 0
        return free.reshape(P, K) & ~self.excluded


P, K = 6, 2
PLACES = np.arange(P * K).reshape(P, K)
FACTORS = [1.0, 0.5, 2.0, 0.0, np.inf, 3.0]
GROUPS = [0, 1, 0, 2, 1, 0]
BOUNDS = {
    "": None,
    "positive": (0, np.inf),
    "box": (-0.3, 0.2),
    "arrays": (
        np.array([-np.inf, -1, 0, -0.2, -5, -0.1]),
        [0.5, np.inf, 1, 0, 2, 0.3],
    ),
}


def limits(bounds, factors):
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    low, high = (np.repeat(np.broadcast_to(side, P), K) for side in (low, high))
    excluded = np.repeat(np.isinf(factors), K)
    return np.where(excluded, 0, low), np.where(excluded, 0, high)


def separable(factory, r, bounds, factors, *args):
    c = np.ones(P) if factors is None else np.array(factors)
    finite = np.where(np.isinf(c), 1, c)
    pieces = [(np.array([j]), finite[j // K]) for j in range(P * K)]
    penalty = factory(*args, factors=factors, bounds=bounds)
    return Variant(penalty, r, pieces, *limits(bounds, c))


def grouped(members, weights=None, factors=None, **kwargs):
    c = np.ones(P) if factors is None else np.array(factors)
    weights = np.ones(len(members)) if weights is None else weights
    pieces = list(zip(members, np.where(np.isinf(weights), 1, weights), strict=True))
    penalty = rj.penalties.group(factors=factors, **kwargs)
    return Variant(penalty, 1.0, pieces, *limits(None, c))


ROWS = list(PLACES)
COLUMNS = list(PLACES.T)
ACROSS = [PLACES[np.array(GROUPS) == g].ravel() for g in range(3)]
ROOTS = np.sqrt([len(i) for i in ACROSS])

VARIANTS = {
    f"{label} {bounds} {'factors' * (factors is not None)}".strip(): separable(
        factory, r, BOUNDS[bounds], factors, *args
    )
    for label, factory, r, args, kinds in [
        ("l1", rj.penalties.l1, 1.0, (), BOUNDS),
        ("l2", rj.penalties.l2, 0.0, (), ["", "arrays"]),
        ("elastic_net(0.3)", rj.penalties.elastic_net, 0.3, (0.3,), BOUNDS),
        ("elastic_net(0)", rj.penalties.elastic_net, 0.0, (0.0,), ["arrays"]),
        ("elastic_net(1)", rj.penalties.elastic_net, 1.0, (1.0,), ["positive"]),
    ]
    for bounds in kinds
    for factors in (None, FACTORS)
    # Of the many, those in which factors and bounds meet.
    if factors or bounds == "" or (label == "l1" and bounds != "arrays")
} | {
    "group": grouped(ROWS),
    "group size_weights": grouped(ROWS, np.full(P, 2**0.5), size_weights=True),
    "group factors": grouped(ROWS, FACTORS, FACTORS),
    "group size_weights factors": grouped(
        ROWS, 2**0.5 * np.array(FACTORS), FACTORS, size_weights=True
    ),
    "group axis 0": grouped(COLUMNS, axis=0),
    "group axis 0 size_weights": grouped(
        COLUMNS, np.full(K, 6**0.5), axis=0, size_weights=True
    ),
    "group axes": grouped([PLACES.ravel()], axis=(0, 1)),
    "group groups": grouped(ACROSS, groups=GROUPS),
    "group groups size_weights": grouped(
        ACROSS, ROOTS, groups=GROUPS, size_weights=True
    ),
}
GROUPED = [name for name in VARIANTS if name.startswith("group")]

every_variant = pytest.mark.parametrize("name", VARIANTS)
# For what compiles slowly.
every_kind = pytest.mark.parametrize(
    "name",
    [n for n in VARIANTS if re.search("arrays factors|^group|^l1$", n)],
)
leaves = hnp.arrays(
    np.float32,
    (P, K),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


@partial(jax.jit, static_argnums=0)
def variant_prox(name, v, lam, step):
    return VARIANTS[name].penalty.prox({"w": v}, lam, step)["w"]


@partial(jax.jit, static_argnums=0)
def conjugate_of(name, z, lam):
    """Conjugate and dual scale of one array."""
    penalty = VARIANTS[name].penalty
    return penalty.conjugate({"w": z}, lam), penalty.dual_scale({"w": z}, lam)


def conjugate(name, z, lam):
    return float(conjugate_of(name, z, lam)[0])


def dual_scale(name, z, lam):
    return float(conjugate_of(name, z, lam)[1])


def draws(seed=0, times=20):
    """Arrays [P, K] of many sizes, some of their rows 0."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        scale = rng.choice([0.1, 1.0, 10.0])
        yield scale * rng.normal(size=(P, K)) * (rng.random((P, 1)) < 0.9)


@every_variant
def test_the_value_of_a_variant_is_lam_times_omega(name, x64):
    """lam sum_j c_j omega(w_j) within the bounds, a leaf beside another."""
    variant = VARIANTS[name]
    value = jax.jit(variant.penalty.value)
    for w in map(variant.feasible, draws()):
        expected = 0.7 * variant.omega(w)
        found = value({"w": w, "b": np.full(K, 9.0)}, 0.7)
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    many = variant.penalty.value([{"w": w}, {"w": 2 * variant.feasible(0 * w)}], 0.7)
    np.testing.assert_allclose(many, expected, rtol=1e-13)


@pytest.mark.parametrize("name", [n for n in VARIANTS if re.search("pos|box|arr", n)])
def test_the_value_is_infinite_outside_of_the_bounds(name, x64):
    """One coordinate is enough, on either side; on the bound it is finite."""
    variant = VARIANTS[name]
    for side, sign in ((variant.low, -1), (variant.high, 1)):
        for j in np.flatnonzero(np.isfinite(side)):
            w = np.zeros(P * K)
            w[j] = side[j]
            value = variant.penalty.value({"w": w.reshape(P, K)}, 0.7)
            np.testing.assert_allclose(value, 0.7 * variant.omega(w), rtol=1e-13)
            w[j] += sign * (6 if variant.excluded.flat[j] else 1e-9)
            assert variant.penalty.value({"w": w.reshape(P, K)}, 0.7) == np.inf


@every_variant
def test_the_prox_of_a_variant_is_what_scipy_finds(name, x64):
    """argmin 1/2 |w - v|^2 + t Omega(w), piece by piece: Brent, or BFGS in a group."""
    variant, lam, step = VARIANTS[name], 0.8, 0.5
    for v in draws(times=4):
        found = np.asarray(variant_prox(name, v, lam, step)).ravel()
        assert np.isfinite(variant.omega(found))
        for i, c in variant.pieces:
            target = v.ravel()[i]

            def formula(w, v=target, c=c):
                size = np.sqrt(np.sum(w**2))
                omega = c * (variant.r * size + (1 - variant.r) / 2 * size**2)
                return 0.5 * np.sum((w - v) ** 2) + lam * step * omega

            if np.all(variant.excluded.ravel()[i]):
                np.testing.assert_array_equal(found[i], 0)
                continue
            if len(i) > 1:
                other = minimize(formula, target + 1e-3, tol=1e-9).fun
            else:
                ends = np.clip([-50, 50], variant.low[i], variant.high[i])
                other = minimize_scalar(
                    formula, bounds=ends, method="bounded", options={"xatol": 1e-9}
                ).fun
            assert formula(found[i]) <= other + 1e-12
            assert formula(found[i]) >= other - 1e-4 * (1 + abs(other))


@every_variant
def test_the_prox_of_a_variant_beats_its_feasible_neighbours(name, x64):
    """No w within the bounds, near or far, is lower."""
    variant = VARIANTS[name]
    rng = np.random.default_rng(1)
    for v in draws():
        lam, step = rng.exponential(size=2)

        def formula(w, v=v, t=lam * step):
            return 0.5 * np.sum((w - v) ** 2) + t * variant.omega(w)

        w = np.asarray(variant_prox(name, v, lam, step))
        for scale in np.geomspace(1e-6, 1, 7):
            change = scale * rng.normal(size=(P, K)) * (rng.random((P, 1)) < 0.5)
            near = variant.feasible(w + change)
            assert formula(w) <= formula(near) * (1 + 1e-14)


@every_variant
def test_zero_times_a_variant_is_the_projection(name):
    """prox(v, 0) is v clipped into the bounds, excluded coordinates 0, bit by bit."""
    variant = VARIANTS[name]
    for v in map(np.float32, draws()):
        expected = variant.feasible(v).astype(np.float32)
        np.testing.assert_array_equal(variant_prox(name, v, 0.0, 2.0), expected)
        np.testing.assert_array_equal(variant_prox(name, v, 2.0, 0.0), expected)


@every_variant
def test_the_prox_of_a_variant_is_firmly_nonexpansive(name, x64):
    """|P u - P v|^2 <= <P u - P v, u - v>."""
    assert VARIANTS[name].penalty.convex
    for u, v in zip(draws(1, 10), draws(2, 10), strict=True):
        for t in (0.1, 1.0, 10.0):
            moved = variant_prox(name, u, t, 1.0) - variant_prox(name, v, t, 1.0)
            assert np.sum(moved**2) <= np.sum(moved * (u - v)) + 1e-12


@every_variant
def test_moreaus_decomposition_holds_for_a_variant(name, x64):
    """v = P v + t z, and value(P v) + conjugate(z) = <P v, z>: the supremum is met."""
    variant, lam, step = VARIANTS[name], 0.7, 0.5
    for v in draws():
        w = np.asarray(variant_prox(name, v, lam, step))
        z = (v - w) / step * (1 - 1e-12)
        gap = lam * variant.omega(w) + conjugate(name, z, lam) - np.sum(w * z)
        assert abs(gap) < 1e-9 * (1 + np.sum(v**2))


@every_variant
def test_fenchel_and_young(name, x64):
    """value(w) + conjugate(z) >= <z, w> for every w within the bounds."""
    variant, lam = VARIANTS[name], 0.7
    for z in draws(3):
        z = np.where(variant.free & np.isinf(variant.high.reshape(P, K)), 0, z)
        z = dual_scale(name, z, lam) * (1 - 1e-9) * z
        largest = conjugate(name, z, lam)
        assert 0 <= largest < np.inf
        for w in map(variant.feasible, draws(4)):
            slack = lam * variant.omega(w) + largest - np.sum(w * z)
            assert slack >= -1e-9 * (1 + abs(largest))


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - set(GROUPED)))
def test_the_conjugate_is_the_supremum_on_a_grid(name, x64):
    """sup_w z w - lam c omega(w), a coordinate at a time; inf if it grows for ever."""
    variant, lam = VARIANTS[name], 0.7
    rng = np.random.default_rng(0)
    for (j,), c in variant.pieces:
        ends = np.clip([-50.0, 50.0], variant.low[j], variant.high[j])
        w = np.linspace(*ends, 20001)
        cost = lam * c * (variant.r * abs(w) + (1 - variant.r) / 2 * w**2)
        for zj in (*rng.normal(size=3), 0.5 * lam * c, -0.99 * lam * c, 0.0):
            z = np.zeros((P, K))
            z.flat[j] = zj
            best = np.argmax(zj * w - cost)
            unbounded = zj * w[best] > cost[best] and abs(w[best]) == 50
            expected = np.inf if unbounded else zj * w[best] - cost[best]
            found = conjugate(name, z, lam)
            np.testing.assert_allclose(found, max(expected, 0), atol=1e-4)


@pytest.mark.parametrize("name", GROUPED)
def test_the_conjugate_of_a_group_is_infinite_beyond_its_dual_ball(name, x64):
    """0 where every |z_g| <= lam c_g, else inf; an excluded group has no say."""
    variant, lam = VARIANTS[name], 0.7
    rng = np.random.default_rng(0)
    for i, c in variant.pieces:
        direction = rng.normal(size=len(i))
        direction /= np.linalg.norm(direction)
        for size, expected in ((0.999, 0.0), (1.001, np.inf)):
            z = np.zeros(P * K)
            z[i] = lam * c * size * direction if c else (size > 1) * direction
            excluded = variant.excluded.ravel()[i].all()
            found = conjugate(name, z.reshape(P, K), lam)
            assert found == (0.0 if excluded else expected)


@every_variant
def test_the_dual_scale_is_the_largest_with_a_finite_conjugate(name, x64):
    """conjugate(s z) is finite at s and inf at 1.001 s, unless s is 1 already."""
    variant = VARIANTS[name]
    scales = []
    for lam in (0.01, 0.7):
        for one in draws(5, times=10):
            for z in (one, np.where(variant.free, 0, one), 1e-3 * one, 0 * one):
                s = dual_scale(name, z, lam)
                scales.append(s)
                assert 0 <= s <= 1
                assert np.isfinite(conjugate(name, s * z, lam))
                beyond = max(1.001 * s, 1e-6)
                assert s == 1 or conjugate(name, beyond * z, lam) == np.inf
    bounded = np.isfinite(variant.low) & np.isfinite(variant.high)
    scalable = variant.r == 1 and not np.all(bounded)
    scalable |= np.any(variant.free.ravel() & ~bounded)
    assert 1.0 in scales and (min(scales) < 1) == scalable


@every_variant
@given(z=leaves, lam=positives)
def test_the_scaled_dual_point_is_feasible_in_float32(name, z, lam):
    """Rounding of s z does not make the conjugate inf, however large z / lam is."""
    lam = np.float32(lam / 64)
    s = np.float32(dual_scale(name, z, lam))
    assert np.isfinite(conjugate(name, s * z, lam))


@every_variant
def test_at_lam_zero_only_zero_has_a_finite_conjugate(name, x64):
    """Where the bounds leave room; dual_scale of 0 is 1, of anything else 0."""
    variant = VARIANTS[name]
    zero = np.zeros((P, K))
    assert conjugate(name, zero, 0.0) == 0
    assert dual_scale(name, zero, 0.0) == 1
    z = zero.copy()
    z[1] = 1.0
    if not np.isfinite(variant.high.reshape(P, K)[1, 0]):
        assert conjugate(name, z, 0.0) == np.inf
        assert dual_scale(name, z, 0.0) == 0


@pytest.mark.parametrize("lam", [1e-20, 1e-30])
def test_the_conjugate_does_not_overflow_to_minus_infinity(lam):
    """z^2 / (2 t2) of a weak elastic net may be huge, but never below 0."""
    for penalty in (rj.penalties.elastic_net(0.5), rj.penalties.l2()):
        assert penalty.conjugate({"w": jnp.ones(2)}, lam) > 0


def selects(name):
    variant = VARIANTS[name]
    return variant.r > 0


@pytest.mark.parametrize("name", [n for n in VARIANTS if selects(n)])
@given(g=leaves, step=positives)
def test_lambda_max_of_a_variant_is_the_smallest_that_keeps_zero(name, g, step):
    """0 is a fixed point of the prox step iff lam >= lambda_max(g), g 0 where free."""
    variant = VARIANTS[name]
    g = np.where((np.abs(g) < 1e-3) | variant.free, 0, g)
    largest = float(variant.penalty.lambda_max({"w": g}))
    flat = g.ravel()
    room = np.where(flat < 0, variant.high, -variant.low) > 0
    pushed = np.where(room, flat, 0)
    ratios = [np.linalg.norm(pushed[i]) / c for i, c in variant.pieces if c]
    np.testing.assert_allclose(largest, max(ratios) / variant.r, rtol=1e-5)
    assert not np.any(variant_prox(name, -step * g, 1.001 * largest, step))
    if largest > 0:
        assert np.any(variant_prox(name, -step * g, 0.999 * largest, step))


@pytest.mark.parametrize("name", [n for n in VARIANTS if not selects(n)])
def test_without_l1_lambda_max_is_infinite_where_the_bounds_leave_room(name):
    """A gradient that pushes only into a bound, or what is free, keeps zero."""
    variant = VARIANTS[name]
    for j in range(P * K):
        for sign in (-1, 1):
            g = np.zeros((P, K), np.float32)
            g.flat[j] = sign
            room = (variant.high if sign < 0 else -variant.low)[j] > 0
            expected = np.inf if room and not variant.free.flat[j] else 0
            assert variant.penalty.lambda_max({"w": g}) == expected


@every_variant
def test_what_is_free_is_not_shrunk_and_what_is_excluded_is_zero(name):
    """A factor of 0 or inf means that at every lam, also at 1e30."""
    variant = VARIANTS[name]
    for v in map(np.float32, draws()):
        for lam in (0.0, 0.5, 1e30):
            w = np.asarray(variant_prox(name, v, lam, 1.0))
            inside = variant.feasible(v).astype(np.float32)
            np.testing.assert_array_equal(w[variant.free], inside[variant.free])
            np.testing.assert_array_equal(w[variant.excluded], 0)


@every_kind
def test_a_variant_is_finite_at_zero_with_its_derivatives(name, x64):
    """Prox in v, lam and step, and value, whose gradient at 0 is 0."""
    variant, zero = VARIANTS[name], jnp.zeros((P, K))
    jacobian = jax.jit(jax.jacobian(partial(variant_prox, name), argnums=(0, 1, 2)))
    slopes = jax.jit(jax.value_and_grad(variant.penalty.value))
    for lam in (0.0, 0.5):
        chex.assert_tree_all_finite(jacobian(zero, lam, 1.0))
        value, slope = slopes({"w": zero}, lam)
        assert value == 0
        np.testing.assert_array_equal(slope["w"], 0)


@every_variant
def test_steps_of_a_variant_differ_from_piece_to_piece(name, x64):
    """With one step per coordinate, alike in a group, each piece has its own prox."""
    variant = VARIANTS[name]
    rng = np.random.default_rng(0)
    steps = np.empty(P * K)
    for i, _ in variant.pieces:
        steps[i] = rng.exponential()
    steps = steps.reshape(P, K)
    for v in draws(times=3):
        together = np.asarray(variant_prox(name, v, 0.4, {"w": steps})).ravel()
        for i, _ in variant.pieces:
            alone = variant_prox(name, v, 0.4, steps.flat[i[0]])
            np.testing.assert_allclose(together[i], np.ravel(alone)[i], rtol=1e-13)


@every_kind
def test_lam_of_a_variant_may_be_batched(name, x64):
    """vmap over lam under jit is one call per lam: prox, value and conjugate."""
    variant = VARIANTS[name]
    v, lams = next(draws(9)), np.array([0.0, 0.1, 0.5, 5.0])
    w = {"w": variant.feasible(v)}

    def all_three(lam):
        moved = variant_prox(name, v, lam, 0.5)
        return moved, variant.penalty.value(w, lam), conjugate_of(name, v, lam)

    each = [all_three(lam) for lam in lams]
    stacked = jax.tree.map(lambda *parts: np.stack(parts), *each)
    together = jax.jit(jax.vmap(all_three))(lams)
    chex.assert_trees_all_close(together, stacked, rtol=1e-13)


@every_variant
def test_a_variant_keeps_float32(name, x64):
    """Factors and bounds are float64 arrays, but take the dtype of the params."""
    penalty, lam = VARIANTS[name].penalty, np.float32(0.1)
    params = {"w": np.zeros((P, K), np.float32)}
    results = [penalty.prox(params, lam, lam)["w"], penalty.value(params, lam)]
    results += [penalty.lambda_max(params), penalty.conjugate(params, lam)]
    results += [penalty.dual_scale(params, lam)]
    assert {r.dtype for r in results} == {np.dtype(np.float32)}


@every_variant
def test_no_variant_sees_a_bias(name):
    """Neither do the conjugate, dual_scale and pool."""
    penalty = VARIANTS[name].penalty
    w = jnp.float32(next(draws(11)))
    alone, params = {"w": w}, {"w": w, "b": jnp.full(3, 5.0)}
    for call in (penalty.conjugate, penalty.dual_scale, penalty.value):
        assert call(params, 0.5) == call(alone, 0.5)
    assert penalty.lambda_max(params) == penalty.lambda_max(alone)
    for tree in [penalty.prox(params, 0.5, 1.0)] + (
        [penalty.pool(params)] if penalty.pool else []
    ):
        np.testing.assert_array_equal(tree["b"], params["b"])


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"size_weights": True},
        {"factors": FACTORS},
        {"groups": [3, 1, 4, 0, 5, 2]},
        {"groups": range(P), "size_weights": True},
    ],
)
def test_groups_of_one_number_are_the_lasso(kwargs, x64):
    """With one output a row is one number, and group is l1, factors included."""
    penalties = (
        rj.penalties.group(**kwargs),
        rj.penalties.l1(factors=kwargs.get("factors")),
    )
    v = {"w": np.random.default_rng(0).normal(size=(P, 1))}
    w = {"w": np.where(np.isinf(FACTORS)[:, None], 0, v["w"])}
    for lam in (1e-3, 0.3, 3.0):
        np.testing.assert_allclose(*(p.value(w, lam) for p in penalties), rtol=1e-13)
        moved = [p.prox(v, lam, 0.7)["w"] for p in penalties]
        np.testing.assert_allclose(*moved, rtol=1e-13, atol=1e-15)
        scales = [p.dual_scale(v, lam) for p in penalties]
        np.testing.assert_allclose(*scales, rtol=1e-12)
    np.testing.assert_allclose(*(p.lambda_max(v) for p in penalties), rtol=1e-13)


@pytest.mark.parametrize("name", GROUPED)
def test_pool_averages_over_each_group(name, x64):
    """Every number becomes the mean of its group."""
    w, expected = next(draws(6)), np.empty((P, K))
    for i, _ in VARIANTS[name].pieces:
        expected.flat[i] = w.flat[i].mean()
    found = VARIANTS[name].penalty.pool({"w": w})["w"]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_separable_penalty_has_no_pool():
    """There is nothing to average over."""
    penalties = [v.penalty for n, v in VARIANTS.items() if n not in GROUPED]
    assert all(penalty.pool is None for penalty in penalties)


def test_groups_of_filters_are_norms_over_three_axes(x64):
    """axis=(0, 1, 2) of a convolution's [h, w, in, out]: a group is an out."""
    w = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    penalty = rj.penalties.group(axis=(0, 1, 2))
    norms = np.sqrt((w**2).sum((0, 1, 2)))
    np.testing.assert_allclose(penalty.value({"w": w}, 0.5), 0.5 * norms.sum())
    np.testing.assert_allclose(penalty.lambda_max({"w": w}), norms.max())
    by_input = rj.penalties.group(axis=(0, 1, -1), size_weights=True)
    norms = np.sqrt((w**2).sum((0, 1, 3)) * 36)
    np.testing.assert_allclose(by_input.value({"w": w}, 0.5), 0.5 * norms.sum())


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


BOUNDED = [f for f in FACTORIES if f is not rj.penalties.group]


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
        ({"groups": [[0, 1]]}, "groups: must be .p. whole"),
        ({"groups": []}, "groups: must be .p. whole"),
        ({"groups": [[0], [1, 2]]}, "groups: "),
        ({"axis": "rows"}, "axis: must be"),
        ({"axis": None}, "axis: must be"),
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
    with pytest.raises(ValueError, match=f"^{message}"):
        rj.penalties.group(**kwargs)


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (rj.penalties.l1(factors=[1.0, 2.0]), "factors: has 2 numbers, but w .*4, 3"),
        (rj.penalties.l2(factors=[1.0] * 3), "factors: has 3 numbers"),
        (rj.penalties.group(factors=[1.0] * 3), "factors: has 3 numbers"),
        (rj.penalties.l1(bounds=([0.0] * 3, np.inf)), "bounds: has 3 numbers"),
        (rj.penalties.l1(bounds=(0, [np.inf] * 3)), "bounds: has 3 numbers"),
        (rj.penalties.group(groups=[0, 1, 1]), "groups: has 3 numbers"),
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


@pytest.fixture(scope="module")
def quick_path():
    X, y = fitting_data()
    penalty = rj.penalties.l1(factors=FACTORS, bounds=BOUNDS["arrays"])
    model, loss = rj.models.linear(P, K), rj.losses.half_squared_error()
    quick = rj.solvers.minibatch(epochs=1, polish=1)
    y = np.stack([y, -y], 1)
    return rj.fit_path(rj.Problem(model, loss, penalty), X, y, [0.1], solver=quick)


@every_variant
def test_a_saved_path_loads_with_an_equal_penalty(name, quick_path, tmp_path):
    """Its arguments are in the file, infinite ones too, and build the same numbers."""
    penalty = VARIANTS[name].penalty
    path = quick_path.replace(problem=quick_path.problem._replace(penalty=penalty))
    path.save(tmp_path / "path.npz")
    again = rj.load(tmp_path / "path.npz").problem.penalty
    assert again.config == penalty.config
    w = {"w": np.float32(VARIANTS[name].feasible(next(draws(7))))}
    for call in (penalty.value, penalty.conjugate, penalty.dual_scale):
        twin = getattr(again, call.func.__name__.lstrip("_"))
        np.testing.assert_array_equal(call(w, 0.3), twin(w, 0.3))
    moved = [p.prox(w, 0.3, 0.5)["w"] for p in (penalty, again)]
    np.testing.assert_array_equal(*moved)
