"""Squared error in few inputs: steps by the Gram matrix, all chains side by side.

The gradient at y is that at w plus `G (y - w)` with `G = X' diag(a) X`, whatever the
number of rows. That at w is measured by rows at every look, so that no digit is lost.
Such steps cost less than to refill slots, so each chain is a loop over its lams. All
wait for the slowest: a chain that takes too many rounds is left to the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from regjax import losses, models, trees
from regjax.types import Array, Data, Info, Lane, Method, Params, Problem, Status

MOST_INPUTS = 1024
ROUNDS, ROUNDS_A_LAM = 24, 3  # of a chain, before it is left to the engine
CHEAP, MOST_ROUNDS_A_LAM = 2**18, 48  # rounds of small matrices cost next to nothing
WIDTH = 8  # numbers of chains are multiples of it, so that programs are shared


def applies(
    method: Method, problem: Problem, data: Data, lanes: Lane, starts: Params
) -> bool:
    """Whether all lanes share a Gram matrix that is worth its making."""
    if not (method.reduces and data.aid is not None):
        return False
    if not (models.is_linear(problem.model) and losses.is_squared(problem.loss)):
        return False
    # A free intercept's columns are centred, so that it does not meet them in G.
    apart = not models.has_intercept(problem.model) or -1 in data.aid.moves.inputs
    # With fewer rows the last lams take many rounds, and rows are the smaller product.
    n, p = data.X.shape
    shared = np.ndim(lanes.weights) == 1 and lanes.scaling is None
    alone = len(jax.tree.leaves(starts)[0]) == 1 and np.all(lanes.lam > 0)
    return bool(apart and shared and alone and p <= min(n, MOST_INPUTS))


def with_matrix(data: Data, lanes: Lane) -> Data:
    """Data with the Gram matrix of their weighted rows."""
    return data._replace(gram=trees.jitted(_matrix, data.X, lanes.weights))


def _matrix(X: Array, weights: Array) -> Array:
    X = jnp.sqrt(weights / jnp.sum(weights))[:, None] * X
    return X.T @ X


def run(
    method: Method,
    problem: Problem,
    data: Data,
    lanes: Lane,
    starts: Params,
    chains: Sequence[np.ndarray],
) -> tuple[Params, Info]:
    """Solve what can be solved so.

    Args:
      method: a solver that `reduces`.
      problem: squared error, linear.
      data: rows, with an Aid and the matrix; it `applies`.
      lanes: lam, seed, fold [N]; the rest shared.
      starts: [1, ...] params that all chains start from.
      chains: numbers of lanes, every lane in one chain.

    Returns:
      `(params, info)`, arrays [N, ...]; `info.status` is `running` where it is not
      done.
    """
    length = max(len(chain) for chain in chains)
    table = np.stack([np.pad(c, (0, length - len(c)), "edge") for c in chains])
    table = np.pad(table, [(0, -len(table) % WIDTH), (0, 0)], "edge")
    none = np.zeros((), np.int32)
    lane = lanes._replace(lam=lanes.lam[table], seed=none, fold=none)
    given = method, problem, data, lane, trees.rows(starts, 0)
    found = jax.device_get(trees.jitted(_paths, *given))
    place = np.unique(table, return_index=True)[1]
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[place], found)


def _paths(
    method: Method, problem: Problem, data: Data, lane: Lane, start: Params
) -> tuple[Params, Info]:
    """Of lams [S, l], S chains; results [S, l, ...]."""
    solver = method.build(problem, data)
    each = min(CHEAP // data.X.shape[1] ** 2, MOST_ROUNDS_A_LAM)
    each = max(each, ROUNDS_A_LAM)

    def one(carry, lam: Array):
        state, left = carry
        own = lane._replace(lam=lam)
        state = solver.resume(own, state)

        def more(carry) -> Array:
            _, status, left = carry
            return (status == Status.running) & (left > 0)

        def round(carry):
            state, _, left = carry
            state = solver.step(own, state, None)
            return state, solver.status(own, state), left - 1

        begun = state, jnp.int32(Status.running), left
        state, status, left = jax.lax.while_loop(more, round, begun)
        left = jnp.where(status == Status.running, 0, left + each)
        return (state, left), solver.finish(own, state, status)

    def chain(lams: Array) -> tuple[Params, Info]:
        state = solver.init(lane._replace(lam=lams[0]), start)
        return jax.lax.scan(one, (state, jnp.int32(ROUNDS)), lams)[1]

    return jax.vmap(chain)(lane.lam)
