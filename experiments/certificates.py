"""Who can say how far from the optimum it stopped.

Claim: glmnet stops when its steps get short, and says nothing of the distance left;
`fit_path` stops when a duality gap proves it at most tol, at every lam.

Number to expect, over the loss of the null model: the default answers of glmnet are up
to 1.9e-5 above the best known, with KKT residuals up to .92 lam; those of `fit_path` in
float32 up to 3e-9, and it proves 1e-5. A gap is only a bound: of glmnet's default
answers 4e-3 is proved, of its tightest 2e-6, though both are nearer than that.

Coefficients of glmnet 4.1 come from `tests/data/glmnet`, at a few lams of its path.
All answers, ours too, are measured alike, in float64.

Run: `python -m experiments.certificates`, which draws `experiments/certificates.png`.
"""

import dataclasses
import json
import lzma
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

import regjax as rj

RESULTS = pathlib.Path(__file__).parents[1] / "tests/data/glmnet/results.json.xz"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fitted, and how well."""

    case: str = "digits_lasso_raw"  # of glmnet: thresh 1e-14; "_default": 1e-7
    lams: int = 33  # of the float32 path, at its own tol of 1e-5
    tol: float = 1e-9  # of float64, at the lams of glmnet


class Task:
    """Digits, their problem, and three ways to measure an answer."""

    def __init__(self):
        self.X, self.y = rj.datasets.load("digits")[:2]
        self.X = self.X.astype(float)
        self.problem = rj.Problem(
            rj.models.linear(*self.X.shape[1:], 10),
            rj.losses.softmax_cross_entropy(),
            rj.penalties.l1(),
        )
        self.null = entropy(np.bincount(self.y))

    def gap(self, lam, params) -> float:
        """Proved distance of the objective, over the loss of the null model."""
        return rj.certify(self.problem, self.X, self.y, lam, params) / self.null

    def objective(self, lam, params) -> float:
        """Over the loss of the null model."""
        w, b = (np.asarray(params[0][name], float) for name in "wb")
        eta = self.X @ w + b
        losses = logsumexp(eta, 1) - eta[np.arange(len(eta)), self.y]
        return (losses.mean() + lam * np.abs(w).sum()) / self.null

    def kkt(self, lam, params) -> float:
        """Largest distance of 0 from a coordinate's subgradients, over lam."""
        w, b = (np.asarray(params[0][name], float) for name in "wb")
        slopes = (softmax(self.X @ w + b, 1) - np.eye(10)[self.y]) / len(self.y)
        slope = self.X.T @ slopes
        away = np.where(w, np.abs(slope + lam * np.sign(w)), np.abs(slope) - lam)
        return max(away.max(), np.abs(slopes.sum(0)).max()) / lam


def stored(case: dict) -> dict:
    """Params by lam of glmnet; the first stored ones belong to lam = 9.9e35."""
    kept = zip(case["at"][1:], case["coef"][1:], case["intercept"][1:], strict=True)
    return {
        case["lambda"][at]: ({"w": np.array(w), "b": np.array(b)},) for at, w, b in kept
    }


def solve(task: Task, cases: dict, cfg: Settings) -> dict:
    """Params by lam, by label; the last are the reference."""
    tight, default = cases[cfg.case], cases[f"{cfg.case}_default"]
    at = sorted({*stored(tight), *stored(default)})
    grid = np.union1d(np.geomspace(at[-1], at[0], cfg.lams - len(at)), at)
    path = rj.fit_path(task.problem, task.X.astype(np.float32), task.y, grid)
    print(f"float32: largest gap {max(path.gap) / task.null:.1e}, by its own account")
    solver = rj.solvers.proximal_gradient(cfg.tol)
    return {
        "glmnet, thresh 1e-7 (default)": stored(default),
        "regjax, float32 (default)": {
            lam: path[i].params for i, lam in enumerate(sorted(grid)[::-1])
        },
        f"glmnet, thresh {tight['thresh']:.0e}": stored(tight),
        f"regjax, float64, tol {cfg.tol:.0e}": {
            lam: rj.fit(task.problem, task.X, task.y, lam, solver=solver).params
            for lam in at
        },
    }


def main(cfg: Settings = Settings()) -> None:
    """Fit, measure, draw."""
    jax.config.update("jax_enable_x64", True)
    task, cases = Task(), json.loads(lzma.open(RESULTS).read())["cases"]
    answers = solve(task, cases, cfg)
    *_, exact = answers.values()
    best = {lam: task.objective(lam, params) for lam, params in exact.items()}
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    styles = ("C3", "o", 7), ("C0", ".", 6), ("C1", "s", 5), ("C2", "D", 5)
    for (color, marker, size), (label, found) in zip(
        styles, answers.items(), strict=True
    ):
        gaps = {lam: task.gap(lam, params) for lam, params in found.items()}
        kkts = {lam: task.kkt(lam, params) for lam, params in found.items()}
        known = {} if found is exact else best.keys() & found.keys()
        far = {
            lam: task.objective(lam, found[lam]) - best[lam] for lam in sorted(known)
        }
        style = {"color": color, "marker": marker, "ms": size, "lw": 1.3, "mew": 0}
        for ax, row in zip(axes, (far, gaps, kkts), strict=True):
            ax.loglog(list(row), list(row.values()), **style, label=label)
        print(
            f"{label:30} above best {max(far.values(), default=0):8.1e}, "
            f"gap {max(gaps.values()):8.1e} of null loss, kkt {max(kkts.values()):8.1e}"
        )
    for tol, color in ((1e-5, "C0"), (cfg.tol, "C2")):
        axes[1].axhline(tol, color=color, lw=0.9, ls=(0, (5, 3)), zorder=0)
    titles = "what is left (/ null loss)", "what is proved (gap / null loss)"
    for ax, title in zip(axes, (*titles, r"KKT residual / $\lambda$"), strict=True):
        ax.set_title(title, size=11)
        ax.set_xlim(2 * max(answers["regjax, float32 (default)"]), 5e-6)
        ax.set_xlabel(r"$\lambda$")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.93", lw=0.7)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("Softmax with L1 on digits: how far from the optimum?")
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
