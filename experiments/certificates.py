"""Who says how far from the optimum it stopped, and who is how far.

Claim: glmnet stops when its steps get short, and says nothing of the distance left;
`fit_path` stops when a duality gap proves that distance at most tol, at every lam.

Number to expect: NUMBERS

Coefficients of glmnet 4.1 come from `tests/data/glmnet`, at a few lams of its path.
All answers, ours too, are measured alike: by `rj.certify` in float64.

Run: `python -m experiments.certificates`, which draws `experiments/certificates.png`.
"""

import dataclasses
import json
import lzma
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy.special
import scipy.stats
import sklearn.datasets

import regjax as rj

RESULTS = pathlib.Path(__file__).parents[1] / "tests/data/glmnet/results.json.xz"
LOSSES = {
    "multinomial": rj.losses.softmax_cross_entropy(),
    "binomial": rj.losses.sigmoid_binary_cross_entropy(),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fitted, and how well."""

    # Title, data, case of glmnet at its tightest thresh; with "_default" at 1e-7.
    columns: tuple[tuple[str, str, str], ...] = (
        ("digits: softmax, L1", "digits", "digits_lasso_raw"),
        (
            "breast cancer: logistic, half L1 and half L2",
            "breast_cancer",
            "breast_cancer_enet",
        ),
    )
    lams: int = 33  # of the float32 path, at its own tol of 1e-5
    tol: float = 1e-9  # of float64, at the lams of glmnet


class Task:
    """A case of glmnet: its data as fitted, its problem, and how to measure."""

    def __init__(self, name: str, case: dict):
        X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        raw = X / 16 if name == "digits" else X
        self.mean, self.scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
        if case["arguments"]["standardize"]:
            self.mean, self.scale = raw.mean(0), raw.std(0)
        self.X, self.y = (raw - self.mean) / self.scale, y
        self.k = np.size(case["intercept"][0])
        self.l1_ratio = case["arguments"]["alpha"]
        penalty = rj.penalties.elastic_net(self.l1_ratio)
        model = rj.models.linear(X.shape[1], self.k)
        self.problem = rj.Problem(model, LOSSES[case["family"]], penalty)

    def of_glmnet(self, case: dict) -> tuple[np.ndarray, list]:
        """Lams and params; the first stored ones belong to lam = 9.9e35."""
        found = []
        for w, b in zip(case["coef"][1:], case["intercept"][1:], strict=True):
            w = np.reshape(w, (-1, self.k))
            b = np.atleast_1d(b) + self.mean @ w
            found.append(({"w": w * self.scale[:, None], "b": b},))
        return np.array(case["lambda"])[case["at"][1:]], found

    def gap(self, lam: float, params: tuple) -> float:
        """Over the loss of the null model: what `tol` is of."""
        return rj.certify(self.problem, self.X, self.y, lam, params) / self.null_loss()

    def kkt(self, lam: float, params: tuple) -> float:
        """Largest distance of 0 from a coordinate's subgradients, over lam."""
        w, b = (np.asarray(params[0][name], float) for name in ("w", "b"))
        eta = self.X @ w + b
        if self.k == 1:
            slopes = scipy.special.expit(eta) - self.y[:, None]
        else:
            slopes = scipy.special.softmax(eta, 1) - np.eye(self.k)[self.y]
        slopes /= len(slopes)
        slope = self.X.T @ slopes + lam * (1 - self.l1_ratio) * w
        bound = lam * self.l1_ratio
        away = np.where(w, np.abs(slope + bound * np.sign(w)), np.abs(slope) - bound)
        return max(away.max(), np.abs(slopes.sum(0)).max(), 1e-16 * lam) / lam

    def null_loss(self) -> float:
        """Mean loss of the class shares."""
        return scipy.stats.entropy(np.bincount(self.y))

    def measure(self, lams: np.ndarray, found: list) -> tuple:
        """Lams, gaps and KKT residuals."""
        pairs = list(zip(map(float, lams), found, strict=True))
        return lams, [self.gap(*pair) for pair in pairs], [self.kkt(*p) for p in pairs]


def contestants(task: Task, tight: dict, default: dict, cfg: Settings) -> dict:
    """Lams, gaps and KKT residuals by label."""
    lams, exact = task.of_glmnet(tight)
    grid = np.geomspace(tight["lambda"][1], lams[-1], cfg.lams)
    path = rj.fit_path(task.problem, task.X.astype(np.float32), task.y, grid)
    params = [path[i].params for i in range(len(path))]
    promised = path.gap / path.null_loss
    solver = rj.solvers.proximal_gradient(cfg.tol)
    ours = [rj.fit(task.problem, task.X, task.y, lam, solver=solver) for lam in lams]
    found = {
        "glmnet, thresh 1e-7 (default)": task.measure(*task.of_glmnet(default)),
        "regjax, float32 (default)": task.measure(path.lams, params),
        f"glmnet, thresh {tight['thresh']:.0e}": task.measure(lams, exact),
        f"regjax, float64, tol {cfg.tol:.0e}": task.measure(
            lams, [fit.params for fit in ours]
        ),
    }
    print(f"float32 promised {promised.max():.1e}")
    for label, (_, gaps, kkts) in found.items():
        print(f"{label:30} gap {max(gaps):8.1e} of null loss, kkt {max(kkts):8.1e} lam")
    return found


def draw(axes: np.ndarray, found: dict, cfg: Settings) -> None:
    """Gap above, KKT residual below."""
    styles = ("C3", "o", 7), ("C0", ".", 5), ("C1", "s", 5), ("C2", "D", 5)
    for (color, marker, size), (label, (lams, *rows)) in zip(
        styles, found.items(), strict=True
    ):
        line = {"color": color, "marker": marker, "ms": size, "lw": 1.3, "mec": "white"}
        for ax, row in zip(axes, rows, strict=True):
            ax.loglog(lams, row, **line, mew=0.5, label=label)
    for tol, color in ((1e-5, "C0"), (cfg.tol, "C2")):
        axes[0].axhline(tol, color=color, lw=0.9, ls=(0, (5, 3)), zorder=0)
        axes[0].annotate(
            f"tol {tol:.0e}",
            (1, tol),
            (-3, 3),
            color=color,
            size=8,
            ha="right",
            xycoords=axes[0].get_yaxis_transform(),
            textcoords="offset points",
        )


def main(cfg: Settings = Settings()) -> None:
    """Fit, certify, draw."""
    jax.config.update("jax_enable_x64", True)
    cases = json.loads(lzma.open(RESULTS).read())["cases"]
    figure, axes = plt.subplots(
        2,
        len(cfg.columns),
        figsize=(10, 6.4),
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for column, (title, name, case) in zip(axes.T, cfg.columns, strict=True):
        print(title)
        task = Task(name, cases[case])
        found = contestants(task, cases[case], cases[f"{case}_default"], cfg)
        draw(column, found, cfg)
        column[0].set_title(title, size=11)
        column[0].invert_xaxis()
        column[1].set_xlabel(r"$\lambda$")
    axes[0, 0].set_ylabel("duality gap / null loss")
    axes[1, 0].set_ylabel(r"KKT residual / $\lambda$")
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="0.93", lw=0.7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("How far from the optimum is each answer?")
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
