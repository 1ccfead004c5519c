"""Where a network's path comes from decides which inputs it has.

Claim: a group lasso on a network's inputs has branches. A chain that starts empty stays
empty at any lam. One from dense to sparse keeps its inputs to far larger lams, input 2
among them, which has no linear effect; the longer the chain the farther.

Number to expect, 3 starts: from lam .005 to .014 all from the dense model agree (R2
.95), but for the chain that is empty. Input 2 is there up to lam .26 in one chain from
dense to sparse, .12 in 4 chains, .06 where each lam starts from the dense model, .02
where from its own start: at lam .1 R2 is .89, .90, .76, .74, the objective of the first
.152, of the last .185. Between lam .7 and 3 that one chain keeps four inputs (objective
.29 to .49) where single lams are empty (.50, the better one above 3). It takes 3 to 10
times as long.

Run: `python -m experiments.hysteresis`, which draws `experiments/hysteresis.png`.
"""

import dataclasses
import functools
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """Data, network, training and ways through the lams."""

    rows: int = 1000
    rows_held_out: int = 2000
    p: int = 50  # inputs 0 to 4 matter, 2 by its square
    hidden: int = 32
    ridge: float = 1e-3
    lams: tuple[float, float, int] = (10.0, 2e-3, 36)  # of numpy's geomspace
    chains: tuple[int, ...] = (1, 4, 12)
    epochs: int = 40
    batch_size: int = 100
    seeds: int = 3


def load(cfg):
    """Inputs of variance 1, y standardised: training rows and held-out ones."""
    train = rj.datasets.friedman(cfg.rows, cfg.p, seed=0)
    test = rj.datasets.friedman(cfg.rows_held_out, cfg.p, seed=1)
    mean, sd = train.y.mean(), train.y.std()
    return [((d.X - 0.5) * 12**0.5, (d.y - mean) / sd) for d in (train, test)]


def ways(cfg):
    """By name: a line style and arguments of `fit_path`."""
    found = {
        "each lam from its own start": ("C7-", {}),
        "each lam from one dense model": ("C2-", {"init": "dense"}),
    }
    for direction, color in (("sparse_to_dense", "C3"), ("dense_to_sparse", "C0")):
        for chains, line in zip(cfg.chains, ("-", "--", ":"), strict=True):
            name = f"{direction.replace('_', ' ')}, {chains} chain{'s'[: chains - 1]}"
            given = {"chains": chains, "direction": direction, "init": "dense"}
            found[name] = color + line, given
    return found


def timed(fit, given):
    """A path, and the seconds that it took."""
    begun = time.perf_counter()
    path = fit(**given)
    return path, time.perf_counter() - begun


def largest(lams, there):
    """The largest lam at which something is there from every start; 0 if at none."""
    return max(lams[there.all(1)], default=0.0)


def tell(name, path, r2, seconds):
    """One row: how far the inputs come, and how good it is."""
    kept = path.params[0]["w"].any(-1)
    ends = largest(path.lams, kept.any(-1)), largest(path.lams, kept[..., 2])
    print(
        f"{name:32s} {seconds:4.1f} s, inputs up to lam {ends[0]:.3f}, input 2 up to "
        f"{ends[1]:.3f}, objective {path.objective.mean():.3f}, "
        f"R2 {r2.mean():.3f}, at most {r2.mean(1).max():.3f}"
    )


def main(cfg=Settings()):
    """Go all ways, print and draw."""
    (X, y), test = load(cfg)
    problem = rj.Problem(
        rj.models.mlp([cfg.p, cfg.hidden, 1], activation="relu"),
        rj.losses.half_squared_error(),
        rj.penalties.group(where="0/w"),
        ridge=cfg.ridge,
    )
    solver = rj.solvers.minibatch(epochs=cfg.epochs, batch_size=cfg.batch_size)
    given = problem, X, y, np.geomspace(*cfg.lams)
    fit = functools.partial(rj.fit_path, *given, solver=solver, seeds=cfg.seeds)
    fit()  # compiles
    figure, panels = plt.subplots(1, 3, figsize=(11.5, 4.4), layout="constrained")
    for name, (style, how) in ways(cfg).items():
        path, seconds = timed(fit, how)
        r2 = path.score(*test)
        tell(name, path, r2, seconds)
        counts = path.params[0]["w"].any(-1).sum(-1).mean(1)
        panels[0].semilogx(path.lams, counts, style, label=name)
        panels[1].semilogx(path.lams, r2.mean(1), style)
        panels[2].plot(seconds, r2.mean(), style[:2] + "o", ms=7)
        if "chains" in how:
            at = (seconds, r2.mean())
            offset = {"xytext": (6, 4), "textcoords": "offset points"}
            panels[2].annotate(how["chains"], at, color=style[:2], **offset)
    panels[0].set_yscale("symlog", linthresh=1)
    panels[0].set_yticks([0, 1, 4, 10, 50], ["0", "1", "4", "10", "50"])
    panels[0].set_yticks([], minor=True)
    panels[0].set(xlabel="lam", title="inputs kept")
    panels[1].set(xlabel="lam", title="R2 on held-out rows")
    panels[2].set(xlabel="seconds", title="mean R2 of the path, and chains")
    panels[2].margins(x=0.15)
    panels[2].set_xlim(left=0)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=3, loc="outside lower center", frameon=False)
    figure.suptitle(
        f"Friedman's regression, 5 of {cfg.p} inputs matter; network of {cfg.hidden} "
        f"units, group lasso on inputs, mean of {cfg.seeds} starts"
    )
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=95)


if __name__ == "__main__":
    main()
