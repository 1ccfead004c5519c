"""Full-batch accelerated proximal gradient: which of its two forms a problem gets."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

from regjax.names import positive, whole_number
from regjax.solvers import certified, monotone
from regjax.types import Array, Data, Method, Problem, Solver


def proximal_gradient(tol: float | None = None, max_iter: int = 100_000) -> Method:
    r"""FISTA: learned steps and a duality gap where convex, else monotone.

    For an affine model with a convex loss and penalty (`regjax.solvers.certified`) a
    lane is converged when its duality gap, an upper bound on how far the objective is
    from its minimum, is at most `tol` times the loss of the null model; `floor` when
    it is as near as the dtype allows. For all else, networks too
    (`regjax.solvers.monotone`), and at lam 0, where no dual point may bound it, when
    the KKT residual is at most `tol` times `max |g|` at the model's own start.

    Args:
      tol: see above; None: 1e-5, or 1e-12 in float64.
      max_iter: steps, a product with X and one with X' each.

    Returns:
      A solver for `fit_path`.

    Raises:
      ValueError: tol or max_iter not positive; when fitted, a tol below what the
        dtype can tell from 0 (1e-7, or 1e-15 in float64).

    Source: Beck & Teboulle (2009), SIAM J. Imaging Sci. 2; restart of
    O'Donoghue & Candes (2015), Found. Comput. Math. 15.
    """
    max_iter = whole_number("max_iter", max_iter)
    tol = None if tol is None else positive("tol", tol)
    # Few slots, of many steps each: with more, more of them wait for the last chain.
    # 0, not None, for the default: all tolerances share one program.
    return Method(Partial(build, tol or 0.0, max_iter), tol=tol, reduces=True, slots=4)


def build(tol: Array | float, most: int, problem: Problem, data: Data) -> Solver:
    """The Solver of one problem and one data set; tol 0 is the dtype's default."""
    form = monotone if data.aid is None else certified
    tol = jnp.where(tol > 0, tol, tolerance(None, data.X.dtype))
    return form.build(tol, most, problem, data)


def tolerance(tol: float | None, dtype: Any) -> float:
    """As given, or the default of a dtype."""
    default = 1e-5 if dtype == jnp.float32 else 1e-12
    return default if tol is None else tol
