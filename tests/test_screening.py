"""Working sets of inputs: the same path, proved over all inputs."""

import signal
import types

import jax
import numpy as np
import pytest

import regjax as rj
from regjax import conditioning, objective, screening, side_by_side, stretches, sweep
from regjax.solvers import gram
from regjax.task import prepare

N, P = 60, 640


def design(seed, rho=0.5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, P))
    for j in range(1, P):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    eta = X[:, ::64] @ rng.standard_normal(10) + 0.5 * rng.standard_normal(N)
    return (X + rng.standard_normal(P)).astype(np.float32), eta


FACTORS = np.ones(P)
FACTORS[[3, 500]], FACTORS[10:300] = 0, np.inf
CASES = {
    "lasso": (rj.losses.half_squared_error(), rj.penalties.l1()),
    "logistic enet": (
        rj.losses.sigmoid_binary_cross_entropy(),
        rj.penalties.elastic_net(0.7),
    ),
    "factors and bounds": (
        rj.losses.half_squared_error(),
        rj.penalties.l1(factors=FACTORS, bounds=(-np.linspace(0.01, 0.5, P), 1)),
    ),
    "softmax group, X turned": (
        rj.losses.softmax_cross_entropy(),
        rj.penalties.group(),
    ),
    "poisson": (rj.losses.poisson_nll(), rj.penalties.l1()),
}


def case(name):
    X, eta = design(0)
    loss, penalty = CASES[name]
    k = 3 if "softmax" in name else 1
    y = {
        "softmax_cross_entropy": np.digitize(eta, np.quantile(eta, [0.3, 0.7])),
        "sigmoid_binary_cross_entropy": (eta > 0).astype(int),
        "poisson_nll": np.random.default_rng(1).poisson(np.exp(0.3 * eta)),
    }.get(loss.config[0], eta.astype(np.float32))
    return rj.Problem(rj.models.linear(P, k), loss, penalty), X, y


def prepared(*given):
    none = dict.fromkeys(["solver", "chains", "sample_weight", "offset", "init", "key"])
    more = {"seeds": 1, "standardize": False, "progress": False}
    return prepare(*given, **none, **more, direction="sparse_to_dense")


@pytest.fixture
def sizes(monkeypatch):
    """Of the working sets that are solved, however small X is."""
    found, solve = [], stretches.solve
    monkeypatch.setattr(screening, "LEAST_NUMBERS", 0)

    def counted(method, problem, data, lane, stretch, engine):
        found.append(len(stretch.inputs))
        return solve(method, problem, data, lane, stretch, engine)

    monkeypatch.setattr(stretches, "solve", counted)
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_lam_is_proved_over_all_inputs(sizes, monkeypatch, name):
    """Its gap is what `certify` says, which knows no working sets."""
    if "turned" in name:  # of all X, and of working sets above 128 inputs
        monkeypatch.setattr(conditioning, "LARGE", 0)
    problem, X, y = case(name)
    solver = rj.solvers.proximal_gradient(tol=1e-4)
    path = rj.fit_path(problem, X, y, 25, solver=solver)
    assert sizes and max(sizes) < P
    assert "turned" not in name or max(sizes) > objective.NARROW
    assert np.all(path.status == rj.Status.converged)
    assert np.all(path.gap <= 1e-4 * path.null_loss)
    for i in (1, 12, 24):
        gap = rj.certify(problem, X, y, path.lams[i], path[i].params)
        assert gap <= 1.02 * path.gap[i] + 1e-6 * path.null_loss
    if "factors" in name:
        w = path.params[0]["w"]
        assert np.all(w[:, 10:300] == 0) and np.all(w[:, [3, 500]] != 0)


def test_an_input_that_was_missing_is_noticed(sizes, monkeypatch):
    """However badly the working sets are chosen."""
    problem, X, y = case("lasso")
    plain = rj.fit_path(problem, X, y, 25)
    choose = screening._choose

    def worst(data, pushes, *known):
        return choose(data, -pushes, *known)

    monkeypatch.setattr(screening, "_choose", worst)
    sizes.clear()
    goods, judge = [], screening._judge

    def judged(*given):
        found = judge(*given)
        goods.append(found[0])
        return found

    monkeypatch.setattr(screening, "_judge", judged)
    path = rj.fit_path(problem, X, y, plain.lams)
    assert len(sizes) > 5 and 0 in goods
    assert np.all(path.status == rj.Status.converged)
    assert np.all(np.abs(path.objective - plain.objective) <= path.gap + plain.gap)


@pytest.mark.parametrize(
    ("before", "needed", "size"),
    [(64, 51, 64), (64, 52, 256), (256, 9, 256), (256, 210, 512), (64, 900, 2048)],
)
def test_sizes_of_working_sets(before, needed, size):
    """Few, with room for a quarter more, closer together where they are large."""
    assert screening._size(before, needed) == size


def starts(wanted, lams, at, penalty=None):
    """Of 4 inputs, where the last two lams [2] and another ended; then of 3 of them."""

    def params(*w):
        return ({"w": np.reshape(w, (1, 4, 1)), "b": np.full((1, 1), w[-1])},)

    last = [params(1.0, -2.0, 0.0, 3.0), params(2.0, -1.0, 0.0, 6.0)]
    stacked = jax.tree.map(lambda *a: np.stack(a), *last[-len(lams) :])
    second = params(1.0, -3.0, 5.0, 3.0)
    behind = screening.Behind(stacked, np.array(lams), second, at)
    penalty = penalty or rj.penalties.l1()
    problem = rj.Problem(rj.models.linear(3), rj.losses.half_squared_error(), penalty)
    inputs = np.array([1, 0, 3])
    stretch = screening._stretch(np.array(wanted), 0, 2, inputs, behind)
    begun = stretches._starts(problem, stretch)
    return begun[0]["w"][:, 0, :, 0], begun[0]["b"][:, 0, 0]


@pytest.mark.parametrize(
    ("lams", "at", "wanted", "start"),
    [
        ([0.5, 0.25], 0.5, 0.25 * np.sqrt(0.5), (0, 2.5, 7.5)),
        ([0.5, 0.25], 0.5, 0.125, (0, 3, 9)),  # as far again; not across 0
        ([0.5, 0.25], 1.0, 1e-9, (0, 4, 12)),  # at most twice as far
        ([0.5, 0.25], 0.5, 0.5, (-2, 1, 3)),  # one's own
        ([0.5, 0.25], 0.5, 0.25, (-1, 2, 6)),
        ([1.0], np.nan, 0.5, (-1, 2, 6)),  # there is no second yet
        ([0.5, 0.25], 0.5, 0.0, (-1, 2, 6)),
    ],
)
def test_where_lams_begin(x64, lams, at, wanted, start):
    w, b = starts([wanted], lams, at)
    np.testing.assert_allclose(w, [start] * 2, atol=1e-12)  # filled up
    np.testing.assert_allclose(b, start[-1:] * 2)


def test_lams_begin_within_bounds(x64):
    w, b = starts([0.125], [0.5, 0.25], 0.5, rj.penalties.l1(bounds=(-0.5, 2.5)))
    np.testing.assert_allclose(w, [(0, 2.5, 2.5)] * 2)
    np.testing.assert_allclose(b, [9, 9])


@pytest.mark.parametrize("init", [False, True])
def test_what_a_path_starts_from_is_no_solution(sizes, monkeypatch, init):
    """Of lams that are one's own, or an init."""
    problem, X, y = case("lasso")
    whole = rj.fit_path(problem, X, y, 20)
    given = {"init": whole[10].params} if init else {}
    found, run = [], screening._stretch

    def noted(*given):
        found.append(given[-1].at)
        return run(*given)

    monkeypatch.setattr(screening, "_stretch", noted)
    rj.fit_path(problem, X, y, whole.lams[1:], **given)
    assert np.isnan(found[0]) and found[1] != whole.lams[1]
    assert np.isfinite(found[2:]).all()


def test_stretches_begin_nearer_than_where_the_last_one_ended(sizes, monkeypatch):
    problem, X, y = case("logistic enet")
    ahead = rj.fit_path(problem, X, y, 100).n_iter.sum()
    run = screening._stretch

    def flat(*given):
        return run(*given[:-1], given[-1]._replace(at=np.nan))

    monkeypatch.setattr(screening, "_stretch", flat)
    assert ahead < 0.9 * rj.fit_path(problem, X, y, 100).n_iter.sum()


def test_stretches_go_on_with_the_steps_of_the_last_one(monkeypatch):
    """Where classes part the bound on the gradient's slope is ten times too large."""
    X = np.random.default_rng(0).standard_normal((60, 5000)).astype(np.float32)
    y = (X[:, :3].sum(axis=1) > 0).astype(int)
    loss, penalty = rj.losses.sigmoid_binary_cross_entropy(), rj.penalties.l1()
    problem = rj.Problem(rj.models.linear(5000, 1), loss, penalty)
    given = {"solver": rj.solvers.proximal_gradient(tol=1e-4)}
    path = rj.fit_path(problem, X, y, 30, **given)
    monkeypatch.setattr(screening, "_paced", lambda data, *_: data)
    anew = rj.fit_path(problem, X, y, path.lams, **given)
    assert path.n_iter.sum() < 0.8 * anew.n_iter.sum()
    assert np.all(path.gap <= 1e-4 * path.null_loss)


@pytest.mark.parametrize("step", [0.0, np.nan, np.inf, 1e-8, 0.5])
def test_no_step_begins_below_that_of_the_bound(step):
    problem, X, y = case("logistic enet")
    ground = prepared(problem, X, y, 3).ground
    inputs = np.arange(64)
    info = types.SimpleNamespace(step=np.array([[1.0], [step]], np.float32))
    first = screening._paced(ground.data, inputs, info).aid.first
    assert first.dtype == np.float32 and 0 <= first <= ground.data.aid.curvature
    if step == 0.5:
        assert first == pytest.approx(2 / ground.data.aid.metric[0]["w"][inputs].max())


@pytest.mark.parametrize("folds", [1, 3])
def test_stretches_of_any_length_share_a_program(sizes, monkeypatch, folds):
    found, solve = [], stretches.solve

    def noted(*given):
        inputs, lams = given[4][:2]
        found.append((len(inputs), len(lams), len(np.unique(lams))))
        return solve(*given)

    monkeypatch.setattr(stretches, "solve", noted)
    problem, X, y = case("logistic enet")
    if folds == 1:
        rj.fit_path(problem, X, y, 45)
    else:
        rj.cross_validate(problem, X, y, folds, 14)
    shapes, lengths = {f[:2] for f in found}, {f[::2] for f in found}
    assert len({m for m, _ in shapes}) == len(shapes) < len(lengths)


def test_the_smallest_sets_have_twice_the_lams(sizes, monkeypatch):
    problem, X, y = case("lasso")
    asked, solve = [], stretches.solve

    def noted(*given):
        asked.append(tuple(map(len, given[4][:2])))
        return solve(*given)

    monkeypatch.setattr(stretches, "solve", noted)
    path = rj.fit_path(problem, X, y, 60)
    assert np.all(path.status == rj.Status.converged)
    assert sizes == sorted(sizes), "sets do not shrink"
    assert asked[0] == (64, 16) and asked[-1][0] > 64
    assert all(lams == (16 if size == 64 else 8) for size, lams in asked)


def test_folds_share_a_working_set(sizes, monkeypatch):
    problem, X, y = case("lasso")
    number = np.arange(N) % 4
    given = problem, X, y, number, 20
    cv = rj.cross_validate(*given, standardize=True)
    assert sizes and np.all(cv.path.gap <= 1e-5 * cv.path.null_loss)
    monkeypatch.setattr(screening, "LEAST_INPUTS", P + 1)
    plain = rj.cross_validate(*given, standardize=True)
    np.testing.assert_allclose(cv.mean, plain.mean, rtol=2e-3)


def test_lams_down_to_zero_end_with_all_inputs(sizes, monkeypatch):
    """Those, and not the lams before: of them nearly all inputs enter."""
    problem, X, y = case("lasso")
    left, engine = [], sweep._engine

    def noted(task, work, *given):
        left.extend(work.lanes.lam)
        return engine(task, work, *given)

    monkeypatch.setattr(sweep, "_engine", noted)
    lams = np.append(np.geomspace(1.2, 0.1, 10), [1e-3, 0])
    path = rj.fit_path(problem, X, y, lams)
    assert sizes and len(path) == 12
    np.testing.assert_allclose(left, [1e-3, 0], rtol=1e-6)
    assert np.all(path.status == rj.Status.converged) and path.loss[-1] < 1e-4


def test_ctrl_c_keeps_the_lams_that_are_done(sizes):
    problem, X, y = case("lasso")

    def press(done, total, label):
        if done >= 8:
            signal.raise_signal(signal.SIGINT)

    path = rj.fit_path(problem, X, y, 25, progress=press)
    assert 8 <= len(path) < 25
    assert np.all(path.status == rj.Status.converged)


@pytest.mark.parametrize(
    ("n", "p", "pays"),
    [
        (60, 640, False),  # so small that to look at all of it costs less
        (200, 2000, True),
        (200, 500, False),
        (500, 2000, False),
        (1000, 5000, True),
        (20_000, 600, True),
    ],
)
def test_what_it_is_for(n, p, pays):
    assert screening._pays(n, p) is pays


def test_what_takes_too_long_goes_on_by_slots(sizes, monkeypatch):
    problem, X, y = case("logistic enet")
    plain = rj.fit_path(problem, X, y, 20)
    monkeypatch.setattr(stretches, "MOST_ROUNDS", 1)
    left, by_slots, told = [], sweep._by_slots, []

    def counted(task, work, *rest):
        left.append(np.any(work.starts[0]["w"] != 0))  # gone on from, not begun anew
        return by_slots(task, work, *rest)

    monkeypatch.setattr(sweep, "_by_slots", counted)
    path = rj.fit_path(problem, X, y, 20, progress=lambda *a: told.append(a))
    assert sizes and left and all(left) and np.all(path.status == rj.Status.converged)
    assert np.all(np.abs(path.objective - plain.objective) <= path.gap + plain.gap)
    assert np.all(path.n_iter >= plain.n_iter), "what was spent before counts"
    done = [done for done, *_ in told]
    assert done == sorted(done) and {total for _, total, _ in told} == {20}


def test_squared_error_goes_on_as_well(sizes, monkeypatch):
    """By a Gram matrix of the working set first."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 640)).astype(np.float32)
    y = X[:, :5].sum(axis=1) + rng.standard_normal(100).astype(np.float32)
    loss, penalty = rj.losses.half_squared_error(), rj.penalties.l1(bounds=(-1, 2))
    problem = rj.Problem(rj.models.linear(640), loss, penalty)
    monkeypatch.setattr(stretches, "MOST_ROUNDS", 1)
    grams, matrix = [], gram.with_matrix

    def noted(data, lanes):
        grams.append(isinstance(data.X, jax.core.Tracer))
        return matrix(data, lanes)

    monkeypatch.setattr(gram, "with_matrix", noted)
    path = rj.fit_path(problem, X, y, 12)
    assert False in grams, "none of the engine's"
    assert sizes and np.all(path.status == rj.Status.converged)
    for i in (3, 11):
        gap = rj.certify(problem, X, y, path.lams[i], path[i].params)
        assert gap <= 1.02 * path.gap[i] + 1e-6 * path.null_loss


def test_what_is_left_is_not_called_an_end():
    """Twice half of a separating direction is better, but that is no proof."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 5)).astype(np.float32)
    y = (X[:, 0] + 0.1 * rng.standard_normal(200) > 0).astype(int)
    loss, penalty = rj.losses.sigmoid_binary_cross_entropy(), rj.penalties.l1()
    problem = rj.Problem(rj.models.linear(5), loss, penalty)
    plain = rj.fit_path(problem, X, y, [0.0])
    assert plain.status[0] == rj.Status.converged
    task = prepared(problem, X, y, [0.0])
    ground = task.ground
    many = sweep._lanes(ground.lane, np.zeros(1), 1, np.float32)
    chains = [np.arange(1)]
    work = sweep.Work(problem, ground.data, many, ground.starts, chains)
    limits = side_by_side.Limits(1, 0, 8)
    _, info = side_by_side.run(task.solver.build, *work, limits)
    assert info.status == [rj.Status.running]


def test_no_stretch_takes_long(sizes, monkeypatch):
    """Until the next look at Ctrl-C: by slots, where X is too large."""
    monkeypatch.setattr(stretches, "WORK", 1)
    monkeypatch.setattr(stretches, "_solved", None)
    problem, X, y = case("logistic enet")
    path = rj.fit_path(problem, X, y, 20)
    assert sizes and np.all(path.status == rj.Status.converged)


@pytest.mark.parametrize("more", [{"chains": 2}, {"direction": "dense_to_sparse"}])
def test_chains_of_ones_own_are_kept(sizes, more):
    problem, X, y = case("lasso")
    rj.fit_path(problem, X, y, [0.3, 0.2, 0.1], **more)
    assert not sizes


def test_gradients_are_expected_on_a_line_through_those_before(x64):
    """Whether a stretch is full or its last lam is repeated."""
    lams, ahead = (
        np.array([1.0, 0.8, 0.7, 0.4, 0.4]),
        np.array([0.5, 0.3, 0.2, 0.1, 0.1]),
    )
    slope = np.array([[2.0, -1.0, 0.0]])

    def gradients(at):
        w = 3 + at[:, None, None] * slope[None]
        return ({"w": w[..., None], "b": w[..., :1]},)

    found = stretches._extrapolated(gradients(lams), lams, ahead)
    jax.tree.map(np.testing.assert_allclose, found, gradients(ahead))
    still = stretches._extrapolated(gradients(lams), np.ones(5), ahead)
    jax.tree.map(np.testing.assert_array_equal, still, gradients(lams))
    lost = jax.tree.map(
        lambda g: np.where(np.arange(5)[:, None, None, None] == 4, np.inf, g),
        gradients(lams),
    )
    kept = stretches._extrapolated(lost, lams, ahead)
    np.testing.assert_allclose(kept[0]["w"][:4], found[0]["w"][:4])


def test_a_line_misses_fewer_inputs_than_the_last_gradient():
    """Of those that the next eight lams use, beyond as many as are used already."""
    problem, X, y = case("lasso")
    path = rj.fit_path(problem, X, y, 60)
    w, lams = path.params[0]["w"][:, :, 0], path.lams.astype(float)
    eta = w @ X.T + path.params[0]["b"]
    grad = ((eta - y) @ X / N)[:, None, :, None]
    missed = np.zeros(2, int)
    for i in range(7, 52):
        near, ahead = slice(i - 7, i + 1), np.full(8, lams[i + 8])
        line = stretches._extrapolated(({"w": grad[near]},), lams[near], ahead)
        on = w[i] != 0
        wanted = (w[i + 1 : i + 9] != 0).any(axis=0) & ~on
        for k, g in enumerate((np.asarray(line[0]["w"][-1]), grad[i])):
            rank = np.where(on, 0, np.abs(g[0, :, 0]))
            chosen = np.argsort(-rank)[: on.sum()]
            missed[k] += wanted.sum() - wanted[chosen].sum()
    assert missed[0] < 0.9 * missed[1], missed
