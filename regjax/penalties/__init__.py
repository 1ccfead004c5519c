"""Penalties, one file each; adding one is a file here and a line in REGISTRY."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regjax.penalties.adaptive import adaptive_factors
from regjax.penalties.combined import combined
from regjax.penalties.elastic_net import elastic_net
from regjax.penalties.group import group
from regjax.penalties.hierarchical import hierarchical
from regjax.penalties.l1 import l1
from regjax.penalties.l2 import l2
from regjax.penalties.mcp import mcp
from regjax.penalties.scad import scad
from regjax.penalties.scaled import scaled
from regjax.penalties.sparse_group import sparse_group
from regjax.types import Penalty

REGISTRY: dict[str, Callable[..., Penalty]] = {
    "l1": l1,
    "l2": l2,
    "elastic_net": elastic_net,
    "group": group,
    "hierarchical": hierarchical,
    "sparse_group": sparse_group,
    "mcp": mcp,
    "scad": scad,
}

__all__ = [
    "REGISTRY",
    "adaptive_factors",
    "build",
    "combined",
    "elastic_net",
    "group",
    "hierarchical",
    "l1",
    "l2",
    "mcp",
    "scad",
    "scaled",
    "sparse_group",
]


def build(config: Any) -> Penalty:
    """The penalty that a `Penalty.config` describes, also as it comes from JSON."""
    name, given = config
    if name == "combined":
        return combined(*map(build, given["penalties"]))
    if name == "scaled":
        return scaled(given["ratio"], build(given["penalty"]))
    return REGISTRY[name](**given)
