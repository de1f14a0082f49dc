"""The data file exchanged beneath threads and processes that are in the middle of using it."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from compute_market.store import environment
from compute_market.store import store as store_module
from compute_market.store.environment import length_of
from compute_market.store.lock import WriteLock
from compute_market.store.schema import HEADS
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.stores import Spawn, get, give_back_the_last_pages, open_store, put

SECONDS = effort(1, 60)

COMPACTING = """
from compute_market.store import copies
store = open_store()
count = 0
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    before, after = copies.compact(store, os.urandom(16))
    assert before and after
    count += 1
say(count)
"""

# Every kind of transaction, each in a thread of its own; whatever one of them raises ends it.
AT_WORK = """
import threading
from compute_market.errors import BusyError
from compute_market.store.usage import measured
store, counts, raised = open_store(), {}, []
store.update(lambda txn: txn.next_number("count"))
last = [0]
over = threading.Event()

def look(txn):
    first = txn.number("count")
    rows = [value for _, value in txn.scan(HEADS)]
    assert len(set(rows)) <= 1 and first == txn.number("count")
    return first

def view():
    before = last[0]
    assert store.view(look) >= before

def glance():
    assert store.is_here()
    try:
        store.view_at_once(look)
    except BusyError:
        store.keep_tables()
        store.view(look)

def change():
    def write(txn):
        number = txn.next_number("count")
        for at in range(50):
            txn.put(HEADS, at.to_bytes(2, "big"), number.to_bytes(4, "big") * 40)
        return number
    number = store.update(write)
    assert number == last[0] + 1 if last[0] else number > 1
    last[0] = number

def measure():
    assert measured(store).pages > 2

def again():
    store.remap()
    time.sleep(0.02)

def go(act):
    try:
        while not over.is_set():
            act()
            counts[act.__name__] = counts.get(act.__name__, 0) + 1
    except BaseException as error:
        raised.append(f"{act.__name__}: {error!r}")

threads = [threading.Thread(target=go, args=(act,))
           for act in (view, view, glance, glance, change, measure, again)]
for each in threads: each.start()
say("at work")
hear()
over.set()
for each in threads: each.join()
say(raised, all(counts.values()) and len(counts) == 5)
say(last[0])
"""

CLOSING = """
import threading
for turn in range(int(sys.argv[2])):
    store = open_store()
    store.keep_tables()
    inside = threading.Semaphore(0)
    def go():
        try:
            while True:
                store.view(lambda txn: inside.release() or [len(v) for _, v in txn.scan(HEADS)])
        except MarketError:
            pass
    threads = [threading.Thread(target=go) for _ in range(3)]
    for each in threads: each.start()
    inside.acquire()
    store.close()
    for each in threads: each.join()
say("closed")
"""


def test_compactions_beneath_threads_are_noticed_by_none(path: Path, spawn: Spawn) -> None:
    open_store(path).close()
    worker = spawn(AT_WORK)
    assert worker.hear() == "at work"
    compacting = [spawn(COMPACTING, str(SECONDS)) for _ in range(2)]
    for each in compacting:
        assert int(each.hear()) > 0
    worker.tell()
    assert worker.hear() == "[] True"
    last = int(worker.hear())
    store = open_store(path)
    assert store.view(lambda txn: txn.number("count")) == last
    store.close()
    assert environment.verify(str(path), 0, lambda _: None) == []


def test_closing_beneath_threads_waits_for_their_looks(path: Path, spawn: Spawn) -> None:
    store = open_store(path)

    def fill(txn: Txn) -> None:
        for at in range(2_000):
            txn.put(HEADS, at.to_bytes(2, "big"), bytes(100))

    store.update(fill)
    store.close()
    closing = spawn(CLOSING, str(effort(20, 500)))
    assert closing.hear() == "closed"


def test_change_goes_on_with_what_another_thread_has_followed(store: Store, spawn: Spawn) -> None:
    store.update(put(b"key"))
    assert spawn(COMPACTING, "0.01").hear() != "0"
    check = store.check_is_here

    def overtaken() -> None:
        assert store._follow()  # Another thread has.
        check()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "check_is_here", overtaken)
        store.update(put(b"key", b"2"))
    assert store.view(get(b"key")) == b"2"


@pytest.mark.parametrize("has_lock_first", [True, False])
def test_file_is_filled_up_though_a_thread_that_waits_for_it_has_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch, has_lock_first: bool
) -> None:
    """Who has the write lock waits for who opens the file anew; both would wait for ever."""
    store = open_store(path, lock_timeout_ms=5_000)
    with monkeypatch.context() as patched:  # It is killed before that.
        patched.setattr(store_module, "fill_up", lambda *_: None)
        give_back_the_last_pages(store)
    length = length_of(store._env)
    assert path.joinpath("data.mdb").stat().st_size < length
    locked, opened = Event(), Event()

    def hold() -> None:
        with store._writing_alone(5_000):
            locked.set()
            assert opened.wait(4)

    with ThreadPoolExecutor() as pool:
        if has_lock_first:
            holding = pool.submit(hold)
            assert locked.wait(4)
            opening = pool.submit(store.remap)
        else:
            with WriteLock(str(path), 0, time.sleep):
                opening = pool.submit(store.remap)
                holding = pool.submit(hold)
                with pytest.raises(TimeoutError):
                    opening.result(0.05)
        opening.result(4)
        opened.set()
        holding.result(4)
    store.update(put(b"key"))
    store.remap()
    assert path.joinpath("data.mdb").stat().st_size >= length
    assert store.view(get(b"key")) == b"1"
    store.close()
    assert environment.verify(str(path), 0, lambda _: None) == []
