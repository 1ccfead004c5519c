"""MCP and SCAD: the contract of a penalty, as far as it holds without convexity."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nonconvex import NONCONVEX
from scipy.integrate import quad

import regjax as rj

SIZE = 6
FACTORS = [1.0, 0.5, 2.0, 0.0, np.inf, 3.0]
# Of the steps and of the numbers gamma, a - 1, a + 1 at which the prox changes form.
STEPS = [0.05, 0.5, 1.0, 1.1, 1.2, 2.0, 2.7, 3.0, 3.1, 4.0, 4.7, 6.0, 30.0]
vectors = hnp.arrays(
    np.float32,
    SIZE,
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)
positives = st.floats(2**-7, 64, width=32)
every_penalty = pytest.mark.parametrize("name", NONCONVEX)


@partial(jax.jit, static_argnums=0)
def prox_of(name, v, lam, step):
    return NONCONVEX[name].penalty.prox({"w": v}, lam, step)["w"]


def cost(name, w, v, lam, step):
    """`1/2 (w - v)^2 + step p(w; lam)`, per coordinate."""
    return 0.5 * (w - v) ** 2 + step * NONCONVEX[name].value(w, lam)


@every_penalty
def test_the_value_is_the_integral_of_the_papers_slope(name, x64):
    """P(w; lam) = int_0^|w| p'(s) ds, by quadrature, summed over the coordinates."""
    penalty, lam = NONCONVEX[name].penalty, 0.7
    number = penalty.config[1].get("gamma") or penalty.config[1]["a"]

    def slope(s):
        if name.startswith("mcp"):
            return max(lam - s / number, 0)
        return lam if s <= lam else max(number * lam - s, 0) / (number - 1)

    w = np.array([0.0, 0.3, -0.7, 1.1, -2.5, 40.0])
    ends = [lam, number * lam]
    expected = [quad(slope, 0, abs(wj), points=ends)[0] for wj in w]
    for wj, value in zip(w, expected, strict=True):
        found = penalty.value({"w": np.array([wj]), "b": np.ones(2)}, lam)
        np.testing.assert_allclose(found, value, rtol=1e-6)
        np.testing.assert_allclose(NONCONVEX[name].value(wj, lam), value, rtol=1e-6)
    np.testing.assert_allclose(penalty.value({"w": w}, lam), sum(expected), rtol=1e-6)


@every_penalty
def test_the_prox_is_the_global_minimum_of_a_fine_grid(name, x64):
    """No point of a grid, nor the ends of the pieces, is lower, whatever the step."""
    lam = 0.8
    ends = np.array([1.0, NONCONVEX[name].end]) * lam
    grid = np.concatenate([np.linspace(-8, 8, 16001), ends, -ends, [0.0]])
    for step in STEPS:
        cuts = lam * np.array([step, 1 + step, np.sqrt(step * NONCONVEX[name].longest)])
        near = np.concatenate([cuts * (1 - 1e-9), cuts, cuts * (1 + 1e-9), ends])
        v = np.concatenate([np.linspace(-7.0, 7.0, 57), near, -near])
        found = np.asarray(prox_of(name, v, lam, step))
        best = cost(name, grid[:, None], v[None], lam, step).min(0)
        best = np.minimum(best, cost(name, v, v, lam, step))
        assert np.all(cost(name, found, v, lam, step) <= best + 1e-13 * (1 + v**2))


@every_penalty
def test_the_prox_beats_its_neighbours(name, x64):
    """Near and far, at random lams and steps, one step per coordinate."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        v = rng.normal(size=SIZE) * rng.choice([0.1, 1.0, 10.0])
        lam, step = rng.exponential(), rng.exponential(3.0, size=SIZE)
        w = np.asarray(prox_of(name, v, lam, {"w": step}))
        here = cost(name, w, v, lam, step)
        for scale in np.geomspace(1e-6, 10, 15):
            near = w + scale * rng.normal(size=SIZE)
            assert np.all(here <= cost(name, near, v, lam, step) * (1 + 1e-13))


def test_a_long_step_is_a_hard_threshold(x64):
    """At step >= gamma (mcp), >= a + 1 (scad): v beyond lam sqrt(step c), else 0."""
    v = np.linspace(-9, 9, 1801)
    for name, (_, _, _, longest) in NONCONVEX.items():
        for step in (longest, 1.7 * longest):
            cut = 0.6 * np.sqrt(step * longest)
            found = prox_of(name, v, 0.6, step)
            np.testing.assert_array_equal(found, np.where(np.abs(v) > cut, v, 0))


def test_mcp_at_step_one_is_the_firm_threshold(x64):
    """`gamma / (gamma - 1) soft(v, lam)` up to gamma lam (Breheny & Huang 2011)."""
    v = np.linspace(-5, 5, 401)
    soft = np.sign(v) * np.maximum(np.abs(v) - 0.9, 0)
    expected = np.where(np.abs(v) <= 2.7, 1.5 * soft, v)
    np.testing.assert_allclose(prox_of("mcp(3)", v, 0.9, 1.0), expected, rtol=1e-13)


def test_scad_at_step_one_is_that_of_the_paper(x64):
    """Fan & Li (2001), equation 2.8."""
    v, lam, a = np.linspace(-5, 5, 401), 0.9, 3.7
    soft = np.sign(v) * np.maximum(np.abs(v) - lam, 0)
    middle = ((a - 1) * v - np.sign(v) * a * lam) / (a - 2)
    outer = np.where(np.abs(v) <= a * lam, middle, v)
    expected = np.where(np.abs(v) <= 2 * lam, soft, outer)
    np.testing.assert_allclose(
        prox_of("scad(3.7)", v, lam, 1.0), expected, rtol=1e-12, atol=1e-15
    )


@every_penalty
def test_zero_times_the_penalty_is_the_identity(name):
    """prox(v) = v bit by bit, whether step or lam is 0."""
    v = np.array([0.0, 1e-30, -3.0, 1e30, 0.1, -0.0], np.float32)
    for step in (0.1, 2.0, 100.0):
        np.testing.assert_array_equal(prox_of(name, v, 0.0, step), v)
    np.testing.assert_array_equal(prox_of(name, v, 2.0, 0.0), v)


@every_penalty
@given(v=vectors, lam=positives, step=positives)
def test_nothing_expands_or_changes_sign(name, v, lam, step):
    """|prox(v)| <= |v| coordinate by coordinate, on the same side of 0."""
    w = np.asarray(prox_of(name, v, lam, step))
    assert np.all(np.abs(w) <= np.abs(v)) and np.all(w * v >= 0)


@every_penalty
def test_everything_is_finite_at_zero_and_at_the_kinks(name):
    """Value, prox and their derivatives, in lam and in step too, at every form."""
    nonconvex = NONCONVEX[name]
    jacobian = jax.jit(jax.jacobian(partial(prox_of, name), argnums=(0, 1, 2)))
    slopes = jax.jit(jax.value_and_grad(nonconvex.penalty.value, argnums=(0, 1)))
    for lam in (0.0, 0.5, 1e10):
        for step in (0.0, 1.0, nonconvex.end - 1, nonconvex.longest, 1e3):
            kinks = np.array([0, 1, step, 1 + step, nonconvex.end, -1], np.float32)
            v = lam * kinks
            chex.assert_tree_all_finite(jacobian(v, lam, step))
        chex.assert_tree_all_finite(slopes({"w": v}, lam))
        value, slope = slopes({"w": np.zeros(SIZE, np.float32)}, lam)
        assert value == 0
        np.testing.assert_array_equal(slope[0]["w"], 0.0)


@every_penalty
def test_the_gradient_of_the_value_is_its_numerical_derivative(name, x64):
    """In each piece, and with no slope beyond the last."""
    nonconvex, lam, h = NONCONVEX[name], 0.7, 1e-5
    w = np.array([0.4, -0.6, 0.75, -0.8, 1.2, 9.0])
    up, down = nonconvex.value(w + h, lam), nonconvex.value(w - h, lam)
    found = jax.grad(lambda w: nonconvex.penalty.value({"w": w}, lam))(w)
    np.testing.assert_allclose(found, (up - down) / (2 * h), rtol=1e-7, atol=1e-9)


@every_penalty
@given(g=vectors, step=positives)
def test_lambda_max_is_the_smallest_that_keeps_zero(name, g, step):
    """At steps up to gamma or a + 1; beyond, it is larger by sqrt(step / that)."""
    nonconvex = NONCONVEX[name]
    g = np.where(np.abs(g) < 1e-3, 0, g)
    largest = float(nonconvex.penalty.lambda_max({"w": g}))
    assert largest == np.abs(g).max()
    largest *= max(1, np.sqrt(step / nonconvex.longest))
    assert not np.any(prox_of(name, -step * g, 1.001 * largest, step))
    assert not np.any(g) or np.any(prox_of(name, -step * g, 0.999 * largest, step))


@pytest.mark.parametrize("factory", [rj.penalties.mcp, rj.penalties.scad])
def test_factors_multiply_lam_input_by_input(factory, x64):
    """0: not penalised; inf: excluded; else the penalty at c lam."""
    plain, penalty = factory(), factory(factors=FACTORS)
    rng = np.random.default_rng(0)
    v = rng.normal(size=(SIZE, 2)) * 3
    g = {"w": v}
    for step in (0.5, 10.0):
        found = penalty.prox({"w": v}, 0.6, step)["w"]
        np.testing.assert_array_equal(found[4], 0)
        np.testing.assert_array_equal(found[3], v[3])
        for j in (0, 1, 2, 5):
            alone = plain.prox({"w": v[j]}, 0.6 * FACTORS[j], step)["w"]
            np.testing.assert_array_equal(found[j], alone)
    assert penalty.value({"w": v}, 0.6) == np.inf
    v[4] = 0
    each = [plain.value({"w": v[j]}, 0.6 * FACTORS[j]) for j in (0, 1, 2, 5)]
    np.testing.assert_allclose(penalty.value({"w": v}, 0.6), sum(each), rtol=1e-13)
    pushes = [np.abs(v[j]).max() / FACTORS[j] for j in (0, 1, 2, 5)]
    np.testing.assert_allclose(penalty.lambda_max(g), max(pushes), rtol=1e-13)


@every_penalty
def test_it_says_that_it_is_not_convex_and_has_no_certificate(name, x64):
    """Also batched over lam, in float32, and blind to biases."""
    penalty = NONCONVEX[name].penalty
    assert not penalty.convex and penalty.by_input
    assert penalty.conjugate is None and penalty.dual_scale is None
    assert penalty.pool is None
    v, lams = np.linspace(-3, 3, SIZE, dtype=np.float32), jnp.float32([0.0, 0.1, 2.0])
    together = jax.vmap(lambda lam: prox_of(name, v, lam, np.float32(0.5)))(lams)
    assert together.dtype == np.float32
    for lam, w in zip(lams, together, strict=True):
        alone = penalty.prox({"w": v, "b": v}, lam, np.float32(0.5))
        np.testing.assert_allclose(w, alone["w"], rtol=1e-6)
        np.testing.assert_array_equal(alone["b"], v)


@pytest.mark.parametrize(
    ("call", "message"),
    [(partial(rj.penalties.mcp, x), "gamma: must be above 1") for x in (1, 0, -3)]
    + [(partial(rj.penalties.mcp, x), "gamma: must") for x in (np.nan, np.inf, "a")]
    + [(partial(rj.penalties.scad, x), "a: must be above 2") for x in (2, 0, -3)]
    + [(partial(rj.penalties.scad, x), "a: must") for x in (np.nan, np.inf, None)],
)
def test_a_number_out_of_range_is_refused(call, message):
    """Below, the prox of a step of 1 would jump."""
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_large_weights_are_not_shrunk_by_a_fit():
    """Orthogonal columns: each weight is the prox at step 1 of its least squares."""
    rng = np.random.default_rng(0)
    X = np.linalg.qr(rng.normal(size=(40, 4)))[0].astype(np.float32)
    X = X * np.float32(np.sqrt(40))
    target = np.array([4.0, -1.5, 0.8, 0.2])
    y = (X @ target).astype(np.float32)
    problem = rj.Problem(
        rj.models.linear(4, 1, bias=False),
        rj.losses.half_squared_error(),
        NONCONVEX["scad(3.7)"].penalty,
    )
    solver = rj.solvers.proximal_gradient(tol=1e-6)
    fit = rj.fit(problem, X, y, 0.5, solver=solver)
    expected = prox_of("scad(3.7)", np.float32(target), 0.5, 1.0)
    np.testing.assert_allclose(np.ravel(fit.params[0]["w"]), expected, atol=1e-4)
    assert expected[0] == 4.0 and expected[3] == 0.0
