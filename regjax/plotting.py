"""The picture of a path: scores, weights and KKT residuals over -log lam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from regjax import trees
from regjax.types import Status

if TYPE_CHECKING:
    from regjax.cross_validation import CV
    from regjax.results import Path

MOST_LABELS = 12
STATUS_COLORS = {
    Status.converged: "tab:green",
    Status.max_iter: "tab:orange",
    Status.diverged: "tab:red",
    Status.floor: "tab:olive",
    Status.unbounded: "tab:purple",
    Status.degenerate: "tab:gray",
}


def plot(path: Path, file: Any = None) -> Any:
    """Draw a path: scores, one line per input (or coefficient), gaps or residuals.

    Args:
      path: what to draw. With several seeds: means, and bands from least to most.
      file: where to write it (png, pdf, svg); None: nowhere.

    Returns:
      The matplotlib Figure.

    Raises:
      ValueError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure(13, 4.4)
    axes = figure.subplots(1, 3)
    x = minus_log(path.lams)
    _draw_scores(axes[0], path, x)
    _draw_weights(axes[1], path, x)
    _draw_certificate(axes[2], path, x)
    for axis in axes:
        axis.set_xlabel("-log lam")
        axis.grid(alpha=0.25)
        axis.margins(x=0.02)
        _count_on_top(axis, path, x)
    return _finished(figure, path, file)


def plot_cv(cv: CV, file: Any = None, axis: Any = None) -> Any:
    """Draw the curve of cross-validation as glmnet's users know it.

    Args:
      cv: what to draw: the mean over folds with bars of one standard error, dotted
        lines at lam_min and lam_1se; with several seeds a band from the least to the
        most of them.
      file: where to write it (png, pdf, svg); None: nowhere.
      axis: matplotlib axes of the caller's own; then file is not used.

    Returns:
      The matplotlib Figure.

    Raises:
      ValueError: matplotlib is not installed, or the file cannot be written.
    """
    if axis is not None:
        _draw_curve(axis, cv)
        return axis.figure
    figure = _figure(7, 4.6)
    _draw_curve(figure.subplots(), cv)
    return _finished(figure, cv.path, file)


def _draw_curve(axis: Any, cv: CV) -> None:
    x, color = minus_log(cv.lams), "tab:red"
    style = {"ecolor": "0.65", "elinewidth": 1, "capsize": 2, "ms": 4, "lw": 0}
    axis.errorbar(x, cv.mean, cv.se, fmt="o", color=color, **style)
    if cv.values.shape[-1] > 1:
        seeds = cv.by_seed
        axis.fill_between(
            x, seeds.min(1), seeds.max(1), color=color, alpha=0.15, lw=0, zorder=0
        )
    marks = {cv.index_min: "min"}
    marks[cv.index_1se] = "min, 1se" if cv.index_1se in marks else "1se"
    for at, name in marks.items():
        axis.axvline(x[at], color="0.3", lw=1, ls=":")
        axis.annotate(
            f" {name}", (x[at], 0.97), xycoords=("data", "axes fraction"), fontsize=8
        )
    axis.set_xlabel("-log lam")
    axis.set_ylabel(f"{cv.measure} on held-out rows")
    axis.grid(alpha=0.25)
    axis.margins(x=0.02)
    _count_on_top(axis, cv.path, x)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("plot: needs matplotlib: pip install 'regjax[cli]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finished(figure: Any, path: Path, file: Any) -> Any:
    """With its title, and written."""
    title = path.settings.get("title")
    if title:
        figure.suptitle(title)
    if file is not None:
        try:
            figure.savefig(file, dpi=150)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"file: cannot write {file}: {reason}") from None
    return figure


def minus_log(lams: np.ndarray) -> np.ndarray:
    """-log lam, [L]; lam = 0 stands one unit right of the smallest positive one."""
    lams = np.asarray(lams, float)
    positive = lams[lams > 0]
    if positive.size == 0:
        return np.zeros_like(lams)
    return -np.log(np.where(lams > 0, lams, positive.min() / np.e))


def _per_seed(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).reshape(len(values), -1)


def _band(axis: Any, x: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """Mean over seeds, with a band from the least to the most."""
    values = _per_seed(values)
    (line,) = axis.plot(x, values.mean(1), **style)
    if values.shape[1] > 1:
        low, high = values.min(1), values.max(1)
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)


def _draw_scores(axis: Any, path: Path, x: np.ndarray) -> None:
    scores = path.scores or {"deviance explained": path.dev_ratio}
    for name, values in scores.items():
        _band(axis, x, values, label=name, marker=".", ms=4)
    classes = path.problem is not None and path.problem.loss.classes
    what = "accuracy" if classes else "R2"
    axis.set_ylabel(what if path.scores else "share of the null deviance")
    axis.set_title("How well it predicts")
    axis.legend(frameon=False, loc="lower right")


def _draw_weights(axis: Any, path: Path, x: np.ndarray) -> None:
    """One line per input of the first layer: its coefficient, or its norm."""
    lines, what = _input_lines(path)
    colors = _colors(lines.shape[1])
    for j in range(lines.shape[1]):
        axis.plot(x, lines[:, j], lw=1, color=colors[j])
    axis.axhline(0, color="0.6", lw=0.6)
    axis.set_ylabel(what)
    names = path.feature_names
    if names is not None and len(names) == lines.shape[1] <= MOST_LABELS:
        for j, name in enumerate(names):
            axis.annotate(
                name, (x[-1], lines[-1, j]), fontsize=7, va="center", color=colors[j]
            )
    axis.set_title("Which inputs it uses")


def _input_lines(path: Path) -> tuple[np.ndarray, str]:
    """[L, p] and what they are; seeds are averaged."""
    drop = 1 if path.seeds == 1 else 2
    for key, leaf in zip(
        trees.key_paths(path.params), jax.tree.leaves(path.params), strict=True
    ):
        if leaf.ndim - drop < 2 or key.split("/")[-1] in trees.BIASES:
            continue
        leaf = np.asarray(leaf).reshape(len(path), path.seeds, leaf.shape[drop], -1)
        if leaf.shape[-1] == 1:
            return leaf[..., 0].mean(1), "coefficient"
        return np.sqrt((leaf**2).sum(-1)).mean(
            1
        ), f"norm of the input's weights ({key})"
    sizes = [
        np.abs(leaf).reshape(len(path), -1).sum(1)
        for leaf in jax.tree.leaves(path.params)
    ]
    return np.stack(sizes, axis=1), "sum of |w| of each leaf"


def _colors(count: int) -> Any:
    from matplotlib import colormaps

    if count <= 10:
        return [f"C{j}" for j in range(count)]
    return colormaps["viridis"](np.linspace(0, 0.95, count))


def _draw_certificate(axis: Any, path: Path, x: np.ndarray) -> None:
    """Duality gaps where there are any, else KKT residuals, by status."""
    tiny = np.finfo(float).tiny  # the null model may be perfect
    certified = bool(np.isfinite(path.gap).any())
    values = _per_seed(path.gap / max(path.null_loss, tiny) if certified else path.kkt)
    status = _per_seed(path.status)
    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    for kind, color in STATUS_COLORS.items():
        rows, columns = np.nonzero((status == kind) & ~np.isnan(shown))
        if len(rows):
            axis.plot(x[rows], shown[rows, columns], ".", color=color, label=kind.name)
    lost = np.flatnonzero((status == Status.diverged).any(1))
    if len(lost):
        axis.plot(x[lost], np.full(len(lost), 1.0), "x", color="tab:red")
    if certified:
        axis.set_ylabel("duality gap / null loss")
        axis.set_title("How far from the minimum, at most")
    else:
        axis.plot(x, path.lams, color="0.5", lw=1, ls="--", label="lam itself")
        axis.set_ylabel("KKT residual, in units of lam")
        axis.set_title("How far from stationary")
    axis.set_yscale("log")
    axis.legend(frameon=False, loc="best")


def _count_on_top(axis: Any, path: Path, x: np.ndarray) -> None:
    """Numbers of nonzero weights along the top, at six lams far from each other."""
    counts = _per_seed(path.n_nonzero).mean(1)
    places = np.linspace(x[0], x[-1], 6)
    ticks = np.unique(np.abs(x[None, :] - places[:, None]).argmin(axis=1))
    top = axis.secondary_xaxis("top")
    top.set_xticks(x[ticks], [f"{counts[i]:.0f}" for i in ticks], fontsize=8)
    top.tick_params(length=2)
    top.set_xlabel("nonzero weights", fontsize=8)
