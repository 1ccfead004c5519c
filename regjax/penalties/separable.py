"""From a penalty of one coordinate to a penalty of the selected leaves of a pytree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial

from regjax import trees
from regjax.penalties.extent import Extent, check_extent, describe
from regjax.types import Array, Params, Penalty


class Parts(NamedTuple):
    """A penalty of one coordinate, and what it takes besides w and lam.

    Attributes:
      value: `value(w, lam, *numbers) -> []`.
      prox: `prox(w, lam, step, *numbers) -> array`; lam and step broadcast.
      lambda_max: `lambda_max(g, *numbers) -> []`.
      numbers: run-time values under jit.
      split: `split(lam, *numbers) -> (t1, t2)` where the penalty is
        `t1 |w| + t2/2 w^2`; None where it is not, and then it is not convex and
        there are no bounds and no conjugate.
    """

    value: Callable[..., Array]
    prox: Callable[..., Array]
    lambda_max: Callable[..., Array]
    numbers: tuple[Any, ...] = ()
    split: Callable[..., tuple[Array, Array]] | None = None


def separable(
    name: str,
    parts: Parts,
    arguments: dict[str, Any],
    where: Any,
    factors: Any = None,
    bounds: Any = None,
) -> Penalty:
    """Sum a penalty of one coordinate over the selected leaves.

    Args:
      name: of the penalty, in the registry.
      parts: the penalty of one coordinate.
      arguments: that build it again, besides the following.
      where: which leaves, see `trees.select`.
      factors: [p] or None, see `extent.check_extent`.
      bounds: (low, high) or None, see `extent.check_extent`.

    Returns:
      The Penalty of a pytree.
    """
    extent = check_extent(factors, bounds)
    where = trees.static_mask(where)
    selected = Partial(_selected, where, extent)
    # Functions as Partial without arguments: part of the program, compared by value.
    parts = Parts(*(Partial(f) if callable(f) else f for f in parts))  # pyright: ignore
    bound = (parts, extent, selected)
    known = None if parts.split is None else bound
    return Penalty(
        value=Partial(_value, *bound),
        prox=Partial(_prox, *bound),
        lambda_max=Partial(_lambda_max, *bound),
        conjugate=known and Partial(_conjugate, *known),
        convex=known is not None,
        dual_scale=known and Partial(_dual_scale, *known),
        selected=selected,
        by_input=True,
        config=describe(name, arguments, where, extent),
    )


def _selected(where: Any, extent: Extent, params: Params) -> Params:
    chosen = trees.select(params, where)
    extent.check(chosen, params)
    return chosen


def _value(parts, extent, selected, params: Params, lam: Array) -> Array:
    def one(w: Array) -> Array:
        value = parts.value(w, lam * extent.finite_factors(w), *parts.numbers)
        return extent.inside(w, value)

    return trees.sum_selected(one, selected(params), params)


def _prox(parts, extent, selected, params: Params, lam: Array, step: Any) -> Params:
    def one(v: Array, t: Array) -> Array:
        w = parts.prox(v, lam * extent.finite_factors(v), t, *parts.numbers)
        return extent.clip(w)

    return trees.map_selected(one, selected(params), params, trees.like(params, step))


def _lambda_max(parts, extent, selected, grad: Params) -> Array:
    def one(g: Array) -> Array:
        return parts.lambda_max(extent.push(g), *parts.numbers)

    return trees.max_selected(one, selected(grad), grad)


def _conjugate(parts, extent, selected, z: Params, lam: Array) -> Array:
    def one(z: Array) -> Array:
        beyond, t2 = _beyond(parts, extent, z, lam)
        # The maximiser, |w| = beyond / t2, as far as the bounds let it go.
        w = jnp.minimum(jnp.where(t2 > 0, beyond / t2, jnp.inf), extent.side(z))
        # In this order, since w**2 may be beyond the dtype.
        value = w * jnp.where(t2 > 0, beyond - 0.5 * t2 * w, beyond)
        return trees.total(jnp.where(beyond > 0, value, 0.0))

    return trees.sum_selected(one, selected(z), z)


def _dual_scale(parts, extent, selected, z: Params, lam: Array) -> Array:
    def one(z: Array) -> Array:
        beyond, t2 = _beyond(parts, extent, z, lam)
        infinite = (beyond > 0) & (t2 == 0) & jnp.isinf(extent.side(z))
        t1, _ = parts.split(lam * extent.finite_factors(z), *parts.numbers)
        share = t1 / jnp.where(infinite, jnp.abs(z), 1.0)
        return trees.largest(jnp.where(infinite, -share, -1.0), least=-1.0)

    return -trees.max_selected(one, selected(z), z)


def _beyond(parts, extent, z: Array, lam: Array) -> tuple[Array, Array]:
    """`max(|z| - t1, 0)`, rounding forgiven, and t2."""
    t1, t2 = parts.split(lam * extent.finite_factors(z), *parts.numbers)
    beyond = jnp.abs(z) - t1
    rounding = 8 * jnp.finfo(z.dtype).eps * t1
    return jnp.where(beyond > rounding, beyond, 0.0), jnp.broadcast_to(t2, z.shape)
