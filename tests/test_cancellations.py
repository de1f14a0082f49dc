"""`cancellations.log`: one line for each cancellation, in order, whatever dies when."""

import os
import stat
import threading
from pathlib import Path

import pytest

from compute_market import audit, cancellations
from compute_market.store import Store
from tests.conftest import Market


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "cancellations.log"


def follow(market: Market, log: Path) -> None:
    cancellations.follow(market.store, str(log), now_ms=market.now_ms)


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
    market.post()
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
    market.submit("late", deadline_secs=1)
    market.submit("waits", deadline_secs=1, wait=True, capability={"cpu_cores": 9})
    market.advance(2)
    market.update(lambda txn: None)
    assert {market.job(name).state for name in ("late", "waits")} == {"failed"}
    follow(market, log)
    assert not log.exists()


@pytest.mark.parametrize("offset", range(len(TEXT) + 1))
def test_text_from_any_byte_is_the_rest_of_the_text(cancelled: Market, offset: int) -> None:
    assert cancelled.view(lambda txn: cancellations.text_from(txn, offset)) == TEXT[offset:]


def test_text_from_beyond_the_end_is_empty(cancelled: Market) -> None:
    assert cancelled.view(lambda txn: cancellations.text_from(txn, len(TEXT) + 100)) == b""


def test_text_from_an_empty_table_is_empty(market: Market) -> None:
    assert market.view(lambda txn: cancellations.text_from(txn, 0)) == b""


# What a process that died between its commit and its line leaves behind.


@pytest.mark.parametrize("kept", range(len(TEXT) + 1))
def test_follow_completes_a_log_that_ends_at_any_byte(
    cancelled: Market, log: Path, kept: int
) -> None:
    log.write_bytes(TEXT[:kept])
    follow(cancelled, log)
    assert log.read_bytes() == TEXT


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

    def action(txn: object) -> None:
        from compute_market import lifecycle

        lifecycle.cancel(txn, cancelled.config, "kept", "client")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled.update(action)
    follow(cancelled, log)
    assert log.read_bytes() == TEXT


def test_follow_writes_more_lines_than_one_read_takes(
    market: Market, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellations, "_CHUNK_LINES", 3)
    add(market, *[(f"job-{n}", "client") for n in range(10)])
    follow(market, log)
    assert log.read_text() == "".join(f"job-{n} client\n" for n in range(10))


# Several processes at once.


def test_concurrent_followers_write_each_line_once(tmp_path: Path, log: Path) -> None:
    market = Market(tmp_path / "busy")
    done = threading.Event()
    failures: list[BaseException] = []

    def keep_following(store: Store) -> None:
        try:
            while not done.is_set():
                cancellations.follow(store, str(log), now_ms=market.now_ms)
        except BaseException as error:
            failures.append(error)
            raise

    followers = [threading.Thread(target=keep_following, args=(market.store,)) for _ in range(4)]
    for follower in followers:
        follower.start()
    names = [f"job-{n:03}" for n in range(150)]
    for name in names:
        add(market, (name, "client"))
    done.set()
    for follower in followers:
        follower.join()
    follow(market, log)
    assert failures == []
    assert log.read_text() == "".join(f"{name} client\n" for name in names)
    assert market.violations() == []
    market.store.close()


# What the audit says about the file.


@pytest.mark.parametrize(
    ("content", "place", "detail"),
    [
        (b"", "byte 0", f"from here on it differs, at 0 bytes of {len(TEXT)}"),
        (
            TEXT[:-1],
            "byte 0",
            f"from here on it differs, at {len(TEXT) - 1} bytes of {len(TEXT)}",
        ),
        (
            TEXT.replace(b"job-a", b"job-x"),
            "byte 0",
            f"from here on it differs, at {len(TEXT)} bytes of {len(TEXT)}",
        ),
        (TEXT + b"x\n", f"byte {len(TEXT)}", "2 bytes too many"),
    ],
    ids=["missing", "cut", "edited", "longer"],
)
def test_audit_finds_a_log_that_differs(
    cancelled: Market, content: bytes, place: str, detail: str
) -> None:
    found = cancelled.view(lambda txn: list(audit.log_violations(txn, content)))
    assert found == [
        audit.Violation("cancellations.log", place, "the log is the text of the table", detail)
    ]


def test_audit_finds_nothing_wrong_with_a_complete_log(cancelled: Market) -> None:
    assert cancelled.view(lambda txn: list(audit.log_violations(txn, TEXT))) == []
