"""The progress bar: on a terminal, after half a second, with the time left if it can be known."""

import json
import os
import pty
import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from compute_market.workloads.runner import Runner
from tb_cli import run as sums
from tb_cli.frame import progress
from tb_cli.frame.progress import Progress
from tests.support.cli import NOT_PAID, Cli
from tests.support.threads import begun_threads

pytest_plugins = ("tests.support.cli",)

MIB = 1_048_576

Shown = Callable[[], str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Shown]]:
    """Makes stderr a terminal and the bar show at once; gives what has been written to it."""
    monkeypatch.setattr(progress, "_AFTER_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    master, slave = pty.openpty()

    def shown() -> str:
        found = b""
        # A terminal hands on what was written in pieces, a moment later.
        while select.select([master], [], [], 0.1)[0]:
            found += os.read(master, 65_536)
        return found.decode()

    with open(slave, "w") as stderr:

        def begin() -> Shown:
            # Not before the test itself: pytest puts streams of its own in place until then.
            monkeypatch.setattr(sys, "stderr", stderr)
            return shown

        yield begin
    os.close(master)


def test_bar_shows_bytes_of_a_total(terminal: Callable[[], Shown]) -> None:
    shown = terminal()
    with Progress(lambda: 8 * MIB) as bar:
        bar(2 * MIB)
    assert "2.0/8.0 MiB" in shown()


def test_bar_shows_bytes_without_a_total(terminal: Callable[[], Shown]) -> None:
    shown = terminal()
    for total in (None, lambda: None):
        with Progress(total) as bar:
            bar(2 * MIB)
        assert "2.0/? MiB" in shown()


def test_bar_of_parts_shows_a_percentage_and_takes_no_thread(
    terminal: Callable[[], Shown],
) -> None:
    shown, threads = terminal(), begun_threads()
    with Progress(1000, of_bytes=False) as bar:
        bar(250)
        assert threads() == 0
    assert "25%" in shown()


@pytest.mark.parametrize("after_s", [None, 60.0])
def test_total_is_asked_for_only_when_the_bar_shows(
    after_s: float | None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if after_s is not None:
        request.getfixturevalue("terminal")()
        monkeypatch.setattr(progress, "_AFTER_S", after_s)

    def total() -> int:
        raise AssertionError("asked")

    with Progress(total) as bar:
        bar(1)


COLOR = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|9[0-7])[;m]")


@pytest.mark.parametrize(("color", "variable"), [(True, None), (False, None), (True, "1")])
def test_bar_is_plain_where_no_color_is_wanted(
    color: bool,
    variable: str | None,
    terminal: Callable[[], Shown],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable is not None:
        monkeypatch.setenv("NO_COLOR", variable)
    shown = terminal()
    with Progress(8 * MIB, color=color) as bar:
        bar(2 * MIB)
    text = shown()
    assert "MiB" in text
    assert bool(COLOR.search(text)) == (color and variable is None)


def test_bar_of_silent_work_shows_without_a_call(terminal: Callable[[], Shown]) -> None:
    shown = terminal()
    with Progress(8 * MIB, silent=True):
        text = ""
        while "0.0/8.0 MiB" not in text:
            text += shown()
            time.sleep(0.01)


def test_bar_of_silent_work_tells_what_was_done_before_it_showed(
    terminal: Callable[[], Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_AFTER_S", 0.2)
    shown = terminal()
    with Progress(8 * MIB, silent=True) as bar:
        bar(2 * MIB)
        text = ""
        while "2.0/8.0 MiB" not in text:
            text += shown()
            time.sleep(0.01)


@pytest.mark.parametrize("silent", [True, False])
def test_bar_of_work_that_ends_soon_never_shows(
    silent: bool, terminal: Callable[[], Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_AFTER_S", 60.0)
    shown = terminal()
    threads = begun_threads()
    with Progress(8 * MIB, silent=silent) as bar:
        bar(8 * MIB)
        # What would forbid forks is there only if it was asked for.
        assert threads() == silent
    assert (shown(), threads()) == ("", 0)


@pytest.mark.parametrize("options", [(), ("--no-color",)])
@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("run", "a.slice", "--workload", "slow"), "00" * 32 + "  a.slice\n"),
        (
            ("execute", "j1"),
            f"executed job j1: 1 of 1 slices proven, completed{NOT_PAID}\n",
        ),
    ],
)
def test_bar_shows_for_short_slices_that_are_slow(
    cli: Cli, plugin: ModuleType, command: tuple[str, ...], out: str, options: tuple[str, ...]
) -> None:
    cli.post()
    # With its reference, for which the workload would have to be run.
    slices = [{"path": str(cli.slice()), "reference": "00" * 32}]
    job = {"job_id": "j1", "buyer": "alice", "workload": "slow", "max_price_per_unit": 100}
    cli.ok("compute", "submit", "-", stdin=json.dumps(job | {"slices": slices}))
    packages = os.path.dirname(str(plugin.__file__))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((packages, os.environ["PYTHONPATH"])),
        "TERM": "xterm",
    }
    master, slave = pty.openpty()
    process = cli.start(
        *("compute", *command, *options),
        stderr=slave,
        afresh=True,
        env=environment,
    )
    os.close(slave)
    text = b""
    with suppress(OSError):  # How Linux says that the other end is closed.
        while part := os.read(master, 65536):
            text += part
    os.close(master)
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed.decode()) == (0, out)
    assert b"0/5 bytes" in text
    assert bool(COLOR.search(text.decode())) == (not options)


def test_run_knows_its_total(
    terminal: Callable[[], Shown], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = terminal()
    paths = [str(tmp_path / name) for name in ("a", "b", "missing")]
    for path in paths[:2]:
        with open(path, "wb") as sparse:
            sparse.truncate(40 * MIB)
    assert sums._length(paths) == 80 * MIB
    assert sums._length([*paths, "-"]) is None
    with Runner() as runner:
        code = sums.write(runner, "transcode", paths[:2], unused, as_text=True, color=True)
    assert code == 0
    assert "/80.0 MiB" in shown()
    assert capsys.readouterr().out.count("\n") == 2


def unused(total: int) -> "sums.Report":
    raise AssertionError("nothing to report")


def test_bar_says_what_is_worked_on_and_how_fast_in_the_same_units(
    terminal: Callable[[], Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_DRAWN_EVERY_S", 0.0)
    shown = terminal()
    with Progress(64 * MIB, name="/films/of/the/year/2026/reel-\x1b[31m.mov") as bar:
        for step in range(1, 5):
            bar(step * 16 * MIB)
            time.sleep(0.02)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown())
    assert "...026/reel-\\x1b[31m.mov" in text
    assert re.search(r"\d+\.\d [KMG]iB/s", text)
    assert "MB" not in text
