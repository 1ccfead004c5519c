"""Slots that refill against a plain vmapped `while_loop`, and what compiling costs.

Every lane is a lasso with correlated columns, started cold, a chain of its own; lams
over 4 decades make some far more work than others. The same solver functions run in

    vmap, all       `vmap(while_loop(step until done))` over all lanes
    vmap, waves     the same, S lanes after S lanes
    engine          `lanes.start` and `lanes.advance`, S slots, one thread
    engine, workers `lanes.run`: S slots in each of as many threads as there are cores

in turn, round after round; a figure is the median of the rounds, compiling excluded.

    python scripts/bench/engine.py
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import monitoring

import regjax as rj
from regjax import inputs, lanes, trees
from regjax.ground import find_ground
from regjax.types import Lane, Status

KEY = jax.random.key(1)
COMPILES = "/jax/core/compile/backend_compile_duration"
compiled: list[float] = []


def _listen(event: str, seconds: float, **_) -> None:
    if event == COMPILES:
        compiled.append(seconds)


def correlated(n: int = 200, p: int = 60, rho: float = 0.95):
    """X [n, p], neighbouring columns correlated by rho, and y of deviation 1."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    y = X[:, ::10].sum(1) + rng.standard_normal(n)
    return X.astype(np.float32), (y / y.std()).astype(np.float32)


class Work:
    """Lanes to solve: what `fit_path` would hand to the engine.

    Attributes:
      method: the solver.
      problem: the equation.
      data: rows.
      lane: lam, seed and fold [count].
      starts: [1, ...] the null model.
    """

    def __init__(self, count: int, tol: float):
        X, y = correlated()
        self.method = rj.solvers.proximal_gradient(tol)
        loss, penalty = rj.losses.half_squared_error(), rj.penalties.l1()
        self.problem = rj.Problem(rj.models.linear(X.shape[1]), loss, penalty)
        checked, weights = inputs.check_data(self.problem, X, y, None, None)
        ground = find_ground(
            self.problem, checked, weights, None, jax.random.key(0), 1, True
        )
        lam = np.geomspace(1.0, 1e-4, count).astype(np.float32)
        # Shuffled: waves of equal lanes would need no refilling.
        lam = np.random.default_rng(0).permutation(lam)
        none = np.zeros(count, np.int32)
        self.data, self.starts = ground.data, ground.starts
        self.lane = ground.lane._replace(lam=lam, seed=none, fold=none)
        self.chains = [np.array([i]) for i in range(count)]

    @functools.cached_property
    def program(self):
        """`(program, numbers)` as the engine takes them."""
        numbers, program = trees.partition((self.method.build, self.problem, self.data))
        return program, numbers


@functools.partial(jax.jit, static_argnums=0)
def vmapped(program, numbers, lane: Lane, starts):
    """All lanes until the last has ended."""
    build, problem, data = trees.combine(numbers, program)
    solver = build(problem, data)
    first = jax.tree.map(lambda a: a[0], starts)

    def one(lam):
        own = lane._replace(lam=lam, seed=jnp.int32(0), fold=jnp.int32(0))

        def more(carry):
            return carry[1] == Status.running

        def body(carry):
            state = solver.step(own, carry[0], None)
            return state, solver.status(own, state)

        state = solver.init(own, first)
        carry = (state, jnp.int32(Status.running))
        return solver.finish(own, *jax.lax.while_loop(more, body, carry))

    return jax.vmap(one)(lane.lam)


def by_vmap(work: Work, width: int) -> Callable[[], np.ndarray]:
    """Waves of `width` lanes, one after the other."""
    program, numbers = work.program

    def run() -> np.ndarray:
        found = []
        for lam in work.lane.lam.reshape(-1, width):
            own = work.lane._replace(lam=lam)
            found.append(vmapped(program, numbers, own, work.starts)[1])
            jax.block_until_ready(found[-1])
        return np.concatenate([info.n_iter for info in found])

    return run


def by_engine(work: Work, slots: int) -> Callable[[], np.ndarray]:
    """One thread."""
    program, numbers = work.program
    count = len(work.chains)
    queue, _ = lanes.queue_of(work.lane, work.starts, work.chains, count)

    def run() -> np.ndarray:
        carry = lanes.start(program, numbers, queue, slots)
        carry = lanes.advance(program, numbers, queue, carry, KEY, 10**6)
        return np.asarray(carry.out[1].n_iter)

    return run


def by_workers(work: Work, slots: int) -> Callable[[], np.ndarray]:
    """As `fit_path` does it."""
    own = (work.method, work.problem, work.data, work.lane, work.starts, work.chains)
    return lambda: lanes.run(*own, KEY, slots)[1].n_iter


def seconds_of(run: Callable) -> float:
    """Of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def throughput(count: int, slots: int, rounds: int, tol: float) -> None:
    """Print the table."""
    work = Work(count, tol)
    runs = {
        "vmap, all": by_vmap(work, count),
        f"vmap, waves of {slots}": by_vmap(work, slots),
        f"engine, {slots} slots": by_engine(work, slots),
        "engine, workers": by_workers(work, slots),
    }
    steps = {name: run() for name, run in runs.items()}  # compiles
    taken = [[seconds_of(run) for run in runs.values()] for _ in range(rounds)]
    print(f"\n{count} lanes, {slots} slots, tol {tol:g}; medians of {rounds} rounds")
    first = next(iter(steps.values()))
    print(f"steps a lane: median {np.median(first):.0f}, most {first.max()}")
    print(f"{'':22} {'s':>7} {'lanes/s':>8} {'engine is':>10} {'lowest':>7}")
    for i, name in enumerate(runs):
        seconds = statistics.median(row[i] for row in taken)
        ratios = [row[i] / row[2] for row in taken]
        print(
            f"{name:22} {seconds:7.2f} {count / seconds:8.1f} "
            f"{statistics.median(ratios):9.2f}x {min(ratios):6.2f}x"
        )


def compile_time(rounds: int) -> None:
    """Print how long `start` and `advance` take to compile, by slots."""
    print(f"\n{'slots = lanes':>14} {'start':>7} {'advance':>8} {'vmap':>7}  compile s")
    for count in (64, 128, 256, 512):
        work = Work(count, 1e-5)
        program, numbers = work.program
        queue, _ = lanes.queue_of(work.lane, work.starts, work.chains, count)
        taken = []
        for _ in range(rounds):
            jax.clear_caches()
            carry = jax.eval_shape(
                lambda n, q, c=count, p=program: lanes.start(p, n, q, c), numbers, queue
            )
            todo = (
                (lanes.start, (program, numbers, queue, count)),
                (lanes.advance, (program, numbers, queue, carry, KEY, 1)),
                (vmapped, (program, numbers, work.lane, work.starts)),
            )
            lowered = [function.lower(*given) for function, given in todo]
            taken.append([seconds_of(each.compile) for each in lowered])
        medians = map(statistics.median, zip(*taken, strict=True))
        print(
            f"{count:14} {next(medians):7.2f} {next(medians):8.2f} {next(medians):7.2f}"
        )


def programs() -> None:
    """Print how many programs the engine compiles for 1,000 lams."""
    monitoring.register_event_duration_secs_listener(_listen)
    work = Work(1000, 0.5)
    jax.clear_caches()
    compiled.clear()
    run = by_workers(work, 16)
    run()
    print(f"\nengine, 1,000 lams: {len(compiled)} programs, {sum(compiled):.1f} s")
    compiled.clear()
    run()
    print(f"again: {len(compiled)}")


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, default=128)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tol", type=float, default=1e-4)
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, float32")
    programs()
    compile_time(2)
    throughput(args.lanes, args.slots, args.rounds, args.tol)


if __name__ == "__main__":
    main()
