"""Pytrees by key path: which leaves are weights, and what jit should trace."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import (
    GetAttrKey,
    keystr,
    register_static,
    tree_flatten_with_path,
)

# The last two: what a normalisation adds and multiplies, in Flax and in Haiku.
BIASES = ("b", "bias", "intercept", "offset", "scale")


def key_paths(tree: Any) -> list[str]:
    """Key path of every leaf, in flattening order: `"0/w"`, `"dense/kernel"`."""
    return [key_path(path) for path, _ in tree_flatten_with_path(tree)[0]]


def key_path(path: tuple[Any, ...]) -> str:
    """One key path; the box around a leaf (`nnx.Param`) is left out of its name."""
    if len(path) > 1 and path[-1] == GetAttrKey("value"):
        path = path[:-1]
    return keystr(path, simple=True, separator="/")


def select(tree: Any, where: Any = None) -> Any:
    """Choose leaves of a pytree.

    Args:
      tree: any pytree.
      where: None for all leaves but biases (last key `b`, `bias`, `intercept`, or
        a normalisation's `offset` and `scale`); a regex that is searched for in the
        key path; a pytree of bools, a prefix of `tree`; or a function of `tree` that
        gives one.

    Returns:
      A pytree of bools like `tree`.

    Raises:
      ValueError: nothing is selected, or the mask does not fit the tree.
    """
    paths, treedef = key_paths(tree), jax.tree.structure(tree)
    if where is None:
        chosen = [path.split("/")[-1] not in BIASES for path in paths]
    elif isinstance(where, str):
        try:
            chosen = [re.search(where, path) is not None for path in paths]
        except re.error as error:
            raise ValueError(f"where: {where!r} is no regex: {error}") from None
    else:
        # Not a mask in the form of a network, which may be called as well.
        made = callable(where) and jax.tree_util.all_leaves([where])
        chosen = _broadcast_mask(where(tree) if made else where, tree)
    if not any(chosen):
        raise ValueError(
            f"where={where!r} selects no leaf; the key paths are {', '.join(paths)}"
        )
    return treedef.unflatten(chosen)


def _broadcast_mask(mask: Any, tree: Any) -> list[bool]:
    flags = static_mask(mask)
    try:
        full = jax.tree.map(lambda m, t: jax.tree.map(lambda _: m, t), flags, tree)
    except (ValueError, TypeError) as error:
        raise ValueError(f"where: the mask does not fit the params: {error}") from None
    return jax.tree.leaves(full)


def static_mask(where: Any) -> Any:
    """`where` as part of the program: arrays of bools would be run-time values.

    Raises:
      ValueError: a pytree of anything but bools.
    """
    if where is None or isinstance(where, str):
        return where
    return jax.tree.map(_flag, where)


def _flag(value: Any) -> bool:
    if np.ndim(value) or np.asarray(value).dtype != bool:
        raise ValueError(
            f"where: must be a regex or a pytree of bools, got {value!r} in it"
        )
    return bool(value)


def map_selected(fn: Callable, mask: Any, tree: Any, *rest: Any) -> Any:
    """Apply `fn(leaf, *rest_leaves)` to selected leaves; the others stay."""
    return jax.tree.map(lambda m, x, *r: fn(x, *r) if m else x, mask, tree, *rest)


def free_part(tree: Any, mask: Any) -> list[Any]:
    """Leaves that are not selected."""
    pairs = zip(jax.tree.leaves(mask), jax.tree.leaves(tree), strict=True)
    return [x for m, x in pairs if not m]


def with_free_part(tree: Any, mask: Any, free: Sequence[Any]) -> Any:
    """`tree` with the leaves that are not selected taken from `free`."""
    left = iter(free)
    return jax.tree.map(lambda m, x: x if m else next(left), mask, tree)


def sum_selected(fn: Callable, mask: Any, tree: Any) -> Any:
    """Sum of `fn(leaf) -> []` over selected leaves."""
    pairs = zip(jax.tree.leaves(mask), jax.tree.leaves(tree), strict=True)
    return sum((fn(x) for m, x in pairs if m), start=0.0)


def max_selected(fn: Callable, mask: Any, tree: Any) -> jax.Array:
    """Maximum of `fn(leaf) -> []` over selected leaves."""
    pairs = zip(jax.tree.leaves(mask), jax.tree.leaves(tree), strict=True)
    return functools.reduce(jnp.maximum, [fn(x) for m, x in pairs if m])


def like(tree: Any, value: Any) -> Any:
    """A scalar becomes one scalar per leaf of `tree`; a pytree stays."""
    if jax.tree.structure(value) == jax.tree.structure(0):
        return jax.tree.map(lambda _: value, tree)
    return value


def rows(tree: Any, which: Any) -> Any:
    """`leaf[which]` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[which], tree)


def vdot(a: Any, b: Any) -> Any:
    """Inner product of two pytrees."""
    products = jax.tree.map(lambda x, y: total(x * y), a, b)
    return sum(jax.tree.leaves(products), start=0.0)


def total(a: Any) -> jax.Array:
    """Sum of all numbers."""
    return jnp.sum(apart(a))


def largest(a: Any, least: float = 0.0) -> jax.Array:
    """Maximum of `least` and all numbers."""
    return jnp.max(apart(a), initial=least)


def apart(a: Any) -> jax.Array:
    """`a`, by a select.

    XLA for CPU (jaxlib 0.10) joins a reduction and the arithmetic before it in a loop
    of 30 ns a number, a hundred times too slow, where the last axes are short. A
    select between the two keeps them apart (scripts/bench/NOTES.md).
    """
    return jnp.where(jnp.isnan(a), jnp.nan, a)


def max_abs(tree: Any) -> jax.Array:
    """Largest absolute value in a pytree."""
    return functools.reduce(
        jnp.maximum,
        [largest(jnp.abs(x)) for x in jax.tree.leaves(tree)],
    )


def all_finite(tree: Any) -> jax.Array:
    """Whether every number in a pytree is finite."""
    return functools.reduce(
        jnp.logical_and, [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    )


def where(condition: Any, a: Any, b: Any) -> Any:
    """`jnp.where` with one scalar condition for all leaves."""
    return jax.tree.map(functools.partial(jnp.where, condition), a, b)


@functools.cache
def _holds_numbers(kind: type) -> bool:
    numbers = float, np.ndarray, np.number, jax.Array, Tracer
    return issubclass(kind, (*numbers, jax.ShapeDtypeStruct))


def partition(tree: Any) -> tuple[list[Any], Any]:
    """Split a pytree into what jit traces and what it compiles in.

    Floats and arrays are run-time values: changing them never recompiles. Ints,
    bools, strings and functions are part of the program.

    Returns:
      `(numbers, program)`: a list of leaves, and a hashable rest for
      `jax.jit(..., static_argnums=...)`.
    """
    leaves, treedef = jax.tree.flatten(tree)
    slots = tuple([None if _holds_numbers(type(leaf)) else (leaf,) for leaf in leaves])
    pairs = zip(leaves, slots, strict=True)
    return [leaf for leaf, slot in pairs if slot is None], (treedef, slots)


def combine(numbers: Sequence[Any], program: Any) -> Any:
    """Undo `partition`."""
    treedef, slots = program
    left = iter(numbers)
    leaves = [next(left) if slot is None else slot[0] for slot in slots]
    return treedef.unflatten(leaves)


def exact(fn: Callable) -> Callable:
    """`fn` with products in the full precision of their dtype.

    Accelerators round float32 before they multiply, to 10 bits or fewer; what measures
    a gap, or steps towards one, cannot have that.
    """

    @functools.wraps(fn)
    def call(*args: Any, **given: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return fn(*args, **given)

    return call


@functools.partial(jax.jit, static_argnums=(0, 1))
@exact
def _run_program(fn: Callable, program: Any, numbers: Sequence[Any]) -> Any:
    return fn(*combine(numbers, program))


def jitted(fn: Callable, *args: Any) -> Any:
    """`fn(*args)`, compiled once for all args that differ in numbers only."""
    numbers, program = partition(args)
    return _run_program(fn, program, numbers)


def fetched(tree: Any) -> Any:
    """Arrays of the device as NumPy's; of a CPU as they lie there.

    `jax.device_get` first asks for a copy of each, which a CPU has no use for.
    """
    if jax.default_backend() == "cpu":
        return jax.tree.map(np.asarray, tree)
    return jax.device_get(tree)


def shape_of(fn: Callable, *args: Any) -> Any:
    """Shapes and dtypes of `fn(*args)`, traced once like `jitted`, never run."""
    numbers, program = partition(args)
    return _run_program.eval_shape(fn, program, numbers)


def size_of(fn: Callable, *args: Any) -> int:
    """Bytes of all arrays that `fn(*args)` makes on its way, traced once, never run."""
    numbers, program = partition(args)
    return _size_of(fn, program, *map(_without_numbers, numbers))


def _without_numbers(a: Any) -> Any:
    return 0.0 if isinstance(a, float) else jax.ShapeDtypeStruct(a.shape, a.dtype)


@functools.lru_cache
def _size_of(fn: Callable, program: Any, *like: Any) -> int:
    jaxpr = _run_program.trace(fn, program, like).jaxpr
    return sum(
        var.aval.size * var.aval.dtype.itemsize
        for equation in jaxpr.jaxpr.eqns
        for var in equation.outvars
    )


@register_static
class Frozen:
    """A function with arguments that are part of the program, compared by value.

    `functools.partial` compares by identity, so building the same one twice would
    compile twice.
    """

    def __init__(self, function: Callable, *args: Any, **kwargs: Any):
        if isinstance(function, functools.partial):
            args = (*function.args, *args)
            kwargs = {**function.keywords, **kwargs}
            function = function.func
        self.function, self.args, self.kwargs = function, args, kwargs
        self._key = (function, args, tuple(sorted(kwargs.items())))
        try:
            hash(self._key)
        except TypeError:  # an array among the arguments: compare by identity
            self._key = (id(self),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; given arguments come after the frozen ones."""
        return self.function(*self.args, *args, **{**self.kwargs, **kwargs})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
