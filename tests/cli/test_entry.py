"""What a command imports before it does anything, which shell loops pay for on every line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compute_market
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

# Each takes from a tenth of a start of Python to several.
UNUSED = {
    *("typer", "rich", "prometheus_client", "pydantic", "numpy"),
    *("typing_extensions", "inspect", "dataclasses", "platform", "re", "heapq"),
    *("tempfile", "subprocess", "asyncio", "tomllib", "ast"),
}


# Runs a command and then tells what has been imported, its last line on stderr.
# Text given to `compile` counts as one: it makes the types of all syntax trees. The lambdas of
# named tuples are given to `eval`, which makes none.
MODULES_AFTER = """
import atexit, sys
sys.addaudithook(
    lambda name, given: name == "compile"
    and given[1] == "<string>"
    and not given[0].startswith(b"lambda")
    and sys.modules.update(ast=1)
)
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
        ("compute", "courier", "send", "a.slice", "alice"),
        ("compute-market", "params"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("settings", ["", "epoch_blocks = 7\n[scheduler]\nslots = 9\n"])
def test_a_hot_verb_imports_nothing_it_does_not_use(
    cli: Cli, arguments: tuple[str, ...], settings: str
) -> None:
    cli.active("j1")
    if settings:
        (cli.home / "config.toml").write_text(settings)
    found = imported(*arguments)
    assert "msgspec" in found
    assert found & UNUSED == set()


LAUNCHER = "import sys; from tb_cli.entry import main; sys.exit(main())\n"


@pytest.mark.parametrize("path", [":{0}", "{0}:", "{0}::/nonesuch"])
def test_a_command_imports_nothing_from_where_it_is_run(cli: Cli, path: str) -> None:
    cli.active("j1")
    launcher = cli.directory / "bin" / "tb-cli"
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER)
    around = cli.directory / "around"
    around.mkdir()
    for name in ("lmdb", "msgspec", "typing", "prometheus_client"):
        (around / f"{name}.py").write_text("raise SystemExit(99)\n")
    sources = os.pathsep.join(filter(None, os.environ["PYTHONPATH"].split(os.pathsep)))
    for words in (("compute", "status", "j1"), ("metrics",)):
        done = subprocess.run(
            [sys.executable, launcher, *words],
            cwd=around,
            env=os.environ | {"PYTHONPATH": path.format(sources)},
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_checkout_is_run_from_where_it_lies(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tb-cli").write_text(LAUNCHER)
    root = Path(compute_market.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, tmp_path / "tb-cli", "compute-market", "params"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f":{root / 'cli'}"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


IMPORTS = "from tb_cli.entry import import_lightly as run; run('typing'); run('msgspec')"


def in_a_command(code: str) -> str:
    """What code prints where msgspec was imported as commands do."""
    done = subprocess.run(
        [sys.executable, "-c", f"{IMPORTS}; {code}"], capture_output=True, text=True, timeout=60
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
        ("import re; print(re.fullmatch('a+', 'aa').group())", "aa"),
        (
            "import re, typing; t = typing.get_origin; "
            "print(t(typing.Pattern[str]) is re.Pattern, t(typing.Match[str]) is re.Match)",
            "True True",
        ),
        (
            "import msgspec, typing; name = typing.Annotated[str, msgspec.Meta(pattern='^a')]; "
            "print(msgspec.convert('ab', name)); import re; print(re.search('b', 'ab').span())",
            "ab\n(1, 2)",
        ),
        ("import msgspec; print(msgspec.json.schema(int))", "{'type': 'integer'}"),
        ("import msgspec.inspect as i; print(i.type_info(str) == i.StrType())", "True"),
        ("import msgspec; print(msgspec.inspect.type_info(str).__class__.__name__)", "StrType"),
        ("import msgspec; print(msgspec.toml.decode('a = 1'))", "{'a': 1}"),
        (
            "import typing, warnings as w; print(getattr(typing, 'warnings', w).warn is w.warn)",
            "True",
        ),
        ("import typing; print(typing.ForwardRef('a.b').__forward_code__.co_names)", "('a', 'b')"),
        ("import msgspec.yaml; print(msgspec.yaml.decode.__module__)", "msgspec.yaml"),
    ],
    ids=[
        *("typing_extensions", "platform", "datetime", "re", "typing", "pattern"),
        *("schema", "inspect", "inspect as an attribute", "toml", "warnings", "compile", "yaml"),
    ],
)
def test_what_is_imported_lightly_is_whole_for_whoever_comes_later(code: str, printed: str) -> None:
    assert in_a_command(code) == printed


def test_nothing_stands_in_for_a_module_afterwards() -> None:
    code = (
        "import sys; from tb_cli.entry import _stand_ins as table; "
        "print(len(table()), [name for name in table() if name in sys.modules])"
    )
    count, _, left = in_a_command(code).partition(" ")
    assert (int(count) > 0, left) == (True, "[]")


@pytest.mark.parametrize("module", ["typing", "msgspec"])
def test_a_module_that_is_imported_already_is_left_alone(module: str) -> None:
    code = f"import {module} as before; run('{module}'); import {module}; print({module} is before)"
    assert in_a_command(code) == "True"


# Runs a command and then tells, its last line on stderr, which modules of ours were imported while
# it had the write lock.
MODULES_WITHIN_THE_LOCK = """
import sys
from compute_market.store.lock import WriteLock
from tb_cli.entry import call
enter, leave = WriteLock.__enter__, WriteLock.__exit__
before, within = set(), {"lock"}
def entered(lock):
    enter(lock)
    before.update(sys.modules)
def left(lock, *error):
    within.update(set(sys.modules) - before)
    leave(lock, *error)
WriteLock.__enter__, WriteLock.__exit__ = entered, left
assert call(sys.argv[1:]) == 0
print(*(name for name in within if not name.startswith("blake3")), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("wallet", "deposit", "alice", "--ct", "1"),
        ("compute", "cancel", "j1"),
        ("compute", "cancel", "--by", "client", "j1", "j2"),
    ],
    ids=" ".join,
)
def test_nobody_waits_for_a_command_that_imports(cli: Cli, words: tuple[str, ...]) -> None:
    """What a change needs is imported before it takes the write lock, and not while it has it."""
    cli.active("j1", "j2")
    command = [sys.executable, "-c", MODULES_WITHIN_THE_LOCK, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "lock\n")
