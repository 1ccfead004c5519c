"""The engine: chunks, waves, Ctrl-C, memory."""

import signal
import threading

import jax
import numpy as np
import pytest

import regjax as rj
from regjax import inputs, lanes

rng = np.random.default_rng(0)
X = rng.standard_normal((64, 4)).astype(np.float32)
y = np.arange(64) % 3
PROBLEM = rj.Problem(
    rj.models.mlp([4, 5, 3]), rj.losses.softmax_cross_entropy(), rj.penalties.l1()
)
SOLVER = rj.solvers.minibatch(batch_size=16, epochs=5, polish=7)
LAMS = np.geomspace(0.1, 1e-4, 9)


def solve(progress=False):
    return rj.fit_path(PROBLEM, X, y, LAMS, solver=SOLVER, progress=progress)


@pytest.mark.parametrize("seconds", [0.0, 1e-3, 100.0])
def test_chunks_change_nothing(monkeypatch, seconds):
    """However often the host looks in: bitwise."""
    whole = solve()
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", seconds)
    jax.tree.map(np.testing.assert_array_equal, solve().params, whole.params)


def test_progress_counts_every_round_once(monkeypatch):
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)
    seen = []
    solve(progress=lambda *told: seen.append(told))
    done = [told[0] for told in seen]
    assert done == sorted(done) and seen[-1][0] == seen[-1][1] == 12
    assert {told[2] for told in seen} == {"epoch", "polish step"}


def test_waves_of_any_width_give_the_same_path(monkeypatch):
    wide = solve()
    monkeypatch.setattr(lanes, "HOST_SLOTS", 4)
    narrow = solve()
    np.testing.assert_allclose(narrow.objective, wide.objective, rtol=1e-5)
    assert len(narrow) == len(wide)


def test_waves_side_by_side_give_what_one_by_one_gives(monkeypatch):
    """Threads share nothing but the compiled programs: bitwise."""
    monkeypatch.setattr(lanes, "HOST_SLOTS", 2)
    paths = []
    for cores in (1, 3):
        monkeypatch.setattr(lanes, "_cores", lambda cores=cores: cores)
        paths.append(solve())
    jax.tree.map(np.testing.assert_array_equal, paths[0].params, paths[1].params)


def test_inside_a_context_manager_of_jax_waves_stay_in_the_callers_thread(monkeypatch):
    """Such settings hold for one thread; elsewhere they would silently not hold."""
    monkeypatch.setattr(lanes, "HOST_SLOTS", 2)
    monkeypatch.setattr(lanes, "_cores", lambda: 2)
    threads = set()
    run_wave = lanes._run_wave

    def watched(*args):
        threads.add(threading.current_thread())
        return run_wave(*args)

    monkeypatch.setattr(lanes, "_run_wave", watched)
    solve()
    assert threading.main_thread() not in threads
    threads.clear()
    with jax.default_matmul_precision("highest"):
        solve()
    assert threads == {threading.main_thread()}


def test_an_error_in_a_wave_comes_out(monkeypatch):
    monkeypatch.setattr(lanes, "HOST_SLOTS", 2)
    monkeypatch.setattr(lanes, "_cores", lambda: 2)

    def fail(*told):
        raise RuntimeError("the callback's own")

    with pytest.raises(RuntimeError, match="the callback's own"):
        solve(progress=fail)


def test_ctrl_c_keeps_finished_waves_and_the_handler_comes_back(monkeypatch):
    """Interrupted in the second of three waves: the first is kept, bitwise."""
    monkeypatch.setattr(lanes, "HOST_SLOTS", 4)
    monkeypatch.setattr(lanes, "_cores", lambda: 1)
    whole = solve()
    before = signal.getsignal(signal.SIGINT)

    def interrupt(done, total, label):
        if done == 13:
            signal.raise_signal(signal.SIGINT)

    part = solve(progress=interrupt)
    assert len(part) == 4
    jax.tree.map(
        np.testing.assert_array_equal, part.params, whole.take(slice(4)).params
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_first_wave_is_a_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt):
        solve(progress=lambda *told: signal.raise_signal(signal.SIGINT))


def test_ctrl_c_drops_a_lam_whose_seeds_are_not_all_done(monkeypatch):
    monkeypatch.setattr(lanes, "HOST_SLOTS", 4)
    monkeypatch.setattr(lanes, "_cores", lambda: 1)

    def interrupt(done, total, label):
        if done == 13:
            signal.raise_signal(signal.SIGINT)

    path = rj.fit_path(PROBLEM, X, y, LAMS, solver=SOLVER, seeds=3, progress=interrupt)
    assert path.loss.shape == (1, 3)


def test_a_wave_shrinks_with_the_memory_of_a_lane(monkeypatch):
    data, _ = inputs.check_data(PROBLEM, X, y, None, None)
    params = PROBLEM.model.init(jax.random.key(0))
    assert lanes.slots_for(PROBLEM, data, params, 100) == lanes.HOST_SLOTS
    assert lanes.slots_for(PROBLEM, data, params, 2) == lanes.HOST_SLOTS
    assert lanes.slots_for(PROBLEM, data, params, 1) == 1
    monkeypatch.setattr(lanes, "HOST_BYTES", 100_000)
    assert 1 < lanes.slots_for(PROBLEM, data, params, 100) < lanes.HOST_SLOTS
    monkeypatch.setattr(lanes, "HOST_BYTES", 1)
    assert lanes.slots_for(PROBLEM, data, params, 100) == 1


def test_weights_may_differ_from_lane_to_lane():
    """Folds are 0/1 weights: [N, n] gives each lane its own, X is shared."""
    data, ones = inputs.check_data(PROBLEM, X, y, None, None)
    masks = np.stack([ones, np.where(np.arange(64) < 32, 1.0, 0.0)]).astype(np.float32)
    start = PROBLEM.model.init(jax.random.fold_in(jax.random.key(0), 0))
    starts = jax.tree.map(lambda a: a[None], start)
    lane = lanes.Lane(
        np.full(2, 1e-3, np.float32),
        masks,
        np.zeros(2, int),
        scale=np.float32(1),
        ceiling=np.float32(np.inf),
    )
    solver = rj.solvers.proximal_gradient(max_iter=50)
    _, info = lanes.run(solver, PROBLEM, data, lane, starts, jax.random.key(0), slots=2)
    for i, mask in enumerate(masks):
        one = rj.fit(PROBLEM, X, y, 1e-3, solver=solver, sample_weight=mask)
        np.testing.assert_allclose(info.objective[i], one.objective, rtol=1e-4)
