"""Monotone FISTA for any smooth loss, networks too; one evaluation a round.

A round is one trial step from the extrapolated point. It is taken if the quadratic
bound holds there and the objective does not rise; else the step is halved, or the
momentum dropped. So the objective never rises, on convex and non-convex problems
alike, and a round has a fixed cost.

Source: Beck & Teboulle (2009), SIAM J. Imaging Sci. 2; restart of O'Donoghue &
Candes (2015), Found. Comput. Math. 15.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from regjax import objective, trees
from regjax.solvers.report import report, shares
from regjax.types import Array, Data, Info, Lane, Params, Problem, Solver, Status


class State(NamedTuple):
    """What the next round needs.

    Attributes:
      params: w, the last accepted point; its zeros are exact.
      ahead: y, the point extrapolated from it.
      value: [] F(w).
      momentum: [] t of the FISTA sequence.
      step: [] step size.
      residual: [] KKT residual at the last accepted y.
      n_iter: [] int32.
    """

    params: Params
    ahead: Params
    value: Array
    momentum: Array
    step: Array
    residual: Array
    n_iter: Array


def build(tol: Array | float, rounds: int, problem: Problem, data: Data) -> Solver:
    """The Solver of one problem and one data set."""
    return Solver(
        init=Partial(init, problem, data),
        end=lambda state: state.params,
        resume=lambda lane, params: init(problem, data, lane, params),
        step=lambda lane, state, batch: step(problem, data, lane, state),
        status=Partial(status, tol, rounds),
        finish=Partial(_finish, tol, problem, data),
        batch=lambda clock, key: None,
    )


def at(params: Params, lane: Lane) -> State:
    """At params, with nothing measured there yet."""
    unknown = jnp.full_like(lane.lam, jnp.inf)
    one = jnp.ones_like(lane.lam)
    zero = jnp.zeros((), jnp.int32)
    return State(params, params, unknown, one, one, unknown, zero)


@trees.exact
def init(problem: Problem, data: Data, lane: Lane, params: Params) -> State:
    """At params, with its value and a first step size."""
    # A start that the penalty forbids has no finite value to begin from.
    params = problem.penalty.prox(params, lane.lam, 0.0)
    share = shares(lane)
    (value, grad), hessian = jax.linearize(
        jax.value_and_grad(lambda w: objective.smooth(problem, w, data, share)), params
    )
    return at(params, lane)._replace(
        value=value + problem.penalty.value(params, lane.lam),
        step=_first_step(grad, lambda v: hessian(v)[1]),
    )


def _first_step(grad: Params, hessian: Callable[[Params], Params]) -> Array:
    """1 / (largest curvature), roughly: a few power iterations from the gradient."""
    largest = trees.max_abs(grad)
    tiny = jnp.finfo(largest.dtype).tiny

    def unit(v: Params) -> Params:
        # By the largest entry first, so that no square over- or underflows.
        v = jax.tree.map(lambda x: x / jnp.maximum(trees.max_abs(v), tiny), v)
        return jax.tree.map(lambda x: x / jnp.sqrt(trees.vdot(v, v) + tiny), v)

    def power(_, found):
        v = hessian(unit(found[0]))
        return v, jnp.sqrt(trees.vdot(v, v))

    # A little of every direction, for a gradient that is blind to the largest.
    start = jax.tree.map(lambda g: g + 0.1 * largest + tiny, grad)
    _, curvature = jax.lax.fori_loop(0, 5, power, (start, largest))
    usable = jnp.isfinite(curvature) & (curvature > 0)
    return jnp.where(usable, 1.0 / jnp.where(usable, curvature, 1.0), 1.0)


@trees.exact
def step(problem: Problem, data: Data, lane: Lane, state: State) -> State:
    """One trial step: taken, halved, or without momentum."""
    share = shares(lane)

    def smooth(w):
        return objective.smooth(problem, w, data, share)

    w, y, step = state.params, state.ahead, state.step
    at_y, grad = jax.value_and_grad(smooth)(y)
    new = objective.prox_step(problem, y, grad, lane.lam, step)
    at_new = smooth(new)
    value = at_new + problem.penalty.value(new, lane.lam)

    moved = jax.tree.map(jnp.subtract, new, y)
    bound = at_y + trees.vdot(grad, moved) + trees.vdot(moved, moved) / (2 * step)
    slack = 4 * jnp.finfo(at_y.dtype).eps * (jnp.abs(at_y) + jnp.abs(value))
    bounded = at_new <= bound + slack  # False for NaN: then the step is halved
    lower = value <= state.value + slack
    taken = bounded & lower

    t = 0.5 * (1 + jnp.sqrt(1 + 4 * state.momentum**2))
    push = (state.momentum - 1) / t
    ahead = jax.tree.map(lambda c, old: c + push * (c - old), new, w)
    residual = trees.max_abs(moved) / step
    measured = taken | (bounded & (state.momentum == 1))  # then y is w
    return State(
        params=trees.where(taken, new, w),
        ahead=trees.where(taken, ahead, trees.where(bounded, w, y)),
        value=jnp.where(taken, value, state.value),
        momentum=jnp.where(taken, t, jnp.where(bounded, 1.0, state.momentum)),
        step=jnp.where(bounded, step, 0.5 * step),
        residual=jnp.where(measured, residual, state.residual),
        n_iter=state.n_iter + 1,
    )


def status(tol: Array | float, rounds: Array | int, lane: Lane, state: State) -> Array:
    """Converged, diverged, all rounds used, or running."""
    # The residual is one of y; half the tolerance makes room for the step to w.
    done = state.residual <= 0.5 * tol * lane.scale
    lost = ~jnp.isfinite(state.value)
    used = jnp.where(state.n_iter >= rounds, Status.max_iter, Status.running)
    status = jnp.where(done, Status.converged, used)
    return jnp.where(lost, Status.diverged, status).astype(jnp.int32)


def _finish(
    tol: Array, problem: Problem, data: Data, lane: Lane, state: State, status: Array
) -> tuple[Params, Info]:
    info = report(
        problem,
        data,
        lane,
        state.params,
        step=state.step,
        tol=tol,
        status=status,
        n_iter=state.n_iter,
    )
    return state.params, info
