"""The table of a path, as glmnet's users know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from regjax.models import is_linear
from regjax.types import Status

if TYPE_CHECKING:
    from regjax.results import Path

MOST_ROWS = 200
SEVERITY = (
    Status.converged,
    Status.degenerate,
    Status.floor,
    Status.max_iter,
    Status.unbounded,
    Status.diverged,
)


def format_table(path: Path) -> str:
    """Df, %Dev, Lambda, scores, KKT residual, gap, status: one row a lam.

    A network whose penalty selects groups shows how many inputs it uses, too.
    With several seeds numbers are means over seeds, and the status counts them.

    Args:
      path: what to print; of more than 200 lams only both ends are shown.

    Returns:
      Text without a trailing newline.
    """
    gap = _mean(path.gap)
    columns = {
        "": [str(i + 1) for i in range(len(path))],
        "Df": [f"{x:.0f}" for x in _mean(path.n_nonzero)],
        **_inputs(path),
        # + 0.0: no "-0.00" for an empty model
        "%Dev": [f"{np.round(100 * x, 2) + 0.0:.2f}" for x in _mean(path.dev_ratio)],
        "Lambda": [f"{x:.4g}" for x in path.lams],
        **{
            name.capitalize(): [f"{x:.4f}" for x in _mean(values)]
            for name, values in path.scores.items()
        },
        "KKT": [f"{x:.1e}" for x in _mean(path.kkt)],
        **({"Gap": [f"{x:.1e}" for x in gap]} if np.isfinite(gap).any() else {}),
        "Status": [_status(row) for row in path.status.reshape(len(path), -1)],
    }
    return _aligned(columns, _rows(len(path)))


def format_cv(cv: Any) -> str:
    """Lambda, Index, Measure, SE, Nonzero of lam_min and lam_1se, as glmnet's."""
    at = cv.index_min, cv.index_1se
    columns = {
        "": ["min", "1se"],
        "Lambda": [f"{cv.lams[i]:.4g}" for i in at],
        "Index": [str(i + 1) for i in at],
        "Measure": [f"{cv.mean[i]:.4g}" for i in at],
        "SE": [f"{cv.se[i]:.2g}" for i in at],
        "Nonzero": [f"{cv.n_nonzero[i]:.0f}" for i in at],
    }
    title = f"Measure: {cv.measure}, {len(cv.values)} folds"
    return f"{title}\n\n{_aligned(columns, [0, 1])}"


def _inputs(path: Path) -> dict[str, list[str]]:
    """A column of how many inputs are used, where groups of weights are zero."""
    problem = path.problem
    if problem is None or problem.penalty.pool is None or is_linear(problem.model):
        return {}
    try:
        counts = path.selected.sum(axis=-1)
    except ValueError:  # groups of another kind: filters
        return {}
    return {"Inputs": [f"{x:.0f}" for x in _mean(counts)]}


def _aligned(columns: dict[str, list[str]], rows: list[int | None]) -> str:
    """Columns as text; a row of dots for None."""
    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    lines = ["  ".join(name.rjust(width) for name, width in widths.items())]
    for i in rows:
        if i is None:
            lines.append("  ...")
            continue
        lines.append(
            "  ".join(columns[name][i].rjust(width) for name, width in widths.items())
        )
    return "\n".join(lines)


def _mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).reshape(len(values), -1).mean(axis=1)


def _status(row: np.ndarray) -> str:
    """The one status of all seeds, or how many have which."""
    kinds, counts = np.unique(row, return_counts=True)
    if len(kinds) == 1:
        return Status(kinds[0]).name
    pairs = zip(kinds, counts, strict=True)
    return ", ".join(f"{count} {Status(kind).name}" for kind, count in pairs)


def _rows(count: int) -> list[int | None]:
    if count <= MOST_ROWS:
        return list(range(count))
    half = MOST_ROWS // 2
    return [*range(half), None, *range(count - half, count)]


def worst_status(path: Path) -> np.ndarray:
    """The worst status over seeds, [L]."""
    order = np.array([SEVERITY.index(status) for status in path.status.ravel()])
    worst = order.reshape(len(path), -1).max(axis=1)
    return np.array(SEVERITY, np.int32)[worst]
