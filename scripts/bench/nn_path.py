"""L1 path of a digits network, 64-64-10: regjax and its peers, side by side.

Every contestant trains the same network with Adam, batches of 128 of 1797 rows, at
64 lams for 20 epochs, and lives in a process of its own. They are timed in turn,
round after round, so that a drift of the machine meets all of them; a figure is the
median of the rounds. regjax is timed as a user calls it, `fit_path` with everything
in it, but without the polish, which no peer has. Two peers are timed on 4 lams and
scaled to 64, and the table says so.

    python scripts/bench/nn_path.py            # needs pip install -e '.[bench]'
    python scripts/bench/nn_path.py --only regjax vmap --rounds 5

It runs on a GPU unchanged.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

HIDDEN, BATCH, RATE = 64, 128, 1e-2


@dataclasses.dataclass(frozen=True)
class Settings:
    """What everybody is asked to do."""

    lams: int = 64
    epochs: int = 20

    @property
    def grid(self) -> np.ndarray:
        """[lams], largest first."""
        return np.geomspace(1e-2, 1e-5, self.lams).astype(np.float32)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels in [0, 1] and labels."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def flops(settings: Settings) -> float:
    """Of the matrix products alone: forward, and backward without the inputs'."""
    X, _ = digits()
    steps = -(-len(X) // BATCH) * settings.epochs
    per_row = 4 * X.shape[1] * HIDDEN + 6 * HIDDEN * 10
    return float(settings.lams * steps * BATCH * per_row)


def regjax(settings: Settings) -> Callable[[], float]:
    """`rj.fit_path`, whole, polish off."""
    import regjax as rj

    X, y = digits()
    problem = rj.Problem(
        rj.models.mlp([64, HIDDEN, 10]),
        rj.losses.softmax_cross_entropy(),
        rj.penalties.l1(),
    )
    solver = rj.solvers.minibatch(
        "adam", BATCH, settings.epochs, polish=0, learning_rate=RATE
    )

    def run() -> float:
        path = rj.fit_path(problem, X, y, settings.grid, solver=solver)
        return float(path.loss[len(path) // 2])

    return run


def _jax_fit(settings: Settings):
    """One fit as a user would write it: jitted, lam an argument."""
    import jax
    import jax.numpy as jnp
    import optax

    X, labels = digits()
    X, y = jnp.asarray(X), jax.nn.one_hot(labels, 10)
    n, steps = len(X), -(-len(X) // BATCH)
    total = settings.epochs * steps
    adam = optax.adam(optax.cosine_decay_schedule(RATE, total))

    def loss(params, X, y):
        h = jax.nn.sigmoid(X @ params["w1"] + params["b1"])
        eta = h @ params["w2"] + params["b2"]
        return optax.softmax_cross_entropy(eta, y).mean()

    def fit(lam):
        k1, k2 = jax.random.split(jax.random.key(0))
        params = {
            "w1": jax.random.normal(k1, (64, HIDDEN)) / 8,
            "b1": jnp.zeros(HIDDEN),
            "w2": jax.random.normal(k2, (HIDDEN, 10)) / 8,
            "b2": jnp.zeros(10),
        }

        def step(carry, rows):
            params, state = carry
            grad = jax.grad(loss)(params, X[rows], y[rows])
            updates, state = adam.update(grad, state, params)
            params = optax.apply_updates(params, updates)
            count = state[0].count
            rate = RATE * 0.5 * (1 + jnp.cos(jnp.pi * (count - 1) / total))
            for name in ("w1", "w2"):
                nu = state[0].nu[name] / (1 - 0.999**count)
                t = rate * lam / (jnp.sqrt(nu) + 1e-8)
                w = params[name]
                shrunk = jnp.sign(w) * jnp.maximum(jnp.abs(w) - t, 0)
                params = {**params, name: shrunk}
            return (params, state), None

        def epoch(carry, number):
            key = jax.random.fold_in(jax.random.key(1), number)
            order = jax.random.permutation(key, n)
            rows = order[jnp.arange(steps * BATCH) % n].reshape(steps, BATCH)
            return jax.lax.scan(step, carry, rows)[0], None

        start = (params, adam.init(params))
        (params, _), _ = jax.lax.scan(epoch, start, jnp.arange(settings.epochs))
        return params, loss(params, X, y)

    return fit


def loop(settings: Settings) -> Callable[[], float]:
    """A Python loop over lam of one jitted fit."""
    import jax

    fit = jax.jit(_jax_fit(settings))

    def run() -> float:
        found = [fit(lam) for lam in settings.grid]
        jax.block_until_ready(found)
        return float(found[len(found) // 2][1])

    return run


def vmap(settings: Settings) -> Callable[[], float]:
    """`jax.jit(jax.vmap(fit))` over all lams."""
    import jax

    fit = jax.jit(jax.vmap(_jax_fit(settings)))

    def run() -> float:
        _, losses = jax.block_until_ready(fit(settings.grid))
        return float(losses[len(losses) // 2])

    return run


def _torch_setup():
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    X, y = digits()
    return torch, torch.tensor(X, device=device), torch.tensor(y, device=device)


def torch_func(settings: Settings) -> Callable[[], float]:
    """`torch.func.vmap(grad)` over stacked params, Adam and prox by hand."""
    torch, X, y = _torch_setup()
    lams = torch.tensor(settings.grid, device=X.device).reshape(-1, 1, 1)
    functional = torch.nn.functional

    def loss(params, X, y):
        h = torch.sigmoid(X @ params["w1"] + params["b1"])
        return functional.cross_entropy(h @ params["w2"] + params["b2"], y)

    grads = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None))

    def run() -> float:
        torch.manual_seed(0)
        one = {
            "w1": torch.randn(64, HIDDEN, device=X.device) / 8,
            "b1": torch.zeros(HIDDEN, device=X.device),
            "w2": torch.randn(HIDDEN, 10, device=X.device) / 8,
            "b2": torch.zeros(10, device=X.device),
        }
        params = {k: v.expand(settings.lams, *v.shape).clone() for k, v in one.items()}
        m = {k: torch.zeros_like(v) for k, v in params.items()}
        v2 = {k: torch.zeros_like(v) for k, v in params.items()}
        t = 0
        for _ in range(settings.epochs):
            order = torch.randperm(len(X), device=X.device)
            for rows in order.split(BATCH):
                t += 1
                for k, g in grads(params, X[rows], y[rows]).items():
                    m[k].mul_(0.9).add_(g, alpha=0.1)
                    v2[k].mul_(0.999).addcmul_(g, g, value=0.001)
                    size = RATE / ((v2[k] / (1 - 0.999**t)).sqrt_().add_(1e-8))
                    params[k].sub_(size * m[k] / (1 - 0.9**t))
                    if k[0] == "w":
                        params[k] = functional.relu(params[k].abs() - size * lams).mul_(
                            params[k].sign()
                        )
        middle = {k: v[settings.lams // 2] for k, v in params.items()}
        return float(loss(middle, X, y))

    return run


def torch_loop(settings: Settings) -> Callable[[], float]:
    """A loop over lam of ordinary torch fits; an L1 subgradient, as users write it."""
    torch, X, y = _torch_setup()

    def fit(lam: float) -> float:
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(64, HIDDEN), torch.nn.Sigmoid(), torch.nn.Linear(HIDDEN, 10)
        ).to(X.device)
        adam = torch.optim.Adam(net.parameters(), lr=RATE)
        weights = [p for name, p in net.named_parameters() if "weight" in name]
        cross_entropy = torch.nn.functional.cross_entropy
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(X), device=X.device).split(BATCH):
                adam.zero_grad()
                penalty = sum(w.abs().sum() for w in weights)
                (cross_entropy(net(X[rows]), y[rows]) + lam * penalty).backward()
                adam.step()
        with torch.no_grad():
            return float(cross_entropy(net(X), y))

    return lambda: [fit(float(lam)) for lam in settings.grid][settings.lams // 2]


def sklearn(settings: Settings) -> Callable[[], float]:
    """A loop of scikit-learn's MLPClassifier, which has L2 only."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    X, y = digits()
    warnings.simplefilter("ignore", ConvergenceWarning)

    def fit(lam: float) -> float:
        net = MLPClassifier(
            (HIDDEN,),
            activation="logistic",
            alpha=lam * BATCH,
            batch_size=BATCH,
            learning_rate_init=RATE,
            max_iter=settings.epochs,
            n_iter_no_change=settings.epochs,
            random_state=0,
        ).fit(X, y)
        return float(-np.mean(net.predict_log_proba(X)[np.arange(len(y)), y]))

    return lambda: [fit(float(lam)) for lam in settings.grid][settings.lams // 2]


CONTESTANTS = {
    "regjax": regjax,
    "loop": loop,
    "vmap": vmap,
    "torch_func": torch_func,
    "torch_loop": torch_loop,
    "sklearn": sklearn,
}
FEW = {"torch_loop": 4, "sklearn": 4}  # lams timed; the rest is extrapolated


def work(name: str, settings: Settings) -> None:
    """A contestant: one line on standard input, one fit, one line of figures."""
    run = CONTESTANTS[name](settings)
    for _ in sys.stdin:
        begun = time.perf_counter()
        loss = run()
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"s": seconds, "loss": loss, "mib": peak}), flush=True)


class Contestant:
    """A process that waits for its turn."""

    def __init__(self, name: str, settings: Settings):
        self.name, self.scale = name, settings.lams / FEW.get(name, settings.lams)
        few = FEW.get(name, settings.lams)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", name, str(few), str(settings.epochs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def turn(self) -> dict[str, float]:
        """Figures of one run, scaled to all lams."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed; see its message above")
        found = json.loads(line)
        return {**found, "s": found["s"] * self.scale}

    def end(self) -> None:
        """Let it go."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def sgemm() -> tuple[float, str]:
    """FLOP/s of a large float32 product in jax, and the device."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: jnp.dot(a, a, precision="highest"))
    product(a).block_until_ready()
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - begun)
    return 2 * 2048**3 / min(times), jax.devices()[0].device_kind


def compare(names: list[str], settings: Settings, rounds: int) -> None:
    """Print the table."""
    rate, device = sgemm()
    print(f"{device}, sgemm {rate / 1e9:.0f} GFLOP/s; digits 64-{HIDDEN}-10,")
    print(f"{settings.lams} lams x {settings.epochs} epochs, batch {BATCH}, Adam\n")
    contestants = [Contestant(name, settings) for name in names]
    first = [c.turn() for c in contestants]
    turns = [[c.turn() for c in contestants] for _ in range(rounds)]
    for contestant in contestants:
        contestant.end()
    head = f"{'':12} {'s':>8} {'/ regjax':>9} {'of sgemm':>9} {'first +s':>9}"
    print(f"{head} {'peak MiB':>9} {'loss':>8}")
    for i, name in enumerate(names):
        seconds = statistics.median(turn[i]["s"] for turn in turns)
        ratio = statistics.median(turn[i]["s"] / turn[0]["s"] for turn in turns)
        extra = first[i]["s"] / contestants[i].scale - seconds / contestants[i].scale
        share = flops(settings) / seconds / rate
        print(
            f"{name:12} {seconds:8.2f} {ratio:9.2f} {share:9.1%} {extra:9.2f} "
            f"{turns[-1][i]['mib']:9.0f} {turns[-1][i]['loss']:8.4f}"
            + (f"   from {FEW[name]} lams" if name in FEW else "")
        )


def growth(epochs: int, rounds: int) -> None:
    """Print how regjax's time grows with the number of lams."""
    print(f"\n{'lams':>6} {'s':>8} {'ms a lam':>9} {'peak MiB':>9}")
    for lams in (1, 4, 16, 64, 256, 1024):
        contestant = Contestant("regjax", Settings(lams, epochs))
        contestant.turn()
        turns = [contestant.turn() for _ in range(rounds)]
        contestant.end()
        seconds = statistics.median(turn["s"] for turn in turns)
        print(
            f"{lams:6} {seconds:8.2f} {1e3 * seconds / lams:9.2f} "
            f"{turns[-1]['mib']:9.0f}"
        )


def main() -> None:
    """Read the command line and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lams", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        name, lams, epochs = args.work
        work(name, Settings(int(lams), int(epochs)))
        return
    names = args.only or list(CONTESTANTS)
    if "regjax" in names:
        names = ["regjax", *(name for name in names if name != "regjax")]
    compare(names, Settings(args.lams, args.epochs), args.rounds)
    if not args.no_growth:
        growth(args.epochs, max(1, args.rounds // 2))


if __name__ == "__main__":
    main()
