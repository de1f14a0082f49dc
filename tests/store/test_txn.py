"""What a transaction reads and keeps aside equals what a dictionary would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_market.records import Score
from compute_market.store.schema import COUNTERS, HEADS, REPUTATION, SETTLE_STATE
from compute_market.store.store import Store
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.stores import open_store

# Every test here is over in a second or two; one that is not waits for a lock nobody gives back.
pytestmark = pytest.mark.timeout(30)


def test_counts_are_seen_before_the_commit_and_kept_after_it(store: Store) -> None:
    def action(txn: Txn) -> tuple[int, dict[bytes, int]]:
        txn.add(COUNTERS, b"a\0x", 2)
        txn.add(COUNTERS, b"a\0x", 1)
        txn.add(COUNTERS, b"b", 1)
        return txn.sum(COUNTERS, b"a\0x"), txn.sums(COUNTERS, b"a")

    assert store.update(action, now_ms=0) == (3, {b"a\0x": 3})
    assert store.update(action, now_ms=0) == (6, {b"a\0x": 6})
    assert store.view(lambda txn: txn.sums(COUNTERS, b""), now_ms=0) == {b"a\0x": 6, b"b": 2}


def test_counters_hold_more_than_64_bits(store: Store) -> None:
    store.update(lambda txn: txn.add(COUNTERS, b"a", 2**63), now_ms=0)
    store.update(lambda txn: txn.add(COUNTERS, b"a", 2**64), now_ms=0)
    assert store.view(lambda txn: txn.sum(COUNTERS, b"a"), now_ms=0) == 2**63 + 2**64


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


@pytest.mark.parametrize("is_known", [True, False])
def test_number_before_the_change_outlives_the_clearing_of_a_table(
    store: Store, is_known: bool
) -> None:
    store.update(lambda txn: txn.set_number("height", 7), now_ms=0)

    def act(txn: Txn) -> tuple[int, int]:
        if is_known:
            txn.number("height")
        txn.advance_number("height", 7, 8)
        txn.clear(HEADS)
        return txn.number_before("height"), txn.number("height")

    assert store.update(act, now_ms=0) == (7, 8)


def test_writes_grow_with_every_change_and_with_nothing_else(store: Store) -> None:
    def action(txn: Txn) -> list[int]:
        steps: list[Callable[[], Any]] = [
            lambda: txn.put(HEADS, b"a"),
            lambda: txn.delete(HEADS, b"a"),
            lambda: txn.write(REPUTATION, b"p", Score(1, 0, 0, 0)),
            lambda: txn.add(COUNTERS, b"c", 1),
            lambda: txn.next_number("n"),
            lambda: (txn.get(HEADS, b"a"), txn.read(REPUTATION, b"p"), txn.sum(COUNTERS, b"c")),
            lambda: (list(txn.scan(HEADS)), txn.size(HEADS), txn.number("n")),
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
    max_examples=effort(30, 1000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "delete"]), KEYS, st.binary(max_size=2))),
    st.binary(max_size=2).map(lambda key: bytes(b % 3 for b in key)),
    st.none() | KEYS,
    st.integers(0, 4),
    st.sampled_from([HEADS, SETTLE_STATE]),
)
def test_reads_equal_those_of_a_dictionary(
    store: Store,
    changes: list[tuple[str, bytes, bytes]],
    prefix: bytes,
    start: bytes | None,
    limit: int,
    table: Table[Any],
) -> None:
    """Also of a table that a transaction keeps in mind, and whatever was read before a change."""

    def action(txn: Txn) -> None:
        model: dict[bytes, bytes] = {}
        for change, key, value in changes:
            assert txn.get(table, key) == model.get(key)
            if change == "put":
                txn.put(table, key, value)
                model[key] = value
            else:
                assert txn.delete(table, key) == (model.pop(key, None) is not None)
            assert txn.get(table, key) == model.get(key)
        ordered = sorted(model.items())
        assert list(txn.scan(table)) == ordered
        assert list(txn.scan_back(table)) == ordered[::-1]
        assert txn.size(table) == len(model)
        begin = start or prefix
        following = [item for item in ordered if item[0] >= begin]
        count = next(
            (i for i, item in enumerate(following) if not item[0].startswith(prefix)),
            len(following),
        )
        found = following[:count]
        assert list(txn.scan(table, prefix, start)) == found
        assert txn.first(table, prefix, start) == (found[0] if found else None)
        assert txn.collect(table, limit, prefix, start) == found[:limit]
        for key in (b"\0", b"\1\2", b"\2"):
            assert txn.get(table, key) == model.get(key)
            below = [each for each in model if each < key]
            others = [each for each in model if each >= key]
            assert txn.beside(table, key) == (max(below, default=None), min(others, default=None))
        assert txn.is_empty(table) == (not model)
        txn.clear(table)
        assert txn.is_empty(table)
        assert [txn.get(table, key) for key in model] == [None] * len(model)

    store.update(action, now_ms=0, dry_run=True)
