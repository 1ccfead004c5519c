"""Real data from installed packages, files, and seeded synthetic data."""

from __future__ import annotations

import csv
import gzip
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from regjax.names import one_of


class Dataset(NamedTuple):
    """Rows of inputs and what to predict.

    Attributes:
      X: [n, p] float32 (float64 where jax has 64 bits on).
      y: [n] int class numbers, or float.
      feature_names: of the p columns.
      class_names: of the classes; None for numbers to predict.
    """

    X: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...] | None


def load(name: str) -> Dataset:
    """Load real data that needs no download.

    Args:
      name: `digits` (1797 x 64, pixels / 16), `breast_cancer` (569 x 30), `wine`
        (178 x 13), `iris` (150 x 4), `diabetes` (442 x 10): from scikit-learn;
        `fashion_mnist` (60000 x 784, pixels / 255): from Debian's
        `dataset-fashion-mnist`; `prostate` (97 x 8): from Debian's `r-cran-lasso2`.

    Returns:
      The Dataset.

    Raises:
      ValueError: an unknown name, or data that are not installed (and how to).
    """
    name = one_of("data", name, [*SKLEARN, "fashion_mnist", "prostate"])
    if name == "fashion_mnist":
        return fashion_mnist("train")
    if name == "prostate":
        return _prostate()
    return _sklearn(name)


SKLEARN = ("digits", "breast_cancer", "wine", "iris", "diabetes")


def _sklearn(name: str) -> Dataset:
    try:
        from sklearn import datasets
    except ImportError:
        raise ValueError(
            f"data: {name} is in scikit-learn: pip install 'regjax[cli]'"
        ) from None
    raw: Any = getattr(datasets, f"load_{name}")()
    scale = 16.0 if name == "digits" else 1.0
    classes = getattr(raw, "target_names", None)
    return Dataset(
        np.asarray(raw.data / scale, dtype()),
        raw.target.astype(int) if classes is not None else raw.target.astype(dtype()),
        tuple(str(feature) for feature in raw.feature_names),
        None if classes is None else tuple(str(label) for label in classes),
    )


def fashion_mnist(part: str = "train") -> Dataset:
    """Fashion-MNIST, pixels / 255.

    Args:
      part: "train" (60000 rows) or "test" (10000).

    Raises:
      ValueError: an unknown part, or the files are not there.
    """
    prefix = {"train": "train", "test": "t10k"}[one_of("part", part, ["train", "test"])]
    images = _idx(f"{prefix}-images-idx3-ubyte.gz")
    labels = _idx(f"{prefix}-labels-idx1-ubyte.gz")
    names = tuple(f"pixel_{i // 28}_{i % 28}" for i in range(784))
    classes = "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot"
    X = images.reshape(len(images), -1).astype(dtype()) / 255
    return Dataset(X, labels.astype(int), names, tuple(classes.split()))


def _idx(name: str) -> np.ndarray:
    """An idx file of bytes: magic 0x0000 08 ndim, sizes, data."""
    file = _find(f"fashion-mnist/{name}", "data: apt-get install dataset-fashion-mnist")
    raw = gzip.decompress(file.read_bytes())
    ndim = raw[3]
    shape = np.frombuffer(raw, ">u4", ndim, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def _prostate() -> Dataset:
    file = _find("Prostate.rda", "data: apt-get install r-cran-lasso2")
    try:
        import rdata  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("data: prostate needs rdata: pip install rdata") from None
    frame = next(iter(rdata.conversion.convert(rdata.parser.parse_file(file)).values()))
    names = tuple(str(column) for column in frame.columns if column != "lpsa")
    X = np.stack([np.asarray(frame[name], dtype()) for name in names], axis=1)
    return Dataset(X, np.asarray(frame["lpsa"], dtype()), names, None)


def _find(name: str, advice: str) -> pathlib.Path:
    """In $REGJAX_DATA, then in the system's folders."""
    folders = [
        os.environ.get("REGJAX_DATA"),
        "/usr/share/datasets",
        "/usr/local/share/datasets",
        "/usr/lib/R/site-library/lasso2/data",
    ]
    for folder in folders:
        if folder and (pathlib.Path(folder) / name).is_file():
            return pathlib.Path(folder) / name
    raise ValueError(f"{advice}, or put {name} into the folder $REGJAX_DATA")


def read_csv(file: Any, target: str) -> Dataset:
    """Read a CSV with a header row.

    A target of words, or of at most 20 different whole numbers, holds classes, named
    by its values in sorted order.

    Args:
      file: path of the file.
      target: name of the column to predict; all others are inputs.

    Returns:
      The Dataset.

    Raises:
      ValueError: no such file or column, ragged rows, inputs that are not numbers.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"data: cannot read {file}: {reason}") from None
    if len(rows) < 2:
        raise ValueError(f"data: {file} has no rows under its header")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    if len(set(header)) < len(header):
        raise ValueError(f"data: {file} has two columns of one name")
    target = one_of("target", target, header)
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"data: {file}, row {number} has {len(row)} cells, not {len(header)}"
            )
    columns = {name: [row[i].strip() for row in body] for i, name in enumerate(header)}
    y = columns.pop(target)
    if not columns:
        raise ValueError(f"data: {file} has no column beside the target")
    X = np.stack([_numbers(name, cells) for name, cells in columns.items()], axis=1)
    _check_target(target, y)
    return _dataset(X, np.array(y), tuple(columns), None)


def _check_target(name: str, cells: list[str]) -> None:
    """Refuse empty cells, and a word among numbers: it is a gap, not a class."""
    words = [
        number for number, cell in enumerate(cells, start=2) if not _is_float(cell)
    ]
    for number in words:
        cell = cells[number - 2]
        if not cell or len(words) <= len(cells) / 2:
            what = f"{cell!r}" if cell else "an empty cell"
            raise ValueError(f"target: column {name!r} has {what} in row {number}")


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(name: str, cells: list[str]) -> np.ndarray:
    for number, cell in enumerate(cells, start=2):
        try:
            float(cell)
        except ValueError:
            what = f"{cell!r}" if cell else "an empty cell"
            raise ValueError(
                f"data: column {name!r} is not numeric: {what} in row {number}"
            ) from None
    return np.array(cells, dtype())


def read_npz(file: Any) -> Dataset:
    """Read arrays `X [n, p]`, `y [n]` and, if there, `feature_names`, `class_names`.

    Args:
      file: path of the npz file; never unpickled.

    Returns:
      The Dataset.

    Raises:
      ValueError: no such file, not an npz, no X or y, shapes that disagree.
    """
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
    except Exception as error:  # zip, header and decoding errors of many types
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"data: cannot read {file}: {reason}") from None
    for name in ("X", "y"):
        if name not in arrays:
            raise ValueError(f"data: {file} has no array {name}")
    X, y = arrays["X"], arrays["y"]
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise ValueError(f"X: must be numbers [n, p], got {X.dtype} {list(X.shape)}")
    if y.dtype.kind not in "biufU":
        raise ValueError(f"y: must be numbers or words, got {y.dtype}")
    if y.shape not in [(len(X),), (len(X), 1)]:
        raise ValueError(f"y: has shape {list(y.shape)}, but X has {len(X)} rows")
    names = arrays.get("feature_names", [f"x{i}" for i in range(X.shape[1])])
    if np.ndim(names) != 1 or len(names) != X.shape[1]:
        raise ValueError(f"feature_names: must be {X.shape[1]} names, one a column")
    classes = arrays.get("class_names")
    if classes is not None and classes.ndim != 1:
        raise ValueError("class_names: must be a list of names")
    return _dataset(
        X.astype(dtype()),
        y.reshape(-1),
        tuple(str(name) for name in names),
        None if classes is None else tuple(str(label) for label in classes),
    )


def _dataset(
    X: np.ndarray,
    y: np.ndarray,
    names: tuple[str, ...],
    classes: tuple[str, ...] | None,
) -> Dataset:
    """Decide whether y holds classes, and number them."""
    try:
        numbers = y.astype(float)
    except ValueError:
        labels, codes = np.unique(y, return_inverse=True)
        return Dataset(X, codes, names, tuple(str(label) for label in labels))
    whole = np.all(np.isfinite(numbers)) and np.all(numbers == np.round(numbers))
    if classes is not None and whole:
        return Dataset(X, numbers.astype(int), names, classes)
    if whole and len(np.unique(numbers)) <= 20:
        labels, codes = np.unique(numbers, return_inverse=True)
        return Dataset(X, codes, names, tuple(f"{label:g}" for label in labels))
    return Dataset(X, numbers.astype(dtype()), names, None)


def split(
    data: Dataset, test_fraction: float, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Random training and test rows, by class where there are classes.

    Args:
      data: all rows.
      test_fraction: in [0, 1).
      seed: of the permutation.

    Returns:
      `(train, test)`; test may be empty.

    Raises:
      ValueError: a fraction outside [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction: must be in [0, 1), got {test_fraction:g}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data.y))
    if data.class_names is not None:
        # Spread each class evenly over the order, so that any cut is stratified.
        place = np.empty(len(order))
        for label in np.unique(data.y):
            rows = np.flatnonzero(data.y[order] == label)
            place[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
        order = order[np.argsort(place)]
    tests = round(test_fraction * len(order))
    train, test = np.sort(order[tests:]), np.sort(order[:tests])
    return (
        data._replace(X=data.X[train], y=data.y[train]),
        data._replace(X=data.X[test], y=data.y[test]),
    )


def sparse_regression(
    seed: int, n: int, p: int, k: int, noise: float = 1.0, rho: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian design with a sparse truth, in the dtype that jax computes in.

    Args:
      seed: of numpy's generator.
      n: rows.
      p: columns.
      k: nonzero coefficients, the first k, of alternating sign.
      noise: standard deviation of the noise.
      rho: correlation of neighbouring columns is rho, of others its powers.

    Returns:
      `(X [n, p], y [n], w [p])`.
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + (1 - rho**2) ** 0.5 * X[:, j]
    w = np.zeros(p)
    w[:k] = np.where(np.arange(k) % 2, -1.0, 1.0) * (1 + np.arange(k) / max(k, 1))
    y = X @ w + noise * rng.standard_normal(n)
    return X.astype(dtype()), y.astype(dtype()), w.astype(dtype())


def friedman(n: int = 1000, p: int = 50, noise: float = 1.0, seed: int = 0) -> Dataset:
    r"""Five inputs of p matter, not one of them for its slope alone.

    .. math:: y = 10 \sin(\pi x_0 x_1) + 20 (x_2 - 1/2)^2 + 10 x_3 + 5 x_4
              + \text{noise}

    Args:
      n: rows.
      p: inputs, at least 5, uniform in [0, 1].
      noise: standard deviation.
      seed: of all draws.

    Source: Friedman (1991), Ann. Stat. 19.
    """
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(n, p))
    bent = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    y = bent + 10 * X[:, 3] + 5 * X[:, 4] + noise * rng.standard_normal(n)
    names = tuple(f"x{j}" for j in range(p))
    return Dataset(X.astype(dtype()), y.astype(dtype()), names, None)


def dtype() -> Any:
    """What jax computes in: float32 unless 64 bits are on."""
    return jax.dtypes.canonicalize_dtype(np.float64)
