"""Penalties, one file each; adding one is a file here and a line in REGISTRY."""

from __future__ import annotations

from collections.abc import Callable

from regjax.penalties.elastic_net import elastic_net
from regjax.penalties.group import group
from regjax.penalties.hierarchical import hierarchical
from regjax.penalties.l1 import l1
from regjax.penalties.l2 import l2
from regjax.types import Penalty

REGISTRY: dict[str, Callable[..., Penalty]] = {
    "l1": l1,
    "l2": l2,
    "elastic_net": elastic_net,
    "group": group,
    "hierarchical": hierarchical,
}

__all__ = ["REGISTRY", "elastic_net", "group", "hierarchical", "l1", "l2"]
