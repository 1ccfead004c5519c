"""LassoNet's hierarchy: an input enters the network only where its skip is not 0."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from regjax import trees
from regjax.names import number
from regjax.penalties.extent import Extent, check_extent, describe
from regjax.types import Array, Params, Penalty


class Pair(NamedTuple):
    """Which two leaves are tied, input by input (their first axis).

    Attributes:
      skip: regex of the skip's key path.
      where: regex of the first layer's; None: the weight leaf beside the skip.
    """

    skip: str
    where: str | None

    def places(self, params: Params) -> tuple[int, int]:
        """Places of the skip and of the first layer among the leaves of params.

        Raises:
          ValueError: not one leaf each, or of unequal first axes.
        """
        paths = trees.key_paths(params)
        known = f"the key paths are {', '.join(paths)}"
        skips = [i for i, path in enumerate(paths) if re.search(self.skip, path)]
        if len(skips) != 1:
            raise ValueError(
                f"skip: {self.skip!r} matches {len(skips)} leaves, not one: "
                "hierarchical needs a model with a linear skip, such as "
                f"mlp(..., skip=True); {known}"
            )
        skip = skips[0]
        layers = [
            i
            for i, path in enumerate(paths)
            if i != skip and self._fits(path, paths[skip])
        ]
        if len(layers) != 1:
            raise ValueError(
                f"where={self.where!r} matches {len(layers)} leaves for the first "
                f"layer beside {paths[skip]}, not one; give a regex of its key path; "
                f"{known}"
            )
        _check_axes(params, paths, skip, layers[0])
        return skip, layers[0]

    def _fits(self, path: str, skip: str) -> bool:
        if self.where is not None:
            return re.search(self.where, path) is not None
        (*beside, name), (*container, _) = path.split("/"), skip.split("/")
        return beside == container and name not in trees.BIASES

    def rows(self, params: Params) -> tuple[Array, Array]:
        """Skip [p, k] and first layer [p, h]."""
        leaves, places = jax.tree.leaves(params), self.places(params)
        skip, w = (leaves[i].reshape(leaves[i].shape[0], -1) for i in places)
        return skip, w

    def put(self, params: Params, skip: Array, w: Array) -> Params:
        """Params with these two leaves, broadcast and reshaped."""
        leaves, treedef = jax.tree.flatten(params)
        for i, new in zip(self.places(params), (skip, w), strict=True):
            size = leaves[i].shape[0], leaves[i].size // leaves[i].shape[0]
            leaves[i] = jnp.broadcast_to(new, size).reshape(leaves[i].shape)
        return treedef.unflatten(leaves)


def _check_axes(params: Params, paths: list[str], *places: int) -> None:
    leaves = jax.tree.leaves(params)
    skip, w = (np.shape(leaves[i]) for i in places)
    if not skip[:1] or skip[:1] != w[:1]:
        names = " and ".join(paths[i] for i in places)
        raise ValueError(
            f"where: the first axes of {names} must both be the inputs, "
            f"the shapes are {list(skip)} and {list(w)}"
        )


def hierarchical(
    M: float = 10.0, skip: str = "skip$", where: Any = None, factors: Any = None
) -> Penalty:
    r"""LassoNet's penalty of a network with a linear skip, input by input.

    .. math:: \Omega(\theta, W) = \sum_j c_j \|\theta_j\|_2 \quad\text{subject to}\quad
              \max_h |W_{jh}| \le M \|\theta_j\|_2

    `theta [p, k]` is the skip, `W [p, h]` the first layer: an input whose skip is 0
    is out of the whole network. M = 0 is the group lasso of the skip alone, a larger M
    gives the network more room. It is not convex; zero is stationary iff
    `max_j (|g_theta_j|_2 + M |g_W_j|_1) / c_j <= lam`.

    As with any penalty of one layer, the problem has a minimiser only with `ridge`.
    A step per coordinate must be the same for all numbers of an input, in both
    leaves: `pool` makes it so, and the prox takes each input's mean step.

    Args:
      M: how far weights may go beyond the skip, >= 0; a run-time value under jit.
      skip: regex of the key path of the skip; one leaf must match.
      where: regex of the key path of the first layer; None for the one weight leaf
        in the same container as the skip: `0/w` beside `0/skip`.
      factors: [p], one per input, that lam is multiplied by: 0 for not penalised
        (the constraint still holds), inf for excluded; not rescaled. None for 1.

    Raises:
      ValueError: M negative, infinite or NaN; a skip or where that is no regex;
        factors negative or all 0 or inf. By its functions: params without the two
        leaves.

    Source: Lemhadri, Ruan, Abraham & Tibshirani (2021), JMLR 22 (127).
    """
    M = number("M", M)
    if not 0 <= M < float("inf"):
        raise ValueError(f"M: must be >= 0 and finite, got {M:g}")
    pair = Pair(_regex("skip", skip), None if where is None else _regex("where", where))
    extent = check_extent(factors, None)
    bound = (M, extent, pair)
    return Penalty(
        value=Partial(_value, *bound),
        prox=Partial(_prox, *bound),
        lambda_max=Partial(_lambda_max, *bound),
        pool=Partial(_pool, pair),
        convex=False,
        selected=Partial(_selected, extent, pair),
        config=describe("hierarchical", {"M": M, "skip": skip}, where, extent),
    )


def _regex(name: str, text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{name}: must be a regex of a key path, got {text!r}")
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{name}: {text!r} is no regex: {error}") from None
    return text


def _selected(extent: Extent, pair: Pair, params: Params) -> Params:
    leaves, treedef = jax.tree.flatten(params)
    places = pair.places(params)
    chosen = treedef.unflatten([i in places for i in range(len(leaves))])
    extent.check(chosen, params)
    return chosen


def _rows(extent: Extent, pair: Pair, params: Params) -> tuple[Array, Array]:
    _selected(extent, pair, params)
    return pair.rows(params)


def _value(M, extent, pair, params: Params, lam: Array) -> Array:
    theta, w = _rows(extent, pair, params)
    size = _norm(theta)
    value = lam * jnp.sum(extent.finite_factors(theta) * size)
    # What an update `new - old` may round off: an optimiser's sum is not the prox.
    rounding = 1 + jnp.finfo(w.dtype).eps ** 0.5
    value = jnp.where(jnp.any(jnp.abs(w) > rounding * M * size), jnp.inf, value)
    return extent.inside(w, extent.inside(theta, value))


def _prox(M, extent, pair, params: Params, lam: Array, step: Any) -> Params:
    theta, w = _rows(extent, pair, params)
    t = lam * extent.finite_factors(theta) * _input_step(pair, params, step)
    theta, w = hier_prox(theta, w, t, M)
    return pair.put(params, extent.clip(theta), extent.clip(w))


def hier_prox(v: Array, U: Array, t: Array, M: Array) -> tuple[Array, Array]:
    r"""Exact prox of every input, for any M.

    .. math:: \arg\min_{\theta, W} \tfrac12 \|\theta - v\|_2^2
              + \tfrac12 \|W - U\|_2^2 + t \|\theta\|_2
              \quad\text{s.t.}\quad \max_h |W_h| \le M \|\theta\|_2

    Given the length b of theta, theta is v made as long and W is U clipped to M b.
    What is left is convex in b; its slope `b - |v| + t - M sum_h (|U_h| - M b)_+` is
    the least, over m, of the lines that count the m largest |U_h| without the
    positive part. So its root is the largest of theirs,

    .. math:: b = \max\Big(0, \max_{m = 0 \dots h}
              \frac{|v| - t + M \sum_{i \le m} |U|_{(i)}}{1 + m M^2}\Big),

    and no interval has to be searched for. Where v is 0 and b is not, every
    direction is as good: theta is then the same positive number for all outputs.

    Args:
      v: [p, k] skips.
      U: [p, h] first layer.
      t: [] or [p, 1] threshold of |theta|, step times lam times factor.
      M: [] ratio.

    Returns:
      theta [p, k], W [p, h]; finite with finite derivatives, also at 0.

    Source: Lemhadri et al. (2021), algorithm 2, with lam_bar = 0.
    """
    size, length = _norm(v), jnp.abs(U)
    near = jax.lax.stop_gradient(_largest_root(size - t, length, M))
    # The line that wins, again, with its derivatives.
    over = length > M * near
    count = jnp.sum(over, axis=1, keepdims=True)
    total = jnp.sum(jnp.where(over, length, 0.0), axis=1, keepdims=True)
    b = jnp.maximum((size - t + M * total) / (1 + count * M**2), 0.0)
    share = b / jnp.where(size > 0, size, 1.0)
    theta = jnp.where(size > 0, v * share, b / v.shape[1] ** 0.5)
    return theta, jnp.clip(U, -M * b, M * b)


def _largest_root(ahead: Array, length: Array, M: Array) -> Array:
    """Largest of 0 and `(ahead + M sum of m largest) / (1 + m M^2)`, [p, 1]."""
    # Positive floats are in the order of their bits, which sort four times as fast.
    bits = jax.lax.bitcast_convert_type(length, f"int{8 * length.dtype.itemsize}")
    rising = jax.lax.bitcast_convert_type(jnp.sort(bits, axis=1), length.dtype)
    sums = jax.lax.cumsum(rising, axis=1, reverse=True)
    counts = jnp.arange(sums.shape[1], 0, -1, dtype=sums.dtype)[None, :]
    roots = (ahead + M * sums) / (1 + counts * M**2)
    return jnp.maximum(jnp.max(roots, axis=1, keepdims=True), jnp.maximum(ahead, 0.0))


def _norm(rows: Array) -> Array:
    """[p, k] -> [p, 1], 0 with its gradient where the squares underflow."""
    squares = jnp.sum(rows**2, axis=1, keepdims=True)
    known = squares > jnp.finfo(rows.dtype).tiny
    return jnp.where(known, jnp.sqrt(jnp.where(known, squares, 1.0)), 0.0)


def _input_step(pair: Pair, params: Params, step: Any) -> Array:
    """One number, or [p, 1], an input's mean."""
    if jax.tree.structure(step) == jax.tree.structure(0):
        return step
    full = jax.tree.map(lambda s, w: jnp.broadcast_to(s, w.shape), step, params)
    return _means(*pair.rows(full))


def _means(skip: Array, w: Array) -> Array:
    return jnp.mean(jnp.concatenate([skip, w], axis=1), axis=1, keepdims=True)


def _pool(pair: Pair, tree: Params) -> Params:
    mean = _means(*pair.rows(tree))
    return pair.put(tree, mean, mean)


def _lambda_max(M, extent, pair, grad: Params) -> Array:
    theta, w = map(extent.push, _rows(extent, pair, grad))
    return trees.largest(_norm(theta) + M * jnp.sum(w, axis=1, keepdims=True))
