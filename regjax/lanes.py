"""The engine: many lanes through one solver, a wave of slots at a time.

Each solver function sees one lane and is vmapped here. The width of a wave is
fixed by the problem, not by how many lanes there are: the last wave is filled up.
So one compilation serves every sweep of one problem, and the bits of a lane do not
depend on which other lanes were asked for (but for a lane all alone, whose wave is 1
wide: it agrees to rounding).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import objective, trees
from regjax.types import Array, Data, Info, Lane, Params, Problem, Solver, Stage, Status

CHUNK_SECONDS = 0.5  # between two looks at the progress bar and at Ctrl-C
HOST_SLOTS, DEVICE_SLOTS = 16, 1024
HOST_BYTES = 2**29


class Carry(NamedTuple):
    """Everything that the next round of a wave needs.

    Attributes:
      state: of the solver, [S, ...].
      status: [S] int32.
      age: [] int32, rounds made.
    """

    state: Any
    status: Array
    age: Array


@functools.partial(jax.jit, static_argnums=0)
def start(program, numbers, lanes: Lane, params: Params, status: Array) -> Carry:
    """Initial carry of a wave; lanes that come diverged stay so."""
    solver, axes = _solver(program, numbers, lanes)
    state = jax.vmap(solver.init, in_axes=(axes, 0))(lanes, params)
    return Carry(state, status, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(
    program, numbers, lanes: Lane, carry: Carry, key: Array, rounds: Array
) -> Carry:
    """Up to `rounds` rounds; fewer if every lane ends before."""
    solver, axes = _solver(program, numbers, lanes)

    def one(lane, state, status, batch):
        new = solver.step(lane, state, batch)
        found = solver.status(lane, new)
        ended = status != Status.running
        # A diverged lane keeps its last finite iterate, a finished one its last.
        frozen = ended | (found == Status.diverged)
        return trees.where(frozen, state, new), jnp.where(ended, status, found)

    def body(carry: Carry) -> Carry:
        batch = solver.batch(carry.age, key)
        state, status = jax.vmap(one, in_axes=(axes, 0, 0, None))(
            lanes, carry.state, carry.status, batch
        )
        return Carry(state, status, carry.age + 1)

    def more(carry: Carry) -> Array:
        return (carry.age < last) & jnp.any(carry.status == Status.running)

    last = carry.age + rounds
    return jax.lax.while_loop(more, body, carry)


@functools.partial(jax.jit, static_argnums=0)
def finish(program, numbers, lanes: Lane, carry: Carry) -> tuple[Params, Info]:
    """Params and Info of every lane of a wave."""
    solver, axes = _solver(program, numbers, lanes)
    return jax.vmap(solver.finish, in_axes=(axes, 0, 0))(
        lanes, carry.state, carry.status
    )


def _solver(program, numbers, lanes: Lane) -> tuple[Solver, Lane]:
    """The solver that `numbers` and `program` stand for, and the lanes' vmap axes."""
    build, problem, data = trees.combine(numbers, program)
    per_lane = 0 if lanes.weights.ndim == 2 else None
    axes = Lane(0, per_lane, 0, None, None)  # pyright: ignore
    return build(problem, data), axes


def run(
    stages: tuple[Stage, ...],
    problem: Problem,
    data: Data,
    lanes: Lane,
    starts: Params,
    key: Array,
    slots: int,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Params, Info]:
    """Solve every lane.

    Args:
      stages: run one after the other on each wave.
      problem: the equation.
      data: rows, shared by all lanes.
      lanes: lam [N]; weights [n], shared, or [N, n]; seed [N]; the rest [].
      starts: [seeds, ...] starting params; a lane takes that of its seed.
      key: of the batches, shared by all lanes.
      slots: lanes in a wave.
      on_progress: called as `(rounds done, rounds in all, label)`, where a round
        is one of one wave; one call at a time, but from any thread.

    Returns:
      `(params, info)`, arrays [M, ...] on the host. M < N after a Ctrl-C: only
      lanes of finished waves are kept. A second Ctrl-C is not caught.
    """
    count = lanes.lam.shape[0]
    tally = _Tally(on_progress, -(-count // slots), sum(s.rounds for s in stages))

    def wave(number: int) -> tuple[Params, Info] | None:
        rows = np.arange(number * slots, (number + 1) * slots)
        part = _take(lanes, np.minimum(rows, count - 1))  # the last is filled up
        params = jax.tree.map(lambda a: a[part.seed], starts)
        tell = functools.partial(tally.tell, number)
        found = _run_wave(stages, problem, data, part, params, key, tell, interrupted)
        kept = int(np.sum(rows < count))
        return found and jax.tree.map(lambda a: a[:kept], found)

    def compile_ahead() -> None:
        part = _take(lanes, np.zeros(slots, int))
        params = jax.tree.map(lambda a: a[part.seed], starts)
        for stage in stages[1:]:
            _compile_stage(stage, problem, data, part, params, key)

    with catch_interrupt() as interrupted:
        found = _map_waves(wave, tally.waves, compile_ahead)
    done = list(itertools.takewhile(lambda result: result is not None, found))
    if not done:
        raise KeyboardInterrupt
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


class _Tally:
    """Adds up the rounds of all waves for one progress callback."""

    def __init__(self, on_progress: Callable | None, waves: int, per_wave: int):
        self.on_progress, self.waves, self.total = on_progress, waves, waves * per_wave
        self.done = [0] * waves
        self.lock = threading.Lock()

    def tell(self, wave: int, rounds: int, label: str) -> None:
        """Wave number `wave` has made `rounds` rounds by now."""
        with self.lock:
            self.done[wave] = rounds
            if self.on_progress is not None:
                self.on_progress(sum(self.done), self.total, label)


def _map_waves(
    wave: Callable[[int], Any], waves: int, compile_ahead: Callable[[], None]
) -> list[Any]:
    """`[wave(0), wave(1), ...]`, several at a time where that pays.

    XLA runs a program of small products on one CPU core, so each core gets a wave.
    jax's context managers (`jax.enable_x64(...)`) hold for one thread only: inside
    one, waves run one by one in the caller's.
    """
    width = _cores() if jax.default_backend() == "cpu" else 1
    if width == 1:
        return [wave(number) for number in range(waves)]
    with concurrent.futures.ThreadPoolExecutor(width) as pool:
        if pool.submit(_jax_settings).result() != _jax_settings():
            return [wave(number) for number in range(waves)]
        pool.submit(compile_ahead)  # later stages, while the first wave trains
        futures = [pool.submit(wave, number) for number in range(waves)]
        # With a timeout, so that the main thread comes round to handle a Ctrl-C.
        while concurrent.futures.wait(futures, timeout=0.2).not_done:
            for failed in (f for f in futures if f.done() and f.exception()):
                pool.shutdown(cancel_futures=True)
                failed.result()
        return [future.result() for future in futures]


def _compile_stage(stage, problem, data, lanes, params, key) -> None:
    """Compile the programs of a stage, unless they are; no lane is moved."""
    numbers, program = trees.partition((stage.build, problem, data))
    if program in _COMPILED:
        return
    ended = np.full(lanes.lam.shape, Status.max_iter, np.int32)
    carry = start(program, numbers, lanes, params, ended)
    carry = advance(program, numbers, lanes, carry, key, 0)
    finish(program, numbers, lanes, carry)
    _COMPILED.add(program)


_COMPILED: set[Any] = set()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _jax_settings() -> dict[str, Any]:
    """All of jax's settings as this thread sees them."""
    return {name: getattr(jax.config, name, None) for name in jax.config.values}


def _take(lanes: Lane, rows: np.ndarray) -> Lane:
    weights = lanes.weights[rows] if lanes.weights.ndim == 2 else lanes.weights
    return lanes._replace(lam=lanes.lam[rows], weights=weights, seed=lanes.seed[rows])


def _run_wave(
    stages, problem, data, lanes, params, key, tell, interrupted
) -> tuple[Params, Info] | None:
    """All stages of one wave; None if interrupted."""
    # numpy on the host side: each little jax operation would be compiled on its own.
    status = np.full(lanes.lam.shape, Status.running, np.int32)
    before, n_iter = 0, 0
    for stage in stages:
        numbers, program = trees.partition((stage.build, problem, data))
        carry = start(program, numbers, lanes, params, status)
        done, rounds = 0, 1
        while done < stage.rounds and not interrupted():
            begun = time.perf_counter()
            carry = advance(program, numbers, lanes, carry, key, rounds)
            running = np.any(np.asarray(carry.status) == Status.running)  # waits
            seconds = time.perf_counter() - begun
            done += rounds
            tell(before + done, stage.label)
            if not running:
                break
            faster = CHUNK_SECONDS / max(seconds, 1e-6)
            rounds = int(np.clip(rounds * faster, 1, stage.rounds - done or 1))
        if interrupted():
            return None
        tell(before + stage.rounds, stage.label)
        if stage is stages[-1]:
            params, info = finish(program, numbers, lanes, carry)
            params, info = jax.device_get((params, info))
            return params, info._replace(n_iter=info.n_iter + n_iter)
        # What diverged stays so; all else goes on into the next stage.
        params, n_iter = carry.state.params, n_iter + np.asarray(carry.state.n_iter)
        diverged = np.asarray(carry.status) == Status.diverged
        status = np.where(diverged, Status.diverged, Status.running).astype(np.int32)
        before += stage.rounds


def slots_for(problem: Problem, data: Data, params: Params, lanes: int) -> int:
    """How many lanes a wave has: as many as keep the device busy and fit its memory.

    A lane's memory is estimated by the arrays of one full forward pass. A function
    of problem, data and device, except that a single lane is run alone.
    """
    if lanes == 1:
        return 1
    device = jax.devices()[0]
    most, budget = HOST_SLOTS, HOST_BYTES
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        most, budget = DEVICE_SLOTS, stats.get("bytes_limit", 2**33) // 4
    shares = jax.ShapeDtypeStruct(data.X.shape[:1], data.X.dtype)
    each = 3 * trees.size_of(objective.smooth, problem, params, data, shares)
    fits = max(1, budget // max(each, 1))
    return min(most, 2 ** int(np.log2(fits)))


@contextlib.contextmanager
def catch_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that finished work is not lost."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def handler(number, frame):
        pressed.append(number)
        signal.signal(signal.SIGINT, previous)  # the second one is the caller's

    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, previous)
