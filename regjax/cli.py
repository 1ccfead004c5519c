"""The command line: `regjax path`, `regjax cv`, `regjax show`, `regjax plot`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from regjax import arguments, datasets, models, parse
from regjax.cross_validation import cross_validate
from regjax.path import fit_path
from regjax.results import Path, load
from regjax.table import worst_status
from regjax.types import Loss, Problem, Status

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
        args = arguments.parser(_path, _cv, _show, _plot).parse_args(argv)
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


def _path(args: argparse.Namespace) -> int:
    begun = time.perf_counter()
    data, label = parse.data(args.data)
    train, test = datasets.split(data, args.test_fraction, _not_negative(args.seed))
    loss, train, test = parse.loss(args.loss, train, test)
    problem, sizes = _problem(args, data, loss)
    solver, lams = parse.solver(args), parse.lams(args.lams)
    out = _writable(args.out or f"runs/{label}-{args.penalty}", "path.npz", "path.png")
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


def _problem(
    args: argparse.Namespace, data: datasets.Dataset, loss: Loss
) -> tuple[Problem, list[int]]:
    """The equation, and the sizes of its layers."""
    outputs = len(data.class_names or ()) if parse.is_softmax(loss) else 1
    penalty = parse.penalty(args)
    sizes = [data.X.shape[1], *parse.hidden(args.hidden), outputs]
    model = models.mlp(sizes, args.activation, skip=args.skip)
    return parse.with_ridge(Problem(model, loss, penalty), args.ridge), sizes


def _cv(args: argparse.Namespace) -> int:
    begun = time.perf_counter()
    data, label = parse.data(args.data)
    loss, data, _ = parse.loss(args.loss, data, data)
    problem, sizes = _problem(args, data, loss)
    solver, lams = parse.solver(args), parse.lams(args.lams)
    folder = args.out or f"runs/{label}-{args.penalty}-cv"
    out = _writable(folder, "path.npz", "cv.png")
    _use_compilation_cache()
    cv = cross_validate(
        problem,
        data.X,
        data.y,
        args.folds,
        lams,
        measure=args.measure,
        solver=solver,
        seeds=args.seeds,
        standardize=args.standardize,
        key=_key(_not_negative(args.seed)),
        progress=sys.stderr.isatty() or _progress_lines(),
    )
    path = _named(cv.path, args, label, sizes, data)
    cv = dataclasses.replace(cv, path=path)
    cv.save(out / "path.npz")
    cv.plot(out / "cv.png")
    print(cv)
    wanted = lams if isinstance(lams, int) else len(lams)
    if interrupted := len(path) < wanted:
        print(f"\ninterrupted: kept the {len(path)} lams that had finished")
    seconds = time.perf_counter() - begun
    print(
        f"\nwrote {out / 'path.npz'} and {out / 'cv.png'} after {seconds:.1f} s\n"
        "look at: cv.png; rj.CV.load(...) has the curve, rj.load(...) its path"
    )
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
    path = path.replace(scores=scores)
    return _named(path, args, label, sizes, data._replace(X=train.X, y=train.y))


def _named(
    path: Path,
    args: argparse.Namespace,
    label: str,
    sizes: list[int],
    data: datasets.Dataset,
) -> Path:
    """The path with names, settings and a title."""
    shape = "-".join(map(str, sizes))
    settings = {k: v for k, v in vars(args).items() if k not in ("run", "command")}
    settings["title"] = f"{label}: {shape}, {args.penalty}, n = {len(data.y)}"
    return path.replace(
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


def _writable(folder: str, *files: str) -> pathlib.Path:
    """The output folder, made and tried before the work."""
    out = pathlib.Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        for name in files:
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
