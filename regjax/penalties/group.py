"""The group lasso: whole groups of weights are zero, or none of them is."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from regjax import trees
from regjax.penalties.extent import Extent, aligned, check_extent, describe
from regjax.types import Array, Params, Penalty


class Grouping(NamedTuple):
    """Which numbers of a leaf are a group.

    Attributes:
      axis: the norm is taken over these axes; None where `numbers` tells.
      numbers: [p] group number of each index of the first axis.
      count: how many groups `numbers` names.
      size_weights: whether a group's norm is multiplied by sqrt(its size).
    """

    axis: tuple[int, ...] | None
    numbers: Array | None
    count: int
    size_weights: bool

    def sum(self, w: Array) -> Array:
        """Sum over each group, beside w."""
        if self.axis is not None:
            return jnp.sum(w, axis=self.axis, keepdims=True)
        rows = jnp.sum(w, axis=tuple(range(1, w.ndim)))
        sums = jax.ops.segment_sum(rows, self.numbers, self.count)  # pyright: ignore
        return aligned(sums[self.numbers], w)

    def norm(self, w: Array) -> Array:
        """Norm of each group, beside w; its gradient is 0 at 0."""
        squares = self.sum(w**2)
        positive = squares > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)

    def weight(self, w: Array) -> Array | float:
        """1, or the square root of each group's size, beside w."""
        return jnp.sqrt(self.sum(jnp.ones_like(w))) if self.size_weights else 1.0

    def shared(self, w: Array) -> Array:
        """One number per number in w, to count each group once."""
        return (
            self.sum(jnp.ones_like(w)) if self.axis is None else jnp.ones((), w.dtype)
        )


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
        unit's incoming weights, (0, 1, 2) a convolution's filters.
      groups: [p] group numbers 0 ... G-1 of the first axis, instead of axis.
      size_weights: c_g is the square root of the group's size, not 1.
      where: which leaves; None for all but biases (see `trees.select`).
      factors: [p], one per input, as in `l1`; only where a group is within one
        input (axis does not hold the first axis, no groups).

    Raises:
      ValueError: axis or groups of the wrong kind, a group number without members,
        factors across groups.

    Source: Yuan & Lin (2006), JRSS-B 68.
    """
    axes, numbers = _axes(axis), None
    arguments: dict[str, Any] = {"axis": list(axes), "size_weights": bool(size_weights)}
    if groups is not None:
        axes, numbers = None, _group_numbers(groups)
        arguments["groups"] = numbers.tolist()
    if factors is not None and (axes is None or 0 in axes):
        raise ValueError("factors: a group must be within one input (axis=-1)")
    count = 0 if numbers is None else int(numbers.max()) + 1
    grouping = Grouping(axes, numbers, count, bool(size_weights))
    extent, where = check_extent(factors, None), trees.static_mask(where)
    selected = Partial(_selected, where, extent, grouping)
    bound = (grouping, extent, selected)
    return Penalty(
        value=Partial(_value, *bound),
        prox=Partial(_prox, *bound),
        lambda_max=Partial(_lambda_max, *bound),
        conjugate=Partial(_conjugate, *bound),
        pool=Partial(_pool, *bound),
        selected=selected,
        dual_scale=Partial(_dual_scale, *bound),
        by_input=axes is not None and all(a not in (0, -2) for a in axes),
        config=describe("group", arguments, where, extent),
    )


def _axes(axis: Any) -> tuple[int, ...]:
    axes = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    if not axes or not all(isinstance(a, int | np.integer) for a in axes):
        raise ValueError(f"axis: must be an int or several, got {axis!r}")
    return tuple(int(a) for a in axes)


def _group_numbers(groups: Any) -> np.ndarray:
    try:
        numbers = np.asarray(groups)
    except ValueError:
        raise ValueError(f"groups: must be [p] whole numbers, got {groups!r}") from None
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.size == 0:
        raise ValueError("groups: must be [p] whole numbers, one per input")
    missing = set(range(int(numbers.max()) + 1)) - set(numbers.tolist())
    if numbers.min() < 0 or missing:
        raise ValueError("groups: must be numbered 0 ... G-1, each with a member")
    return numbers.astype(np.int32)


def _selected(where: Any, extent: Extent, grouping: Grouping, params: Params) -> Params:
    chosen = trees.select(params, where)
    extent.check(chosen, params)
    pairs = zip(jax.tree.leaves(chosen), jax.tree.leaves(params), strict=True)
    for leaf in (np.shape(w) for on, w in pairs if on):
        if grouping.axis is not None and not _fits(grouping.axis, len(leaf)):
            raise ValueError(f"axis: {grouping.axis} does not fit shape {list(leaf)}")
        across = grouping.axis is not None and 0 in {
            a % len(leaf) for a in grouping.axis
        }
        if extent.factors is not None and across:
            raise ValueError("factors: a group must be within one input (axis=-1)")
        if grouping.numbers is not None and leaf[:1] != np.shape(grouping.numbers):
            length = len(grouping.numbers)
            raise ValueError(
                f"groups: has {length} numbers, but a leaf has shape {list(leaf)}"
            )
    return chosen


def _fits(axes: tuple[int, ...], ndim: int) -> bool:
    inside = all(-ndim <= a < ndim for a in axes)
    return inside and len({a % ndim for a in axes}) == len(axes)


def _weights(grouping: Grouping, extent: Extent, w: Array) -> Array | float:
    return grouping.weight(w) * extent.finite_factors(w)


def _value(grouping, extent, selected, params: Params, lam: Array) -> Array:
    def one(w: Array) -> Array:
        norms = _weights(grouping, extent, w) * grouping.norm(w)
        rows = jnp.broadcast_to(norms / grouping.shared(w), _rows(grouping, w, norms))
        return extent.inside(w, lam * jnp.sum(rows))

    return trees.sum_selected(one, selected(params), params)


def _rows(grouping: Grouping, w: Array, norms: Array) -> tuple[int, ...]:
    """The shape over which a sum counts `norms / shared` once a group."""
    return norms.shape if grouping.axis is not None else w.shape


def _prox(grouping, extent, selected, params: Params, lam: Array, step: Any) -> Params:
    def one(v: Array, t: Array) -> Array:
        norm = grouping.norm(v)
        threshold = t * lam * _weights(grouping, extent, v)
        kept = norm > threshold
        share = jnp.where(kept, 1 - threshold / jnp.where(kept, norm, 1.0), 0.0)
        return extent.clip(v * share)

    return trees.map_selected(one, selected(params), params, trees.like(params, step))


def _ratio(grouping: Grouping, extent: Extent, g: Array) -> Array:
    """Norm of each group over its weight; 0 where free or excluded."""
    pushed = jnp.where(extent.side(g) > 0, g, 0.0)
    c = jnp.broadcast_to(jnp.asarray(_weights(grouping, extent, g), g.dtype), g.shape)
    norm = jnp.broadcast_to(grouping.norm(pushed), g.shape)
    return jnp.where(c > 0, norm / jnp.where(c > 0, c, 1.0), 0.0)


def _lambda_max(grouping, extent, selected, grad: Params) -> Array:
    def one(g: Array) -> Array:
        return jnp.max(_ratio(grouping, extent, g), initial=0.0)

    return trees.max_selected(one, selected(grad), grad)


def _dual_scale(grouping, extent, selected, z: Params, lam: Array) -> Array:
    def one(z: Array) -> Array:
        free = jnp.asarray(_weights(grouping, extent, z)) == 0
        stuck = jnp.any(free & (jnp.where(extent.side(z) > 0, z, 0.0) != 0))
        return jnp.where(
            stuck, jnp.inf, jnp.max(_ratio(grouping, extent, z), initial=0.0)
        )

    largest = trees.max_selected(one, selected(z), z)
    over = largest > lam
    return jnp.where(over, lam / jnp.where(over, largest, 1.0), jnp.ones_like(largest))


def _conjugate(grouping, extent, selected, z: Params, lam: Array) -> Array:
    scale = _dual_scale(grouping, extent, selected, z, lam)
    rounding = 8 * jnp.finfo(scale.dtype).eps
    return jnp.where(scale >= 1 - rounding, 0.0, jnp.inf).astype(scale.dtype)


def _pool(grouping, extent, selected, tree: Params) -> Params:
    def one(w: Array) -> Array:
        mean = grouping.sum(w) / grouping.sum(jnp.ones_like(w))
        return jnp.broadcast_to(mean, w.shape)

    return trees.map_selected(one, selected(tree), tree)
