"""Independent solvers in NumPy, float64: what the library's answers are held to.

All minimise `sum_i a_i loss(x_i . w + b, y_i) + lam (r |w|_1 + (1 - r)/2 |w|_2^2)`
with a = 1/n and b free; each checks its own optimality before it answers.
"""

import numpy as np
from scipy.special import expit


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
