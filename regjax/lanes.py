"""The engine: chains of lanes, worked off by slots.

A chain is a list of lanes solved in order, each warm-started from the one before. A
worker has S slots; when a slot's lane ends, its result is written out and the slot
goes on to the next lane of its chain, or to the next chain: no slot waits for the
slowest lane. Solvers with a barrier refill all slots together, so that a wave shares
its batches.

Each solver function sees one lane and is vmapped here. What a lane computes does not
depend on its neighbours: neither on how hard they are, nor on the order of the chains,
the length of a chunk or the number of workers. (Bitwise on CPU, where S is fixed by
the problem, in most shapes: XLA may round the last columns of a product in another
way. To rounding a chain all alone, whose S is 1, and on a GPU, where S is that of the
chains.)
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import objective, trees, workers
from regjax.free_block import rescaled
from regjax.types import (
    Array,
    Data,
    Info,
    Lane,
    Method,
    Params,
    Problem,
    Solver,
    Status,
)

CHUNK_SECONDS = 0.5  # between two looks at the progress bar and at Ctrl-C
MOST_GROWTH = 8.0
QUICK = 2**22  # so many products of a number of X and a weight are no work
ALONE = 2**19  # so many in a pass of all lanes are not worth a second thread
HOST_SLOTS, DEVICE_SLOTS = 8, 1024
HOST_BYTES = 2**29
LEAST_ROOM = 128


class Queue(NamedTuple):
    """What one worker is to solve; constant while it runs.

    Attributes:
      lanes: lam, seed, fold [N]; weights [n], shared, or [folds, n]; scaling
        [folds, p]; the rest []. Lanes of a chain stand one after another.
      starts: [seeds, ...] starting params; a chain takes those of its seed. Its lanes
        share their fold as well.
      heads: [N] first lane of each chain, in the order of working; N: no more.
      last: [N] bool, last lane of its chain.
    """

    lanes: Lane
    starts: Params
    heads: Array
    last: Array


class Carry(NamedTuple):
    """Everything that the next round needs, and all that a checkpoint has to keep.

    Attributes:
      state: of the solver, [S, ...].
      end: [S, ...] of the last lane of the chain that has not diverged.
      status: [S] int32.
      lane: [S] int32, which lane a slot is at; N: none left, N + 1: not begun.
      next: [] how many chains have been begun.
      clock: [] rounds since the last barrier.
      out: `(params, info)` of every lane, [N, ...]; status `running` if not done.
    """

    state: Any
    end: Any
    status: Array
    lane: Array
    next: Array
    clock: Array
    out: tuple[Params, Info]


@functools.partial(jax.jit, static_argnums=(0, 3))
def start(program, numbers, queue: Queue, slots: int) -> Carry:
    """No slot has begun, and nothing is known yet.

    Args:
      program: of `trees.partition((build, problem, data))`, the second.
      numbers: of the same, the first.
      queue: what is to be solved.
      slots: S.
    """
    solver, count = _solver(program, numbers), queue.last.shape[0]

    def one(queue: Queue) -> tuple[Any, Any, tuple[Params, Info]]:
        lane = _lanes_at(queue, jnp.int32(0))[0]
        state = solver.init(lane, jax.tree.map(lambda a: a[0], queue.starts))
        return state, solver.end(state), solver.finish(lane, state, jnp.int32(0))

    def zeros(many: int, shapes: Any) -> Any:
        return jax.tree.map(lambda a: jnp.zeros((many, *a.shape), a.dtype), shapes)

    *slot, results = jax.eval_shape(one, queue)  # without vmap, traced sooner
    (state, end), (params, info) = zeros(slots, slot), zeros(count, results)
    info = info._replace(status=jnp.full(count, Status.running, jnp.int32))
    lane, status = jnp.full(slots, count + 1, jnp.int32), jnp.zeros(slots, jnp.int32)
    return Carry(state, end, status, lane, jnp.int32(0), jnp.int32(0), (params, info))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(
    program, numbers, queue: Queue, carry: Carry, key: Array, rounds: Array
) -> Carry:
    """Up to `rounds` rounds; fewer if nothing is left to do.

    Args:
      program: as of `start`.
      numbers: as of `start`.
      queue: as of `start`.
      carry: where to go on; its memory is used again.
      key: of the batches, shared by all lanes.
      rounds: [] int.
    """
    solver, count = _solver(program, numbers), queue.last.shape[0]

    def ready(carry: Carry) -> Array:
        busy = carry.lane < count
        ended = busy & (carry.status != Status.running)
        if solver.barrier:  # all or none
            ended = ended & jnp.all(ended == busy)
        return ended | (carry.lane > count)

    def one_round(carry: Carry, round: Array) -> tuple[Carry, Array]:
        return _round(solver, queue, carry, solver.batch(carry.clock, key)), round + 1

    def until_some_are_ready(carry: Carry, round: Array) -> tuple[Carry, Array]:
        which = ready(carry)
        carry = _refill(solver, queue, _write(solver, queue, carry, which), which)
        return _while(
            lambda c, r: more(c, r) & ~jnp.any(ready(c)), one_round, carry, round
        )

    def more(carry: Carry, round: Array) -> Array:
        begun = (round < rounds) | jnp.any(ready(carry))
        return begun & jnp.any(carry.lane != count)

    return _while(more, until_some_are_ready, carry, jnp.zeros((), jnp.int32))[0]


def _while(condition: Callable, body: Callable, *carry: Any) -> tuple:
    """Of several arguments."""
    return jax.lax.while_loop(lambda c: condition(*c), lambda c: body(*c), carry)


def _solver(program, numbers) -> Solver:
    """The solver; each of its functions with the data as its lane's fold has them."""
    build, problem, data = trees.combine(numbers, program)

    def of(name: str) -> Callable:
        def call(lane: Lane, *rest: Any) -> Any:
            own = build(problem, rescaled(data, lane.scaling))
            return getattr(own, name)(lane, *rest)

        return call

    names = ("init", "resume", "step", "status", "finish")
    return build(problem, data)._replace(**{name: of(name) for name in names})


def _lanes_at(queue: Queue, lane: Array) -> tuple[Lane, Lane]:
    """The lanes of all slots, and their vmap axes."""
    all_lanes = queue.lanes
    per_lane = all_lanes.weights.ndim == 2
    weights = all_lanes.weights
    fold = all_lanes.fold[lane]
    scaled = all_lanes.scaling is not None
    lanes = all_lanes._replace(
        lam=all_lanes.lam[lane],
        weights=weights[fold] if per_lane else weights,
        seed=all_lanes.seed[lane],
        fold=fold,
        scaling=jax.tree.map(lambda a: a[fold], all_lanes.scaling),
    )
    one = 0 if per_lane else None
    axes = Lane(0, one, 0, 0, None, None, 0 if scaled else None)  # pyright: ignore
    return lanes, axes


def _round(solver: Solver, queue: Queue, carry: Carry, batch: Any) -> Carry:
    """One round of every slot; what has ended stays as it is."""
    lanes, axes = _lanes_at(queue, carry.lane)

    def one(lane, state, status, batch):
        new = solver.step(lane, state, batch)
        found = solver.status(lane, new)
        ended = status != Status.running
        # A diverged lane keeps its last finite iterate, a finished one its last.
        frozen = ended | (found == Status.diverged)
        return trees.where(frozen, state, new), jnp.where(ended, status, found)

    state, status = jax.vmap(one, in_axes=(axes, 0, 0, None))(
        lanes, carry.state, carry.status, batch
    )
    return carry._replace(state=state, status=status, clock=carry.clock + 1)


def _results(solver: Solver, queue: Queue, lane: Array, state: Any, status: Array):
    lanes, axes = _lanes_at(queue, lane)
    return jax.vmap(solver.finish, in_axes=(axes, 0, 0))(lanes, state, status)


def _write(solver: Solver, queue: Queue, carry: Carry, ready: Array) -> Carry:
    """Results of ready slots to their places."""
    results = _results(solver, queue, carry.lane, carry.state, carry.status)
    place = jnp.where(ready, carry.lane, queue.last.shape[0])
    out = jax.tree.map(
        lambda all_, new: all_.at[place].set(new, mode="drop"), carry.out, results
    )
    ends = jax.vmap(solver.end)(carry.state)
    kept = ready & (carry.status != Status.diverged)
    return carry._replace(out=out, end=_pick(kept, ends, carry.end))


def _refill(solver: Solver, queue: Queue, carry: Carry, ready: Array) -> Carry:
    """Ready slots to the next lane of their chain, or to the next chain."""
    count = queue.last.shape[0]
    ends = queue.last.at[carry.lane].get(mode="fill", fill_value=True)  # pyright: ignore
    goes_on, begins = ready & ~ends, ready & ends
    chain = carry.next + jnp.cumsum(begins) - 1
    head = queue.heads.at[chain].get(mode="fill", fill_value=count)  # pyright: ignore
    lane = jnp.where(begins, head, carry.lane + goes_on).astype(jnp.int32)

    lanes, axes = _lanes_at(queue, lane)
    anew, new = jnp.any(ready), jnp.any(begins & (lane < count))
    fresh = jax.lax.cond(new, lambda: _fresh(solver, queue, lane), lambda: carry.state)
    resumed = jax.vmap(solver.resume, in_axes=(axes, 0))(lanes, carry.end)
    state = _pick(goes_on, resumed, _pick(begins, fresh, carry.state))
    begun = jnp.where(lane < count, Status.running, Status.converged)
    return carry._replace(
        state=state,
        end=_pick(begins, jax.vmap(solver.end)(fresh), carry.end),
        status=jnp.where(ready, begun, carry.status).astype(jnp.int32),
        lane=lane,
        next=carry.next + jnp.sum(begins, dtype=jnp.int32),
        clock=jnp.where(anew, 0, carry.clock) if solver.barrier else carry.clock,
    )


def _fresh(solver: Solver, queue: Queue, lane: Array) -> Any:
    lanes, axes = _lanes_at(queue, lane)
    own = jax.tree.map(lambda a: a[lanes.seed], queue.starts)
    return jax.vmap(solver.init, in_axes=(axes, 0))(lanes, own)


def _pick(condition: Array, a: Any, b: Any) -> Any:
    """Slot by slot a or b."""
    return jax.vmap(trees.where)(condition, a, b)


def queue_of(
    lanes: Lane, starts: Params, chains: Sequence[np.ndarray], room: int
) -> tuple[Queue, np.ndarray]:
    """A queue of some chains, filled up to `room` lanes; and its lanes' numbers.

    Starts of one seed are filled up to two: a program for one alone may be rounded in
    another way.
    """
    order = np.concatenate([*chains, np.zeros(0, int)]).astype(int)
    lengths = np.array([len(chain) for chain in chains], int)
    heads, last = np.full(room, room, np.int32), np.ones(room, bool)
    heads[: len(chains)] = np.cumsum(lengths) - lengths
    last[: len(order)] = False
    last[np.cumsum(lengths) - 1] = True
    filled = np.concatenate([order, np.zeros(room - len(order), int)])
    lam, seed, fold = (a[filled] for a in (lanes.lam, lanes.seed, lanes.fold))
    picked = lanes._replace(lam=lam, seed=seed, fold=fold)
    starts = jax.tree.map(lambda a: np.repeat(a, 2, 0) if len(a) == 1 else a, starts)
    return Queue(picked, starts, heads, last), order


def run(
    method: Method,
    problem: Problem,
    data: Data,
    lanes: Lane,
    starts: Params,
    chains: Sequence[np.ndarray],
    key: Array,
    slots: int,
    room: int = 0,
    on_progress: Callable[[float, int, str], None] | None = None,
) -> tuple[Params, Info]:
    """Solve every lane.

    Args:
      method: the solver.
      problem: the equation.
      data: rows, shared by all lanes.
      lanes: lam, seed, fold [N]; weights [n], shared, or [folds, n]; the rest [].
      starts: [seeds, ...] starting params.
      chains: numbers of lanes, every lane in one chain.
      key: of the batches, shared by all lanes.
      slots: of one worker.
      room: compile for at least so many lanes, so that sweeps of different sizes
        share a program.
      on_progress: called as `(lanes done, lanes in all, "lams")`, a lane at a
        barrier counting by its rounds; one call at a time, but from any thread.

    Returns:
      `(params, info)`, arrays [N, ...] on the host. After a Ctrl-C `info.status` is
      `running` where a lane has not finished. A second Ctrl-C is not caught.
    """
    count = len(lanes.lam)
    each = _products(data, starts)
    crew = workers.crew(1 if count * each < ALONE else -(-len(chains) // slots))
    parts = [chains[worker :: len(crew)] for worker in range(len(crew))]
    room = 2 ** int(np.ceil(np.log2(max(count, room, LEAST_ROOM))))
    numbers, program = trees.partition((method.build, problem, data))
    begin = max(1, int(QUICK // (slots * each)))
    tally = workers.Tally(on_progress, len(crew), count, "lams")

    def work(worker: int, device: Any, stop: Callable[[], bool]):
        queue, order = queue_of(lanes, starts, parts[worker], room)
        given = (numbers, queue, key)
        if device is not None:
            given = jax.device_put(given, device)
        tell = functools.partial(tally.tell, worker)
        size = (slots, len(order), method.rounds, begin)
        found = _run_worker(program, given, size, tell, stop)
        return order, jax.tree.map(lambda a: a[: len(order)], found)

    found = workers.work(work, crew)
    order = np.argsort(np.concatenate([lanes_done for lanes_done, _ in found]))
    results = [result for _, result in found]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *results)


def _run_worker(program, given, size, tell, stop) -> Any:
    """All of a queue, in chunks; what there is when stopped."""
    (numbers, queue, key), (slots, count, wave, rounds) = given, size
    carry = start(program, numbers, queue, slots)
    while not stop():
        begun = time.perf_counter()
        carry = advance(program, numbers, queue, carry, key, rounds)
        lane, status = trees.fetched((carry.lane, carry.out[1].status))  # waits
        seconds = time.perf_counter() - begun
        done = int(np.sum(status[:count] != Status.running))
        busy = lane < len(queue.last)
        share = min(float(carry.clock) / wave, 1.0) if wave else 0.0
        tell(done + share * int(np.sum(busy)))
        if not busy.any():
            break
        faster = min(CHUNK_SECONDS / max(seconds, 1e-6), MOST_GROWTH)
        rounds = max(1, int(rounds * faster))
    return trees.fetched(carry.out)


def _products(data: Data, starts: Params) -> float:
    """Of one lane's forward pass, inf where the model is not affine."""
    if data.aid is None:
        return np.inf
    return len(data.X) * max(1, sum(np.size(a[0]) for a in jax.tree.leaves(starts)))


def slots_for(
    method: Method, problem: Problem, data: Data, params: Params, chains: int
) -> int:
    """How many slots a worker has: as keep its device busy and fit its memory.

    A lane's memory is estimated by the arrays of one full forward pass. On a CPU it is
    a function of method, problem and data, except that one chain has one slot; on a
    device no more than there are chains for it, rounded up to a power of two.
    """
    if chains == 1:
        return 1
    devices = jax.local_devices()
    most, budget = min(method.slots, HOST_SLOTS), HOST_BYTES
    if devices[0].platform != "cpu":
        stats = devices[0].memory_stats() or {}
        most = min(DEVICE_SLOTS, 2 ** (-(-chains // len(devices)) - 1).bit_length())
        budget = stats.get("bytes_limit", 2**33) // 4
    shares = jax.ShapeDtypeStruct(data.X.shape[:1], data.X.dtype)
    each = 3 * trees.size_of(objective.smooth, problem, params, data, shares)
    fits = max(1, budget // max(each, 1))
    return min(most, 2 ** int(np.log2(fits)))
