"""What is done to a convex problem before it is solved.

Nothing here changes what is solved: the columns are centred and the intercept is
moved back afterwards, steps are scaled by each column's size, and the coordinates
that the penalty does not touch are found, because a certificate has to fit them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from regjax import free_block, trees
from regjax.certificates import pull_back
from regjax.models import is_linear
from regjax.objective import is_narrow, linear_predictor
from regjax.types import Aid, Array, Data, Model, Params, Problem

POWER_STEPS = 5
FIRST = 0.1  # of the bound, as it is loose
PROBES = 32  # random rows for the column sizes of a model without known layout
HUGE = 1e12
LARGE, LARGEST = 10**6, 2**28  # numbers in a wide X whose transpose is kept
BLOCK, SMALL_BLOCK = 2**19, 2**16  # numbers in a block of rows
SHORT = 1024  # rows of a sum one by one in float32
ALIGNED, LARGE_PAGE = 64, 2**21  # bytes
MOST_RESPONSES = 5 * 10**7  # numbers in the responses of the free coordinates


def is_certifiable(problem: Problem) -> bool:
    """Whether a convex problem knows the conjugates that a gap is made of."""
    known = problem.loss.conjugate, problem.penalty.conjugate
    return None not in known


def column_means(X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What to take off the columns, [p] in the dtype of X: their weighted means.

    Of a constant column it is the constant, so that nothing is left of it.
    """
    share = (weights / weights.sum(dtype=float)).astype(X.dtype)
    total, constant = np.zeros(X.shape[1]), np.flatnonzero(X[0] == X[-1])
    for rows in blocks(X, min(BLOCK, SHORT * X.shape[1])):
        total += weighted_sum(share[rows], X[rows])
        if constant.size:
            same = np.all(X[rows][:, constant] == X[0, constant], axis=0)
            constant = constant[same]
    mean = total.astype(X.dtype)
    mean[constant] = X[0, constant]
    return mean


def weighted_sum(shares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`shares @ rows`, [p], without BLAS.

    Its threads spin for 110 ms after a product that they shared, beside all that comes
    next (scripts/bench/NOTES.md).
    """
    return np.einsum("i,ij->j", shares, rows)


def centred(
    X: np.ndarray, mean: np.ndarray | None, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`X - mean`, and `sum_i shares_i X_ij^2` of that, [p] in float64.

    Block by block, as long as it is in the cache.
    """
    out = X if mean is None else unfilled(X.shape, X.dtype)
    total, square = np.zeros(X.shape[1]), None
    for rows in blocks(X, SMALL_BLOCK):
        if mean is not None:
            np.subtract(X[rows], mean, out=out[rows])
        square = np.empty(X[rows].shape) if square is None else square[: len(X[rows])]
        np.square(out[rows], out=square, dtype=float)
        total += weighted_sum(shares[rows], square)
    return out, total


def keeps_turned(problem: Problem, data: Data) -> bool:
    """Whether X' [p, n] row by row beside X is worth its memory.

    On a CPU products are fast that take X or X' row by row, times a thin matrix: from
    X' eta has its rows last in memory, beside y, and narrow steps of one output take a
    third of the time; a gradient of an X beyond the cache takes a half to a seventh
    (scripts/bench/NOTES.md).
    """
    if not (is_linear(problem.model) and jax.default_backend() == "cpu"):
        return False
    n, p = data.X.shape
    return data.y.shape[1] == 1 if is_narrow(data) else LARGE <= n * p <= LARGEST


def with_turned(problem: Problem, data: Data) -> Data:
    """Data on the host with X' row by row in memory, where it is kept."""
    if not keeps_turned(problem, data):
        return data._replace(XT=None)
    return data._replace(XT=shareable(np.asarray(data.X).T))


def shareable(X: np.ndarray) -> np.ndarray:
    """X, or where a CPU device would have to copy it a copy that it shares.

    XLA's own copy takes five times as long as NumPy's.
    """
    fits = X.flags.c_contiguous and X.ctypes.data % ALIGNED == 0
    if fits or jax.default_backend() != "cpu":
        return X
    copy = unfilled(X.shape, X.dtype)
    np.copyto(copy, X)
    return copy


def unfilled(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A NumPy array in C order that begins where XLA has its own begin.

    A large one fills whole large pages, which NumPy asks for: others are taken from
    the system by 4 KiB, at 2.5 microseconds each.
    """
    size, item = math.prod(shape), np.dtype(dtype).itemsize
    multiple = ALIGNED if size * item < LARGE_PAGE else LARGE_PAGE
    room = np.empty(size + 2 * multiple // item, dtype)
    begin = -room.ctypes.data % multiple // item
    return room[begin : begin + size].reshape(shape)


def free_places(problem: Problem, params: Params) -> np.ndarray:
    """Places in the flattened params that the penalty leaves alone, [q].

    A coordinate is free if a prox of enormous weight leaves a tiny value where it is,
    on some side of 0: all leaves that are not selected, factors of 0.
    """
    stays = jax.tree.leaves(trees.jitted(_stays, problem.penalty, params))
    return np.flatnonzero(np.concatenate([np.ravel(leaf) for leaf in stays]))


def unheld(problem: Problem, params: Params, free: np.ndarray) -> bool:
    """Whether nothing, bounds or a penalty of large values, holds free coordinates."""
    stays = jax.tree.leaves(trees.jitted(_stays_afar, problem.penalty, params))
    return bool(np.all(np.concatenate([np.ravel(leaf) for leaf in stays])[free]))


def _stays(penalty: Any, params: Params) -> Params:
    sides = (_stays_at(penalty, params, value) for value in (1 / HUGE, -1 / HUGE))
    return jax.tree.map(jnp.logical_or, *sides)


def _stays_afar(penalty: Any, params: Params) -> Params:
    sides = (_stays_at(penalty, params, value) for value in (HUGE, -HUGE))
    return jax.tree.map(jnp.logical_and, *sides)


def _stays_at(penalty: Any, params: Params, value: float) -> Params:
    start = jax.tree.map(lambda a: jnp.full_like(a, value), params)
    return jax.tree.map(jnp.equal, penalty.prox(start, HUGE, HUGE), start)


def aid(
    problem: Problem,
    params: Params,
    data: Data,
    shares: np.ndarray,
    null: float,
    free: np.ndarray,
    squares: np.ndarray | None,
) -> Aid:
    """The Aid of an affine problem; data as the solver will see them.

    Args:
      problem: with an affine model and a convex loss.
      params: only their structure is used.
      data: rows.
      shares: [n] sample weights over their sum.
      null: mean loss of the null model.
      free: [q] places of the unpenalised coordinates in the flattened params.
      squares: [p] mean squares of a linear model's columns; None of other models.
    """
    metric = _metric(problem, params, data, shares, squares)
    dtype = data.X.dtype
    metric = jax.tree.map(lambda a: np.asarray(a, dtype), metric)
    shares = np.asarray(shares, dtype)
    alone = data._replace(XT=None)  # one product at a time: X stays in the cache
    top = trees.jitted(_top_eigenvalue, problem.model, metric, params, alone, shares)
    if free_block.size(problem.model, problem.loss, data, free) > MOST_RESPONSES:
        free = free[:0]  # gaps are then those of the scaled dual point alone
    curvature = curvature_of(problem, params, data, shares)
    most = max(float(top), 1e-30) * curvature
    return Aid(
        metric=metric,
        free=free.astype(np.int32),
        moves=free_block.moves_of(problem.model, problem.loss, data, params, free),
        curvature=np.asarray(most, dtype),
        null=np.asarray(null, dtype),
        first=np.asarray(FIRST * most, dtype),
    )


def curvature_of(
    problem: Problem, params: Params, data: Data, shares: np.ndarray
) -> float:
    """Bound on the loss's second derivative in eta; else its mean at these params."""
    curvature, shares = problem.loss.curvature, np.asarray(shares, data.X.dtype)
    if curvature is None:
        curvature = float(trees.jitted(_mean_curvature, problem, params, data, shares))
    return curvature


def _metric(
    problem: Problem,
    params: Params,
    data: Data,
    shares: np.ndarray,
    squares: np.ndarray | None,
) -> Params:
    """Mean square of every coordinate's column, the largest where it is 0."""
    if squares is not None:
        metric = jax.tree.map(lambda a: np.ones((1,) * a.ndim), params)
        metric[0]["w"] = squares[:, None]
    else:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (PROBES, *data.y.shape))
        probes = (signs * np.sqrt(shares)[:, None]).astype(data.X.dtype)
        metric = trees.jitted(_probe, problem.model, params, data, probes)
    chosen = trees.select(params)
    metric = jax.tree.map(
        lambda on, m: np.asarray(m, float) + (problem.ridge if on else 0.0),
        chosen,
        metric,
    )
    largest = max(float(np.max(m)) for m in jax.tree.leaves(metric)) or 1.0
    metric = jax.tree.map(lambda m: np.where(m > 0, m, largest), metric)
    _check_range(metric, data.X.dtype)
    if problem.penalty.pool is None:
        return metric
    full = jax.tree.map(lambda m, a: np.broadcast_to(m, a.shape), metric, params)
    return trees.jitted(_pool, problem.penalty, full)


def _check_range(metric: Params, dtype: Any) -> None:
    """Squares of columns are divided by: they must be well within the dtype.

    Raises:
      ValueError: one is not.
    """
    sizes = np.concatenate([np.ravel(m) for m in jax.tree.leaves(metric)])
    room = np.sqrt(np.finfo(dtype).max) ** 1.8
    if sizes.max() > room or sizes.min() < 1 / room:
        raise ValueError(
            f"X: a column of size {np.sqrt(sizes.max()):.3g} beside one of "
            f"{np.sqrt(sizes.min()):.3g} is beyond the range of "
            f"{np.dtype(dtype).name}; rescale X, use standardize=True, or turn 64 bits "
            "on in jax"
        )


def _pool(penalty: Any, tree: Params) -> Params:
    return penalty.pool(tree)


def _probe(model: Model, params: Params, data: Data, probes: Array) -> Params:
    squares = jax.lax.map(
        lambda probe: jax.tree.map(jnp.square, pull_back(model, params, data, probe)),
        probes,
    )
    return jax.tree.map(lambda a: jnp.mean(a, axis=0), squares)


def _top_eigenvalue(
    model: Model, metric: Params, params: Params, data: Data, shares: Array
) -> Array:
    """Largest eigenvalue of `J' diag(shares) J` over the metric, by power steps."""

    def apply(w: Params) -> Array:
        return model.apply(w, data.X)

    def step(_, carry):
        w, _ = carry
        size = jnp.sqrt(trees.vdot(jax.tree.map(jnp.multiply, metric, w), w))
        w = jax.tree.map(lambda a: a / jnp.maximum(size, 1e-30), w)
        _, moved = jax.jvp(apply, (params,), (w,))
        pulled = pull_back(model, params, data, shares[:, None] * moved)
        new = jax.tree.map(jnp.divide, pulled, metric)
        return new, jnp.sum(shares[:, None] * moved**2)

    flat, restore = ravel_pytree(params)
    start = restore(jnp.cos(1.7 * jnp.arange(flat.size, dtype=flat.dtype)))
    begun = start, jnp.zeros((), flat.dtype)
    return jax.lax.fori_loop(0, POWER_STEPS, step, begun)[1]


def blocks(X: np.ndarray, size: int) -> Iterator[slice]:
    """Rows of so many numbers, in order."""
    length = max(1, size // max(1, X[0].size))
    for begin in range(0, len(X), length):
        yield slice(begin, begin + length)


def _mean_curvature(problem: Problem, params: Params, data: Data, shares: Array):
    """Second derivative of the mean loss as all of eta moves by 1."""

    def moved(t: Array) -> Array:
        eta = linear_predictor(problem.model, params, data) + t
        return jnp.sum(shares * problem.loss.value(eta, data.y))

    second = jax.grad(jax.grad(moved))(jnp.zeros((), data.X.dtype))
    return jnp.clip(second, 1e-3, None)
