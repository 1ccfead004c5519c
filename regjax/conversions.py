"""From other packages' numbers to `lam`, in the units of the equation.

Lasso and ElasticNet of scikit-learn, glmnet's lambda and torch's SGD weight decay
need no function: their numbers are lam (with `l1_ratio`, glmnet's alpha). AdamW's
decay is another thing and has no lam.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def seed(lambda_: float, n: int) -> float:
    """Lam of the seed's lambda, for sums of losses over n rows."""
    return lambda_ / n


def sklearn_ridge(alpha: float, n: int) -> float:
    """Lam of `Ridge(alpha)` on n rows, with `l2` and `half_squared_error`."""
    return alpha / n


def sklearn_logistic(C: float, n: int) -> float:
    """Lam of `LogisticRegression(C)` on n rows."""
    return 1 / (n * C)


def sklearn_mlp(alpha: float, batch_size: int) -> float:
    """Lam of `MLPClassifier(alpha)` and `MLPRegressor(alpha)`, with `l2`."""
    return alpha / batch_size


def glmnet_factors(penalty_factor: Any) -> np.ndarray:
    """Factors that glmnet uses for its `penalty.factor` [p]: rescaled to sum p."""
    factors = np.asarray(penalty_factor, float)
    return factors * factors.size / factors.sum()
