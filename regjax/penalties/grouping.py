"""Which numbers of a leaf are a group, and what every penalty of groups shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import trees
from regjax.penalties.extent import Extent, aligned
from regjax.penalties.extent import describe as describe_extent
from regjax.types import Array, Config, Params


class Grouping(NamedTuple):
    """Which numbers of a leaf are a group.

    Attributes:
      axis: the norm is taken over these axes; None: over all, each leaf is a group.
        Of no account where there are `numbers`.
      numbers: [p] or [p, ...] group number of each index of the first axes; None.
      count: how many groups `numbers` names.
      size_weights: whether a group's norm is multiplied by sqrt(its size).
    """

    axis: tuple[int, ...] | None
    numbers: Array | None
    count: int
    size_weights: bool

    def sum(self, w: Array) -> Array:
        """Sum over each group, beside w."""
        if self.numbers is None:
            return jnp.sum(w, axis=self.axis, keepdims=True)
        first = np.ndim(self.numbers)
        rows = jnp.sum(w, axis=tuple(range(first, w.ndim))).reshape(-1)
        at = self.numbers.reshape(-1)
        sums = jax.ops.segment_sum(rows, at, self.count)  # pyright: ignore
        found = sums[self.numbers]
        return found.reshape(found.shape + (1,) * (w.ndim - first))

    def norm(self, w: Array) -> Array:
        """Norm of each group, beside w; its gradient is 0 at 0."""
        largest = trees.largest(jnp.abs(jax.lax.stop_gradient(w)))
        usable = (largest > 0) & jnp.isfinite(largest)
        # Squares of small units would be 0; by a power of two nothing is rounded.
        _, power = jnp.frexp(jnp.where(usable, largest, 1.0))
        unit = jnp.ldexp(jnp.ones_like(largest), power - 1)
        squares = self.sum((w / unit) ** 2)
        positive = squares > 0
        roots = jnp.sqrt(jnp.where(positive, squares, 1.0))
        return jnp.where(positive, unit * roots, 0.0)

    def size(self, w: Array) -> Array:
        """How many numbers each group has, beside w."""
        return self.sum(jnp.ones_like(w))

    def weight(self, w: Array) -> Array | float:
        """1, or the square root of each group's size, beside w."""
        return jnp.sqrt(self.size(w)) if self.size_weights else 1.0

    def once(self, w: Array, numbers: Array) -> Array:
        """Sum of numbers beside w, one a group, each group counted once."""
        if self.numbers is not None:
            numbers = jnp.broadcast_to(numbers / self.size(w), w.shape)
        return jnp.sum(numbers)

    @property
    def by_input(self) -> bool:
        """Whether each group is within one input, of a leaf with several axes."""
        known = self.numbers is None and self.axis is not None
        return known and all(a == -1 or a > 0 for a in self.axis)  # pyright: ignore


def check_grouping(axis: Any, groups: Any, size_weights: bool) -> Grouping:
    """A usable Grouping.

    Args:
      axis: an int or several; None: each leaf is a group.
      groups: None; or group numbers, [p] or an array of more axes; or a list of
        lists of inputs.
      size_weights: as in `Grouping`.

    Raises:
      ValueError: of the wrong kind; a number without members; lists that overlap or
        miss an input.
    """
    axes, numbers = _axes(axis), None if groups is None else _numbers(groups)
    count = 0 if numbers is None else int(numbers.max()) + 1
    return Grouping(axes, numbers, count, bool(size_weights))


def describe(
    name: str, given: dict[str, Any], where: Any, extent: Extent, grouping: Grouping
) -> Config:
    """As `extent.describe`; None for numbers of several axes, which JSON confuses."""
    axis = None if grouping.axis is None else list(grouping.axis)
    given = {**given, "axis": axis, "size_weights": grouping.size_weights}
    if grouping.numbers is not None:
        if np.ndim(grouping.numbers) > 1:
            return None
        given["groups"] = np.asarray(grouping.numbers).tolist()
    return describe_extent(name, given, where, extent)


def _axes(axis: Any) -> tuple[int, ...] | None:
    if axis is None:
        return None
    axes = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    if not axes or not all(isinstance(a, int | np.integer) for a in axes):
        raise ValueError(f"axis: must be an int, several or None, got {axis!r}")
    return tuple(int(a) for a in axes)


def _numbers(groups: Any) -> np.ndarray:
    lists = isinstance(groups, tuple | list) and len(groups) > 0
    if lists and all(isinstance(g, Sequence | np.ndarray) for g in groups):
        return _from_lists(groups)
    try:
        numbers = np.asarray(groups)
    except ValueError:
        raise ValueError(f"groups: must be [p] whole numbers, got {groups!r}") from None
    if numbers.ndim == 0 or numbers.dtype.kind not in "iu" or numbers.size == 0:
        raise ValueError("groups: must be [p] whole numbers, one per input")
    missing = set(range(int(numbers.max()) + 1)) - set(numbers.ravel().tolist())
    if numbers.min() < 0 or missing:
        raise ValueError("groups: must be numbered 0 ... G-1, each with a member")
    return numbers.astype(np.int32)


def _from_lists(groups: Sequence[Any]) -> np.ndarray:
    """[p] numbers of lists of inputs that are a partition of 0 ... p-1."""
    members = [np.asarray(g) for g in groups]
    for g, inputs in enumerate(members):
        if inputs.ndim != 1 or inputs.size == 0 or inputs.dtype.kind not in "iu":
            raise ValueError(f"groups: list {g} must be whole numbers, one or more")
    everyone = np.concatenate(members)
    if everyone.min() < 0:
        raise ValueError(f"groups: inputs are numbered from 0, got {everyone.min()}")
    count = np.bincount(everyone)
    if np.any(count > 1):
        raise ValueError(f"groups: input {np.argmax(count > 1)} is in two groups")
    if np.any(count == 0):
        raise ValueError(f"groups: input {np.argmax(count == 0)} is in no group")
    return np.repeat(np.arange(len(members)), [len(m) for m in members])[
        np.argsort(everyone)
    ].astype(np.int32)


def check_factors(grouping: Grouping, factors: Any) -> None:
    """Refuse factors where a group may span inputs.

    Raises:
      ValueError: it may.
    """
    axes = grouping.axis
    if factors is not None and (
        grouping.numbers is not None or axes is None or 0 in axes
    ):
        raise ValueError("factors: a group must be within one input (axis=-1)")


def selected(where: Any, extent: Extent, grouping: Grouping, params: Params) -> Params:
    """The leaves that `where` chooses; a ValueError where the groups do not fit."""
    chosen = trees.select(params, where)
    extent.check(chosen, params)
    pairs = zip(jax.tree.leaves(chosen), jax.tree.leaves(params), strict=True)
    paths = trees.key_paths(params)
    for path, (on, w) in zip(paths, pairs, strict=True):
        if on:
            _check_leaf(path, np.shape(w), extent, grouping)
    return chosen


def _check_leaf(
    path: str, shape: tuple[int, ...], extent: Extent, grouping: Grouping
) -> None:
    axes, numbers = grouping.axis, grouping.numbers
    if numbers is not None:
        given = list(np.shape(numbers))
        if list(shape[: len(given)]) != given:
            raise ValueError(_misfit(path, list(shape), given))
    elif axes is not None and not _fits(axes, len(shape)):
        raise ValueError(f"axis: {axes} does not fit shape {list(shape)} of {path}")
    elif axes is not None and extent.factors is not None:
        if 0 in {a % len(shape) for a in axes}:
            raise ValueError("factors: a group must be within one input (axis=-1)")


def _misfit(path: str, shape: list[int], given: list[int]) -> str:
    has, choose = f"but {path} has shape {shape}", "choose the leaf by where="
    if len(given) > 1 or not shape:
        return f"groups: has shape {given}, {has}; {choose}"
    less = f"input {given[0]} is in no group" if given[0] < shape[0] else choose
    return f"groups: has {given[0]} numbers, {has}: {less}"


def _fits(axes: tuple[int, ...], ndim: int) -> bool:
    inside = all(-ndim <= a < ndim for a in axes)
    return inside and len({a % ndim for a in axes}) == len(axes)


def pool(grouping: Grouping, selected: Callable, tree: Params) -> Params:
    """Every number becomes the mean of its group."""

    def one(w: Array) -> Array:
        return jnp.broadcast_to(grouping.sum(w) / grouping.size(w), w.shape)

    return trees.map_selected(one, selected(tree), tree)


def dual_norm(
    ratio: Callable, grouping: Grouping, extent: Extent, selected: Callable, z: Params
) -> Array:
    """Smallest lam that bears z: the largest `ratio(grouping, extent, leaf)`, []."""

    def one(leaf: Array) -> Array:
        return jnp.max(ratio(grouping, extent, leaf), initial=0.0)

    return trees.max_selected(one, selected(z), z)


def dual_scale(
    ratio: Callable,
    grouping: Grouping,
    extent: Extent,
    selected: Callable,
    z: Params,
    lam: Array,
) -> Array:
    """`min(1, lam / dual_norm(z))`, and 0 where z is not 0 in what is free."""

    def one(z: Array) -> Array:
        if extent.factors is None:
            return jnp.zeros((), bool)
        free = aligned(extent.factors, z) == 0
        return jnp.any(free & (z != 0))

    stuck = trees.max_selected(one, selected(z), z)
    largest = dual_norm(ratio, grouping, extent, selected, z)
    over = largest > lam
    scale = jnp.where(over, lam / jnp.where(over, largest, 1.0), 1.0)
    return jnp.where(stuck, 0.0, scale).astype(largest.dtype)


def conjugate(
    ratio: Callable,
    grouping: Grouping,
    extent: Extent,
    selected: Callable,
    z: Params,
    lam: Array,
) -> Array:
    """0 where z is within the dual ball, rounding forgiven; else inf."""
    scale = dual_scale(ratio, grouping, extent, selected, z, lam)
    rounding = 8 * jnp.finfo(scale.dtype).eps
    return jnp.where(scale >= 1 - rounding, 0.0, jnp.inf).astype(scale.dtype)
