"""`Path`: what a sweep found, as a table, as predictions, as a file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regjax import inputs, prediction, storage, usage
from regjax.models import is_linear
from regjax.names import one_of, same_columns, whole_number
from regjax.table import format_table
from regjax.types import Params, Problem, Status

PER_LANE = (
    "loss",
    "penalty",
    "objective",
    "n_nonzero",
    "dev_ratio",
    "kkt",
    "gap",
    "n_iter",
    "step",
    "status",
)
TYPES = ("link", "response", "class")


class Fit(NamedTuple):
    """One lam of a Path (see there for shapes, less the leading [L])."""

    lam: float
    params: Params
    loss: Any
    penalty: Any
    objective: Any
    n_nonzero: Any
    dev_ratio: Any
    kkt: Any
    gap: Any
    n_iter: Any
    step: Any
    status: Any
    path: Path

    def __repr__(self) -> str:
        """The one row of the table."""
        return self.path.table()

    def predict(self, X: Any, type: str = "response", offset: Any = None) -> np.ndarray:
        """See `Path.predict`: [n, k]; [n] for classes."""
        return self.path.predict(X, type=type, offset=offset)[0]

    def score(self, X: Any, y: Any, offset: Any = None) -> np.ndarray:
        """See `Path.score`: []."""
        return self.path.score(X, y, offset=offset)[0]


@dataclasses.dataclass(frozen=True)
class Path:
    """A regularization path: L lams, largest first.

    Every array of a lane has shape [L], or [L, seeds] where seeds > 1.

    Attributes:
      lams: [L] descending.
      params: pytree, [L, ...] or [L, seeds, ...].
      loss: weighted mean loss.
      penalty: lam * Omega.
      objective: loss + penalty + ridge/2 |weights|^2.
      n_nonzero: penalised weights that are not 0.
      dev_ratio: share of the null deviance that is explained.
      kkt: KKT residual in units of lam, see `types.Info`.
      gap: upper bound on `objective - minimum`; inf where there is none (a network).
      n_iter: epochs and full-batch steps; of the last working set, where there are any.
      step: step size at which kkt was taken.
      status: int32, members of `Status`.
      null_loss: mean loss of the model without inputs.
      saturated_loss: least mean loss of any model.
      seeds: starting points per lam.
      problem: the equation; None if it was loaded and is not the library's own.
      center: [p] subtracted from inputs first, or None.
      scale: [p] inputs are divided by it, or None.
      has_offset: whether it was fitted with an offset.
      input_shape: of one row of X; None: not known, from a file of regjax 0.1.
      feature_names: of the p inputs, or None.
      class_names: of the classes, or None.
      scores: name -> like loss, columns to show beside (accuracy, R2).
      chosen: lams by name, which `predict` and `coef` know: "min" and "1se" after
        cross-validation.
      settings: whatever the caller wants to travel along; JSON.
    """

    lams: np.ndarray
    params: Params
    loss: np.ndarray
    penalty: np.ndarray
    objective: np.ndarray
    n_nonzero: np.ndarray
    dev_ratio: np.ndarray
    kkt: np.ndarray
    gap: np.ndarray
    n_iter: np.ndarray
    step: np.ndarray
    status: np.ndarray
    null_loss: float
    saturated_loss: float
    seeds: int = 1
    problem: Problem | None = None
    center: np.ndarray | None = None
    scale: np.ndarray | None = None
    has_offset: bool = False
    input_shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    scores: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    chosen: dict[str, float] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Number of lams."""
        return len(self.lams)

    def __getitem__(self, index: Any) -> Any:
        """The Fit of one lam, by its place in `lams`; a slice gives a Path."""
        if isinstance(index, slice):
            return self.take(index)
        index = range(len(self))[index]
        one = self.take(slice(index, index + 1))
        values = {name: getattr(self, name)[index] for name in PER_LANE}
        params = jax.tree.map(lambda a: a[index], self.params)
        return Fit(float(self.lams[index]), params, **values, path=one)

    def take(self, which: Any) -> Path:
        """A path of some of the lams, by a slice or an index array.

        It knows `lam="min"` and `"1se"` if these are among them.

        Raises:
          ValueError: no lam is left, or they do not descend.
        """
        lams = prediction.check_taken(self.lams[which])
        chosen = {name: lam for name, lam in self.chosen.items() if lam in lams}
        return self._mapped(lambda a: a[which], lams=lams, chosen=chosen)

    def _mapped(self, fn: Callable, **changes: Any) -> Path:
        """A path with `fn` of every array of its lanes."""
        return dataclasses.replace(
            self,
            **{name: fn(getattr(self, name)) for name in PER_LANE},
            params=jax.tree.map(fn, self.params),
            scores={name: fn(values) for name, values in self.scores.items()},
            **changes,
        )

    def replace(self, **changes: Any) -> Path:
        """A path with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def seed(self, number: int) -> Path:
        """The path of one of the starting points, without the axis of seeds."""
        if whole_number("seed", number, least=0) >= self.seeds:
            raise ValueError(f"seed: the path has {self.seeds}, got {number}")
        if self.seeds == 1:
            return self
        return self._mapped(lambda a: a[:, number], seeds=1)

    @functools.cached_property
    def selected(self) -> np.ndarray:
        """Which inputs are used, bool [L, p] or [L, seeds, p]; see `usage.selected`."""
        lead = self.loss.ndim
        return usage.selected(self._problem(), self.params, self.input_shape, lead)

    @property
    def importance(self) -> np.ndarray:
        """The largest lam at which an input is used, 0 for none: [p] or [seeds, p].

        From dense to sparse: where it leaves for good. Diverged lanes are left out.
        """
        return usage.importance(self.lams, self.selected, self.status)

    def at(self, *, n_features: int) -> Fit:
        """The Fit with the most inputs among those that use at most `n_features`.

        Of several it is the one of the smallest lam. Diverged lanes are left out.

        Raises:
          ValueError: n_features is no integer in [0, p]; no lam uses so few inputs;
            several seeds.
        """
        if self.seeds > 1:
            raise ValueError(
                f"n_features: each of the {self.seeds} seeds has inputs of its own; "
                "use path.seed(0).at(...)"
            )
        return self[usage.at_most(n_features, self.selected, self.status)]

    def predict(
        self, X: Any, lam: Any = None, type: str = "response", offset: Any = None
    ) -> np.ndarray:
        """Predictions at every lam, or at one.

        Args:
          X: [n, ...] raw inputs; a standardised path standardises them itself.
          lam: None for all; a number: affine models interpolate their params
            linearly in lam, networks take the nearest (in log lam), and a lam
            outside the path takes its end; or "min" or "1se" after cross-validation.
          type: "link" (eta), "response" (the expected y) or "class".
          offset: [n] or [n, k] of these rows; needed if the path was fitted with one.

        Returns:
          [L, n, k] (seeds > 1: [L, seeds, n, k]), without L for one lam; for
          "class" without k: class numbers, or class names where they are known.

        Raises:
          ValueError: an unknown type, X of the wrong shape or not finite, a data frame
            whose columns are not those of the fit, or a path without its problem.
        """
        if type not in TYPES:
            raise ValueError(f"type: must be one of {', '.join(TYPES)}, got {type!r}")
        problem = self._problem()
        X = self._inputs(X)
        if lam is None:
            params = self.params
        else:
            params = jax.tree.map(lambda a: a[None], self.params_at(lam))
        eta = prediction.eta(problem, params, X, self.seeds)
        eta = self._with_offset(eta, offset)
        out = prediction.typed(problem.loss, eta, type, self.class_names)
        return out if lam is None else out[0]

    def params_at(self, lam: Any) -> Params:
        """Params at one lam, as `predict` takes them."""
        if isinstance(lam, str):
            if not self.chosen:
                raise ValueError(f"lam: {lam!r} is known after cross-validation only")
            lam = self.chosen[one_of("lam", lam, self.chosen)]
        affine = self._problem().model.affine
        return prediction.params_at(self.lams, self.params, lam, affine)

    def coef(self, lam: Any = None) -> dict[str, np.ndarray]:
        """Coefficients of a linear model in raw units of X.

        Args:
          lam: as in `predict`.

        Returns:
          `{"w": [L, p, k], "b": [L, k]}`, without L for one lam; with seeds > 1
          they stand after L.

        Raises:
          ValueError: the path is not of `models.linear`.
        """
        problem = self._problem()
        if not is_linear(problem.model):
            raise ValueError("coef: only for models.linear; use params, or predict")
        layer = (self.params if lam is None else self.params_at(lam))[0]
        return prediction.coef(layer, self.center, self.scale)

    def score(self, X: Any, y: Any, offset: Any = None) -> np.ndarray:
        """Accuracy where y holds classes, R2 otherwise, at every lam.

        Args:
          X: [n, ...] raw inputs.
          y: [n] or [n, k], as `fit_path` takes it.
          offset: as in `predict`.

        Returns:
          [L] or [L, seeds]; nan for the R2 of a constant y.

        Raises:
          ValueError: as `predict`; y that does not fit X or the loss.
        """
        loss = self._problem().loss
        mean = self.predict(X, offset=offset)
        truth = inputs.check_target(loss, np.asarray(X), y, mean.shape[-1])
        return prediction.score(loss, mean, truth)

    def _with_offset(self, eta: Any, offset: Any) -> Any:
        if offset is None:
            if self.has_offset:
                raise ValueError(
                    "offset: the path was fitted with one; give these rows'"
                )
            return eta
        offset = inputs.check_offset(offset, eta.shape[-2:])
        return np.asarray(eta) + inputs.cast("offset", offset, eta.dtype)

    def table(self) -> str:
        """glmnet's table (Df, %Dev, Lambda), scores, KKT residual and status."""
        return format_table(self)

    __str__ = table

    def __repr__(self) -> str:
        """One line."""
        ends = f"{self.lams[0]:.3g} ... {self.lams[-1]:.3g}"
        return f"Path({len(self)} lams {ends}, {self.seeds} seeds)"

    def plot(self, file: Any = None) -> Any:
        """Draw the path; see `regjax.plotting.plot`."""
        from regjax.plotting import plot

        return plot(self, file)

    def save(self, file: Any) -> None:
        """Write an npz file, whole or not at all; see `regjax.storage`."""
        storage.save(file, *contents(self))

    def to_xarray(self) -> Any:
        """Everything but params as an `xarray.Dataset` over lam (and seed)."""
        import xarray  # pyright: ignore[reportMissingImports]

        dims = ("lam", "seed")[: self.loss.ndim]
        columns = {**{name: getattr(self, name) for name in PER_LANE}, **self.scores}
        return xarray.Dataset(
            {name: (dims, values) for name, values in columns.items()},
            coords={"lam": self.lams},
        )

    def _problem(self) -> Problem:
        if self.problem is None:
            raise ValueError(
                "problem: this path was loaded without its problem, which is not made "
                "of the library's own parts; use load(file, problem=...)"
            )
        return self.problem

    def _inputs(self, X: Any) -> jax.Array:
        same_columns(X, self.feature_names)
        X, dtype = inputs.check_inputs(X), self.lams.dtype
        if self.scale is not None and X.shape[1:] == self.scale.shape:
            X = (X - self.center) / self.scale
        config = self._problem().model.config
        if config is not None and X.shape[1] != config[1]["sizes"][0]:
            takes = config[1]["sizes"][0]
            raise ValueError(f"X: has {X.shape[1]} columns, the model takes {takes}")
        return jnp.asarray(inputs.cast("X", X, dtype))


def contents(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays, as `storage.save` takes them and `load` reads them."""
    header = {
        "dims": {"lams": len(path), "seeds": path.seeds},
        "null_loss": path.null_loss,
        "saturated_loss": path.saturated_loss,
        "problem": storage.describe_problem(path.problem),
        "params": storage.describe_tree(path.params),
        "has_offset": path.has_offset,
        "input_shape": path.input_shape,
        "feature_names": path.feature_names,
        "class_names": path.class_names,
        "scores": list(path.scores),
        "chosen": path.chosen,
        "settings": path.settings,
    }
    found = {n: getattr(path, n) for n in ("lams", *PER_LANE, "center", "scale")}
    arrays = {name: array for name, array in found.items() if array is not None}
    scores = {f"scores/{name}": values for name, values in path.scores.items()}
    return header, {**arrays, **scores, **storage.leaves_by_path(path.params)}


def load(file: Any, problem: Problem | None = None) -> Path:
    """Read a path that `Path.save` or `CV.save` wrote, without running code from it.

    Args:
      file: path of the npz file.
      problem: what the path solved; needed to predict with parts that are not the
        library's own, and to give `params` their own pytree type back.

    Returns:
      The Path.

    Raises:
      ValueError: not there, not such a file, truncated or changed.
    """
    return path_of(file, *storage.load(file), problem)


def path_of(file: Any, header: dict, arrays: dict, problem: Problem | None) -> Path:
    """Undo `contents`; arguments and errors as of `load`."""
    with storage.malformed(file):
        arrays.setdefault("gap", np.full(arrays["loss"].shape, np.inf))  # regjax 0.1
        if problem is None:
            problem = storage.build_problem(header["problem"])
            params = storage.build_tree(header["params"], arrays)
        else:
            params = storage.leaves_like(problem.model.init, arrays)
        fields: dict[str, Any] = {name: arrays[name] for name in ("lams", *PER_LANE)}
        fields |= {name: arrays.get(name) for name in ("center", "scale")}
        for name in ("feature_names", "class_names", "input_shape"):
            known = header.get(name)
            fields[name] = None if known is None else tuple(known)
        path = Path(
            params=params,
            null_loss=float(header["null_loss"]),
            saturated_loss=float(header["saturated_loss"]),
            seeds=int(header["dims"]["seeds"]),
            has_offset=bool(header["has_offset"]),
            problem=problem,
            scores={name: arrays[f"scores/{name}"] for name in header["scores"]},
            chosen=dict(header.get("chosen", {})),
            settings=dict(header["settings"]),
            **fields,
        )
        shape = (len(path),) if path.seeds == 1 else (len(path), path.seeds)
        for name in PER_LANE:
            array = getattr(path, name)
            if array.shape != shape or array.dtype.kind not in "if":
                raise ValueError(f"{name} is {array.dtype} {array.shape}")
        if path.lams.ndim != 1 or not set(path.status.ravel()) <= set(Status):
            raise ValueError("lams or status cannot be right")
        for key, leaf in storage.leaves_by_path(params).items():
            if leaf.shape[: len(shape)] != shape:
                raise ValueError(f"{key} has shape {leaf.shape}")
    return path


__all__ = ["Fit", "Path", "Status", "load"]
