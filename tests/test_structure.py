"""The house: who may import whom, and how large a room may be."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "regjax"
FLOORS = [
    ["types", "trees", "names", "conversions", "targets"],
    ["models", "counts", "losses", "penalties", "datasets"],
    [
        "objective",
        "free_block",
        "certificates",
        "conditioning",
        "frames",
        "moments",
        "grids",
        "brackets",
        "transforms",
        "inputs",
        "model_checks",
        "notices",
        "compress",
    ],
    [
        "workers",
        "lanes",
        "side_by_side",
        "stretches",
        "parts",
        "screening",
        "solvers",
        "ground",
        "storage",
        "progress",
        "prediction",
        "usage",
        "table",
        "results",
        "task",
        "sweep",
        "assembly",
        "folds",
        "measures",
        "held_out",
    ],
    ["path", "relaxation", "cross_validation"],
    ["plotting", "arguments", "parse", "cli"],
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# Lazy imports, so that a result draws itself.
EXCEPTIONS = {("results", "plotting"), ("cross_validation", "plotting")}
OPTAX = {"transforms", "solvers"}
FILES = sorted(ROOT.rglob("*.py"))


def room(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file):
    """(top package, regjax room or None, whether inside a function)."""
    tree = ast.parse(file.read_text())
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "regjax":
            names = [f"regjax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        else:
            continue
        for name in names:
            yield *(name.split(".") + [None])[:2], id(node) in lazy


@pytest.mark.parametrize("file", FILES, ids=room)
def test_modules_import_from_lower_floors_only(file):
    here = room(file)
    for package, other, lazy in imports(file):
        if package != "regjax" or here in ("__init__", "__main__"):
            continue
        allowed = FLOOR[other] < FLOOR[here] or (
            FLOOR[other] == FLOOR[here] and FLOOR[here] in (1, 2, 3, 5)
        )
        assert allowed or (lazy and (here, other) in EXCEPTIONS), (here, other)


@pytest.mark.parametrize("file", FILES, ids=room)
def test_outside_packages_stay_on_their_floors(file):
    known = {"jax", "numpy", "optax", "chex", "regjax"}
    for package, _, lazy in imports(file):
        if package == "optax":
            assert room(file) in OPTAX
        elif package in {"sklearn", "matplotlib", "tqdm", "rdata", "xarray"}:
            assert lazy, f"{package} is imported when regjax is"
        else:
            assert package in known or package in __import__("sys").stdlib_module_names


@pytest.mark.parametrize("file", FILES, ids=room)
def test_rooms_are_small(file):
    """A module stays under 300 lines of code, a function under 60."""
    text = file.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) - docstring_lines(tree) < 300
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1 - docstring_lines(node)
            assert length <= 60, node.name


def docstring_lines(tree):
    total = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            doc = ast.get_docstring(node, clean=False)
            total += doc.count("\n") + 1 if doc else 0
    return total


def test_public_names_are_there():
    import regjax as rj

    for name in rj.__all__:
        assert hasattr(rj, name)
    assert rj.models.mlp and rj.models.linear
    assert rj.transforms.proximal_adam and rj.solvers.minibatch
