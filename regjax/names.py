"""Names, numbers and parts that a user gives: usable, or an error that helps."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import Any


def one_of(argument: str, name: object, known: Iterable[str]) -> str:
    """Check a name.

    Args:
      argument: what the name was given for; the error starts with it.
      name: what was given.
      known: all names there are.

    Returns:
      The name.

    Raises:
      ValueError: an unknown name; the message gives the nearest known one.
    """
    names = list(known)
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"{argument}: unknown name {name!r}; {hint}known: {', '.join(names)}"
    )


def whole_number(argument: str, value: Any, least: int = 1) -> int:
    """Check a count.

    Args:
      argument: what the count was given for; the error starts with it.
      value: what was given.
      least: the smallest count that makes sense.

    Returns:
      The count as an int.

    Raises:
      ValueError: not an integer (2.0 is none), or below `least`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < least:
        raise ValueError(
            f"{argument}: must be an integer of at least {least}, got {value}"
        )
    return count


def number(argument: str, value: Any) -> float:
    """Check that something is one number, and give it as a float.

    Raises:
      ValueError: it is not.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{argument}: must be a number, got {value!r}") from None


def positive(argument: str, value: Any) -> float:
    """Check a positive finite number.

    Raises:
      ValueError: anything else.
    """
    found = number(argument, value)
    if not 0 < found < float("inf"):
        raise ValueError(f"{argument}: must be positive and finite, got {value}")
    return found


def nonnegative(argument: str, value: Any, below: float = float("inf")) -> float:
    """Check a finite number >= 0, and below some limit.

    Raises:
      ValueError: anything else.
    """
    found = number(argument, value)
    if not 0 <= found < below:
        limited = below < float("inf")
        wanted = f"in [0, {below:g})" if limited else "a finite number >= 0"
        raise ValueError(f"{argument}: must be {wanted}, got {value}")
    return found


def instance_of(argument: str, value: Any, kind: type) -> None:
    """Check that something is one of the library's own types.

    Raises:
      ValueError: it is not; a function that makes one is told from the rest.
    """
    if isinstance(value, kind):
        return
    hint = " (call it: it is a function)" if callable(value) else ""
    got = type(value).__name__
    raise ValueError(f"{argument}: must be a regjax.{kind.__name__}, got {got}{hint}")


def of_columns(X: Any) -> tuple[str, ...] | None:
    """Names of a data frame's columns; None of anything else."""
    return tuple(map(str, X.columns)) if hasattr(X, "columns") else None


def same_columns(X: Any, names: tuple[str, ...] | None) -> None:
    """Check that a data frame has the columns of the fit, in their order.

    Raises:
      ValueError: the first column that is another one. A wrong number of them is left
        to the check of the shape.
    """
    given = of_columns(X)
    if given is None or names is None or len(given) != len(names):
        return
    for i, (own, wanted) in enumerate(zip(given, names, strict=True)):
        if own != wanted:
            raise ValueError(
                f"X: column {i} is {own!r}, the path was fitted with {wanted!r}"
            )
