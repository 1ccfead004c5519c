"""The group lasso: whole groups of weights are zero, or none of them is."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

from regjax import trees
from regjax.penalties import grouping as shared
from regjax.penalties.extent import Extent, check_extent
from regjax.penalties.grouping import Grouping
from regjax.types import Array, Params, Penalty


def group(
    axis: Any = -1,
    groups: Any = None,
    size_weights: bool = False,
    where: Any = None,
    factors: Any = None,
) -> Penalty:
    r"""Group lasso: :math:`\Omega(w) = \sum_g c_g \|w_g\|_2`.

    By default a group is an input's row: all classes of a softmax regression
    (glmnet's `type.multinomial = "grouped"`), all outgoing weights of a network's
    input. Zero is optimal iff `max_g |g_g| / c_g <= lam`.

    Args:
      axis: the norm is taken over these axes of each leaf: -1 an input's row, 0 a
        unit's incoming weights, (0, 1, 2) a convolution's filters; None: each leaf
        is one group.
      groups: which inputs go together, instead of axis: [p] group numbers 0 ... G-1
        of the first axis, or a list of lists of inputs. An array of more axes
        numbers the first axes of a leaf, up to single weights (an attention head's
        columns, say); such a penalty is not kept in files.
      size_weights: c_g is the square root of the group's size, not 1.
      where: which leaves; None for all but biases (see `trees.select`). A group
        never spans two leaves.
      factors: [p], one per input, as in `l1`; only where a group is within one
        input (axis does not hold the first axis, no groups).

    Raises:
      ValueError: axis or groups of the wrong kind, a group number without members,
        lists that overlap or miss an input, factors across groups.

    Source: Yuan & Lin (2006), JRSS-B 68.
    """
    grouping = shared.check_grouping(axis, groups, size_weights)
    shared.check_factors(grouping, factors)
    extent, where = check_extent(factors, None), trees.static_mask(where)
    selected = Partial(shared.selected, where, extent, grouping)
    bound = (grouping, extent, selected)
    dual = (Partial(_ratio), *bound)
    return Penalty(
        value=Partial(_value, *bound),
        prox=Partial(_prox, *bound),
        lambda_max=Partial(shared.dual_norm, *dual),
        conjugate=Partial(shared.conjugate, *dual),
        pool=Partial(shared.pool, grouping, selected),
        selected=selected,
        dual_scale=Partial(shared.dual_scale, *dual),
        by_input=grouping.by_input,
        config=shared.describe("group", {}, where, extent, grouping),
    )


def weights(grouping: Grouping, extent: Extent, w: Array) -> Array | float:
    """c_g beside w: size and factor."""
    return grouping.weight(w) * extent.finite_factors(w)


def value(grouping: Grouping, extent: Extent, w: Array, lam: Array) -> Array:
    """`lam sum_g c_g |w_g|` of a leaf, [], whatever is excluded."""
    norms = weights(grouping, extent, w) * grouping.norm(w)
    return lam * grouping.once(w, norms)


def prox(grouping: Grouping, v: Array, threshold: Array) -> Array:
    r"""Block soft-thresholding.

    .. math:: \arg\min_w \tfrac12 \|w - v\|_2^2 + \sum_g t_g \|w_g\|_2
              = v_g \max(1 - t_g / \|v_g\|_2, 0)

    Args:
      grouping: of v.
      v: [...] point to shrink.
      threshold: beside v, alike in a group: step * lam * c_g.

    Returns:
      [...], exactly 0 in groups with `|v_g| <= t_g`.
    """
    norm = grouping.norm(v)
    kept = norm > threshold
    return v * jnp.where(kept, 1 - threshold / jnp.where(kept, norm, 1.0), 0.0)


def _value(grouping, extent, selected, params: Params, lam: Array) -> Array:
    def one(w: Array) -> Array:
        return extent.inside(w, value(grouping, extent, w, lam))

    return trees.sum_selected(one, selected(params), params)


def _prox(grouping, extent, selected, params: Params, lam: Array, step: Any) -> Params:
    def one(v: Array, t: Array) -> Array:
        threshold = t * lam * weights(grouping, extent, v)
        return extent.clip(prox(grouping, v, threshold))

    return trees.map_selected(one, selected(params), params, trees.like(params, step))


def _ratio(grouping: Grouping, extent: Extent, g: Array) -> Array:
    """Norm of each group over its weight; 0 where free or excluded."""
    return grouping.norm(extent.push(g)) / grouping.weight(g)
