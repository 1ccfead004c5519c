"""Penalties with factors, bounds and groups, and their Omega in NumPy."""

import re
from typing import Any, NamedTuple

import numpy as np

import regjax as rj


class Variant(NamedTuple):
    """A convex penalty, and its Omega in NumPy.

    Omega(w) is the sum over pieces (indices into the flattened leaf, c) of
    `c (r |w_piece| + (1 - r)/2 |w_piece|^2)`, and of `squares/2 w^2`; inf outside of
    low <= w <= high; what is excluded has low = high = 0. Pieces may overlap.
    """

    penalty: Any
    r: float
    pieces: list
    low: np.ndarray
    high: np.ndarray
    squares: np.ndarray = np.zeros(12)

    def omega(self, w):
        w = np.reshape(w, -1)
        if np.any(w < self.low) or np.any(w > self.high):
            return np.inf
        norms = np.array([np.sqrt(np.sum(w[i] ** 2)) for i, _ in self.pieces])
        c = np.array([c for _, c in self.pieces])
        bent = np.sum(self.squares / 2 * w**2)
        return bent + np.sum(c * (self.r * norms + (1 - self.r) / 2 * norms**2))

    def feasible(self, w):
        return np.clip(w, self.low.reshape(P, K), self.high.reshape(P, K))

    @property
    def excluded(self):
        return ((self.low == 0) & (self.high == 0)).reshape(P, K)

    @property
    def bare(self):
        """In no piece with a weight, and not excluded: at most an l2 is there."""
        weighed = np.zeros(P * K, bool)
        for i, c in self.pieces:
            weighed[i] |= c > 0
        return ~weighed.reshape(P, K) & ~self.excluded

    @property
    def free(self):
        """Not penalised and not excluded."""
        return self.bare & (self.squares == 0).reshape(P, K)

    @property
    def blocks(self):
        """The pieces that are in no other: Omega is a sum over them."""
        sets = [set(i) for i, _ in self.pieces]
        return [
            i
            for n, (i, _) in enumerate(self.pieces)
            if not any(
                sets[n] < other or (sets[n] == other and m < n)
                for m, other in enumerate(sets)
            )
        ]

    @property
    def overlaps(self):
        return len(self.blocks) < len(self.pieces)


P, K = 6, 2
PLACES = np.arange(P * K).reshape(P, K)
FACTORS = [1.0, 0.5, 2.0, 0.0, np.inf, 3.0]
GROUPS = [0, 1, 0, 2, 1, 0]
BOUNDS = {
    "": None,
    "positive": (0, np.inf),
    "box": (-0.3, 0.2),
    "arrays": (
        np.array([-np.inf, -1, 0, -0.2, -5, -0.1]),
        [0.5, np.inf, 1, 0, 2, 0.3],
    ),
}


def limits(bounds, factors):
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    low, high = (np.repeat(np.broadcast_to(side, P), K) for side in (low, high))
    excluded = np.repeat(np.isinf(factors), K)
    return np.where(excluded, 0, low), np.where(excluded, 0, high)


def separable(factory, r, bounds, factors, *args):
    c = np.ones(P) if factors is None else np.array(factors)
    finite = np.where(np.isinf(c), 1, c)
    pieces = [(np.array([j]), finite[j // K]) for j in range(P * K)]
    penalty = factory(*args, factors=factors, bounds=bounds)
    return Variant(penalty, r, pieces, *limits(bounds, c))


def grouped(members, weights=None, factors=None, l1_ratio=None, **kwargs):
    """`group`, or `sparse_group` if there is an l1_ratio."""
    c = np.ones(P) if factors is None else np.array(factors)
    weights = np.ones(len(members)) if weights is None else weights
    finite = np.where(np.isinf(weights), 1, weights)
    if l1_ratio is None:
        pieces = list(zip(members, finite, strict=True))
        penalty = rj.penalties.group(factors=factors, **kwargs)
        return Variant(penalty, 1.0, pieces, *limits(None, c))
    each = np.where(np.isinf(c), 1, c)
    pieces = [(i, (1 - l1_ratio) * g) for i, g in zip(members, finite, strict=True)]
    pieces += [(np.array([j]), l1_ratio * each[j // K]) for j in range(P * K)]
    penalty = rj.penalties.sparse_group(l1_ratio, factors=factors, **kwargs)
    return Variant(penalty, 1.0, pieces, *limits(None, c))


def with_ridge(variant, ratio, factors=None):
    """The sum with `scaled(ratio, l2)`."""
    c = np.ones(P) if factors is None else np.array(factors)
    ridge = rj.penalties.scaled(ratio, rj.penalties.l2(factors=factors))
    penalty = rj.penalties.combined(variant.penalty, ridge)
    return variant._replace(penalty=penalty, squares=ratio * np.repeat(c, K))


def scaled(ratio, variant):
    """The penalty at a ratio of lam; of a sum, in a sum of its own."""
    penalty = rj.penalties.combined(rj.penalties.scaled(ratio, variant.penalty))
    pieces = [(i, ratio * c) for i, c in variant.pieces]
    squares = ratio * variant.squares
    return variant._replace(penalty=penalty, pieces=pieces, squares=squares)


ROWS = list(PLACES)
COLUMNS = list(PLACES.T)
ACROSS = [PLACES[np.array(GROUPS) == g].ravel() for g in range(3)]
ROOTS = np.sqrt([len(i) for i in ACROSS])

VARIANTS = {
    f"{label} {bounds} {'factors' * (factors is not None)}".strip(): separable(
        factory, r, BOUNDS[bounds], factors, *args
    )
    for label, factory, r, args, kinds in [
        ("l1", rj.penalties.l1, 1.0, (), BOUNDS),
        ("l2", rj.penalties.l2, 0.0, (), ["", "arrays"]),
        ("elastic_net(0.3)", rj.penalties.elastic_net, 0.3, (0.3,), BOUNDS),
        ("elastic_net(0)", rj.penalties.elastic_net, 0.0, (0.0,), ["arrays"]),
        ("elastic_net(1)", rj.penalties.elastic_net, 1.0, (1.0,), ["positive"]),
    ]
    for bounds in kinds
    for factors in (None, FACTORS)
    # Of the many, those in which factors and bounds meet.
    if factors or bounds == "" or (label == "l1" and bounds != "arrays")
} | {
    "group": grouped(ROWS),
    "group size_weights": grouped(ROWS, np.full(P, 2**0.5), size_weights=True),
    "group factors": grouped(ROWS, FACTORS, FACTORS),
    "group size_weights factors": grouped(
        ROWS, 2**0.5 * np.array(FACTORS), FACTORS, size_weights=True
    ),
    "group axis 0": grouped(COLUMNS, axis=0),
    "group axis 0 size_weights": grouped(
        COLUMNS, np.full(K, 6**0.5), axis=0, size_weights=True
    ),
    "group axes": grouped([PLACES.ravel()], axis=(0, 1)),
    "group groups": grouped(ACROSS, groups=GROUPS),
    "group groups size_weights": grouped(
        ACROSS, ROOTS, groups=GROUPS, size_weights=True
    ),
    "sparse_group(0.3)": grouped(ROWS, l1_ratio=0.3),
    "sparse_group(0.6) size_weights factors": grouped(
        ROWS, 2**0.5 * np.array(FACTORS), FACTORS, 0.6, size_weights=True
    ),
    "sparse_group(0.5) groups size_weights": grouped(
        ACROSS, ROOTS, groups=GROUPS, size_weights=True, l1_ratio=0.5
    ),
    "sparse_group(0.5) axis 0": grouped(COLUMNS, axis=0, l1_ratio=0.5),
}
UNEVEN = [0.0, 1.0, 0.5, 2.0, 0.0, 0.0]
VARIANTS |= {
    "sum of l1 and l2": with_ridge(VARIANTS["l1"], 0.5),
    "sum of l1 arrays factors and l2 factors": with_ridge(
        VARIANTS["l1 arrays factors"], 0.5, UNEVEN
    ),
    "sum of elastic_net and l2": with_ridge(VARIANTS["elastic_net(0.3)"], 2.0),
    "sum of group and l2 factors": with_ridge(VARIANTS["group factors"], 0.3, UNEVEN),
    "sum of group groups and l2": with_ridge(VARIANTS["group groups"], 0.3),
    "sum of sparse_group and l2": with_ridge(VARIANTS["sparse_group(0.3)"], 0.1),
    "scaled sum": scaled(0.4, with_ridge(VARIANTS["group"], 0.3, UNEVEN)),
}
GROUPED = [name for name in VARIANTS if name.startswith("group")]
SPARSE = [name for name in VARIANTS if name.startswith("sparse_group")]
SUMS = [name for name in VARIANTS if re.match("sum|scaled", name)]


def draws(seed=0, times=20):
    """Arrays [P, K] of many sizes, some of their rows 0."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        scale = rng.choice([0.1, 1.0, 10.0])
        yield scale * rng.normal(size=(P, K)) * (rng.random((P, 1)) < 0.9)
