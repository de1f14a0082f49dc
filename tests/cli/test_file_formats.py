"""`docs/file-formats.md`: it says of every file and report what is in it."""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

ROOT = Path(__file__).resolve().parents[2]
# Two buyers, one of which asks for more than its share; and consumers.
SCENARIO = """\
length_secs = 60
[[providers]]
name = "farm"
units = 1000
[[buyers]]
name = "small"
units = 1
arrivals = { process = "constant", per_minute = 12 }
[[buyers]]
name = "large"
units = 1500
arrivals = { process = "constant", per_minute = 12 }
[[consumers]]
name = "wallet"
fee = 100
arrivals = { process = "constant", per_minute = 12 }
"""


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate_formats.py"))


def test_page_is_current(described: dict[str, Any]) -> None:
    written = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    assert written == described["render"](), "run `python docs/generate_formats.py`"


def test_page_has_every_table(described: dict[str, Any]) -> None:
    """A mark that is missing would make a table of nothing current."""
    page = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    for name, rows in described["tables"]().items():
        assert page.count(f"<!-- {name} -->\n{rows[0]}\n") == 1, name
    assert page.count("<!-- end of ") == len(described["tables"]())


def test_every_field_of_a_report_is_described(cli: Cli, described: dict[str, Any]) -> None:
    (cli.directory / "it.toml").write_text(SCENARIO)
    report = cli("compute-market", "simulate", "it.toml", "--json")
    samples = cli("compute-market", "simulate", "it.toml", "--jsonl")
    found = {_masked(path) for path in _paths(json.loads(report.out))}
    assert found == set(described["REPORT"])
    lines = map(json.loads, samples.out.splitlines())
    assert {_masked(path) for line in lines for path in _paths(line)} == set(described["SAMPLES"])


def _paths(document: Any, path: str = "") -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            yield from _paths(value, f"{path}.{name}" if path else name)
    elif isinstance(document, list):
        for value in document:
            yield from _paths(value, f"{path}[]")
    else:
        yield path


# What is named below these is another in each run.
_OPEN = ("jobs.refused", "wait_ms.by_priority", "prices", "scores", "queued", "shares.buyers")


def _masked(path: str) -> str:
    """A path without the names that differ from run to run."""
    for above in (*_OPEN, "shares.providers"):
        if path.startswith(f"{above}."):
            _, _, below = path.removeprefix(f"{above}.").partition(".")
            return f"{above}.NAME" + (f".{below}" if below else "")
    return path
