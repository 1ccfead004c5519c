"""Steps of accelerated proximal gradient, their size learned, and where to begin.

Source: Beck & Teboulle (2009), SIAM J. Imaging Sci. 2; restart of O'Donoghue & Candes
(2015), Found. Comput. Math. 15.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from regjax import objective, trees
from regjax.types import Array, Params, Problem

FORGET = 0.96


class Pace(NamedTuple):
    """What steps leave for those after them.

    Attributes:
      seen: params and gradient of the last step, or where the steps begin, for the
        curvature between two.
      momentum: [] t of the FISTA sequence.
      curvature: [] 1 / step, in the metric.
      highest: [] largest curvature met among them.
    """

    seen: tuple[Params, Params]
    momentum: Array
    curvature: Array
    highest: Array


def begin(seen: tuple[Params, Params], curvature: Array) -> Pace:
    """From params and their gradient: without momentum, and with nothing met."""
    one = jnp.ones_like(curvature)
    return Pace(seen, one, curvature, jnp.zeros_like(one))


def steps(
    count: int,
    gradient: Callable[[Params], Params],
    prox: Callable[[Params, Params], Params],
    metric: Params,
    most: Array,
    plain: Array | bool,
    begun: tuple[Params, Params, Pace],
) -> tuple[Params, Params, Pace]:
    """A few steps.

    Args:
      count: of them.
      gradient: of the smooth part.
      prox: `prox(params, step)`, of the penalty.
      metric: like params, what steps are divided by.
      most: [] no curvature is larger.
      plain: [] whether to go without momentum.
      begun: `(params, those extrapolated from them, pace)`.

    Returns:
      The same three, a few steps later.
    """

    def one(_, carry: tuple[Params, Params, Pace]) -> tuple[Params, Params, Pace]:
        now, y, pace = carry
        grad = gradient(y)
        met = jnp.minimum(_curvature_met(metric, pace.seen, (y, grad)), most)
        curvature = jnp.maximum(met, FORGET * pace.curvature)
        step = jax.tree.map(lambda m: 1 / (curvature * m), metric)
        new = prox(jax.tree.map(lambda w, g, t: w - t * g, y, grad, step), step)

        back = jax.tree.map(lambda m, y, n: m * (y - n), metric, y, new)
        uphill = trees.vdot(back, jax.tree.map(jnp.subtract, new, now)) > 0
        t = 0.5 * (1 + jnp.sqrt(1 + 4 * pace.momentum**2))
        dropped = uphill | plain
        push = jnp.where(dropped, 0.0, (pace.momentum - 1) / t)
        ahead = jax.tree.map(lambda n, w: n + push * (n - w), new, now)
        pace = Pace(
            seen=(y, grad),
            momentum=jnp.where(dropped, 1.0, t),
            curvature=curvature,
            highest=jnp.maximum(pace.highest, met),
        )
        return new, ahead, pace

    now, ahead, pace = begun
    pace = pace._replace(highest=jnp.zeros_like(pace.highest))
    return jax.lax.fori_loop(0, count, one, (now, ahead, pace))


def _curvature_met(
    metric: Params, seen: tuple[Params, Params], now: tuple[Params, Params]
) -> Array:
    """`|dg|^2 / <dg, dy>` in the metric; 0 where nothing has moved."""
    dy, dg = (jax.tree.map(jnp.subtract, b, a) for a, b in zip(seen, now, strict=True))
    squares = jax.tree.map(lambda g, m: trees.total(g**2 / m), dg, metric)
    length = sum(jax.tree.leaves(squares))
    inner = trees.vdot(dg, dy)
    found = length / jnp.where(inner > 0, inner, 1.0)
    return jnp.where((inner > 0) & jnp.isfinite(found), found, 0.0)


def secant(
    problem: Problem,
    lam: Array,
    last: tuple[Params, Array],
    before: tuple[Params, Array],
) -> Params:
    """Where the line through the params of two lams is at a third.

    What would change sign is 0.

    Args:
      problem: whose penalty tells what may be 0.
      lam: [] the third.
      last: params and lam.
      before: params and lam; NaN: there are none, and the last params are returned.
    """
    (new, lam_new), (old, lam_old) = last, before
    ratio = jnp.log(lam / lam_new) / jnp.log(lam_new / lam_old)
    ratio = jnp.where(jnp.isfinite(ratio), jnp.clip(ratio, 0.0, 2.0), 0.0)
    chosen = objective.penalised(problem, new)

    def ahead(on: bool, b: Array, a: Array) -> Array:
        moved = b + ratio * (b - a)
        return jnp.where(moved * b > 0, moved, 0.0) if on else moved

    return jax.tree.map(ahead, chosen, new, old)
