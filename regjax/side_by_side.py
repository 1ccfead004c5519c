"""Chains side by side: each a loop over its lanes, all of one core one program.

Without slots there is less to compile and less to do between lanes, but all wait for
the slowest: for a few chains alike. One that takes too many rounds is left to the
engine (`lanes`). How many cores share the chains may change a lane's last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import trees, workers
from regjax.free_block import rescaled
from regjax.types import Array, Data, Info, Lane, Params, Problem, Solver, Status


class Limits(NamedTuple):
    """Of chains side by side.

    Attributes:
      rounds: of a chain, before its first lane is done.
      more: of them for every lane that is.
      width: numbers of chains are filled up to multiples of it, so that programs are
        shared.
      spread: whether each core works on chains of its own, by a program of its own;
        XLA spreads kernels of microseconds over cores too, and loses by it.
    """

    rounds: int
    more: int
    width: int
    spread: bool = False


def run(
    build: Callable[..., Solver],
    problem: Problem,
    data: Data,
    lanes: Lane,
    starts: Params,
    chains: Sequence[np.ndarray],
    limits: Limits,
) -> tuple[Params, Info]:
    """Solve what does not take too long.

    Args:
      build: of a method of full batches, whose lanes do not diverge within a chain.
      problem: the equation.
      data: rows, shared by all lanes.
      lanes: lam, seed, fold [N]; weights [n], shared, or [folds, n]; scaling
        [folds, p], with such weights; the rest [].
      starts: [seeds, ...] starting params.
      chains: numbers of lanes, every lane in one chain, of one seed and fold.
      limits: what is too long.

    Returns:
      `(params, info)`, arrays [N, ...] on the host; where `info.status` is `running`
      params that may be gone on from.
    """
    crew = workers.crew(-(-len(chains) // limits.width) if limits.spread else 1)
    crew = crew if crew[0] is None else [None]  # several devices: one does it all
    length = max(len(chain) for chain in chains)
    parts = [chains[number :: len(crew)] for number in range(len(crew))]
    tables = [_table(part, length, limits.width) for part in parts]

    def work(number: int, *_: Any) -> tuple[Params, Info]:
        table = tables[number]
        heads = table[:, 0]
        chosen = lanes.lam[table], lanes.seed[heads], lanes.fold[heads]
        lane = lanes._replace(lam=chosen[0], seed=chosen[1], fold=chosen[2])
        given = build, problem, data, lane, starts, np.array(limits[:2], np.int32)
        return trees.fetched(trees.jitted(paths, *given))

    found = workers.work(work, crew)
    place = np.unique(np.concatenate(tables), return_index=True)[1]

    def in_order(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate([a.reshape(-1, *a.shape[2:]) for a in parts])[place]

    return jax.tree.map(in_order, *found)


def _table(chains: Sequence[np.ndarray], length: int, width: int) -> np.ndarray:
    """Numbers of lanes [S, length]: the last of a chain, and of chains, repeated."""
    filled = [*chains, *[chains[-1]] * (-len(chains) % width)]
    return np.stack([c[np.minimum(np.arange(length), len(c) - 1)] for c in filled])


def paths(
    build: Callable[..., Solver],
    problem: Problem,
    data: Data,
    lanes: Lane,
    starts: Params,
    rounds: Array,
) -> tuple[Params, Info]:
    """Of lams [S, l], seeds [S] and folds [S], S chains; results [S, l, ...]."""

    def chain(lams: Array, seed: Array, fold: Array) -> tuple[Params, Info]:
        lane = lanes._replace(seed=seed, fold=fold)
        if lanes.weights.ndim == 2:
            own = jax.tree.map(lambda a: a[fold], (lanes.weights, lanes.scaling))
            lane = lane._replace(weights=own[0], scaling=own[1])
        solver = build(problem, rescaled(data, lane.scaling))

        def one(carry, lam: Array):
            end, left = carry
            own = lane._replace(lam=lam)
            state = solver.resume(own, end)

            def more(carry) -> Array:
                _, status, left = carry
                return (status == Status.running) & (left > 0)

            def round(carry):
                state, _, left = carry
                state = solver.step(own, state, None)
                return state, solver.status(own, state), left - 1

            begun = state, jnp.int32(Status.running), left
            state, status, left = jax.lax.while_loop(more, round, begun)
            unfinished = status == Status.running
            params, info = solver.finish(own, state, status)
            # What is said of an end is not true of a lane on its way.
            info = info._replace(status=jnp.where(unfinished, status, info.status))
            left = jnp.where(unfinished, 0, left + rounds[1])
            return (solver.end(state), left), (params, info)

        start = jax.tree.map(lambda a: a[seed], starts)
        state = solver.init(lane._replace(lam=lams[0]), start)
        return jax.lax.scan(one, (solver.end(state), rounds[0]), lams)[1]

    return jax.vmap(chain)(lanes.lam, lanes.seed, lanes.fold)
