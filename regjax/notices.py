"""Warnings, each of which points at the line of the caller."""

from __future__ import annotations

import sys
import warnings

import jax

from regjax import objective, trees
from regjax.types import Params, Problem


def warn(message: str) -> None:
    """A UserWarning at the first frame outside the package."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("regjax."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


RIDGE = 1e-2  # what settled such problems when it was measured: scripts/bench/NOTES.md


def free_weights(problem: Problem, params: Params) -> list[str]:
    r"""Key paths of a network's weights that neither penalty nor ridge holds.

    One layer penalised is no equation: `W / c, V * c` keeps the function of a relu
    network and sends `lam * Omega(W)` to 0, so that F has no minimiser. (Of other
    activations where they are nearly linear, near 0.) A linear skip may be free: no
    other layer follows it.

    Args:
      problem: with a penalty that is felt (lam > 0).
      params: of its model.
    """
    if problem.model.affine or problem.ridge > 0:
        return []
    paths = trees.key_paths(params)
    weights = jax.tree.leaves(trees.select(params))
    penalised = jax.tree.leaves(objective.penalised(problem, params))
    return [
        path
        for path, weight, on in zip(paths, weights, penalised, strict=True)
        if weight and not on and path.split("/")[-1] != "skip"
    ]


def warn_of_free_weights(problem: Problem, params: Params) -> None:
    """Warn where there are `free_weights`; arguments as of it."""
    if free := free_weights(problem, params):
        warn(
            f"penalty: it leaves {', '.join(free)} free, and ridge is 0: while these "
            "weights grow, the penalised ones shrink (W / c, V * c), the penalty goes "
            "to 0 and the model stays, so there is no minimum, and what lam selects "
            f"depends on how long one trains; give Problem(..., ridge={RIDGE:g})"
        )
