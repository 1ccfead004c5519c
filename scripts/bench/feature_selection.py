"""Networks that choose their inputs: regjax and LassoNet, side by side.

Both get the same rows, columns standardised by the training rows, and a network with
one hidden layer. Settings are tuned by the same rule: the best mean score over the list
of k on a fifth of the training rows of the first split; then five splits, 30 % held
out. At each k a contestant's score is that of its model with the most inputs, at most
k of them.

regjax is timed as its users would call it: a pilot fit, a path of adaptive group lasso
(an input's weights are a group), and a refit on every support. LassoNet is timed on its
path alone, in full batches, by its own defaults but for longer steps of lam where
`multiplier` says so. "refitted" are LassoNet's supports
with regjax's refit: what its choice of inputs is worth, apart from its shrinkage.

    pip install lassonet                       # and torch, the CPU build
    python scripts/bench/feature_selection.py
    python scripts/bench/feature_selection.py --only digits --splits 2
    python scripts/bench/feature_selection.py --protocol   # k = 50, then extra trees
    python scripts/bench/feature_selection.py --lanes      # cost per lam, 16 to 1024
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

import regjax as rj

PILOT = 3e-3  # lam of the pilot fit
LAMS, POLISH = 32, 8
OURS = [{"ridge": r, "power": a} for r in (1e-2, 1e-3) for a in (0.0, 1.0)]
THEIRS = [{"M": 10.0}, {"M": 100.0}]


class Case(NamedTuple):
    """A data set and what is asked of it."""

    name: str
    data: rj.datasets.Dataset
    hidden: int
    ks: tuple[int, ...]
    multiplier: float = 1.05  # of LassoNet's lam; its default, 1.02: 2.5 times as long
    splits: int = 5


def cases() -> Iterator[Case]:
    """The data sets."""
    load = rj.datasets.load
    yield Case(
        "digits", load("digits"), 64, (4, 6, 8, 12, 16, 20, 25, 30, 40, 64), 1.02
    )
    yield Case("breast_cancer", load("breast_cancer"), 32, (2, 4, 6, 8, 12, 16, 20, 30))
    yield Case("wine", load("wine"), 16, (1, 2, 3, 4, 6, 8, 13))
    given = rj.datasets.friedman(1000, 50, seed=0)
    yield Case("friedman", given, 32, (3, 4, 5, 6, 8, 10, 15, 20, 30, 50))
    try:
        fashion = load("fashion_mnist")
    except ValueError as error:
        print(f"fashion_mnist is left out: {error}")
        return
    chosen = np.random.default_rng(0).choice(len(fashion.y), 10_000, replace=False)
    fashion = fashion._replace(X=fashion.X[chosen], y=fashion.y[chosen])
    ks = (10, 25, 50, 100, 200, 400, 784)
    yield Case("fashion_mnist", fashion, 64, ks, multiplier=1.2, splits=1)


class Rows(NamedTuple):
    """Standardised rows."""

    X: np.ndarray
    y: np.ndarray


def split(data: rj.datasets.Dataset, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Training and held-out rows, by the training rows' means and deviations."""
    train, test = rj.datasets.split(data, test_fraction=fraction, seed=seed)
    mean, scale = train.X.mean(0), train.X.std(0)
    scale[scale == 0] = 1
    X, X_test = (((part.X - mean) / scale).astype(np.float32) for part in (train, test))
    y, y_test = train.y, test.y
    if data.class_names is None:
        middle, spread = y.mean(), y.std()
        y, y_test = ((part - middle) / spread for part in (y, y_test))
        y, y_test = y.astype(np.float32), y_test.astype(np.float32)
    return Rows(X, y), Rows(X_test, y_test)


def problem_of(case: Case, ridge: float, factors: Any = None) -> rj.Problem:
    """Group lasso on the inputs of a network."""
    classes, p = case.data.class_names, case.data.X.shape[1]
    k = 1 if classes is None else len(classes)
    loss = rj.losses.half_squared_error()
    if classes is not None:
        loss = rj.losses.softmax_cross_entropy()
    model = rj.models.mlp([p, case.hidden, k], "relu")
    penalty = rj.penalties.group(where="0/w", factors=factors)
    return rj.Problem(model, loss, penalty, ridge)


def solver(train: Rows, polish: int) -> Any:
    """About as many steps for all sizes of data."""
    epochs = int(np.clip(30_000 / len(train.y), 10, 100))
    return rj.solvers.minibatch(epochs=epochs, polish=polish)


def ours(case: Case, train: Rows, ridge: float, power: float) -> rj.Path:
    """Pilot, path and refit."""
    how = {"solver": solver(train, POLISH)}
    problem = problem_of(case, ridge)
    if power:
        pilot = rj.fit(problem, *train, lam=PILOT, **how)
        factors = rj.penalties.adaptive_factors(pilot.params[0]["w"], power)
        problem = problem_of(case, ridge, factors)
    path = rj.fit_path(problem, *train, lams=LAMS, **how)
    return rj.relax(problem, path, *train, solver=solver(train, 0))


def theirs(case: Case, train: Rows, M: float) -> tuple[Any, list]:
    """LassoNet's path, by its defaults but for the hidden units."""
    import torch
    from lassonet import LassoNetClassifier, LassoNetRegressor

    torch.manual_seed(0)
    kind = LassoNetRegressor if case.data.class_names is None else LassoNetClassifier
    given = {"path_multiplier": case.multiplier, "verbose": 0}
    model = kind(hidden_dims=(case.hidden,), M=M, **given)
    return model, model.path(*train, return_state_dicts=True)


def at_most(counts: np.ndarray, scores: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
    """Score of the model with the most inputs, k at most; the last such in order."""
    found = []
    for k in ks:
        most = np.where(counts <= k, counts, -1)
        found.append(scores[np.flatnonzero(most == most.max())[-1]])
    return np.array(found)


def our_scores(case: Case, path: rj.Path, test: Rows) -> np.ndarray:
    """At every k."""
    return at_most(path.selected.sum(-1), path.score(*test), case.ks)


def their_scores(case: Case, model: Any, history: list, test: Rows) -> np.ndarray:
    """At every k."""
    scores = []
    for item in history:
        model.load(item.state_dict)
        predicted = model.predict(test.X).reshape(test.y.shape)
        if case.data.class_names is None:
            scores.append(1 - np.mean((predicted - test.y) ** 2) / test.y.var())
        else:
            scores.append(np.mean(predicted == test.y))
    counts = np.array([int(item.selected.sum()) for item in history])
    return at_most(counts, np.array(scores), case.ks)


def refitted(case: Case, history: list, train: Rows, test: Rows, ridge: float):
    """LassoNet's supports, one of each size, with our refit."""
    by_size = {int(item.selected.sum()): item.selected.numpy() for item in history}
    supports = np.array([by_size[size] for size in sorted(by_size)])
    how = {"solver": solver(train, 0)}
    problem = problem_of(case, ridge)
    start = rj.fit(problem, *train, lam=0.0, **how)
    lams = np.geomspace(1, 0.1, len(supports))
    path = rj.fit_path(problem, *train, lams, solver=rj.solvers.minibatch(epochs=1))
    params = jax.tree.map(lambda a: np.stack([a] * len(supports)), start.params)
    params[0]["w"] = params[0]["w"] * supports[:, :, None]
    path = rj.relax(problem, path.replace(params=params), *train, **how)
    return our_scores(case, path, test)


def tuned(case: Case) -> tuple[dict, dict]:
    """Settings of both, by a fifth of the first split's training rows."""
    train, _ = rj.datasets.split(case.data, test_fraction=0.3, seed=0)
    train, valid = split(train, 0.2, 0)
    quick = case._replace(multiplier=1.1)
    mean = [our_scores(case, ours(case, train, **s), valid).mean() for s in OURS]
    other = [
        their_scores(case, *theirs(quick, train, **s), valid).mean()
        for s in (THEIRS if case.splits > 1 else THEIRS[:1])
    ]
    return OURS[int(np.argmax(mean))], THEIRS[int(np.argmax(other))]


def timed(call: Any) -> tuple[float, Any]:
    """`(seconds, result)`."""
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def compare(case: Case) -> None:
    """All lines of one data set."""
    mine, its = tuned(case)
    print(f"\n{case.name}, {case.hidden} hidden units; regjax {mine}, LassoNet {its}")
    names = "regjax", "lassonet", "refitted"
    scores: dict[str, list] = {name: [] for name in names}
    seconds: dict[str, list] = {name: [] for name in names[:2]}
    for seed in range(case.splits):
        train, test = split(case.data, 0.3, seed)
        if seed == 0:
            first, _ = timed(lambda train=train: ours(case, train, **mine))
        spent, path = timed(lambda train=train: ours(case, train, **mine))
        seconds["regjax"].append(spent)
        scores["regjax"].append(our_scores(case, path, test))
        spent, (model, history) = timed(lambda train=train: theirs(case, train, **its))
        seconds["lassonet"].append(spent)
        scores["lassonet"].append(their_scores(case, model, history, test))
        given = history, train, test, mine["ridge"]
        scores["refitted"].append(refitted(case, *given))
    print(f"{'k':>10}" + "".join(f"{k:8d}" for k in case.ks))
    arrays = {name: np.array(rows) for name, rows in scores.items()}
    for name, rows in arrays.items():
        print(f"{name:>10}" + "".join(f"{x:8.3f}" for x in rows.mean(0)))
    gain = arrays["regjax"] - arrays["lassonet"]
    error = gain.std(0, ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0 * gain[0]
    print(f"{'gain':>10}" + "".join(f"{x:8.3f}" for x in gain.mean(0)))
    print(f"{'+-':>10}" + "".join(f"{x:8.3f}" for x in error))
    a, b = (float(np.median(seconds[name])) for name in names[:2])
    print(
        f"regjax {a:.2f} s (the first time {first:.1f}), LassoNet {b:.1f} s for "
        f"{len(history)} lams: {b / a:.1f}x; mean gain {gain.mean():.3f}",
        flush=True,
    )


def protocol() -> None:
    """LassoNet's Table 2: 50 inputs of Fashion-MNIST, then extra trees on them."""
    from sklearn.ensemble import ExtraTreesClassifier

    case = next(case for case in cases() if case.name == "fashion_mnist")
    for seed in range(3):
        train, test = split(case.data, 0.2, seed)
        spent, path = timed(lambda t=train: ours(case, t, **OURS[-1]))
        used = path.at(n_features=50)
        chosen = path.selected[np.flatnonzero(path.lams == used.lam)[0]]
        trees = ExtraTreesClassifier(random_state=0).fit(train.X[:, chosen], train.y)
        score = trees.score(test.X[:, chosen], test.y)
        print(
            f"split {seed}, {OURS[-1]}: {chosen.sum()} inputs, extra trees "
            f"{score:.3f}, the network itself {used.score(*test):.3f}, {spent:.1f} s",
            flush=True,
        )


def lanes(count: int) -> None:
    """Cost of a lam of one sweep of `count`, in a process of its own."""
    case = next(cases())
    train, _ = split(case.data, 0.3, 0)
    problem, how = problem_of(case, 1e-2), {"solver": solver(train, POLISH)}
    lams = np.geomspace(0.3, 1e-3, count)
    rj.fit_path(problem, *train, lams, **how)
    spent, _ = timed(lambda: rj.fit_path(problem, *train, lams, **how))
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
    print(
        f"{count:6} lams {spent:8.2f} s {1e3 * spent / count:8.2f} ms a lam {peak} MiB"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="data sets")
    parser.add_argument("--splits", type=int, help="fewer of them")
    parser.add_argument("--protocol", action="store_true")
    parser.add_argument("--lanes", action="store_true")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.count:
        return lanes(args.count)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    if args.lanes:
        for count in (16, 64, 256, 1024):
            alone = [sys.executable, __file__, "--count", str(count)]
            subprocess.run(alone, check=True)
        return None
    if args.protocol:
        return protocol()
    for case in cases():
        if not args.only or case.name in args.only:
            if args.splits:
                case = case._replace(splits=min(case.splits, args.splits))
            compare(case)
    return None


if __name__ == "__main__":
    main()
