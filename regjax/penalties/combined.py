"""A sum of penalties: one for each leaf, and ridges on any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from regjax import trees
from regjax.penalties.scaled import check_penalty
from regjax.types import Array, Params, Penalty

HUGE = 1e12  # as a lam and a step, whose product is within float32


class Terms(NamedTuple):
    """The terms of a sum.

    Attributes:
      main: penalties of which no two share a leaf.
      squares: plain `l2`, on any leaves.
    """

    main: tuple[Penalty, ...]
    squares: tuple[Penalty, ...]


def combined(*penalties: Penalty) -> Penalty:
    r"""Sum of penalties, of which each leaf has one, and any number of `l2`.

    A plain l2 (no bounds, nothing excluded) with weight m bends the other penalty f
    of its leaf:

    .. math:: \mathrm{prox}_{t (f + \frac{m}{2} \|\cdot\|^2)}(v)
              = \mathrm{prox}_{\frac{t}{1 + t m} f}\left( \frac{v}{1 + t m} \right)

    .. math:: \left(f + \tfrac m2 \|\cdot\|^2\right)^*(z) = f^*(u) + \tfrac m2 \|w\|^2,
              \quad w = \mathrm{prox}_{f / m}(z / m), \quad u = z - m w

    Both are exact. Beside a penalty of groups an l2 must be the same all over a
    group: on all of that penalty's leaves or none, and with factors only where a
    group is within one input.

    Args:
      *penalties: with `where` that do not overlap, but for l2; see `scaled` for
        another ratio of lam in another layer.

    Returns:
      A Penalty, convex if all of them are; with a conjugate if all have one; kept in
      files if all are.

    Raises:
      ValueError: nothing to add, no Penalty; once params are seen, two penalties that
        are not plain l2 on one leaf, or an l2 that differs within a group.
    """
    if not penalties:
        raise ValueError("penalties: nothing to add")
    configs = [check_penalty("penalties", p).config for p in penalties]
    # A config in the tree would be numbers to trace.
    bare = [p._replace(config=None) for p in penalties]
    terms = Terms(
        tuple(p for p in bare if p.squares is None),
        tuple(p for p in bare if p.squares is not None),
    )
    selected = Partial(_selected, terms)
    known = all(p.conjugate is not None for p in terms.main)
    scalable = known and all(p.dual_scale is not None for p in terms.main)
    pooled = any(p.pool is not None for p in terms.main)
    bound = (terms, selected)
    return Penalty(
        value=Partial(_value, *bound),
        prox=Partial(_prox, *bound),
        lambda_max=Partial(_lambda_max, *bound),
        conjugate=Partial(_conjugate, *bound) if known else None,
        pool=Partial(_pool, *bound) if pooled else None,
        convex=all(p.convex for p in penalties),
        selected=selected,
        dual_scale=Partial(_dual_scale, *bound) if scalable else None,
        by_input=all(p.by_input for p in penalties),
        config=None if None in configs else ("combined", {"penalties": configs}),
    )


def _chosen(penalty: Penalty, params: Params) -> list[bool]:
    return jax.tree.leaves((penalty.selected or trees.select)(params))


def _selected(terms: Terms, params: Params) -> Params:
    """Leaves of any term; an error where two terms do not go together."""
    paths = trees.key_paths(params)
    main = [_chosen(p, params) for p in terms.main]
    squares = [_chosen(p, params) for p in terms.squares]
    for path, *several in zip(paths, *main, strict=True):
        if sum(several) > 1:
            raise ValueError(
                f"where: two penalties of a sum choose {path}; only a plain l2 goes "
                "beside another"
            )
    for penalty, on in zip(terms.main, main, strict=True):
        if penalty.pool is not None:
            _check_alike(penalty, on, terms.squares, squares, params)
    every = zip(*main, *squares, strict=True)
    return jax.tree.structure(params).unflatten([any(one) for one in every])


def _check_alike(
    groups: Penalty,
    on: Sequence[bool],
    squares: Sequence[Penalty],
    chosen: Sequence[Sequence[bool]],
    params: Params,
) -> None:
    """Refuse an l2 that may differ within a group."""
    leaves = [
        w for w, inside in zip(jax.tree.leaves(params), on, strict=True) if inside
    ]
    within = groups.by_input and all(w.ndim > 1 for w in leaves)
    for l2, its in zip(squares, chosen, strict=True):
        both = [a for a, inside in zip(its, on, strict=True) if inside]
        if any(both) and not all(both):
            raise ValueError(
                "where: an l2 beside a penalty of groups must be on all of that "
                "penalty's leaves or none"
            )
        numbers = jax.tree.leaves(l2.squares(params, 1.0))  # pyright: ignore
        alike = all(jnp.ndim(m) == 0 for m in numbers)
        if any(both) and not (alike or within):
            raise ValueError(
                "factors: an l2 beside groups that span inputs can have none"
            )


def _squares(terms: Terms, params: Params, lam: Any) -> Params:
    """m of each leaf, [] or beside it, summed over the terms."""
    each = [p.squares(params, lam) for p in terms.squares]  # pyright: ignore
    return jax.tree.map(lambda _, *m: sum(m, start=0.0), params, *each)


def _value(terms: Terms, selected, params: Params, lam: Array) -> Array:
    selected(params)
    every = (*terms.main, *terms.squares)
    return sum((p.value(params, lam) for p in every), start=0.0)  # pyright: ignore


def _main_prox(terms: Terms, params: Params, lam: Any, step: Any) -> Params:
    for penalty in terms.main:
        params = penalty.prox(params, lam, step)
    return params


def _prox(terms: Terms, selected, params: Params, lam: Array, step: Any) -> Params:
    selected(params)
    if not terms.squares:
        return _main_prox(terms, params, lam, step)
    bend = jax.tree.map(
        lambda m, t: 1 + t * m, _squares(terms, params, lam), trees.like(params, step)
    )
    step = jax.tree.map(jnp.divide, trees.like(params, step), bend)
    return _main_prox(terms, jax.tree.map(jnp.divide, params, bend), lam, step)


def _lambda_max(terms: Terms, selected, grad: Params) -> Array:
    """The largest of the terms'; inf if an l2 alone is to hold a nonzero gradient."""
    chosen = selected(grad)
    found = [p.lambda_max(grad) for p in terms.main]
    if terms.squares:
        tiny = jax.tree.map(lambda g: -jnp.sign(g) / HUGE, grad)
        moved = _main_prox(terms, tiny, HUGE, HUGE)
        held = _squares(terms, grad, 1.0)

        def one(g: Array, before: Array, after: Array, m: Array) -> Array:
            alone = (g != 0) & (after == before) & (m > 0)
            return jnp.where(jnp.any(alone), jnp.inf, 0.0).astype(g.dtype)

        each = trees.map_selected(one, chosen, grad, tiny, moved, held)
        found.append(trees.max_selected(lambda a: a, chosen, each))
    return jnp.max(jnp.stack(found))


def _pool(terms: Terms, selected, tree: Params) -> Params:
    selected(tree)
    for penalty in terms.main:
        tree = tree if penalty.pool is None else penalty.pool(tree)
    return tree


class _Split(NamedTuple):
    """z, where an l2 bends the penalty and where none does.

    Attributes:
      m: of each leaf, [] or beside it.
      bent: z where m > 0, else 0.
      plain: z where m = 0, else 0.
      stuck: [] whether z is not 0 where an l2 with m = 0 is all there is.
    """

    m: Params
    bent: Params
    plain: Params
    stuck: Array


def _split(terms: Terms, selected, z: Params, lam: Array) -> _Split:
    m = _squares(terms, z, lam)
    bent = jax.tree.map(lambda m, z: jnp.where(m > 0, z, 0.0), m, z)
    plain = jax.tree.map(lambda m, z: jnp.where(m > 0, 0.0, z), m, z)
    every = jax.tree.leaves(selected(z))
    main = zip(*[_chosen(p, z) for p in terms.main], strict=True)
    main = [any(one) for one in main] if terms.main else [False] * len(every)
    leaves = zip(jax.tree.leaves(plain), every, main, strict=True)
    stuck = [jnp.any(leaf != 0) for leaf, on, other in leaves if on and not other]
    return _Split(m, bent, plain, jnp.any(jnp.array([False, *stuck])))


def _conjugate(terms: Terms, selected, z: Params, lam: Array) -> Array:
    if not terms.squares:
        selected(z)
        return sum((p.conjugate(z, lam) for p in terms.main), start=0.0)  # pyright: ignore
    m, bent, plain, stuck = _split(terms, selected, z, lam)
    value = sum((p.conjugate(plain, lam) for p in terms.main), start=0.0)  # pyright: ignore
    safe = jax.tree.map(lambda m: jnp.where(m > 0, m, 1.0), m)
    start = jax.tree.map(jnp.divide, bent, safe)
    w = _main_prox(terms, start, lam, jax.tree.map(lambda m: 1 / m, safe))
    u = jax.tree.map(lambda z, m, w: z - m * w, bent, m, w)
    # f*(u) = <u, w> - f(w), which is 0 for a norm: so without the cancellation of
    # <z, w> - f(w) - m/2 |w|^2, and not below 0 by rounding.
    beyond = trees.vdot(u, w) - sum((p.value(w, lam) for p in terms.main), start=0.0)
    # In this order, since w**2 may be beyond the dtype.
    halves = jax.tree.map(lambda m, w: trees.total(0.5 * w * (m * w)), m, w)
    value = value + jnp.maximum(beyond, 0.0) + sum(jax.tree.leaves(halves))
    return jnp.where(stuck | jnp.isnan(value), jnp.inf, value)


def _dual_scale(terms: Terms, selected, z: Params, lam: Array) -> Array:
    if not terms.squares:
        selected(z)
        return jnp.min(jnp.stack([p.dual_scale(z, lam) for p in terms.main]))  # pyright: ignore
    _, _, plain, stuck = _split(terms, selected, z, lam)
    scales = [p.dual_scale(plain, lam) for p in terms.main]  # pyright: ignore
    alone = jnp.where(stuck, 0.0, 1.0)
    return jnp.min(jnp.stack([*scales, alone.astype(jnp.result_type(*scales, lam))]))
