"""Paths held to the numbers of R's glmnet 4.1 (see tests/data/glmnet.py)."""

import functools
import json
import lzma
import pathlib

import numpy as np
import oracles
import pytest
from sklearn import datasets

import regjax as rj
from regjax import sweep
from regjax.task import prepare

FOLDER = pathlib.Path(__file__).parent / "data" / "glmnet"
CASES = json.loads(lzma.open(FOLDER / "results.json.xz").read())["cases"]
LOSSES = {
    "gaussian": "half_squared_error",
    "binomial": "sigmoid_binary_cross_entropy",
    "multinomial": "softmax_cross_entropy",
    "poisson": "poisson_nll",
}
# Where glmnet itself is far from optimal: only whose objective is larger counts.
LOOSE = {name for name, case in CASES.items() if case["thresh"] > 1e-20}
TOL = 1e-13

# A case at a time, as its fit is kept; those compared in full first.
NAMES = sorted(CASES, key=lambda name: name in LOOSE)
FULL = [name for name in NAMES if name not in LOOSE]
every_case = pytest.mark.parametrize("name", NAMES, scope="module")
full_case = pytest.mark.parametrize("name", FULL, scope="module")
pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def load(name):
    """X [n, p] and y [n], classes from 0."""
    if name.endswith("Example"):
        with np.load(FOLDER / f"{name}.npz") as data:
            X, y = data["X"], data["y"]
        return X, (y - 1 if name.startswith("Multinomial") else y)
    if name == "diabetes":
        return datasets.load_diabetes(return_X_y=True, scaled=False)
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (X / 16 if name == "digits" else X), y


class Translated:
    """A case of glmnet in the terms of regjax.

    Attributes:
      X: [n, p]; where there is no intercept already divided by its scale, which
        glmnet takes as if there were one, centring nothing.
      per_lam: regjax's lam over glmnet's.
      scale: [p] what coefficients of the fit are divided by to be those of glmnet.
    """

    def __init__(self, name):
        case = CASES[name]
        given = case["arguments"]
        self.loss, alpha = LOSSES[case["family"]], given["alpha"]
        raw, self.y = load(case["data"])
        n, p = raw.shape
        self.weights = np.asarray(given.get("weights", np.ones(n)))
        self.offset = np.asarray(given.get("offset", np.zeros(n)))
        self.bias, self.standardize = given["intercept"], given["standardize"]
        share = self.weights / self.weights.sum()
        scale = np.sqrt(share @ (raw - share @ raw) ** 2)
        scale = np.where(scale > 0, scale, 1.0)
        self.scale = scale if self.standardize else np.ones(p)
        self.X = raw
        if self.standardize and not self.bias:
            self.X, self.standardize = raw / scale, False
        factors = np.asarray(given.get("penalty_factor", np.ones(p)))
        self.factors = factors * p / np.where(np.isinf(factors), 1, factors).sum()
        self.bounds = tuple(
            np.asarray(given.get(f"{side}_limits", sign * np.inf)) * self.scale
            for side, sign in (("lower", -1), ("upper", 1))
        )
        self.grouped = given.get("type_multinomial") == "grouped"
        spread = 1.0
        if case["family"] == "gaussian" and not case["family_function"]:
            y = self.y - self.offset
            spread = np.sqrt(share @ (y - share @ y) ** 2)
        self.per_lam = alpha + (1 - alpha) / spread
        self.l1_ratio = alpha / self.per_lam

    def outputs(self):
        return len(np.unique(self.y)) if self.loss == "softmax_cross_entropy" else 1

    def problem(self):
        if self.grouped:
            penalty = rj.penalties.group(factors=self.factors)
        else:
            given = {"factors": self.factors, "bounds": self.bounds}
            penalty = rj.penalties.elastic_net(self.l1_ratio, **given)
        model = rj.models.linear(self.X.shape[1], self.outputs(), bias=self.bias)
        return rj.Problem(model, getattr(rj.losses, self.loss)(), penalty)

    def fit(self, lams, tol):
        return rj.fit_path(
            self.problem(),
            self.X,
            self.y,
            lams,
            solver=rj.solvers.proximal_gradient(tol=tol),
            sample_weight=self.weights,
            offset=self.offset,
            standardize=self.standardize,
        )

    def grid(self):
        """The automatic one, of 100 lams, as `fit_path` takes it."""
        task = prepare(
            self.problem(),
            self.X,
            self.y,
            100,
            sample_weight=self.weights,
            offset=self.offset,
            standardize=self.standardize,
            direction="sparse_to_dense",
            seeds=1,
            progress=False,
            few_rows=True,
            **dict.fromkeys(["solver", "chains", "init", "key"]),
        )
        return sweep.grid_of(task)

    def objective(self, lam, coef, intercept):
        """Float64 objective of coefficients in raw units of X."""
        one_hot = self.loss == "softmax_cross_entropy"
        y = np.eye(self.outputs())[self.y.astype(int)] if one_hot else self.y[:, None]
        X = self.X if not self.bias else self.X / self.scale
        exact = oracles.Convex(
            self.loss,
            X,
            y,
            lam,
            None if self.grouped else self.l1_ratio,
            self.weights,
            self.offset[:, None],
            self.factors,
            *(np.asarray(side) * (1 + 1e-9) for side in self.bounds),
            bias=self.bias,
        )
        return exact.objective(coef * self.scale[:, None], intercept)


@functools.cache
def fitted(name):
    """`(path, case, places)`: those lams of the case whose coefficients it tells."""
    case, problem = CASES[name], Translated(name)
    # The first coefficients of glmnet belong to lambda = 9.9e35.
    places = case["at"][1:]
    lams = np.array(case["lambda"])[places] * problem.per_lam
    tol = 1e-6 if name.startswith("digits") else TOL
    return problem.fit(lams, tol), case, places


def glmnets(case, i):
    """Coefficients [p, k] and intercepts [k] of the i-th stored lam."""
    coef, intercept = np.array(case["coef"][i]), np.array(case["intercept"][i])
    return (coef[:, None] if coef.ndim == 1 else coef), np.atleast_1d(intercept)


def ours(name, i):
    """The same of the i-th lam fitted, in raw units of X."""
    path, problem = fitted(name)[0], Translated(name)
    found = path.coef()
    w, b = found["w"][i], found["b"][i]
    return (w if problem.bias else w / problem.scale[:, None]), b


@every_case
def test_the_automatic_grid_is_glmnets(name):
    """lams = geomspace(lambda_max, 1e-4 lambda_max, 100), of which glmnet cuts the end.

    lambda_max = max_j |g_j| / (c_j max(alpha, 1e-3)) at the null model.
    """
    if name.endswith("_default"):
        pytest.skip("the grid of the same case")
    problem, theirs = Translated(name), np.array(CASES[name]["lambda"])
    found = problem.grid() / problem.per_lam
    np.testing.assert_allclose(found[: len(theirs)], theirs, rtol=1e-9)


@every_case
def test_every_lam_is_certified(name):
    path, _, _ = fitted(name)
    tol = 1e-6 if name.startswith("digits") else TOL
    assert np.all(path.status == rj.Status.converged), path.status
    assert np.all(path.gap <= tol * path.null_loss)


@every_case
def test_the_objective_is_never_above_glmnets(name):
    """F(ours) <= F(glmnet's) + gap, and F(ours) is what path.objective says."""
    path, case, places = fitted(name)
    problem = Translated(name)
    for i in range(len(places)):
        lam = path.lams[i]
        here = problem.objective(lam, *ours(name, i))
        there = problem.objective(lam, *glmnets(case, i + 1))
        np.testing.assert_allclose(here, path.objective[i], rtol=1e-9)
        assert here <= there + 1e-12 + path.gap[i]


@full_case
def test_the_coefficients_are_glmnets(name):
    """To the accuracy of glmnet's; an ungrouped softmax may shift each row."""
    _, case, places = fitted(name)
    shifted = case["family"] == "multinomial"
    for i in range(len(places)):
        (w, b), (coef, intercept) = ours(name, i), glmnets(case, i + 1)
        if shifted:
            b, intercept = b - b.mean(), intercept - intercept.mean()
        size = max(np.abs(coef).max(), 1e-3)
        np.testing.assert_allclose(w, coef, atol=3e-5 * size, rtol=0)
        np.testing.assert_allclose(b, intercept, atol=3e-5 * max(1, abs(b).max()))


@full_case
def test_df_and_dev_ratio_are_glmnets(name):
    """Nonzero coefficients (in any class); 1 - deviance / null deviance."""
    path, case, places = fitted(name)
    theirs = np.array(case["dev_ratio"])[places]
    np.testing.assert_allclose(path.dev_ratio, theirs, atol=2e-6)
    df = [int(np.any(ours(name, i)[0] != 0, axis=1).sum()) for i in range(len(places))]
    np.testing.assert_array_equal(df, np.array(case["df"])[places])
