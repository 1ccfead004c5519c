"""How wide must a network be? A large lam says it, whatever width it was given.

Claim: a group lasso on the incoming weights of hidden units takes whole units away.
From lam .03 up about as many are left of 32 as of 128; below it a wider network keeps
more. The accuracy is that of the width left, whatever it was before.

Number to expect: half of the digits, 3 starts. At lam .1 6 to 8 units are left of 32,
64 and 128 alike (93 % right on the other half), at .03 11 to 14 (96 %), at .01 16 to
27 (96 %). Trained without the group lasso, 4 units give 47 %, 8 give 91 %, 16 96 %:
with 16 it is as good to have them from the start.

Run: `python -m experiments.units`, which draws `experiments/units.png`.
"""

import dataclasses
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """Networks and training, on half of the digits."""

    widths: tuple[int, ...] = (32, 64, 128)
    plain: tuple[int, ...] = (4, 8, 16)  # widths of networks without the penalty
    ridge: float = 1e-3
    lams: tuple[float, float, int] = (0.25, 3e-3, 16)  # of numpy's geomspace
    epochs: int = 60
    polish: int = 60
    starts: int = 3
    told: tuple[float, ...] = (0.1, 0.03, 0.01)  # lams to print


def fit(width, lams, train, cfg):
    """A path of networks that are given so many hidden units."""
    problem = rj.Problem(
        rj.models.mlp([train.X.shape[1], width, 10], activation="relu"),
        rj.losses.softmax_cross_entropy(),
        rj.penalties.group(axis=0, where="0/w"),
        ridge=cfg.ridge,
    )
    solver = rj.solvers.minibatch(epochs=cfg.epochs, polish=cfg.polish)
    return rj.fit_path(problem, train.X, train.y, lams, solver=solver, seeds=cfg.starts)


def draw_band(axes, lams, values, color, label):
    """Mean and range of the starts."""
    axes.semilogx(lams, values.mean(1), color=color, label=label)
    axes.fill_between(lams, values.min(1), values.max(1), color=color, alpha=0.2, lw=0)


def main(cfg=Settings()):
    """Fit a path from each width, and plain networks; print and draw."""
    train, test = rj.datasets.split(rj.datasets.load("digits"), 0.5)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for width, color in zip(cfg.widths, ("C0", "C1", "C2"), strict=True):
        path = fit(width, np.geomspace(*cfg.lams), train, cfg)
        units = path.params[0]["w"].any(-2).sum(-1)
        accuracy = 100 * path.score(test.X, test.y)
        draw_band(left, path.lams, units, color, f"of {width} units")
        right.semilogx(units.mean(1), accuracy.mean(1), ".-", color=color)
        for lam in cfg.told:
            at = np.abs(np.log(path.lams / lam)).argmin()
            print(
                f"of {width:3d} units, lam {path.lams[at]:.3f}: {units[at]} left, "
                f"test accuracy {accuracy[at].mean():.1f} %"
            )
    for width in cfg.plain:
        accuracy = 100 * fit(width, [0.0], train, cfg).score(test.X, test.y)
        print(f"plain network of {width} units: {accuracy.mean():.1f} %")
        right.plot(width, accuracy.mean(), "kx", ms=7)
    right.plot([], [], "kx", ms=7, label="given so few from the start,\nno group lasso")
    left.set(xlabel="lam", ylabel="hidden units left")
    right.set(xlabel="hidden units left", ylabel="test accuracy in %", ylim=(50, 100))
    right.set_xlim(1.8, 80)
    right.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
    right.minorticks_off()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="best" if axes is left else "lower right")
    figure.suptitle(
        f"Digits: a network's width chosen by lam; {cfg.starts} starts, mean and range"
    )
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
