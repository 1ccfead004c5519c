"""The grid of a network: from no input, or unit, to all of them.

A network with hidden layers has no lambda_max, since zero hidden weights are
stationary for every lam. Coarse sweeps find where training empties it and, where the
penalty selects groups, which lams tell models of different sizes apart.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from regjax import grids, trees
from regjax.types import Array, Info, Params, Penalty, Problem, Status

COARSE = 16  # lams of one sweep
REFINED = 1  # more sweeps where sizes jump


def bracketed(
    problem: Problem,
    params: Params,
    slope: float,
    null: float,
    sweep: Callable[[np.ndarray, int], tuple[Params, Info]],
    ratio: float,
    count: int,
) -> np.ndarray:
    """The grid of a network, [count] descending, from the least lam that empties it.

    Args:
      problem: the equation.
      params: the model's own start.
      slope: largest gradient of a penalised weight there.
      null: mean loss of the null model.
      sweep: `sweep(lams, 1) -> (params, info)`.
      ratio: of the last lam to the first.
      count: how many.

    Returns:
      A geometric grid; where the penalty selects groups, one that is spread over how
      many are selected, down to where all are.

    Raises:
      ValueError: no lam empties the model.
    """
    lams, sizes = bracket(problem, params, slope, null, sweep)
    if problem.penalty.pool is None or len(lams) == 1:  # all of the sweep is empty
        return grids.geometric(lams[0], ratio, count)
    for _ in range(REFINED):
        between = spread(lams, sizes, COARSE + 2)[1:-1]
        lams, sizes = _joined(lams, sizes, between, _sizes(sweep, between))
    return spread(lams, sizes, count)


def spread(lams: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """Lams that are spread over the sizes of their models.

    Args:
      lams: [l] descending, the first of an empty model.
      sizes: [l] of their models.
      count: how many are wanted.

    Returns:
      [count] descending, from the first lam to the first of the largest model, in
      even steps of four parts size and one part log lam.
    """
    sizes = np.maximum.accumulate(sizes)
    end = max(int(np.argmax(sizes)), 1)
    lams, sizes = lams[: end + 1], sizes[: end + 1]
    depth = np.log(lams[0] / lams) / np.log(lams[0] / lams[-1])
    at = 0.8 * sizes / max(sizes[-1], 1) + 0.2 * depth
    steps = np.linspace(at[0], at[-1], count)
    return lams[0] * (lams[-1] / lams[0]) ** np.interp(steps, at, depth)


def _joined(lams, sizes, more, their_sizes) -> tuple[np.ndarray, np.ndarray]:
    """Two sweeps as one, from the least lam that, with all above it, is empty."""
    lams, sizes = np.append(lams, more), np.append(sizes, their_sizes)
    order = np.argsort(-lams)
    lams, sizes = lams[order], sizes[order]
    begin = max(int(np.argmax(sizes > 0)) - 1, 0)
    return lams[begin:], sizes[begin:]


def _sizes(sweep: Callable, lams: np.ndarray) -> np.ndarray:
    """Nonzero weights at each lam."""
    _, info = sweep(lams, 1)
    if np.any(info.status == Status.running):
        raise KeyboardInterrupt
    return np.where(info.status == Status.diverged, 0, info.n_nonzero)


def bracket(
    problem: Problem,
    params: Params,
    slope: float,
    null: float,
    sweep: Callable[[np.ndarray, int], tuple[Params, Info]],
) -> tuple[np.ndarray, np.ndarray]:
    """A coarse sweep, from the smallest lam that, with all above it, empties the model.

    16 lams over 4 decades below ten times `slope`; a hundred times higher while
    nothing is emptied. Empty: no nonzero weight; for a penalty that never selects,
    less than 0.1 % of the null loss explained.

    Returns:
      `(lams, sizes)`, [l] descending; sizes are numbers of nonzero weights.
    """
    ones = jax.tree.map(np.ones_like, params)
    selects = np.isfinite(trees.jitted(_lambda_max, problem.penalty, ones))
    for factor in (10.0, 1e3, 1e5):
        lams = grids.geometric(factor * slope, 1e-4, COARSE)
        _, info = sweep(lams, 1)
        if np.any(info.status == Status.running):
            raise KeyboardInterrupt
        empty = info.n_nonzero == 0 if selects else info.loss > 0.999 * null
        empty = np.append(empty & (info.status != Status.diverged), False)
        if empty[0]:
            begin = int(np.argmin(empty)) - 1
            return lams[begin:], np.asarray(info.n_nonzero)[begin:]
    raise ValueError(
        f"lams: no automatic grid, because no lam up to {lams[0]:.3g} empties the "
        "model in training; give the lams, or more epochs"
    )


def _lambda_max(penalty: Penalty, grad: Params) -> Array:
    return penalty.lambda_max(grad)
