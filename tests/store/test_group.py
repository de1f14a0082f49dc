"""Changes that share a transaction are each what they would be alone."""

import resource
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from compute_market import audit
from compute_market.clock import Due
from compute_market.engine import Engine, open_store
from compute_market.errors import BusyError, MarketError, NotFoundError
from compute_market.jobs import jobs
from compute_market.jobs.submit import post_offer
from compute_market.store import environment
from compute_market.store.environment import Creation
from compute_market.store.group import attempt
from compute_market.store.rewriting import stored_entries
from compute_market.store.schema import HEADS, TABLES
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support import stores
from tests.support.effort import effort
from tests.support.life import REAL, Change, Clock, life, offer
from tests.support.stores import Spawn

Act = Callable[[Txn], Any]


def opened(path: Path, clock: Clock) -> Engine:
    creation = Creation(clock(), bytes(16))
    store = open_store(str(path), REAL, sleep=lambda _: None, creation=creation)
    return Engine(store, REAL, clock=clock)


def contents(market: Engine) -> dict[str, list[tuple[bytes, bytes]]]:
    return market.view(
        lambda txn: {table.name: list(stored_entries(txn, table)) for table in TABLES}
    )


def post_and_fail(number: int, txn: Txn) -> None:
    """Raises once it has written."""
    post_offer(txn, offer(f"never-{number}", price_per_unit=1))
    jobs.get(txn, "none")


def eventful(rng: Random, count: int) -> Iterator[Change]:
    """A life in which some changes fail halfway."""
    for number, change in enumerate(life(count)):
        yield change
        if rng.random() < 0.1:
            yield 0, partial(post_and_fail, number)


def verdict(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except MarketError as error:
        return error.document()


@pytest.mark.parametrize("seed", range(effort(2, 50)))
def test_group_leaves_the_same_bytes_and_verdicts_as_one_by_one(tmp_path: Path, seed: int) -> None:
    clock, own_clock = Clock(), Clock()
    with opened(tmp_path / "single", clock) as single, opened(tmp_path / "many", own_clock) as many:
        told, due = [], Due()
        for wait_ms, act in eventful(Random(seed), 150):
            clock.now_ms += wait_ms
            told.append(verdict(partial(single.update, act)))
            if not isinstance(told[-1], dict):
                due = due.plus(single.due)

        rng, found, found_due = Random(seed + 1), [], Due()
        changes = eventful(Random(seed), 150)

        def group(size: int) -> Iterator[Act]:
            for wait_ms, act in islice(changes, size):
                own_clock.now_ms += wait_ms
                yield act

        while outcomes := many.update_each(group(rng.randint(1, 12))):
            found += [verdict(lambda each=each: each.result) for each in outcomes]
            found_due = found_due.plus(many.due)

        assert found == told
        assert found_due == due
        assert contents(many) == contents(single)
        assert any(isinstance(each, dict) for each in told)
        assert many.view(lambda txn: list(audit.check(txn))) == []
    assert environment.verify(many.store.path, 0, lambda _: None) == []


def test_change_that_meets_a_bug_leaves_nothing_and_the_others_stand(store: Store) -> None:
    def bug(txn: Txn) -> None:
        txn.put(HEADS, b"bug", b"1")
        raise ZeroDivisionError

    changes = [stores.put(b"a"), bug, stores.put(b"b")]
    outcomes = store.update(lambda txn: [attempt(store, txn, each) for each in changes])
    assert [type(each.error) for each in outcomes] == [type(None), ZeroDivisionError, type(None)]
    assert store.view(lambda txn: [key for key, _ in txn.scan(HEADS)]) == [b"a", b"b"]


def test_change_sees_those_before_it_and_not_those_that_failed(store: Store) -> None:
    def fail(txn: Txn) -> None:
        txn.set_number("count", txn.number("count") + 5)
        raise NotFoundError("no")

    def count(txn: Txn) -> int:
        return txn.next_number("count")

    changes: list[Act] = [count, fail, count, fail, count]
    outcomes = store.update(lambda txn: [attempt(store, txn, each) for each in changes])
    assert [each.returned for each in outcomes] == [1, None, 2, None, 3]
    assert store.view(lambda txn: txn.number("count")) == 3


def test_signal_ends_all_changes_of_a_group(store: Store) -> None:
    def interrupt(txn: Txn) -> None:
        raise KeyboardInterrupt

    changes: list[Act] = [stores.put(b"a"), interrupt, stores.put(b"b")]
    with pytest.raises(KeyboardInterrupt):
        store.update(lambda txn: [attempt(store, txn, each) for each in changes])
    assert store.view(lambda txn: [key for key, _ in txn.scan(HEADS)]) == []
    store.update(stores.put(b"c"))


def test_change_too_large_for_the_map_fails_alone(path: Path) -> None:
    store = stores.open_store(path, map_size=2**20)
    changes = [stores.put(b"a"), stores.put(b"large", bytes(2**20)), stores.put(b"b")]
    outcomes = store.update(lambda txn: [attempt(store, txn, each) for each in changes])
    assert [type(each.error) for each in outcomes] == [type(None), BusyError, type(None)]
    assert store.view(lambda txn: [key for key, _ in txn.scan(HEADS)]) == [b"a", b"b"]
    store.close()


def test_commit_that_fails_leaves_no_change_of_the_group(store: Store, path: Path) -> None:
    store.update(stores.put(b"before"))
    size = (path / "data.mdb").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    changes = [stores.put(b"a"), stores.put(b"large", bytes(2**20)), stores.put(b"b")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(BusyError):
            store.update(lambda txn: [attempt(store, txn, each) for each in changes])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.view(lambda txn: [key for key, _ in txn.scan(HEADS)]) == [b"before"]
    store.update(lambda txn: [attempt(store, txn, each) for each in changes])
    assert store.view(lambda txn: txn.size(HEADS)) == 4


GROUPS = """
from compute_market.store import group
store = open_store()
seed = int(sys.argv[2])
def next_number(txn):
    number = txn.next_number("count")
    txn.put(HEADS, number.to_bytes(4, "big"), bytes(seed * 37 % 900))
    return number
def fail(txn):
    next_number(txn)
    raise MarketError("no")
for turn in range(10**6):
    changes = [fail if (turn + each) % 5 == 0 else next_number for each in range(turn % 7 + 1)]
    outcomes = store.update(lambda txn: [group.attempt(store, txn, each) for each in changes])
    say(max((each.returned or 0 for each in outcomes), default=0))
"""


@pytest.mark.parametrize("seed", range(effort(3, 100)))
def test_kill_loses_no_change_that_was_answered(path: Path, spawn: Spawn, seed: int) -> None:
    rng = Random(seed)
    writer = spawn(GROUPS, str(seed))
    answered = [int(writer.hear()) for _ in range(rng.randint(2, 60))]
    writer.kill()
    store = stores.open_store(path)
    try:
        found = store.view(lambda txn: [int.from_bytes(key) for key, _ in txn.scan(HEADS)])
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= max(answered) > 0
        assert store.view(lambda txn: txn.number("count")) == len(found)
    finally:
        store.close()
    assert environment.verify(str(path), 0, lambda _: None) == []
