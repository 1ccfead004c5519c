"""Every block of the README runs, as it stands there."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from regjax import cli

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


@pytest.mark.filterwarnings("ignore:.*float64:UserWarning")
def test_python_blocks_run_one_after_the_other(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), space)
    assert "Lambda" in capsys.readouterr().out
    assert (tmp_path / "runs/lasso.png").exists()


def test_bash_blocks_are_the_scripts_and_regjax():
    for line in "".join(blocks("bash")).splitlines():
        assert line.split()[0] in ("regjax", "./scripts/quickstart", "./scripts/test")
    assert (ROOT / "scripts/test").exists()  # it is what runs this


def test_regjax_lines_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    lines = "".join(blocks("bash")).splitlines()
    commands = [line for line in lines if line.startswith("regjax")]
    assert commands
    for line in commands:
        assert cli.main(shlex.split(line)[1:]) == 0, line


def test_quickstart_gives_what_the_readme_prints():
    """The same header, rows of the same form, and a score near the stated one."""
    if pathlib.Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        pytest.skip("quickstart installs into .venv, which is not in use here")
    run = subprocess.run(
        [ROOT / "scripts/quickstart"], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    printed = run.stdout.splitlines()
    shown = blocks("text")[0].splitlines()
    assert printed[0].split() == shown[0].split()
    assert len(printed[1].split()) == len(shown[1].split())
    score = float(re.search(r"score \((\d\.\d+)", run.stdout)[1])
    stated = float(re.search(r"about (\d\.\d+)", README)[1])
    assert abs(score - stated) < 0.02
    assert (ROOT / "runs/digits-l1/path.npz").exists()


def test_links_and_pictures_are_there():
    for file in (ROOT / "README.md", ROOT / "experiments/README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
            if not target.startswith("http"):
                assert (file.parent / target).exists(), target


def test_the_map_names_every_room():
    for file in ROOT.glob("regjax/*"):
        if not file.name.startswith("__"):
            name = file.name + ("/" if file.is_dir() else "")
            assert name in README, name
