"""A stretch of lams on a working set of inputs: solved, and looked at over all inputs.

Both are programs of few shapes, whose arrays stay on the device in between.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import certificates, objective, side_by_side, trees, workers
from regjax.free_block import rescaled
from regjax.parts import Part, lane_of, narrowed, part_of, widened
from regjax.solvers import fista, gram
from regjax.types import (
    Array,
    Data,
    Info,
    Lane,
    Method,
    Params,
    Penalty,
    Problem,
    Status,
)

LANES = 8  # looked at at a time
WORK = 2**32  # numbers of X times rounds and lanes: some seconds
LEAST_ROUNDS, MOST_ROUNDS = 50, 1000  # of a lam
QUICK_INPUTS = 256  # whose Gram matrix is made for the steps of one stretch, at most


class Stretch(NamedTuple):
    """What is asked for.

    Attributes:
      inputs: [m] the working set.
      lams: [s] descending; the last is repeated where there are fewer.
      ahead: [s] the last lam of the next stretch, if this one is the last that is done.
      near: [s, F, ...] params of all inputs that each begins near.
      last: [s] lams of these; of one's own nothing is added.
      second: [F, ...] params of another lam, for a secant.
      at: [] that; NaN: there is none.
    """

    inputs: np.ndarray
    lams: np.ndarray
    ahead: np.ndarray
    near: Params
    last: np.ndarray
    second: Params
    at: np.ndarray


class Found(NamedTuple):
    """What a look at all inputs finds, [s, F, ...] of lams and folds.

    Attributes:
      params: of all inputs.
      measured: their certificate.
      kkt: residual.
      enters: [..., p] bool, whether an input would leave 0.
      pushes: [..., p] how far it is expected to be pushed at the lam ahead.
    """

    params: Params
    measured: certificates.Certificate
    kkt: Array
    enters: Array
    pushes: Array


def solve(
    method: Method,
    problem: Problem,
    data: Data,
    lane: Lane,
    stretch: Stretch,
    engine: Callable[..., tuple[Params, Info]],
) -> tuple[Found, Info]:
    """Solve a stretch, and look.

    Args:
      method: a solver that `reduces`.
      problem: of all inputs.
      data: rows, with an Aid.
      lane: what all lanes share; weights [F, n], scaling [F, p] or None.
      stretch: what is asked for.
      engine: `engine(problem, data, lane, starts, lams) -> (params, info)`, arrays
        [s, F, ...]: solves what takes too long for one program.

    Returns:
      `(found, info)`, [s, F, ...] on the host; status `running` after a Ctrl-C.
    """
    folds, spent, starts = len(lane.weights), 0, None
    X = jax.ShapeDtypeStruct((len(data.X), len(stretch.inputs)), data.X.dtype)
    most = WORK // (X.size * data.y.shape[1] * len(stretch.lams) * folds)
    if most >= LEAST_ROUNDS:
        rounds = np.array([min(most, MOST_ROUNDS), 0], np.int32)
        alike = lane._replace(lam=stretch.lams)
        alike = alike._replace(weights=lane.weights[0]) if folds == 1 else alike
        few = X.shape[1] <= QUICK_INPUTS
        quick = few and gram.applies(method, problem, data._replace(X=X), alike)
        given = problem, data, lane, stretch, rounds
        parts, info = trees.jitted(_solved, method.build, quick, *given)
        found = _looked(problem, data, lane, parts)
        info = trees.fetched(info)
        with workers.catch_interrupt() as interrupted:
            if interrupted() or not np.any(info.status == Status.running):
                return found, info
        spent = info.n_iter
        starts = narrowed(found.params, stretch.inputs, axis=-2)
    part, own = part_of(problem, data, stretch.inputs), lane_of(lane, stretch.inputs)
    if starts is None:
        starts = trees.fetched(trees.jitted(_starts, part.problem, stretch))
    params, info = engine(part.problem, part.data, own, starts, stretch.lams)
    info = info._replace(n_iter=info.n_iter + spent)
    given = data.X.shape[1], part, own, stretch, params, info.step
    return _looked(problem, data, lane, trees.jitted(_opened, *given)), info


def _pushes(penalty: Penalty, grad: Params, lam: Array) -> Array:
    """How far each input would leave 0 in a step of 1, [p]."""
    minus = jax.tree.map(jnp.negative, grad)
    return jnp.max(jnp.abs(penalty.prox(minus, lam, 1.0)[0]["w"]), axis=1)


def _with_margin(lam: Array, ahead: Array) -> Array:
    """As far below the lam ahead as that is below lam, but not near 0."""
    return jnp.maximum(2 * ahead - lam, ahead / 4)


def first_pushes(
    problem: Problem, data: Data, lane: Lane, params: Params, lam: Array, ahead: Array
) -> Array:
    """Pushes at params [F, ...] of a lam, [F, p]."""

    def one(weights: Array, scaling: Any, params: Params) -> Array:
        here, a = rescaled(data, scaling), weights / jnp.sum(weights)
        grad = jax.grad(objective.smooth, argnums=1)(problem, params, here, a)
        return _pushes(problem.penalty, grad, _with_margin(lam, ahead))

    return jax.vmap(one)(lane.weights, lane.scaling, params)


def looked_at(folds: int) -> int:
    """How many lams of so many folds are looked at at a time."""
    return max(2, LANES // folds)


def _solved(
    build: Callable[..., Any],
    quick: bool,
    problem: Problem,
    data: Data,
    lane: Lane,
    stretch: Stretch,
    rounds: Array,
) -> tuple[list[Any], Info]:
    """What is to be looked at, and info [s, F]; every lane is a chain of its own."""
    part, own = part_of(problem, data, stretch.inputs), lane_of(lane, stretch.inputs)
    count, folds, each = len(stretch.lams), len(lane.weights), own
    if folds == 1:
        alone = jax.tree.map(lambda a: a[0], (own.weights, own.scaling))
        each = own._replace(weights=alone[0], scaling=alone[1])
    many = each._replace(
        lam=jnp.repeat(stretch.lams, folds)[:, None],
        seed=jnp.arange(count * folds),
        fold=jnp.tile(jnp.arange(folds), count),
    )
    starts = _starts(part.problem, stretch)
    starts = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), starts)
    rows = gram.with_matrix(part.data, each) if quick else part.data
    found = side_by_side.paths(build, part.problem, rows, many, starts, rounds)
    params, info = jax.tree.map(lambda a: a.reshape(count, folds, *a.shape[2:]), found)
    return _opened(data.X.shape[1], part, own, stretch, params, info.step), info


def _starts(problem: Problem, stretch: Stretch) -> Params:
    """Where lams of the set's problem begin: [s, F, ...], on the secant."""

    def one(near: Params, second: Params, lam: Array, last: Array) -> Params:
        ahead = fista.secant(problem, lam, (near, last), (second, stretch.at))
        return problem.penalty.prox(ahead, 0.0, 0.0)  # within bounds

    near, second = (
        narrowed(params, stretch.inputs, axis=-2)
        for params in (stretch.near, stretch.second)
    )
    folds = jax.vmap(one, in_axes=(0, 0, None, None))
    every = jax.vmap(folds, in_axes=(0, None, 0, 0))
    return every(near, second, stretch.lams, stretch.last)


def _opened(
    p: int, part: Part, lane: Lane, stretch: Stretch, params: Params, step: Array
) -> list[Any]:
    """Params [s, F, ...] of a part as those of p inputs, with what a look needs.

    In parts of as many lams as are looked at at a time.
    """
    whole, eta = widened(p, part, lane.scaling, params)
    given = stretch.lams, stretch.ahead, whole, eta, step
    most = looked_at(len(lane.weights))
    begins = range(0, len(stretch.lams), most)
    return [trees.rows(given, slice(begin, begin + most)) for begin in begins]


def _looked(problem: Problem, data: Data, lane: Lane, parts: list[Any]) -> Found:
    given = problem, data, lane.weights, lane.scaling
    looks = trees.fetched([trees.jitted(_looks, *given, *part) for part in parts])
    if len(looks) == 1:
        return looks[0]
    return jax.tree.map(lambda *a: np.concatenate(a), *looks)


def _looks(problem, data, weights, scaling, lams, ahead, params, eta, step) -> Found:
    def one(weights, scaling, lam, params, eta, step) -> Found:
        here, a = rescaled(data, scaling), weights / jnp.sum(weights)
        look = certificates.look_at(problem, here, a, params, eta)
        look = certificates.refit(problem, here, a, lam, look)
        found = certificates.certificate(problem, here, a, lam, look)
        kkt = objective.kkt_residual(problem, look.params, found.grad, lam, step)
        enters = _pushes(problem.penalty, found.grad, lam) != 0
        return Found(look.params, found, kkt, enters, jnp.zeros(()))

    folds = jax.vmap(one, in_axes=(0, 0, None, 0, 0, 0))
    every = jax.vmap(lambda *own: folds(weights, scaling, *own))
    found = every(lams, params, eta, step)
    grad = _extrapolated(found.measured.grad, lams, ahead)
    pushes = functools.partial(_pushes, problem.penalty)
    low = _with_margin(lams, ahead)
    pushed = jax.vmap(jax.vmap(pushes, in_axes=(0, None)))(grad, low)
    return found._replace(pushes=pushed)


def _extrapolated(grad: Params, lams: Array, ahead: Array) -> Params:
    """Gradients [s, F, ...] as expected at the lams ahead [s].

    Along the line through that of the lam two before; of the first two that of them.
    They miss fewer inputs than the last gradient does (scripts/bench/NOTES.md).
    """
    at = jnp.maximum(jnp.arange(len(lams)), 1)
    back = jnp.maximum(at - 2, 0)
    apart = lams[at] - lams[back]
    ratio = jnp.where(apart < 0, (ahead - lams) / jnp.where(apart < 0, apart, 1.0), 0.0)

    def one(g: Array) -> Array:
        far = ratio.reshape(-1, *[1] * (g.ndim - 1))
        moved = g[at] - g[back]
        return g + far * jnp.where(jnp.isfinite(moved), moved, 0.0)

    return jax.tree.map(one, grad)
