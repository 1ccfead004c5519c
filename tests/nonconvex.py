"""Non-convex penalties of one coordinate, in NumPy."""

from typing import Any, NamedTuple

import numpy as np

import regjax as rj


class NonConvex(NamedTuple):
    """A penalty, p(|w|; lam) in NumPy, and the longest step at which lambda_max holds.

    `value(w, lam)` is per coordinate, `end` where it is constant, in units of lam.
    """

    penalty: Any
    value: Any
    end: float
    longest: float


def mcp(gamma):
    """Zhang (2010): the integral of lam (1 - s / (gamma lam))+."""

    def value(w, lam):
        w = np.abs(w)
        inner = lam * w - w**2 / (2 * gamma)
        return np.where(w <= gamma * lam, inner, gamma * lam**2 / 2)

    return NonConvex(rj.penalties.mcp(gamma), value, gamma, gamma)


def scad(a):
    """Fan & Li (2001), equation 2.3, integrated by hand."""

    def value(w, lam):
        w = np.abs(w)
        middle = (2 * a * lam * w - w**2 - lam**2) / (2 * (a - 1))
        outer = np.where(w <= a * lam, middle, lam**2 * (a + 1) / 2)
        return np.where(w <= lam, lam * w, outer)

    return NonConvex(rj.penalties.scad(a), value, a, a + 1)


NONCONVEX = {
    "mcp(3)": mcp(3.0),
    "mcp(1.2)": mcp(1.2),
    "scad(3.7)": scad(3.7),
    "scad(2.1)": scad(2.1),
}
