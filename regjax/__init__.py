"""Regularization paths: one equation, hundreds of lam at once, in JAX."""

from regjax import (
    conversions,
    datasets,
    grids,
    losses,
    models,
    penalties,
    solvers,
    transforms,
)
from regjax.path import certify, fit, fit_path
from regjax.results import Fit, Path, load
from regjax.types import Loss, Model, Penalty, Problem, Status

__version__ = "0.1.0"

__all__ = [
    "Fit",
    "Loss",
    "Model",
    "Path",
    "Penalty",
    "Problem",
    "Status",
    "certify",
    "conversions",
    "datasets",
    "fit",
    "fit_path",
    "grids",
    "load",
    "losses",
    "models",
    "penalties",
    "solvers",
    "transforms",
]
