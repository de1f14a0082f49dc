"""Looks that wait for no other thread and no other process."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compute_market.errors import BusyError
from compute_market.store.rewriting import drop
from compute_market.store.schema import ACTIVE, HEADS
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support.stores import Child, Spawn, get, open_store, open_to_look, put


def test_look_at_once_waits_for_nobody(store: Store) -> None:
    store.update(put(b"key"))
    assert store.view_at_once(get(b"key")) == b"1"
    with ThreadPoolExecutor(1) as other:
        # Whoever changes something leaves it what was committed before.
        def while_writing(txn: Txn) -> bytes | None:
            txn.put(HEADS, b"key", b"2")
            return other.submit(store.view_at_once, get(b"key")).result()

        assert store.update(while_writing) == b"1"
        with store._threads.alone(), pytest.raises(BusyError):  # As while the map is renewed.
            other.submit(store.view_at_once, get(b"key")).result()
        assert store.view_at_once(get(b"key")) == b"2"


def test_tables_are_kept_for_looks_of_who_never_writes(path: Path, store: Store) -> None:
    store.update(put(b"key"))
    store.close()
    found = open_to_look(path)
    try:
        with pytest.raises(BusyError):
            found.view_at_once(get(b"key"))
        before = (path / "data.mdb").read_bytes()
        found.keep_tables()
        assert found.view_at_once(get(b"key")) == b"1"
        assert found.view(get(b"key")) == b"1"
        assert (path / "data.mdb").read_bytes() == before
        found.update(put(b"key", b"2"))
        assert found.view_at_once(get(b"key")) == b"2"
        found.remap()
        found.keep_tables()
        assert found.view_at_once(get(b"key")) == b"2"
    finally:
        found.close()


def test_tables_are_kept_while_another_process_writes(path: Path, holder: Child) -> None:
    found = open_to_look(path)
    found.keep_tables()
    assert found.view_at_once(get(b"key")) is None
    found.close()


def test_tables_are_kept_after_a_dry_run(path: Path, store: Store, spawn: Spawn) -> None:
    store.update(put(b"key"))
    store.close()
    found = open_to_look(path)
    found.update(put(b"other"), dry_run=True)
    writer = spawn("open_store().update(hold, now_ms=0); hear()")
    assert writer.hear() == "holding"
    found.keep_tables()  # Waits for nobody, and so keeps nothing.
    with pytest.raises(BusyError):
        found.view_at_once(get(b"key"))
    writer.close()
    before = (path / "data.mdb").read_bytes()
    found.keep_tables()
    assert found.view_at_once(get(b"key")) == b"1"
    assert (path / "data.mdb").read_bytes() == before
    found.close()


def test_look_at_once_is_left_to_another_thread_where_a_table_is_missing(path: Path) -> None:
    store = open_store(path)
    store.update(put(b"key"))
    store.update(lambda txn: drop(txn, ACTIVE))
    store.close()
    found = open_to_look(path)
    found.keep_tables()
    with pytest.raises(BusyError):
        found.view_at_once(get(b"key"))
    assert found.view(get(b"key")) == b"1"
    found.close()
