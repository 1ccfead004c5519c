"""What is asked of one call: checked arguments, data and starts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from regjax import grids, inputs, notices, solvers
from regjax.ground import Ground, find_ground
from regjax.models import has_intercept, is_linear
from regjax.names import of_columns, one_of, whole_number
from regjax.solvers.proximal_gradient import tolerance
from regjax.types import Data, Method, Model, Params, Problem

DIRECTIONS = ("sparse_to_dense", "dense_to_sparse")


class Task(NamedTuple):
    """What the sweeps of one call share.

    Attributes:
      problem: the equation.
      solver: the method.
      ground: data, starts and null model.
      key: of starts and batches.
      seeds: starting points per lam.
      wanted: how many lams, or which.
      chains: per fold and seed, or None.
      direction: of the chains.
      progress: as `fit_path` takes it.
      center: [p] taken off the columns by `standardize`; None: nothing.
      scale: [p] they were divided by.
      has_offset: whether there is one.
      feature_names: of a data frame's columns.
      dense: whether `warm` is to train what all lams start from.
    """

    problem: Problem
    solver: Method
    ground: Ground
    key: Any
    seeds: int
    wanted: int | np.ndarray
    chains: int | None
    direction: str
    progress: Any
    center: np.ndarray | None
    scale: np.ndarray | None
    has_offset: bool
    feature_names: tuple[str, ...] | None
    dense: bool = False

    @property
    def count(self) -> int:
        """How many lams."""
        return self.wanted if isinstance(self.wanted, int) else len(self.wanted)


def prepare(
    problem: Problem,
    X: Any,
    y: Any,
    lams: Any,
    *,
    solver: Method | None,
    chains: int | None,
    direction: str,
    seeds: int,
    sample_weight: Any,
    offset: Any,
    standardize: bool,
    init: Params | str | None,
    key: Any,
    progress: Any,
    validation: Any = None,
    few_rows: bool = False,
) -> Task:
    """Check everything; arguments as of `fit_path` and `find_ground`.

    Warns where a network has weights that nothing holds (`notices.free_weights`).

    Raises:
      ValueError: input that cannot be used; the message names the argument.
    """
    problem = inputs.check_problem(problem)
    data, weights = inputs.check_data(problem, X, y, sample_weight, offset)
    wanted = inputs.check_lams(lams, data.X.dtype)
    count = wanted if isinstance(wanted, int) else len(wanted)
    seeds = whole_number("seeds", seeds)
    chains = None if chains is None else inputs.check_chains(chains, count)
    direction = one_of("direction", direction, DIRECTIONS)
    solver = pick_solver(problem) if solver is None else solver
    solver = inputs.check_solver(solver, data.X.dtype)
    center = scale = None
    if standardize:
        data, center, scale = _standardised(problem.model, data, weights)
    if validation is not None:
        given = problem, validation, data, center, scale, of_columns(X)
        data = data._replace(validation=_held_out(solver, *given))
    key = inputs.check_key(key)
    dense = isinstance(init, str)
    if dense:
        one_of("init", init, ("dense",))
        init = None
    few = tolerance(solver.tol, data.X.dtype) if solver.reduces and few_rows else None
    asked = init, key, seeds, solver.reduces, few
    ground = find_ground(problem, data, weights, *asked)
    if isinstance(wanted, int) or wanted[0] > 0:
        notices.warn_of_free_weights(problem, jax.tree.map(lambda a: a[0], ground.own))
    return Task(
        problem=problem,
        solver=solver,
        ground=ground,
        key=key,
        seeds=seeds,
        wanted=wanted,
        chains=chains,
        direction=direction,
        progress=progress,
        center=center,
        scale=scale,
        has_offset=offset is not None,
        feature_names=of_columns(X),
        dense=dense,
    )


def _standardised(
    model: Model, data: Data, weights: np.ndarray
) -> tuple[Data, Any, Any]:
    raw = np.asarray(data.X)
    center, scale = standardisation(model, raw, weights)
    return data._replace(X=((raw - center) / scale).astype(raw.dtype)), center, scale


def standardisation(
    model: Model, X: np.ndarray, weights: np.ndarray
) -> tuple[Any, Any]:
    """Weighted column means and standard deviations (1/S), [p] each.

    In float64. A column that is constant, to the rounding of its dtype, has scale 1. Of
    a linear model without intercept the means are 0: it could not make up for them,
    and glmnet leaves them.
    """
    wide, share = X.astype(float), weights.astype(float) / weights.sum(dtype=float)
    share = share.reshape(-1, *[1] * (X.ndim - 1))
    center = (share * wide).sum(0)
    scale = np.sqrt((share * (wide - center) ** 2).sum(0))
    scale = np.where(scale > 2 * np.finfo(X.dtype).eps * np.abs(center), scale, 1.0)
    first = wide[np.argmax(weights > 0)]
    constant = np.all((wide == first) | (share == 0), axis=0)
    center, scale = np.where(constant, [first, np.ones_like(scale)], [center, scale])
    kept = is_linear(model) and not has_intercept(model)
    return np.zeros_like(center) if kept else center, scale


def _held_out(solver: Method, *given: Any) -> Data:
    """Checked rows to stop by; arguments as of `inputs.check_validation`."""
    if not solver.rounds:
        raise ValueError(
            "validation: only training by minibatches stops early: "
            "solver=rj.solvers.minibatch()"
        )
    return inputs.check_validation(*given)


def pick_solver(problem: Problem) -> Method:
    """What `solver=None` means: full batch where the loss is convex in params."""
    if grids.has_null_model(problem):
        return solvers.proximal_gradient()
    return solvers.minibatch()
