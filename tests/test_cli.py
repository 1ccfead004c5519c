"""The command line, as a user meets it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import regjax as rj
from regjax import arguments, cli, parse

QUICK = ["--epochs", "2", "--polish", "2", "--hidden", "4"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, and leave jax's cache as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


def write_csv(name="flowers.csv", target="kind"):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    kinds = np.array(["rose", "tulip", "daisy"])[np.argmax(X, axis=1)]
    lines = ["height,petal width,smell," + target]
    lines += [
        f"{a:.4f},{b:.4f},{c:.4f},{k}" for (a, b, c), k in zip(X, kinds, strict=True)
    ]
    pathlib.Path(name).write_text("\n".join(lines) + "\n")


def test_path_show_and_plot(capsys):
    write_csv()
    argv = ["path", "--data", "flowers.csv:kind", "--lams", "0.1:0.001:5", *QUICK]
    assert cli.main([*argv, "--seeds", "2", "--standardize", "--out", "here"]) == 0
    out = capsys.readouterr().out
    header = out.splitlines()[0].split()
    assert header == ["Df", "%Dev", "Lambda", "Train", "Test", "KKT", "Status"]
    assert "here/path.npz" in out and "look at" in out
    path = rj.load("here/path.npz")
    assert path.feature_names == ("height", "petal width", "smell")
    assert path.class_names == ("daisy", "rose", "tulip")
    assert set(path.scores) == {"train", "test"} and path.seeds == 2
    assert os.path.getsize("here/path.png") > 20_000
    assert cli.main(["show", "here/path.npz"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == out.splitlines()[:6]
    assert cli.main(["plot", "here/path.npz", "--out", "again.svg"]) == 0
    assert os.path.getsize("again.svg") > 10_000


def test_cv_prints_the_choice_and_keeps_it(capsys):
    write_csv()
    argv = ["cv", "--data", "flowers.csv:kind", "--hidden", "none", "--lams", "7"]
    assert cli.main([*argv, "--folds", "3", "--standardize", "--out", "here"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "Measure: deviance, 3 folds"
    assert os.path.getsize("here/cv.png") > 20_000
    path = rj.load("here/path.npz")
    assert set(path.chosen) == {"min", "1se"}
    assert rj.CV.load("here/path.npz").mean.shape == (7,)
    labels = path.predict(np.zeros((2, 3), np.float32), lam="1se", type="class")
    assert set(labels) <= {"daisy", "rose", "tulip"}


@pytest.mark.parametrize(
    ("data", "loss"),
    [
        ("iris", "softmax_cross_entropy"),
        ("breast_cancer", "sigmoid_binary_cross_entropy"),
        ("diabetes", "half_squared_error"),
    ],
)
def test_the_loss_follows_the_data_and_depth_0_is_linear(data, loss):
    argv = ["path", "--data", data, "--hidden", "none", "--lams", "5", "--out", "o"]
    assert cli.main([*argv, "--penalty", "elastic_net", "--standardize"]) == 0
    path = rj.load("o/path.npz")
    assert path.problem.loss.config[0] == loss
    assert path.problem.model.affine and path.n_nonzero[0] == 0
    assert path.scores["test"][-1] > 0.3


@pytest.mark.parametrize(
    ("words", "config"),
    [
        ("mcp --gamma 2.5", ("gamma", 2.5)),
        ("mcp", ("gamma", 3.0)),
        ("scad --a 4", ("a", 4.0)),
        ("sparse_group", ("l1_ratio", 0.5)),
        ("sparse_group --l1-ratio 0.1", ("l1_ratio", 0.1)),
    ],
)
def test_options_of_a_penalty_reach_it(words, config):
    whole = arguments.parser(print, print, print, print)
    args = whole.parse_args(["path", "--penalty", *words.split()])
    name, given = parse.penalty(args).config
    assert name == words.split()[0] and given[config[0]] == config[1]


def test_an_npz_and_a_list_of_lams(capsys):
    X = np.random.default_rng(0).standard_normal((50, 3))
    np.savez("data.npz", X=X, y=X[:, 0] + 0.1)
    argv = ["path", "--data", "data.npz", "--hidden", "none", "--lams", "0.1,0.5"]
    assert cli.main([*argv, "--test-fraction", "0"]) == 0
    path = rj.load("runs/data-l1/path.npz")
    np.testing.assert_allclose(path.lams, [0.5, 0.1])
    assert path.feature_names == ("x0", "x1", "x2") and set(path.scores) == {"train"}


def test_a_skip_and_its_penalty():
    write_csv()
    argv = ["path", "--data", "flowers.csv:kind", "--lams", "0.1,0.01", *QUICK]
    argv += ["--skip", "--penalty", "hierarchical", "--M", "3", "--ridge", "0.001"]
    argv += ["--out", "here"]
    assert cli.main(argv) == 0
    problem = rj.load("here/path.npz").problem
    assert problem.penalty.config[1]["M"] == 3 and problem.model.config[1]["skip"]


BAD = {
    "unknown data": (["path", "--data", "digit"], "did you mean 'digits'"),
    "no such file": (["path", "--data", "no.csv:y"], "no.csv"),
    "no target": (["path", "--data", "flowers.csv"], "target"),
    "wrong target": (["path", "--data", "flowers.csv:king"], "did you mean 'kind'"),
    "target not numeric": (
        ["path", "--data", "flowers.csv:kind", "--loss", "poisson_nll"],
        "target: must be numeric",
    ),
    "column not numeric": (["path", "--data", "flowers.csv:smell"], "'kind'"),
    "no such npz": (["path", "--data", "no.npz"], "no.npz"),
    "option of a word": (
        ["cv", "--folds", "ten"],
        "--folds: invalid int value: 'ten'\n",
    ),
    "unknown option": (["path", "--lam", "3"], "did you mean --lams"),
    "unknown command": (["paht"], "paht"),
    "no command": ([], "command"),
    "lams": (["path", "--lams", "many"], "lams"),
    "lams negative": (["path", "--lams=-1,2"], "lams"),
    "lams range": (["path", "--lams", "1:2:3"], "lams"),
    "hidden": (["path", "--hidden", "3,x"], "hidden"),
    "hidden 0": (["path", "--hidden", "3,0"], "sizes"),
    "penalty": (["path", "--penalty", "l3"], "penalty"),
    "l1 ratio": (["path", "--penalty", "elastic_net", "--l1-ratio", "2"], "l1_ratio"),
    "l1 ratio of l1": (["path", "--l1-ratio", "0.5"], "elastic_net, sparse_group"),
    "gamma": (["path", "--penalty", "mcp", "--gamma", "1"], "gamma: must be above 1"),
    "gamma of scad": (["path", "--penalty", "scad", "--gamma", "3"], "only for mcp"),
    "a": (["path", "--penalty", "scad", "--a", "2"], "a: must be above 2"),
    "a word": (["path", "--penalty", "scad", "--a", "x"], "--a"),
    "a of mcp": (["path", "--penalty", "mcp", "--a", "3"], "a: only for scad"),
    "M of l1": (["path", "--M", "3"], "M: only for hierarchical"),
    "no skip": (["path", "--penalty", "hierarchical"], "skip=True"),
    "skip of none": (["path", "--skip", "--hidden", "none"], "skip: without a hidden"),
    "epochs": (["path", "--epochs", "0"], "epochs"),
    "epochs word": (["path", "--epochs", "few"], "--epochs"),
    "optimizer": (["path", "--optimizer", "adan"], "did you mean 'adam'"),
    "fraction": (["path", "--test-fraction", "1.5"], "test_fraction"),
    "activation": (["path", "--activation", "rel"], "did you mean 'relu'"),
    "seeds": (["path", "--seeds", "0"], "seeds"),
    "show nothing": (["show", "no.npz"], "no.npz"),
    "show a csv": (["show", "flowers.csv"], "flowers.csv"),
    "plot nothing": (["plot", "no.npz"], "no.npz"),
    "folder is a file": (["path", "--out", "flowers.csv"], "flowers.csv"),
    "folder below a file": (["path", "--out", "flowers.csv/x"], "flowers.csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(name, capsys):
    write_csv()
    argv, words = BAD[name]
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("regjax: ")
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_the_folder_is_tried_before_the_work(capsys):
    begun = time.perf_counter()
    pathlib.Path("taken").touch()
    assert cli.main(["path", "--epochs", "100000", "--out", "taken"]) == 2
    assert time.perf_counter() - begun < 20


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["path", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--data",
        "--hidden",
        "--penalty",
        "--l1-ratio",
        "--gamma",
        "--a ",
        "--lams",
        "--out",
        "--optimizer",
        "--epochs",
        "--batch-size",
        "--seeds",
        "--standardize",
        "--test-fraction",
    ):
        assert option in text


def start(*argv):
    return subprocess.Popen(
        [sys.executable, "-m", "regjax", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_keeps_what_is_finished():
    """Interrupted after the first waves: a whole file of the largest lams."""
    run = start(
        "path", "--data", "iris", "--lams", "1:0.0001:4000", "--hidden", "4",
        "--epochs", "200", "--out", "o",
    )  # fmt: skip
    for line in run.stderr:
        if line.startswith(" 10 %"):
            break
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert "interrupted: kept" in out and "Traceback" not in err
    path = rj.load("o/path.npz")
    assert 0 < len(path) < 4000 and path.lams[0] == 1
    assert sorted(os.listdir("o")) == ["path.npz", "path.png"]


def test_ctrl_c_before_anything_is_finished_says_so():
    """Just as the work begins: the folder is made, nothing is compiled."""
    run = start(
        "path", "--data", "iris", "--lams", "4", "--epochs", "1000000", "--out", "o"
    )
    while not os.path.isdir("o") and run.poll() is None:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "interrupted before" in err.splitlines()[-1] and "Traceback" not in err
