"""Cross-validation: folds are weights, the curve is glmnet's."""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets
from sklearn.metrics import roc_auc_score

import regjax as rj
from regjax import folds, measures, sweep, trees

GLMNET = pathlib.Path(__file__).parent / "data/glmnet"
CURVES = json.loads((GLMNET / "curves.json").read_text())
LOSSES = {
    "gaussian": "half_squared_error",
    "binomial": "sigmoid_binary_cross_entropy",
    "multinomial": "softmax_cross_entropy",
    "poisson": "poisson_nll",
}
NAMES = {"class": "misclassification"}

rng = np.random.default_rng(0)
N, P = 60, 5
X = rng.standard_normal((N, P)) * [1, 2, 3, 0.5, 1] + [0, 5, 0, 0, -3]
NUMBERS = X @ [1, -0.5, 0, 0, 0.3] + rng.standard_normal(N)
CLASSES = np.digitize(NUMBERS, np.quantile(NUMBERS, [1 / 3, 2 / 3]))
X = X.astype(np.float32)
NUMBERS = NUMBERS.astype(np.float32)
FOLDS = np.arange(N) % 4
SQUARED = rj.Problem(
    rj.models.linear(P), rj.losses.half_squared_error(), rj.penalties.l1()
)
SOFTMAX = rj.Problem(
    rj.models.linear(P, 3), rj.losses.softmax_cross_entropy(), rj.penalties.l1()
)
BINARY = rj.Problem(
    rj.models.linear(P, 2), rj.losses.sigmoid_binary_cross_entropy(), rj.penalties.l1()
)
OUTPUTS = (CLASSES[:, None] > [0, 1]).astype(int)
TIGHT = rj.solvers.proximal_gradient(tol=1e-13)


def stored(name):
    """X, y of a data set that glmnet was given."""
    if (GLMNET / f"{name}.npz").exists():
        with np.load(GLMNET / f"{name}.npz") as data:
            return data["X"], data["y"]
    given = {"scaled": False} if name == "diabetes" else {}
    return getattr(datasets, f"load_{name}")(return_X_y=True, **given)


def title(curve):
    more = "" if curve["intercept"] else "-no intercept"
    return f"{curve['data']}-{curve['measure']}-{curve['folds']}{more}"


@pytest.fixture(scope="module")
def fits():
    """Of lanes that several measures share."""
    return {}


@pytest.mark.parametrize("curve", CURVES, ids=title)
def test_the_curve_is_that_of_cv_glmnet(curve, fits, monkeypatch, x64):
    """Mean and se to 1e-4 of the mean, the same lam_min and lam_1se."""
    told = "data", "folds", "intercept", "l1_ratio", "standardize"
    which, solve = (*(curve[n] for n in told), *curve["lambda"]), sweep.solve

    def once(*given):
        if which not in fits:
            fits[which] = solve(*given)
        return fits[which]

    monkeypatch.setattr(sweep, "solve", once)
    X, y = stored(curve["data"])
    k = len(np.unique(y)) if curve["family"] == "multinomial" else 1
    problem = rj.Problem(
        rj.models.linear(X.shape[1], k, bias=curve["intercept"]),
        getattr(rj.losses, LOSSES[curve["family"]])(),
        rj.penalties.elastic_net(curve["l1_ratio"]),
    )
    measure = NAMES.get(curve["measure"], curve["measure"])
    cv = rj.cross_validate(
        problem,
        X,
        y,
        np.arange(len(y)) % curve["folds"],
        curve["lambda"],
        measure=measure,
        solver=rj.solvers.proximal_gradient(tol=1e-11),
        standardize=curve["standardize"],
    )
    np.testing.assert_allclose(cv.mean, curve["mean"], rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(cv.se, curve["se"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cv.lam_min, curve["lambda_min"], rtol=1e-9)
    np.testing.assert_allclose(cv.lam_1se, curve["lambda_1se"], rtol=1e-9)


@pytest.mark.parametrize(
    ("problem", "y", "standardize"),
    [
        (SQUARED, NUMBERS, False),
        (SOFTMAX, CLASSES, True),
        (
            SQUARED._replace(penalty=rj.penalties.l1(factors=[1, 0, 1, 1, 0])),
            NUMBERS,
            True,
        ),
        (SQUARED._replace(model=rj.models.linear(P, bias=False)), NUMBERS, True),
    ],
    ids=["squared", "softmax, standardised", "free inputs", "no intercept"],
)
def test_a_fold_is_a_fit_to_its_training_rows(problem, y, standardize, x64):
    """With weights and an offset; standardised by those rows alone."""
    wide, weights, offset = (
        X.astype(float),
        1.0 + np.arange(N) % 3,
        np.sin(np.arange(N)),
    )
    lams = [0.5, 0.1, 0.01]
    given = {"solver": TIGHT, "standardize": standardize}
    cv = rj.cross_validate(
        problem, wide, y, FOLDS, lams, sample_weight=weights, offset=offset, **given
    )
    assert cv.out_of_fold.shape[:3] == (3, 1, N)
    for k in range(4):
        held, rest = FOLDS == k, FOLDS != k
        path = rj.fit_path(
            problem,
            wide[rest],
            y[rest],
            lams,
            sample_weight=weights[rest],
            offset=offset[rest],
            **given,
        )
        eta = path.predict(wide[held], type="link", offset=offset[held])
        found = cv.out_of_fold[:, 0, held]
        if eta.shape[-1] > 1:  # a common shift of the classes is free
            found, eta = (a - a.mean(-1, keepdims=True) for a in (found, eta))
        np.testing.assert_allclose(found, eta, atol=2e-5)
    if problem.model is SQUARED.model:
        given |= {"sample_weight": weights, "offset": offset}
        whole = rj.fit_path(problem, wide, y, lams, **given)
        np.testing.assert_allclose(cv.path.objective, whole.objective, rtol=1e-11)


def free_for_one_output():
    """The lasso, but for input 1 in output 0."""
    factors = np.ones((P, 2))
    factors[1, 0] = 0.0

    def value(params, lam):
        return lam * jnp.sum(factors * jnp.abs(params[0]["w"]))

    def prox(params, lam, step):
        (layer,), (t,) = params, trees.like(params, step)
        w, t = layer["w"], lam * factors * t["w"]
        w = jnp.sign(w) * jnp.maximum(jnp.abs(w) - t, 0)
        return ({**layer, "w": w},)

    def largest(z):
        return jnp.max(factors * jnp.abs(z[0]["w"]))

    def conjugate(z, lam):
        return jnp.where(largest(z) <= lam * (1 + 1e-14), 0.0, jnp.inf)

    return rj.Penalty(value, prox, largest, conjugate)


def test_folds_standardised_by_themselves_keep_the_certificate(x64):
    """Also where the unpenalised coordinates are no whole columns of the design."""
    problem = BINARY._replace(penalty=free_for_one_output())
    wide, y = X.astype(float), OUTPUTS.astype(float)
    held, lams = FOLDS == 0, [0.1, 0.01]
    given = {"solver": TIGHT, "standardize": True}
    cv = rj.cross_validate(problem, wide, y, FOLDS, lams, **given)
    path = rj.fit_path(problem, wide[~held], y[~held], lams, **given)
    assert max(cv.path.gap.max(), path.gap.max()) < 1e-10
    eta = path.predict(wide[held], type="link")
    np.testing.assert_allclose(cv.out_of_fold[:, 0, held], eta, atol=2e-5)


def test_the_grid_is_that_of_all_rows():
    cv = rj.cross_validate(SQUARED, X, NUMBERS, FOLDS, 12)
    # To rounding: a path of all rows is of their moments.
    path = rj.fit_path(SQUARED, X, NUMBERS, 12)
    np.testing.assert_allclose(cv.lams, path.lams, rtol=1e-6)


def test_a_network_with_seeds_by_the_same_call():
    problem = SOFTMAX._replace(model=rj.models.mlp([P, 4, 3]))
    solver = rj.solvers.minibatch(epochs=3, batch_size=16, polish=2)
    cv = rj.cross_validate(
        problem,
        X,
        CLASSES,
        3,
        [0.1, 0.01],
        solver=solver,
        seeds=2,
        standardize=True,
        measure="misclassification",
    )
    assert cv.values.shape == (3, 2, 2)
    np.testing.assert_allclose(cv.mean, cv.values.mean((0, 2)), rtol=1e-6)
    assert cv.path.predict(X, lam="1se").shape == (2, N, 3)
    assert np.isin(cv.lam_min, cv.lams)


@pytest.fixture(scope="module")
def cv():
    return rj.cross_validate(SOFTMAX, X, CLASSES, FOLDS, 20, measure="deviance")


def test_min_and_1se_are_known_to_predict_and_coef(cv):
    for name, lam in (("min", cv.lam_min), ("1se", cv.lam_1se)):
        np.testing.assert_array_equal(
            cv.path.predict(X, lam=name), cv.path.predict(X, lam=lam)
        )
        np.testing.assert_array_equal(cv.coef(name)["w"], cv.path.coef(lam)["w"])
    with pytest.raises(ValueError, match=r"^lam: unknown name '2se'"):
        cv.path.predict(X, lam="2se")


def test_the_choice_survives_a_file(cv, tmp_path):
    cv.path.save(tmp_path / "path.npz")
    assert rj.load(tmp_path / "path.npz").chosen == cv.path.chosen


def test_lam_1se_is_the_largest_within_one_standard_error(cv):
    within = np.flatnonzero(cv.mean <= cv.mean.min() + cv.se[np.argmin(cv.mean)])
    assert cv.index_min == np.argmin(cv.mean)
    assert cv.index_1se == within[0]
    assert cv.lam_1se >= cv.lam_min


def test_print_and_picture_are_those_of_glmnets_users(cv, tmp_path):
    lines = str(cv).splitlines()
    assert lines[0] == "Measure: deviance, 4 folds"
    assert lines[2].split() == ["Lambda", "Index", "Measure", "SE", "Nonzero"]
    assert [line.split()[0] for line in lines[3:]] == ["min", "1se"]
    cv.plot(tmp_path / "cv.png")
    assert (tmp_path / "cv.png").stat().st_size > 10_000


def test_auc_is_scikit_learns():
    scores, truth = rng.integers(0, 5, (3, 40)), rng.integers(0, 2, 40)
    weights = rng.random(40)
    found = measures.auc(scores[..., None].astype(float), truth[:, None], weights)
    wanted = [roc_auc_score(truth, row, sample_weight=weights) for row in scores]
    np.testing.assert_allclose(found, wanted)


def test_binary_outputs_are_measured_each_on_its_own(x64):
    """The deviance is 2 (loss - saturated); errors are means over outputs.

    Some targets are proportions: of .3 right for a class .7 are wrong, as in glmnet.
    """
    loss = BINARY.loss
    eta, y = rng.standard_normal((4, 20, 3)), rng.integers(0, 2, (20, 3)).astype(float)
    y[:5] = rng.random((5, 3))
    found = measures.by_row("deviance", loss, eta, y)
    wanted = [2 * (loss.value(e, y) - loss.saturated(y)) for e in eta]
    np.testing.assert_allclose(found, wanted)
    p = 1 / (1 + np.exp(-eta))
    for measure, wanted in {
        "misclassification": np.mean(np.where(eta > 0, 1 - y, y), axis=-1),
        "mse": 2 * np.sum((p - y) ** 2, axis=-1),
        "mae": 2 * np.sum(np.abs(p - y), axis=-1),
    }.items():
        found = measures.by_row(measure, loss, eta, y)
        np.testing.assert_allclose(found, wanted)


def test_binary_outputs_are_cross_validated_and_scored_alike():
    """The misclassification is 1 - score."""
    measure = "misclassification"
    cv = rj.cross_validate(BINARY, X, OUTPUTS, FOLDS, [0.1, 0.01], measure=measure)
    for k, values in enumerate(cv.values):
        wrong = (cv.out_of_fold[:, :, FOLDS == k] > 0) != OUTPUTS[FOLDS == k]
        np.testing.assert_allclose(values, wrong.mean((-2, -1)))
    eta = cv.path.predict(X, type="link")
    wrong = measures.by_row(measure, BINARY.loss, eta, OUTPUTS)
    np.testing.assert_allclose(wrong.mean(-1), 1 - cv.path.score(X, OUTPUTS))


def test_folds_at_random_are_stratified_and_follow_the_key():
    loss, y = rj.losses.softmax_cross_entropy(), np.eye(3)[CLASSES]
    first = folds.assign(5, loss, y, np.ones(N), 0)
    np.testing.assert_array_equal(first, folds.assign(5, loss, y, np.ones(N), 0))
    assert np.any(first != folds.assign(5, loss, y, np.ones(N), 1))
    for kind in range(3):
        counts = np.bincount(first[CLASSES == kind], minlength=5)
        assert np.ptp(counts) <= 1
    assert np.ptp(np.bincount(first)) <= 1


def test_misclassification_of_proportions_of_classes():
    loss, y = rj.losses.softmax_cross_entropy(), np.array([[0.2, 0.5, 0.3], [0, 0, 1]])
    eta = np.array([[[0.0, 1, 2], [0, 1, 2]], [[0, 2, 1], [2, 0, 1]]])
    found = measures.by_row("misclassification", loss, eta, y)
    np.testing.assert_allclose(found, [[0.7, 0], [0.5, 1]])


def test_rows_of_weight_0_are_shared_out_last():
    """Neither folds nor strata count them."""
    loss, weights = rj.losses.softmax_cross_entropy(), (np.arange(N) % 2).astype(float)
    used = weights > 0
    y = np.eye(3)[np.where(used, CLASSES, 0)]
    for seed in range(20):
        number = folds.assign(5, loss, y, weights, seed)
        assert np.ptp(np.bincount(number[used])) <= 1
        assert np.ptp(np.bincount(number[~used])) <= 1
        for kind in range(3):
            assert np.ptp(np.bincount(number[used & (CLASSES == kind)])) <= 1
    rare = np.eye(2)[np.r_[np.ones(6, int), np.zeros(N - 6, int)]]
    with pytest.raises(ValueError, match="the rarest class has 3 rows only"):
        folds.assign(5, loss, rare, weights, 0)


@pytest.mark.parametrize("standardize", [False, True])
def test_rows_of_weight_0_are_predicted_too(standardize):
    """By the model of the other folds, as any row; whatever stood in for them."""
    weights, offset = np.arange(N) % 3, np.sin(np.arange(N, dtype=np.float32))
    given = {"standardize": standardize, "lams": [0.3, 0.01]}
    given["solver"] = rj.solvers.proximal_gradient(tol=1e-6)
    more = {"sample_weight": weights, "offset": offset}
    cv = rj.cross_validate(SQUARED, X, NUMBERS, FOLDS, **given, **more)
    rest = FOLDS != 2
    more = {name: values[rest] for name, values in more.items()}
    path = rj.fit_path(SQUARED, X[rest], NUMBERS[rest], **given, **more)
    held = (FOLDS == 2) & (weights == 0)
    eta = path.predict(X[held], type="link", offset=offset[held])
    np.testing.assert_allclose(cv.out_of_fold[:, 0, held], eta, atol=2e-3)


def test_a_seed_has_the_curve_of_weighted_folds(tmp_path):
    """Folds of 48, 4, 4 and 4 rows; the picture's band holds the curve."""
    number = np.r_[np.zeros(48, int), np.repeat([1, 2, 3], 4)]
    y = NUMBERS + np.float32(9) * (number > 0)  # small folds are far off
    problem = rj.Problem(
        rj.models.mlp([P, 4, 1]), rj.losses.half_squared_error(), rj.penalties.l1()
    )
    given = {"seeds": 3, "solver": rj.solvers.minibatch(epochs=5)}
    cv = rj.cross_validate(problem, X, y, number, [0.1, 0.01], **given)
    weighted = np.average(cv.values, axis=0, weights=np.bincount(number))
    np.testing.assert_allclose(cv.by_seed, weighted)
    np.testing.assert_allclose(cv.by_seed.mean(1), cv.mean)
    band = cv.plot(tmp_path / "cv.png").axes[0].collections[-1].get_paths()
    heights = np.concatenate([path.vertices[:, 1] for path in band])
    np.testing.assert_allclose(heights.min(), cv.by_seed.min())
    np.testing.assert_allclose(heights.max(), cv.by_seed.max())


def test_a_slice_forgets_a_choice_that_is_not_in_it(cv):
    """It would answer at its own last lam."""
    assert cv.path[: cv.index_min].chosen.keys() <= {"1se"}
    with pytest.raises(ValueError, match="^lam: "):
        cv.path[: cv.index_min].predict(X, lam="min")
    kept = cv.path[cv.index_min :]
    np.testing.assert_array_equal(kept.coef("min")["w"], cv.coef("min")["w"])


def test_folds_of_binary_outputs_leave_no_room_to_rare_combinations():
    """One row alone is (1, 1); each output has rows enough."""
    y = np.zeros((N, 2))
    y[:30, 0] = y[29:, 1] = 1
    number = folds.assign(5, BINARY.loss, y, np.ones(N), 0)
    np.testing.assert_array_equal(np.bincount(number), np.full(5, 12))


def test_a_diverging_lam_is_never_chosen():
    """Its fold values are NaN or its status says so: argmin must not pick it."""
    mean, se = np.array([1.0, np.nan, 0.5, 0.1]), np.full(4, 0.01)
    assert folds.choose(mean, se, np.array([1, 1, 1, 0], bool)) == (2, 2)
    with pytest.raises(ValueError, match="^lams: none is usable"):
        folds.choose(mean, se, np.zeros(4, bool))


BAD = {
    "1 fold": ({"folds": 1}, "folds: must be an integer of at least 2"),
    "folds of a word": ({"folds": "ten"}, "folds: must be"),
    "more than rows": ({"folds": 61}, "folds: 61 folds, but there are 60 rows"),
    "rarest class": (
        {
            "problem": SOFTMAX,
            "y": np.r_[np.zeros(40), np.ones(17), [2] * 3].astype(int),
        },
        "folds: 10 folds, but the rarest class has 3",
    ),
    "empty fold": ({"folds": np.where(FOLDS == 2, 1, FOLDS)}, "folds: fold 2 is empty"),
    "far apart": ({"folds": FOLDS + 10**15 * (FOLDS > 2)}, "folds: fold 3 is empty"),
    "huge": (
        {"folds": FOLDS.astype(np.uint64) + np.uint64(2**63) * (FOLDS == 0)},
        "folds: fold 4 is empty",
    ),
    "ragged": (
        {"folds": [[1, 2], [3]]},
        r"folds: must be a count, or \[n\] integers: ",
    ),
    "from 1 on": (
        {"problem": SOFTMAX, "y": CLASSES, "folds": 1 + (CLASSES == 1)},
        "folds: fold 1 holds all rows of class 0",
    ),
    "wrong length": ({"folds": FOLDS[1:]}, r"folds: must be a count, or \[60\]"),
    "all in one": ({"folds": np.zeros(N, int)}, "folds: there must be at least 2"),
    "all of a class": (
        {"problem": SOFTMAX, "y": CLASSES, "folds": (CLASSES == 1).astype(int)},
        "folds: fold 0 holds all rows of class 0",
    ),
    "all of the last class": (
        {"problem": SOFTMAX, "y": CLASSES, "folds": (CLASSES != 2).astype(int)},
        "folds: fold 0 holds all rows of class 2",
    ),
    "all of an output": (
        {"problem": BINARY, "y": OUTPUTS, "folds": 1 - OUTPUTS[:, 1]},
        "folds: fold 0 holds all rows of class 1 of output 1",
    ),
    "no weight": (
        {"sample_weight": (FOLDS != 1).astype(int), "folds": FOLDS},
        "folds: fold 1 holds no row of positive weight",
    ),
    "unknown measure": ({"measure": "devience"}, "measure: unknown name"),
    "classes of numbers": (
        {"measure": "misclassification"},
        "measure: 'misclassification' needs",
    ),
    "auc of numbers": ({"measure": "auc"}, "measure: 'auc' needs two classes"),
    "auc of 3 classes": (
        {"problem": SOFTMAX, "y": CLASSES, "measure": "auc"},
        "measure: 'auc' needs two classes",
    ),
    "auc of 2 outputs": (
        {"problem": BINARY, "y": OUTPUTS, "measure": "auc"},
        "measure: 'auc' needs two classes, or one binary output",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    changed, message = BAD[name]
    given = {"problem": SQUARED, "X": X, "y": NUMBERS} | changed
    with pytest.raises(ValueError, match=f"^{message}"):
        rj.cross_validate(given.pop("problem"), given.pop("X"), given.pop("y"), **given)


def test_what_is_saved_comes_back_bitwise(tmp_path):
    """The curve by `CV.load`, its path by `load`; printed and drawn alike."""
    file = tmp_path / "new/cv.npz"
    cv = rj.cross_validate(SOFTMAX, X, CLASSES, FOLDS, 4)
    cv.save(file)
    back, path = rj.CV.load(file), rj.load(file)
    for field in dataclasses.fields(cv):
        if field.name != "path":
            a, b = getattr(cv, field.name), getattr(back, field.name)
            np.testing.assert_array_equal(a, b, field.name)
    assert str(back) == str(cv) and repr(back) == repr(cv)
    assert path.chosen == back.path.chosen == cv.path.chosen
    np.testing.assert_array_equal(back.predict(X), cv.predict(X))
    np.testing.assert_array_equal(path.predict(X, lam="1se"), cv.predict(X))
    back.plot(tmp_path / "cv.png")


def test_a_file_without_a_curve_is_refused(tmp_path):
    cv = rj.cross_validate(SQUARED, X, NUMBERS, FOLDS, 4)
    file = tmp_path / "path.npz"
    cv.path.save(file)
    with pytest.raises(ValueError, match="path.npz holds a path without cross-val"):
        rj.CV.load(file)
    with pytest.raises(ValueError, match="is not there"):
        rj.CV.load(tmp_path / "other.npz")
    dataclasses.replace(cv, path=cv.path.take(slice(3))).save(file)
    with pytest.raises(ValueError, match="a curve of other lams"):
        rj.CV.load(file)
