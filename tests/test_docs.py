"""The documents: the reference is current, links lead somewhere, commands print what is written.

Every line that begins with `$ ` inside a ```console fence is run by bash, in order, in one shell
per file that starts in an empty directory with `examples/` and an empty home. What follows it, up
to the next such line, is what it must print, errors included. Numbers that no two runs share (ten
digits and more, heights, process ids), ids of bids and bundles, and the places of homes are masked
on both sides.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from blake3 import blake3

from compute_market.store.schema import SCHEMA_VERSION
from tests.support.cli import without

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]

_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_VOLATILE = re.compile(
    r"\b\d{10,}\b|(?<=height )\d+|(?<=height: )\d+|(?<=process )\d+|(?<=a market in )\S+"
    r"|\bb-[0-9a-f]{32}\b|(?<=bundle )[0-9a-f]{16}\b"
)
_SOURCES = f"{ROOT}{os.pathsep}{ROOT / 'cli'}"
_END = "\x1e"
# What `docs/library.md` promises, blank lines aside.
LINES_OF_A_MARKET = 30


class Command(NamedTuple):
    typed: str
    printed: str


def commands(text: str) -> Iterator[Command]:
    """The commands of a document with what each prints, in order."""
    for fence in _CONSOLE.findall(text):
        before, *typed = re.split(r"^\$ ", fence, flags=re.MULTILINE)
        assert not before, f"a console fence begins with {before!r}, not with a command"
        for each in typed:
            line, _, printed = each.partition("\n")
            yield Command(line, printed)


def masked(text: str) -> str:
    return _VOLATILE.sub("#", text)


def anchor(heading: str) -> str:
    """The fragment that leads to a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


def run_in_shell(typed: list[str], directory: Path) -> list[str]:
    """Run commands in one bash, as on a terminal; what each printed."""
    work = directory / "here"
    shutil.copytree(ROOT / "examples", work / "examples")
    temporary = directory / "tmp"
    temporary.mkdir()
    shim = directory / "bin" / "tb-cli"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tb_cli.entry "$@"\n')
    shim.chmod(0o755)
    script = directory / "script.sh"
    # The status is put back so that a document may show `echo $?`.
    after = f"}} 2>&1\nstatus=$?; printf '{_END}'; (exit $status)\n"
    script.write_text("".join(f"{{\n{line}\n{after}" for line in typed))
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TB_") and name not in ("NO_COLOR", "COLUMNS")
    }
    environment = kept | {
        "HOME": str(directory / "operator"),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": _SOURCES,
        "PYTHONUNBUFFERED": "1",  # A terminal shows results and errors in the order they came.
        "TMPDIR": str(temporary),
    }
    done = subprocess.run(
        ["bash", script],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    return done.stdout.decode().split(_END)[:-1]


def test_command_reference_is_current() -> None:
    render = runpy.run_path(str(ROOT / "docs" / "generate.py"))["render"]
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == render(), "run `python docs/generate.py`"


def test_methods_of_the_endpoint_are_current() -> None:
    render = runpy.run_path(str(ROOT / "docs" / "generate_rpc.py"))["render"]
    written = (ROOT / "docs" / "rpc.md").read_text(encoding="utf-8")
    assert written == render(), "run `python docs/generate_rpc.py`"


def test_keys_of_a_scenario_are_current() -> None:
    render = runpy.run_path(str(ROOT / "docs" / "generate_scenario.py"))["render"]
    written = (ROOT / "docs" / "scenario.md").read_text(encoding="utf-8")
    assert written == render(), "run `python docs/generate_scenario.py`"


def test_scenario_of_the_documents_is_the_one_that_is_run() -> None:
    page = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown == (ROOT / "examples" / "simulations" / "first.toml").read_text(encoding="utf-8")
    assert shown.count("\n") <= 10
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    there = {path.stem for path in (ROOT / "sim" / "compute_market").glob("*.toml")}
    assert (len(told), set(told)) == (len(there), there)


def test_picture_of_the_scheduler_is_current_and_legible() -> None:
    drawing = runpy.run_path(str(ROOT / "docs" / "draw_scheduler_flow.py"))
    picture = drawing["TARGET"].read_text(encoding="utf-8")
    assert picture == drawing["render"](), "run `python docs/draw_scheduler_flow.py`"
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    # No box covers another, sticks out, or has more text than fits into it.
    boxes = drawing["BOXES"]
    for each in boxes:
        assert 0 <= each.left < each.right <= drawing["WIDTH"]
        assert each.bottom <= drawing["HEIGHT"]
        assert max(map(len, each.lines)) * 7 <= each.right - each.left
        for other in boxes:
            apart = each.right <= other.left or other.right <= each.left
            assert each == other or apart or each.bottom <= other.top or other.bottom <= each.top


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    broken = []
    for link in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        target, _, fragment = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        found = path.parent / target if target else path
        if not found.exists():
            broken.append(link)
        elif fragment and found.suffix == ".md":
            text = _FENCE.sub("", found.read_text(encoding="utf-8"))
            if fragment not in map(anchor, _HEADING.findall(text)):
                broken.append(link)
    assert broken == []


def test_workload_of_the_documents_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "workloads.md").read_text(encoding="utf-8")
    (project,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (source,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    ((group, entries),) = tomllib.loads(project)["project"]["entry-points"].items()
    ((name, target),) = entries.items()
    information = tmp_path / "example-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: example\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    (tmp_path / f"{target.partition(':')[0]}.py").write_text(source)
    (tmp_path / "text").write_text("b a\nb")
    (tmp_path / "bytes").write_bytes(b"\xff")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tb_cli.entry",
            "compute",
            "run",
            "--workload",
            name,
            "text",
            "bytes",
        ],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{_SOURCES}", "TB_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    digest = blake3(b"a\nb").hexdigest()
    assert (done.returncode, done.stdout) == (7, f"{digest}  text\n")
    assert done.stderr.startswith("error[usage]: bytes: not UTF-8\n")


def test_program_of_the_documents_prints_what_is_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    found = _PYTHON.findall(page)
    assert len(found) == page.count("```python")
    first = [line for line in found[0][0].splitlines() if line.strip()]
    assert len(first) <= LINES_OF_A_MARKET
    program = "".join(f"{source}print({_END!r}, end='')\n" for source, _ in found)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.split(_END)[:-1] == [printed for _, printed in found]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "```console" in (ROOT / page).read_text(encoding="utf-8")],
)
def test_commands_print_what_is_written(page: str, tmp_path: Path) -> None:
    expected = list(commands((ROOT / page).read_text(encoding="utf-8")))
    assert expected
    uses_curl = any(command.typed.startswith("curl ") for command in expected)
    if missing := without("bash", *(("curl",) if uses_curl else ())):
        pytest.skip(missing)
    printed = run_in_shell([command.typed for command in expected], tmp_path)
    wrong = [
        f"$ {command.typed}\n[written]\n{command.printed}[printed]\n{text}"
        for command, text in zip(expected, printed, strict=True)
        if masked(command.printed) != masked(text)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("docs/files.md", "**The schema has a number**, now {}."),
        ("CHANGELOG.md", "The store\non disk has schema {}. Homes with schema 1 to {} are read"),
    ],
)
def test_schema_that_is_told_of_is_that_of_the_store(path: str, said: str) -> None:
    assert said.format(SCHEMA_VERSION, SCHEMA_VERSION - 1) in (ROOT / path).read_text()
