"""A problem of some of its inputs, and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import conditioning, models, objective
from regjax.free_block import rescaled
from regjax.penalties.extent import of_inputs
from regjax.types import Array, Data, Lane, Params, Problem

SHARE = 0.9  # of the tolerance is for the working set, the rest for all others


class Part(NamedTuple):
    """A problem of some inputs only.

    Attributes:
      problem: linear in m inputs.
      data: of their columns.
      inputs: [m] which they are.
    """

    problem: Problem
    data: Data
    inputs: np.ndarray


def part_of(problem: Problem, data: Data, inputs: np.ndarray) -> Part:
    """Of these inputs [m], those first that are not penalised; traced or not."""
    aid: Any = data.aid
    intercept = models.has_intercept(problem.model)
    problem = problem._replace(
        model=models.linear(len(inputs), data.y.shape[1], intercept),
        penalty=of_inputs(problem.penalty, inputs),
    )
    columns = jnp.cumsum(aid.moves.inputs >= 0) - 1  # the free ones come first
    aid = aid._replace(
        moves=aid.moves._replace(inputs=columns),
        metric=narrowed(aid.metric, inputs),
        free=np.arange(aid.free.size, dtype=np.int32),
        null=aid.null * np.asarray(SHARE, aid.null.dtype),
    )
    X = jax.ShapeDtypeStruct((len(data.X), len(inputs)), data.X.dtype)
    kept = conditioning.keeps_turned(problem, data._replace(X=X))
    if data.XT is None:
        X = jnp.take(data.X, inputs, axis=1, mode="clip")
        XT = X.T if kept else None
    else:  # rows of X' are read at once, columns of X number by number
        XT = jnp.take(data.XT, inputs, axis=0, mode="clip")
        X = XT.T
    data = data._replace(aid=aid, X=X, XT=XT if kept else None)
    return Part(problem, data, inputs)


def lane_of(lane: Lane, inputs: np.ndarray) -> Lane:
    """A Lane of these inputs, whose columns may be standardised."""
    if lane.scaling is None:
        return lane
    return lane._replace(scaling=tuple(a[:, inputs] for a in lane.scaling))


def narrowed(params: Params, inputs: np.ndarray, axis: int = 0) -> Params:
    """Params of these inputs, which are along that axis of the weights."""
    layer = params[0]
    return ({**layer, "w": layer["w"].take(inputs, axis, mode="clip")},)


def widened(p: int, part: Part, scaling: Any, params: Params) -> tuple[Params, Array]:
    """Params [l, F, ...] of a part as those of p inputs, and their eta."""

    def one(scaling, params) -> tuple[Params, Array]:
        small = rescaled(part.data, scaling)
        w = params[0]["w"]
        zero = jnp.zeros((p, w.shape[1]), w.dtype)
        eta = objective.linear_predictor(part.problem.model, params, small)
        return ({**params[0], "w": zero.at[part.inputs].set(w)},), eta

    folds = jax.vmap(one)
    return jax.vmap(lambda params: folds(scaling, params))(params)
