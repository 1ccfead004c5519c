"""How many inputs a network needs, and LassoNet on the same rows.

Claim: group lasso on a network's inputs, weighted by a pilot fit and refitted on each
support, needs fewer inputs than LassoNet for the same score, and takes a fraction of
its time. The path alone, shrunk as it is, does about as well as LassoNet.

Number to expect: on digits with 16 of 64 pixels 0.95 of the held-out rows are told
right after the refit, 0.81 before, 0.84 by LassoNet; with 25 it is 0.96, 0.93, 0.86.

LassoNet is drawn where it is installed (`pip install lassonet`).

Run: `python -m experiments.feature_selection`, which draws
`experiments/feature_selection.png`.
"""

import dataclasses
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np

import regjax as rj

COLOURS = {"regjax, refitted": "C3", "regjax, the path": "C0", "LassoNet": "0.4"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The network and how it is trained."""

    hidden: int = 64
    ridge: float = 1e-3
    pilot: float = 3e-3
    lams: int = 48
    seeds: int = 3
    epochs: int = 23
    polish: int = 10
    multiplier: float = 1.05  # of LassoNet's lam; its default is 1.02, 2.5 times longer


def ours(cfg, train):
    """The path and its refit, of several seeds."""
    model = rj.models.mlp([train.X.shape[1], cfg.hidden, 10], "relu")
    loss, group = rj.losses.softmax_cross_entropy(), rj.penalties.group
    problem = rj.Problem(model, loss, group(where="0/w"), cfg.ridge)
    given = {"solver": rj.solvers.minibatch(epochs=cfg.epochs, polish=cfg.polish)}
    pilot = rj.fit(problem, train.X, train.y, lam=cfg.pilot, **given)
    factors = rj.penalties.adaptive_factors(pilot.params[0]["w"])
    problem = problem._replace(penalty=group(where="0/w", factors=factors))
    path = rj.fit_path(
        problem, train.X, train.y, lams=cfg.lams, seeds=cfg.seeds, **given
    )
    return path, rj.relax(problem, path, train.X, train.y, **given)


def theirs(cfg, train, test):
    """LassoNet's lams, counts and scores; None where it is not installed."""
    try:
        from lassonet import LassoNetClassifier
    except ImportError:
        return None
    given = {"path_multiplier": cfg.multiplier, "verbose": 0, "random_state": 0}
    model = LassoNetClassifier(hidden_dims=(cfg.hidden,), **given)
    history = model.path(train.X, train.y, return_state_dicts=True)
    lams, counts, scores = [], [], []
    for item in history:
        model.load(item.state_dict)
        lams.append(item.lambda_)
        counts.append(int(item.selected.sum()))
        scores.append(np.mean(model.predict(test.X) == test.y))
    return np.array([lams, counts, scores])


def band(axis, x, values, name):
    """Mean and range over seeds, [L, seeds]."""
    axis.plot(x, values.mean(1), color=COLOURS[name], label=name)
    axis.fill_between(
        x, values.min(1), values.max(1), color=COLOURS[name], alpha=0.25, lw=0
    )


def draw(path, refit, test, other) -> None:
    """Score against count, score against lam, count against lam."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    counts = path.selected.sum(-1)
    for name, one in (("regjax, refitted", refit), ("regjax, the path", path)):
        score = one.score(test.X, test.y)
        for seed in range(path.seeds):
            axes[0].plot(
                counts[:, seed],
                score[:, seed],
                color=COLOURS[name],
                alpha=0.8,
                lw=1,
                label=name if seed == 0 else None,
            )
        band(axes[1], path.lams, score, name)
    band(axes[2], path.lams, counts, "regjax, the path")
    if other is not None:
        lams, their_counts, scores = other
        for axis, x, y in (
            (axes[0], their_counts, scores),
            (axes[1], lams, scores),
            (axes[2], lams, their_counts),
        ):
            on = x > 0 if axis is not axes[0] else x >= 0
            axis.plot(x[on], y[on], color=COLOURS["LassoNet"], label="LassoNet")
    axes[0].set(xlabel="inputs used", ylabel="held-out accuracy", xlim=(0, 64))
    axes[1].set(xlabel="lam, each in its own units", xscale="log")
    axes[2].set(xlabel="lam, each in its own units", xscale="log", ylabel="inputs used")
    axes[0].legend(frameon=False, loc="lower right")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=100)


def main(cfg: Settings = Settings()) -> None:
    """Fit both, print and draw."""
    data = rj.datasets.load("digits")
    train, test = rj.datasets.split(data, test_fraction=0.3)
    center, scale = train.X.mean(0), train.X.std(0)
    scale[scale == 0] = 1
    train, test = (
        part._replace(X=((part.X - center) / scale).astype(np.float32))
        for part in (train, test)
    )
    begun = time.perf_counter()
    path, refit = ours(cfg, train)
    print(f"regjax, {cfg.seeds} seeds: {time.perf_counter() - begun:.1f} s")
    begun = time.perf_counter()
    other = theirs(cfg, train, test)
    if other is not None:
        print(f"LassoNet: {time.perf_counter() - begun:.1f} s, {len(other[0])} lams")
    for k in (8, 16, 25, 40):
        own = path.seed(0).at(n_features=k), refit.seed(0).at(n_features=k)
        shrunk, fitted = (one.score(test.X, test.y) for one in own)
        line = f"{k} inputs: {shrunk:.3f}, refitted {fitted:.3f}"
        if other is not None:
            line += f", LassoNet {other[2][np.argmax(other[1] <= k)]:.3f}"
        print(line)
    draw(path, refit, test, other)


if __name__ == "__main__":
    main()
