"""The store on the real LMDB: updates and views, in processes and threads that wait and die."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from compute_market.errors import (
    InternalError,
    MarketError,
    UsageError,
)
from compute_market.store import copies, pages
from compute_market.store.environment import verify
from compute_market.store.schema import (
    ACTIVE,
    BOOK,
    COUNTERS,
    HEADS,
    META,
    SCHEMA_VERSION,
)
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support.stores import Child, Spawn, get, open_store, open_to_look, put

# Every test here is over in a second or two; one that is not waits for a lock nobody gives back.
pytestmark = pytest.mark.timeout(30)


def test_update_commits_on_return(path: Path, store: Store) -> None:
    def action(txn: Txn) -> str:
        txn.put(HEADS, b"a", b"1")
        return "result"

    assert store.update(action, now_ms=0) == "result"
    store.close()
    reopened = open_store(path)
    assert reopened.view(get(b"a"), now_ms=0) == b"1"
    reopened.close()


@pytest.mark.parametrize("error", [ValueError, MarketError, KeyboardInterrupt, SystemExit])
def test_update_rolls_back_on_raise(store: Store, error: type[BaseException]) -> None:
    def action(txn: Txn) -> None:
        txn.put(HEADS, b"a")
        txn.add(COUNTERS, b"counter", 1)
        raise error("no")

    with pytest.raises(error, match="no"):
        store.update(action, now_ms=0)
    assert store.view(get(b"a"), now_ms=0) is None
    assert store.view(lambda txn: txn.sum(COUNTERS, b"counter"), now_ms=0) == 0
    store.update(put(b"b"), now_ms=0)  # The write lock is free again.


def test_update_in_a_dry_run_leaves_the_file_as_it_was(path: Path, store: Store) -> None:
    store.update(put(b"a"), now_ms=0)
    before = (path / "data.mdb").read_bytes()

    def action(txn: Txn) -> int:
        txn.put(HEADS, b"a", bytes(100_000))
        txn.add(COUNTERS, b"counter", 1)
        txn.next_number("sequence")
        return len(txn.get(HEADS, b"a") or b"")

    assert store.update(action, now_ms=0, dry_run=True) == 100_000
    assert (path / "data.mdb").read_bytes() == before
    assert store.view(get(b"a"), now_ms=0) == b"1"
    store.update(put(b"b"), now_ms=0)
    assert store.view(lambda txn: txn.sum(COUNTERS, b"counter"), now_ms=0) == 0


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
    child = spawn("s = open_store(); s.update(lambda t: t.put(HEADS, b'a', b'new'), now_ms=0)")

    def look(txn: Txn) -> tuple[bytes | None, bytes | None]:
        before = txn.get(HEADS, b"a")
        child.process.wait()
        return before, txn.get(HEADS, b"a")

    assert store.view(look, now_ms=0) == (b"old", b"old")
    assert store.view(get(b"a"), now_ms=0) == b"new"


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


def test_killing_a_writer_loses_nothing_it_reported(path: Path, spawn: Spawn) -> None:
    body = """
        def step(txn):
            number = txn.next_number("steps")
            txn.put(HEADS, b"%08d" % number, bytes(300))
            txn.add(COUNTERS, b"steps", 1)
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
            lambda txn: (txn.number("steps"), txn.size(HEADS), txn.sum(COUNTERS, b"steps")),
            now_ms=0,
        )
        assert len(set(numbers)) == 1
        assert numbers[0] in (reported, reported + 1)
        store.close()


def test_reading_does_not_wait_for_a_writer(path: Path, holder: Child, tmp_path: Path) -> None:
    store = open_store(path)
    assert store.view(get(b"uncommitted"), now_ms=0) is None
    (tmp_path / "copy").mkdir()
    copies.backup(store, str(tmp_path / "copy"))
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
    assert store.view(lambda txn: txn.size(HEADS), now_ms=0) == 0
    assert store.view(get(b"schema", META), now_ms=0) == bytes([SCHEMA_VERSION])
    store.close()


def test_growth_by_another_process_is_adopted(path: Path, spawn: Spawn) -> None:
    """A process with a small map goes on when another one, with a larger map, outgrows it."""
    store = open_store(path, map_size=2**20)
    child = spawn("""
        store = open_store(map_size=2**30)
        store.update(
            lambda txn: [txn.put(HEADS, b"%d" % i, bytes(10_000)) for i in range(300)], now_ms=0
        )
    """)
    assert child.process.wait() == 0
    assert store.view(lambda txn: txn.size(HEADS), now_ms=0) == 300
    store.update(put(b"a"), now_ms=0)
    assert store.view(lambda txn: txn.size(HEADS), now_ms=0) == 301
    store.close()


def test_opening_with_a_smaller_map_reads_everything(path: Path, store: Store) -> None:
    store.update(
        lambda txn: [txn.put(HEADS, b"%d" % i, bytes(9_000)) for i in range(300)], now_ms=0
    )
    store.close()
    small = open_store(path, map_size=2**20)
    assert small.view(lambda txn: sum(len(v) for _, v in txn.scan(HEADS)), now_ms=0) == 2_700_000
    small.close()


@pytest.mark.parametrize("kind", ["view", "update", "dry run"])
def test_threads_read_what_they_ask_for(path: Path, store: Store, kind: str) -> None:
    """As the handlers of a server do: transactions of one store that begin and end in any order.

    A table's handle is a number. Two transactions that each open a table for the first time can be
    given the same number for different tables. It is as good if one of them has to wait: the steps
    below are taken in turn only as far as both transactions are let in at once.
    """
    for table in (ACTIVE, HEADS, BOOK):
        store.update(put(b"a", table.name.encode(), table), now_ms=0)
    store.close()
    store = open_store(path)
    begun, heads_read, active_read, read_all = (threading.Event() for _ in range(4))
    seen: list[list[bytes | None]] = []
    failures: list[MarketError] = []

    def one(txn: Txn) -> None:
        begun.set()
        heads_read.wait(0.3)
        found = [txn.get(ACTIVE, b"a"), txn.get(BOOK, b"a")]
        active_read.set()
        read_all.wait(0.3)
        seen.append([*found, txn.get(ACTIVE, b"a")])

    def other(txn: Txn) -> None:
        begun.wait(0.3)
        found = txn.get(HEADS, b"a")
        heads_read.set()
        active_read.wait(0.3)
        seen.append([found, txn.get(ACTIVE, b"a")])
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
    assert sorted(seen, key=repr) == [
        [b"active", b"book", b"active"],
        [b"heads", b"active"],
    ]
    for table in (BOOK, ACTIVE, HEADS):
        assert store.view(get(b"a", table), now_ms=0) == table.name.encode()
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


def beside_a_view(store: Store, act: Callable[[], object]) -> list[object]:
    """What a view reads before and after another thread does something that must not disturb it."""
    seen: list[object] = []
    begun = threading.Event()

    def other() -> None:
        begun.wait(5)
        seen.append(act())

    def look(txn: Txn) -> None:
        seen.append(txn.get(HEADS, b"a"))
        begun.set()
        thread.join(0.3)  # It may have to wait for the end of this view.
        seen.append([value for _, value in txn.scan(HEADS)])

    thread = threading.Thread(target=other)
    thread.start()
    store.view(look, now_ms=0)
    thread.join()
    return seen


def test_first_update_leaves_the_view_of_another_thread_alone(path: Path, store: Store) -> None:
    """It opens the environment anew, as a writer."""
    store.update(put(b"a"), now_ms=0)
    store.close()
    store = open_to_look(path)
    seen = beside_a_view(store, lambda: store.update(put(b"b", b"2"), now_ms=0))
    assert seen == [b"1", [b"1"], None]
    assert store.view(get(b"b"), now_ms=0) == b"2"
    store.close()


def test_remap_leaves_the_view_of_another_thread_alone(store: Store) -> None:
    store.update(put(b"a"), now_ms=0)
    assert beside_a_view(store, store.remap) == [b"1", [b"1"], None]
    assert store.view(get(b"a"), now_ms=0) == b"1"


def test_growth_is_adopted_when_no_other_thread_reads(path: Path, spawn: Spawn) -> None:
    """Pages that are being read would be unmapped."""
    store = open_store(path, map_size=2**20)
    store.update(put(b"a"), now_ms=0)

    def grow_and_view() -> int:
        child = spawn("""
            store = open_store(map_size=2**30)
            store.update(
                lambda txn: [txn.put(META, b"%d" % i, bytes(10_000)) for i in range(300)], now_ms=0
            )
        """)
        assert child.process.wait() == 0
        return store.view(lambda txn: txn.size(META), now_ms=0)

    first, second, size = beside_a_view(store, grow_and_view)
    assert (first, second) == (b"1", [b"1"])
    assert isinstance(size, int)
    assert size > 300
    store.update(put(b"b"), now_ms=0)
    store.close()


def test_a_transaction_within_another_one_fails_instead_of_waiting_for_itself(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(InternalError, match="within another"):
        store.view(lambda _: store.view(get(b"a"), now_ms=0), now_ms=0)
    with pytest.raises(InternalError, match="within another"):
        store.view(lambda _: store.update(put(b"a"), now_ms=0), now_ms=0)
    store.update(put(b"a"), now_ms=0)
    assert store.view(get(b"a"), now_ms=0) == b"1"
    store.close()


@pytest.mark.parametrize("opening", [open_store, open_to_look])
def test_a_first_update_in_a_dry_run_leaves_a_store_that_works(
    path: Path, store: Store, opening: Callable[[Path], Store]
) -> None:
    store.close()
    store = opening(path)
    for _ in range(2):
        store.update(
            lambda txn: (txn.put(HEADS, b"a"), txn.put(BOOK, b"b")), now_ms=0, dry_run=True
        )
        assert store.view(lambda txn: (txn.size(BOOK), txn.size(HEADS)), now_ms=0) == (0, 0)
    store.update(put(b"a", b"book", BOOK), now_ms=0)
    found = store.view(lambda txn: (txn.get(HEADS, b"a"), txn.get(BOOK, b"a")), now_ms=0)
    assert found == (None, b"book")
    store.close()


def test_backup_holds_one_snapshot_for_its_owner_only(
    path: Path, store: Store, tmp_path: Path
) -> None:
    store.update(put(b"a"), now_ms=0)
    (tmp_path / "copy").mkdir()
    previous = os.umask(0o022)
    try:
        copies.backup(store, str(tmp_path / "copy"))
    finally:
        os.umask(previous)
    store.update(put(b"b"), now_ms=0)
    copy = open_store(tmp_path / "copy", now_ms=99, market_id=b"x" * 16)
    assert copy.view(lambda txn: list(txn.scan(HEADS)), now_ms=0) == [(b"a", b"1")]
    assert copy.view(get(b"market_id", META), now_ms=0) == bytes(16)
    copy.close()
    assert (tmp_path / "copy" / "data.mdb").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("missing", [True, False])
def test_backup_refuses_a_place_it_cannot_fill(store: Store, tmp_path: Path, missing: bool) -> None:
    if not missing:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "data.mdb").write_text("mine")
    with pytest.raises(UsageError, match="copy"):
        copies.backup(store, str(tmp_path / "copy"))
    if not missing:
        assert (tmp_path / "copy" / "data.mdb").read_text() == "mine"


def test_verify_looks_again_before_it_calls_a_file_damaged(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer at work looks like damage to who reads page by page."""
    answers = [["page 7: torn"], []]
    monkeypatch.setattr(pages, "walked", lambda path: answers.pop(0))
    assert verify(str(path), 0, lambda seconds: None) == []
    assert answers == []
