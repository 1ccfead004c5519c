"""Networks: `mlp` of any depth; depth 0 is the linear model.

A user's own model is `Model(init, apply)` over any pytree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from regjax.names import one_of, whole_number
from regjax.types import Array, Model, Params

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
}


def mlp(
    sizes: Sequence[int],
    activation: str | Callable[[Array], Array] = "sigmoid",
    bias: bool = True,
    skip: bool = False,
) -> Model:
    r"""Fully connected network, linear in its last layer.

    .. math:: h_0 = x, \quad h_l = \sigma(W_l' h_{l-1} + b_l), \quad
              \eta = W_L' h_{L-1} + b_L \; (+ \, \Theta' x \text{ with a skip})

    Params are a tuple with one dict a layer: `w [d_in, d_out]` and, with bias,
    `b [d_out]`; their key paths are `0/w`, `0/b`, `1/w`, ... The seed's network
    is `mlp([d, m, k], bias=False)`. The first layer's dict holds the skip, `0/skip
    [d, k]`: a linear model beside the network, as `penalties.hierarchical` needs it.

    Args:
      sizes: inputs, hidden units ..., outputs. Two sizes make a linear model,
        which starts at 0; deeper ones start at LeCun-normal weights (He for relu),
        zero biases.
      activation: a name in `ACTIVATIONS`, or an elementwise function.
      bias: whether layers have biases.
      skip: whether eta has a term linear in x too; it starts at 0, and changes the
        start of no other weight.

    Returns:
      A Model with `apply(params, X [n, sizes[0]]) -> eta [n, sizes[-1]]`.

    Raises:
      ValueError: fewer than two sizes, a size below 1, an unknown activation, a skip
        without a hidden layer.
    """
    if not isinstance(sizes, Iterable) or len(list(sizes)) < 2:
        raise ValueError(f"sizes: need two or more sizes of at least 1, got {sizes}")
    sizes = tuple(whole_number("sizes", size) for size in sizes)
    if skip and len(sizes) == 2:
        raise ValueError("skip: without a hidden layer the model is linear already")
    config = None
    if isinstance(activation, str):
        activation = one_of("activation", activation, ACTIVATIONS)
        arguments = {"sizes": list(sizes), "activation": activation, "bias": bias}
        config = ("mlp", {**arguments, "skip": True} if skip else arguments)
    return Model(
        init=Partial(mlp_init, sizes, activation, bool(bias), bool(skip)),
        apply=Partial(mlp_apply, activation),
        affine=len(sizes) == 2,
        config=config,
    )


def linear(p: int, k: int = 1, bias: bool = True) -> Model:
    """Linear model `eta = X w + b`: `mlp([p, k])`.

    Args:
      p: number of inputs.
      k: number of outputs.
      bias: whether there is an intercept.

    Returns:
      An affine Model with params `({"w": [p, k], "b": [k]},)`.
    """
    return mlp([p, k], bias=bias)


def is_linear(model: Model) -> bool:
    """Whether params are `({"w": [p, k], "b": [k]},)`, as of `linear`."""
    return model.config is not None and len(model.config[1].get("sizes", ())) == 2


def has_intercept(model: Model) -> bool:
    """Whether a linear model has one."""
    return is_linear(model) and bool(model.config and model.config[1]["bias"])


def linear_zeros(model: Model, dtype: Any) -> Params:
    """Params that `mlp_init` gives a linear model, without a draw."""
    p, k = model.config[1]["sizes"]  # pyright: ignore
    w = {"w": np.zeros((p, k), dtype)}
    return ({**w, "b": np.zeros(k, dtype)} if has_intercept(model) else w,)


def mlp_init(
    sizes: tuple[int, ...],
    activation: str | Callable,
    bias: bool,
    skip: bool,
    key: Array,
) -> Params:
    """Params of `mlp` at their random start."""
    shapes = list(itertools.pairwise(sizes))
    ends = np.cumsum([d_in * d_out for d_in, d_out in shapes])
    # One draw for all layers: each call of jax.random is compiled at some length.
    draws = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    gain = 2.0 if activation == "relu" else 1.0
    layers = []
    for draw, (d_in, d_out) in zip(draws, shapes, strict=True):
        scale = (gain / d_in) ** 0.5 if len(sizes) > 2 else 0.0
        layer = {"w": scale * draw.reshape(d_in, d_out)}
        if bias:
            layer["b"] = jnp.zeros(d_out)
        layers.append(layer)
    if skip:
        layers[0]["skip"] = jnp.zeros((shapes[0][0], shapes[-1][1]))
    return tuple(layers)


def mlp_apply(activation: str | Callable, params: Params, X: Array) -> Array:
    """Forward pass of `mlp`: `X [n, d] -> eta [n, k]`."""
    nonlinear = ACTIVATIONS[activation] if isinstance(activation, str) else activation
    h = X
    for layer in params[:-1]:
        h = nonlinear(_affine(layer, h))
    eta = _affine(params[-1], h)
    return eta + X @ params[0]["skip"] if "skip" in params[0] else eta


def _affine(layer: dict[str, Array], h: Array) -> Array:
    eta = h @ layer["w"]
    return eta + layer["b"][None, :] if "b" in layer else eta


REGISTRY: dict[str, Callable[..., Model]] = {"mlp": mlp}
