r"""Accelerated proximal gradient for convex problems, stopped by the duality gap.

FISTA with three changes:

1. The step is learned. The curvature met along the way, `|dg|^2 / <dg, dy>`, is kept
   and slowly forgotten; the global bound is loose where classes are well separated.
   Steps are scaled by each column's size (`Aid.metric`).
2. Momentum is dropped where it points uphill (O'Donoghue & Candes 2015).
3. A round is a few steps and then a look: the unpenalised block is fitted, the gap is
   measured. A round that ends above the one before it is undone; the next one is
   plain proximal gradient of half the step, which descends once the step is short
   enough. So the objective never rises from look to look, whatever was learned.

A step costs one product with X and one with X', a look as much again.

Source: Beck & Teboulle (2009), SIAM J. Imaging Sci. 2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from regjax import certificates, objective, trees
from regjax.certificates import pull_back, slopes_of
from regjax.free_block import Block
from regjax.losses import is_squared
from regjax.objective import linear_predictor
from regjax.solvers import fista
from regjax.solvers.report import count_nonzero, shares
from regjax.types import Aid, Array, Data, Info, Lane, Params, Problem, Solver, Status

STEPS, GRAM_STEPS = 10, 6  # between two looks
PATIENCE = 40  # looks without a better gap, before it is called the floor
FLOOR = 100.0  # in units of rounding: above it what has stalled is not the floor


class Point(NamedTuple):
    """Params and their linear predictor, offset included."""

    params: Params
    eta: Array


class State(NamedTuple):
    """What the next round needs.

    Attributes:
      now: the last look: its zeros are exact, its free block is fitted.
      ahead: params extrapolated from it.
      pace: of the steps; the largest curvature is that met since the last look.
      plain: [] whether the next round is without momentum.
      found: what the last look measured; before the first of a lam its gap is inf.
      kkt: [] residual there, or inf.
      least: [] smallest gap so far.
      stalled: [] int32, looks since it fell.
      lam: [] this lane's.
      before: params at the end of the lane before, and its lam; NaN: none.
      n_iter: [] int32, steps made.
    """

    now: Point
    ahead: Params
    pace: fista.Pace
    plain: Array
    found: certificates.Certificate
    kkt: Array
    least: Array
    stalled: Array
    lam: Array
    before: tuple[Params, Array]
    n_iter: Array


class End(NamedTuple):
    """Of a lane, what the next one needs.

    Attributes:
      now: of its state.
      loss: [] there.
      grad: of the smooth part there.
      curvature: [] of its last step.
      lam: [] its own.
      before: of its state.
    """

    now: Point
    loss: Array
    grad: Params
    curvature: Array
    lam: Array
    before: tuple[Params, Array]


class Setting(NamedTuple):
    """The problem, and its data with an Aid."""

    problem: Problem
    data: Data

    @property
    def aid(self) -> Aid:
        """What the data bring along."""
        return self.data.aid  # pyright: ignore


def build(tol: Array | float, most: int, problem: Problem, data: Data) -> Solver:
    """The Solver of one convex problem and one data set with an Aid."""
    setting = Setting(problem, data)
    return Solver(
        init=lambda lane, params: _init(setting, lane, params),
        end=_end,
        resume=lambda lane, end: _resume(setting, lane, end),
        step=lambda lane, state, batch: _round(setting, lane, state),
        status=lambda lane, state: _status(setting, tol, most, lane, state),
        finish=lambda lane, state, status: _finish(setting, lane, state, status),
        batch=lambda clock, key: None,
    )


@trees.exact
def _init(setting: Setting, lane: Lane, params: Params) -> State:
    """At params, with nothing but the objective measured there yet.

    It is what the first round must not end above: one that overshoots may end where
    the loss is huge but finite, and the curvature too.
    """
    problem, data = setting
    point = Point(params, linear_predictor(problem.model, params, data))
    losses, slopes = slopes_of(problem.loss, point.eta, data.y, shares(lane))
    grad = jax.tree.map(jnp.zeros_like, params)  # the first step needs none
    if data.gram is not None:
        grad = _gradient(problem, data, params, slopes)
    curvature = jnp.asarray(setting.aid.first, lane.lam.dtype)
    before = params, jnp.full_like(lane.lam, jnp.nan)
    end = End(point, trees.total(losses), grad, curvature, lane.lam, before)
    return _begun(problem, lane, end, params, before)


def _end(state: State) -> End:
    found, curvature = state.found, state.pace.curvature
    return End(state.now, found.loss, found.grad, curvature, state.lam, state.before)


@trees.exact
def _resume(setting: Setting, lane: Lane, end: End) -> State:
    """From the last lam, towards the secant through the last two."""
    last = end.now.params, end.lam
    ahead = fista.secant(setting.problem, lane.lam, last, end.before)
    return _begun(setting.problem, lane, end, ahead, last)


def _begun(
    problem: Problem,
    lane: Lane,
    end: End,
    ahead: Params,
    before: tuple[Params, Array],
) -> State:
    """Before the first round of a lam, at the end of another."""
    unknown, zero = jnp.full_like(lane.lam, jnp.inf), jnp.zeros((), jnp.int32)
    omega = problem.penalty.value(end.now.params, lane.lam)
    value = end.loss + omega + objective.ridge(problem, end.now.params)
    return State(
        now=end.now,
        ahead=ahead,
        pace=fista.begin((end.now.params, end.grad), end.curvature),
        plain=jnp.zeros((), bool),
        found=certificates.Certificate(
            gap=unknown,
            rounding=unknown,
            loss=end.loss,
            penalty=omega,
            objective=value,
            grad=end.grad,
        ),
        kkt=unknown,
        least=unknown,
        stalled=zero,
        lam=lane.lam,
        before=before,
        n_iter=zero,
    )


@trees.exact
def _round(setting: Setting, lane: Lane, state: State) -> State:
    """A few steps, then a look."""
    count = STEPS if setting.data.gram is None else GRAM_STEPS
    state = _look(setting, lane, state, *_steps(setting, lane, state, count))
    return state._replace(n_iter=state.n_iter + count)


def _look(
    setting: Setting,
    lane: Lane,
    state: State,
    moved: Point,
    ahead: Params,
    pace: fista.Pace,
) -> State:
    """Fit the free block, measure; undo what ends above the look before it."""
    problem, data = setting
    a = shares(lane)
    given = (problem, data, a, lane.lam)
    look = certificates.refit(*given, certificates.look_at(problem, data, a, *moved))
    now = Point(look.params, look.eta)
    ahead = jax.tree.map(lambda a, n, m: a + (n - m), ahead, now.params, moved.params)
    found = certificates.certificate(*given, look)
    slack = jnp.where(jnp.isfinite(found.rounding), 4 * found.rounding, 0.0)
    good = found.objective <= state.found.objective + slack  # False for NaN

    kkt = _kkt(setting, lane, now.params, found.grad, pace.curvature)
    better = good & (found.gap < 0.98 * state.least)
    # What was met where the loss overflowed says nothing.
    curvature = state.pace.curvature
    undone = jnp.clip(pace.highest, 2 * curvature, 10 * curvature)
    seen = state.now.params, state.found.grad
    undone = fista.begin(seen, jnp.minimum(undone, _most_curvature(setting)))
    return state._replace(
        now=trees.where(good, now, state.now),
        ahead=trees.where(good, ahead, state.now.params),
        pace=trees.where(good, pace, undone),
        plain=~good,
        found=trees.where(good, found, state.found),
        kkt=jnp.where(good, kkt, state.kkt),
        least=jnp.where(better, found.gap, state.least),
        stalled=jnp.where(better, 0, state.stalled + 1),
    )


def _steps(
    setting: Setting, lane: Lane, state: State, count: int
) -> tuple[Point, Params, fista.Pace]:
    """Some steps of FISTA: the last point, the params ahead, and the pace."""
    problem, data = setting
    a = shares(lane)

    def gradient(y: Params) -> Params:
        if data.gram is not None:
            return _along(problem, data.gram, state, y)
        eta = linear_predictor(problem.model, y, data)
        return _gradient(problem, data, y, slopes_of(problem.loss, eta, data.y, a)[1])

    def prox(params: Params, step: Params) -> Params:
        return problem.penalty.prox(params, lane.lam, step)

    begun = state.now.params, state.ahead, state.pace
    given = gradient, prox, setting.aid.metric, _most_curvature(setting), state.plain
    new, ahead, pace = fista.steps(count, *given, begun)
    return Point(new, linear_predictor(problem.model, new, data)), ahead, pace


def _gradient(problem: Problem, data: Data, params: Params, slopes: Array) -> Params:
    """Of the smooth part."""
    grad = pull_back(problem.model, params, data, slopes)
    ridge = jax.grad(objective.ridge, argnums=1)(problem, params)
    return jax.tree.map(jnp.add, grad, ridge)


def _along(problem: Problem, gram: Array, state: State, params: Params) -> Params:
    """Of squared error and centred columns, by that at the last look."""
    moved = jax.tree.map(jnp.subtract, params, state.now.params)
    bent = ({**moved[0], "w": gram @ moved[0]["w"]},)
    ridge = jax.grad(objective.ridge, argnums=1)(problem, moved)
    return jax.tree.map(lambda g, *more: g + sum(more), state.found.grad, bent, ridge)


def _most_curvature(setting: Setting) -> Array:
    """The global bound, where there is one: what is met beyond it is rounding.

    Twice, because a power iteration comes from below; and because of a ridge.
    """
    loss, aid = setting.problem.loss, setting.aid
    if loss.curvature is None:
        return jnp.full_like(aid.curvature, jnp.inf)
    return 2 * (aid.curvature + 1)


def _kkt(
    setting: Setting, lane: Lane, params: Params, grad: Params, curvature: Array
) -> Array:
    step = _plain_step(setting, curvature)
    return objective.kkt_residual(setting.problem, params, grad, lane.lam, step)


def _plain_step(setting: Setting, curvature: Array) -> Array:
    """One step size for all coordinates, the shortest."""
    return 1 / (curvature * trees.max_abs(setting.aid.metric))


def _status(
    setting: Setting, tol: Array | float, most: int, lane: Lane, state: State
) -> Array:
    gap, rounding = state.found.gap, state.found.rounding
    wanted = tol * setting.aid.null
    # Without a penalty no dual point is feasible but 0.
    free = (lane.lam == 0) & (state.kkt <= tol * lane.scale)
    done = (gap <= wanted) | free
    least = FLOOR * jnp.finfo(gap.dtype).eps * lane.scale
    low = (gap <= FLOOR * rounding) | (state.kkt <= least)
    stuck = (gap - rounding <= rounding) | (low & (state.stalled >= PATIENCE))
    lost = state.n_iter >= most
    status = jnp.where(lost, Status.max_iter, Status.running)
    status = jnp.where(stuck, Status.floor, status)
    status = jnp.where(done, Status.converged, status)
    never = ~jnp.isfinite(state.found.objective) & (state.stalled >= PATIENCE)
    return jnp.where(never, Status.diverged, status).astype(jnp.int32)


@trees.exact
def _finish(
    setting: Setting, lane: Lane, state: State, status: Array
) -> tuple[Params, Info]:
    params, found = state.now.params, state.found
    away = _runs_away(setting, lane, state) & (status != Status.diverged)
    return params, Info(
        status=jnp.where(away, Status.unbounded, status).astype(jnp.int32),
        n_iter=state.n_iter,
        step=_plain_step(setting, state.pace.curvature),
        kkt=state.kkt,
        gap=found.gap,
        loss=found.loss,
        penalty=found.penalty,
        objective=found.objective,
        n_nonzero=count_nonzero(setting.problem, params),
    )


def _runs_away(setting: Setting, lane: Lane, state: State) -> Array:
    """Whether twice the unpenalised coordinates are better: no minimiser."""
    problem, data = setting
    if is_squared(problem.loss):
        return jnp.array(False)  # least squares always has a minimiser
    params, eta = state.now
    block = Block(setting.aid.free, objective.penalised(problem, params))
    farther = block.put(params, 2 * block.get(params))
    double = jax.tree.map(lambda w: 2 * w, params)
    farther = trees.where(lane.lam == 0, double, farther)
    farther = problem.penalty.prox(farther, lane.lam, 0.0)  # as far as bounds allow
    moved = linear_predictor(problem.model, farther, data)
    losses, _ = slopes_of(problem.loss, moved, data.y, shares(lane))
    value = trees.total(losses) + objective.ridge(problem, farther)
    here = state.found.objective - state.found.penalty
    # Well below, as rounding may lower it a little where all classes shift alike.
    lower = value < here - 1e-3 * jnp.abs(here)
    return lower & (jnp.max(jnp.abs(moved - eta)) > 1)
