"""Where exact zeros come from, and where the right ones do.

Claim: a subgradient gives no zero, a prox gives exact ones, and with minibatches only
a full-batch polish gives the right ones.

Number to expect: on a lasso with 200 weights, 33 of them nonzero in the solution at
lam .16, `add_l1_decay` before Adam leaves 200 and `proximal_adam` 33. Over 19 lams
minibatches keep up to 112 (SGD), 42 (momentum) and 44 (Adam) weights too many, and
after a polish of at most 30 full-batch steps 1 too many or too few at most.

Run: `python -m experiments.zeros`, which draws `experiments/zeros.png`.
"""

import dataclasses
import functools
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.linear_model import Lasso

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """The lasso and how it is solved."""

    seed: int = 0
    n: int = 300
    p: int = 200
    k: int = 10
    noise: float = 2.0
    lams: int = 20
    ratio: float = 1e-2  # of the smallest lam to the largest
    shown: int = 10  # which lam the histogram is of
    learning_rate: float = 1e-2
    full_epochs: int = 2000
    batch_size: int = 32
    epochs: int = 60
    polish: int = 30


def subgradient_adam(learning_rate, penalty, lam):
    """Adam on loss + lam |w|_1, as if it had a gradient."""
    return optax.chain(rj.transforms.add_l1_decay(lam), optax.adam(learning_rate))


def solvers(cfg):
    """By name: in full batches, in minibatches, and in these with a polish."""
    sgd, adam = rj.transforms.proximal_sgd, rj.transforms.proximal_adam
    rate = cfg.learning_rate
    full = {
        "add_l1_decay, Adam": functools.partial(subgradient_adam, rate),
        "proximal_adam": functools.partial(adam, rate),
    }
    # Momentum .9 multiplies the step by 10.
    stochastic = {
        "SGD": functools.partial(sgd, rate),
        "momentum": functools.partial(sgd, rate / 10, momentum=0.9),
        "Adam": functools.partial(adam, rate),
    }
    minibatch = functools.partial(
        rj.solvers.minibatch, batch_size=cfg.batch_size, epochs=cfg.epochs
    )
    return (
        {k: rj.solvers.minibatch(v, None, cfg.full_epochs, 0) for k, v in full.items()},
        {k: minibatch(v, polish=0) for k, v in stochastic.items()},
        {k: minibatch(v, polish=cfg.polish) for k, v in stochastic.items()},
    )


def draw_weights(axes, paths, cfg):
    """Histogram of |w| at one lam, exact zeros apart."""
    edges = np.arange(-5.5, 0.76, 0.25)
    for (name, path), color in zip(paths.items(), ("C1", "C0"), strict=True):
        w = np.abs(path.params[0]["w"][cfg.shown].ravel())
        log = np.log10(w[w > 0]).clip(edges[0])
        label = f"{name}: {np.sum(w == 0)} zeros"
        axes.hist(log, edges, color=color, alpha=0.6, label=label)
        axes.bar(-6.25, np.sum(w == 0), 0.4, color=color, alpha=0.6)
    axes.set_xticks(
        [-6.25, -5, -4, -3, -2, -1, 0],
        ["0", *(f"$10^{{{e}}}$" for e in range(-5, 0)), "1"],
    )
    axes.set(xlabel="$|w|$", ylabel="weights")
    axes.set_title(f"Full batches, lam = {paths[name].lams[cfg.shown]:.2f}")
    axes.legend(frameon=False)


def draw_counts(axes, truth, rough, polished):
    """Nonzeros over lam."""
    lams = next(iter(rough.values())).lams
    axes.semilogx(lams, truth, color="0.2", lw=1.2, label="the solution", zorder=0)
    for (name, path), color in zip(rough.items(), ("C3", "C2", "C4"), strict=True):
        axes.semilogx(lams, path.n_nonzero, "--", color=color, label=name)
    for path in polished.values():
        axes.semilogx(lams, path.n_nonzero, "o", color="k", ms=5, mfc="none")
    axes.plot([], [], "ko", ms=5, mfc="none", label="each of them, polished")
    axes.set(xlabel="lam", ylabel="nonzero weights", ylim=(0, 230))
    axes.set_title("Minibatches")
    axes.legend(frameon=False)


def main(cfg=Settings()):
    """Solve one lasso by every solver, count nonzeros, draw."""
    jax.config.update("jax_enable_x64", True)
    X, y, _ = rj.datasets.sparse_regression(cfg.seed, cfg.n, cfg.p, cfg.k, cfg.noise)
    problem = rj.Problem(
        rj.models.linear(cfg.p, bias=False),
        rj.losses.half_squared_error(),
        rj.penalties.l1(),
    )
    top = np.abs(X.T @ y / cfg.n).max()
    lams = np.geomspace(top, cfg.ratio * top, cfg.lams)[1:]
    lasso = functools.partial(Lasso, fit_intercept=False, tol=1e-12, max_iter=100_000)
    truth = np.array([np.count_nonzero(lasso(lam).fit(X, y).coef_) for lam in lams])
    fit = functools.partial(rj.fit_path, problem, X, y, lams)
    full, rough, polished = (
        {name: fit(solver=solver) for name, solver in group.items()}
        for group in solvers(cfg)
    )
    print(f"solution: {truth.tolist()} nonzeros of {cfg.p}")
    groups = {"full batch": full, "minibatch": rough, "polished": polished}
    for group, paths in groups.items():
        for name, path in paths.items():
            print(
                f"{group:10s} {name:18s} too many: {(path.n_nonzero - truth).tolist()}"
            )
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    draw_weights(left, full, cfg)
    draw_counts(right, truth, rough, polished)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("A lasso by stochastic optimisers: which weights are exactly zero?")
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
