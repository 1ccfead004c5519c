"""From the words of the command line to the objects they name."""

from __future__ import annotations

import inspect
import pathlib
from typing import Any

import jax
import numpy as np

from regjax import datasets, losses, notices, penalties, solvers
from regjax.names import one_of
from regjax.types import Loss, Penalty, Problem


def data(text: str) -> tuple[datasets.Dataset, str]:
    """The data set, and a short name for it."""
    if text.endswith(".npz"):
        return datasets.read_npz(text), pathlib.Path(text).stem
    file, colon, target = text.rpartition(":")
    if colon and file.endswith(".csv"):
        return datasets.read_csv(file, target), pathlib.Path(file).stem
    if text.endswith(".csv"):
        raise ValueError(f"data: name the target column: {text}:TARGET")
    return datasets.load(text), text


def is_softmax(loss: Loss) -> bool:
    """Whether a loss has one output per class."""
    return loss.config is not None and loss.config[0] == "softmax_cross_entropy"


def loss(
    name: str, train: datasets.Dataset, test: datasets.Dataset
) -> tuple[Loss, datasets.Dataset, datasets.Dataset]:
    """The loss, and the data with class names read as numbers where it needs them."""
    classes = train.class_names
    if name == "auto":
        if classes is None:
            name = "half_squared_error"
        elif len(classes) == 2:
            name = "sigmoid_binary_cross_entropy"
        else:
            name = "softmax_cross_entropy"
    loss = losses.REGISTRY[one_of("loss", name, losses.REGISTRY)]()
    if loss.classes:
        if classes is None:
            raise ValueError(f"loss: {name} needs a target of classes")
        if not is_softmax(loss) and len(classes) != 2:
            raise ValueError(f"loss: {name} needs 2 classes, there are {len(classes)}")
        return loss, train, test
    if classes is None:
        return loss, train, test
    try:
        values = np.array([float(label) for label in classes])
    except ValueError:
        raise ValueError(
            f"target: must be numeric for {name}, it holds {classes[0]!r}"
        ) from None
    train, test = (
        part._replace(y=values[part.y], class_names=None) for part in (train, test)
    )
    return loss, train, test


# Options that only some penalties take, and what they are where they must be given.
PENALTY_OPTIONS = {"l1_ratio": 0.5, "gamma": None, "a": None, "M": None, "where": None}


def penalty(args: Any) -> Penalty:
    """The penalty, with the options that it takes; an error for one it does not."""
    name = one_of("penalty", args.penalty, penalties.REGISTRY)
    takes = {
        key: inspect.signature(factory).parameters
        for key, factory in penalties.REGISTRY.items()
    }
    given = {}
    for option, default in PENALTY_OPTIONS.items():
        value = getattr(args, option)
        if option in takes[name]:
            given[option] = default if value is None else value
        elif value is not None:
            fitting = ", ".join(key for key in takes if option in takes[key])
            raise ValueError(f"{option}: only for {fitting}; the penalty is {name}")
    given = {option: value for option, value in given.items() if value is not None}
    return penalties.REGISTRY[name](**given)


def with_ridge(problem: Problem, ridge: float | None) -> Problem:
    """The problem with its ridge; None: what a network needs, see `notices.RIDGE`."""
    if ridge is None:
        free = notices.free_weights(problem, problem.model.init(jax.random.key(0)))
        ridge = notices.RIDGE if free else 0.0
    return problem._replace(ridge=ridge)


def hidden(text: str) -> list[int]:
    """Sizes of hidden layers: `32,16`, or `none`."""
    if text.strip().lower() in ("", "none", "0"):
        return []
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ValueError(
            f"hidden: must be sizes like 32,16 or none: {text!r}"
        ) from None


def lams(text: str) -> int | np.ndarray:
    """A count, a list, or max:min:count."""
    try:
        if ":" in text:
            high, low, count = text.split(":")
            high, low = float(high), float(low)
            if not (0 < low <= high < np.inf and int(count) >= 1):
                raise ValueError
            return np.geomspace(high, low, int(count))
        if text.strip().isdigit():
            return int(text)
        return np.array([float(lam) for lam in text.split(",")])
    except ValueError:
        raise ValueError(
            f"lams: must be a count, a list 0.1,0.01 or max:min:count: {text!r}"
        ) from None


def solver(args: Any) -> Any:
    """Minibatches where any of their settings is given; None: by the model."""
    given = {
        "optimizer": args.optimizer,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "polish": args.polish,
        "learning_rate": args.learning_rate,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return solvers.minibatch(**given) if given else None
