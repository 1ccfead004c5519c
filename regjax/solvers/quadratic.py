"""Squared error in few inputs: a whole path in one small program, by second moments.

With `G = X' diag(a) X` and `c = X' diag(a) r`, r what the intercept leaves of y, the
gradient of the weights is `G w - c`, whatever the number of rows. All chains go side
by side, and so cheap a step can be followed by a look every few of them, at a gap that
is made of G and c as well. Moments lose digits, so this gap only says when to stop:
what is found is measured by rows, and lams that are not near enough are left to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import certificates, losses, models, objective, trees
from regjax.solvers import certified, fista
from regjax.solvers.proximal_gradient import tolerance
from regjax.solvers.report import shares
from regjax.types import Array, Data, Info, Lane, Method, Params, Problem, Status

MOST_INPUTS = 1024
INPUTS_A_LANE = 32  # G costs so many steps
STEPS = 5  # between two looks
MOST_LOOKS = 40  # at one lam; more is work for the engine
SHARE = 0.5  # of the tolerance, as the gap is measured less well
WIDTH = 8  # numbers of chains are multiples of it, so that programs are shared


class Moments(NamedTuple):
    """Of the weighted rows.

    Attributes:
      G: [p, p] of the inputs, the ridge on its diagonal.
      c: [p, k] of inputs and targets.
      square: [] of the targets.
    """

    G: Array
    c: Array
    square: Array


def applies(
    method: Method, problem: Problem, data: Data, lanes: Lane, starts: Params
) -> bool:
    """Whether all lanes share such moments, and are enough to pay for them."""
    if not (method.reduces and data.aid is not None):
        return False
    squared = models.is_linear(problem.model) and losses.is_squared(problem.loss)
    moves, k = data.aid.moves, data.y.shape[1]
    # Centred columns leave the intercept where it starts, at the mean.
    free = k if models.has_intercept(problem.model) else 0
    centred = squared and np.all(moves.inputs < 0) and data.aid.free.size == free
    shared = np.ndim(lanes.weights) == 1 and lanes.scaling is None
    alone = len(jax.tree.leaves(starts)[0]) == 1 and np.all(lanes.lam > 0)
    few = data.X.shape[1] <= min(MOST_INPUTS, INPUTS_A_LANE * len(lanes.lam))
    return bool(centred and shared and alone and few)


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
      data: rows, with an Aid; it `applies`.
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
    tol = tolerance(method.tol, data.X.dtype)
    start = trees.rows(starts, 0)
    zero = np.zeros((), np.int32)
    given = lanes._replace(lam=lanes.lam[table], seed=zero, fold=zero)
    found = trees.jitted(_paths, problem, data, tol, given, start)
    place = np.zeros(len(lanes.lam), int)
    place[table.T.ravel()] = np.arange(table.size)  # a padded lane is the last of many
    return jax.tree.map(lambda a: np.asarray(a)[place], found)


def _paths(
    problem: Problem, data: Data, tol: Array, lanes: Lane, start: Params
) -> tuple[Params, Info]:
    """Of lams [S, l], S chains; results [l S, ...], of each chain's first lam first."""
    moments = _moments(problem, data, shares(lanes), start)

    def chain(lams: Array) -> tuple[Params, Array, Array]:
        return _chain(problem, data, moments, tol, start, lams)

    found = jax.vmap(chain, out_axes=1)(lanes.lam)
    each = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)
    return _measured(problem, data, tol, lanes, lanes.lam.T.reshape(-1), *each)


def _moments(problem: Problem, data: Data, a: Array, start: Params) -> Moments:
    nothing = jax.tree.map(jnp.zeros_like, start[0])
    rest = objective.linear_predictor(problem.model, (nothing | _side(start),), data)
    root = jnp.sqrt(a)[:, None]
    X, r = root * data.X, root * (data.y - rest)
    ridge = problem.ridge * jnp.eye(X.shape[1], dtype=X.dtype)
    return Moments(X.T @ X + ridge, X.T @ r, jnp.sum(r**2))


def _side(params: Params) -> dict[str, Array]:
    return {name: leaf for name, leaf in params[0].items() if name != "w"}


def _pull(moments: Moments, params: Params) -> Params:
    """Gradient of the smooth part."""
    grad = jax.tree.map(jnp.zeros_like, params[0])
    w = params[0]["w"]
    return ({**grad, "w": (w.T @ moments.G).T - moments.c},)


def _chain(
    problem: Problem,
    data: Data,
    moments: Moments,
    tol: Array,
    start: Params,
    lams: Array,
) -> tuple[Params, Array, Array]:
    """`(params, curvature, steps)` [l, ...] of one chain; once lost, always lost."""
    setting = certified.Setting(problem, data)
    metric, most = setting.aid.metric, certified.most_curvature(setting)
    wanted = SHARE * tol * setting.aid.null

    def one(carry, lam: Array):
        before, last, curvature, lost = carry
        params = fista.secant(problem, lam, last, before)

        def prox(params: Params, step: Params) -> Params:
            return problem.penalty.prox(params, lam, step)

        def some(state):
            *begun, looks, _ = state
            given = metric, most, False, tuple(begun)
            found = fista.steps(STEPS, lambda w: _pull(moments, w), prox, *given)
            return *found, looks + 1, _gap(problem, moments, lam, found[0])

        def more(state) -> Array:
            *_, looks, gap = state
            return ~(gap <= wanted) & (looks < MOST_LOOKS)

        looks = jnp.where(lost, MOST_LOOKS, 0)
        pace = fista.begin(params, curvature)
        begun = params, params, pace, looks, jnp.full_like(lam, jnp.inf)
        params, _, pace, looks, gap = jax.lax.while_loop(more, some, begun)
        lost = ~(gap <= wanted)
        found = params, pace.curvature, looks * STEPS
        return (last, (params, lam), pace.curvature, lost), found

    none = start, jnp.full_like(lams[0], jnp.nan)
    begun = none, none, 0.1 * setting.aid.curvature, jnp.zeros((), bool)
    return jax.lax.scan(one, begun, lams)[1]


def _gap(problem: Problem, moments: Moments, lam: Array, params: Params) -> Array:
    """The duality gap, as `certificates` has it, of moments."""
    grad = _pull(moments, params)
    w = params[0]["w"]
    ridge = objective.ridge(problem, params)
    square = moments.square + trees.total(w * (grad[0]["w"] - moments.c)) - 2 * ridge
    z = jax.tree.map(jnp.negative, grad)
    omega = problem.penalty.value(params, lam)

    def bound(s: Array) -> Array:
        shrunk = jax.tree.map(lambda a: s * a, z)
        return (
            (1 - s) ** 2 * (0.5 * square + ridge)
            + omega
            + problem.penalty.conjugate(shrunk, lam)  # pyright: ignore
            - s * trees.vdot(z, params)
        )

    s = certificates.dual_scale(problem, z, lam)
    bounds = jnp.stack([bound(jnp.ones_like(s)), bound(s)])
    return jnp.min(jnp.where(jnp.isnan(bounds), jnp.inf, bounds))


def _measured(
    problem: Problem,
    data: Data,
    tol: Array,
    lanes: Lane,
    lams: Array,
    params: Params,
    curvature: Array,
    steps: Array,
) -> tuple[Params, Info]:
    """By rows, what the certified solver says of them."""

    def one(lam, params, curvature, steps):
        lane = lanes._replace(lam=lam)
        return certified.measured(problem, data, tol, lane, params, curvature, steps)

    return jax.vmap(one)(lams, params, curvature, steps)
