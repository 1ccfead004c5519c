"""The contract of a convex penalty with factors, bounds, groups and sums.

On one leaf of 6 inputs and 2 outputs.
"""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from penalty_variants import (
    BOUNDS,
    FACTORS,
    GROUPED,
    SPARSE,
    SUMS,
    VARIANTS,
    K,
    P,
    draws,
)
from scipy.optimize import minimize, minimize_scalar

import regjax as rj

positives = st.floats(2**-7, 64, width=32)
every_variant = pytest.mark.parametrize("name", VARIANTS)
# For what compiles slowly.
every_kind = pytest.mark.parametrize(
    "name",
    [
        n
        for n in VARIANTS
        if re.search("arrays factors|^group|^l1$|^s.*factors|^s.*groups", n)
    ],
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


@partial(jax.jit, static_argnums=0)
def lambda_max(name, g):
    return VARIANTS[name].penalty.lambda_max({"w": g})


def conjugate(name, z, lam):
    return float(conjugate_of(name, z, lam)[0])


def dual_scale(name, z, lam):
    return float(conjugate_of(name, z, lam)[1])


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


@pytest.mark.parametrize("name", [n for n in VARIANTS if not VARIANTS[n].overlaps])
def test_the_prox_of_a_variant_is_what_scipy_finds(name, x64):
    """argmin 1/2 |w - v|^2 + t Omega(w), piece by piece: Brent, or BFGS in a group."""
    variant, lam, step = VARIANTS[name], 0.8, 0.5
    for v in draws(times=4):
        found = np.asarray(variant_prox(name, v, lam, step)).ravel()
        assert np.isfinite(variant.omega(found))
        for i in variant.blocks:
            target = v.ravel()[i]

            def formula(w, v=target, i=i):
                whole = np.zeros(P * K)
                whole[i] = w
                return 0.5 * np.sum((w - v) ** 2) + lam * step * variant.omega(whole)

            if np.all(variant.excluded.ravel()[i]):
                np.testing.assert_array_equal(found[i], 0)
                continue
            if len(i) > 1:
                other = minimize(formula, target + 1e-3, tol=1e-9).fun
            else:
                ends = np.clip([-50, 50], variant.low[i], variant.high[i])
                other = minimize_scalar(
                    formula,
                    bounds=ends.ravel(),
                    method="bounded",
                    options={"xatol": 1e-9},
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


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {*GROUPED, *SPARSE, *SUMS}))
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


@pytest.mark.parametrize("name", [*GROUPED, *SPARSE])
@pytest.mark.parametrize("unit", [2.0**-90, 2.0**90])
def test_the_norm_of_a_group_neither_vanishes_nor_overflows(name, unit):
    """Squares of such units are beyond float32; lambda_max and dual scale are not."""
    unit = np.float32(unit)
    z = np.random.default_rng(0).normal(size=(P, K)).astype(np.float32)
    z[VARIANTS[name].free] = 0
    largest = float(lambda_max(name, z))
    np.testing.assert_allclose(lambda_max(name, unit * z), unit * largest)
    found = dual_scale(name, unit * z, np.float32(unit * largest / 2))
    np.testing.assert_allclose(found, 0.5, rtol=1e-6)


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
    bounded |= variant.squares > 0
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
    """0 is a fixed point of the prox step iff lam >= lambda_max(g).

    g is 0 where there is no penalty, and where there is none but an l2, which
    makes lambda_max inf.
    """
    variant = VARIANTS[name]
    g = np.where((np.abs(g) < 1e-3) | variant.bare, 0, g)
    largest = float(lambda_max(name, g))
    flat = g.ravel()
    room = np.where(flat < 0, variant.high, -variant.low) > 0
    pushed = np.where(room, flat, 0)
    if not variant.overlaps:
        ratios = [np.linalg.norm(pushed[i]) / c for i, c in variant.pieces if c]
        np.testing.assert_allclose(largest, max(ratios) / variant.r, rtol=1e-5)
    assert not np.any(variant_prox(name, -step * g, 1.001 * largest, step))
    if largest > 0:
        assert np.any(variant_prox(name, -step * g, 0.999 * largest, step))


@pytest.mark.parametrize("name", SUMS)
def test_lambda_max_is_infinite_where_an_l2_is_alone(name):
    """On a coordinate that no other term penalises, as for l2 itself."""
    variant = VARIANTS[name]
    room = np.stack([-variant.low, variant.high]).reshape(2, P, K)
    for g in (np.float32(1), np.float32(-1)):
        for at in np.argwhere(variant.bare):
            grad = np.zeros((P, K), np.float32)
            grad[tuple(at)] = g
            pushed = room[int(g < 0), *at] > 0 and not variant.free[tuple(at)]
            expected = np.inf if pushed else 0
            assert lambda_max(name, grad) == expected


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
            assert lambda_max(name, g) == expected


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
    for i in variant.blocks:
        steps[i] = rng.exponential()
    steps = steps.reshape(P, K)
    for v in draws(times=3):
        together = np.asarray(variant_prox(name, v, 0.4, {"w": steps})).ravel()
        for i in variant.blocks:
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


@pytest.mark.parametrize("name", [*GROUPED, *SPARSE])
def test_pool_averages_over_each_group(name, x64):
    """Every number becomes the mean of its group."""
    w, expected = next(draws(6)), np.empty((P, K))
    for i in VARIANTS[name].blocks:
        expected.flat[i] = w.flat[i].mean()
    found = VARIANTS[name].penalty.pool({"w": w})["w"]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_separable_penalty_has_no_pool():
    """There is nothing to average over."""
    penalties = [v.penalty for n, v in VARIANTS.items() if "group" not in n]
    penalties.remove(VARIANTS["scaled sum"].penalty)
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
    for name in ("value", "conjugate", "dual_scale"):
        call, twin = getattr(penalty, name), getattr(again, name)
        np.testing.assert_array_equal(call(w, 0.3), twin(w, 0.3))
    moved = [p.prox(w, 0.3, 0.5)["w"] for p in (penalty, again)]
    np.testing.assert_array_equal(*moved)
