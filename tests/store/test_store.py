"""The store on the real LMDB, with real processes that hold, wait, die and run out of room."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_market.errors import (
    BusyError,
    IntegrityError,
    InternalError,
    MarketError,
    UsageError,
)
from compute_market.records import Score
from compute_market.store.schema import SCHEMA_VERSION, TABLES, decode, pack_u64
from compute_market.store.store import Store, Txn

ROOT = Path(__file__).parents[2]
PAGE = 4096

# Every test here is over in a second or two; one that is not waits for a lock nobody gives back.
pytestmark = pytest.mark.timeout(30)

PRELUDE = """
import sys, time
from compute_market.errors import MarketError
from compute_market.store import Store

def open_store(market_id=bytes(16), **options):
    return Store.open(
        sys.argv[1], now_ms=0, market_id=market_id, sleep=time.sleep, **options
    )

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()

def attempt(label, action):
    try:
        say(label, "ok", action())
    except MarketError as error:
        say(label, error.token, error.message, "|", error.hint)

def hold(txn):
    txn.put("taps", b"uncommitted", b"1")
    say("holding")
    hear()
"""


class Child:
    """Another process that has the store of a test open."""

    def __init__(self, path: Path, body: str, arguments: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(body), str(path), *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def hear(self) -> str:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        return line.strip() if line else f"ended: {self.process.stderr.read()}"

    def tell(self, text: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Spawn = Callable[..., Child]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "market"


@pytest.fixture
def spawn(path: Path) -> Iterator[Spawn]:
    """Start a process that runs `body` after `PRELUDE`; all are killed after the test."""
    children: list[Child] = []

    def start(body: str, *arguments: str) -> Child:
        children.append(Child(path, body, arguments))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def holder(path: Path, spawn: Spawn) -> Child:
    """A process inside a write transaction, until it is told something."""
    child = spawn("open_store().update(hold, now_ms=0); say('released')")
    assert child.hear() == "holding"
    return child


def open_store(path: Path, **options: Any) -> Store:
    return Store.open(
        str(path), **({"now_ms": 0, "market_id": bytes(16), "sleep": time.sleep} | options)
    )


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = open_store(path)
    yield opened
    opened.close()


def put(key: bytes, value: bytes = b"1", table: str = "taps") -> Callable[[Txn], None]:
    return lambda txn: txn.put(table, key, value)


def get(key: bytes, table: str = "taps") -> Callable[[Txn], bytes | None]:
    return lambda txn: txn.get(table, key)


# Transactions.


def test_update_commits_on_return(path: Path, store: Store) -> None:
    def action(txn: Txn) -> str:
        txn.put("taps", b"a", b"1")
        return "result"

    assert store.update(action, now_ms=0) == "result"
    store.close()
    reopened = open_store(path)
    assert reopened.view(get(b"a"), now_ms=0) == b"1"
    reopened.close()


@pytest.mark.parametrize("error", [ValueError, MarketError, KeyboardInterrupt, SystemExit])
def test_update_rolls_back_on_raise(store: Store, error: type[BaseException]) -> None:
    def action(txn: Txn) -> None:
        txn.put("taps", b"a")
        txn.count(b"counter")
        raise error("no")

    with pytest.raises(error, match="no"):
        store.update(action, now_ms=0)
    assert store.view(get(b"a"), now_ms=0) is None
    assert store.view(lambda txn: txn.counter(b"counter"), now_ms=0) == 0
    store.update(put(b"b"), now_ms=0)  # The write lock is free again.


def test_update_in_a_dry_run_leaves_the_file_as_it_was(path: Path, store: Store) -> None:
    store.update(put(b"a"), now_ms=0)
    before = (path / "data.mdb").read_bytes()

    def action(txn: Txn) -> int:
        txn.put("taps", b"a", bytes(100_000))
        txn.count(b"counter")
        txn.next_number("sequence")
        return len(txn.get("taps", b"a") or b"")

    assert store.update(action, now_ms=0, dry_run=True) == 100_000
    assert (path / "data.mdb").read_bytes() == before
    assert store.view(get(b"a"), now_ms=0) == b"1"
    store.update(put(b"b"), now_ms=0)
    assert store.view(lambda txn: txn.counter(b"counter"), now_ms=0) == 0


def test_update_carries_the_instant_and_the_stopwatch(store: Store) -> None:
    seen = store.update(
        lambda txn: (txn.now_ms, txn.now, txn.stopwatch and txn.stopwatch()),
        now_ms=1_999,
        stopwatch=lambda: 7,
    )
    assert seen == (1_999, 1, 7)
    assert store.view(lambda txn: (txn.now_ms, txn.stopwatch), now_ms=5) == (5, None)


def test_view_keeps_its_snapshot_while_others_commit(store: Store, spawn: Spawn) -> None:
    store.update(put(b"a", b"old"), now_ms=0)
    child = spawn("s = open_store(); s.update(lambda t: t.put('taps', b'a', b'new'), now_ms=0)")

    def look(txn: Txn) -> tuple[bytes | None, bytes | None]:
        before = txn.get("taps", b"a")
        child.process.wait()
        return before, txn.get("taps", b"a")

    assert store.view(look, now_ms=0) == (b"old", b"old")
    assert store.view(get(b"a"), now_ms=0) == b"new"


def test_counts_are_seen_before_the_commit_and_kept_after_it(store: Store) -> None:
    def action(txn: Txn) -> tuple[int, dict[bytes, int]]:
        txn.count(b"a\0x", 2)
        txn.count(b"a\0x")
        txn.count(b"b")
        return txn.counter(b"a\0x"), txn.counters(b"a")

    assert store.update(action, now_ms=0) == (3, {b"a\0x": 3})
    assert store.update(action, now_ms=0) == (6, {b"a\0x": 6})
    assert store.view(lambda txn: txn.counters(b""), now_ms=0) == {b"a\0x": 6, b"b": 2}


def test_counters_hold_more_than_64_bits(store: Store) -> None:
    store.update(lambda txn: txn.count(b"a", 2**63), now_ms=0)
    store.update(lambda txn: txn.count(b"a", 2**64), now_ms=0)
    assert store.view(lambda txn: txn.counter(b"a"), now_ms=0) == 2**63 + 2**64


def test_numbers_count_up_and_survive(path: Path, store: Store) -> None:
    assert store.view(lambda txn: txn.number("sequence"), now_ms=0) == 0
    numbers = store.update(lambda txn: [txn.next_number("sequence") for _ in range(300)], now_ms=0)
    assert numbers == list(range(1, 301))
    store.update(lambda txn: txn.set_number("large", 2**70), now_ms=0)
    store.close()
    reopened = open_store(path)
    found = reopened.view(lambda txn: (txn.number("sequence"), txn.number("large")), now_ms=0)
    assert found == (300, 2**70)
    reopened.close()


def test_writes_grow_with_every_change_and_with_nothing_else(store: Store) -> None:
    def action(txn: Txn) -> list[int]:
        steps: list[Callable[[], Any]] = [
            lambda: txn.put("taps", b"a"),
            lambda: txn.delete("taps", b"a"),
            lambda: txn.write("reputation", b"p", Score(1, 0, 0, 0)),
            lambda: txn.count(b"c"),
            lambda: txn.next_number("n"),
            lambda: (txn.get("taps", b"a"), txn.read("reputation", b"p"), txn.counter(b"c")),
            lambda: (list(txn.scan("taps")), txn.size("taps"), txn.number("n")),
        ]
        counts = []
        for step in steps:
            before = txn.writes
            step()
            counts.append(txn.writes - before)
        return counts

    assert store.update(action, now_ms=0) == [1, 1, 1, 1, 1, 0, 0]


KEYS = st.binary(min_size=1, max_size=3).map(lambda key: bytes(b % 3 for b in key))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "delete"]), KEYS, st.binary(max_size=2))),
    st.binary(max_size=2).map(lambda key: bytes(b % 3 for b in key)),
    st.none() | KEYS,
    st.integers(0, 4),
)
def test_reads_equal_those_of_a_dictionary(
    store: Store,
    changes: list[tuple[str, bytes, bytes]],
    prefix: bytes,
    start: bytes | None,
    limit: int,
) -> None:
    def action(txn: Txn) -> None:
        model: dict[bytes, bytes] = {}
        for change, key, value in changes:
            if change == "put":
                txn.put("taps", key, value)
                model[key] = value
            else:
                assert txn.delete("taps", key) == (model.pop(key, None) is not None)
        ordered = sorted(model.items())
        assert list(txn.scan("taps")) == ordered
        assert list(txn.scan_back("taps")) == ordered[::-1]
        assert txn.size("taps") == len(model)
        begin = start or prefix
        following = [item for item in ordered if item[0] >= begin]
        count = next(
            (i for i, item in enumerate(following) if not item[0].startswith(prefix)),
            len(following),
        )
        found = following[:count]
        assert list(txn.scan("taps", prefix, start)) == found
        assert txn.first("taps", prefix, start) == (found[0] if found else None)
        assert txn.collect("taps", limit, prefix, start) == found[:limit]
        for key in (b"\0", b"\1\2", b"\2"):
            assert txn.get("taps", key) == model.get(key)

    store.update(action, now_ms=0, dry_run=True)


def test_pack_u64_sorts_like_the_number() -> None:
    numbers = [0, 1, 255, 256, 2**32, 2**63 - 1, 2**64 - 1]
    assert [len(pack_u64(number)) for number in numbers] == [8] * len(numbers)
    assert sorted(map(pack_u64, numbers)) == [pack_u64(number) for number in numbers]


# Records.


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",  # No MessagePack at all.
        b"\x95\x01",  # Ends early.
        b"\x94\xa1x\x00\x00\x00",  # A string for a number.
        b"\x92\x01\x02",  # Fields are missing.
    ],
)
def test_read_of_a_damaged_record_names_table_and_key(store: Store, value: bytes) -> None:
    store.update(lambda txn: txn.put("reputation", b"prov", value), now_ms=0)
    for read in (
        lambda txn: txn.read("reputation", b"prov"),
        lambda txn: list(txn.records("reputation")),
    ):
        with pytest.raises(IntegrityError, match=r"table reputation, key b'prov': .*damaged"):
            store.view(read, now_ms=0)


@given(st.sampled_from([name for name, kind in TABLES.items() if kind]), st.binary(max_size=60))
def test_decode_gives_a_record_or_an_integrity_error(table: str, value: bytes) -> None:
    found: Any
    try:
        found = decode(table, b"key", value)
    except IntegrityError as error:
        found = error.message
    assert type(found) is TABLES[table] or f"table {table}, key b'key'" in found


def test_decode_of_text_that_is_no_utf8_is_an_integrity_error() -> None:
    # An Offer whose id is not text.
    with pytest.raises(IntegrityError, match="table offers"):
        decode("offers", b"o", b"\xdc\x00\x11\xa2\xff\xfe" + b"\x00" * 16)


# Opening.


def test_open_creates_a_private_directory_with_a_genesis(path: Path) -> None:
    previous = os.umask(0)
    try:
        store = open_store(path / "deeper", now_ms=1_234, market_id=b"m" * 16)
    finally:
        os.umask(previous)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in (path / "deeper").iterdir()}
    assert modes == {"data.mdb": 0o600, "lock.mdb": 0o600, "write.lock": 0o600}
    assert (path / "deeper").stat().st_mode & 0o777 == 0o700
    assert store.view(get(b"market_id", "meta"), now_ms=0) == b"m" * 16
    assert store.view(get(b"genesis_ms", "meta"), now_ms=0) == pack_u64(1_234)
    store.close()
    # A second opening changes nothing of it.
    store = open_store(path / "deeper", now_ms=9_999, market_id=b"x" * 16)
    assert store.view(get(b"market_id", "meta"), now_ms=0) == b"m" * 16
    assert store.view(get(b"genesis_ms", "meta"), now_ms=0) == pack_u64(1_234)
    store.close()


def test_open_uses_an_empty_directory_as_it_is(path: Path) -> None:
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    open_store(path).close()
    assert path.stat().st_mode & 0o777 == 0o755


def test_open_makes_every_table(path: Path, store: Store) -> None:
    assert store.view(lambda txn: [txn.size(name) for name in TABLES if name != "meta"], now_ms=0)
    store.close()
    environment = lmdb.open(str(path), max_dbs=64, readonly=True)
    assert {name.decode() for name in environment.dbs()} == set(TABLES)
    environment.close()


def test_open_is_durable_and_has_room_for_many_readers(store: Store) -> None:
    flags = store._env.flags()
    assert (flags["sync"], flags["metasync"], flags["writemap"], flags["lock"]) == (
        True,
        True,
        False,
        True,
    )
    assert store._env.info()["max_readers"] >= 512


def test_open_writes_file_format_1_whatever_the_environment_says(
    path: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", "1")
    child = spawn("open_store().close()")
    assert child.process.wait() == 0
    # The first meta page: a page header of 16 bytes, the magic number, the version.
    magic, version = struct.unpack_from("<II", (path / "data.mdb").read_bytes(), 16)
    assert (magic, version) == (0xBEEFC0DE, 1)


@pytest.mark.parametrize("place", ["market", "market/below", "market/data.mdb"])
def test_open_refuses_a_file_in_the_way(tmp_path: Path, path: Path, place: str) -> None:
    if place == "market/data.mdb":
        (path / "data.mdb").mkdir(parents=True)
        place = "market"
    else:
        path.write_text("mine")
    with pytest.raises(UsageError, match="market") as caught:
        open_store(tmp_path / place)
    assert "--home" in (caught.value.hint or "")
    if path.is_file():
        assert path.read_text() == "mine"


def test_open_refuses_a_newer_schema_and_names_both(path: Path, store: Store) -> None:
    store.update(lambda txn: txn.put("meta", b"schema", bytes([SCHEMA_VERSION + 6])), now_ms=0)
    store.close()
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(UsageError) as caught:
        open_store(path)
    assert re.findall(r"schema (\d+).*reads (\d+)", caught.value.message) == [
        (str(SCHEMA_VERSION + 6), str(SCHEMA_VERSION))
    ]
    assert (path / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("kept", [0, 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 4 * PAGE, "all but one byte"])
def test_open_names_a_truncated_file(path: Path, store: Store, kept: int | str) -> None:
    """In processes of their own, because reading past the end of a mapped file kills a process.

    Nothing kept is damage as well: the write lock's file shows that there was a market.
    """
    store.update(lambda txn: [txn.put("taps", b"%d" % i, bytes(500)) for i in range(50)], now_ms=0)
    store.close()
    length = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", kept if isinstance(kept, int) else length - 1)
    body = "attempt('open', lambda: open_store().view(lambda t: list(t.scan('taps')), now_ms=0))"
    found = subprocess.run(
        [sys.executable, "-c", PRELUDE + body, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, signal.Signals(-found.returncode).name
    assert found.stdout.startswith("open integrity ")
    assert str(path) in found.stdout
    assert "backup" in found.stdout


@pytest.mark.parametrize("content", [bytes(20_000), b"\xff" * 20_000, b"not a database"])
def test_open_names_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(content)
    with pytest.raises(IntegrityError, match=str(path)) as caught:
        open_store(path)
    assert "backup" in (caught.value.hint or "")
    assert (path / "data.mdb").read_bytes() == content


def test_open_accepts_a_file_that_lacks_pages_nobody_wrote(path: Path, store: Store) -> None:
    """Pages that a transaction takes at the end of the file and gives back are never written.

    The file is then shorter than the number of the last page says, and nothing is wrong with it.
    """
    store.update(put(b"a", bytes(100)), now_ms=0)
    store.update(put(b"a", bytes(200)), now_ms=0)

    def take_and_give_back(txn: Txn) -> None:
        txn.put("taps", b"large", bytes(5_000))
        txn.delete("taps", b"large")

    store.update(take_and_give_back, now_ms=0)
    store.close()
    reopened = open_store(path)
    assert reopened.view(get(b"a"), now_ms=0) == bytes(200)
    reopened.update(
        lambda txn: [txn.put("taps", b"%d" % i, bytes(500)) for i in range(99)], now_ms=0
    )
    assert reopened.view(lambda txn: txn.size("taps"), now_ms=0) == 100
    reopened.close()


def test_open_closes_the_environment_when_it_fails(path: Path, store: Store) -> None:
    store.update(lambda txn: txn.put("meta", b"schema", bytes([99])), now_ms=0)
    store.close()
    failures = []  # They keep what was opened alive: it would be "already open" the second time.
    for _ in range(2):
        with pytest.raises(UsageError, match="schema 99") as caught:
            open_store(path)
        failures.append(caught)


@pytest.mark.parametrize("lost", ["data.mdb", "lock.mdb", "write.lock"])
def test_open_without_one_of_the_files_begins_no_new_market(
    path: Path, store: Store, lost: str
) -> None:
    """The two lock files hold nothing and are made again; the data is not."""
    store.update(put(b"a"), now_ms=0)
    store.close()
    (path / lost).unlink()
    if lost == "data.mdb":
        with pytest.raises(IntegrityError, match=r"data\.mdb") as caught:
            open_store(path, market_id=b"x" * 16)
        assert "backup" in (caught.value.hint or "")
        assert not (path / "data.mdb").exists()
    else:
        reopened = open_store(path, market_id=b"x" * 16)
        assert reopened.view(get(b"a"), now_ms=0) == b"1"
        assert reopened.view(get(b"market_id", "meta"), now_ms=0) == bytes(16)
        reopened.update(put(b"b"), now_ms=0)
        reopened.close()


def _twice(store: Store) -> None:
    open_store(Path(store.path))


def _write_while_viewing(store: Store) -> None:
    store.view(put(b"a"), now_ms=0)


def _use_after_close(store: Store) -> None:
    store.close()
    store.view(get(b"a"), now_ms=0)


def _write_a_long_key(store: Store) -> None:
    store.update(put(b"k" * 512), now_ms=0)


def _read_an_empty_key(store: Store) -> None:
    store.view(get(b""), now_ms=0)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (_twice, "already open in this process"),
        (_write_while_viewing, "."),
        (_use_after_close, "closed"),
        (_write_a_long_key, "key"),
        (_read_an_empty_key, "key"),
    ],
)
def test_misuse_is_called_a_bug_and_not_damage(
    store: Store, misuse: Callable[[Store], None], words: str
) -> None:
    with pytest.raises(InternalError, match=words) as caught:
        misuse(store)
    assert "backup" not in (caught.value.hint or "")


def test_close_frees_the_store_for_a_fork(path: Path, store: Store) -> None:
    """An open store must not cross a fork; a closed one may be opened on both sides.

    That a child works on an inherited environment cannot be seen from outside, so there is no test
    that it must not.
    """
    store.update(put(b"a"), now_ms=0)
    store.close()
    pid = os.fork()
    if pid == 0:
        try:
            open_store(path).update(put(b"b"), now_ms=0)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    reopened = open_store(path)
    assert reopened.view(get(b"b"), now_ms=0) == b"1"
    reopened.close()


# Several processes.


def test_creating_at_once_gives_one_market(path: Path, spawn: Spawn) -> None:
    body = """
        say("ready"); hear()
        store = open_store(market_id=sys.argv[2].encode() * 16)
        say(store.view(lambda txn: txn.get("meta", b"market_id"), now_ms=0).hex())
    """
    for attempt in range(3):
        children = [spawn(body, str(number)) for number in range(4)]
        for child in children:
            assert child.hear() == "ready"
        for child in children:
            child.tell()
        found = [child.hear() for child in children]
        assert len(set(found)) == 1, found
        assert found[0] in {f"3{number}" * 16 for number in range(4)}
        path.rename(path.with_name(f"market{attempt}"))


def test_reading_does_not_wait_for_a_writer(path: Path, holder: Child, tmp_path: Path) -> None:
    store = open_store(path)
    assert store.view(get(b"uncommitted"), now_ms=0) is None
    (tmp_path / "copy").mkdir()
    store.backup(str(tmp_path / "copy"))
    assert holder.process.poll() is None
    store.close()


def test_reading_does_not_wait_for_the_writer_lock_of_lmdb(path: Path, spawn: Spawn) -> None:
    """As above, with only LMDB's own lock held: no handle may be opened outside a transaction."""
    open_store(path).close()
    child = spawn("""
        import lmdb
        with lmdb.open(sys.argv[1], max_dbs=64).begin(write=True):
            say("holding")
            hear()
    """)
    assert child.hear() == "holding"
    store = open_store(path)
    assert store.view(lambda txn: txn.size("taps"), now_ms=0) == 0
    assert store.view(get(b"schema", "meta"), now_ms=0) == bytes([SCHEMA_VERSION])
    store.close()


def test_update_without_the_lock_in_time_names_the_holder(path: Path, holder: Child) -> None:
    naps: list[float] = []
    store = open_store(path, lock_timeout_ms=50, sleep=naps.append)
    with pytest.raises(BusyError, match=f"held by process {holder.pid}$") as caught:
        store.update(put(b"a"), now_ms=0)
    assert caught.value.details == {"holder_pid": holder.pid}
    assert caught.value.retryable
    assert 0.045 <= sum(naps) <= 0.055
    holder.tell()
    assert holder.hear() == "released"
    store.update(put(b"a"), now_ms=0)
    assert store.view(get(b"uncommitted"), now_ms=0) == b"1"
    store.close()


def test_update_with_no_time_to_wait_fails_at_once(path: Path, holder: Child) -> None:
    naps: list[float] = []
    store = open_store(path, lock_timeout_ms=0, sleep=naps.append)
    with pytest.raises(BusyError):
        store.update(put(b"a"), now_ms=0)
    assert naps == []
    store.close()


def test_update_behind_another_waiter_names_the_holder_of_the_lock(
    path: Path, holder: Child, spawn: Spawn
) -> None:
    """The one who waits at the turnstile is not the one who keeps everybody waiting."""
    waiter = spawn("""
        def nap(seconds):
            if not naps:
                say("waiting")
            naps.append(seconds)
            time.sleep(seconds)
        naps = []
        Store.open(sys.argv[1], now_ms=0, market_id=bytes(16), sleep=nap).update(
            lambda txn: None, now_ms=0
        )
    """)
    assert waiter.hear() == "waiting"
    store = open_store(path, lock_timeout_ms=20)
    with pytest.raises(BusyError, match=f"held by process {holder.pid}$"):
        store.update(put(b"a"), now_ms=0)
    store.close()


def test_update_inside_an_update_fails_instead_of_waiting_for_itself(path: Path) -> None:
    store = open_store(path, lock_timeout_ms=20)
    with pytest.raises(BusyError, match=f"held by process {os.getpid()}$"):
        store.update(lambda _: store.update(put(b"a"), now_ms=0), now_ms=0)
    store.update(put(b"b"), now_ms=0)
    assert store.view(lambda txn: txn.size("taps"), now_ms=0) == 1
    store.close()


def test_killing_the_holder_frees_the_lock_and_shows_nothing(path: Path, holder: Child) -> None:
    store = open_store(path, lock_timeout_ms=0)
    holder.kill()
    store.update(put(b"a"), now_ms=0)
    assert store.view(get(b"uncommitted"), now_ms=0) is None
    assert store.view(get(b"a"), now_ms=0) == b"1"
    store.close()


def test_killing_a_writer_loses_nothing_it_reported(path: Path, spawn: Spawn) -> None:
    body = """
        def step(txn):
            number = txn.next_number("steps")
            txn.put("taps", b"%08d" % number, bytes(300))
            txn.count(b"steps")
            return number
        store = open_store()
        while True:
            say(store.update(step, now_ms=0))
    """
    for kills in range(1, 6):
        child = spawn(body)
        reported = [int(child.hear()) for _ in range(7 * kills)][-1]
        child.kill()
        assert child.process.stdout is not None
        reported = max([reported, *map(int, child.process.stdout.read().split())])
        store = open_store(path, lock_timeout_ms=0)
        numbers = store.view(
            lambda txn: (txn.number("steps"), txn.size("taps"), txn.counter(b"steps")), now_ms=0
        )
        assert len(set(numbers)) == 1
        assert numbers[0] in (reported, reported + 1)
        store.close()


def test_interrupting_a_waiter_ends_it_while_the_lock_is_held(holder: Child, spawn: Spawn) -> None:
    waiter = spawn("""
        def nap(seconds):
            if not naps:
                say("waiting")
            naps.append(seconds)
            time.sleep(seconds)
        naps = []
        store = Store.open(sys.argv[1], now_ms=0, market_id=bytes(16), sleep=nap)
        try:
            store.update(lambda txn: None, now_ms=0)
        except KeyboardInterrupt:
            say("interrupted")
    """)
    assert waiter.hear() == "waiting"
    waiter.process.send_signal(signal.SIGINT)
    assert waiter.hear() == "interrupted"
    assert waiter.process.wait(5) == 0
    assert holder.process.poll() is None


def test_a_bulk_writer_does_not_starve_a_waiter(path: Path, spawn: Spawn) -> None:
    """It holds the lock nearly always, so without the turnstile chance decides who comes next."""
    bulk = spawn("""
        def step(txn):
            txn.next_number("steps")
            time.sleep(0.004)
        store = open_store()
        say("begun")
        while True:
            store.update(step, now_ms=0)
    """)
    assert bulk.hear() == "begun"
    store = open_store(path)

    def steps() -> int:
        return store.view(lambda txn: txn.number("steps"), now_ms=0)

    passed = []
    after = 0
    for _ in range(15):
        while (before := steps()) == after:
            time.sleep(0.001)
        after = store.update(lambda txn: txn.number("steps"), now_ms=0)
        passed.append(after - before)
    store.close()
    assert sum(passed) <= 3 * len(passed), passed


def test_opening_clears_the_slot_of_a_killed_reader(path: Path, spawn: Spawn) -> None:
    """Pages that a dead reader pins are not used again, and the file would grow for ever."""
    watcher = spawn("store = open_store(); say('open'); hear()")  # Keeps the lock file alive.
    assert watcher.hear() == "open"
    reader = spawn("open_store().view(lambda txn: (say(txn.size('taps')), hear()), now_ms=0)")
    assert reader.hear() == "0"
    reader.kill()
    store = open_store(path)
    for number in range(30):
        store.update(put(b"a", bytes([number]) * 100_000), now_ms=0)
    store.close()
    assert (path / "data.mdb").stat().st_size < 1_000_000


def test_opening_leaves_a_living_reader_alone(path: Path, spawn: Spawn) -> None:
    store = open_store(path)
    store.update(put(b"a", b"old" * 1000), now_ms=0)
    store.close()
    reader = spawn("""
        def look(txn):
            say("looking"); hear()
            return txn.get("taps", b"a")[:3].decode()
        say(open_store().view(look, now_ms=0))
    """)
    assert reader.hear() == "looking"
    store = open_store(path)
    for _ in range(10):
        store.update(put(b"a", b"new" * 1000), now_ms=0)
    reader.tell()
    assert reader.hear() == "old"
    store.close()


def test_growth_by_another_process_is_adopted(path: Path, spawn: Spawn) -> None:
    """A process with a small map goes on when another one, with a larger map, outgrows it."""
    store = open_store(path, map_size=2**20)
    child = spawn("""
        store = open_store(map_size=2**30)
        store.update(
            lambda txn: [txn.put("taps", b"%d" % i, bytes(10_000)) for i in range(300)], now_ms=0
        )
    """)
    assert child.process.wait() == 0
    assert store.view(lambda txn: txn.size("taps"), now_ms=0) == 300
    store.update(put(b"a"), now_ms=0)
    assert store.view(lambda txn: txn.size("taps"), now_ms=0) == 301
    store.close()


def test_opening_with_a_smaller_map_reads_everything(path: Path, store: Store) -> None:
    store.update(
        lambda txn: [txn.put("taps", b"%d" % i, bytes(9_000)) for i in range(300)], now_ms=0
    )
    store.close()
    small = open_store(path, map_size=2**20)
    assert small.view(lambda txn: sum(len(v) for _, v in txn.scan("taps")), now_ms=0) == 2_700_000
    small.close()


@pytest.mark.parametrize("kind", ["view", "update", "dry run"])
def test_threads_read_what_they_ask_for(path: Path, store: Store, kind: str) -> None:
    """As the handlers of a server do: transactions of one store that begin and end in any order.

    A table's handle is a number. Two transactions that each open a table for the first time can be
    given the same number for different tables. It is as good if one of them has to wait: the steps
    below are taken in turn only as far as both transactions are let in at once.
    """
    for table in ("taps", "heads", "book"):
        store.update(put(b"a", table.encode(), table), now_ms=0)
    store.close()
    store = open_store(path)
    begun, heads_read, taps_read, read_all = (threading.Event() for _ in range(4))
    seen: list[list[bytes | None]] = []
    failures: list[MarketError] = []

    def one(txn: Txn) -> None:
        begun.set()
        heads_read.wait(0.3)
        found = [txn.get("taps", b"a"), txn.get("book", b"a")]
        taps_read.set()
        read_all.wait(0.3)
        seen.append([*found, txn.get("taps", b"a")])

    def other(txn: Txn) -> None:
        begun.wait(0.3)
        found = txn.get("heads", b"a")
        heads_read.set()
        taps_read.wait(0.3)
        seen.append([found, txn.get("taps", b"a")])
        read_all.set()

    def run() -> None:
        try:
            if kind == "view":
                store.view(other, now_ms=0)
            else:
                store.update(other, now_ms=0, dry_run=kind == "dry run")
        except MarketError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    store.view(one, now_ms=0)
    thread.join()
    assert failures == []
    assert sorted(seen, key=repr) == [[b"heads", b"taps"], [b"taps", b"book", b"taps"]]
    for table in ("book", "taps", "heads"):
        assert store.view(get(b"a", table), now_ms=0) == table.encode()
    store.close()


def test_threads_take_turns_to_update(store: Store) -> None:
    def work() -> None:
        for _ in range(20):
            store.update(lambda txn: txn.next_number("updates"), now_ms=0)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.view(lambda txn: txn.number("updates"), now_ms=0) == 60


# Backup.


def test_backup_holds_one_snapshot_for_its_owner_only(
    path: Path, store: Store, tmp_path: Path
) -> None:
    store.update(put(b"a"), now_ms=0)
    (tmp_path / "copy").mkdir()
    previous = os.umask(0o022)
    try:
        store.backup(str(tmp_path / "copy"))
    finally:
        os.umask(previous)
    store.update(put(b"b"), now_ms=0)
    copy = open_store(tmp_path / "copy", now_ms=99, market_id=b"x" * 16)
    assert copy.view(lambda txn: list(txn.scan("taps")), now_ms=0) == [(b"a", b"1")]
    assert copy.view(get(b"market_id", "meta"), now_ms=0) == bytes(16)
    copy.close()
    assert (tmp_path / "copy" / "data.mdb").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("missing", [True, False])
def test_backup_refuses_a_place_it_cannot_fill(store: Store, tmp_path: Path, missing: bool) -> None:
    if not missing:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "data.mdb").write_text("mine")
    with pytest.raises(UsageError, match="copy"):
        store.backup(str(tmp_path / "copy"))
    if not missing:
        assert (tmp_path / "copy" / "data.mdb").read_text() == "mine"


# Room.


def test_a_full_map_is_busy_and_nothing_is_written(path: Path) -> None:
    store = open_store(path, map_size=2**20)
    store.update(put(b"kept"), now_ms=0)

    def fill(txn: Txn) -> None:
        for number in range(300):
            txn.put("taps", b"%d" % number, bytes(10_000))

    with pytest.raises(BusyError, match=str(path)) as caught:
        store.update(fill, now_ms=0)
    assert "map_size_gib" in (caught.value.hint or "")
    assert store.view(lambda txn: txn.size("taps"), now_ms=0) == 1
    store.update(put(b"more"), now_ms=0)
    store.close()
    larger = open_store(path, map_size=2**24)
    larger.update(fill, now_ms=0)
    assert larger.view(lambda txn: txn.size("taps"), now_ms=0) == 302
    larger.close()


def in_a_mount(directory: Path, options: str, body: str) -> dict[str, str]:
    """Run `body` with a file system of its own at `directory`; what it said, by first word.

    It lives in a mount namespace that ends with the process. Skips where that is not permitted.
    """
    directory.mkdir()
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mounting = f'mount -t tmpfs -o {options} tmpfs "$0"'
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    probe = subprocess.run([*mount, mounting, directory], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no mount namespace: {probe.stderr.decode().strip()}")
    found = subprocess.run(
        [
            *mount,
            mounting + ' && exec "$@"',
            directory,
            sys.executable,
            "-c",
            "import os\n" + PRELUDE + textwrap.dedent(body),
            directory / "market",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, (found.returncode, found.stdout, found.stderr)
    return dict(line.split(" ", 1) for line in found.stdout.splitlines())


def test_a_read_only_mount_can_be_read(tmp_path: Path) -> None:
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        """
        import subprocess
        store = open_store()
        store.update(lambda txn: txn.put("taps", b"a"), now_ms=0)
        store.close()
        mount = os.path.dirname(sys.argv[1])
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        store = open_store()
        attempt("view", lambda: store.view(lambda txn: txn.size("taps"), now_ms=0))
        attempt("update", lambda: store.update(lambda txn: None, now_ms=0))
        sys.argv[1] += "2"
        attempt("create", open_store)
        """,
    )
    assert said["view"] == "ok 1"
    assert re.match(r"usage \S+/mount/market is read-only \| .*--home", said["update"])
    assert re.match(r"usage \S+/mount/market2: read-only file system \| .*--home", said["create"])


FULL_DISK = """
    mount = os.path.dirname(sys.argv[1])

    def fill(free_pages):
        descriptor = os.open(mount + "/filler", os.O_RDWR | os.O_CREAT)
        try:
            while True:
                os.write(descriptor, bytes(4096))
        except OSError:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - 4096 * free_pages)
            os.close(descriptor)

    def grow(txn):
        for number in range(20):
            txn.put("taps", b"%d" % number, bytes(3_000))

    def size(txn):
        return txn.size("taps")
"""


@pytest.mark.parametrize("free_pages", [0, 1, 4, 9])
def test_a_full_disk_is_busy_and_nothing_is_lost(tmp_path: Path, free_pages: int) -> None:
    """With some pages free, the first write of the commit is cut short instead of refused."""
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        textwrap.dedent(FULL_DISK)
        + textwrap.dedent(f"""
        store = open_store()
        store.update(lambda txn: txn.put("taps", b"kept"), now_ms=0)
        fill({free_pages})
        attempt("full", lambda: store.update(grow, now_ms=0))
        attempt("after", lambda: store.view(size, now_ms=0))
        store.close()
        store = open_store()
        attempt("reopened", lambda: store.view(size, now_ms=0))
        os.remove(mount + "/filler")
        attempt("retry", lambda: store.update(grow, now_ms=0))
        store.close()
        attempt("end", lambda: open_store().view(size, now_ms=0))
        """),
    )
    assert re.match(r"busy \S+/mount/market: .* \| .*free some disk space", said["full"])
    assert (said["after"], said["reopened"]) == ("ok 1", "ok 1")
    assert (said["retry"], said["end"]) == ("ok None", "ok 21")


@pytest.mark.parametrize("free_pages", [0, 1, 2, 3, 4])
def test_creating_on_a_full_disk_is_busy(tmp_path: Path, free_pages: int) -> None:
    """LMDB maps the lock file: a page of it that the disk has no room for kills the process."""
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        textwrap.dedent(FULL_DISK)
        + textwrap.dedent(f"""
        fill({free_pages})
        attempt("full", open_store)
        os.remove(mount + "/filler")
        attempt("retry", lambda: open_store().view(size, now_ms=0))
        """),
    )
    assert re.match(r"busy .* \| .*free some disk space", said["full"])
    assert said["retry"] == "ok 0"


def test_opening_a_restored_copy_on_a_full_disk_is_busy(tmp_path: Path) -> None:
    """A copy that holds the data alone has its lock files still to be made."""
    said = in_a_mount(
        tmp_path / "mount",
        "size=1m",
        textwrap.dedent(FULL_DISK)
        + textwrap.dedent("""
        store = open_store()
        store.update(lambda txn: txn.put("taps", b"kept"), now_ms=0)
        store.close()
        os.remove(sys.argv[1] + "/lock.mdb")
        fill(0)
        attempt("full", open_store)
        os.remove(mount + "/filler")
        attempt("retry", lambda: open_store().view(size, now_ms=0))
        """),
    )
    assert re.match(r"busy .* \| .*free some disk space", said["full"])
    assert said["retry"] == "ok 1"


def test_errors_have_a_json_form(path: Path, holder: Child) -> None:
    store = open_store(path, lock_timeout_ms=0)
    with pytest.raises(BusyError) as caught:
        store.update(put(b"a"), now_ms=0)
    document = json.loads(json.dumps(caught.value.document()))
    assert document["error"] == "busy"
    assert document["retryable"] is True
    assert document["holder_pid"] == holder.pid
    store.close()
