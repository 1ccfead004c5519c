"""What enters at the public calls is checked here, before anything compiles."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from regjax import losses, model_checks, notices, trees
from regjax.names import instance_of, same_columns, whole_number
from regjax.types import Data, Loss, Method, Model, Params, Penalty, Problem


def check_problem(problem: Any) -> Problem:
    """A Problem of the right parts with a usable ridge.

    Raises:
      ValueError: a part of the wrong kind, a negative or non-finite ridge.
    """
    instance_of("problem", problem, Problem)
    for name, kind in [("model", Model), ("loss", Loss), ("penalty", Penalty)]:
        instance_of(name, getattr(problem, name), kind)
    ridge = _number("ridge", problem.ridge)
    return problem._replace(ridge=ridge)


def check_lam(lam: Any) -> float:
    """One lam: a finite number >= 0.

    Raises:
      ValueError: anything else.
    """
    return _number("lam", lam)


def check_lams(lams: Any, dtype: Any) -> int | np.ndarray:
    """How many lams, or which: [L], sorted descending, none dropped.

    Raises:
      ValueError: a count below 1; no lam; one that is negative or not finite in dtype.
    """
    if isinstance(lams, int | np.integer) and not isinstance(lams, bool):
        if lams < 1:
            raise ValueError(f"lams: need at least 1, got {lams}")
        return int(lams)
    array = _array("lams", lams, "a number of lams or a 1-D array of them")
    if array.size == 0:
        raise ValueError("lams: is empty, need at least 1")
    if array.ndim != 1:
        raise ValueError(
            f"lams: must be a number of lams or a 1-D array of them, "
            f"got shape {list(array.shape)}"
        )
    _finite("lams", array)
    if array.min() < 0:
        raise ValueError(f"lams: must be >= 0, got {array.min():g}")
    cast("lams", array, dtype)
    return np.sort(array.astype(float))[::-1]


def check_data(
    problem: Problem, X: Any, y: Any, sample_weight: Any, offset: Any
) -> tuple[Data, np.ndarray]:
    """Rows and weights as float arrays of one dtype.

    Args:
      problem: whose loss encodes y and whose model tells the number of outputs.
      X: [n, ...] numbers, finite.
      y: [n] or [n, k], as the loss takes it.
      sample_weight: [n], >= 0, not all 0; None for 1.
      offset: [n] or [n, k]; None for none.

    Returns:
      `(data, weights [n])`.

    Raises:
      ValueError: the first thing that is wrong, by argument.
    """
    X = check_inputs(X)
    weights = _weights(sample_weight, X)
    k = model_checks.outputs(problem.model, X)
    target = check_target(problem.loss, X, y, k)
    model_checks.check_loss(problem.loss, target, k)
    if problem.loss.classes:
        _two_classes(target[weights > 0])
    if offset is not None:
        offset = check_offset(offset, (len(X), k))
    dtype = _dtype({"X": X, "y": y, "sample_weight": sample_weight, "offset": offset})
    rows: Any = slice(None)  # which copies nothing
    if weights.min() == 0:  # the heaviest row stands in, as these may hold anything
        rows = np.where(weights > 0, np.arange(len(X)), np.argmax(weights))
    X, target = cast("X", X[rows], dtype), cast("y", target[rows], dtype)
    offset = None if offset is None else cast("offset", offset[rows], dtype)
    return Data(X, target, offset), weights.astype(dtype)


def check_validation(
    problem: Problem, validation: Any, data: Data, center: Any, scale: Any, names: Any
) -> Data:
    """Rows held out, `(X, y)` or `(X, y, offset)`, as the training rows are.

    Args:
      problem: whose loss encodes y.
      validation: what the caller gave.
      data: checked training rows.
      center: [p] that was taken off their columns; None: nothing.
      scale: [p] that they were divided by.
      names: of their columns, if they came in a data frame.

    Raises:
      ValueError: the first thing that is wrong.
    """
    if not isinstance(validation, tuple | list) or len(validation) not in (2, 3):
        raise ValueError("validation: must be (X, y), or (X, y, offset)")
    X, y, offset = (*validation, None)[:3]
    if (offset is None) != (data.offset is None):
        raise ValueError("validation: needs an offset if and only if X has one")
    try:
        same_columns(X, names)
        X = check_inputs(X)
        if X.shape[1:] != data.X.shape[1:]:
            raise ValueError(
                f"X: rows have shape {list(X.shape[1:])}, not {list(data.X.shape[1:])}"
            )
        target = check_target(problem.loss, X, y, data.y.shape[1])
        if offset is not None:
            offset = check_offset(offset, target.shape)
            offset = cast("offset", offset, data.X.dtype)
        X = X if center is None else (X - center) / scale
        X = cast("X", X, data.X.dtype)
        return Data(X, cast("y", target, data.X.dtype), offset)
    except ValueError as error:
        raise ValueError(f"validation: {error}") from None


def cast(name: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    """The array in another float dtype.

    Raises:
      ValueError: a number is beyond its range.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        found = array.astype(dtype)
    if not np.all(np.isfinite(found)):
        raise ValueError(
            f"{name}: numbers up to {np.abs(array).max():.3g} are beyond the range of "
            f"{np.dtype(dtype).name}; rescale, or turn 64 bits on in jax"
        )
    return found


def check_inputs(X: Any) -> np.ndarray:
    """X [n, ...], numeric, finite, not empty.

    Raises:
      ValueError: anything else.
    """
    X = _array("X", X, "a numeric array")
    if X.ndim < 2:
        raise ValueError(f"X: must be [n, p], got shape {list(X.shape)}")
    if X.size == 0:
        raise ValueError(f"X: is empty, shape {list(X.shape)}")
    _finite("X", X)
    return X


def check_target(loss: Loss, X: np.ndarray, y: Any, k: int) -> np.ndarray:
    """Y as the loss encodes it for k outputs.

    Raises:
      ValueError: not numeric or finite, another number of rows than X, or what the
        loss refuses.
    """
    y = _array("y", y, "numeric (integer labels for classes)")
    _rows("y", y, X)
    _finite("y", y)
    return np.asarray((loss.encode or _as_columns)(y, k))


def check_init(init: Params, like: Params) -> Params:
    """Given starting params, with the structure and shapes of the model's own.

    Raises:
      ValueError: they differ, or hold a number that is not finite.
    """
    if jax.tree.structure(init) != jax.tree.structure(like):
        raise ValueError(
            f"init: has leaves {', '.join(trees.key_paths(init))}; the model has "
            f"{', '.join(trees.key_paths(like))}"
        )
    for path, a, b in zip(
        trees.key_paths(like), jax.tree.leaves(init), jax.tree.leaves(like), strict=True
    ):
        if np.shape(a) != np.shape(b):
            raise ValueError(
                f"init: {path} has shape {list(np.shape(a))}, "
                f"the model has {list(np.shape(b))}"
            )
        _finite(f"init: {path}", np.asarray(a))
    return jax.tree.map(lambda a, b: cast("init", np.asarray(a), b.dtype), init, like)


def check_key(key: Any) -> Any:
    """A jax random key; None is `jax.random.key(0)`.

    Raises:
      ValueError: anything else (a bare seed too).
    """
    if key is None:
        kind = jax.config.jax_default_prng_impl  # pyright: ignore
        return trees.jitted(_first_key, kind)
    try:
        jax.random.fold_in(key, 0)
    except (TypeError, ValueError):
        raise ValueError(
            f"key: must be a jax random key such as jax.random.key(0), got {key!r}"
        ) from None
    return key


def _first_key(kind: str) -> Any:
    return jax.random.key(0, impl=kind)


LEAST_TOL = {"float32": 1e-7, "float64": 1e-15}


def check_solver(solver: Any, dtype: Any) -> Method:
    """A solver from `regjax.solvers` with a tolerance within reach of the dtype.

    Raises:
      ValueError: anything else.
    """
    if not isinstance(solver, Method):
        raise ValueError(
            "solver: must come from regjax.solvers, such as rj.solvers.minibatch(...), "
            f"got {_kind(solver)}"
        )
    name = np.dtype(dtype).name
    least = LEAST_TOL.get(name, 0.0)
    if solver.tol is not None and solver.tol < least:
        raise ValueError(
            f"tol: {solver.tol:g} is below what {name} can tell from 0 ({least:g})"
            + ("; turn 64 bits on in jax" if name == "float32" else "")
        )
    return solver


def check_chains(chains: Any, lams: int) -> int:
    """How many chains, 1 ... lams.

    Raises:
      ValueError: no whole number of at least 1.
    """
    return min(whole_number("chains", chains), lams)


def _array(name: str, value: Any, wanted: str) -> np.ndarray:
    if hasattr(value, "toarray"):
        raise ValueError(f"{name}: sparse matrices are not supported; use .toarray()")
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: {np.ma.count_masked(value)} numbers are masked")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: must be {wanted}: {error}") from None
    if array.dtype == object:
        try:
            array = array.astype(float)
        except (ValueError, TypeError):
            pass
    if array.dtype.kind not in "biuf" and str(array.dtype) != "bfloat16":
        raise ValueError(f"{name}: must be {wanted}, got dtype {array.dtype}")
    return array


def _number(name: str, value: Any) -> float:
    array = _array(name, value, "a number >= 0")
    if array.ndim != 0 or not np.isfinite(array) or array < 0:
        raise ValueError(f"{name}: must be a finite number >= 0, got {value}")
    return float(cast(name, array, _widest()))


def _widest() -> Any:
    return jax.dtypes.canonicalize_dtype(np.float64)


def _finite(name: str, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    first = [int(i) for i in np.argwhere(~finite)[0]]
    raise ValueError(
        f"{name}: {np.sum(~finite)} of {array.size} numbers are NaN or inf, "
        f"first at {first}"
    )


def _rows(name: str, array: np.ndarray, X: np.ndarray) -> None:
    if array.ndim == 0 or array.shape[0] != X.shape[0]:
        raise ValueError(
            f"{name}: has shape {list(array.shape)}, but X has {X.shape[0]} rows"
        )


def _weights(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    if sample_weight is None:
        return np.ones(X.shape[0], np.float32)
    weights = _array("sample_weight", sample_weight, "a numeric [n] array")
    _rows("sample_weight", weights, X)
    if weights.ndim != 1:
        raise ValueError(f"sample_weight: must be [n], got {list(weights.shape)}")
    _finite("sample_weight", weights)
    if weights.min() < 0:
        raise ValueError(f"sample_weight: must be >= 0, got {weights.min():g}")
    if weights.max() == 0:
        raise ValueError("sample_weight: all weights are 0")
    return weights.astype(float) / float(weights.max())  # no sum over- or underflows


def check_offset(offset: Any, shape: tuple[int, int]) -> np.ndarray:
    """Offset as [n, k] or [n, 1], for eta of `shape` [n, k].

    Raises:
      ValueError: of another shape, or not finite.
    """
    offset = _array("offset", offset, "a numeric [n] or [n, k] array")
    offset = offset[:, None] if offset.ndim == 1 else offset
    n, k = shape
    if offset.shape not in ((n, 1), (n, k)):
        raise ValueError(f"offset: must be [{n}] or [{n}, {k}], got {offset.shape}")
    _finite("offset", offset)
    return offset


def _dtype(arrays: dict[str, Any]) -> Any:
    """Float64 where jax can and X is no narrower float; one warning if it cannot."""
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        narrow = arrays["X"].dtype.name in ("float32", "float16", "bfloat16")
        return np.float32 if narrow else np.float64
    wide = [
        name
        for name, array in arrays.items()
        if getattr(array, "dtype", None) == np.float64
    ]
    if wide:
        notices.warn(
            f"{' and '.join(wide)}: float64 is rounded to float32, because jax has "
            "64 bits off; jax.config.update('jax_enable_x64', True) turns them on"
        )
    return np.float32


def check_intercepts(loss: Loss, y: np.ndarray) -> None:
    """Refuse class targets [n, k] for which a free intercept has no minimum.

    Raises:
      ValueError: no row is of some class, or all are of one in some output.
    """
    alone = _of_one_class(y)
    if not (loss.classes and np.any(alone)):
        return
    i = int(np.argmax(alone))
    if losses.binary_outputs(loss, len(alone)):
        raise ValueError(f"y: output {i} holds one class only")
    raise ValueError(f"y: no row is of class {i}")


def _two_classes(y: np.ndarray) -> None:
    """Refuse class targets [n, k] that are all of one class."""
    if np.all(_of_one_class(y)):
        raise ValueError("y: holds one class only")


def _of_one_class(y: np.ndarray) -> np.ndarray:
    """Which outputs of class targets [n, k] are 0 in all rows or 1 in all, [k]."""
    return np.all(y == y[0], axis=0) & ((y[0] == 0) | (y[0] == 1))


def _as_columns(y: np.ndarray, k: int) -> np.ndarray:
    return y[:, None] if y.ndim == 1 else y


def _kind(value: Any) -> str:
    return type(value).__name__
