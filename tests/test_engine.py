"""The engine: chains and slots, chunks, neighbours, workers, Ctrl-C, memory."""

import gc
import os
import signal
import subprocess
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regjax as rj
from regjax import inputs, lanes, trees, workers
from regjax.ground import find_ground

rng = np.random.default_rng(0)
X = rng.standard_normal((64, 4)).astype(np.float32)
y = np.arange(64) % 3
PROBLEM = rj.Problem(
    rj.models.mlp([4, 5, 3]), rj.losses.softmax_cross_entropy(), rj.penalties.l1()
)
LINEAR = PROBLEM._replace(model=rj.models.linear(4, 3))
SOLVER = rj.solvers.minibatch(batch_size=16, epochs=5, polish=7)
LAMS = np.geomspace(0.1, 1e-4, 9)
CASES = {
    "barrier": (PROBLEM, SOLVER),
    "at once": (LINEAR, rj.solvers.proximal_gradient(tol=1e-6)),
    "network": (PROBLEM, rj.solvers.proximal_gradient(tol=1e-3, max_iter=60)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(autouse=True)
def no_work_is_small(monkeypatch):
    """So that small tests have several workers and chunks as well; few programs."""
    monkeypatch.setattr(lanes, "QUICK", 0)
    monkeypatch.setattr(lanes, "ALONE", 0)
    monkeypatch.setattr(lanes, "HOST_SLOTS", 4)


def solve(case=CASES["barrier"], lams=LAMS, **more):
    problem, solver = case
    return rj.fit_path(problem, X, y, lams, solver=solver, **more)


def same(a, b):
    """Bitwise."""
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    for name in ("loss", "kkt", "gap", "n_iter", "status"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_chunks_change_nothing(monkeypatch, case, seconds):
    """However often the host looks in."""
    whole = solve(case, chains=3)
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", seconds)
    same(solve(case, chains=3), whole)


def test_the_number_of_workers_changes_nothing(monkeypatch, case):
    paths = []
    for cores in (1, 3):
        monkeypatch.setattr(workers, "_cores", lambda cores=cores: cores)
        paths.append(solve(case, chains=9))
    if jax.__version_info__ >= (0, 8):
        return same(*paths)
    # There the last columns of a product are rounded in another way: the fourth slot.
    np.testing.assert_allclose(paths[0].objective, paths[1].objective, rtol=1e-5)


def test_small_work_stays_in_one_thread_and_changes_nothing(monkeypatch):
    """Two chunks at most, whatever the number of cores; a network's is never small."""
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    spread = solve(CASES["at once"], chains=9)
    monkeypatch.setattr(lanes, "QUICK", 2**22)
    monkeypatch.setattr(lanes, "ALONE", 2**19)
    rounds, own = [], lanes.advance

    def counted(*given):
        rounds.append(given[-1])
        return own(*given)

    monkeypatch.setattr(lanes, "advance", counted)
    monkeypatch.setattr(workers, "work", lambda task, crew: [task(0, *crew, bool)])
    same(solve(CASES["at once"], chains=9), spread)
    assert len(rounds) <= 2 and rounds[0] > 100
    monkeypatch.undo()
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(workers, "_cores", lambda: 1)
    monkeypatch.setattr(lanes, "HOST_SLOTS", 4)
    monkeypatch.setattr(lanes, "advance", counted)
    rounds.clear()
    solve(CASES["network"])
    assert rounds[0] == 1


def test_slots_of_any_number_give_the_same_path(monkeypatch, case):
    wide = solve(case)
    monkeypatch.setattr(lanes, "HOST_SLOTS", 2)
    narrow = solve(case)
    np.testing.assert_allclose(narrow.objective, wide.objective, rtol=1e-4)


@pytest.mark.parametrize("n, p", [(300, 4), (300, 100), (2700, 400)])
def test_one_output_from_x_turned_does_not_depend_on_the_slot(n, p):
    """Bitwise: other lams beside it move a lam to other slots."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p)).astype(np.float32)
    y = (X[:, 0] + rng.standard_normal(n) > 0).astype(int)
    loss = rj.losses.sigmoid_binary_cross_entropy()
    problem = rj.Problem(rj.models.linear(p), loss, rj.penalties.l1())
    whole = rj.fit_path(problem, X, y, LAMS, chains=9)
    for which in (slice(2, 9), slice(1, 6), slice(0, 8, 3)):
        count = len(LAMS[which])
        same(rj.fit_path(problem, X, y, LAMS[which], chains=count), whole.take(which))


def ready(case, count=9):
    """What `lanes.run` is given by `fit_path`."""
    problem, method = case
    data, weights = inputs.check_data(problem, X, y, None, None)
    ground = find_ground(
        problem, data, weights, None, jax.random.key(0), 1, method.reduces
    )
    lam = np.geomspace(0.1, 1e-4, count).astype(np.float32)
    lane = ground.lane._replace(
        lam=lam, seed=np.zeros(count, int), fold=np.zeros(count, int)
    )
    return method, problem, ground.data, lane, ground.starts


def run(case, lane, chains, slots=4):
    method, problem, data, _, starts = ready(case)
    key = jax.random.key(1)
    return lanes.run(method, problem, data, lane, starts, chains, key, slots)


def test_permuted_chains_change_nothing(case):
    """The order in which chains are begun is no part of a result."""
    lane = ready(case)[3]
    chains = np.array_split(np.arange(9), 5)
    first = run(case, lane, chains)
    second = run(case, lane, [chains[i] for i in (3, 0, 4, 1, 2)])
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("lam", [1e-6, np.nan])
def test_hard_and_broken_neighbours_change_nothing(case, lam):
    """A lane that takes for ever, or is NaN, touches no other."""
    lane = ready(case)[3]
    calm = run(case, lane, [[i] for i in range(9)])
    wild = lane._replace(lam=np.where(np.arange(9) % 2, lam, lane.lam))
    found = run(case, wild, [[i] for i in range(9)])
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[::2], b[::2]), calm, found
    )


def test_a_chain_goes_on_from_its_last_usable_lam():
    """A diverged lam in the middle of a chain leaves no NaN behind."""
    case = CASES["at once"]
    lane = ready(case)[3]
    broken = lane._replace(lam=np.where(np.arange(9) == 3, np.nan, lane.lam))
    params, info = run(case, broken, [np.arange(9)])
    assert rj.Status(info.status[3]) == rj.Status.diverged
    others = np.arange(9) != 3
    assert np.all(info.status[others] == rj.Status.converged)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    whole = run(case, lane, [np.arange(9)])[1]
    gaps = np.maximum(info.gap, whole.gap)[others]
    assert np.all(np.abs(info.objective - whole.objective)[others] <= gaps)


RESUME = """
import sys, numpy as np, jax
sys.path[:0] = {paths!r}
import tests.test_engine as t
case = t.CASES[{case!r}]
with np.load({file!r}) as stored:
    leaves = [stored[str(i)] for i in range(len(stored.files))]
found = t.finish_from(case, leaves)
np.savez({out!r}, *[np.asarray(a) for a in jax.tree.leaves(found)])
"""


def parts(case):
    method, problem, data, lane, starts = ready(case)
    chains = np.array_split(np.arange(9), 5)
    queue, _ = lanes.queue_of(lane, starts, chains, 64)
    numbers, program = trees.partition((method.build, problem, data))
    return program, numbers, queue


def finish_from(case, leaves):
    program, numbers, queue = parts(case)
    structure = jax.tree.structure(lanes.start(program, numbers, queue, 4))
    carry = structure.unflatten([jnp.asarray(leaf) for leaf in leaves])
    key = jax.random.key(1)
    return lanes.advance(program, numbers, queue, carry, key, 10**6).out


@pytest.mark.parametrize("name", ["barrier", "at once"])
def test_a_carry_goes_on_in_another_process_as_if_nothing_had_happened(name, tmp_path):
    program, numbers, queue = parts(CASES[name])
    key = jax.random.key(1)
    carry = lanes.start(program, numbers, queue, 4)
    carry = lanes.advance(program, numbers, queue, carry, key, 3)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(carry)]
    np.savez(tmp_path / "carry.npz", **{str(i): a for i, a in enumerate(leaves)})
    code = RESUME.format(
        paths=sys.path,
        case=name,
        file=str(tmp_path / "carry.npz"),
        out=str(tmp_path / "out.npz"),
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    whole = lanes.advance(program, numbers, queue, carry, key, 10**6).out
    with np.load(tmp_path / "out.npz") as stored:
        resumed = [stored[name] for name in stored.files]
    for a, b in zip(jax.tree.leaves(whole), resumed, strict=True):
        np.testing.assert_array_equal(a, b)


DEVICES = """
import sys, numpy as np, jax
sys.path[:0] = {paths!r}
import tests.test_engine as t
t.lanes.QUICK = 0
found = [t.solve(case, t.LAMS, chains=9) for case in (t.CASES["at once"],)]
assert len(jax.devices()) == {count}
np.savez({out!r}, *[np.asarray(a) for a in jax.tree.leaves([f.params for f in found])])
"""


def test_several_devices_give_what_one_gives(tmp_path):
    """8 devices, bitwise: lanes are dealt out, nothing is shared."""
    found = []
    for count in (1, 8):
        out = str(tmp_path / f"{count}.npz")
        code = DEVICES.format(paths=sys.path, count=count, out=out)
        flags = f"--xla_force_host_platform_device_count={count}"
        flags = f"{os.environ['XLA_FLAGS']} {flags}"
        environment = {**os.environ, "XLA_FLAGS": flags}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        with np.load(out) as stored:
            found.append([stored[name] for name in stored.files])
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)


def test_a_thousand_lams_compile_the_engine_once():
    """Whatever the lams: one start, one advance, shared by all workers."""
    before = lanes.start._cache_size(), lanes.advance._cache_size()
    problem, solver = CASES["at once"]
    fewer = solver._replace(build=solver.build)
    rj.fit_path(problem, X, y, np.geomspace(0.2, 0.09, 1000), solver=fewer)
    assert lanes.start._cache_size() - before[0] <= 1
    assert lanes.advance._cache_size() - before[1] <= 1
    rj.fit_path(problem, X, y, np.geomspace(0.3, 0.1, 1000), solver=fewer)
    assert lanes.advance._cache_size() - before[1] <= 1


def test_chains_and_directions_find_the_same_path():
    """Where convex: the certificate knows no way but the end."""
    case = CASES["at once"]
    paths = [
        solve(case, chains=chains, direction=direction)
        for chains in (1, 4, 9)
        for direction in ("sparse_to_dense", "dense_to_sparse")
    ]
    for path in paths[1:]:
        room = np.maximum(path.gap, paths[0].gap)
        assert np.all(np.abs(path.objective - paths[0].objective) <= room)


@pytest.mark.parametrize("chains", [0, -1, 1.5, "two"])
def test_unusable_chains_are_refused(chains):
    with pytest.raises(ValueError, match="^chains:"):
        solve(chains=chains)


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="^direction:"):
        solve(direction="up")


def test_progress_ends_at_the_number_of_lanes(monkeypatch, case):
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)
    seen = []
    solve(case, seeds=2, progress=lambda *told: seen.append(told))
    done = [told[0] for told in seen]
    assert done == sorted(done) and seen[-1][0] == seen[-1][1] == 18
    assert len(set(done)) > 2


def test_inside_a_context_manager_of_jax_the_work_stays_in_the_callers_thread(
    monkeypatch,
):
    """Such settings hold for one thread; elsewhere they would silently not hold."""
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    threads = set()
    run_worker = lanes._run_worker

    def watched(*args):
        threads.add(threading.current_thread())
        return run_worker(*args)

    monkeypatch.setattr(lanes, "_run_worker", watched)
    solve()
    assert threading.main_thread() not in threads
    threads.clear()
    with jax.default_matmul_precision("highest"):
        solve()
    assert threads == {threading.main_thread()}


def test_an_error_in_a_worker_comes_out(monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 2)

    def fail(*told):
        raise RuntimeError("the callback's own")

    with pytest.raises(RuntimeError, match="the callback's own"):
        solve(progress=fail)


def interrupt_at(many):
    def interrupt(done, total, label):
        if done >= many:
            signal.raise_signal(signal.SIGINT)

    return interrupt


def test_ctrl_c_keeps_finished_lams_and_the_handler_comes_back(monkeypatch):
    """Interrupted in the second of three waves: the first is kept, bitwise."""
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(workers, "_cores", lambda: 1)
    whole = solve()
    before = signal.getsignal(signal.SIGINT)
    part = solve(progress=interrupt_at(4))
    assert len(part) == 4
    kept = np.isin(whole.lams, part.lams)
    same(part, whole.take(kept))
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_anything_has_finished_is_a_keyboard_interrupt(monkeypatch):
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)
    # Else the signal, sent to a worker's thread, may wait until all has finished.
    monkeypatch.setattr(workers, "_cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        solve(progress=lambda *told: signal.raise_signal(signal.SIGINT))


def test_ctrl_c_drops_a_lam_whose_seeds_are_not_all_done(monkeypatch):
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(workers, "_cores", lambda: 1)
    path = solve(seeds=3, progress=interrupt_at(4))
    assert path.loss.shape == (1, 3)


def slots_for(chains):
    data, _ = inputs.check_data(PROBLEM, X, y, None, None)
    params = PROBLEM.model.init(jax.random.key(0))
    return lanes.slots_for(SOLVER, PROBLEM, data, params, chains)


def test_slots_shrink_with_the_memory_of_a_lane(monkeypatch):
    monkeypatch.setattr(lanes, "HOST_SLOTS", 8)
    assert slots_for(100) == slots_for(2) == lanes.HOST_SLOTS
    assert slots_for(1) == 1
    monkeypatch.setattr(lanes, "HOST_BYTES", 100_000)
    assert 1 < slots_for(100) < lanes.HOST_SLOTS
    monkeypatch.setattr(lanes, "HOST_BYTES", 1)
    assert slots_for(100) == 1


def test_slots_of_a_device_are_no_more_than_it_has_chains(monkeypatch):
    """An idle slot costs what a busy one costs, and a device would have 1,024."""
    stats = {"bytes_limit": 2**33}
    device = types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    found = [slots_for(chains) for chains in (1, 2, 12, 16, 1000, 5000)]
    assert found == [1, 2, 16, 16, 1024, 1024]
    monkeypatch.setattr(jax, "local_devices", lambda: [device] * 4)
    assert slots_for(100) == 32
    stats["bytes_limit"] = 1
    assert slots_for(100) == 1


def test_a_chain_all_alone_has_one_slot(monkeypatch, case):
    """Slots without a lane cost as much as those that have one."""
    slots, own = [], lanes.run

    def run(*given, **more):
        slots.append(given[7])
        return own(*given, **more)

    monkeypatch.setattr(lanes, "run", run)
    one = solve(case, LAMS[:4], chains=1)
    two = solve(case, LAMS[:4], chains=1, seeds=2)
    assert slots == [1, 4]
    np.testing.assert_allclose(one.objective, two.objective[:, 0], rtol=1e-4)


def test_weights_may_differ_from_lane_to_lane(case):
    """Folds are 0/1 weights: [folds, n], X is shared."""
    method, problem, data, lane, starts = ready(case, 4)
    ones = np.ones(64, np.float32)
    masks = np.stack([ones, np.where(np.arange(64) < 32, 1.0, 0.0)]).astype(np.float32)
    lane = lane._replace(weights=masks, fold=np.array([0, 1, 0, 1]))
    key = jax.random.key(1)
    chains = [[0], [1], [2], [3]]
    found = lanes.run(method, problem, data, lane, starts, chains, key, 4)
    for i in range(4):
        alone = lane._replace(weights=masks[i % 2])
        one = lanes.run(method, problem, data, alone, starts, chains, key, 4)
        np.testing.assert_allclose(
            found[1].objective[i], one[1].objective[i], rtol=1e-5
        )


def precisions(jaxpr):
    """Of every product in a program and its parts."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from precisions(inner)


def test_a_ctrl_c_within_stops_what_is_around_it():
    before = signal.getsignal(signal.SIGINT)
    with workers.catch_interrupt() as outer:
        with workers.catch_interrupt() as inner:
            assert not inner() and not outer()
            signal.raise_signal(signal.SIGINT)
            assert inner() and outer()
        with workers.catch_interrupt() as later:
            assert later() and outer()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # the second one
    assert signal.getsignal(signal.SIGINT) is before
    workers.stop_if_interrupted()


@pytest.mark.parametrize("name", ["fit_path", "cross_validate", "relax"])
def test_a_ctrl_c_is_not_lost_before_the_engine_runs(name):
    """Python drops an exception of a callback of the garbage collector."""
    given, more = (X, y), {"lams": [0.1]}
    if name == "relax":
        given, more = (solve(), X, y), {}

    def press(phase, _):
        if not pressed:
            pressed.append(signal.raise_signal(signal.SIGINT))

    def init(key):
        gc.callbacks.append(press)
        gc.collect()
        gc.callbacks.remove(press)
        return PROBLEM.model.init(key)

    pressed = []
    problem = PROBLEM._replace(model=PROBLEM.model._replace(init=init))
    with pytest.raises(KeyboardInterrupt):
        getattr(rj, name)(problem, *given, solver=SOLVER, **more)
    assert pressed


@pytest.mark.parametrize("convex", [True, False])
def test_products_of_full_batch_steps_are_exact(convex):
    """On a GPU the default is 10 bits, with which no gap is met."""
    X, y = np.ones((6, 3), np.float32), np.arange(6) % 2
    model = rj.models.linear(3) if convex else rj.models.mlp([3, 2, 1])
    loss = rj.losses.sigmoid_binary_cross_entropy()
    problem = rj.Problem(model, loss, rj.penalties.l1())
    method = rj.solvers.proximal_gradient()
    data, weights = inputs.check_data(problem, X, y, None, None)
    ground = find_ground(problem, data, weights, None, jax.random.key(0), 1, convex)
    solver = method.build(problem, ground.data)
    lane = ground.lane._replace(lam=np.float32(0.1), seed=0, fold=0)
    one = jax.tree.map(lambda a: a[0], ground.starts)
    state = solver.init(lane, one)
    step = jax.make_jaxpr(lambda state: solver.step(lane, state, None))(state)
    finish = jax.make_jaxpr(lambda s: solver.finish(lane, s, np.int32(0)))(state)
    for jaxpr in (step, finish):
        found = list(precisions(jaxpr.jaxpr))
        assert found
        assert all(p == (jax.lax.Precision.HIGHEST,) * 2 for p in found)
