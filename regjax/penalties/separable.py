"""From a penalty of one array to a penalty of the selected leaves of a pytree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial

from regjax import trees
from regjax.types import Array, Config, Params, Penalty


def separable(
    value: Callable[..., Array],
    prox: Callable[..., Array],
    lambda_max: Callable[..., Array],
    numbers: tuple[Any, ...],
    where: Any,
    config: Config,
) -> Penalty:
    """Sum a coordinate-wise penalty over the selected leaves.

    Args:
      value: `value(w, lam, *numbers) -> []`, of one array.
      prox: `prox(w, lam, step, *numbers) -> array`, step broadcasts against w.
      lambda_max: `lambda_max(g, *numbers) -> []`.
      numbers: what the three take besides; run-time values under jit.
      where: which leaves, see `trees.select`.
      config: how to build the penalty again.

    Returns:
      The Penalty of a pytree.
    """
    if where is not None and not isinstance(where, str):
        where = jax.tree.map(bool, where)  # part of the program, as arrays are not
    selected = Partial(_selected, where)
    return Penalty(
        value=Partial(_value, Partial(value), numbers, selected),
        prox=Partial(_prox, Partial(prox), numbers, selected),
        lambda_max=Partial(_lambda_max, Partial(lambda_max), numbers, selected),
        selected=selected,
        config=config if where is None or isinstance(where, str) else None,
    )


def _selected(where: Any, params: Params) -> Params:
    return trees.select(params, where)


def _value(value, numbers, selected, params: Params, lam: Array) -> Array:
    return trees.sum_selected(
        lambda w: value(w, lam, *numbers), selected(params), params
    )


def _prox(prox, numbers, selected, params: Params, lam: Array, step: Any) -> Params:
    return trees.map_selected(
        lambda w, t: prox(w, lam, t, *numbers),
        selected(params),
        params,
        trees.like(params, step),
    )


def _lambda_max(lambda_max, numbers, selected, grad: Params) -> Array:
    return trees.max_selected(lambda g: lambda_max(g, *numbers), selected(grad), grad)
