"""The sparse group lasso: few groups, and few weights within those."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from regjax import trees
from regjax.names import number
from regjax.penalties import grouping as shared
from regjax.penalties.extent import Extent, check_extent
from regjax.penalties.group import prox as shrink_groups
from regjax.penalties.group import value as group_value
from regjax.penalties.group import weights
from regjax.penalties.grouping import Grouping
from regjax.penalties.l1 import prox as soft_threshold
from regjax.penalties.l1 import value as l1_value
from regjax.types import Array, Params, Penalty

MOST_STEPS = 64  # of Newton; of groups of up to 1e5 numbers the hardest took 14


def sparse_group(
    l1_ratio: float,
    axis: Any = -1,
    groups: Any = None,
    size_weights: bool = False,
    where: Any = None,
    factors: Any = None,
) -> Penalty:
    r"""Sparse group lasso, with r = `l1_ratio`.

    .. math:: \Omega(w) = r \|w\|_1 + (1 - r) \sum_g c_g \|w_g\|_2

    r = 1 is `l1`, r = 0 is `group`. Zero is optimal iff every group has
    `|soft(g_g, lam r)| <= lam (1 - r) c_g`.

    Args:
      l1_ratio: share of the lasso, in [0, 1]; a run-time value under jit.
      axis: as of `group`.
      groups: as of `group`.
      size_weights: c_g is the square root of the group's size, not 1.
      where: which leaves; None for all but biases (see `trees.select`).
      factors: [p], one per input, that lam is multiplied by, in both parts; only
        where a group is within one input, as in `group`.

    Raises:
      ValueError: l1_ratio outside [0, 1]; the rest as of `group`.

    Source: Simon, Friedman, Hastie & Tibshirani (2013), JCGS 22.
    """
    l1_ratio = number("l1_ratio", l1_ratio)
    if not 0.0 <= l1_ratio <= 1.0:
        raise ValueError(f"l1_ratio: must be in [0, 1], got {l1_ratio:g}")
    grouping = shared.check_grouping(axis, groups, size_weights)
    shared.check_factors(grouping, factors)
    extent, where = check_extent(factors, None), trees.static_mask(where)
    selected = Partial(shared.selected, where, extent, grouping)
    bound = (grouping, extent, selected)
    dual = (Partial(_ratio, l1_ratio), *bound)
    given = {"l1_ratio": l1_ratio}
    return Penalty(
        value=Partial(_value, l1_ratio, *bound),
        prox=Partial(_prox, l1_ratio, *bound),
        lambda_max=Partial(shared.dual_norm, *dual),
        conjugate=Partial(shared.conjugate, *dual),
        pool=Partial(shared.pool, grouping, selected),
        selected=selected,
        dual_scale=Partial(shared.dual_scale, *dual),
        by_input=grouping.by_input,
        config=shared.describe("sparse_group", given, where, extent, grouping),
    )


def _value(r, grouping, extent, selected, params: Params, lam: Array) -> Array:
    def one(w: Array) -> Array:
        lasso = l1_value(w, lam * r * extent.finite_factors(w))
        return extent.inside(w, lasso + group_value(grouping, extent, w, lam * (1 - r)))

    return trees.sum_selected(one, selected(params), params)


def _prox(
    r, grouping, extent, selected, params: Params, lam: Array, step: Any
) -> Params:
    """Group soft threshold after soft threshold; steps alike in a group."""

    def one(v: Array, t: Array) -> Array:
        soft = soft_threshold(v, lam * r * extent.finite_factors(v), t)
        threshold = t * lam * (1 - r) * weights(grouping, extent, v)
        return extent.clip(shrink_groups(grouping, soft, threshold))

    return trees.map_selected(one, selected(params), params, trees.like(params, step))


def _ratio(r, grouping: Grouping, extent: Extent, g: Array) -> Array:
    r"""The lam of each group that just bears g, beside g.

    The root of :math:`\|\mathrm{soft}(g, \lambda r)\| - \lambda (1 - r) c`, which is
    convex and falls: Newton's method from below never passes it. It begins at
    :math:`\|g\| / (r \sqrt{m} + (1 - r) c)`, the root if all m numbers were alike,
    and ends where rounding does.
    """
    a, c = extent.push(g), (1 - r) * grouping.weight(g)
    size = jnp.sqrt(grouping.size(g))
    begun = grouping.norm(a) / (r * size + c)
    eps = jnp.finfo(g.dtype).eps

    def going(state: tuple[Array, Array, Array]) -> Array:
        before, lam, steps = state
        return jnp.any(lam > before * (1 + eps)) & (steps < MOST_STEPS)

    def newton(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, lam, steps = state
        left = jnp.maximum(a - lam * r, 0.0)
        norm = grouping.norm(left)
        some = norm > 0
        slope = r * grouping.sum(left) / jnp.where(some, norm, 1.0) + c
        step = (norm - lam * c) / jnp.where(some, slope, 1.0)
        return lam, jnp.where(some, jnp.maximum(lam + step, lam), lam), steps + 1

    start = (jnp.zeros_like(begun), begun, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(going, newton, start)[1]
