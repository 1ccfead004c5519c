"""From the engine's lanes to a Path."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from regjax import conditioning
from regjax.ground import Ground
from regjax.results import Path
from regjax.types import Info, Params, Status


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
    if ground.mean is not None:
        params = conditioning.move_intercept(params, ground.mean, -1.0)
    info = _mark_degenerate(info, ground)
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


def _mark_degenerate(info: Info, ground: Ground) -> Info:
    """Where the null model is perfect already, to rounding."""
    rounding = 8 * float(np.finfo(info.loss.dtype).eps) * (1 + abs(ground.null))
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
