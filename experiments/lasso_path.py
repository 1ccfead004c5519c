"""Lasso, elastic net and ridge paths, with scikit-learn's coefficients on them.

Claim: whole paths from `fit_path` are scikit-learn's `Lasso`, `ElasticNet` and
`Ridge`, lam by lam, in the units lam = alpha (Ridge: lam = alpha / n).
Number to expect: they differ by at most 7e-10 of the largest coefficient.

Run: `python -m experiments.lasso_path`, which draws `experiments/lasso_path.png`.
"""

import dataclasses
import io
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from sklearn.linear_model import ElasticNet, Lasso, Ridge

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fitted and drawn."""

    data: tuple[str, ...] = ("diabetes", "prostate")
    # Title, l1_ratio, log10 of the first and of the last lam.
    panels: tuple[tuple[str, float, float, float], ...] = (
        ("L1", 1.0, 0.0, -4.0),
        ("elastic net, half L1 and half L2", 0.5, 0.3, -4.0),
        ("L2", 0.0, 2.0, -4.0),
    )
    lams: int = 121
    dots: int = 8  # one lam in so many gets scikit-learn's dots
    tol: float = 1e-11


def standardised(names: tuple[str, ...]) -> dict:
    """Data with X and y of mean 0 and deviation 1, by name, where installed."""
    found = {}
    for name in names:
        try:
            data = rj.datasets.load(name)
        except ValueError as error:
            print(f"without {name}: {error}")
            continue
        X, y = ((a - a.mean(0)) / a.std(0) for a in (data.X, data.y))
        found[name] = data._replace(X=X, y=y)
    return found


def fit(X, y, l1_ratio: float, lams: np.ndarray, tol: float) -> rj.Path:
    """The path of one penalty; l1_ratio is a run-time value: three share a compile."""
    model = rj.models.linear(X.shape[1], 1)
    penalty = rj.penalties.elastic_net(l1_ratio)
    problem = rj.Problem(model, rj.losses.half_squared_error(), penalty)
    solver = rj.solvers.proximal_gradient(tol, max_iter=50_000)
    return rj.fit_path(problem, X, y, lams=lams, solver=solver)


def by_scikit_learn(X, y, l1_ratio: float, lams: np.ndarray) -> np.ndarray:
    """Coefficients [L, p], each lam fitted on its own."""
    exact = {"tol": 1e-13, "max_iter": 1_000_000}

    def model(lam: float):
        if l1_ratio == 1:
            return Lasso(alpha=lam, **exact)
        if l1_ratio == 0:
            return Ridge(alpha=len(y) * lam)
        return ElasticNet(alpha=lam, l1_ratio=l1_ratio, **exact)

    return np.stack([model(lam).fit(X, y).coef_ for lam in lams])


def draw(ax, path: rj.Path, w: np.ndarray, reference: np.ndarray, dots: int) -> None:
    """One panel: lines from regjax, dots from scikit-learn, nonzeros above."""
    x = -np.log10(path.lams)
    ax.axhline(0, color="0.5", lw=0.6, zorder=0)
    for j in range(w.shape[1]):
        color = plt.cm.tab10(j % 10)
        ax.plot(x, w[:, j], color=color, lw=1.6)
        circle = {"ms": 4.6, "mew": 0.6, "mec": "white"}
        ax.plot(x[::dots], reference[::dots, j], "o", color=color, **circle)
    ax.margins(x=0.02)
    ticks = np.arange(np.ceil(x[0]), np.floor(x[-1]) + 1)
    counts = [path.n_nonzero[np.abs(x - tick).argmin()] for tick in ticks]
    ax.set_xticks(ticks)
    top = ax.secondary_xaxis("top")
    top.set_xticks(ticks, counts)
    top.tick_params(length=2, labelsize=8, colors="0.35")


def label_lines(ax, ends: np.ndarray, names: tuple[str, ...]) -> None:
    """Names at the right ends of the lines, pushed apart until they can be read."""
    low, high = ax.get_ylim()
    order, gap = np.argsort(ends), 0.062 * (high - low)
    places = ends[order]
    for _ in range(500):
        lack = np.maximum(gap - np.diff(places), 0) / 2
        places[:-1] -= lack
        places[1:] += lack
    right = ax.get_yaxis_transform()
    for j, place in zip(order, places, strict=True):
        style = {"color": plt.cm.tab10(j % 10), "va": "center", "size": 9}
        ax.text(1.03, place, names[j], transform=right, **style)


def main(settings: Settings) -> None:
    """Fit, compare, draw."""
    jax.config.update("jax_enable_x64", True)
    found, worst = standardised(settings.data), 0.0
    figure, axes = plt.subplots(
        len(found), 3, figsize=(12, 3.6 * len(found)), sharey="row", squeeze=False
    )
    for row, (name, data) in zip(axes, found.items(), strict=True):
        for ax, (title, l1_ratio, *ends) in zip(row, settings.panels, strict=True):
            lams = np.logspace(*ends, settings.lams)
            path = fit(data.X, data.y, l1_ratio, lams, settings.tol)
            w = path.params[0]["w"][:, :, 0]
            reference = by_scikit_learn(data.X, data.y, l1_ratio, path.lams)
            apart = np.abs(w - reference).max() / np.abs(reference).max()
            worst = max(worst, apart)
            draw(ax, path, w, reference, settings.dots)
            ax.set_title(title, size=11)
            counts = f"{path.n_nonzero[0]:2} to {path.n_nonzero[-1]:2} nonzeros"
            print(f"{name:9} {title:33} {counts}, differs by {apart:.1e}")
        row[0].set_ylabel(f"{name}\n\nstandardised coefficient")
        label_lines(row[-1], w[-1].copy(), data.feature_names)
    for ax in axes[-1]:
        ax.set_xlabel(r"$-\log_{10}\,\lambda$")
    figure.suptitle(
        "Regularization paths: lines by regjax, dots by scikit-learn, "
        "numbers of nonzeros above"
    )
    figure.tight_layout()
    raw, file = io.BytesIO(), pathlib.Path(__file__).with_suffix(".png")
    figure.savefig(raw, dpi=100)
    # Few colours, for a third of the bytes.
    PIL.Image.open(raw).convert("RGB").quantize(96).save(file, optimize=True)
    print(f"largest relative disagreement with scikit-learn: {worst:.1e}")


if __name__ == "__main__":
    main(Settings())
