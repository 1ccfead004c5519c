"""Solvers: each gives a Method, which builds a Solver for a problem and its data."""

from __future__ import annotations

from collections.abc import Callable

from regjax.solvers.minibatch import minibatch
from regjax.solvers.proximal_gradient import proximal_gradient
from regjax.types import Method

REGISTRY: dict[str, Callable[..., Method]] = {
    "minibatch": minibatch,
    "proximal_gradient": proximal_gradient,
}

__all__ = ["REGISTRY", "minibatch", "proximal_gradient"]
