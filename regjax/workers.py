"""Who works: a thread per device, or per core of the CPU; and what Ctrl-C does.

XLA runs a program of small products on one CPU core, so each core gets a worker.
jax's context managers (`jax.enable_x64(...)`) hold for one thread only: inside one,
the work stays in the caller's thread.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def crew(most: int) -> list[Any]:
    """One device per worker, at most `most`; None for the default device."""
    devices = jax.local_devices()
    if len(devices) > 1 and getattr(jax.config, "jax_default_device", None) is None:
        found: list[Any] = list(devices)
    elif most > 1 and devices[0].platform == "cpu" and _threads_see_our_settings():
        found = [None] * _cores()
    else:
        found = [None]
    return found[: max(most, 1)]


def work(task: Callable[..., Any], crew: Sequence[Any]) -> list[Any]:
    """`task(number, device, stop)` of every worker, in order, side by side.

    Args:
      task: looks at `stop()` now and then, and ends early when it is true: after a
        Ctrl-C, or an error in another worker.
      crew: from `crew`.

    Returns:
      What they returned.

    Raises:
      Exception: the first that a worker raised.
    """
    with catch_interrupt() as interrupted:
        if len(crew) == 1:
            return [task(0, crew[0], interrupted)]
        failed = threading.Event()

        def stop() -> bool:
            return failed.is_set() or interrupted()

        futures = []
        try:
            for number, device in enumerate(crew):
                given = task, number, device, stop
                futures.append(_threads(os.getpid()).submit(*given))
            # With a timeout, so that the main thread comes round to handle a Ctrl-C.
            while concurrent.futures.wait(futures, timeout=0.2).not_done:
                if any(f.done() and f.exception() for f in futures):
                    failed.set()
        finally:
            failed.set()
            concurrent.futures.wait(futures)
        return [future.result() for future in futures]


@functools.cache
def _threads(process: int) -> concurrent.futures.ThreadPoolExecutor:
    """Kept, as a thread takes a millisecond to begin; a forked process has its own.

    As many as are asked for: a call within a call's callback must not wait for it.
    """
    return concurrent.futures.ThreadPoolExecutor(sys.maxsize, "regjax")


class Tally:
    """Adds up what all workers have done, for one progress callback."""

    def __init__(self, tell: Callable | None, workers: int, total: int, label: str):
        self.callback, self.total, self.label = tell, total, label
        self.done = [0.0] * workers
        self.lock = threading.Lock()

    def tell(self, worker: int, done: float) -> None:
        """A worker has done so much by now."""
        with self.lock:
            self.done[worker] = done
            if self.callback is not None:
                self.callback(sum(self.done), self.total, self.label)


_flags: list[Callable[[], bool]] = []  # of the main thread, while a catch is open


@contextlib.contextmanager
def catch_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that finished work is not lost.

    One within another shares its flag, so that whoever is around stops too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    if _flags:
        yield _flags[0]
        return
    pressed: list[int] = []
    previous: Any = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def handler(number, frame):
        pressed.append(number)
        signal.signal(signal.SIGINT, previous)  # the second one is the caller's

    signal.signal(signal.SIGINT, handler)
    _flags.append(lambda: bool(pressed))
    try:
        yield _flags[0]
    finally:
        _flags.clear()
        signal.signal(signal.SIGINT, previous)


def catching_interrupt(call: Callable[P, R]) -> Callable[P, R]:
    """A call within `catch_interrupt`, whole.

    A Ctrl-C may fall into a callback of the garbage collector, where Python drops the
    exception.
    """

    @functools.wraps(call)
    def catching(*args: P.args, **given: P.kwargs) -> R:
        with catch_interrupt():
            return call(*args, **given)

    return catching


def stop_if_interrupted() -> None:
    """Where nothing is finished yet.

    Raises:
      KeyboardInterrupt: after a Ctrl-C that is caught around it.
    """
    with catch_interrupt() as interrupted:
        if interrupted():
            raise KeyboardInterrupt


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads_see_our_settings() -> bool:
    """Whether there is another thread, with the settings of this one."""
    try:
        another = _threads(os.getpid()).submit(_jax_settings)
    except RuntimeError:  # the interpreter ends: it begins no more threads
        return False
    return _jax_settings() == another.result()


def _jax_settings() -> dict[str, Any]:
    """All of jax's settings as this thread sees them."""
    return {name: getattr(jax.config, name, None) for name in jax.config.values}
