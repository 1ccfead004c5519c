"""Penalty factors and bounds: how strongly each input is penalised, how far it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import trees
from regjax.types import Array, Config, Params, Penalty


class Extent(NamedTuple):
    """Factors and bounds, each None, [] or [p], aligned with a leaf's first axis.

    Attributes:
      factors: what lam is multiplied by; 0: not penalised, inf: excluded.
      low: least value of a coefficient, <= 0.
      high: greatest value, >= 0.
    """

    factors: Array | None = None
    low: Array | None = None
    high: Array | None = None

    @property
    def bounded(self) -> bool:
        """Whether there are bounds."""
        return self.low is not None

    @property
    def excludes(self) -> bool:
        """Whether some factor is inf."""
        return self.factors is not None and bool(np.any(np.isinf(self.factors)))

    def at(self, rows: np.ndarray) -> Extent:
        """Of some inputs only, [m] of them."""
        one = (a if a is None or np.ndim(a) == 0 else a[rows] for a in self)
        return Extent(*one)

    def check(self, chosen: Params, params: Params) -> None:
        """Refuse selected leaves whose first axis they do not fit.

        Raises:
          ValueError: with the key path and both lengths.
        """
        given = [("factors", self.factors), ("bounds", self.low), ("bounds", self.high)]
        lengths = [
            (name, np.shape(a)[0]) for name, a in given if a is not None and np.ndim(a)
        ]
        paths, leaves = trees.key_paths(params), jax.tree.leaves(params)
        for path, leaf, on in zip(paths, leaves, jax.tree.leaves(chosen), strict=True):
            rows = np.shape(leaf)[0] if np.ndim(leaf) else None
            for name, length in lengths:
                if on and rows != length:
                    raise ValueError(
                        f"{name}: has {length} numbers, but {path} has shape "
                        f"{list(np.shape(leaf))}: one per input is needed (choose "
                        "the leaves by where=)"
                    )

    def finite_factors(self, w: Array) -> Array | float:
        """Factors beside w, 1 where excluded (there w is 0)."""
        if self.factors is None:
            return 1.0
        c = aligned(self.factors, w)
        return jnp.where(jnp.isinf(c), 1.0, c)

    def clip(self, w: Array) -> Array:
        """Into the bounds; what is excluded to 0."""
        if self.bounded:
            w = jnp.clip(w, aligned(self.low, w), aligned(self.high, w))
        if self.factors is not None:
            w = jnp.where(jnp.isinf(aligned(self.factors, w)), 0.0, w)
        return w

    def inside(self, w: Array, value: Array) -> Array:
        """The value; inf where w is out of bounds, or not 0 where excluded."""
        if self.bounded:
            kept = (w >= aligned(self.low, w)) & (w <= aligned(self.high, w))
            value = jnp.where(jnp.all(kept), value, jnp.inf)
        if self.factors is not None:
            out = jnp.isinf(aligned(self.factors, w)) & (w != 0)
            value = jnp.where(jnp.any(out), jnp.inf, value)
        return value

    def side(self, z: Array) -> Array:
        """How far w may go in the direction of z, in [0, inf]."""
        room = jnp.full(z.shape, jnp.inf, z.dtype)
        if self.bounded:
            high, low = aligned(self.high, z), aligned(self.low, z)
            room = jnp.where(z > 0, high, -low).astype(z.dtype)
        if self.factors is not None:
            room = jnp.where(jnp.isinf(aligned(self.factors, z)), 0.0, room)
        return room

    def push(self, g: Array) -> Array:
        """How hard a gradient at 0 pushes, per unit of factor; 0 where free."""
        size = jnp.where(self.side(-g) > 0, jnp.abs(g), 0.0)
        if self.factors is None:
            return size
        c = aligned(self.factors, g)
        return jnp.where(c > 0, size / jnp.where(c > 0, c, 1.0), 0.0)


def of_inputs(penalty: Penalty, rows: np.ndarray) -> Penalty:
    """A penalty that is `by_input`, of the inputs [m] only."""
    return _with_extents(penalty, lambda extent: extent.at(rows))


def with_bounds_times(penalty: Penalty, scale: np.ndarray) -> Penalty:
    """A penalty whose bounds are multiplied by scale, [p]."""

    def one(extent: Extent) -> Extent:
        if not extent.bounded:
            return extent
        return extent._replace(low=extent.low * scale, high=extent.high * scale)

    return _with_extents(penalty, one)


def is_bounded(penalty: Penalty) -> bool:
    """Whether any part of it has bounds."""
    parts = jax.tree.leaves(penalty._replace(config=None), is_leaf=_is_extent)
    return any(_is_extent(part) and part.bounded for part in parts)


def _with_extents(penalty: Penalty, change: Callable[[Extent], Extent]) -> Penalty:
    return jax.tree.map(
        lambda part: change(part) if _is_extent(part) else part,
        penalty._replace(config=None),
        is_leaf=_is_extent,
    )


def _is_extent(part: Any) -> bool:
    return isinstance(part, Extent)


def aligned(numbers: Any, w: Array) -> Array:
    """[] or [p] as [p, 1, ...] beside w [p, ...]."""
    numbers = jnp.asarray(numbers, w.dtype)
    ones = (1,) * (w.ndim - 1)
    return numbers.reshape(numbers.shape + ones) if numbers.ndim else numbers


def check_extent(factors: Any, bounds: Any) -> Extent:
    """Usable factors and bounds.

    Args:
      factors: [p], >= 0, 0 for not penalised, inf for excluded; None for 1. As
        given, not rescaled to a sum of p as glmnet does.
      bounds: (low, high), each [] or [p], low <= 0 <= high, infinite for none;
        None for no bounds.

    Raises:
      ValueError: factors negative, NaN, or all 0 or inf; bounds that exclude 0.
    """
    if factors is not None:
        factors = _numbers("factors", factors)
        if factors.ndim != 1 or factors.size == 0:
            raise ValueError(f"factors: must be [p], got shape {list(factors.shape)}")
        if not np.all(factors >= 0):
            raise ValueError("factors: must be >= 0, got a negative number or NaN")
        if np.all((factors == 0) | np.isinf(factors)):
            raise ValueError("factors: all are 0 or inf, nothing is left to penalise")
    if bounds is None:
        return Extent(factors)
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"bounds: must be (low, high), got {bounds!r}")
    low, high = (_numbers("bounds", side) for side in bounds)
    if max(low.ndim, high.ndim) > 1:
        raise ValueError("bounds: low and high must be numbers or [p]")
    if not (np.all(low <= 0) and np.all(high >= 0)):
        raise ValueError("bounds: must have low <= 0 <= high, 0 is excluded")
    if low.ndim and high.ndim and low.shape != high.shape:
        raise ValueError(f"bounds: low has {low.size} numbers, high has {high.size}")
    return Extent(factors, low, high)


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: must be numbers, got {value!r}") from None


def describe(name: str, arguments: dict, where: Any, extent: Extent) -> Config:
    """Name and arguments that build a penalty again; None if a mask chose leaves."""
    if where is not None and not isinstance(where, str):
        return None
    given = {**arguments, "where": where}
    if extent.factors is not None:
        given["factors"] = np.asarray(extent.factors).tolist()
    if extent.bounded:
        sides = (extent.low, extent.high)
        given["bounds"] = [np.asarray(side).tolist() for side in sides]
    return name, given
