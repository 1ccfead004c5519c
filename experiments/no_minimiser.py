"""A penalty on one layer alone is no equation: there is nothing to converge to.

Claim: with a group lasso on a relu network's first layer and the second one free, W / c
and V c are the same function at a cth of the penalty, so that training lowers the
objective for as long as it goes on. A ridge on both gives it a minimiser.

Number to expect: digits, lam .02. Without ridge the objective is .52 after 300 epochs,
.22 after 3,000, .15 after 12,000, the norm of V 14, 55, 94, of 64 inputs 37, 42, 43 are
kept; rescaled by 1e4 it is .047, the loss alone. With a ridge of 1e-2 it is 1.08, 1.07,
1.07, the norm of V 7.3, 7.2, 7.2, inputs 37 throughout, and c = 1 is best.

Run: `python -m experiments.no_minimiser`, which draws `experiments/no_minimiser.png`.
"""

import dataclasses
import pathlib
import warnings

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """The problem, and for how long it is trained."""

    hidden: int = 32
    lam: float = 0.02
    ridges: tuple[float, ...] = (0.0, 1e-3, 1e-2)
    rounds: int = 40  # each goes on from the one before
    epochs: int = 300  # a round, all rows in a batch
    learning_rate: float = 1e-2
    scales: tuple[float, float, int] = (0.1, 1e4, 101)  # of numpy's geomspace


def problem_with(ridge, cfg):
    """Softmax regression behind a hidden layer whose inputs are selected."""
    return rj.Problem(
        rj.models.mlp([64, cfg.hidden, 10], activation="relu"),
        rj.losses.softmax_cross_entropy(),
        rj.penalties.group(where="0/w"),
        ridge=ridge,
    )


def train(problem, digits, cfg):
    """Fits after each round of training."""
    solver = rj.solvers.minibatch(
        "adam", None, cfg.epochs, learning_rate=cfg.learning_rate
    )
    fits = []
    for _ in range(cfg.rounds):
        init = fits[-1].params if fits else None
        with warnings.catch_warnings():
            # That the later layer is free is what this is about.
            warnings.simplefilter("ignore", UserWarning)
            fit = rj.fit(problem, digits.X, digits.y, cfg.lam, solver=solver, init=init)
        fits.append(fit)
    return fits


def rescaled(params, c):
    """The same function of a relu network: W / c, b / c, V c."""
    first, last = params
    return {k: a / c for k, a in first.items()}, {**last, "w": last["w"] * c}


def objective(problem, params, digits, lam):
    """The equation."""
    eta = problem.model.apply(params, digits.X)
    squares = sum(jnp.sum(layer["w"] ** 2) for layer in params)
    loss = problem.loss.value(eta, jnp.eye(10)[digits.y]).mean()
    return loss + problem.penalty.value(params, lam) + problem.ridge / 2 * squares


def tell(ridge, fits, curve):
    """Early and late in training; and what rescaling finds."""
    for fit in (fits[0], fits[len(fits) // 4 - 1], fits[-1]):
        w, v = (layer["w"] for layer in fit.params)
        print(
            f"ridge {ridge:g}: objective {fit.objective:.4f}, norms of W and V "
            f"{np.linalg.norm(w):.2f} and {np.linalg.norm(v):.2f}, "
            f"{w.any(1).sum()} inputs, kkt {fit.kkt:.1e}"
        )
    print(f"  rescaled: at best {min(curve):.4f}, at last {curve[-1]:.4f}")


def main(cfg=Settings()):
    """Train on and on, then rescale by hand, draw both."""
    digits = rj.datasets.load("digits")
    figure, panels = plt.subplots(1, 4, figsize=(13, 3.8), layout="constrained")
    epochs = cfg.epochs * np.arange(1, cfg.rounds + 1)
    scales = np.geomspace(*cfg.scales)
    for ridge, style in zip(cfg.ridges, ("C3-", "C1-", "C0--"), strict=True):
        problem = problem_with(ridge, cfg)
        fits = train(problem, digits, cfg)
        of_c = [rescaled(fits[-1].params, c) for c in scales]
        curve = [objective(problem, params, digits, cfg.lam) for params in of_c]
        tell(ridge, fits, curve)
        drawn = (
            [fit.objective for fit in fits],
            [np.linalg.norm(fit.params[1]["w"]) for fit in fits],
            [fit.params[0]["w"].any(1).sum() for fit in fits],
        )
        for axes, values in zip(panels[:3], drawn, strict=True):
            axes.plot(epochs, values, style, label=f"ridge {ridge:g}")
        panels[3].loglog(scales, curve, style)
    for axes, name in zip(
        panels, ("objective", "norm of V", "inputs kept"), strict=False
    ):
        axes.set(title=name, xlabel="epochs")
    panels[0].set_ylim(0, 1.3)
    panels[2].set_ylim(30, 50)
    for axes in panels[:3]:
        axes.set_xticks([0, 4000, 8000, 12000])
    panels[1].legend(frameon=False)
    panels[3].set(title="objective of W / c, V c", xlabel="c")
    panels[3].set_ylim(0.03, 30)
    panels[3].axvline(1, color="0.5", lw=0.8, ls=":")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Digits, relu, {cfg.hidden} units; group lasso on the first layer, "
        f"lam {cfg.lam:g}, and a ridge on both"
    )
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
