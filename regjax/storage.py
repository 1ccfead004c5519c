"""Files: npz with a JSON header and a sha-256 of every array; no pickle, no code.

A file is written under a temporary name in its folder and then renamed, so that
what stands under the final name is always whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from regjax import losses, models, penalties, trees
from regjax.types import Params, Problem

FORMAT, SCHEMA = "regjax-path", 1


def save(file: Any, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write header and arrays.

    Args:
      file: where; `.npz` by custom. Its folder is made if it is not there.
      header: JSON.
      arrays: by name.

    Raises:
      ValueError: the place cannot be written, or the header is not JSON.
    """
    file = pathlib.Path(file)
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    whole = {
        "format": FORMAT,
        "schema": SCHEMA,
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
        "sha256": {name: _sha256(array) for name, array in arrays.items()},
        **header,
    }
    try:
        text = json.dumps(whole).encode()
    except TypeError as error:
        raise ValueError(f"settings: must be JSON: {error}") from None
    arrays = {
        "header": np.frombuffer(text, np.uint8),
        "header_sha256": np.frombuffer(hashlib.sha256(text).digest(), np.uint8),
        **arrays,
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise ValueError(f"file: cannot write {file}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise ValueError(f"file: cannot write {file}: {error.strerror}") from None
        raise


def load(file: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `save` wrote, and check it.

    Args:
      file: path of the npz file.

    Returns:
      `(header, arrays)`.

    Raises:
      ValueError: not there, not such a file, of a newer schema, truncated, changed.
    """
    # An open stream: np.load leaves its own open when the file is broken.
    with malformed(file), open(file, "rb") as stream:
        if stream.read(2) != b"PK":
            raise ValueError("no npz file")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
        text = arrays.pop("header").tobytes()
        if hashlib.sha256(text).digest() != arrays.pop("header_sha256").tobytes():
            raise ValueError("the header was changed")
        header = json.loads(text)
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}")
        if header["schema"] > SCHEMA:
            raise ValueError(f"schema {header['schema']} is newer than {SCHEMA}")
        if set(arrays) != set(header["sha256"]):
            raise ValueError("arrays are missing or were added")
        for name, array in arrays.items():
            if _sha256(array) != header["sha256"][name]:
                raise ValueError(f"array {name!r} was changed")
    return header, arrays


@contextlib.contextmanager
def malformed(file: Any) -> Iterator[None]:
    """Whatever a bad file raises becomes one ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"file: {file} is not there") from None
    except OSError as error:
        raise ValueError(f"file: cannot read {file}: {error.strerror}") from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"file: {file} is not a whole regjax path: {error}") from None


def describe_problem(problem: Problem | None) -> dict[str, Any] | None:
    """How to build a problem again; None if a part is not the library's own."""
    if problem is None:
        return None
    parts = {
        "model": problem.model.config,
        "loss": problem.loss.config,
        "penalty": problem.penalty.config,
    }
    if any(config is None for config in parts.values()):
        return None
    found = {**parts, "ridge": float(problem.ridge)}
    # A part that was changed after it was built would come back as another.
    same = trees.partition(build_problem(found))[1] == trees.partition(problem)[1]
    return found if same else None


def build_problem(description: dict[str, Any] | None) -> Problem | None:
    """Undo `describe_problem`, by the names of the library's registries only."""
    if description is None:
        return None

    def build(registry: dict[str, Any], config: Any) -> Any:
        name, arguments = config
        return registry[name](**arguments)

    return Problem(
        build(models.REGISTRY, description["model"]),
        build(losses.REGISTRY, description["loss"]),
        penalties.build(description["penalty"]),
        float(description["ridge"]),
    )


def describe_tree(tree: Any) -> Any:
    """Skeleton of dicts, lists and tuples; leaves by key path.

    A node of another type is described as a flat dict by key path.
    """
    try:
        return _skeleton(tree, iter(trees.key_paths(tree)))
    except TypeError:
        return {"dict": {path: path for path in trees.key_paths(tree)}}


def _skeleton(tree: Any, paths: Iterator[str]) -> Any:
    if type(tree) is dict and all(isinstance(key, str) for key in tree):
        return {"dict": {key: _skeleton(tree[key], paths) for key in sorted(tree)}}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [_skeleton(item, paths) for item in tree]}
    if tree is None:
        return None
    if isinstance(tree, np.ndarray | jax.Array):
        return next(paths)
    raise TypeError(f"not a plain node: {type(tree)}")


def build_tree(skeleton: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Undo `describe_tree`."""
    if skeleton is None:
        return None
    if isinstance(skeleton, str):
        return arrays[f"params/{skeleton}"]
    ((kind, children),) = skeleton.items()
    if kind == "dict":
        return {key: build_tree(child, arrays) for key, child in children.items()}
    items = [build_tree(child, arrays) for child in children]
    return tuple(items) if kind == "tuple" else items


def leaves_by_path(params: Params) -> dict[str, np.ndarray]:
    """Leaves as arrays, by `params/` and key path."""
    pairs = zip(trees.key_paths(params), jax.tree.leaves(params), strict=True)
    return {f"params/{path}": np.asarray(leaf) for path, leaf in pairs}


def leaves_like(init: Any, arrays: dict[str, np.ndarray]) -> Params:
    """Leaves in the pytree that `init(key)` makes."""
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    template = jax.eval_shape(init, key)
    leaves = [arrays[f"params/{path}"] for path in trees.key_paths(template)]
    for leaf, like in zip(leaves, jax.tree.leaves(template), strict=True):
        if leaf.shape[leaf.ndim - like.ndim :] != like.shape:
            raise ValueError(f"params of shape {leaf.shape} are not of this problem")
    return jax.tree.structure(template).unflatten(leaves)


def _sha256(array: np.ndarray) -> str:
    described = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(array).tobytes()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
