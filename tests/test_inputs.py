"""Bad input: one ValueError that names the argument, before anything compiles."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import regjax as rj

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 4)).astype(np.float32)
LABELS = np.arange(30) % 3
NUMBERS = X[:, 0] + 1


def problem(loss="softmax_cross_entropy", k=3, p=4, penalty=None, ridge=0.0):
    loss = rj.losses.REGISTRY[loss]()
    model = rj.models.mlp([p, 5, k])
    return rj.Problem(model, loss, penalty or rj.penalties.l1(), ridge)


def spoiled(array, value, place=3):
    array = np.array(array, np.float32)
    array.reshape(-1)[place] = value
    return array


SOFTMAX, SQUARED = problem(), problem("half_squared_error", 1)
BINARY, POISSON = problem("sigmoid_binary_cross_entropy", 1), problem("poisson_nll", 1)
LINEAR = SOFTMAX._replace(model=rj.models.linear(4, 3))
OWN_LOSS = rj.Loss(lambda eta, y: 0.5 * (eta - y) ** 2)
ADAM = optax.adam(1e-3)

CALLS = {
    "X nan": ("X", lambda: rj.fit(SOFTMAX, spoiled(X, np.nan), LABELS, 0.1)),
    "X inf": ("X", lambda: rj.fit(SOFTMAX, spoiled(X, np.inf), LABELS, 0.1)),
    "X 1-D": ("X", lambda: rj.fit(SOFTMAX, X[:, 0], LABELS, 0.1)),
    "X words": ("X", lambda: rj.fit(SOFTMAX, [["a"] * 4] * 30, LABELS, 0.1)),
    "X empty": ("X", lambda: rj.fit(SOFTMAX, X[:0], LABELS[:0], 0.1)),
    "X ragged": ("X", lambda: rj.fit(SOFTMAX, [[1.0], [1.0, 2.0]], [0, 1], 0.1)),
    "X columns": ("X", lambda: rj.fit(SOFTMAX, X[:, :3], LABELS, 0.1)),
    "y nan": ("y", lambda: rj.fit(SQUARED, X, spoiled(NUMBERS, np.nan), 0.1)),
    "y rows": ("y", lambda: rj.fit(SOFTMAX, X, LABELS[:-1], 0.1)),
    "y columns": ("y", lambda: rj.fit(SQUARED, X, X, 0.1)),
    "y above": ("y", lambda: rj.fit(SOFTMAX, X, LABELS + 1, 0.1)),
    "y below": ("y", lambda: rj.fit(SOFTMAX, X, LABELS - 1, 0.1)),
    "y half": ("y", lambda: rj.fit(SOFTMAX, X, LABELS / 2, 0.1)),
    "y words": ("y", lambda: rj.fit(SOFTMAX, X, ["a", "b", "c"] * 10, 0.1)),
    "y one class": ("y", lambda: rj.fit(SOFTMAX, X, 0 * LABELS, 0.1)),
    "y one binary class": ("y", lambda: rj.fit(BINARY, X, np.ones(30), 0.1)),
    "y one weighted class": (
        "y",
        lambda: rj.fit(BINARY, X, LABELS > 0, 0.1, sample_weight=LABELS > 0),
    ),
    "y without a class": ("class 1", lambda: rj.fit(LINEAR, X, LABELS // 2 * 2, 0.1)),
    "y one class of an output": (
        "output 1",
        lambda: rj.fit(
            LINEAR._replace(loss=BINARY.loss),
            X,
            np.eye(3, dtype=bool)[LABELS] & [1, 0, 1],
            0.1,
        ),
    ),
    "X masked": ("X", lambda: rj.fit(SOFTMAX, np.ma.masked_less(X, 0), LABELS, 0.1)),
    "y not binary": ("y", lambda: rj.fit(BINARY, X, LABELS, 0.1)),
    "y negative": ("y", lambda: rj.fit(POISSON, X, -np.ones(30), 0.1)),
    "softmax of 1": ("model", lambda: rj.fit(problem(k=1), X, LABELS, 0.1)),
    "lam negative": ("lam", lambda: rj.fit(SOFTMAX, X, LABELS, -0.1)),
    "lam nan": ("lam", lambda: rj.fit(SOFTMAX, X, LABELS, np.nan)),
    "lam array": ("lam", lambda: rj.fit(SOFTMAX, X, LABELS, [0.1, 0.2])),
    "lams negative": ("lams", lambda: rj.fit_path(SOFTMAX, X, LABELS, [0.1, -1])),
    "lams empty": ("lams", lambda: rj.fit_path(SOFTMAX, X, LABELS, [])),
    "lams nan": ("lams", lambda: rj.fit_path(SOFTMAX, X, LABELS, [0.1, np.nan])),
    "lams inf": ("lams", lambda: rj.fit_path(SOFTMAX, X, LABELS, [0.1, np.inf])),
    "lams 0": ("lams", lambda: rj.fit_path(SOFTMAX, X, LABELS, 0)),
    "lams 2-D": ("lams", lambda: rj.fit_path(SOFTMAX, X, LABELS, [[0.1]])),
    "lams word": ("lams", lambda: rj.fit_path(SOFTMAX, X, LABELS, "auto")),
    "key": ("key", lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, key=3)),
    "seeds 0": ("seeds", lambda: rj.fit_path(SOFTMAX, X, LABELS, [0.1], seeds=0)),
    "weights shape": (
        "sample_weight",
        lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, sample_weight=np.ones(29)),
    ),
    "weights nan": (
        "sample_weight",
        lambda: rj.fit(
            SOFTMAX, X, LABELS, 0.1, sample_weight=spoiled(np.ones(30), np.nan)
        ),
    ),
    "weights negative": (
        "sample_weight",
        lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, sample_weight=-np.ones(30)),
    ),
    "weights 0": (
        "sample_weight",
        lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, sample_weight=np.zeros(30)),
    ),
    "offset shape": (
        "offset",
        lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, offset=np.ones((30, 2))),
    ),
    "offset inf": (
        "offset",
        lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, offset=np.full(30, np.inf)),
    ),
    "init tree": ("init", lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, init={"w": X})),
    "init shape": (
        "init",
        lambda: rj.fit(
            SOFTMAX,
            X,
            LABELS,
            0.1,
            init=rj.models.mlp([4, 6, 3]).init(jax.random.key(0)),
        ),
    ),
    "ridge": ("ridge", lambda: rj.fit(problem(ridge=-1.0), X, LABELS, 0.1)),
    "no problem": ("problem", lambda: rj.fit("lasso", X, LABELS, 0.1)),
    "loss not called": (
        "loss",
        lambda: rj.fit(
            SOFTMAX._replace(loss=rj.losses.softmax_cross_entropy), X, LABELS, 0.1
        ),
    ),
    "solver": ("solver", lambda: rj.fit(SOFTMAX, X, LABELS, 0.1, solver="adam")),
    "bare optimizer": ("optimizer", lambda: rj.solvers.minibatch(ADAM)),
    "unknown optimizer": ("'adam'", lambda: rj.solvers.minibatch("adamm")),
    "unknown activation": ("'relu'", lambda: rj.models.mlp([2, 2], "rellu")),
    "sizes": ("sizes", lambda: rj.models.mlp([4])),
    "batch_size": ("batch_size", lambda: rj.solvers.minibatch(batch_size=0)),
    "epochs": ("epochs", lambda: rj.solvers.minibatch(epochs=0)),
    "polish": ("polish", lambda: rj.solvers.minibatch(polish=-1)),
    "epochs 2.5": ("epochs", lambda: rj.solvers.minibatch(epochs=2.5)),
    "optimizer signature": (
        "optimizer",
        lambda: rj.solvers.minibatch(rj.transforms.proximal_adam),
    ),
    "tol": ("tol", lambda: rj.solvers.proximal_gradient(tol=0.0)),
    "max_iter": ("max_iter", lambda: rj.solvers.proximal_gradient(max_iter=0)),
    "l1_ratio": ("l1_ratio", lambda: rj.penalties.elastic_net(1.5)),
    "where": (
        "0/w",
        lambda: rj.fit(
            problem(penalty=rj.penalties.l1(where="kernel")), X, LABELS, 0.1
        ),
    ),
    "where a function": ("where", lambda: rj.penalties.l1(where=lambda params: True)),
    "where numbers": ("where", lambda: rj.penalties.group(where=({"w": 1, "b": 0},))),
    "loss of columns": (
        "loss",
        lambda: rj.fit(SQUARED._replace(loss=OWN_LOSS), X, NUMBERS, 0.1),
    ),
    "dataset": ("'digits'", lambda: rj.datasets.load("digit")),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_one_clear_error_before_compiling(name):
    argument, call = CALLS[name]
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert argument in message
    assert len(message) < 300 and "Traceback" not in message


def test_constant_y_has_no_automatic_grid():
    linear = SQUARED._replace(model=rj.models.linear(4, 1))
    with pytest.raises(ValueError, match="lams: no automatic grid"):
        rj.fit_path(linear, X, np.ones(30, np.float32))


def test_float64_input_gets_exactly_one_warning():
    solver = rj.solvers.minibatch(epochs=1, polish=0)
    wide = X.astype(np.float64)
    with pytest.warns(UserWarning, match="float64") as caught:
        rj.fit(SQUARED, wide, wide[:, 0], 0.1, solver=solver)
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(UserWarning, match="float64") as caught:
        rj.fit_path(SQUARED, wide, wide[:, 0], [0.1], solver=solver)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int64, np.float16, "bfloat16"])
def test_other_dtypes_are_taken_without_a_word(dtype):
    values = jnp.asarray(X > 0, dtype) if dtype == "bfloat16" else (X > 0).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = rj.fit(
            SOFTMAX, values, LABELS, 0.01, solver=rj.solvers.minibatch(epochs=1)
        )
    assert np.isfinite(one.objective)


def test_one_hot_column_and_integer_targets_are_the_same_thing():
    solver = rj.solvers.minibatch(epochs=2, polish=2)
    fits = [
        rj.fit(SOFTMAX, X, y, 0.01, solver=solver).objective
        for y in (LABELS, LABELS[:, None], np.eye(3)[LABELS].astype(int))
    ]
    assert fits[0] == fits[1] == fits[2]
    columns = [
        rj.fit(SQUARED, X, y, 0.01, solver=solver).objective
        for y in (NUMBERS, NUMBERS[:, None])
    ]
    assert columns[0] == columns[1]


def test_rows_of_weight_0_may_hold_anything_finite():
    """Even what overflows the loss: they are left out, not multiplied by 0."""
    model = rj.models.linear(4, 1)
    poisson = rj.Problem(model, rj.losses.poisson_nll(), rj.penalties.l1())
    y = np.arange(30) % 4
    wild, weights = X.copy(), np.ones(30)
    wild[0], weights[0] = 1e30, 0
    with_row = rj.fit(poisson, wild, y, 0.01, sample_weight=weights.astype(int))
    without = rj.fit(poisson, X[1:], y[1:], 0.01)
    np.testing.assert_allclose(with_row.objective, without.objective, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-37, 1e37])
def test_the_scale_of_weights_neither_over_nor_underflows(scale):
    weights = np.full(30, scale, np.float32)
    one = rj.fit(SQUARED_LINEAR, X, NUMBERS, 0.1, sample_weight=weights)
    plain = rj.fit(SQUARED_LINEAR, X, NUMBERS, 0.1)
    np.testing.assert_allclose(one.objective, plain.objective, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_standardize_takes_columns_of_any_scale(scale):
    scaled = X * np.float32(scale)
    one = rj.fit(SQUARED_LINEAR, scaled, NUMBERS, 0.1, standardize=True)
    plain = rj.fit(SQUARED_LINEAR, X, NUMBERS, 0.1, standardize=True)
    np.testing.assert_allclose(one.objective, plain.objective, rtol=1e-4)


BEYOND = {
    "X": lambda: rj.fit(SQUARED_LINEAR, WIDE * 1e39, NUMBERS, 0.1),
    "y": lambda: rj.fit(SQUARED_LINEAR, X, WIDE[:, 0] * 1e39, 0.1),
    "offset": lambda: rj.fit(SQUARED_LINEAR, X, NUMBERS, 0.1, offset=WIDE[:, 0] * 1e39),
    "lams": lambda: rj.fit_path(SQUARED_LINEAR, X, NUMBERS, [1e39, 0.1]),
    "lam": lambda: rj.fit(SQUARED_LINEAR, X, NUMBERS, 1e300),
    "ridge": lambda: rj.fit(problem(ridge=1e39), X, LABELS, 0.1),
    "y: the loss": lambda: rj.fit(SQUARED_LINEAR, X, NUMBERS * np.float32(1e25), 0.1),
}
WIDE = X.astype(np.float64)
SQUARED_LINEAR = SQUARED._replace(model=rj.models.linear(4, 1))


@pytest.mark.filterwarnings("ignore:.*float64 is rounded:UserWarning")
@pytest.mark.parametrize("argument", BEYOND)
def test_finite_numbers_beyond_float32_are_refused(argument):
    with pytest.raises(ValueError, match=f"^{argument}"):
        BEYOND[argument]()


def test_lams_beyond_the_dtype_of_x_are_refused_where_64_bits_are_on(x64):
    with pytest.raises(ValueError, match="^lams: numbers up to 1e.39"):
        rj.fit_path(SQUARED_LINEAR, X, NUMBERS, [1e39, 0.1])


@pytest.mark.parametrize("shift", [60.0, 1e3])
def test_a_constant_offset_changes_nothing(shift):
    """Also one that saturates the loss: the intercept takes it up."""
    model = rj.models.linear(4, 1)
    binary = BINARY._replace(model=model)
    y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
    plain = rj.fit_path(binary, X, y, 3)
    moved = rj.fit_path(binary, X, y, 3, offset=np.full(30, shift, np.float32))
    np.testing.assert_allclose(moved.lams, plain.lams, rtol=1e-3)
    np.testing.assert_allclose(moved.null_loss, plain.null_loss, rtol=1e-4)


def test_predictions_of_a_path_with_an_offset_ask_for_it():
    offset = 10 * X[:, 2]
    path = rj.fit_path(SQUARED_LINEAR, X, NUMBERS + offset, [1e-3], offset=offset)
    with pytest.raises(ValueError, match="^offset"):
        path.score(X, NUMBERS + offset)
    assert path.score(X, NUMBERS + offset, offset=offset)[0] > 0.99


def test_scores_refuse_what_fits_refuse():
    path = rj.fit_path(SQUARED_LINEAR, X, NUMBERS, [0.1])
    for y in (NUMBERS[:1], NUMBERS * np.nan, ["a"] * 30):
        with pytest.raises(ValueError, match="^y"):
            path.score(X, y)
    with pytest.raises(ValueError, match="^lam"):
        path.predict(X, lam={})


def test_several_binary_outputs_are_scored_one_by_one():
    y = (X[:, :3] > 0).astype(int)
    model, loss = rj.models.linear(4, 3), rj.losses.sigmoid_binary_cross_entropy()
    path = rj.fit_path(rj.Problem(model, loss, rj.penalties.l1()), X, y, [1e-3])
    assert path.predict(X, type="class").shape == (1, 30, 3)
    assert path.score(X, y)[0] == 1


def test_a_mask_may_be_of_numpy_bools():
    mask = ({"w": np.array(True), "b": np.array(False)},)
    masked = SQUARED_LINEAR._replace(penalty=rj.penalties.l1(where=mask))
    same = rj.fit(masked, X, NUMBERS, 0.1).objective
    assert same == rj.fit(SQUARED_LINEAR, X, NUMBERS, 0.1).objective
