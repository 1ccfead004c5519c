"""Names that a user types: the known one, or an error with the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
