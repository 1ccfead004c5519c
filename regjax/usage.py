"""Which inputs a network uses, lam by lam: those whose weights are not all zero."""

from __future__ import annotations

import math

import jax
import numpy as np

from regjax import model_checks, objective, trees
from regjax.names import whole_number
from regjax.types import Params, Problem, Status

ROWS = 16  # of a trial
FIRST_LAYER = ("0/w", "0/skip")  # of an mlp


def selected(
    problem: Problem, params: Params, input_shape: tuple[int, ...] | None, lead: int
) -> np.ndarray:
    """Which inputs are used, lane by lane.

    An input is used if its row, its place on the first axis, is not 0 in one of the
    leaves that read the inputs. Those are `0/w` and `0/skip` of an `mlp`. Of any other
    model they are found by a trial: the fewest leaves, penalised ones first, whose zero
    rows cut those inputs off from eta. So a deeper leaf that has p rows too does not
    count.

    Args:
      problem: the equation.
      params: pytree, [L, ...] or [L, seeds, ...].
      input_shape: of one row of X; p is the product. None: not known.
      lead: how many axes come before those of one model's params.

    Returns:
      bool [L, p] or [L, seeds, p].

    Raises:
      ValueError: the model is not the library's own, and zero rows do not cut inputs
        off (a convolution), or input_shape is not known.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    config = problem.model.config
    if config is not None:
        p = config[1]["sizes"][0]
        paths = trees.key_paths(params)
        readers = [i for i, path in enumerate(paths) if path in FIRST_LAYER]
    elif input_shape is None:
        raise ValueError(
            "selected: the file does not say how many inputs there are; use "
            "path.replace(input_shape=X.shape[1:])"
        )
    else:
        p = math.prod(input_shape)
        readers = _readers(problem, input_shape)
    used = np.zeros((*leaves[0].shape[:lead], p), bool)
    for i in readers:
        used |= np.any(leaves[i] != 0, axis=tuple(range(lead + 1, leaves[i].ndim)))
    return used


def _readers(problem: Problem, input_shape: tuple[int, ...]) -> list[int]:
    """Places of the leaves that read the inputs, by a trial of the model."""
    p = math.prod(input_shape)
    # Moved, since zeros at the start hide what they are multiplied with.
    params = model_checks.moved(problem.model.init(jax.random.key(0)))
    leaves = jax.tree.leaves(params)
    found = [i for i, leaf in enumerate(leaves) if np.shape(leaf)[:1] == (p,)]
    penalised = jax.tree.leaves(objective.penalised(problem, params))
    found.sort(key=lambda i: penalised[i])
    if not _cut_off(problem, params, found, input_shape):
        raise ValueError(
            f"selected: the model does not read its {p} inputs by leaves that have "
            "them on their first axis (filters do not, nor weights [out, in])"
        )
    for i in tuple(found):
        rest = [j for j in found if j != i]
        if _cut_off(problem, params, rest, input_shape):
            found = rest
    return found


def _cut_off(
    problem: Problem, params: Params, places: list[int], input_shape: tuple[int, ...]
) -> bool:
    """Whether inputs do nothing where their rows are 0 in the leaves at `places`."""
    rng = np.random.default_rng(0)
    p = math.prod(input_shape)
    first, second = rng.standard_normal((2, ROWS, p), np.float32)
    some = rng.permutation(p) < max(p // 2, 1)
    leaves, treedef = jax.tree.flatten(params)
    for off in (some, ~some):
        cut = [
            np.where(off.reshape(p, *[1] * (leaf.ndim - 1)), 0, leaf)
            if i in places
            else leaf
            for i, leaf in enumerate(leaves)
        ]
        before, after = (
            model_checks.eta_at(
                problem.model, treedef.unflatten(cut), X.reshape(ROWS, *input_shape)
            )
            for X in (first, np.where(off, second, first))
        )
        if not np.array_equal(before, after):
            return False
    return True


def importance(lams: np.ndarray, used: np.ndarray, status: np.ndarray) -> np.ndarray:
    """The largest lam at which each input is used; 0 where it never is.

    Args:
      lams: [L].
      used: bool [L, ..., p], as of `selected`.
      status: [L, ...]; diverged lanes are left out.

    Returns:
      [..., p].
    """
    used = used & (status != Status.diverged)[..., None]
    lams = lams.reshape(-1, *[1] * (used.ndim - 1))
    return np.max(np.where(used, lams, np.zeros_like(lams)), axis=0)


def at_most(n_features: int, used: np.ndarray, status: np.ndarray) -> int:
    """Place of the lam with the most inputs among those with at most `n_features`.

    Of several it is the last one, the smallest lam. Diverged lanes are left out.

    Args:
      n_features: in [0, p].
      used: bool [L, p], as of `selected`.
      status: [L].

    Returns:
      Place in `lams`.

    Raises:
      ValueError: n_features is no integer in [0, p]; no lam uses so few.
    """
    p = used.shape[-1]
    most = whole_number("n_features", n_features, least=0)
    if most > p:
        raise ValueError(f"n_features: there are {p} inputs, got {most}")
    usable = status != Status.diverged
    counts = np.where(usable, used.sum(axis=-1), p + 1)
    few = counts <= most
    if not few.any():
        least = f"the fewest is {counts.min()}" if usable.any() else "all diverged"
        raise ValueError(
            f"n_features: no lam of the path uses at most {most} inputs; {least}"
        )
    return int(np.flatnonzero(few & (counts == counts[few].max()))[-1])
