"""The command line: `regjax path`, `regjax show`, `regjax plot`."""

from __future__ import annotations

import argparse
import difflib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from regjax import datasets, losses, models, parse, penalties
from regjax.path import fit_path
from regjax.results import Path, load
from regjax.table import worst_status
from regjax.types import Problem, Status

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
      argv: arguments; None for those of the process.

    Returns:
      The exit status: 0, 2 for bad input (one line on standard error), 130 after a
      Ctrl-C (what had finished is kept).
    """
    try:
        args = _parser().parse_args(argv)
        return args.run(args)
    except (ValueError, OverflowError, MemoryError) as error:
        words = " ".join(str(error).split()) or "out of memory"
        print(f"regjax: {words}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("regjax: interrupted before anything had finished", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """Errors become a ValueError, which `main` prints in one line."""

    def error(self, message: str) -> NoReturn:
        known = [o for o in _options(self) if o.startswith("--")]
        hints = [
            f"did you mean {near[0]}?"
            for word in message.split()
            if word.startswith("--")
            and word not in known
            and (near := difflib.get_close_matches(word, known, n=1))
        ]
        raise ValueError("; ".join([message, *hints]))


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Options of a parser and of its commands."""
    names = list(parser._option_string_actions)
    for action in parser._actions:
        for command in action.choices or () if action.dest == "command" else ():
            names += action.choices[command]._option_string_actions  # type: ignore
    return names


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="regjax",
        description="Regularization paths of networks and linear models.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_path(commands)
    show = commands.add_parser("show", help="print the table of a path.npz")
    show.add_argument("file")
    show.set_defaults(run=_show)
    draw = commands.add_parser("plot", help="draw a path.npz")
    draw.add_argument("file")
    draw.add_argument("--out", help="picture to write; default: beside FILE, as .png")
    draw.set_defaults(run=_plot)
    return parser


def _add_path(commands: Any) -> None:
    path = commands.add_parser(
        "path",
        help="solve a path: table, path.npz, path.png",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    names = ", ".join([*datasets.SKLEARN, "fashion_mnist", "prostate"])
    add = path.add_argument
    add("--data", default="digits", help=f"{names}, FILE.csv:TARGET or FILE.npz")
    add("--hidden", default="32", help="sizes of hidden layers, 32,16; none: depth 0")
    add("--activation", default="sigmoid", help=", ".join(models.ACTIVATIONS))
    add("--loss", default="auto", help=f"auto, {', '.join(losses.REGISTRY)}")
    add("--penalty", default="l1", help=", ".join(penalties.REGISTRY))
    add("--l1-ratio", type=float, help="of the elastic net, in [0, 1]; default 0.5")
    add("--ridge", type=float, default=0.0, help="fixed ridge on all weights")
    add("--lams", default="100", help="a count, a list 0.1,0.01 or max:min:count")
    add("--optimizer", help="adam or sgd, by minibatches; default: by the model")
    add("--learning-rate", type=float, help="at the start; default: the optimizer's")
    add("--epochs", type=int, help="passes over the rows (default: 30)")
    add("--batch-size", type=int, help="rows a step (default: 128)")
    add("--polish", type=int, help="full-batch rounds at the end (default: 30)")
    add("--seeds", type=int, default=1, help="starting points per lam")
    add("--standardize", action="store_true", help="columns to mean 0, deviation 1")
    add("--test-fraction", type=float, default=0.2, help="rows held out for the score")
    add("--seed", type=int, default=0, help="of the split and of the starts")
    add("--out", help="folder to write; default: runs/DATA-PENALTY")
    path.set_defaults(run=_path)


def _path(args: argparse.Namespace) -> int:
    begun = time.perf_counter()
    data, label = parse.data(args.data)
    train, test = datasets.split(data, args.test_fraction, _not_negative(args.seed))
    loss, train, test = parse.loss(args.loss, train, test)
    outputs = len(data.class_names or ()) if parse.is_softmax(loss) else 1
    penalty = parse.penalty(args.penalty, args.l1_ratio)
    sizes = [train.X.shape[1], *parse.hidden(args.hidden), outputs]
    problem = Problem(models.mlp(sizes, args.activation), loss, penalty, args.ridge)
    solver, lams = parse.solver(args), parse.lams(args.lams)
    out = _writable(args.out or f"runs/{label}-{args.penalty}")
    _use_compilation_cache()

    path = fit_path(
        problem,
        train.X,
        train.y,
        lams=lams,
        solver=solver,
        seeds=args.seeds,
        standardize=args.standardize,
        key=_key(args.seed),
        progress=sys.stderr.isatty() or _progress_lines(),
    )
    interrupted = isinstance(lams, int) and len(path) < lams
    interrupted |= not isinstance(lams, int) and len(path) < len(lams)
    path = _finished(path, args, label, sizes, data, train, test)
    path.save(out / "path.npz")
    path.plot(out / "path.png")
    print(path)
    _say_where(path, out, time.perf_counter() - begun, interrupted)
    return INTERRUPTED if interrupted else 0


def _finished(
    path: Path,
    args: argparse.Namespace,
    label: str,
    sizes: list[int],
    data: datasets.Dataset,
    train: datasets.Dataset,
    test: datasets.Dataset,
) -> Path:
    """The path with its scores, names and settings."""
    scores = {"train": path.score(train.X, train.y)}
    if len(test.y):
        scores["test"] = path.score(test.X, test.y)
    shape = "-".join(map(str, sizes))
    settings = {k: v for k, v in vars(args).items() if k not in ("run", "command")}
    settings["title"] = f"{label}: {shape}, {args.penalty}, n = {len(train.y)}"
    return path.replace(
        scores=scores,
        feature_names=data.feature_names,
        class_names=data.class_names,
        settings=settings,
    )


def _say_where(
    path: Path, out: pathlib.Path, seconds: float, interrupted: bool
) -> None:
    if interrupted:
        print(f"\ninterrupted: kept the {len(path)} lams that had finished")
    score = "test" if "test" in path.scores else "train"
    values = path.scores[score].reshape(len(path), -1).mean(1)
    usable = worst_status(path) != Status.diverged
    best = int(np.argmax(np.where(usable, values, -np.inf)))
    count = path.n_nonzero.reshape(len(path), -1).mean(1)[best]
    print(
        f"\nwrote {out / 'path.npz'} and {out / 'path.png'} after {seconds:.1f} s\n"
        f"look at: path.png, and the row of lam {path.lams[best]:.3g}, the best "
        f"{score} score ({values[best]:.3f}, {count:.0f} nonzero weights)"
    )
    worst = int(np.sum(worst_status(path) == Status.max_iter))
    if worst:
        print(
            f"{worst} of {len(path)} lams are not at a stationary point yet (compare "
            "columns KKT and Lambda); more iterations bring them closer"
        )


def _show(args: argparse.Namespace) -> int:
    path = load(args.file)
    if path.settings.get("title"):
        print(path.settings["title"])
    print(path)
    return 0


def _plot(args: argparse.Namespace) -> int:
    path = load(args.file)
    out = pathlib.Path(args.out or pathlib.Path(args.file).with_suffix(".png"))
    path.plot(out)
    print(f"wrote {out}")
    return 0


def _not_negative(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"seed: must be >= 0, got {seed}")
    return seed


def _key(seed: int) -> Any:
    import jax

    return jax.random.key(seed)


def _writable(folder: str) -> pathlib.Path:
    """The output folder, made and tried before the work."""
    out = pathlib.Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        for name in ("path.npz", "path.png"):
            if (out / name).is_dir():
                raise IsADirectoryError(21, f"{name} is a folder")
    except OSError as error:
        raise ValueError(f"out: cannot write to {out}: {error.strerror}") from None
    return out


def _use_compilation_cache() -> None:
    """Keep compiled programs between runs, unless the user chose otherwise."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "regjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _progress_lines() -> Callable[[float, int, str], None]:
    """Progress where standard error is no terminal: a line at each tenth."""
    told = [0]

    def tell(done: float, total: int, label: str) -> None:
        tenth = int(10 * done // total)
        if tenth != told[0]:
            print(f"{10 * tenth:3d} % ({label})", file=sys.stderr, flush=True)
        told[0] = tenth

    return tell
