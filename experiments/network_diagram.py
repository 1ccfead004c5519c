"""A fitted network as a drawing: its edges vanish as lam grows.

Claim: growing lam takes edges, inputs and hidden units away whole, and the smallest
network that still explains 90 % of the deviance of the training rows knows held-out
wines as well as the full one.
Number to expect: 26 of 96 edges, 10 of 13 inputs and 3 of 6 hidden units are left
at lam = .021, and all 53 held-out wines are right (52 with all edges).

Run: `python -m experiments.network_diagram`, which draws
`experiments/network_diagram.png` and, with every lam, `.gif`.
"""

import dataclasses
import io
import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from matplotlib.collections import LineCollection

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fitted and drawn."""

    data: str = "wine"
    test_fraction: float = 0.3
    hidden: int = 6
    ridge: float = 5e-3  # without it, lam = 0 has no minimiser on separable classes
    lams: tuple[float, float, int] = (8e-4, 0.12, 24)
    explained: float = 0.9  # the third network drawn is the smallest one above it
    second: float = 5e-3  # lam of the second network drawn
    seconds_per_lam: float = 0.3


def grow_lam(settings: Settings, train: rj.datasets.Dataset) -> list[rj.Fit]:
    """Fits from lam = 0 upwards, each started from the one before."""
    sizes = [train.X.shape[1], settings.hidden, len(train.class_names)]
    model = rj.models.mlp(sizes, activation="tanh")
    loss, penalty = rj.losses.softmax_cross_entropy(), rj.penalties.l1()
    problem = rj.Problem(model, loss, penalty, settings.ridge)
    options = {
        "solver": rj.solvers.proximal_gradient(tol=1e-5, max_iter=20_000),
        "standardize": True,
    }
    fits = [rj.fit(problem, train.X, train.y, 0.0, **options)]
    for lam in np.geomspace(*settings.lams):
        start = fits[-1].params
        fits.append(rj.fit(problem, train.X, train.y, lam, init=start, **options))
    return fits


def alive(fit: rj.Fit) -> list[np.ndarray]:
    """Which inputs, hidden units and outputs have an edge."""
    first, second = (layer["w"] != 0 for layer in fit.params)
    return [first.any(1), first.any(0) | second.any(1), second.any(0)]


def draw(ax, fit: rj.Fit, names: tuple, caption: str) -> None:
    """One network; edges are as wide as the root of their weight, red if negative."""
    used = alive(fit)
    heights = [np.linspace(1, 0, len(on) + 2)[1:-1] for on in used]
    for layer, w in enumerate(layer["w"] for layer in fit.params):
        i, j = np.nonzero(w)
        left = np.stack([np.full(len(i), layer), heights[layer][i]], axis=1)
        right = np.stack([np.full(len(j), layer + 1), heights[layer + 1][j]], axis=1)
        lines = LineCollection(
            np.stack([left, right], axis=1),
            linewidths=0.3 + 1.7 * np.sqrt(np.abs(w[i, j])),
            colors=np.where(w[i, j] < 0, "tab:red", "tab:blue"),
            alpha=0.75,
        )
        ax.add_collection(lines)
    for x, (y, on) in enumerate(zip(heights, used, strict=True)):
        colors = {"c": np.where(on, "0.25", "white")}
        edges = np.where(on, "0.25", "0.8")
        ax.scatter(np.full(len(y), x), y, s=42, edgecolors=edges, zorder=3, **colors)
    for layer, side, x in [(0, "right", -0.07), (2, "left", 2.07)]:
        for y, on, name in zip(heights[layer], used[layer], names[layer], strict=True):
            style = {"ha": side, "va": "center", "color": "black" if on else "0.75"}
            ax.text(x, y, name.replace("_", " "), size=8, **style)
    ax.set(xlim=(-1.22, 2.5), ylim=(0.03, 0.97))
    ax.set_title(caption, size=10)
    ax.axis("off")


def picture(figure, dpi: int) -> PIL.Image.Image:
    """The figure as pixels."""
    raw = io.BytesIO()
    figure.savefig(raw, dpi=dpi)
    return PIL.Image.open(raw).convert("RGB")


def main(settings: Settings) -> None:
    """Fit, count, draw."""
    jax.config.update("jax_enable_x64", True)
    data = rj.datasets.load(settings.data)
    train, test = rj.datasets.split(data, settings.test_fraction)
    names = data.feature_names, (), data.class_names
    fits, captions = grow_lam(settings, train), []
    for fit in fits:
        inputs, hidden, _ = (on.sum() for on in alive(fit))
        right = round(float(fit.score(test.X, test.y)) * len(test.y))
        count = f"{fit.n_nonzero} edges, {right} of {len(test.y)} held-out right"
        captions.append(rf"$\lambda$ = {fit.lam:.2g}: {count}")
        print(
            f"lam {fit.lam:7.5f} {inputs:2} inputs, {hidden} hidden, {count},", end=" "
        )
        print(f"{fit.dev_ratio:.3f} explained, {rj.Status(fit.status).name}")

    enough = [i for i, fit in enumerate(fits) if fit.dev_ratio >= settings.explained]
    early = np.searchsorted([fit.lam for fit in fits], settings.second)
    file = pathlib.Path(__file__).with_suffix(".png")
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    for ax, i in zip(axes.flat, (0, early, enough[-1], len(fits) - 1), strict=True):
        draw(ax, fits[i], names, captions[i])
    figure.suptitle(
        f"A network with an L1 penalty on {settings.data}, as $\\lambda$ grows"
    )
    picture(figure, 90).quantize(64).save(file, optimize=True)  # few colours: small

    figure, frames = plt.figure(figsize=(5.6, 4.4)), []
    ax = figure.add_axes((0.01, 0, 0.97, 0.93))  # a fixed place in all frames
    for fit, caption in zip(fits, captions, strict=True):
        ax.clear()
        draw(ax, fit, names, caption)
        frames.append(picture(figure, 95))
    # One palette, so that a pixel which stays needs no bytes.
    palette = frames[enough[-1]].quantize(32)
    frames = [f.quantize(palette=palette, dither=PIL.Image.Dither.NONE) for f in frames]
    frames[0].save(
        file.with_suffix(".gif"),
        save_all=True,
        append_images=[*frames[1:], *[frames[-1]] * 6],
        duration=int(1000 * settings.seconds_per_lam),
        loop=0,
    )


if __name__ == "__main__":
    main(Settings())
