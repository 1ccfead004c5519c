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
from regjax.compress import Compressed, compress
from regjax.cross_validation import CV, cross_validate
from regjax.path import certify, fit, fit_path
from regjax.relaxation import relax
from regjax.results import Fit, Path, load
from regjax.types import Loss, Model, Penalty, Problem, Status

__version__ = "0.1.0"

__all__ = [
    "CV",
    "Compressed",
    "Fit",
    "Loss",
    "Model",
    "Path",
    "Penalty",
    "Problem",
    "Status",
    "certify",
    "compress",
    "conversions",
    "cross_validate",
    "datasets",
    "fit",
    "fit_path",
    "grids",
    "load",
    "losses",
    "models",
    "penalties",
    "relax",
    "solvers",
    "transforms",
]
