"""Where the contours of the loss meet the ball of the penalty, in two dimensions.

Claim: of all points with the Omega of a fit, the fit has the least loss, for two
coefficients of a linear model and for two weights of a network alike; on a diamond
of L1 that is small enough it is a corner, so that one weight is exactly 0.
Number to expect: the best of 100,000 such points is within 2e-5 of the fit in all six
panels (they lie up to 4e-5 apart), and at its corner to 3e-16 in both of L1.
Run: `python -m experiments.geometry`, which draws `experiments/geometry.png`.
"""

import dataclasses
import io
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fitted and drawn."""

    data: str = "diabetes"
    features: tuple[str, str] = ("bmi", "bp")
    hidden: int = 3
    network_lam: float = 3e-3  # of L2, for the network that is then sliced
    seed: int = 2
    # Title and l1_ratio.
    penalties: tuple = (("L1", 1.0), ("half L1, half L2", 0.5), ("L2", 0.0))
    shares: tuple[float, float] = (0.3, 0.18)  # size of the balls / Omega at lam = 0
    edge_points: int = 100_000


SOLVER = rj.solvers.proximal_gradient(tol=1e-10, max_iter=50_000)
LAMS = np.append(np.geomspace(30, 1e-3, 120), 0.0)
LOSS = rj.losses.half_squared_error()


def frozen(model: rj.Model, params, inputs, unit) -> rj.Model:
    """A model of which two weights are left to fit: params `{"w": [2]}`."""
    first, *rest = params

    def apply(two, X):
        w = jnp.asarray(first["w"]).at[inputs, unit].set(two["w"])
        return model.apply(({**first, "w": w}, *rest), X)

    return rj.Model(lambda key: {"w": first["w"][inputs, unit]}, apply, model.affine)


def fitted_network(settings: Settings, X, y) -> tuple:
    """A network, its fitted params, and the two largest weights into one unit."""
    model = rj.models.mlp([X.shape[1], settings.hidden, 1], activation="tanh")
    problem = rj.Problem(model, LOSS, rj.penalties.l2())
    key = jax.random.key(settings.seed)
    fit = rj.fit(problem, X, y, settings.network_lam, solver=SOLVER, key=key)
    sizes = np.abs(fit.params[0]["w"])
    unit = sizes.max(axis=0).argmax()
    return model, fit.params, np.argsort(-sizes[:, unit])[:2], unit


def edge_of_ball(size: float, l1_ratio: float, points: int) -> np.ndarray:
    """Where `Omega(w) = size`, [points, 2], one point in each direction."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    u = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # The root r of l1_ratio |u|_1 r + (1 - l1_ratio)/2 r^2 = size.
    b = l1_ratio * np.abs(u).sum(1, keepdims=True)
    return u * 2 * size / (b + np.sqrt(b**2 + 2 * (1 - l1_ratio) * size))


def draw_fit(ax, walk: np.ndarray, chosen: int, edge: np.ndarray) -> None:
    """The ball of one fit, and how the fit walks."""
    ax.fill(*edge.T, fc="#d3e4f3", ec="tab:blue", lw=1.8, label="ball of the penalty")
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.4", lw=0.6)
    ax.margins(0.12)
    ax.plot(*walk.T, color="black", lw=1.5, label=r"the fit, as $\lambda$ grows from 0")
    ax.plot(*walk[-1], "P", color="black", ms=9, mec="w", label="least loss")
    style = {"c": "tab:red", "ms": 10, "mec": "w", "zorder": 5}
    ax.plot(*walk[chosen], "o-", **style, label="one fit, and its contour")


def draw_contours(ax, loss_at, through: np.ndarray) -> None:
    """Contours of the loss; the one through a fit in red."""
    view = [np.linspace(*ends, 161) for ends in (ax.get_xlim(), ax.get_ylim())]
    grid = np.stack(np.meshgrid(*view), axis=-1)
    losses = np.asarray(loss_at(grid.reshape(-1, 2))).reshape(grid.shape[:2])
    levels = losses.min() + np.ptp(losses) * np.linspace(0, 1, 18)[1:] ** 2
    ax.contour(*view, losses, levels, colors="0.75", linewidths=0.8)
    ax.contour(*view, losses, loss_at(through[None]), colors="tab:red", linewidths=1.8)


def draw_row(axes, settings: Settings, X, y, model: rj.Model, share: float) -> None:
    """Fit and draw one model, and compare each fit with the best of its edge."""

    def loss(w):
        return LOSS.value(model.apply({"w": w}, X), y).mean()

    loss_at = jax.jit(lambda w: jax.lax.map(loss, w, batch_size=1000))
    fits = []
    for ax, (name, l1_ratio) in zip(axes, settings.penalties, strict=True):
        problem = rj.Problem(model, LOSS, rj.penalties.elastic_net(l1_ratio))
        path = rj.fit_path(problem, X, y, lams=LAMS, solver=SOLVER)
        walk = path.params["w"]
        omega = np.array([problem.penalty.value({"w": w}, 1.0) for w in walk])
        chosen = int(np.abs(omega - share * omega[-1]).argmin())
        fits.append(walk[chosen])
        edge = edge_of_ball(omega[chosen], l1_ratio, settings.edge_points)
        apart = np.linalg.norm(edge[loss_at(edge).argmin()] - fits[-1])
        print(f"{name:16} fit {fits[-1].round(4)!s:17} {apart:.1e} from the best")
        draw_fit(ax, walk, chosen, edge[:: len(edge) // 1000])
        ax.set(title=rf"{name}, $\lambda$ = {path.lams[chosen]:.2g}", aspect="equal")
    for ax, through in zip(axes, fits, strict=True):
        draw_contours(ax, loss_at, through)


def main(settings: Settings) -> None:
    """Fit, check against the edge of the ball, draw."""
    jax.config.update("jax_enable_x64", True)
    data = rj.datasets.load(settings.data)
    X, y = ((a - a.mean(0)) / a.std(0) for a in (data.X, data.y[:, None]))
    linear = rj.models.linear(X.shape[1], 1, bias=False)
    features = np.array([data.feature_names.index(f) for f in settings.features])
    zeros = linear.init(jax.random.key(0))
    slices = (linear, zeros, features, 0), fitted_network(settings, X, y)
    figure, axes = plt.subplots(
        2, 3, figsize=(11, 6.9), sharex="row", sharey="row", layout="constrained"
    )
    for i, kind in enumerate(("coefficient", "network weight")):
        names = [data.feature_names[j] for j in slices[i][2]]
        print(f"{kind}s of {names[0]} and {names[1]}")
        draw_row(axes[i], settings, X, y, frozen(*slices[i]), settings.shares[i])
        axes[i, 0].set_ylabel(f"{kind} of {names[1]}")
        plt.setp(axes[i], xlabel=f"{kind} of {names[0]}")
    figure.suptitle("A fit is where a contour of the loss meets the penalty's ball")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, ncols=4, loc="outside lower center", frameon=False)
    raw, file = io.BytesIO(), pathlib.Path(__file__).with_suffix(".png")
    figure.savefig(raw, dpi=100)
    # Few colours, for a third of the bytes.
    PIL.Image.open(raw).convert("RGB").quantize(96).save(file, optimize=True)


if __name__ == "__main__":
    main(Settings())
