"""`fit` and `fit_path`: one lam, or a whole path of them at once; `certify`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from regjax import (
    assembly,
    certificates,
    conditioning,
    grids,
    inputs,
    sweep,
    trees,
    workers,
)
from regjax.ground import find_ground
from regjax.results import Fit, Path
from regjax.task import prepare
from regjax.types import Method, Params, Problem


def fit(
    problem: Problem,
    X: Any,
    y: Any,
    lam: float,
    *,
    solver: Method | None = None,
    sample_weight: Any = None,
    offset: Any = None,
    standardize: bool = False,
    init: Params | None = None,
    key: Any = None,
) -> Fit:
    """Minimise F(params; lam) for one lam: seed 0 of `fit_path` with the same key.

    Args:
      problem: the equation.
      X: [n, p] inputs; more axes if the model takes them.
      y: [n] or [n, k], as the loss takes it.
      lam: [] weight of the penalty, >= 0.
      solver: see `fit_path`.
      sample_weight: see `fit_path`.
      offset: see `fit_path`.
      standardize: see `fit_path`.
      init: see `fit_path`.
      key: see `fit_path`.

    Returns:
      A Fit: params and what `Path` says of one lam.

    Raises:
      ValueError: input that cannot be used; the message names the argument.
    """
    lam = inputs.check_lam(lam)
    path = fit_path(
        problem,
        X,
        y,
        lams=np.array([lam]),
        solver=solver,
        sample_weight=sample_weight,
        offset=offset,
        standardize=standardize,
        init=init,
        key=key,
    )
    return path[0]


@workers.catching_interrupt
def fit_path(
    problem: Problem,
    X: Any,
    y: Any,
    lams: Any = 100,
    *,
    solver: Method | None = None,
    chains: int | None = None,
    direction: str = "sparse_to_dense",
    seeds: int = 1,
    sample_weight: Any = None,
    offset: Any = None,
    standardize: bool = False,
    init: Params | str | None = None,
    validation: Any = None,
    key: Any = None,
    progress: bool | Callable[[float, int, str], None] = False,
) -> Path:
    """Minimise F(params; lam) for many lams at once.

    Args:
      problem: the equation.
      X: [n, p] inputs; more axes if the model takes them. float64 is kept if jax
        has 64 bits on.
      y: [n] or [n, k], as the loss takes it.
      lams: how many, on an automatic grid (see `regjax.grids`): geometric from
        lambda_max; of a network, from the least lam of a coarse sweep that empties it,
        and where its penalty selects groups (inputs, units) spread over how many are
        selected. Or which, [L], all kept, sorted descending.
      solver: from `regjax.solvers`. None picks `proximal_gradient()` for an affine
        model with a convex loss, where it certifies every lam by a duality gap if the
        penalty is convex too; else `minibatch()`, which ends with a polish.
      chains: into how many chains of neighbouring lams the path is cut. Within a
        chain each lam starts from the one before; chains run side by side. 1 is
        glmnet's path. None: chains of 8 where convex (of squared error in no more
        inputs than rows 7, in 64 and fewer 13; longer ones with several seeds or
        folds), one chain where only the penalty is not, else one per lam; and a
        certified linear model is solved by working sets (`regjax.screening`) where X
        is wide, six inputs a row, or large, but for a small one.
      direction: of every chain: "sparse_to_dense", from the largest lam, or
        "dense_to_sparse" (never by working sets). A network's chain that starts
        empty stays empty: no gradient leads out of all zeros.
      seeds: how many starting points per lam. Seed s starts from
        `model.init(fold_in(key, s))` (a convex problem from its null model); all
        lams of a seed share that start and all lanes share their batches. So with
        one lam per chain adding a lam or a seed changes no other, bitwise (but for
        a lane all alone, whose program is narrower, to rounding; and for squared error
        in no more inputs than rows, to the tolerance).
      sample_weight: [n], >= 0; the loss is the weighted mean. None for 1.
      offset: [n] or [n, k], added to the linear predictor and not fitted.
      standardize: fit on columns of weighted mean 0 and standard deviation 1 (1/n);
        without an intercept a linear model's columns keep their means, as in glmnet.
        The path keeps both, so that `predict` takes raw X and `coef` is in raw
        units; `params` are those of the standardised problem, and so are the bounds
        of a penalty.
      init: params to start from instead of the model's own; or "dense": every lam of a
        seed starts from one model that is trained at lam 0 first.
      validation: `(X, y)` or `(X, y, offset)` of rows held out, by which training by
        minibatches stops early, lane by lane (see `solvers.minibatch`). Their score
        becomes a column of the path.
      key: a jax.random key; None for `jax.random.key(0)`.
      progress: show a bar (needs tqdm), or a function `(done, total, label)`.

    Returns:
      A Path. After a Ctrl-C it holds the lams that had finished; if none had,
      KeyboardInterrupt goes on.

    Raises:
      ValueError: input that cannot be used; the message names the argument.
    """
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
        validation=validation,
        few_rows=True,
    )
    task = sweep.warm(task)
    grid = sweep.grid_of(task)
    params, info, finished = sweep.solve(task, grid)
    params, info = jax.tree.map(lambda a: a[:, 0], (params, info))
    path = assembly.assemble(task, grid[finished], params, info)
    if validation is None:
        return path
    X, y, *rest = validation
    return path.replace(scores={"valid": path.score(X, y, *rest)})


def certify(
    problem: Problem,
    X: Any,
    y: Any,
    lam: float,
    params: Params,
    *,
    sample_weight: Any = None,
    offset: Any = None,
) -> float:
    """How far given params are from the minimum, at most: any solver's, any peer's.

    Args:
      problem: with an affine model, a convex loss and penalty.
      X: [n, p], as `fit_path` takes it.
      y: [n] or [n, k], as the loss takes it.
      lam: [] weight of the penalty, >= 0.
      params: of the model, on these X.
      sample_weight: [n]; None for 1.
      offset: [n] or [n, k]; None for none.

    Returns:
      The duality gap, in units of the mean loss: `F(params) - min F` is no larger.

    Raises:
      ValueError: input that cannot be used; a problem that is not convex.
    """
    problem, lam = inputs.check_problem(problem), inputs.check_lam(lam)
    if not (grids.is_convex(problem) and conditioning.is_certifiable(problem)):
        raise ValueError(
            "problem: only an affine model with a convex loss and penalty, whose "
            "conjugates are known, has a duality gap; see Path.kkt for all others"
        )
    data, weights = inputs.check_data(problem, X, y, sample_weight, offset)
    key = inputs.check_key(None)
    ground = find_ground(problem, data, weights, params, key, 1, centred=True)
    given = jax.tree.map(lambda a: a[0], ground.starts)
    shares = (weights / weights.sum()).astype(data.X.dtype)
    args = (problem, ground.data, shares, np.asarray(lam, data.X.dtype), given)
    return float(trees.jitted(certificates.gap_of, *args))
