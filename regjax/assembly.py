"""From the engine's lanes to a Path."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from regjax import conditioning
from regjax.ground import Ground
from regjax.losses import is_squared
from regjax.results import Path
from regjax.solvers.proximal_gradient import tolerance
from regjax.types import Info, Params, Problem, Status


def unflatten(
    params: Params, info: Info, count: int, copies: tuple[int, ...]
) -> tuple[Params, Info, np.ndarray]:
    """Lanes [N], lam by lam, as `[l, *copies]` of the lams that are finished.

    Returns:
      `(params, info, finished [count])`.

    Raises:
      KeyboardInterrupt: no lam has finished.
    """
    done = info.status.reshape(count, -1) != Status.running
    finished = done.all(axis=1)
    if not finished.any():
        raise KeyboardInterrupt

    def apart(a: np.ndarray) -> np.ndarray:
        return a.reshape(count, *copies, *a.shape[1:])[finished]

    params, info = jax.tree.map(apart, (params, info))
    return params, info, np.asarray(finished)


def assemble(task: Any, lams: np.ndarray, params: Params, info: Info) -> Path:
    """A Path of lanes [L, seeds, ...], all finished."""
    ground = task.ground
    if task.seeds == 1:
        params, info = jax.tree.map(lambda a: a[:, 0], (params, info))
    if ground.frame is not None:
        params, info = _as_given(task, params, info)
    info = _mark_degenerate(info, task.problem, ground)
    return Path(
        lams=lams.astype(ground.data.X.dtype),
        params=params,
        **info._asdict(),
        dev_ratio=dev_ratio(np.asarray(info.loss), ground.null, ground.saturated),
        null_loss=ground.null,
        saturated_loss=ground.saturated,
        seeds=task.seeds,
        problem=task.problem,
        center=task.center,
        scale=task.scale,
        has_offset=task.has_offset,
        input_shape=ground.data.X.shape[1:],
        feature_names=task.feature_names,
    )


def _as_given(task: Any, params: Params, info: Info) -> tuple[Params, Info]:
    """Params of the columns that were given, and what their rounding costs.

    Beside means of 1e5 an intercept of float32 is rounded by .01, which the gap, taken
    of centred columns, knows nothing about. From a fitted intercept the loss rises by
    half its curvature times the square; without a bound on the curvature, as an
    exponential does.
    """
    ground, problem = task.ground, task.problem
    frame = ground.frame
    given = frame.given(params)
    moved = frame.unpenalised(frame.solved(given)) - frame.unpenalised(params)
    off = np.abs(moved)
    rise = np.expm1(off) - off if problem.loss.curvature is None else 0.5 * off**2
    start = jax.tree.map(lambda a: a[0], ground.own)
    weights = np.asarray(ground.lane.weights)
    shares = weights / weights.sum()
    curvature = conditioning.curvature_of(problem, start, ground.data, shares)
    cost = (curvature * np.sum(rise, axis=(-2, -1))).astype(info.gap.dtype)
    names = "gap", "loss", "objective"
    found = info._replace(**{name: getattr(info, name) + cost for name in names})
    tol = tolerance(task.solver.tol, info.gap.dtype) * ground.null
    above = np.isfinite(found.gap) & (found.gap > tol) & (info.gap <= tol)
    above &= info.status == Status.converged
    status = np.where(above, np.int32(Status.floor), info.status)
    count = info.n_nonzero + frame.count(given) - frame.count(params)
    found = found._replace(status=status, n_nonzero=count.astype(np.int32))
    return given, found


def _mark_degenerate(info: Info, problem: Problem, ground: Ground) -> Info:
    """Where the null model is perfect already, to rounding."""
    eps = float(np.finfo(info.loss.dtype).eps)
    rounding = 8 * eps * (1 + abs(ground.null))
    if is_squared(problem.loss):  # whatever the units of y
        y, offset = np.asarray(ground.data.y, float), ground.data.offset
        largest = np.abs(y if offset is None else y - np.asarray(offset)).max(axis=0)
        if ground.frame is not None:
            largest += np.abs(ground.frame.y)
        rounding = 0.5 * np.sum((eps * largest) ** 2)
    if ground.null - ground.saturated > rounding:
        return info
    degenerate = np.int32(Status.degenerate)
    fitted = np.isin(info.status, (Status.converged, Status.floor))
    return info._replace(status=np.where(fitted, degenerate, info.status))


def dev_ratio(loss: np.ndarray, null: float, saturated: float) -> np.ndarray:
    """1 - deviance / null deviance; 0 where the null model is already perfect."""
    room = null - saturated
    if not room > 0:
        return np.zeros_like(loss)
    return 1 - (loss - saturated) / room
