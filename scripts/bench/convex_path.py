"""Convex paths against glmnet, scikit-learn and celer, at equal measured gap.

For every case the peer's tolerance is tightened until its own answers have a largest
duality gap, measured by `rj.certify` in float64 at 15 of the lams, no larger than the
target; ours is given the target as its tolerance and its answers are measured by the
same yardstick. Where ours is half of the target or less, the peer is tightened to the
gap of ours as well, in a second line: equal measured gaps. All are timed on whole
calls from the same X in memory, centring included, the median of three; compiling is
excluded and reported beside (all gaps of a case share their programs, so it is the
first's), as is the peak memory of a process that does only that path, to 1e-4. Ours is
float32, but for the case of a gap that float32 cannot reach; the peers get the same
arrays.

    python scripts/bench/convex_path.py                 # needs Rscript and glmnet
    python scripts/bench/convex_path.py --only digits breast_cancer
    python scripts/bench/convex_path.py --only lasso --peers sklearn celer

A peer that is not installed is left out. It runs on a GPU unchanged.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator

import jax
import numpy as np

import regjax as rj

HERE = pathlib.Path(__file__).parent
FAMILIES = {
    "half_squared_error": "gaussian",
    "sigmoid_binary_cross_entropy": "binomial",
    "softmax_cross_entropy": "multinomial",
}
THRESHS = [10.0**-k for k in range(5, 15)]


@dataclasses.dataclass
class Case:
    """One row of the table.

    Attributes:
      name: of it.
      X: [n, p] float32, or float64.
      y: [n].
      loss: name of it.
      gaps: targets, absolute; none: glmnet's own at its default tolerance.
      l1_ratio: of the elastic net.
      grouped: over classes.
      folds: of a cross-validation; 0: a path.
      lams: how many.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    loss: str
    gaps: tuple[float, ...]
    l1_ratio: float = 1.0
    grouped: bool = False
    folds: int = 0
    lams: int = 98

    @property
    def problem(self) -> rj.Problem:
        """The equation."""
        k = int(self.y.max()) + 1 if self.loss == "softmax_cross_entropy" else 1
        penalty = rj.penalties.elastic_net(self.l1_ratio)
        if self.grouped:
            penalty = rj.penalties.group()
        model = rj.models.linear(self.X.shape[1], k)
        return rj.Problem(model, getattr(rj.losses, self.loss)(), penalty)

    def ours(self, lams: np.ndarray, gap: float, null: float) -> Callable:
        """What is timed."""
        solver = rj.solvers.proximal_gradient(tol=gap / null)
        given = self.problem, self.X, self.y
        if self.folds:
            number = np.arange(len(self.y)) % self.folds
            return lambda: rj.cross_validate(*given, number, lams, solver=solver).path
        return lambda: rj.fit_path(*given, lams, solver=solver)

    def largest_gap(self, lams: np.ndarray, params: list) -> float:
        """Of 15 lams, by `rj.certify` in float64."""
        jax.config.update("jax_enable_x64", True)
        X, problem = self.X.astype(float), self.problem
        places = np.unique(np.linspace(0, len(lams) - 1, 15).astype(int))
        found = [rj.certify(problem, X, self.y, lams[i], params[i]) for i in places]
        self.set_width()
        return max(found)

    def set_width(self) -> None:
        """64 bits in jax where X has them."""
        jax.config.update("jax_enable_x64", self.X.dtype == np.float64)


def lasso(n: int, p: int, rho: float = 0.5, nonzero: int = 20):
    """X [n, p], neighbouring columns correlated by rho, and y with a third of noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p)).astype(np.float32)
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    y = X[:, rng.choice(p, nonzero, False)] @ rng.standard_normal(nonzero)
    y = y + rng.standard_normal(n) * y.std() / 3
    return X, (y / y.std()).astype(np.float32)


def cases(wanted: Callable[[str], bool]) -> Iterator[Case]:
    """Rows of the table, made when they are asked for."""
    softmax, binary = "softmax_cross_entropy", "sigmoid_binary_cross_entropy"
    digits = rj.datasets.load("digits")
    given = digits.X.astype(np.float32), digits.y, softmax
    small = [
        Case("digits l1", *given, (1e-2, 1e-3, 1e-4)),
        Case("digits grouped", *given, (), grouped=True),
        Case("digits 10-fold CV", *given, (1e-2,), folds=10),
    ]
    cancer = rj.datasets.load("breast_cancer")
    X = cancer.X.astype(float)
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    small.append(Case("breast_cancer enet", X, cancer.y, binary, (1e-4,), l1_ratio=0.5))
    yield from (case for case in small if wanted(case.name))
    for n, p, gaps in (
        (10_000, 500, (1e-4,)),
        (100_000, 100, (1e-4,)),
        (1000, 5000, (1e-4,)),
    ):
        if wanted(f"lasso {n} x {p}"):
            given = *lasso(n, p), "half_squared_error"
            yield Case(f"lasso {n} x {p}", *given, gaps, lams=100)
    if wanted("lasso 1000 x 5000 dense"):
        given = *lasso(1000, 5000, nonzero=200), "half_squared_error"
        yield Case("lasso 1000 x 5000 dense", *given, (1e-4,), lams=100)
    if wanted("float64 1000 x 5000"):
        given = *(a.astype(float) for a in lasso(1000, 5000)), "half_squared_error"
        yield Case("float64 1000 x 5000", *given, (1e-7,), lams=100)
    if wanted("logistic 200 x 20000"):
        X, eta = lasso(200, 20_000)
        noise = 0.3 * np.random.default_rng(1).standard_normal(200)
        y = (eta + noise > 0).astype(int)
        yield Case("logistic 200 x 20000", X, y, binary, (1e-4,), lams=100)


def glmnet(case: Case, lams: np.ndarray, gap: float) -> tuple[float, float, str] | None:
    """`(seconds, gap, setting)` of the loosest thresh that reaches the gap."""
    if shutil.which("Rscript") is None:
        return None
    n, p = case.X.shape
    k = int(case.y.max()) + 1 if case.loss == "softmax_cross_entropy" else 1
    for thresh in THRESHS if np.isfinite(gap) else [1e-7]:
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            case.X.astype(float).T.tofile(place / "X.bin")
            case.y.astype(float).tofile(place / "y.bin")
            np.asarray(lams, float).tofile(place / "lambda.bin")
            kind = "grouped" if case.grouped else "ungrouped"
            words = n, p, FAMILIES[case.loss], case.l1_ratio, kind, case.folds, thresh
            (place / "task.txt").write_text("\n".join(map(str, words)) + "\n")
            run = ["Rscript", str(HERE / "convex_path.R"), folder]
            subprocess.run(run, check=True, capture_output=True, timeout=100)
            found = np.fromfile(place / "fit1.bin")
        seconds, count = found[0], int(found[1])
        a0 = found[2 : 2 + k * count].reshape(count, k)
        beta = found[2 + k * count :].reshape(k, count, p)
        params = [({"w": beta[:, i].T, "b": a0[i]},) for i in range(count)]
        reached = case.largest_gap(lams[:count], params)
        if reached <= gap:
            return seconds, reached, f"thresh {thresh:.0e}"
    return None


def python_peer(loss: str, solve: Callable) -> Callable:
    """A peer whose `solve(X, y, case, lams, tol)` gives w [L, p] and b [L]."""

    def peer(case: Case, lams: np.ndarray, gap: float):
        if case.loss != loss or case.folds:
            return None
        for tol in (10.0 ** (-k / 2) for k in range(4, 23)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                given = case.X, case.y, case, lams, tol
                begun = time.perf_counter()
                ws, bs = solve(*given)
                seconds = time.perf_counter() - begun
                params = [
                    ({"w": w[:, None], "b": np.atleast_1d(b)},)
                    for w, b in zip(ws, bs, strict=True)
                ]
                reached = case.largest_gap(lams, params)
                if reached <= gap:
                    seconds = timed(lambda given=given: solve(*given))
                    return seconds, reached, f"tol {tol:.0e}"
                if seconds > 5:
                    return seconds, reached, f"tol {tol:.0e}, gap not reached"
        return None

    return peer


def sklearn_path(X, y, case, lams, tol):
    """Lasso."""
    from sklearn.linear_model import lasso_path

    mean, shift = X.mean(0), y.mean()
    given = {"alphas": lams, "tol": tol, "max_iter": 100_000}
    w = lasso_path(X - mean, y - shift, **given)[1].T.astype(float)
    return w, shift - w @ mean


def celer_path(X, y, case, lams, tol):
    """Lasso."""
    from celer import celer_path

    mean, shift = X.mean(0), y.mean()
    X = np.asfortranarray(X - mean)
    lams = lams.astype(X.dtype)
    w = celer_path(X, y - shift, "lasso", alphas=lams, tol=tol)[1].T.astype(float)
    return w, shift - w @ mean


def saga_path(X, y, case, lams, tol):
    """Elastic-net logistic regression, each lam from the one before."""
    from sklearn.linear_model import LogisticRegression

    given = {"l1_ratio": case.l1_ratio, "solver": "saga", "max_iter": 100_000}
    model = LogisticRegression(warm_start=True, tol=tol, **given)
    found = []
    for lam in lams:
        model.set_params(C=1 / (len(y) * lam)).fit(X, y)
        found.append((model.coef_[0].astype(float), float(model.intercept_[0])))
    return zip(*found, strict=True)


def peers() -> dict[str, Callable]:
    """Those that are installed."""
    squared, binary = "half_squared_error", "sigmoid_binary_cross_entropy"
    found = {
        "glmnet": glmnet,
        "sklearn": python_peer(squared, sklearn_path),
        "saga": python_peer(binary, saga_path),
    }
    try:
        import celer  # noqa: F401
    except ImportError:
        return found
    return found | {"celer": python_peer(squared, celer_path)}


def timed(call: Callable, rounds: int = 3) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def peak(case: Case, gap: float) -> None:
    """Print the MiB of a process that does one path."""
    case.set_width()
    case.ours(case.lams, gap, 1.0)()  # pyright: ignore
    # Not getrusage: its maximum outlives exec, so that it may be the parent's.
    status = pathlib.Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024)


def own_gap(case: Case, lams: np.ndarray) -> float:
    """glmnet's at its default tolerance; without it, what it was elsewhere."""
    found = glmnet(case, lams, np.inf)
    return 2e-2 if found is None else found[1]


def measure(case: Case, wanted: list[str] | None = None) -> None:
    """All lines of one case, of all peers or those that are wanted."""
    case.set_width()
    rough = rj.solvers.proximal_gradient(tol=0.1)
    first = rj.fit_path(case.problem, case.X, case.y, case.lams, solver=rough)
    lams, null = np.asarray(first.lams, float), first.null_loss
    alone = [sys.executable, __file__, "--peak", case.name]
    memory = subprocess.run(alone, check=True, capture_output=True, text=True)
    jax.clear_caches()
    for gap in case.gaps or (own_gap(case, lams),):
        call = case.ours(lams, gap, null)
        begun = time.perf_counter()
        path = call()
        compiling = time.perf_counter() - begun
        seconds = timed(call)
        reached = case.largest_gap(lams, [path[i].params for i in range(len(path))])
        print(
            f"{case.name:23} {gap:7.0e}  {'regjax':8} {seconds:8.3f} {'':6} "
            f"{reached:8.1e}  compile {compiling - seconds:.1f} s, "
            f"peak {memory.stdout.strip()} MiB, "
            f"worst {rj.Status(int(path.status.max())).name}",
            flush=True,
        )
        goals = [gap] if reached > gap / 2 else [gap, reached]
        chosen = [p for p in peers().items() if wanted is None or p[0] in wanted]
        for (name, peer), goal in itertools.product(chosen, goals):
            try:
                found = peer(case, lams, goal)
            except subprocess.TimeoutExpired:
                found = None
            if found is not None:
                other, its_gap, setting = found
                print(
                    f"{'':23} {goal:7.0e}  {name:8} {other:8.3f} "
                    f"{other / seconds:5.1f}x {its_gap:8.1e}  {setting}",
                    flush=True,
                )


def lanes() -> None:
    """Seconds a lane of the same call on 1 ... 1000 lanes, lam x fold."""
    case = next(cases(lambda name: "cancer" in name))
    grid = np.asarray(rj.fit_path(case.problem, case.X, case.y, 100).lams, float)
    solver = rj.solvers.proximal_gradient(tol=1e-4)
    given, fold = (case.problem, case.X, case.y), np.arange(len(case.y)) % 9
    calls = {
        n: lambda n=n: rj.fit_path(*given, grid[50 // n :: 100 // n], solver=solver)
        for n in (1, 10, 100)
    }
    calls[1000] = lambda: rj.cross_validate(*given, fold, grid, solver=solver)
    for count, call in calls.items():
        call()
        print(
            f"{count:5} lanes  {1e3 * timed(call) / count:8.3f} ms a lane", flush=True
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="of a case's name")
    parser.add_argument("--peers", nargs="+", choices=peers(), help="all, without it")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        return peak(next(cases(lambda name: name == args.peak)), 1e-4)
    warnings.filterwarnings("ignore", message=".*float64.*")
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, python {sys.version.split()[0]}")
    print(f"{'case':23} {'gap':>7}  {'':8} {'s':>8} {'ratio':>6} {'measured':>8}")
    for case in cases(lambda name: not args.only or any(w in name for w in args.only)):
        measure(case, args.peers)
    if args.only is None or "lanes" in args.only:
        lanes()


if __name__ == "__main__":
    main()
