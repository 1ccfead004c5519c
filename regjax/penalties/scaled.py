"""A penalty at a ratio of lam: another strength for another layer."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

from regjax.names import number
from regjax.types import Array, Params, Penalty


def scaled(ratio: float, penalty: Penalty) -> Penalty:
    r"""Multiply lam by a ratio: the penalty at `ratio * lam`.

    `combined(l1(where="0/w"), scaled(0.1, l1(where="1/w")))` penalises the second
    layer a tenth as much as the first.

    Args:
      ratio: >= 0 and finite, 0 for not penalised; a run-time value under jit.
      penalty: any.

    Returns:
      A Penalty.

    Raises:
      ValueError: ratio negative or not finite; no Penalty.
    """
    ratio = number("ratio", ratio)
    if not 0.0 <= ratio < float("inf"):
        raise ValueError(f"ratio: must be >= 0 and finite, got {ratio:g}")
    config = check_penalty("penalty", penalty).config

    def of_lam(fn: Any) -> Any:
        return fn and Partial(_of_lam, ratio, fn)

    return penalty._replace(
        value=of_lam(penalty.value),
        prox=of_lam(penalty.prox),
        lambda_max=Partial(_lambda_max, ratio, penalty.lambda_max),
        conjugate=of_lam(penalty.conjugate),
        dual_scale=of_lam(penalty.dual_scale),
        squares=of_lam(penalty.squares),
        config=config and ("scaled", {"ratio": ratio, "penalty": config}),
    )


def check_penalty(argument: str, penalty: Any) -> Penalty:
    """A Penalty.

    Raises:
      ValueError: it is none.
    """
    if not isinstance(penalty, Penalty):
        raise ValueError(f"{argument}: must be a Penalty, got {penalty!r}")
    return penalty


def _of_lam(ratio: Any, fn: Any, params: Params, lam: Array, *step: Any) -> Any:
    return fn(params, lam * ratio, *step)


def _lambda_max(ratio: Any, lambda_max: Any, grad: Params) -> Array:
    """0 at a ratio of 0: nothing is penalised, as with a factor of 0."""
    some = ratio > 0
    return jnp.where(some, lambda_max(grad) / jnp.where(some, ratio, 1.0), 0.0)
