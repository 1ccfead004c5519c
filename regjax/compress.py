"""`compress`: a smaller network with the same outputs, without its idle parts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from regjax import models, trees
from regjax.types import Model, Params

Layer = dict[str, np.ndarray]


class Compressed(NamedTuple):
    """What is left of a network: `model.apply(params, X[:, inputs])` is its eta.

    Attributes:
      model: a smaller `mlp`.
      params: of that model, numpy arrays.
      inputs: [q] places of the inputs that are left, ascending.
    """

    model: Model
    params: Params
    inputs: np.ndarray


def compress(params: Params, model: Model) -> Compressed:
    """Leave out the inputs and hidden units that do nothing.

    An input goes if its rows in the first layer and in the skip are 0. A unit goes if
    its outgoing weights are 0, or if its incoming ones are: then it is a constant,
    which the biases of the next layer take up. Without biases it stays, unless it is 0
    as of tanh, relu, gelu and silu. Nothing else is changed, not even the depth: of
    all units of a layer, or of all inputs, one of zero weights is kept.

    Params of a standardised path take standardised inputs before and after: apply the
    model to `((X - path.center) / path.scale)[:, inputs]`.

    Args:
      params: of the model, of one lam and seed: `path[i].params`, `fit.params`.
      model: of `models.mlp` or `models.linear`, its activation given by name.

    Returns:
      A Compressed; outputs are the same to rounding.

    Raises:
      ValueError: a model of another kind, params of another shape.
    """
    if model.config is None or model.config[0] != "mlp":
        raise ValueError(
            "model: compress knows the layers of models.mlp with an activation given "
            "by name, and no others"
        )
    _check(params, model)
    arguments = model.config[1]
    layers = [{name: np.asarray(a, float) for name, a in row.items()} for row in params]
    # Dropping idle units makes units below idle, and none of the rest constant;
    # dropping constant units makes units above constant, and none of the rest idle.
    for i in reversed(range(len(layers) - 1)):
        reads = np.any(layers[i + 1]["w"] != 0, axis=1)
        _keep_units(layers, i, reads)
    for i in range(len(layers) - 1):
        _fold_constants(layers, i, arguments["activation"], params[i]["w"].dtype)
    inputs = _read_inputs(layers[0])
    for name in ("w", "skip"):
        if name in layers[0]:
            layers[0][name] = layers[0][name][inputs]
    sizes = [len(layer["w"]) for layer in layers] + [layers[-1]["w"].shape[1]]
    small = tuple(
        {name: a.astype(like[name].dtype) for name, a in layer.items()}
        for layer, like in zip(layers, params, strict=True)
    )
    return Compressed(models.mlp(**{**arguments, "sizes": sizes}), small, inputs)


def _check(params: Params, model: Model) -> None:
    """Refuse params that are not of the model, such as those of a whole path."""
    like = trees.shape_of(_init, model, jax.random.key(0))
    same = jax.tree.structure(params) == jax.tree.structure(like)
    if not same or jax.tree.map(np.shape, params) != jax.tree.map(np.shape, like):
        raise ValueError(
            "params: must have the shapes that the model makes, as path[i].params of "
            "one seed have"
        )


def _init(model: Model, key: Any) -> Params:
    return model.init(key)


def _keep_units(layers: list[Layer], i: int, kept: np.ndarray) -> None:
    """Keep some units of hidden layer i, or one of zero weights."""
    below, above = layers[i], layers[i + 1]
    for name in below.keys() & {"w", "b"}:
        below[name] = _or_zeros(below[name][..., kept], -1)
    above["w"] = _or_zeros(above["w"][kept], 0)


def _or_zeros(a: np.ndarray, axis: int) -> np.ndarray:
    """`a`, or zeros of length 1 where its axis has length 0."""
    if a.shape[axis]:
        return a
    width = [(0, 0)] * a.ndim
    width[axis] = (0, 1)
    return np.pad(a, width)


def _fold_constants(layers: list[Layer], i: int, activation: str, dtype: Any) -> None:
    """Take units of hidden layer i without incoming weights into the next biases."""
    below, above = layers[i], layers[i + 1]
    constant = ~np.any(below["w"] != 0, axis=0)
    b = below.get("b", np.zeros(len(constant)))
    # In the dtype of the params, as the network itself has it.
    h = np.asarray(models.ACTIVATIONS[activation](b.astype(dtype)), float)
    if "b" in above:
        above["b"] = above["b"] + h[constant] @ above["w"][constant]
    else:
        constant &= h == 0
    _keep_units(layers, i, ~constant)


def _read_inputs(first: Layer) -> np.ndarray:
    """Places of inputs with a nonzero row, [q]; the first one where there is none."""
    read = np.any(first["w"] != 0, axis=1)
    if "skip" in first:
        read |= np.any(first["skip"] != 0, axis=1)
    return np.flatnonzero(read) if read.any() else np.zeros(1, int)
