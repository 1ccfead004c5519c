"""The words of the language: a problem, its three parts, a lane, a solver.

Every abstraction is a NamedTuple of a few pure functions. The library builds
those functions as `jax.tree_util.Partial` of module-level functions, so that a
whole Problem is a pytree: floats and arrays in it are run-time values, all else
is part of the compiled program (see `trees.partition`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray
Params = Any
Config = tuple[str, dict[str, Any]] | None


class Model(NamedTuple):
    """A function of inputs, row by row.

    Attributes:
      init: `init(key) -> params`, any pytree of arrays.
      apply: `apply(params, X [n, ...]) -> eta [n, k]`, the linear predictor or
        logits. Row i of eta depends on row i of X only.
      affine: whether eta is affine in params (depth 0).
      config: name and arguments that build this model again; None for your own.
    """

    init: Callable[..., Params]
    apply: Callable[..., Array]
    affine: bool = False
    config: Config = None


class Loss(NamedTuple):
    """A loss per example, from the linear predictor. None: does not apply.

    Attributes:
      value: `value(eta [n, k], y) -> [n]`.
      conjugate: of value in eta; for duality gaps (not used yet).
      saturated: `saturated(y) -> [n]`, the least value over all eta; None: 0.
      mean: `mean(eta) -> [n, k]`, the expected response (the inverse link).
      curvature: bound on the second derivative in eta (not used yet).
      convex: whether value is convex in eta.
      encode: `encode(y, k) -> [n, k]`, checks y and makes it the target array;
        None: y is used as it is, [n] as [n, 1].
      classes: whether y holds classes (then accuracy is the score, else R2).
      config: name and arguments that build this loss again; None for your own.
    """

    value: Callable[..., Array]
    conjugate: Callable[..., Array] | None = None
    saturated: Callable[..., Array] | None = None
    mean: Callable[..., Array] | None = None
    curvature: float | None = None
    convex: bool = True
    encode: Callable[..., Array] | None = None
    classes: bool = False
    config: Config = None


class Penalty(NamedTuple):
    """A penalty on the selected leaves of a pytree; lam is always an argument.

    Attributes:
      value: `value(params, lam) -> []`, lam * Omega(params).
      prox: `prox(params, lam, step) -> params`, the argmin over w of
        `1/2 |w - params|^2 + step * lam * Omega(w)`; step is a scalar or a pytree
        like params with one step per coordinate.
      lambda_max: `lambda_max(grad) -> []`, the smallest lam at which 0 is a fixed
        point of the prox step, given the gradient of the smooth part at 0.
      conjugate: `conjugate(z, lam) -> []`, for duality gaps (not used yet).
      pool: averages an array over each group; None where the penalty is separable.
      convex: whether the value is convex in params.
      selected: `selected(params) -> pytree of bool`, the penalised leaves; None:
        all but biases.
      config: name and arguments that build this penalty again; None for your own.
    """

    value: Callable[..., Array]
    prox: Callable[..., Params]
    lambda_max: Callable[..., Array]
    conjugate: Callable[..., Array] | None = None
    pool: Callable[..., Array] | None = None
    convex: bool = True
    selected: Callable[..., Params] | None = None
    config: Config = None


class Problem(NamedTuple):
    """The equation: mean loss + lam * penalty + ridge/2 |weights|^2.

    Attributes:
      model: what maps inputs to the linear predictor.
      loss: what compares it with y, per example.
      penalty: what lam multiplies.
      ridge: [] fixed weight of half the squared norm of all weights (never of
        biases); not scaled by lam.
    """

    model: Model
    loss: Loss
    penalty: Penalty
    ridge: float = 0.0


class Data(NamedTuple):
    """What all lanes share.

    Attributes:
      X: [n, ...] inputs.
      y: [n, k] targets, as the loss encodes them.
      offset: [n, k] or [n, 1], added to eta; None for 0.
    """

    X: Array
    y: Array
    offset: Array | None = None


class Lane(NamedTuple):
    """One fit of a sweep.

    Attributes:
      lam: [] weight of the penalty.
      weights: [n] sample weights, not normalised.
      seed: [] int, which starting point.
      scale: [] `max |g|` at the model's own start: what tolerances multiply.
      ceiling: [] a lane that ends at a mean loss above it has diverged.
    """

    lam: Array
    weights: Array
    seed: Array
    scale: Array
    ceiling: Array


class Status(enum.IntEnum):
    """How a lane ended. Not converging is data: raising is the caller's choice."""

    running = -1
    converged = 0  # kkt at most the solver's tol, in units of the start's gradient
    max_iter = 1  # all its iterations used, tol not reached
    diverged = 2  # frozen at its last finite iterate, or ended far above its start


class Info(NamedTuple):
    """What a person reads about a finished lane.

    Attributes:
      status: [] int32, a Status.
      n_iter: [] int32, epochs and full-batch steps made.
      step: [] step size of the last full-batch step, at which kkt is taken.
      kkt: [] max-norm of `(w - prox(w - step * g, lam, step)) / step`, in units of
        lam: 0 exactly at a stationary point.
      loss: [] weighted mean loss.
      penalty: [] lam * Omega.
      objective: [] loss + penalty + ridge.
      n_nonzero: [] int32, penalised weights that are not 0.
    """

    status: Array
    n_iter: Array
    step: Array
    kkt: Array
    loss: Array
    penalty: Array
    objective: Array
    n_nonzero: Array


class Solver(NamedTuple):
    """Pure functions that see one lane; the engine (`lanes`) vmaps them.

    Attributes:
      init: `init(lane, params) -> state`, which has attributes `params` and
        `n_iter`.
      step: `step(lane, state, batch) -> state`, of fixed cost.
      status: `status(lane, state) -> [] int32`.
      finish: `finish(lane, state, status) -> (params, Info)`.
      batch: `batch(round, key) -> data`, shared by all lanes of a round.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    status: Callable[..., Array]
    finish: Callable[..., tuple[Params, Info]]
    batch: Callable[..., Any]


class Stage(NamedTuple):
    """A solver that still waits for its problem, and for how many rounds it runs.

    A solver as the user names it is a tuple of stages: each starts from where the
    one before it ended.

    Attributes:
      build: `build(problem, data) -> Solver`.
      rounds: the most rounds that a lane takes.
      label: what the progress bar calls a round.
    """

    build: Callable[..., Solver]
    rounds: int
    label: str
