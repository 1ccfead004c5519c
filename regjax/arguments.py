"""The options of the command line."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import Any, NoReturn

from regjax import datasets, losses, models, penalties
from regjax.measures import MEASURES
from regjax.notices import RIDGE


class Parser(argparse.ArgumentParser):
    """Errors become a ValueError, which `main` prints in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, with a hint."""
        known = [o for o in _options(self) if o.startswith("--")]
        hints = [
            f"did you mean {near[0]}?"
            for word in message.replace(":", " ").split()
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


def parser(
    path: Callable, cv: Callable, show: Callable, plot: Callable
) -> argparse.ArgumentParser:
    """The whole command line; each function runs its command."""
    whole = Parser(
        prog="regjax",
        description="Regularization paths of networks and linear models.",
        allow_abbrev=False,
    )
    commands = whole.add_subparsers(dest="command", required=True)
    _add_path(commands, path)
    _add_cv(commands, cv)
    table = commands.add_parser("show", help="print the table of a path.npz")
    table.add_argument("file")
    table.set_defaults(run=show)
    draw = commands.add_parser("plot", help="draw a path.npz")
    draw.add_argument("file")
    draw.add_argument("--out", help="picture to write; default: beside FILE, as .png")
    draw.set_defaults(run=plot)
    return whole


def _add_path(commands: Any, run: Callable) -> None:
    words = "solve a path: table, path.npz, path.png"
    add = _solving(commands, "path", words, run).add_argument
    add("--test-fraction", type=float, default=0.2, help="rows held out for the score")
    add("--out", help="folder to write; default: runs/DATA-PENALTY")


def _add_cv(commands: Any, run: Callable) -> None:
    words = "choose lam by cross-validation: curve, cv.png, path.npz"
    add = _solving(commands, "cv", words, run).add_argument
    add("--folds", type=int, default=10, help="how many, stratified by class")
    add("--measure", default="deviance", help=", ".join(MEASURES))
    add("--out", help="folder to write; default: runs/DATA-PENALTY-cv")


def _solving(
    commands: Any, name: str, words: str, run: Callable
) -> argparse.ArgumentParser:
    """A command that solves a problem, with the options for that."""
    command = commands.add_parser(
        name,
        help=words,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_problem(command)
    command.set_defaults(run=run)
    return command


def _add_problem(parser: argparse.ArgumentParser) -> None:
    """What is solved, and how."""
    names = ", ".join([*datasets.SKLEARN, "fashion_mnist", "prostate"])
    add = parser.add_argument
    add("--data", default="digits", help=f"{names}, FILE.csv:TARGET or FILE.npz")
    add("--hidden", default="32", help="sizes of hidden layers, 32,16; none: depth 0")
    add("--activation", default="sigmoid", help=", ".join(models.ACTIVATIONS))
    add("--skip", action="store_true", help="add a linear model beside the network")
    add("--loss", default="auto", help=f"auto, {', '.join(losses.REGISTRY)}")
    add("--penalty", default="l1", help=", ".join(penalties.REGISTRY))
    add("--where", help="regex of the key paths that it is on, 0/w: the first layer")
    add("--l1-ratio", type=float, help="of elastic_net and sparse_group; default 0.5")
    add("--gamma", type=float, help="of mcp, above 1; default 3")
    add("--a", type=float, help="of scad, above 2; default 3.7")
    add("--M", type=float, help="of hierarchical, which needs --skip; default 10")
    add(
        "--ridge",
        type=float,
        help="fixed ridge on all weights; default: 0, but "
        f"{RIDGE:g} where a penalty leaves weights of a network free",
    )
    add("--lams", default="100", help="a count, a list 0.1,0.01 or max:min:count")
    add("--optimizer", help="adam or sgd, by minibatches; default: by the model")
    add("--learning-rate", type=float, help="at the start; default: the optimizer's")
    add("--epochs", type=int, help="passes over the rows; default: by the rows")
    add("--batch-size", type=int, help="rows a step (default: 128)")
    add("--polish", type=int, help="full-batch rounds at the end (default: 30)")
    add("--seeds", type=int, default=1, help="starting points per lam")
    add("--standardize", action="store_true", help="columns to mean 0, deviation 1")
    add("--seed", type=int, default=0, help="of the split, the folds and the starts")
