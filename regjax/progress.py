"""The progress bar, on the host between compiled chunks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def progress_bar(progress: Any) -> Iterator[Any]:
    """A callback `(done, total, label)`: None, the user's own, or a tqdm bar.

    Raises:
      ValueError: a bar is wanted and tqdm is not installed.
    """
    if not progress:
        yield None
        return
    if callable(progress):
        yield progress
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ValueError("progress: needs tqdm: pip install 'regjax[cli]'") from None
    bar = tqdm(
        total=None,
        unit="lam",
        leave=False,
        bar_format="{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}]",
    )

    def update(done: float, total: int, label: str) -> None:
        bar.total = total
        bar.set_description(label, refresh=False)
        bar.update(done - bar.n)

    with bar:
        yield update
