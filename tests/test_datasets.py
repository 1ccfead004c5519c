"""Real data from installed packages, files, splits."""

import numpy as np
import pytest

import regjax as rj
from regjax import datasets

SHAPES = {
    "digits": (1797, 64, 10),
    "breast_cancer": (569, 30, 2),
    "wine": (178, 13, 3),
    "iris": (150, 4, 3),
    "diabetes": (442, 10, None),
    "fashion_mnist": (60000, 784, 10),
    "prostate": (97, 8, None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_real_data_have_the_known_shapes(name):
    try:
        data = rj.datasets.load(name)
    except ValueError as error:
        assert name in ("fashion_mnist", "prostate") and "install" in str(error)
        pytest.skip(str(error))
    n, p, k = SHAPES[name]
    assert data.X.shape == (n, p) and data.y.shape == (n,)
    assert data.X.dtype == np.float32 and len(data.feature_names) == p
    assert (data.class_names and len(data.class_names)) == k
    if name in ("digits", "fashion_mnist"):
        assert data.X.min() == 0 and data.X.max() == 1


def test_data_that_are_not_installed_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.pathlib.Path, "is_file", lambda self: False)
    with pytest.raises(ValueError, match=r"apt-get install .* \$REGJAX_DATA"):
        rj.datasets.load("fashion_mnist")


def test_regjax_data_is_looked_into_first(monkeypatch, tmp_path):
    import gzip

    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    images = bytes([0, 0, 8, 3]) + np.array([2, 28, 28], ">u4").tobytes()
    labels = bytes([0, 0, 8, 1]) + np.array([2], ">u4").tobytes()
    pixels = np.full(2 * 784, 51, np.uint8).tobytes()
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz", "wb") as file:
        file.write(images + pixels)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(labels + bytes([3, 9]))
    monkeypatch.setenv("REGJAX_DATA", str(tmp_path))
    data = rj.datasets.fashion_mnist("test")
    np.testing.assert_allclose(data.X, np.full((2, 784), 0.2), rtol=1e-6)
    assert list(data.y) == [3, 9] and data.class_names[9] == "boot"


def write(path, text):
    path.write_text(text)
    return path


def test_a_csv_of_words_numbers_and_counts(tmp_path):
    words = write(tmp_path / "a.csv", "a,b,y\n1,2,no\n3,4,yes\n5,6,no\n")
    data = datasets.read_csv(words, "y")
    assert data.class_names == ("no", "yes") and list(data.y) == [0, 1, 0]
    assert data.feature_names == ("a", "b") and data.X.tolist()[1] == [3, 4]
    assert datasets.read_csv(words, "y").X.dtype == np.float32
    numbers = write(tmp_path / "b.csv", '"a, b",y\n1,0.5\n2,1.5\n')
    data = datasets.read_csv(numbers, "y")
    assert data.class_names is None and data.feature_names == ("a, b",)
    labels = write(tmp_path / "c.csv", "a,y\n1,3\n2,7\n4,3\n")
    assert datasets.read_csv(labels, "y").class_names == ("3", "7")


BAD_CSV = {
    "empty": ("", "no rows"),
    "header only": ("a,y\n", "no rows"),
    "ragged": ("a,y\n1,2\n1\n", "row 3"),
    "a word": ("a,y\n1,2\nx,3\n", "'x' in row 3"),
    "an empty cell": ("a,y\n1,2\n,3\n", "empty cell in row 3"),
    "two of one name": ("a,a,y\n1,2,3\n", "one name"),
    "a gap in the target": ("a,y\n1,2.5\n2,\n3,4.5\n", "empty cell in row 3"),
    "a word in the target": ("a,y\n1,2.5\n2,NA\n3,4.5\n", "'NA' in row 3"),
    "only a target": ("y\n1\n2\n", "beside"),
    "binary": ("\x00\x01", "no rows"),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_a_bad_csv_is_one_clear_error(tmp_path, name):
    text, words = BAD_CSV[name]
    with pytest.raises(ValueError, match=words):
        datasets.read_csv(write(tmp_path / "bad.csv", text), "y")


def test_a_bad_npz_is_one_clear_error(tmp_path):
    np.savez(tmp_path / "no_y.npz", X=np.ones((2, 2)))
    np.savez(tmp_path / "rows.npz", X=np.ones((2, 2)), y=np.ones(3))
    np.savez(tmp_path / "words.npz", X=np.array([["a"]]), y=np.ones(1))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    for name, words in [
        ("no_y", "no array y"),
        ("rows", "3"),
        ("words", "X"),
        ("junk", "junk.npz"),
    ]:
        with pytest.raises(ValueError, match=words):
            datasets.read_npz(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5])
def test_a_split_is_a_stratified_partition(fraction):
    data = rj.datasets.load("iris")
    train, test = datasets.split(data, fraction, seed=1)
    assert len(test.y) == round(fraction * 150) and len(train.y) + len(test.y) == 150
    both = np.concatenate([train.X, test.X])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(data.X, axis=0))
    if fraction:
        counts = np.bincount(test.y)
        assert counts.max() - counts.min() <= 1


def test_sparse_regression_has_the_stated_truth():
    X, y, w = datasets.sparse_regression(0, 4000, 6, 3, noise=0.1, rho=0.5)
    assert np.count_nonzero(w) == 3
    fitted = np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(fitted, w, atol=0.02)
    assert abs(np.corrcoef(X[:, 0], X[:, 1])[0, 1] - 0.5) < 0.05
