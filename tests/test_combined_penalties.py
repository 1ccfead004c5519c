"""Sums of penalties and ratios of lam; `test_penalty_variants.py` has the contract."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from nonconvex import NONCONVEX
from penalty_variants import FACTORS, K, P, draws

import regjax as rj
from regjax import storage
from regjax.penalties.extent import of_inputs

combined, scaled = rj.penalties.combined, rj.penalties.scaled
l1, l2, group = rj.penalties.l1, rj.penalties.l2, rj.penalties.group


def network(seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"w": rng.normal(size=(5, 4)), "b": rng.normal(size=4)},
        {"w": rng.normal(size=(4, 2)), "b": rng.normal(size=2)},
        {"w": rng.normal(size=(2, 1)), "b": rng.normal(size=1)},
    ]


def test_each_layer_has_its_own_penalty(x64):
    """Value, prox, conjugate, dual scale and pool are those of the parts."""
    ratio = 0.1
    penalty = combined(
        group(where="0/w"),
        scaled(ratio, l1(where="1/w")),
        rj.penalties.elastic_net(0.3, where="2/w"),
    )
    lam, step = 0.4, 0.5
    params = network()
    alone = [
        (group(), lam),
        (l1(), ratio * lam),
        (rj.penalties.elastic_net(0.3), lam),
    ]
    layers = [{"w": layer["w"]} for layer in params]
    parts = list(zip(alone, layers, strict=True))
    each = [p.value(layer, m) for (p, m), layer in parts]
    np.testing.assert_allclose(penalty.value(params, lam), sum(each))
    z = jax.tree.map(lambda a: 1e-2 * a, params)
    each = [p.conjugate({"w": 1e-2 * w["w"]}, m) for (p, m), w in parts]
    np.testing.assert_allclose(penalty.conjugate(z, lam), sum(each))
    scales = [p.dual_scale(layer, m) for (p, m), layer in parts]
    np.testing.assert_allclose(penalty.dual_scale(params, lam), min(scales))
    highest = [p.lambda_max(w) * lam / m for (p, m), w in parts]
    np.testing.assert_allclose(penalty.lambda_max(params), max(highest))
    moved = penalty.prox(params, lam, step)
    for (p, m), layer, found, start in zip(alone, layers, moved, params, strict=True):
        np.testing.assert_allclose(found["w"], p.prox(layer, m, step)["w"])
        np.testing.assert_array_equal(found["b"], start["b"])
    pooled = penalty.pool(params)
    np.testing.assert_allclose(pooled[0]["w"], group().pool(layers[0])["w"])
    chex.assert_trees_all_equal(pooled[1:], params[1:])
    chosen = jax.tree.leaves(penalty.selected(params))
    assert chosen == [False, True] * 3
    assert penalty.convex and penalty.by_input


def test_lasso_and_ridge_are_the_elastic_net(x64):
    """R l1 + (1 - r) l2 in every function, factors and bounds among them."""
    r = 0.3
    for kwargs in (
        {},
        {"factors": FACTORS, "bounds": (-0.5, 0.7)},
        {"bounds": (0, np.inf)},
    ):
        twin = rj.penalties.elastic_net(r, **kwargs)
        finite = [0.0 if np.isinf(c) else c for c in kwargs.get("factors", [1.0] * P)]
        sum_ = combined(scaled(r, l1(**kwargs)), scaled(1 - r, l2(factors=finite)))
        for v in draws(times=4):
            w = twin.prox({"w": v}, 0.7, 0.5)
            both = [p.prox({"w": v}, 0.7, 0.5)["w"] for p in (sum_, twin)]
            np.testing.assert_allclose(*both, rtol=1e-13, atol=1e-15)
            for call in ("conjugate", "dual_scale"):
                both = [getattr(p, call)({"w": v}, 0.7) for p in (sum_, twin)]
                np.testing.assert_allclose(*both, rtol=1e-12)
            np.testing.assert_allclose(sum_.value(w, 0.7), twin.value(w, 0.7))
            np.testing.assert_allclose(
                *[p.lambda_max({"w": v * (np.array(finite) > 0)[:, None]})
                  for p in (sum_, twin)],
                rtol=1e-13,
            )  # fmt: skip


@pytest.mark.parametrize("lam", [1e-30, 1e-10, 1e-3, 1.0])
def test_the_conjugate_of_a_sum_is_right_to_rounding_in_float32(lam):
    """Beside the closed form of the elastic net: never negative, NaN or too small."""
    twin = rj.penalties.elastic_net(0.5)
    sum_ = combined(scaled(0.5, l1()), scaled(0.5, l2()))
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.4, 0.6, 3.0, 1e3):
        z = {"w": np.float32(lam * scale * rng.uniform(-1, 1, size=(P, K)))}
        found, expected = (p.conjugate(z, np.float32(lam)) for p in (sum_, twin))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    z = {"w": np.ones((P, K), np.float32)}
    assert sum_.conjugate(z, np.float32(lam)) > 0


@pytest.mark.parametrize("name", NONCONVEX)
@pytest.mark.parametrize("step", [0.5, 3.0, 20.0])
def test_ridge_beside_a_nonconvex_penalty_is_the_best_of_a_grid(name, step, x64):
    """The same formula holds without convexity; the sum then has no conjugate."""
    penalty = combined(NONCONVEX[name].penalty, scaled(0.2, l2()))
    lam, v = 0.7, np.linspace(-9, 9, 91)
    grid = np.linspace(-10, 10, 20001)[:, None]
    found = np.asarray(penalty.prox({"w": v}, lam, step)["w"])

    def cost(w, v):
        whole = NONCONVEX[name].value(w, lam) + 0.2 * lam / 2 * w**2
        return 0.5 * (w - v) ** 2 + step * whole

    assert np.all(cost(found, v) <= cost(grid, v[None]).min(0) + 1e-12)
    assert penalty.conjugate is None and penalty.dual_scale is None
    assert not penalty.convex


def test_ridges_add_up_and_alone_they_never_select(x64):
    """Two l2 of one leaf, and one of another: v / (1 + t m); lambda_max is inf."""
    penalty = combined(l2(), scaled(2.0, l2(where="0/w")), scaled(0.0, l2(where="2/w")))
    params = network()
    moved = penalty.prox(params, 0.3, 0.5)
    for layer, found, m in zip(params, moved, (3, 1, 1), strict=True):
        np.testing.assert_allclose(found["w"], layer["w"] / (1 + 0.15 * m))
    squares = [np.sum(layer["w"] ** 2) for layer in params]
    value = 0.15 * (3 * squares[0] + squares[1] + squares[2])
    np.testing.assert_allclose(penalty.value(params, 0.3), value)
    value = (squares[0] / 3 + squares[1] + squares[2]) / 0.6
    np.testing.assert_allclose(penalty.conjugate(params, 0.3), value)
    assert penalty.lambda_max(params) == np.inf
    assert penalty.lambda_max(jax.tree.map(np.zeros_like, params)) == 0
    assert penalty.conjugate(params, 0.0) == np.inf
    assert penalty.dual_scale(params, 0.0) == 0 and penalty.dual_scale(params, 0.3) == 1


def test_an_l2_on_a_layer_of_its_own_makes_lambda_max_infinite(x64):
    """It is that of the other layer only where that l2's gradient is 0."""
    penalty = combined(l1(where="0/w"), l2(where="[01]/w"))
    grad = network()
    assert penalty.lambda_max(grad) == np.inf
    grad[1]["w"] = np.zeros((4, 2))
    np.testing.assert_allclose(penalty.lambda_max(grad), np.abs(grad[0]["w"]).max())


def test_a_ratio_multiplies_lam_and_0_is_no_penalty(x64):
    """All functions at ratio * lam; lambda_max over it, 0 at 0."""
    v = {"w": next(draws())}
    for base in (l1(factors=FACTORS), l2(), group(), rj.penalties.mcp()):
        penalty = scaled(2.5, base)
        moved = [p.prox(v, m, 0.5)["w"] for p, m in ((penalty, 0.4), (base, 1.0))]
        np.testing.assert_array_equal(*moved)
        np.testing.assert_array_equal(penalty.value(v, 0.4), base.value(v, 1.0))
        np.testing.assert_allclose(penalty.lambda_max(v), base.lambda_max(v) / 2.5)
        if base.convex:
            z = {"w": 1e-3 * v["w"]}
            np.testing.assert_array_equal(
                penalty.conjugate(z, 0.4), base.conjugate(z, 1.0)
            )
        nothing = scaled(0.0, base)
        assert nothing.lambda_max(v) == 0
    np.testing.assert_array_equal(scaled(0.0, l1()).prox(v, 0.4, 0.5)["w"], v["w"])


def test_a_sum_of_some_inputs_is_the_sum_of_theirs(x64):
    """Screening leaves inputs out: factors and bounds of every term go with them."""
    uneven = np.arange(P) / 2
    rows = np.array([1, 2, 5])
    whole = combined(
        l1(factors=FACTORS, bounds=(-np.ones(P), np.inf)), l2(factors=uneven)
    )
    part = combined(
        l1(factors=np.array(FACTORS)[rows], bounds=(-np.ones(3), np.inf)),
        l2(factors=uneven[rows]),
    )
    v = {"w": next(draws())[rows]}
    found = of_inputs(whole, rows)
    moved = [p.prox(v, 0.3, 0.5)["w"] for p in (found, part)]
    np.testing.assert_array_equal(*moved)
    np.testing.assert_array_equal(found.conjugate(v, 0.3), part.conjugate(v, 0.3))


def test_a_ratio_is_a_run_time_value():
    """Two ratios, and two lams, are one program."""
    traces = []

    def value(penalty, lam):
        traces.append(1)
        return penalty.value({"w": jnp.ones((P, K))}, lam)

    for ratio in (0.1, 0.2):
        penalty = combined(l1(), scaled(ratio, l2()))
        rj.trees.jitted(value, penalty, 0.3)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("penalties", "message"),
    [
        ((l1(), l1(where="0/w")), "where: two penalties of a sum choose 0/w"),
        ((l1(), rj.penalties.mcp(where="1/w")), "where: two penalties .* choose 1/w"),
        (
            (l1(), l2(bounds=(0, 1))),
            "where: two penalties .* choose 0/w",
        ),
        ((combined(l1(), l2()), group()), "where: two penalties .* choose 0/w"),
        ((group(), l2(where="0/w")), "where: an l2 beside a penalty of groups must"),
        (
            (group(axis=0, where="0/w"), l2(where="0/w", factors=[1.0] * 5)),
            "factors: an l2 beside groups that span inputs",
        ),
        (
            (group(groups=[0, 0, 1, 1, 1], where="0/w"), l2("0/w", [1.0] * 5)),
            "factors: an l2 beside groups that span inputs",
        ),
        ((l1(where="nowhere"), l2()), "where='nowhere' selects no leaf.*0/w"),
        ((l1(), l2(where="0/w", factors=[1.0] * 3)), "factors: has 3 numbers"),
    ],
)
def test_terms_that_do_not_go_together_are_refused_by_every_function(
    penalties, message
):
    """Once params are seen: the message names the argument and the leaf."""
    penalty = combined(*penalties)
    params = jax.tree.map(np.float32, network())
    for call in (
        lambda: penalty.value(params, 1.0),
        lambda: penalty.prox(params, 1.0, 1.0),
        lambda: penalty.lambda_max(params),
        lambda: penalty.selected(params),
        *[
            lambda f=f: f(params, 1.0)
            for f in (penalty.conjugate, penalty.dual_scale)
            if f
        ],
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: combined(), "penalties: nothing to add"),
        (lambda: combined(l1(), 0.5), "penalties: must be a Penalty, got 0.5"),
        (lambda: combined([l1(), l2()]), "penalties: must be a Penalty"),
        (lambda: scaled(-0.1, l1()), "ratio: must be >= 0 and finite, got -0.1"),
        (lambda: scaled(np.nan, l1()), "ratio: must be >= 0"),
        (lambda: scaled(np.inf, l1()), "ratio: must be >= 0"),
        (lambda: scaled(l1(), 0.1), "ratio: must be a number"),
        (lambda: scaled(0.1, l1), "penalty: must be a Penalty"),
    ],
)
def test_what_is_no_sum_is_refused(call, message):
    """One sentence that names the argument."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_a_sum_is_built_again_from_its_description():
    """Sums in sums, by name from JSON; not if a mask chose the leaves of one."""
    penalty = combined(
        scaled(0.5, combined(group(where="0/w"), l2(where="0/w"))),
        rj.penalties.mcp(2.0, where="1/w"),
        rj.penalties.sparse_group(0.4, groups=[[0, 1]], where="2/w"),
    )
    problem = rj.Problem(
        rj.models.mlp([5, 4, 2, 1]), rj.losses.half_squared_error(), penalty, 0.1
    )
    described = storage.describe_problem(problem)
    again = storage.build_problem(storage.json.loads(storage.json.dumps(described)))
    assert again.penalty.config == penalty.config
    params = network()
    assert again.penalty.value(params, 0.3) == penalty.value(params, 0.3)
    assert combined(l1(where=True), l2()).config is None
    assert scaled(0.1, l1(where=True)).config is None


def test_a_fit_with_lasso_and_ridge_is_certified():
    """Its coefficients are those of coordinate descent on the elastic net."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 8)).astype(np.float32)
    y = (X[:, 0] - 2 * X[:, 5] + 0.1 * rng.normal(size=40)).astype(np.float32)
    penalty = combined(scaled(0.6, l1()), scaled(0.4, l2()))
    problem = rj.Problem(rj.models.linear(8), rj.losses.half_squared_error(), penalty)
    solver = rj.solvers.proximal_gradient(tol=1e-6)
    path = rj.fit_path(problem, X, y, 5, solver=solver)
    assert set(np.asarray(path.status)) <= {0, 3}
    X, y = X.astype(float), y.astype(float)
    push = np.abs(X.T @ (y - y.mean())).max() / 40
    np.testing.assert_allclose(path.lams[0], push / 0.6, rtol=1e-5)
    for k in (1, 3):
        w, _ = oracles.least_squares(X, y, float(path.lams[k]), 0.6)
        np.testing.assert_allclose(np.ravel(path.params[0]["w"][k]), w, atol=2e-3)


def test_adaptive_factors_are_one_over_the_pilot(x64):
    """Zou (2006): 1 / |w|^power, inf at 0; of several outputs the row's norm."""
    w = np.array([2.0, -0.5, 0.0])
    np.testing.assert_array_equal(rj.penalties.adaptive_factors(w), [0.5, 2.0, np.inf])
    np.testing.assert_array_equal(
        rj.penalties.adaptive_factors(w, 2), [0.25, 4.0, np.inf]
    )
    w = np.array([[3.0, -4.0], [0.0, 0.0]])
    for rows in (w, w.reshape(2, 1, 2), jnp.float32(w)):
        factors = rj.penalties.adaptive_factors(rows)
        np.testing.assert_allclose(factors, [0.2, np.inf], rtol=1e-6)
    found = l1(factors=factors).prox({"w": np.ones((2, 2))}, 1.0, 1.0)["w"]
    np.testing.assert_allclose(found, [[0.8, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("w", "power", "message"),
    [
        ([0.0, 0.0], 1, "w: all weights of the pilot fit are 0"),
        ([[0.0, 0.0]], 1, "w: all weights"),
        ([1.0, np.nan], 1, "w: must be .p. or .p, k. finite"),
        ([1.0, np.inf], 1, "w: must be"),
        (3.0, 1, "w: must be"),
        ([], 1, "w: must be"),
        ([1.0], 0, "power: must be positive"),
        ([1.0], -1, "power: must be positive"),
        ([1.0], np.nan, "power: must be positive"),
    ],
)
def test_a_pilot_that_leaves_nothing_is_refused(w, power, message):
    """Rather than NaN or a penalty that excludes every input."""
    with pytest.raises(ValueError, match=f"^{message}"):
        rj.penalties.adaptive_factors(w, power)
