"""Independent solvers in NumPy, float64: what the library's answers are held to.

All minimise `sum_i a_i loss(x_i . w + b, y_i) + lam (r |w|_1 + (1 - r)/2 |w|_2^2)`
with a = 1/n and b free; each checks its own optimality before it answers. `Convex` is
slower, and knows weights, offsets, factors, bounds, groups and several outputs.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, gammaln, logsumexp


def elastic_net(w, l1_ratio):
    """`r |w|_1 + (1 - r)/2 |w|_2^2`."""
    return l1_ratio * np.abs(w).sum() + (1 - l1_ratio) / 2 * (w**2).sum()


def squared_objective(w, b, X, y, lam, l1_ratio):
    """Mean half squared error plus penalty."""
    return 0.5 * np.mean((y - X @ w - b) ** 2) + lam * elastic_net(w, l1_ratio)


def logistic_objective(w, b, X, y, lam, l1_ratio):
    """Mean binary cross-entropy plus penalty, y in {0, 1}."""
    eta = X @ w + b
    return np.mean(np.logaddexp(0, eta) - y * eta) + lam * elastic_net(w, l1_ratio)


def least_squares(X, y, lam, l1_ratio, shares=None, tol=1e-15, sweeps=100_000):
    """Cyclic coordinate descent on `1/2 sum a_i (y_i - x_i . w - b)^2 + penalty`.

    Source: Friedman, Hastie & Tibshirani (2010), J. Stat. Softw. 33.
    """
    a = np.full(len(y), 1 / len(y)) if shares is None else shares
    x_mean, y_mean = a @ X / a.sum(), a @ y / a.sum()
    Z, residual = X - x_mean, y - y_mean
    squares = a @ Z**2
    w = np.zeros(X.shape[1])
    for _ in range(sweeps):
        largest = 0.0
        for j in range(len(w)):
            rho = a @ (Z[:, j] * residual) + squares[j] * w[j]
            shrunk = np.sign(rho) * max(abs(rho) - lam * l1_ratio, 0.0)
            new = shrunk / (squares[j] + lam * (1 - l1_ratio))
            residual -= (new - w[j]) * Z[:, j]
            largest = max(largest, abs(new - w[j]))
            w[j] = new
        if largest <= tol * np.abs(w).max():
            break
    check_optimal(w, -Z.T @ (a * residual), lam, l1_ratio)
    return w, y_mean - x_mean @ w


def logistic(X, y, lam, l1_ratio):
    """Newton's method; each quadratic model is solved by `least_squares`."""
    w, b = np.zeros(X.shape[1]), 0.0
    for _ in range(30):
        mean = expit(X @ w + b)
        curvature = mean * (1 - mean)
        working = X @ w + b + (y - mean) / curvature
        w, b = least_squares(X, working, lam, l1_ratio, curvature / len(y))
    slope = expit(X @ w + b) - y
    assert abs(slope.mean()) < 1e-12
    check_optimal(w, X.T @ slope / len(y), lam, l1_ratio)
    return w, b


def check_optimal(w, gradient, lam, l1_ratio, tol=1e-12):
    """0 is in `gradient + lam (r d|w|_1 + (1 - r) w)`, and no zero is a near tie."""
    slope = gradient + lam * (1 - l1_ratio) * w
    bound = lam * l1_ratio
    assert np.all(np.abs(slope + bound * np.sign(w))[w != 0] < tol)
    assert np.all(np.abs(slope[w == 0]) < bound * (1 - 1e-6))


class Groups(NamedTuple):
    """`r |w|_1 + (1 - r) sum_g c_g |w_g|_2` of w [p, k], any groups.

    Attributes:
      numbers: [p, k] group of each weight, 0 ... G-1.
      weights: c, [G].
      l1_ratio: r.
    """

    numbers: np.ndarray
    weights: np.ndarray
    l1_ratio: float = 0.0

    def norms(self, w):
        """[G]."""
        return np.sqrt(np.bincount(self.numbers.ravel(), (w**2).ravel()))

    def value(self, w):
        """Omega."""
        r = self.l1_ratio
        return r * np.abs(w).sum() + (1 - r) * self.weights @ self.norms(w)

    def prox(self, v, t):
        """Soft threshold t r, then groups by t (1 - r) c_g (Simon et al. 2013).

        t: a number, or [p, k] with one number a group.
        """
        soft = np.sign(v) * np.maximum(np.abs(v) - t * self.l1_ratio, 0.0)
        share = self.weights / np.maximum(self.norms(soft), 1e-300)
        return soft * np.maximum(1 - t * (1 - self.l1_ratio) * share[self.numbers], 0)

    def check_optimal(self, w, gradient, lam, tol=1e-11):
        """0 is in the subdifferential, and no zero is a near tie."""
        r, norms = self.l1_ratio, self.norms(w)
        on, clear = norms > 0, lam * (1 - 1e-3)
        push = np.sign(gradient) * np.maximum(np.abs(gradient) - clear * r, 0.0)
        assert np.all(self.norms(push)[~on] <= clear * (1 - r) * self.weights[~on])
        share = (self.weights / np.where(on, norms, 1.0))[self.numbers]
        slope = gradient + lam * (r * np.sign(w) + (1 - r) * share * w)
        assert np.all(np.abs(slope[w != 0]) < tol)
        alone = on[self.numbers] & (w == 0)
        assert np.all(np.abs(gradient[alone]) <= clear * r)


def group_least_squares(X, Y, lam, groups, most=100_000):
    """`(least value, w [p, k], b [k])` of `1/(2n) sum |y_i - x_i w - b|^2 + lam Omega`.

    Proximal gradient steps, with momentum that restarts uphill.
    """
    Z, residual = X - X.mean(0), Y - Y.mean(0)
    hessian, push = Z.T @ Z / len(X), Z.T @ residual / len(X)
    step = 1 / np.linalg.eigvalsh(hessian)[-1]
    w = ahead = np.zeros(push.shape)
    t = 1.0
    for _ in range(most):
        new = groups.prox(ahead - step * (hessian @ ahead - push), step * lam)
        if np.abs(new - ahead).max() <= 1e-15 * np.abs(new).max():
            break
        if ((ahead - new) * (new - w)).sum() > 0:
            t = 1.0
        grown = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
        ahead = new + (t - 1) / grown * (new - w)
        w, t = new, grown
    groups.check_optimal(new, hessian @ new - push, lam)
    fit = 0.5 * ((residual - Z @ new) ** 2).sum() / len(X)
    return fit + lam * groups.value(new), new, Y.mean(0) - X.mean(0) @ new


class Convex(NamedTuple):
    """`sum_i a_i loss(x_i w + b + o_i, y_i) + lam Omega(w) + ridge/2 |w|^2` in NumPy.

    Omega is `sum_j c_j (r |w_j| + (1 - r)/2 w_j^2)`, or `sum_j c_j |w_j|_2` over the
    outputs where `l1_ratio` is None; c_j = inf holds w_j at 0.

    Attributes:
      loss: a name in `LOSSES`.
      X: [n, p].
      y: [n, k], classes as one-hot rows.
      lam: weight of the penalty.
      l1_ratio: r; None: group.
      weights: [n].
      offset: [n, k].
      factors: [p].
      low: least coefficient.
      high: greatest one.
      ridge: fixed, on w only.
      bias: whether there is b.
    """

    loss: str
    X: np.ndarray
    y: np.ndarray
    lam: float
    l1_ratio: float | None = 1.0
    weights: np.ndarray | float = 1.0
    offset: np.ndarray | float = 0.0
    factors: np.ndarray | float = 1.0
    low: np.ndarray | float = -np.inf
    high: np.ndarray | float = np.inf
    ridge: float = 0.0
    bias: bool = True

    @property
    def shares(self):
        """[n, 1] weights over their sum."""
        weights = np.broadcast_to(np.asarray(self.weights, float), len(self.X))
        return (weights / weights.sum())[:, None]

    def rows(self, values):
        """[p, 1] of a number or [p]."""
        return np.broadcast_to(np.asarray(values, float), self.X.shape[1])[:, None]

    def omega(self, w):
        """Omega of w, inf beyond the bounds."""
        c = self.rows(self.factors)
        outside = (w < self.rows(self.low)) | (w > self.rows(self.high))
        if np.any(outside | (np.isinf(c) & (w != 0))):
            return np.inf
        c = np.where(np.isinf(c), 1.0, c)
        if self.l1_ratio is None:
            return float((c[:, 0] * np.linalg.norm(w, axis=1)).sum())
        r = self.l1_ratio
        return float((c * (r * np.abs(w) + (1 - r) / 2 * w**2)).sum())

    def smooth(self, w, b):
        """Loss and ridge, and their gradients in w and b."""
        value, slope = LOSSES[self.loss]
        eta = self.X @ w + b + self.offset
        a = self.shares
        v = a * slope(eta, self.y)
        total = (a[:, 0] * value(eta, self.y)).sum() + self.ridge / 2 * (w**2).sum()
        return total, self.X.T @ v + self.ridge * w, v.sum(0) * self.bias

    def objective(self, w, b):
        """What is minimised."""
        return self.smooth(w, b)[0] + self.lam * self.omega(w)

    def prox(self, v, step):
        """`argmin_w 1/2 |w - v|^2 + step lam Omega(w)`."""
        c = self.rows(self.factors)
        t = step * self.lam * np.where(np.isinf(c), 1.0, c)
        if self.l1_ratio is None:
            size = np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)
            w = v * np.maximum(1 - t / size, 0.0)
        else:
            r = self.l1_ratio
            w = np.sign(v) * np.maximum(np.abs(v) - t * r, 0.0) / (1 + t * (1 - r))
        w = np.clip(w, self.rows(self.low), self.rows(self.high))
        return np.where(np.isinf(c), 0.0, w)

    def minimum(self, tol=1e-10, most=100_000):
        """`(least value, w, b)`: FISTA with backtracking and restarts.

        Ends where the prox-gradient mapping, 0 at a minimum only, is below tol.
        """
        k = self.y.shape[1]
        w, b = np.zeros((self.X.shape[1], k)), np.zeros(k)
        before, curvature, t = (w, b), 1.0, 1.0
        for _ in range(most):
            push = (t - 1) / (0.5 * (1 + np.sqrt(1 + 4 * t * t)))
            u, c = w + push * (w - before[0]), b + push * (b - before[1])
            here, gw, gb = self.smooth(u, c)
            while True:
                new_w = self.prox(u - gw / curvature, 1 / curvature)
                new_b = c - gb / curvature
                dw, db = new_w - u, new_b - c
                with np.errstate(over="ignore"):
                    there = self.smooth(new_w, new_b)[0]
                bound = (gw * dw).sum() + (gb * db).sum()
                bound += curvature / 2 * ((dw**2).sum() + (db**2).sum())
                if there <= here + bound + 1e-13 * abs(here):
                    break
                curvature *= 2
            uphill = (dw * (new_w - w)).sum() + (db * (new_b - b)).sum() < 0
            t = 1.0 if uphill else 0.5 * (1 + np.sqrt(1 + 4 * t * t))
            before, w, b = (w, b), new_w, new_b
            if curvature * max(np.abs(dw).max(), np.abs(db).max()) < tol:
                return self.objective(w, b), w, b
            curvature *= 0.98
        raise AssertionError(f"the reference did not converge: {dw}, {db}")


def _softmax(eta):
    p = np.exp(eta - eta.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


# name -> (losses [n], slopes [n, k]) of eta and y, both [n, k]
LOSSES = {
    "half_squared_error": (
        lambda eta, y: ((eta - y) ** 2 / 2).sum(1),
        lambda eta, y: eta - y,
    ),
    "sigmoid_binary_cross_entropy": (
        lambda eta, y: (np.logaddexp(0, eta) - y * eta).sum(1),
        lambda eta, y: expit(eta) - y,
    ),
    "softmax_cross_entropy": (
        lambda eta, y: logsumexp(eta, axis=1) - (y * eta).sum(1),
        lambda eta, y: _softmax(eta) - y,
    ),
    "poisson_nll": (
        lambda eta, y: (np.exp(eta) - y * eta + gammaln(y + 1)).sum(1),
        lambda eta, y: np.exp(eta) - y,
    ),
}
