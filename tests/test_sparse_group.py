"""The sparse group lasso; `test_penalty_variants.py` has the contract."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penalty_variants import FACTORS, GROUPS, SPARSE, VARIANTS, K, P, draws
from scipy.optimize import brentq

import regjax as rj


def parts(name):
    """r, and `(members, c, factor)` of each group, of a variant."""
    penalty = VARIANTS[name].penalty
    _, given = penalty.config
    places = np.arange(P * K).reshape(P, K)
    if "groups" in given:
        labels = np.array(given["groups"])
        members = [places[labels == g].ravel() for g in range(labels.max() + 1)]
    else:
        members = list(places.T if given["axis"] == [0] else places)
    factors = np.array(given.get("factors", [1.0] * len(members)))
    sizes = [np.sqrt(len(i)) if given["size_weights"] else 1.0 for i in members]
    return given["l1_ratio"], list(zip(members, sizes, factors, strict=False))


def soft(v, t):
    return np.sign(v) * np.maximum(np.abs(v) - t, 0)


@pytest.mark.parametrize("name", SPARSE)
def test_the_prox_meets_the_conditions_of_optimality(name, x64):
    """V - w is in t dOmega(w): first-order, so the minimum of a convex function.

    In a group that is not 0: v - w = t f (r sign(w) + (1 - r) c w / |w|), within
    t f r of 0 where w is 0; in a group of zeros: |soft(v, t f r)| <= t f (1 - r) c.
    """
    penalty, t = VARIANTS[name].penalty, 0.3
    r, groups = parts(name)
    zeros = 0
    for v in draws():
        w = np.ravel(penalty.prox({"w": v}, 2 * t, 0.5)["w"])
        for i, c, f in groups:
            vi, wi, tf = v.ravel()[i], w[i], t * f
            if np.isinf(f) or not np.any(wi):
                bound = tf * (1 - r) * c
                assert np.isinf(f) or np.linalg.norm(soft(vi, tf * r)) <= bound + 1e-12
                assert not np.any(wi)
                continue
            size = np.linalg.norm(wi)
            left = vi - wi - tf * (1 - r) * c * wi / size
            on = wi != 0
            zeros += np.sum(~on)
            np.testing.assert_allclose(left[on], tf * r * np.sign(wi[on]), atol=1e-12)
            assert np.all(np.abs(left[~on]) <= tf * r + 1e-12)
    assert zeros > 0


@pytest.mark.parametrize("name", SPARSE)
def test_lambda_max_is_the_root_that_brents_method_finds(name, x64):
    """The largest over groups of the lam with norm(soft(g, lam r)) = lam (1-r) c."""
    lambda_max = jax.jit(VARIANTS[name].penalty.lambda_max)
    r, groups = parts(name)
    for g in draws(8):
        roots = [0.0]
        for i, c, f in groups:
            if f == 0 or np.isinf(f) or not np.any(g.ravel()[i]):
                continue
            a = np.abs(g.ravel()[i]) / f

            def excess(lam, a=a, c=c):
                return np.linalg.norm(soft(a, lam * r)) - lam * (1 - r) * c

            roots.append(brentq(excess, 0, 3 * a.sum() / (1 - r), xtol=1e-15))
        found = float(lambda_max({"w": g}))
        np.testing.assert_allclose(found, max(roots), rtol=1e-13)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_the_root_of_a_large_group_is_found_to_rounding(l1_ratio, x64):
    """Ten thousand numbers, alike, of all sizes, of heavy tails, with ties."""
    rng = np.random.default_rng(0)
    n = 10_000
    kinds = {
        "alike": np.ones(n),
        "uniform": rng.random(n),
        "close to the top": 1 - rng.random(n) ** 8,
        "all sizes": 2.0 ** -np.floor(np.log2(1 + np.arange(n))),
        "heavy": np.abs(rng.standard_cauchy(n)),
        "tiny": 1e-30 * rng.random(n),
    }
    penalty = rj.penalties.sparse_group(l1_ratio, axis=None, size_weights=True)
    lambda_max = jax.jit(penalty.lambda_max)
    for a in kinds.values():
        lam = float(lambda_max({"w": a}))
        norm = np.linalg.norm(soft(a, lam * l1_ratio))
        rest = lam * (1 - l1_ratio) * np.sqrt(n)
        if l1_ratio == 1:
            np.testing.assert_allclose(lam, a.max(), rtol=1e-14)
        else:
            assert abs(norm - rest) <= 1e-13 * np.linalg.norm(a)


def everything(penalty, w, v):
    """Of w what may be infinite, of v the rest."""
    of_w = [getattr(penalty, c)({"w": w}, 0.7) for c in ("value", "conjugate")]
    of_w += [penalty.dual_scale({"w": w}, 0.7)]
    v = {"w": v}
    return *of_w, penalty.lambda_max(v), penalty.prox(v, 0.7, 0.5)["w"]


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"size_weights": True, "factors": FACTORS}, {"groups": GROUPS}],
)
def test_without_lasso_it_is_group_and_without_group_it_is_l1(kwargs, x64):
    """All functions at r = 0 and r = 1."""
    factors = kwargs.get("factors")
    for r, twin in (
        (0.0, rj.penalties.group(**kwargs)),
        (1.0, rj.penalties.l1(factors=factors)),
    ):
        penalty = rj.penalties.sparse_group(r, **kwargs)
        both = [jax.jit(partial(everything, p)) for p in (penalty, twin)]
        for v in draws(times=3):
            w = v if factors is None else v * np.isfinite(factors)[:, None]
            *found, moved = zip(*(of(w, v) for of in both), strict=True)
            for pair in found:
                np.testing.assert_allclose(*pair, rtol=1e-12)
            np.testing.assert_allclose(*moved, rtol=1e-12, atol=1e-15)


def test_lam_and_gradients_may_be_batched_through_newtons_method(x64):
    """vmap of lambda_max and dual_scale is one call each, zeros among them."""
    penalty = VARIANTS["sparse_group(0.3)"].penalty
    g = np.stack([*draws(3, times=3), np.zeros((P, K))])
    lambda_max = jax.jit(lambda g: penalty.lambda_max({"w": g}))
    together, each = jax.vmap(lambda_max)(g), [lambda_max(one) for one in g]
    np.testing.assert_allclose(together, jnp.stack(each), rtol=1e-14)
    assert together[-1] == 0


def test_a_fit_is_certified_and_selects_within_groups():
    """It ends certified; 0 is in `X' r / n + lam dOmega(w)`, group by group."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, P)).astype(np.float32)
    B = np.zeros((P, 3))
    B[0], B[1, 0], B[2, :2] = 2.0, -2.0, 1.0
    y = (X @ B + 0.3 * rng.normal(size=(60, 3))).astype(np.float32)
    penalty = rj.penalties.sparse_group(0.7)
    problem = rj.Problem(
        rj.models.linear(P, 3), rj.losses.half_squared_error(), penalty
    )
    path = rj.fit_path(problem, X, y, 6)
    assert set(np.asarray(path.status)) <= {0, 3} and path.n_nonzero[0] == 0
    w = np.asarray(path.params[0]["w"])[2]
    rows = np.any(w != 0, axis=1)
    assert 0 < rows.sum() < P and np.any(w[rows] == 0)
    lam, b = float(path.lams[2]), np.asarray(path.params[0]["b"])[2]
    g = X.T @ (X @ w + b - y) / 60
    for gj, wj in zip(g, w, strict=True):
        if np.any(wj):
            slope = gj + lam * 0.3 * wj / np.linalg.norm(wj)
            on, bound = wj != 0, lam * 0.7
            np.testing.assert_allclose(slope[on], -bound * np.sign(wj[on]), atol=4e-3)
        else:
            assert np.linalg.norm(soft(gj, 0.7 * lam)) <= 0.3 * lam * (1 + 1e-2)
