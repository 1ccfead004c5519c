"""Minibatch training by any optax optimiser, then a full-batch polish."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from regjax import objective, transforms, trees
from regjax.names import one_of, positive, whole_number
from regjax.solvers import monotone
from regjax.solvers.report import report
from regjax.types import (
    Array,
    Data,
    Info,
    Lane,
    Method,
    Params,
    Problem,
    Solver,
    Status,
)

LEARNING_RATES = {"adam": 2e-2, "sgd": 1e-1}
EPOCHS, LEAST_STEPS = 30, 800


def minibatch(
    optimizer: str | Callable[[Any, Any], optax.GradientTransformation] = "adam",
    batch_size: int | None = 128,
    epochs: int | None = None,
    polish: int = 30,
    learning_rate: float | None = None,
    tol: float = 1e-3,
) -> Method:
    r"""Stochastic training, the same batches for every lane.

    The gradient of a batch of B of n rows is that of
    `n / (B S) sum of s_i loss_i + ridge/2 |weights|^2`, which is unbiased. An epoch
    is `ceil(n / B)` batches of a new permutation; the last is filled up with its
    first rows.

    A minibatch prox does not find the support, however small the step: a zero moves
    whenever the noisy gradient exceeds lam. So training ends with at most `polish`
    rounds of `proximal_gradient`, fewer where `tol` is reached; status and KKT
    residual are taken there.

    With `validation=` rows (see `fit_path`) every lane stops early: the polish begins
    at the epoch of the least validation loss, and of its rounds, too, that of the
    least is kept. Such a lane is rarely stationary, and its status says so.

    Args:
      optimizer: `"adam"` or `"sgd"` (momentum 0.9), proximal and with a cosine
        decay of the learning rate to 0; or a function `(penalty, lam) ->
        optax.GradientTransformation` such as
        `functools.partial(rj.transforms.proximal_adam, 1e-3)`.
      batch_size: rows a step; None, or n and more, for all rows.
      epochs: passes over the rows; None: 30, or more of few rows, so that there are
        800 steps. (Where a network's penalty selects inputs, three times as many
        then change their number little: scripts/bench/NOTES.md.)
      polish: most full-batch rounds after it; 0 for none.
      learning_rate: at the start, for a named optimiser only; default 0.02 for
        adam, 0.1 for sgd (for inputs of about unit scale).
      tol: converged when the KKT residual is at most tol times `max |g|` at the
        model's own start.

    Returns:
      A solver for `fit_path`.

    Raises:
      ValueError: an unknown name, a bare GradientTransformation, a size below 1.
    """
    make = _optimizer(optimizer, learning_rate)
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size)
    epochs = None if epochs is None else whole_number("epochs", epochs)
    polish = whole_number("polish", polish, least=0)
    tol = positive("tol", tol)
    plan = Plan(batch_size, epochs, polish)
    rounds = (epochs or EPOCHS) + polish
    return Method(Partial(build, make, plan, tol), rounds, tol)


class Plan(NamedTuple):
    """Rows a step, None: all; epochs, None: by the rows; rounds of the polish."""

    batch_size: int | None
    epochs: Any
    polish: int


def _optimizer(optimizer: Any, learning_rate: float | None) -> Callable:
    """`make(total_steps, penalty, lam)`, compared by value."""
    if isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            "optimizer: give a function (penalty, lam) -> GradientTransformation, "
            "not a GradientTransformation: lam differs from lane to lane. For one "
            "without a prox: lambda penalty, lam: optimizer"
        )
    if callable(optimizer):
        try:
            inspect.signature(optimizer).bind(None, None)
        except TypeError as error:
            raise ValueError(
                f"optimizer: cannot be called as (penalty, lam): {error}; freeze the "
                "rest, as in functools.partial(rj.transforms.proximal_adam, 1e-3)"
            ) from None
        if learning_rate is not None:
            raise ValueError(
                "learning_rate: only for a named optimizer; give your function its own"
            )
        return trees.Frozen(_without_steps, trees.Frozen(optimizer))
    name = one_of("optimizer", optimizer, LEARNING_RATES)
    rate = LEARNING_RATES[name]
    if learning_rate is not None:
        rate = positive("learning_rate", learning_rate)
    return Partial(_named, name, rate)


def _without_steps(make: Callable, total_steps: int, penalty: Any, lam: Array):
    return make(penalty, lam)


def _named(name: str, rate: Any, total_steps: int, penalty: Any, lam: Array):
    schedule = optax.cosine_decay_schedule(1.0, total_steps)

    def learning_rate(count):
        return rate * schedule(count)

    if name == "adam":
        return transforms.proximal_adam(learning_rate, penalty, lam)
    return transforms.proximal_sgd(learning_rate, penalty, lam, momentum=0.9)


class Best(NamedTuple):
    """The best round so far, by rows held out.

    Attributes:
      params: there.
      loss: [] mean loss of the validation rows.
      step: [] step size there.
      n_iter: [] int32, epochs and polish steps made until then.
    """

    params: Params
    loss: Array
    step: Array
    n_iter: Array


class State(NamedTuple):
    """What the next round needs.

    Attributes:
      params: current ones.
      optimizer: optax state, while training.
      polish: state of `monotone`, once the polish has begun.
      n_iter: [] int32, epochs and polish steps made.
      best: of the epochs; once the polish has begun, of its rounds; None where there
        are no validation rows.
    """

    params: Params
    optimizer: Any
    polish: monotone.State
    n_iter: Array
    best: Best | None = None


class Setting(NamedTuple):
    """The problem, its rows, and how they are gone through.

    Attributes:
      problem: the equation.
      data: all rows.
      plan: epochs and polish.
      rows: [] of a batch.
      make: `make(total_steps, penalty, lam)`, the optax transform.
    """

    problem: Problem
    data: Data
    plan: Plan
    rows: int
    make: Callable

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.data.X.shape[0] // self.rows)

    def optimizer(self, lane: Lane) -> optax.GradientTransformation:
        """The transform of one lane."""
        total = self.plan.epochs * self.steps
        return self.make(total, self.problem.penalty, lane.lam)


def build(
    make: Callable, plan: Plan, tol: Array, problem: Problem, data: Data
) -> Solver:
    """The Solver of one problem and one data set."""
    n = data.X.shape[0]
    rows = n if plan.batch_size is None else min(plan.batch_size, n)
    if plan.epochs is None:
        steps = -(-n // rows)
        plan = plan._replace(epochs=max(EPOCHS, -(-LEAST_STEPS // steps)))
    setting = Setting(problem, data._replace(aid=None), plan, rows, make)
    return Solver(
        init=lambda lane, params: _init(setting, lane, params),
        end=lambda state: state.params,
        resume=lambda lane, params: _init(setting, lane, params),
        step=lambda lane, state, batch: _step(setting, lane, state, batch),
        status=Partial(_status, plan, tol),
        finish=Partial(_finish, tol, problem, data),
        batch=lambda clock, key: _batch(setting, clock, key),
        barrier=True,
    )


def _init(setting: Setting, lane: Lane, params: Params) -> State:
    optimizer = setting.optimizer(lane).init(params)
    zero = jnp.zeros((), jnp.int32)
    state = State(params, optimizer, monotone.at(params, lane), zero)
    return _seen(setting, state, _nothing_seen(state))


def _nothing_seen(state: State) -> Best:
    step = state.polish.step
    return Best(state.params, jnp.full_like(step, jnp.inf), step, state.n_iter)


def _seen(setting: Setting, state: State, best: Best | None) -> State:
    """With the better of this round and the best one, by the validation rows."""
    rows = setting.data.validation
    if rows is None or best is None:
        return state
    shares = jnp.full(rows.X.shape[0], 1 / rows.X.shape[0], rows.X.dtype)
    loss = objective.data_loss(setting.problem, state.params, rows, shares)
    here = Best(state.params, loss, state.polish.step, state.n_iter)
    return state._replace(best=trees.where(loss < best.loss, here, best))


def _batch(setting: Setting, clock: Array, key: Array) -> tuple[Array, Array | None]:
    """The clock, and the rows of every batch of an epoch."""
    n = setting.data.X.shape[0]
    if setting.rows == n:
        return clock, None
    order = jax.random.permutation(jax.random.fold_in(key, clock), n)
    shape = setting.steps, setting.rows
    return clock, order[jnp.arange(shape[0] * shape[1]) % n].reshape(shape)


def _step(setting: Setting, lane: Lane, state: State, batch: Any) -> State:
    """An epoch, or a polish step."""
    clock, order = batch
    plan = setting.plan
    if plan.polish == 0:
        return _train(setting, lane, state, order)
    # The clock is that of the whole wave, so that one branch runs, not both.
    return jax.lax.cond(
        clock < plan.epochs,
        lambda s: _train(setting, lane, s, order),
        lambda s: _polish(setting, lane, s, clock == plan.epochs),
        state,
    )


def _train(setting: Setting, lane: Lane, state: State, order: Array | None) -> State:
    carry = state.params, state.optimizer
    if order is None:
        carry = _update(setting, lane, carry, None)
    else:
        carry, _ = jax.lax.scan(
            lambda c, chosen: (_update(setting, lane, c, chosen), None), carry, order
        )
    params, optimizer = carry
    new = State(params, optimizer, monotone.at(params, lane), state.n_iter + 1)
    return _seen(setting, new, state.best)


def _update(setting: Setting, lane: Lane, carry: Any, chosen: Array | None) -> Any:
    (params, state), data = carry, setting.data
    seen = data
    if chosen is not None:
        offset = None if data.offset is None else data.offset[chosen]
        seen = data._replace(X=data.X[chosen], y=data.y[chosen], offset=offset, XT=None)
    s = lane.weights if chosen is None else lane.weights[chosen]
    shares = s * (data.X.shape[0] / (setting.rows * jnp.sum(lane.weights)))
    grad = jax.grad(objective.smooth, argnums=1)(setting.problem, params, seen, shares)
    updates, state = setting.optimizer(lane).update(grad, state, params)
    return optax.apply_updates(params, updates), state


def _polish(setting: Setting, lane: Lane, state: State, first: Array) -> State:
    problem, data, best = setting.problem, setting.data, state.best
    start = state.params if best is None else best.params
    begun = jax.lax.cond(
        first,
        lambda s: monotone.init(problem, data, lane, start),
        lambda s: s,
        state.polish,
    )
    polish = monotone.step(problem, data, lane, begun)
    new = State(polish.params, state.optimizer, polish, state.n_iter + 1)
    if best is not None:
        best = trees.where(first, _nothing_seen(new), best)
    return _seen(setting, new, best)


def _status(plan: Plan, tol: Array, lane: Lane, state: State) -> Array:
    lost = ~trees.all_finite(state.params)
    training = jnp.where(lost, Status.diverged, Status.running)
    polishing = monotone.status(tol, plan.polish, lane, state.polish)
    trained = state.n_iter > plan.epochs
    status = jnp.where(trained, polishing, training)
    used = (state.n_iter >= plan.epochs + plan.polish) & (status == Status.running)
    return jnp.where(used, Status.max_iter, status).astype(jnp.int32)


def _finish(
    tol: Array, problem: Problem, data: Data, lane: Lane, state: State, status: Array
) -> tuple[Params, Info]:
    params, step, n_iter = state.params, state.polish.step, state.n_iter
    if state.best is not None:
        params, _, step, n_iter = state.best
    info = report(
        problem,
        data,
        lane,
        params,
        step=jnp.where(state.polish.n_iter > 0, step, 1.0),
        tol=tol,
        status=status,
        n_iter=n_iter,
    )
    return params, info
