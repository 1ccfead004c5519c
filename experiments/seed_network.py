"""The seed's update rules, as printed and corrected, for its own network.

Claim: with signs and scales corrected, the seed's closed forms are the gradient of
the equation; followed as printed, they blow the weights up and spoil the fit.

Number to expect: at all of 2000 updates on digits the corrected rules are jax.grad
to 1e-15, for L1 and L2, W and V. They end at cross-entropy .29 (L2) and .34 (L1); as
printed, at 88 and 1.0, with weights 1280 and 19 times as long.

Run: `python -m experiments.seed_network`, which draws `experiments/seed_network.png`.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import regjax as rj


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the experiment depends on."""

    rows: int = 1000
    hidden: int = 32
    seed_lambda: float = 4.0  # the seed divides it by n: lam = seed_lambda / n
    alpha: float = 0.5
    updates: int = 2000
    key: int = 0


def network(W, V, X):
    """x [n, d] -> z = sigmoid(W' x) [n, m] -> y = softmax(V' z) [n, k]."""
    z = jax.nn.sigmoid(X @ W)
    return z, jax.nn.softmax(z @ V)


def to_V(z, error):
    """1/n sum_n error_k z_m, [m, k]."""
    return jnp.einsum("nk,nm->mk", error, z) / len(z)


def to_W(X, z, V, error):
    """1/n sum_n sum_k error_k V_mk z_m (1 - z_m) x_d, [d, m]."""
    return jnp.einsum("nk,mk,nm,nd->dm", error, V, z * (1 - z), X) / len(z)


def printed_l2(W, V, X, T, a, lam):
    """L2 rules with the signs and scales of the seed."""
    z, y = network(W, V, X)
    return W - a * to_W(X, z, V, T - y) + lam * W, V + a * to_V(z, T - y) + lam * V


def printed_l1(W, V, X, T, a, lam):
    """L1 rules with the signs and scales of the seed."""
    z, y = network(W, V, X)
    return (
        W + a * to_W(X, z, V, T + y) + lam * jnp.sign(W),
        V + a * to_V(z, T - y) + lam * jnp.sign(V),
    )


def corrected(slope, W, V, X, T, a, lam):
    """Ascent on the mean log-likelihood minus lam * Omega; slope is Omega's."""
    z, y = network(W, V, X)
    return (
        W + a * (to_W(X, z, V, T - y) - lam * slope(W)),
        V + a * (to_V(z, T - y) - lam * slope(V)),
    )


corrected_l2 = functools.partial(corrected, lambda w: w)
corrected_l1 = functools.partial(corrected, jnp.sign)


def equation(weights, problem, X, T, lam):
    """F, and the mean cross-entropy in it."""
    params = tuple({"w": w} for w in weights)
    loss = jnp.mean(problem.loss.value(problem.model.apply(params, X), T))
    return loss + problem.penalty.value(params, lam), loss


def train(problem, rule, start, X, T, cfg):
    """Follow a rule from `start`.

    Returns:
      Before each update: length of all weights, cross-entropy [updates], and the
      largest difference of the rule from -jax.grad in W and in V [updates, 2].
    """
    lam = cfg.seed_lambda / len(X)

    def update(weights, _):
        slopes, loss = jax.grad(equation, has_aux=True)(weights, problem, X, T, lam)
        new = rule(*weights, X, T, cfg.alpha, lam)
        apart = [
            jnp.max(jnp.abs((after - before) / cfg.alpha + slope))
            for before, after, slope in zip(weights, new, slopes, strict=True)
        ]
        length = jnp.sqrt(sum(jnp.sum(w**2) for w in weights))
        return new, (length, loss, jnp.stack(apart))

    return jax.device_get(jax.lax.scan(update, start, None, cfg.updates)[1])


def main(cfg=Settings()):
    """Train by all four rules, compare them with jax.grad, draw."""
    jax.config.update("jax_enable_x64", True)
    digits = rj.datasets.load("digits")
    X, T = jnp.asarray(digits.X[: cfg.rows]), jnp.eye(10)[digits.y[: cfg.rows]]
    model = rj.models.mlp([X.shape[1], cfg.hidden, 10], bias=False)
    start = tuple(layer["w"] for layer in model.init(jax.random.key(cfg.key)))
    cross_entropy = rj.losses.softmax_cross_entropy()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    print("                largest |rule + jax.grad|   |weights|      cross-entropy")
    for name, penalty, rule, style in (
        ("L2 as printed", rj.penalties.l2(), printed_l2, "C0--"),
        ("L2 corrected", rj.penalties.l2(), corrected_l2, "C0-"),
        ("L1 as printed", rj.penalties.l1(), printed_l1, "C3--"),
        ("L1 corrected", rj.penalties.l1(), corrected_l1, "C3-"),
    ):
        problem = rj.Problem(model, cross_entropy, penalty)
        length, loss, apart = train(problem, rule, start, X, T, cfg)
        print(
            f"{name:14s}  W {apart[:, 0].max():.1e}  V {apart[:, 1].max():.1e}"
            f"   {length[0]:.1f} -> {length[-1]:<8.4g}"
            f"  {loss[0]:.2f} -> {loss[-1]:.2f} (least {loss.min():.2f})"
        )
        left.semilogy(length, style, label=name)
        right.semilogy(loss, style, label=name)
    right.axhline(np.log(10), color="0.6", lw=0.8, zorder=0)
    right.text(cfg.updates, 1.95, "guessing: ln 10", color="0.4", ha="right")
    left.set(title="Length of all weights", xlabel="update", ylabel="|(W, V)|")
    right.set(title="Cross-entropy of the training rows", xlabel="update")
    right.set_yticks([0.3, 1, 3, 10, 30, 100], ["0.3", "1", "3", "10", "30", "100"])
    right.set_yticks([], minor=True)
    left.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("One network, four update rules: the seed's, and corrected")
    figure.savefig(pathlib.Path(__file__).with_suffix(".png"), dpi=105)


if __name__ == "__main__":
    main()
