"""What a package brings beside the code: completions where shells look for them, whole sources."""

import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli, without

pytest_plugins = ("tests.support.cli",)

ROOT = Path(__file__).resolve().parents[1]
COMPLETIONS = ROOT / "completions"


def build() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return found["tool"]["hatch"]["build"]["targets"]  # type: ignore[no-any-return]


def test_completions_are_current() -> None:
    rendered = runpy.run_path(str(ROOT / "docs" / "generate_completions.py"))["render"]()
    there = {path.name: path.read_text() for path in COMPLETIONS.iterdir()}
    assert there == rendered, "run `python docs/generate_completions.py`"


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "tb-cli.bash"), ("zsh", "_tb-cli"), ("fish", "tb-cli.fish")]
)
def test_completions_that_are_brought_are_those_that_are_printed(
    cli: Cli, shell: str, name: str
) -> None:
    assert (COMPLETIONS / name).read_text() == cli.ok("completion", shell)


def test_completions_go_where_each_shell_looks() -> None:
    places = {
        "tb-cli.bash": "share/bash-completion/completions/tb-cli",
        "_tb-cli": "share/zsh/site-functions/_tb-cli",
        "tb-cli.fish": "share/fish/vendor_completions.d/tb-cli.fish",
    }
    shared = build()["wheel"]["shared-data"]
    assert shared == {f"completions/{name}": place for name, place in places.items()}
    assert set(places) == {path.name for path in COMPLETIONS.iterdir()}


def test_sources_have_all_that_builds_tests_and_measures() -> None:
    included = set(build()["sdist"]["include"])
    assert all((ROOT / path[1:]).exists() for path in included)
    needed = {"/compute_market", "/cli", "/completions", "/docs", "/examples", "/monitoring"}
    assert included >= needed | {"/sim", "/tests", "/benchmarks", "/Makefile", "/config.toml"}


@pytest.fixture
def shell(cli: Cli, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which `tb-cli` is a command, over a market with a job."""
    cli.active("ns:frames-1")
    program = tmp_path / "bin" / "tb-cli"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tb_cli.entry "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


BASH = """
source "$1"
COMP_LINE="tb-cli compute status ns:fr" COMP_POINT=27 COMP_WORDBREAKS=$' :='
_tb_cli_completion tb-cli
echo "${COMPREPLY[@]}"
"""
FISH = 'source $argv[1]; complete -C "tb-cli compute status ns:fr"'
# The shell finds the file by its name, loads it, and calls it for the word at hand.
ZSH = """
fpath=("${1:h}" $fpath)
autoload -U _tb-cli
words=(tb-cli compute status ns:fr) CURRENT=4
compdef() { echo defined }
_describe() { print -r -- ${(P)3} }
_tb-cli
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tb-cli.bash", ("bash", "-c", BASH, "bash")),
        ("tb-cli.fish", ("fish", "-c", FISH)),
        ("_tb-cli", ("zsh", "-f", "-c", ZSH, "zsh")),
    ],
)
def test_script_that_is_brought_completes(
    shell: dict[str, str], tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    if missing := without(words[0]):
        pytest.skip(missing)
    script = shutil.copy(COMPLETIONS / name, tmp_path)
    done = subprocess.run(
        [*words, str(script)], env=shell, capture_output=True, text=True, timeout=60
    )
    assert "frames-1" in done.stdout, (done.stdout, done.stderr)
    assert "defined" not in done.stdout
