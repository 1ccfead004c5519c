r"""optax transforms: decays, the proximal wrapper, and optimisers made from it.

A proximal step solves the stated problem only if its threshold is the step that
the *gradient* got: then a fixed point satisfies `0 in g + lam * dOmega(w)`. With
momentum, a preconditioner or a schedule that step is not the learning rate;
`proximal` takes it as a function of the optimiser's state.

Gradient clipping rescales the gradient but not the threshold, so it moves the
fixed point; so does anything else between the gradient and the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from regjax import trees
from regjax.names import instance_of, nonnegative
from regjax.types import Penalty


def add_l1_decay(lam: Any, mask: Any = None) -> optax.GradientTransformation:
    """Add the subgradient `lam * sign(w)` to the gradient; 0 at w = 0.

    It gives no exact zeros: weights hover around 0. For zeros use `proximal`.

    Args:
      lam: [] weight of the penalty; may be traced.
      mask: which leaves; None for all but biases, else as in `trees.select`.

    Returns:
      A GradientTransformation; chain it *before* the optimiser.

    Raises:
      ValueError: lam is no number >= 0.
    """
    _check_number("lam", lam)
    return _decay(lambda g, w: g + lam * jnp.sign(w), mask, "add_l1_decay")


def add_l2_decay(lam: Any, mask: Any = None) -> optax.GradientTransformation:
    """Add the gradient `lam * w` of `lam/2 |w|^2` (coupled L2) to the gradient.

    Chained before Adam it reaches the ridge solution. AdamW's decay, which is
    added after the preconditioner, is another thing and reaches another point.

    Args:
      lam: [] weight of the penalty; may be traced.
      mask: which leaves; None for all but biases, else as in `trees.select`.

    Returns:
      A GradientTransformation; chain it *before* the optimiser.

    Raises:
      ValueError: lam is no number >= 0.
    """
    _check_number("lam", lam)
    return _decay(lambda g, w: g + lam * w, mask, "add_l2_decay")


def _decay(add: Callable, mask: Any, name: str) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        params = _required(params, name)
        selected = trees.select(params, mask)
        return trees.map_selected(add, selected, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _check_number(name: str, value: Any, below: float = np.inf) -> None:
    """Refuse what is known to be no number in [0, below)."""
    if isinstance(value, Tracer):
        return
    if callable(value):
        raise ValueError(
            f"{name}: must be a number; a schedule goes by optax.inject_hyperparams"
        )
    nonnegative(name, value, below)


def _required(params: Any, name: str) -> Any:
    if params is None:
        raise ValueError(f"{name}: call update(updates, state, params) with params")
    return params


class ProximalState(NamedTuple):
    """State of `proximal`.

    Attributes:
      inner: state of the wrapped optimiser.
    """

    inner: optax.OptState


def proximal(
    optimizer: optax.GradientTransformation,
    penalty: Penalty,
    lam: Any,
    step_size: Callable[[Any], Any],
) -> optax.GradientTransformationExtraArgs:
    r"""Follow any optimiser by the exact proximal step of a penalty.

    .. math:: w^+ = \mathrm{prox}_{s \lambda \Omega}(w + u), \qquad
              u = \text{the optimiser's update}

    Args:
      optimizer: takes the gradient of the *smooth* part only.
      penalty: whose prox is applied.
      lam: [] weight of the penalty; may be traced.
      step_size: `step_size(state)`, of the optimiser's state *after* its update:
        the step s that this update gave the gradient, as a scalar or as a pytree
        like params (one step per coordinate). For plain SGD: the learning rate.
        Steps must be equal within a group of the penalty, in the update as here, or
        the prox is that of another problem. They are run-time values, so nothing
        checks it; `penalty.pool` makes a second moment so (see `proximal_adam`).

    Returns:
      A GradientTransformation. It must come last in a chain, its `update` needs
      params, and adding its update gives exact zeros.

    Raises:
      ValueError: lam is no number >= 0; a penalty that is none.

    Source: Parikh & Boyd (2014), Proximal Algorithms, section 4.2; for
    preconditioned steps Yun, Lozano & Yang (2021), NeurIPS (ProxGen).
    """

    instance_of("penalty", penalty, Penalty)
    _check_number("lam", lam)

    def init(params):
        return ProximalState(optimizer.init(params))

    inner_optimizer = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra_args):
        params = _required(params, "proximal")
        updates, inner = inner_optimizer.update(
            updates, state.inner, params, **extra_args
        )
        moved = optax.apply_updates(params, updates)
        shrunk = penalty.prox(moved, lam, step_size(inner))
        # w + (0 - w) is exactly 0, so the zeros survive apply_updates.
        updates = jax.tree.map(lambda new, old: new - old, shrunk, params)
        return updates, ProximalState(inner)

    return optax.GradientTransformationExtraArgs(init, update)


def proximal_sgd(
    learning_rate: Any,
    penalty: Penalty,
    lam: Any,
    momentum: Any = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    r"""SGD, heavy ball or Nesterov momentum, with the prox at the right step.

    With momentum b an update is `lr_t` times a sum of past gradients whose weights
    add up to `(1 - b^t) / (1 - b)` at update t, and to `(1 - b^(t+1)) / (1 - b)`
    for Nesterov. That is the step that multiplies lam.

    Args:
      learning_rate: a number or an optax schedule; may be traced.
      penalty: whose prox is applied.
      lam: [] weight of the penalty; may be traced.
      momentum: b, in [0, 1); may be traced.
      nesterov: look ahead.

    Returns:
      A GradientTransformation for the gradient of the smooth part.
    """
    _check_number("momentum", momentum, below=1.0)
    schedule = _schedule(learning_rate)
    optimizer = optax.chain(
        optax.trace(decay=momentum, nesterov=nesterov),
        optax.scale_by_schedule(lambda count: -schedule(count)),
    )

    def step_size(state):
        t = state[1].count  # updates made, this one included
        power = t + 1 if nesterov else t
        return schedule(t - 1) * (1 - momentum**power) / (1 - momentum)

    return proximal(optimizer, penalty, lam, step_size)


def proximal_adam(
    learning_rate: Any,
    penalty: Penalty,
    lam: Any,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    r"""Adam (NAdam with nesterov), with the prox in Adam's own metric.

    The threshold is per coordinate, `lr_t * lam / (sqrt(v_hat) + eps)` with v_hat
    from the smooth gradient. `soft(lr * lam)` would solve another problem.

    Where the penalty has groups (`pool`), v_hat is the mean over a group, in the
    update and in the threshold: a norm has a closed prox, and shrinks towards 0
    without turning, only where all its coordinates take the same step.

    Args:
      learning_rate: a number or an optax schedule; may be traced.
      penalty: whose prox is applied.
      lam: [] weight of the penalty; may be traced.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment. Where a gradient vanishes, as an
        intercept's does, a constant rate comes to rest if `rate * curvature / eps` is
        below `2 (1 + b1) / (1 - b1)`, with nesterov that over `1 + 2 b1`; else let the
        rate decay.
      nesterov: NAdam's first moment.

    Returns:
      A GradientTransformation for the gradient of the smooth part.

    Source: Kingma & Ba (2015); Yun, Lozano & Yang (2021).
    """
    instance_of("penalty", penalty, Penalty)
    schedule = _schedule(learning_rate)
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps, nesterov=nesterov)

    def roots(state: Any) -> Any:
        correction = 1 - b2**state.count
        return jax.tree.map(lambda nu: jnp.sqrt(nu / correction) + eps, state.nu)

    if penalty.pool is not None:
        adam = _pooled(adam, penalty.pool, roots)
    optimizer = optax.chain(
        adam, optax.scale_by_schedule(lambda count: -schedule(count))
    )

    def step_size(state):
        step = schedule(state[1].count - 1)
        return jax.tree.map(lambda root: step / root, roots(state[0]))

    return proximal(optimizer, penalty, lam, step_size)


def _pooled(
    adam: optax.GradientTransformation, pool: Callable, roots: Callable
) -> optax.GradientTransformation:
    """Adam whose second moment, in its state too, is the mean over each group.

    Pooling is linear: what is pooled at every update is the moment of the pooled
    squares. `roots(state)` is what Adam divided by.
    """

    def update(updates, state, params=None):
        updates, own = adam.update(updates, state, params)
        own: Any = own
        pooled = own._replace(nu=pool(own.nu))
        updates = jax.tree.map(
            lambda u, a, b: u * (a / b), updates, roots(own), roots(pooled)
        )
        return updates, pooled

    return optax.GradientTransformation(adam.init, update)


def _schedule(learning_rate: Any) -> Callable[[Any], Any]:
    return learning_rate if callable(learning_rate) else lambda _: learning_rate
