"""Solvers: each is a tuple of stages, run one after the other on every lane."""

from __future__ import annotations

from collections.abc import Callable

from regjax.solvers.minibatch import minibatch
from regjax.solvers.proximal_gradient import proximal_gradient
from regjax.types import Stage

REGISTRY: dict[str, Callable[..., tuple[Stage, ...]]] = {
    "minibatch": minibatch,
    "proximal_gradient": proximal_gradient,
}

__all__ = ["REGISTRY", "minibatch", "proximal_gradient"]
