"""`cancellations.log`: one line for each cancellation, in order, whatever dies when."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from compute_market import audit
from compute_market.jobs import cancellations
from compute_market.jobs.cancel import cancel
from compute_market.store.lock import Patience
from compute_market.store.txn import Txn
from tests.support.market import Market

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "cancellations.log"


def follow(market: Market, log: Path) -> None:
    market.opened.follow_log(str(log))


def add(market: Market, *lines: tuple[str, str]) -> None:
    """Cancel a job of each id, by the party named as the reason, in one command each."""
    for job_id, reason in lines:
        market.submit(job_id, wait=True, buyer=f"buyer-of-{job_id}")
        market.cancel(job_id, by=reason)


LINES = [("job-b", "client"), ("job-a", "provider"), ("j", "client"), ("job-c", "client")]
TEXT = b"job-b client\njob-a provider\nj client\njob-c client\n"


@pytest.fixture
def cancelled(market: Market) -> Market:
    """A market with four cancelled jobs."""
    market.post(reputation=1)
    add(market, *LINES)
    return market


# The text.


def test_cancel_adds_a_line_in_order(cancelled: Market, log: Path) -> None:
    follow(cancelled, log)
    assert log.read_bytes() == TEXT
    assert cancelled.view(cancellations.length) == len(TEXT)


def test_cancel_again_adds_no_line(cancelled: Market, log: Path) -> None:
    cancelled.cancel("job-b")
    cancelled.cancel("job-b", by="provider")
    follow(cancelled, log)
    assert log.read_bytes() == TEXT


def test_other_ends_add_no_line(market: Market, log: Path) -> None:
    market.post(reputation=5)
    market.submit("done")
    market.prove("done")
    market.submit("late", deadline_secs=61)
    market.submit("waits", deadline_secs=61, wait=True, capability={"cpu_cores": 9})
    market.advance(62)
    market.update(lambda txn: None)
    assert {market.job(name).state for name in ("late", "waits")} == {"failed"}
    follow(market, log)
    assert not log.exists()


def test_text_from_any_byte_is_the_rest_of_the_text(cancelled: Market) -> None:
    def rests(txn: Txn) -> list[bytes]:
        return [cancellations.text_from(txn, offset) for offset in range(len(TEXT) + 1)]

    assert cancelled.view(rests) == [TEXT[offset:] for offset in range(len(TEXT) + 1)]


def test_text_from_beyond_the_end_is_empty(cancelled: Market) -> None:
    assert cancelled.view(lambda txn: cancellations.text_from(txn, len(TEXT) + 100)) == b""


def test_text_from_an_empty_table_is_empty(market: Market) -> None:
    assert market.view(lambda txn: cancellations.text_from(txn, 0)) == b""


# What a process that died between its commit and its line leaves behind.


def test_follow_completes_a_log_that_ends_at_any_byte(cancelled: Market, log: Path) -> None:
    for kept in range(len(TEXT) + 1):
        log.write_bytes(TEXT[:kept])
        follow(cancelled, log)
        assert log.read_bytes() == TEXT, f"after byte {kept}"


def test_follow_makes_a_missing_log(cancelled: Market, log: Path) -> None:
    follow(cancelled, log)
    log.unlink()
    follow(cancelled, log)
    assert log.read_bytes() == TEXT
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o600


def test_follow_of_a_complete_log_touches_nothing(cancelled: Market, log: Path) -> None:
    follow(cancelled, log)
    os.utime(log, ns=(1, 1))
    follow(cancelled, log)
    assert os.stat(log).st_mtime_ns == 1
    assert log.read_bytes() == TEXT


def test_follow_leaves_what_is_there_alone(cancelled: Market, log: Path) -> None:
    # An edited line is for the audit to find, not for the next command to overwrite.
    log.write_bytes(b"JOB-B client\n")
    follow(cancelled, log)
    assert log.read_bytes() == TEXT.replace(b"job-b", b"JOB-B")


def test_follow_appends_nothing_to_a_log_that_is_too_long(cancelled: Market, log: Path) -> None:
    log.write_bytes(TEXT + b"more\n")
    follow(cancelled, log)
    assert log.read_bytes() == TEXT + b"more\n"


def test_follow_without_the_directory_fails_and_the_next_one_makes_up(
    cancelled: Market, tmp_path: Path
) -> None:
    log = tmp_path / "later" / "cancellations.log"
    with pytest.raises(OSError, match="No such file"):
        follow(cancelled, log)
    log.parent.mkdir()
    follow(cancelled, log)
    assert log.read_bytes() == TEXT


def test_rolled_back_cancel_leaves_no_line(cancelled: Market, log: Path) -> None:
    cancelled.submit("kept")

    def action(txn: Txn) -> None:
        cancel(txn, "kept", "client")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled.update(action)
    follow(cancelled, log)
    assert log.read_bytes() == TEXT


def test_text_from_gives_as_many_lines_as_it_may(cancelled: Market) -> None:
    def by_line(txn: Txn) -> list[bytes]:
        found: list[bytes] = []
        while more := cancellations.text_from(txn, sum(map(len, found)), 1):
            found.append(more)
        return found

    assert cancelled.view(by_line) == TEXT.splitlines(keepends=True)


def test_follow_writes_more_lines_than_one_read_takes(tmp_path: Path, log: Path) -> None:
    market = Market(tmp_path / "market")
    names = [f"job-{number}" for number in range(2 * cancellations.CHUNK_LINES + 1)]
    market.alone(lambda txn: [cancellations.add(txn, name, "client") for name in names])
    follow(market, log)
    assert log.read_text() == "".join(f"{name} client\n" for name in names)
    market.store.close()


# Several processes at once.


FOLLOWER = """
import sys, time
from pathlib import Path
from compute_market.engine import Engine
from compute_market.store.store import Store

path, log, now_ms = sys.argv[1], sys.argv[2], int(sys.argv[3])
market = Engine(Store.open(path, sleep=time.sleep), clock=lambda: now_ms)
print("ready", flush=True)
while not Path(path, "done").exists():
    market.follow_log(log)
"""


def test_concurrent_followers_write_each_line_once(market: Market, log: Path) -> None:
    arguments = [sys.executable, "-c", FOLLOWER, str(market.path), str(log), str(market.now_ms)]
    names = [f"job-{n:03}" for n in range(200)]
    with ExitStack() as stack:
        followers = [
            stack.enter_context(subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE))
            for _ in range(3)
        ]
        stack.callback((market.path / "done").touch)
        for follower in followers:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"ready\n"
        add(market, *[(name, "client") for name in names])
    assert [follower.returncode for follower in followers] == [0, 0, 0]
    follow(market, log)
    assert log.read_text() == "".join(f"{name} client\n" for name in names)


# What the audit says about the file.


@pytest.mark.parametrize(
    "content",
    [TEXT[14:], TEXT.replace(b"job-a", b"job-x"), TEXT + b"x\n", TEXT[:-1] + b" "],
    ids=["without its first line", "edited", "longer", "edited at its end"],
)
def test_audit_finds_a_log_that_differs(cancelled: Market, content: bytes) -> None:
    (found,) = cancelled.view(lambda txn: list(audit.log_violations(txn, content)))
    assert (found.table, found.law) == ("cancellations.log", "the log is the text of the table")


@pytest.mark.parametrize("length", range(0, len(TEXT) + 1, 7))
def test_audit_finds_nothing_wrong_with_a_log_as_far_as_it_goes(
    cancelled: Market, length: int
) -> None:
    """The next change makes it whole."""
    log = TEXT[:length]
    assert cancelled.view(lambda txn: list(audit.log_violations(txn, log))) == []
    assert cancelled.view(lambda txn: list(audit.log_violations(txn, TEXT))) == []


# A file that is not one, or not to be had.


@pytest.mark.parametrize("kind", ["fifo", "link", "device", "directory", "socket"])
def test_follow_writes_to_nothing_but_a_regular_file(
    cancelled: Market, log: Path, kind: str
) -> None:
    victim = log.with_name("victim")
    if kind == "fifo":
        os.mkfifo(log)
    elif kind == "link":
        victim.write_bytes(b"root:x:0:0\n")
        log.symlink_to(victim)
    elif kind == "device":
        log.symlink_to("/dev/zero")
    elif kind == "directory":
        log.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(log))
    before = log.lstat()
    with pytest.raises(OSError, match=r"is a link|regular|directory|No such device"):
        follow(cancelled, log)
    with pytest.raises(OSError, match=r"is a link|regular|directory|No such device"):
        cancellations.read(str(log), lambda: len(TEXT))
    assert (log.lstat().st_mode, log.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not victim.exists() or victim.read_bytes() == b"root:x:0:0\n"


def test_append_waits_for_the_lock_no_longer_than_it_may(log: Path) -> None:
    log.touch()
    for timeout_ms in (0, 20):
        naps: list[float] = []
        patience = Patience(timeout_ms, naps.append)
        with log.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(OSError, match=f"locked by process {os.getpid()}"):
                cancellations.append(str(log), lambda offset: TEXT[offset:], patience)
        assert sum(naps) == pytest.approx(timeout_ms / 1000)
    assert log.read_bytes() == b""
    cancellations.append(str(log), lambda offset: TEXT[offset:], Patience(0, naps.append))
    assert log.read_bytes() == TEXT


@pytest.mark.parametrize("written", [0, 1, 20, len(TEXT) - 1, len(TEXT)])
def test_follow_never_writes_again_what_a_failed_write_has_written(
    cancelled: Market, log: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write = os.write

    def failing(descriptor: int, text: bytes) -> int:
        write(descriptor, text[:written])
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(OSError, match="Input/output"):
        follow(cancelled, log)
    monkeypatch.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:7]))
    follow(cancelled, log)
    assert log.read_bytes() == TEXT


def test_follow_of_a_file_that_does_not_grow_ends(
    cancelled: Market, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, text: len(text))
    with pytest.raises(OSError, match="does not grow"):
        follow(cancelled, log)


def test_read_takes_no_more_than_shows_that_a_log_is_too_long(cancelled: Market, log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(2**40)  # It takes no room on disk.
    content = cancellations.read(str(log), lambda: cancelled.view(cancellations.length))
    assert len(content) == len(TEXT) + 1
    follow(cancelled, log)
    assert log.stat().st_size == 2**40
