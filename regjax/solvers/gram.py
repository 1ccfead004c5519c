"""Squared error in few inputs: steps by the Gram matrix, all chains side by side.

The gradient at y is that at w plus `G (y - w)` with `G = X' diag(a) X`, whatever the
number of rows. That at w is measured by rows at every look, so that no digit is lost.
Such steps cost less than to refill slots.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from regjax import losses, models, trees
from regjax.side_by_side import Limits
from regjax.types import Array, Data, Lane, Method, Problem

MOST_INPUTS = 1024
MOST_LANES = 4096  # of a program that Ctrl-C has to wait for
ROUNDS, ROUNDS_A_LAM = 48, 3  # of a chain, before it is left to the engine
WIDTH = 8  # of chains side by side, in one thread
SMALL = 64  # inputs, up to which a second thread does not pay
LAMS_A_CHAIN, LAMS_IN_FEW_INPUTS = 7, 13
CHEAP, MOST_ROUNDS_A_LAM = 2**27, 480  # of few inputs, less than a second program


def applies(method: Method, problem: Problem, data: Data, lanes: Lane) -> bool:
    """Whether all lanes share a Gram matrix that is worth its making."""
    if not (method.reduces and data.aid is not None):
        return False
    if not (models.is_linear(problem.model) and losses.is_squared(problem.loss)):
        return False
    # A free intercept's columns are centred, so that it does not meet them in G.
    apart = not models.has_intercept(problem.model) or -1 in np.asarray(
        data.aid.moves.inputs
    )
    # With fewer rows the last lams take many rounds, and rows are the smaller product.
    n, p = data.X.shape
    shared = np.ndim(lanes.weights) == 1 and lanes.scaling is None
    few = np.all(lanes.lam > 0) and len(lanes.lam) <= MOST_LANES
    return bool(apart and shared and few and p <= min(n, MOST_INPUTS))


def with_matrix(data: Data, lanes: Lane) -> Data:
    """Data with the Gram matrix of their weighted rows."""
    return data._replace(gram=trees.jitted(_matrix, data.X, lanes.weights))


def _matrix(X: Array, weights: Array) -> Array:
    X = jnp.sqrt(weights / jnp.sum(weights))[:, None] * X
    return X.T @ X


def limits(data: Data) -> Limits:
    """Beyond which a chain is left to the engine."""
    each = min(CHEAP // data.X.shape[1] ** 3, MOST_ROUNDS_A_LAM)
    each = max(each, ROUNDS_A_LAM)
    return Limits(ROUNDS + each, each, WIDTH, spread=data.X.shape[1] > SMALL)


def lams_a_chain(data: Data) -> int:
    """At least so many: a hundred lams keep two threads busy, or one."""
    return LAMS_A_CHAIN if data.X.shape[1] > SMALL else LAMS_IN_FEW_INPUTS
