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
      conjugate: `conjugate(v [n, k], y) -> [n]`, the supremum over eta of
        `v . eta - value(eta, y)`, inf outside its domain; for duality gaps.
      saturated: `saturated(y) -> [n]`, the least value over all eta; None: 0.
      mean: `mean(eta) -> [n, k]`, the expected response (the inverse link).
      curvature: upper bound on the second derivative in eta; None: unbounded.
      convex: whether value is convex in eta.
      encode: `encode(y, k) -> [n, k]`, checks y and makes it the target array;
        None: y is used as it is, [n] as [n, 1].
      classes: whether y holds classes (then accuracy is the score, else R2).
      fenchel_young: `fenchel_young(eta, v, y) -> [n]`, the sum `value(eta, y) +
        conjugate(v, y) - v . eta >= 0` without its cancellation; None: that sum.
      hessian: `hessian(eta, y) -> (d [n, k], u [n, k])`, whose `diag(d) - u u'` is the
        second derivative in each row's eta; None: by differentiation.
      balanced: whether a row's slopes in eta sum to 0 whatever eta is, as those of
        classes do whose y sum to 1.
      config: name and arguments that build this loss again; None for your own.
      link: `link(means [k]) -> eta [k]`, of NumPy's float64, outside of jit: where the
        search begins for the constant eta of the least mean loss, which depends on the
        means of y alone; not finite where there is none; None: at 0.
    """

    value: Callable[..., Array]
    conjugate: Callable[..., Array] | None = None
    saturated: Callable[..., Array] | None = None
    mean: Callable[..., Array] | None = None
    curvature: float | None = None
    convex: bool = True
    encode: Callable[..., Array] | None = None
    classes: bool = False
    fenchel_young: Callable[..., Array] | None = None
    hessian: Callable[..., tuple[Array, Array]] | None = None
    balanced: bool = False
    config: Config = None
    link: Callable[[np.ndarray], np.ndarray] | None = None


class Penalty(NamedTuple):
    """A penalty on the selected leaves of a pytree; lam is always an argument.

    Attributes:
      value: `value(params, lam) -> []`, lam * Omega(params).
      prox: `prox(params, lam, step) -> params`, the argmin over w of
        `1/2 |w - params|^2 + step * lam * Omega(w)`; step is a scalar or a pytree
        like params with one step per coordinate.
      lambda_max: `lambda_max(grad) -> []`, the smallest lam at which 0 is a fixed
        point of the prox step, given the gradient of the smooth part at 0.
      conjugate: `conjugate(z, lam) -> []`, the supremum over the selected leaves w
        of `z . w - value(w, lam)`; for duality gaps.
      dual_scale: `dual_scale(z, lam) -> []`, the largest s <= 1 at which
        `conjugate(s z, lam)` is finite; None: `min(1, lam / lambda_max(z))`.
      pool: averages an array over each group; None where the penalty is separable.
      convex: whether the value is convex in params.
      selected: `selected(params) -> pytree of bool`, the penalised leaves; None:
        all but biases.
      by_input: whether it is a sum over inputs (a leaf's first axis), so that
        `penalties.of_inputs` makes the same of some of them.
      squares: `squares(params, lam) -> pytree like params` of numbers m [] or beside
        each leaf, 0 where not selected, if the value is `1/2 sum m w^2` and no more;
        None: it is not. `combined` adds such a penalty to any other.
      config: name and arguments that build this penalty again; None for your own.
    """

    value: Callable[..., Array]
    prox: Callable[..., Params]
    lambda_max: Callable[..., Array]
    conjugate: Callable[..., Array] | None = None
    pool: Callable[..., Array] | None = None
    convex: bool = True
    selected: Callable[..., Params] | None = None
    dual_scale: Callable[..., Array] | None = None
    by_input: bool = False
    squares: Callable[..., Params] | None = None
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
      scaling: `(center [p], scale [p])`, what this lane's columns are standardised
        by on the way into the model; None: by nothing.
      aid: what helps a solver of the convex problem; None: it is not convex.
      XT: [p, n] X', row by row in memory, of a linear model; None: not kept.
      gram: [p, p] `X' diag(shares) X` of squared error; None: steps do without it.
      validation: rows held out, which training stops early by; None: it does not.
    """

    X: Array
    y: Array
    offset: Array | None = None
    scaling: tuple[Array, Array] | None = None
    aid: Aid | None = None
    XT: Array | None = None
    gram: Array | None = None
    validation: Data | None = None


class Aid(NamedTuple):
    """What helps to solve and to certify an affine model; see `conditioning`.

    Attributes:
      metric: like params or broadcastable to them, > 0: mean square of each
        coordinate's column of the design. Steps are divided by it.
      free: [q] int, places of the unpenalised coordinates in the flattened params.
      moves: how eta moves with them, a `free_block.Moves`.
      curvature: [] largest eigenvalue of the scaled design's second moments.
      null: [] mean loss of the null model: what tolerances of gaps multiply.
      first: [] curvature, 1 / step, that steps begin with.
    """

    metric: Params
    free: Array
    moves: Any
    curvature: Array
    null: Array
    first: Array


class Lane(NamedTuple):
    """One fit of a sweep.

    Attributes:
      lam: [] weight of the penalty.
      weights: [n] sample weights, not normalised.
      seed: [] int, which starting point.
      fold: [] int, which row of the weights where there are several.
      scale: [] `max |g|` at the model's own start: what tolerances multiply.
      ceiling: [] a lane that ends at a mean loss above it has diverged.
      scaling: of its fold, see `Data`.
    """

    lam: Array
    weights: Array
    seed: Array
    fold: Array
    scale: Array
    ceiling: Array
    scaling: tuple[Array, Array] | None = None


class Status(enum.IntEnum):
    """How a lane ended. Not converging is data: raising is the caller's choice."""

    running = -1
    converged = 0  # gap (convex) or kkt at most the solver's tol
    max_iter = 1  # all its iterations used, tol not reached
    diverged = 2  # frozen at its last finite iterate, or ended far above its start
    floor = 3  # as near as the dtype allows, tol not reached
    unbounded = 4  # no minimiser: the weights grow for ever (separable classes, lam 0)
    degenerate = 5  # nothing to explain: the null model is perfect


class Info(NamedTuple):
    """What a person reads about a finished lane.

    Attributes:
      status: [] int32, a Status.
      n_iter: [] int32, epochs and full-batch steps made.
      step: [] step size of the last full-batch step, at which kkt is taken.
      kkt: [] max-norm of `(w - prox(w - step * g, lam, step)) / step`, in units of
        lam: 0 exactly at a stationary point.
      gap: [] upper bound on `objective - minimum`, from the duality gap, rounding
        included; inf where the problem is not convex.
      loss: [] weighted mean loss.
      penalty: [] lam * Omega.
      objective: [] loss + penalty + ridge.
      n_nonzero: [] int32, penalised weights that are not 0.
    """

    status: Array
    n_iter: Array
    step: Array
    kkt: Array
    gap: Array
    loss: Array
    penalty: Array
    objective: Array
    n_nonzero: Array


class Solver(NamedTuple):
    """Pure functions that see one lane; `lanes` and `side_by_side` vmap them.

    Attributes:
      init: `init(lane, params) -> state`, at the beginning of a chain.
      end: `end(state) -> end`, what the next lane of its chain needs.
      resume: `resume(lane, end) -> state`, from the end of the lane before.
      step: `step(lane, state, batch) -> state`: one round, of fixed cost.
      status: `status(lane, state) -> [] int32`.
      finish: `finish(lane, state, status) -> (params, Info)`.
      batch: `batch(clock, key) -> data`, shared by all lanes of a round.
      barrier: slots refill together, when all their lanes have ended, and the clock
        starts anew; else each at once.
    """

    init: Callable[..., Any]
    end: Callable[..., Any]
    resume: Callable[..., Any]
    step: Callable[..., Any]
    status: Callable[..., Array]
    finish: Callable[..., tuple[Params, Info]]
    batch: Callable[..., Any]
    barrier: bool = False


class Method(NamedTuple):
    """A solver that still waits for its problem: what `regjax.solvers` gives.

    Attributes:
      build: `build(problem, data) -> Solver`.
      rounds: of a wave, about, for the progress bar; 0 where slots refill at once.
      tol: what the user asked for; None: the solver's own.
      reduces: whether it may solve a convex problem by an easier one: centred columns,
        fewer rows (`moments`), fewer inputs (`screening`).
      slots: of a worker on a CPU core, at most.
    """

    build: Callable[..., Solver]
    rounds: int = 0
    tol: float | None = None
    reduces: bool = False
    slots: int = 8
