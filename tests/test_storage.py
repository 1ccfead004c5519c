"""Files: whole or not at all, checked on the way in, and never run."""

import json
import os
import pickle
import zipfile
from typing import NamedTuple

import jax
import numpy as np
import pytest

import regjax as rj

rng = np.random.default_rng(0)
X = rng.standard_normal((40, 3)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def path():
    problem = rj.Problem(
        rj.models.mlp([3, 4, 2], "tanh"),
        rj.losses.softmax_cross_entropy(),
        rj.penalties.elastic_net(0.7, where="w"),
        0.01,
    )
    solver = rj.solvers.minibatch(epochs=2, polish=2)
    found = rj.fit_path(
        problem, X, y, [0.1, 0.01], solver=solver, seeds=2, standardize=True
    )
    return found.replace(
        feature_names=("a", "b", "ç"),
        class_names=("no", "yes"),
        scores={"test": found.score(X, y)},
        settings={"note": "hello"},
    )


@pytest.fixture
def file(path, tmp_path):
    path.save(tmp_path / "new" / "path.npz")
    return tmp_path / "new" / "path.npz"


def test_a_path_comes_back_bitwise(path, file):
    back = rj.load(file)
    assert repr(back) == repr(path) and str(back) == str(path)
    for name in ("lams", "loss", "objective", "kkt", "status", "center", "scale"):
        np.testing.assert_array_equal(getattr(back, name), getattr(path, name))
    jax.tree.map(np.testing.assert_array_equal, back.params, path.params)
    assert back.feature_names == path.feature_names
    assert back.settings == path.settings and back.seeds == 2
    np.testing.assert_array_equal(back.predict(X), path.predict(X))
    np.testing.assert_array_equal(
        back.predict(X, 0.1, "class")[0] == "yes",
        path.predict(X, 0.1, "class")[0] == "yes",
    )


def test_the_problem_is_built_again_from_names(path, file):
    back = rj.load(file).problem
    assert back.ridge == pytest.approx(0.01)
    assert back.model.config == path.problem.model.config
    params = jax.tree.map(lambda a: a[0, 0], path.params)
    assert back.penalty.value(params, 0.3) == path.problem.penalty.value(params, 0.3)


def test_a_file_has_a_json_header_and_no_pickle(file):
    with np.load(file, allow_pickle=False) as npz:
        header = json.loads(npz["header"].tobytes())
        assert set(header["sha256"]) == set(npz.files) - {"header", "header_sha256"}
    assert header["format"] == "regjax-path" and header["schema"] == 1
    assert header["dims"] == {"lams": 2, "seeds": 2}
    assert header["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="path.npz"):
        rj.load(file)


def test_every_flipped_bit_is_noticed_or_harmless(path, file):
    """A file with one bit flipped is refused, or reads the same."""
    whole = file.read_bytes()
    flips = np.random.default_rng(0)
    refused = 0
    for place in flips.choice(len(whole), 200, replace=False):
        bad = bytearray(whole)
        bad[place] ^= 1 << int(flips.integers(8))
        file.write_bytes(bytes(bad))
        try:
            back = rj.load(file)
        except ValueError as error:
            refused += 1
            assert "path.npz" in str(error)
        else:
            jax.tree.map(np.testing.assert_array_equal, back.params, path.params)
            np.testing.assert_array_equal(back.objective, path.objective)
    assert refused > 100


def rewritten(file, change):
    """The file with its arrays changed and a valid zip around them."""
    with np.load(file, allow_pickle=False) as npz:
        arrays = {name: npz[name] for name in npz.files}
    change(arrays)
    np.savez(file, **arrays)


def changed_header(arrays):
    text = arrays["header"].tobytes().replace(b"hello", b"jello")
    arrays["header"] = np.frombuffer(text, np.uint8)


TAMPERED = {
    "an array changed": lambda a: a.update(loss=a["loss"] + 1),
    "an array gone": lambda a: a.pop("loss"),
    "an array more": lambda a: a.update(more=np.ones(3)),
    "a dtype changed": lambda a: a.update(loss=a["loss"].astype(np.float64)),
    "the header changed": changed_header,
    "the header gone": lambda a: a.pop("header"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_file_is_refused(file, name):
    rewritten(file, TAMPERED[name])
    with pytest.raises(ValueError, match="path.npz"):
        rj.load(file)


def test_a_file_never_runs_code(file, tmp_path):
    flag = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(flag),)

    evil = np.empty((), object)
    evil[()] = Evil()
    for content in (pickle.dumps(Evil()), None):
        if content is None:
            np.save(tmp_path / "loss.npy", evil, allow_pickle=True)
            with zipfile.ZipFile(file, "a") as archive:
                archive.write(tmp_path / "loss.npy", "evil.npy")
            flag.exists() and flag.rmdir()
        else:
            file.write_bytes(content)
        with pytest.raises(ValueError, match="path.npz"):
            rj.load(file)
        assert not flag.exists()


@pytest.mark.parametrize("content", [b"", b"hello", None, "folder"])
def test_what_is_no_path_is_refused(tmp_path, content):
    file = tmp_path / "path.npz"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match="path.npz") as caught:
        rj.load(file)
    assert "pickle" not in str(caught.value)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, file):
    before = file.read_bytes()
    with pytest.raises(ValueError, match="settings"):
        path.replace(settings={"x": object()}).save(file)
    with pytest.raises(ValueError, match="cannot write"):
        path.save(file / "below" / "path.npz")
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["path.npz"]


class Custom(NamedTuple):
    slope: jax.Array


def test_a_users_model_needs_its_problem_to_predict(tmp_path):
    model = rj.Model(
        init=lambda key: Custom(jax.random.normal(key, (3, 1))),
        apply=lambda params, X: X @ params.slope,
        affine=True,
    )
    problem = rj.Problem(model, rj.losses.half_squared_error(), rj.penalties.l1())
    path = rj.fit_path(problem, X, X[:, 0], [0.1, 0.01])
    path.save(tmp_path / "path.npz")
    bare = rj.load(tmp_path / "path.npz")
    np.testing.assert_array_equal(bare.params["slope"], path.params.slope)
    with pytest.raises(ValueError, match="problem"):
        bare.predict(X)
    back = rj.load(tmp_path / "path.npz", problem=problem)
    assert isinstance(back.params, Custom)
    np.testing.assert_array_equal(back.predict(X), path.predict(X))


def test_a_part_that_was_changed_is_not_taken_for_the_librarys_own(path, tmp_path):
    loss = rj.losses.half_squared_error()._replace(value=lambda eta, y: 0 * eta[:, 0])
    other = path.problem._replace(loss=loss)
    path.replace(problem=other).save(tmp_path / "path.npz")
    assert rj.load(tmp_path / "path.npz").problem is None


def test_a_problem_of_other_shapes_is_refused(file):
    other = rj.Problem(
        rj.models.mlp([7, 4, 2], "tanh"),
        rj.losses.softmax_cross_entropy(),
        rj.penalties.l1(),
    )
    with pytest.raises(ValueError, match="not of this problem"):
        rj.load(file, problem=other)
