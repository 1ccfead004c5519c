"""A network that learns its training rows by heart, and what L1 and L2 do about it.

Claim: with next to no penalty the network fits every training label, the wrong ones
too, and fails on new rows; L1 and L2 leave most wrong ones alone and do better.

Number to expect: 200 digits, 40 of them mislabelled, 5 starts. At the smallest lam
all 40 wrong labels are learned and 26 % of the test rows missed. At the lam chosen on
validation rows, 7 % of the wrong labels are learned with either penalty, and 16 % (L1)
and 14 % (L2) of the test rows missed.

Run: `python -m experiments.overfitting`, which draws `experiments/overfitting.png`.
"""

import dataclasses
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """Data, network and training."""

    rows: int = 200
    mislabelled: float = 0.2  # of the training and the validation rows
    split_seed: int = 0
    hidden: int = 64
    starts: int = 5
    lams: tuple[float, float, int] = (1e-1, 1e-4, 19)  # of numpy's geomspace
    learning_rate: float = 1e-2
    epochs: int = 400
    polish: int = 50


def mislabel(data, share, rng):
    """A share of the rows gets one of the nine other digits."""
    wrong = rng.permutation(len(data.y)) < round(share * len(data.y))
    shift = np.where(wrong, rng.integers(1, 10, len(data.y)), 0)
    return data._replace(y=(data.y + shift) % 10)


def load(cfg):
    """Training, validation and test rows; and the mislabelled training rows."""
    digits = rj.datasets.load("digits")
    rng = np.random.default_rng(cfg.split_seed)
    right, rest = rj.datasets.split(
        digits, 1 - cfg.rows / len(digits.y), cfg.split_seed
    )
    validation, test = rj.datasets.split(rest, 0.6, cfg.split_seed)
    train = mislabel(right, cfg.mislabelled, rng)
    wrong = train.y != right.y
    return (
        train,
        mislabel(validation, cfg.mislabelled, rng),
        test,
        train._replace(X=train.X[wrong], y=train.y[wrong]),
    )


def errors(penalty, parts, cfg):
    """Error in percent on each part, [L, starts] each."""
    train = parts[0]
    problem = rj.Problem(
        rj.models.mlp([train.X.shape[1], cfg.hidden, 10], activation="relu"),
        rj.losses.softmax_cross_entropy(),
        penalty,
    )
    # All rows in a batch: the training error must be what lam allows, not noise.
    solver = rj.solvers.minibatch(
        "adam", None, cfg.epochs, cfg.polish, learning_rate=cfg.learning_rate
    )
    path = rj.fit_path(
        problem,
        train.X,
        train.y,
        np.geomspace(*cfg.lams),
        solver=solver,
        seeds=cfg.starts,
    )
    return path.lams, [100 * (1 - path.score(part.X, part.y)) for part in parts]


def draw(axes, title, lams, train, test, chosen, cfg):
    """Train and test error over lam, bands from the best to the worst start."""
    for error, color, label in (
        (test, "C3", "test rows"),
        (train, "C0", "training rows"),
    ):
        axes.semilogx(lams, error.mean(1), color=color, label=label)
        axes.fill_between(
            lams, error.min(1), error.max(1), color=color, alpha=0.25, lw=0
        )
    axes.axhline(100 * cfg.mislabelled, color="0.5", lw=0.8, ls=":")
    best = test[chosen].mean()
    axes.plot(lams[chosen], best, "o", color="C3", ms=6)
    axes.annotate(
        f"{best:.0f}% at the\nchosen lam",
        (lams[chosen], best),
        (0.97, 0.07),
        textcoords="axes fraction",
        ha="right",
        arrowprops={"arrowstyle": "-", "color": "0.5", "relpos": (0.8, 1)},
    )
    axes.set(title=title, xlabel="lam", xlim=(lams[-1], lams[0]), ylim=(0, 50))
    axes.spines[["top", "right"]].set_visible(False)


def main(cfg=Settings()):
    """Fit both paths, choose lam on validation rows, print and draw."""
    parts = load(cfg)
    figure, panels = plt.subplots(
        1, 2, figsize=(9, 4), sharey=True, layout="constrained"
    )
    for axes, (title, penalty) in zip(
        panels, (("L1", rj.penalties.l1()), ("L2", rj.penalties.l2())), strict=True
    ):
        lams, (train, validation, test, wrong) = errors(penalty, parts, cfg)
        chosen = int(validation.mean(1).argmin())
        for at, what in ((-1, "smallest"), (chosen, "chosen")):
            print(
                f"{title}, {what:8s} lam {lams[at]:.1e}: training error "
                f"{train[at].mean():.1f} %, wrong labels learned "
                f"{100 - wrong[at].mean():.1f} %, test error {test[at].mean():.1f} % "
                f"({test[at].min():.1f} to {test[at].max():.1f})"
            )
        draw(axes, title, lams, train, test, chosen, cfg)
    panels[0].set_ylabel("error in %")
    panels[0].legend(frameon=False, loc="upper left")
    panels[0].text(
        1.1 * cfg.lams[1],
        100 * cfg.mislabelled - 1,
        f"{cfg.mislabelled:.0%} of the training\nlabels are wrong",
        color="0.4",
        va="top",
    )
    figure.suptitle(
        f"{cfg.rows} digits, {cfg.hidden} hidden units, {cfg.starts} starts (mean and "
        "range); dot: the lam that validation rows choose"
    )
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
