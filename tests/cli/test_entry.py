"""What a command imports before it does anything, which shell loops pay for on every line."""

import os
import subprocess
import sys

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

# Each takes from a tenth of a start of Python to several.
UNUSED = {
    *("typer", "rich", "prometheus_client", "pydantic", "numpy"),
    *("typing_extensions", "inspect", "dataclasses", "platform"),
    *("tempfile", "subprocess", "asyncio"),
}


# Runs a command and then tells what has been imported, its last line on stderr.
MODULES_AFTER = """
import atexit, sys
from tb_cli.entry import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()
"""


def imported(*arguments: str) -> set[str]:
    """The modules that a command imports; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", MODULES_AFTER, *arguments],
        env=os.environ | {"TB_NO_FAST_EXIT": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("compute", "cancel", "j1"),
        ("compute", "cancel", "j1", "--json"),
        ("compute", "status", "j1"),
        ("compute-market", "params"),
    ],
    ids=" ".join,
)
def test_a_hot_verb_imports_nothing_it_does_not_use(cli: Cli, arguments: tuple[str, ...]) -> None:
    cli.active("j1")
    found = imported(*arguments)
    assert "msgspec" in found
    assert found & UNUSED == set()


def in_a_command(code: str) -> str:
    """What code prints where msgspec was imported as commands do."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tb_cli.entry import import_msgspec as run; run(); {code}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.rstrip()


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import typing_extensions; print(typing_extensions.Literal['a'])", "typing.Literal['a']"),
        ("import platform, os; print(platform.release() == os.uname().release)", "True"),
        (
            "import datetime, msgspec; print(msgspec.convert('10:30:00', type=datetime.time))",
            "10:30:00",
        ),
        ("import textwrap; print(textwrap.dedent('  a'))", "a"),
        ("import msgspec; print(msgspec.json.schema(int))", "{'type': 'integer'}"),
        ("import msgspec.inspect as i; print(i.type_info(str) == i.StrType())", "True"),
        ("import sys; print([f for f in sys.meta_path if f.__module__ == 'tb_cli.entry'])", "[]"),
    ],
    ids=["typing_extensions", "platform", "datetime", "textwrap", "schema", "inspect", "finders"],
)
def test_msgspec_and_what_it_imports_are_whole_for_whoever_comes_later(
    code: str, printed: str
) -> None:
    assert in_a_command(code) == printed


def test_msgspec_that_is_imported_already_is_left_alone() -> None:
    code = "import msgspec as before; run(); import msgspec; print(msgspec is before)"
    assert in_a_command(code) == "True"
