"""`cross_validate`: lam chosen by held-out rows, all folds in one sweep.

A fold is a row of 0/1 sample weights: lam x fold x seed are lanes of the one engine,
and the fit to all rows is one more fold. The grid comes from all rows, the
standardisation, if any, from each fold's own training rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from regjax import assembly, held_out, measures, storage, sweep, workers
from regjax import folds as folding
from regjax.results import Path, contents, path_of
from regjax.table import format_cv
from regjax.task import Task, prepare, standardisation
from regjax.types import Data, Loss, Method, Params, Problem, Status

KEPT = "mean", "se", "values", "weights", "n_nonzero", "folds", "out_of_fold"
ROWS_A_FOLD = 3  # from here on a standard error is that over folds


@dataclasses.dataclass(frozen=True, eq=False)
class CV:
    """What cross-validation found.

    Attributes:
      lams: [L] descending.
      mean: [L] measure on held-out rows, averaged over folds (and seeds).
      se: [L] standard error of that mean, over folds; over rows, as glmnet's, where
        there are fewer than 3 rows a fold.
      values: [K, L, seeds] measure of every fold.
      weights: [K] of the folds, the sums of their rows'.
      n_nonzero: [L] penalised weights of the fit to all rows that are not 0 (mean
        over seeds).
      index_min: place in lams of the best mean.
      index_1se: place of the largest lam whose mean is within one standard error.
      measure: its name, see `regjax.measures`.
      folds: [n] fold number of every row, 0 ... K - 1.
      out_of_fold: [L, seeds, n, k] linear predictor of every row by the model that
        has not seen it, offset included.
      path: the fit to all rows; it knows lam="min" and lam="1se".
    """

    lams: np.ndarray
    mean: np.ndarray
    se: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    n_nonzero: np.ndarray
    index_min: int
    index_1se: int
    measure: str
    folds: np.ndarray
    out_of_fold: np.ndarray
    path: Path

    @property
    def lam_min(self) -> float:
        """The lam of the best mean."""
        return float(self.lams[self.index_min])

    @property
    def lam_1se(self) -> float:
        """The largest lam whose mean is within one standard error of the best."""
        return float(self.lams[self.index_1se])

    @property
    def by_seed(self) -> np.ndarray:
        """The mean over folds of every seed, [L, seeds]."""
        seeds = np.moveaxis(self.values, -1, 0)
        return np.stack([folding.curve(own, self.weights)[0] for own in seeds], axis=1)

    def predict(self, X: Any, lam: Any = "1se", **given: Any) -> np.ndarray:
        """`Path.predict` of the fit to all rows, at "1se", "min" or a number."""
        return self.path.predict(X, lam=lam, **given)

    def coef(self, lam: Any = "1se") -> dict[str, np.ndarray]:
        """`Path.coef` of the fit to all rows, at "1se", "min" or a number."""
        return self.path.coef(lam)

    def table(self) -> str:
        """The rows of lam_min and lam_1se, as glmnet prints them."""
        return format_cv(self)

    __str__ = table

    def __repr__(self) -> str:
        """One line."""
        return (
            f"CV({self.measure}, {self.values.shape[0]} folds, lam_min "
            f"{self.lam_min:.3g}, lam_1se {self.lam_1se:.3g})"
        )

    def plot(self, file: Any = None, axis: Any = None) -> Any:
        """Draw the curve; see `regjax.plotting.plot_cv`."""
        from regjax.plotting import plot_cv

        return plot_cv(self, file, axis)

    def save(self, file: Any) -> None:
        """Write an npz file, whole or not at all; `regjax.load` reads its path alone.

        out_of_fold is kept as well, so the file grows by L x seeds x n x k numbers.
        """
        header, arrays = contents(self.path)
        names = "measure", "index_min", "index_1se"
        curve = {f"cv/{name}": getattr(self, name) for name in KEPT}
        choice = {name: getattr(self, name) for name in names}
        storage.save(file, {**header, "cv": choice}, {**arrays, **curve})

    @classmethod
    def load(cls, file: Any, problem: Problem | None = None) -> CV:
        """Read what `CV.save` wrote; arguments and errors are those of `regjax.load`.

        Raises:
          ValueError: a path without cross-validation.
        """
        header, arrays = storage.load(file)
        path = path_of(file, header, arrays, problem)
        if "cv" not in header:
            raise ValueError(
                f"file: {file} holds a path without cross-validation; rj.load reads it"
            )
        with storage.malformed(file):
            curve: dict[str, Any] = {name: arrays[f"cv/{name}"] for name in KEPT}
            cv = cls(lams=path.lams, path=path, **header["cv"], **curve)
            rows = len(path), path.seeds, len(cv.folds)
            if cv.mean.shape != rows[:1] or cv.out_of_fold.shape[:3] != rows:
                raise ValueError("a curve of other lams, seeds or rows")
        return cv


@workers.catching_interrupt
def cross_validate(
    problem: Problem,
    X: Any,
    y: Any,
    folds: Any = 10,
    lams: Any = 100,
    *,
    measure: str = "deviance",
    solver: Method | None = None,
    chains: int | None = None,
    direction: str = "sparse_to_dense",
    seeds: int = 1,
    sample_weight: Any = None,
    offset: Any = None,
    standardize: bool = False,
    init: Params | None = None,
    key: Any = None,
    progress: bool | Callable[[float, int, str], None] = False,
) -> CV:
    """Choose lam by K-fold cross-validation.

    Args:
      problem: the equation; convex or a network.
      X: [n, p] inputs; more axes if the model takes them.
      y: [n] or [n, k], as the loss takes it.
      folds: how many, drawn at random by `key` and stratified by class (several
        binary outputs are not); or [n] fold numbers.
      lams: as of `fit_path`; an automatic grid comes from all rows.
      measure: "deviance" (twice the loss above the saturated one),
        "misclassification", "mse", "mae", or "auc" for two classes (from 10 rows a
        fold on); see `regjax.measures`.
      solver: as of `fit_path`.
      chains: as of `fit_path`, per fold and seed.
      direction: as of `fit_path`.
      seeds: starting points; the curve is that of the mean over seeds.
      sample_weight: [n]; weighs training and held-out rows. None for 1.
      offset: [n] or [n, k].
      standardize: each fold by the mean and deviation of its own training rows; see
        `fit_path`.
      init: as of `fit_path`.
      key: a jax.random key, of folds, starts and batches.
      progress: as of `fit_path`.

    Returns:
      A CV.

    Raises:
      ValueError: input that cannot be used; no usable lam.
    """
    _refuse_a_leak(init)
    task = prepare(
        problem,
        X,
        y,
        lams,
        solver=solver,
        chains=chains,
        direction=direction,
        seeds=seeds,
        sample_weight=sample_weight,
        offset=offset,
        standardize=standardize,
        init=init,
        key=key,
        progress=progress,
    )
    target = np.asarray(task.ground.data.y, float)
    loss, weights = task.problem.loss, np.asarray(task.ground.lane.weights)
    measures.check_measure(measure, loss, target)
    number = _fold_numbers(task, folds, target, weights)
    measures.check_rows(measure, np.bincount(number))
    rows = held_out.as_given(task, X, offset, weights)
    path, eta, usable = _solve(task, rows, number, weights, standardize)
    values, of_fold, mean, se = _curve(measure, loss, eta, target, weights, number)
    best, within = folding.choose(-mean if measure == "auc" else mean, se, usable)
    chosen = {"min": float(path.lams[best]), "1se": float(path.lams[within])}
    return CV(
        lams=path.lams,
        mean=mean,
        se=se,
        values=values,
        weights=of_fold,
        n_nonzero=path.n_nonzero.reshape(len(path), -1).mean(1),
        index_min=best,
        index_1se=within,
        measure=measure,
        folds=number,
        out_of_fold=held_out.uncentred(task, eta),
        path=path.replace(chosen=chosen),
    )


def _curve(
    measure: str,
    loss: Loss,
    eta: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    number: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Values of folds, their weights, mean and standard error, as of `held_out.values`.

    The error is that over rows where folds have next to none.
    """
    rows = measure, loss, eta, y, weights
    values, of_fold = held_out.values(*rows, number)
    mean, se = folding.curve(values.mean(-1), of_fold)
    if measure != "auc" and len(number) < ROWS_A_FOLD * len(values):
        se = held_out.error_over_rows(*rows)
    return values, of_fold, mean, se


def _refuse_a_leak(init: Any) -> None:
    if isinstance(init, str):
        raise ValueError(
            "init: a model trained on all rows would tell every fold of the rows it "
            "holds out; give params"
        )


def _fold_numbers(
    task: Task, folds: Any, target: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    stream = jax.random.fold_in(task.key, np.uint32(2**32 - 2))
    seed = int(jax.random.randint(stream, (), 0, 2**31 - 1))
    return folding.assign(folds, task.problem.loss, target, weights, seed)


def _solve(
    task: Task, rows: Data, number: np.ndarray, weights: np.ndarray, standardize: bool
) -> tuple[Path, np.ndarray, np.ndarray]:
    """The path of all rows, eta out of fold, and which lams are usable, [L] bool."""
    grid = sweep.grid_of(task)
    held = [number == k for k in range(number.max() + 1)]
    each = np.stack([weights, *(np.where(rows, 0, weights) for rows in held)])
    scaling = _scaling(task, each) if standardize else None
    params, info, finished = sweep.solve(task, grid, sweep.Folds(each, scaling))
    whole = jax.tree.map(lambda a: a[:, 0], (params, info))
    path = assembly.assemble(task, grid[finished], *whole)
    diverged = np.asarray(info.status) == Status.diverged
    usable = ~diverged.reshape(len(path), -1).any(axis=1)
    eta = held_out.out_of_fold(task.problem.model, rows, params, number, scaling)
    return path, eta, np.asarray(usable)


def _scaling(task: Task, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations of the training rows of every fold, [F, ...] each.

    Of the columns as `ground` has them, which fold 0, all rows, leaves as they are.
    """
    model, X = task.problem.model, np.asarray(task.ground.data.X)
    whole = np.zeros(X.shape[1:]), np.ones(X.shape[1:])
    found = [whole, *(standardisation(model, X, fold) for fold in weights[1:])]
    center, scale = (
        np.stack(part).astype(X.dtype) for part in zip(*found, strict=True)
    )
    return center, scale
