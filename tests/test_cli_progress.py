"""The progress bar: on a terminal, after half a second, with the time left if it can be known."""

import os
import pty
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import progress, sums
from cli.progress import Progress
from compute_market.runner import Runner

MIB = 1_048_576

Shown = Callable[[], str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Shown]]:
    """Makes stderr a terminal and the bar show at once; gives what has been written to it."""
    monkeypatch.setattr(progress, "_AFTER_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    master, slave = pty.openpty()
    os.set_blocking(master, False)

    def shown() -> str:
        try:
            return os.read(master, 1_000_000).decode()
        except BlockingIOError:
            return ""

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
        code = sums.write(runner, "transcode", paths[:2], unused, as_text=True)
    assert code == 0
    assert "/80.0 MiB" in shown()
    assert capsys.readouterr().out.count("\n") == 2


def unused(total: int) -> "sums.Report":
    raise AssertionError("nothing to report")
