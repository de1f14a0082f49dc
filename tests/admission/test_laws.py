"""The laws of usage and of the consumer pool: each one, broken by hand, is named by the audit."""

import pytest

from compute_market.admission import laws, mempool
from compute_market.store.schema import (
    CONSUMER_POOL,
    MEMPOOL,
    MEMPOOL_NEXT_BLOCK,
    MEMPOOL_SENDERS,
    META,
    USAGE,
    USAGE_RECENT,
    pack_u64,
)
from compute_market.store.txn import Txn
from tests.support.laws import Case, check_named, edit, laws_in
from tests.support.market import Market

BUYER = b"buyer\0buyer"


def drop(txn: Txn) -> None:
    txn.delete(USAGE_RECENT, pack_u64(txn.must_read(USAGE, BUYER).at_ms) + BUYER)


BEST = mempool.key_of(30, 2, 1)
PLACED = "a transaction is where its fee per byte and its number put it"
COME_TO = "size, ages and fees are what pool and fee window come to"
TO_COME = "a block is to come while transactions wait for it"

POOL = (
    *(
        Case(
            PLACED,
            "mempool",
            f"t-{changes.get('seq', 1)}",
            lambda txn, changes=changes: edit(txn, MEMPOOL, BEST, **changes),
        )
        for changes in ({"fee": 31}, {"fee": 0}, {"bytes": 0}, {"bytes": 2**21}, {"seq": 9})
    ),
    Case(
        PLACED,
        "mempool",
        "t-3",
        lambda txn: txn.set_number("mempool_seq", 2),
    ),
    Case(
        "the transactions of a sender are those of it in the pool",
        "mempool_senders",
        "ann",
        lambda txn: txn.delete(MEMPOOL, BEST),
    ),
    Case(
        "the transactions of a sender are those of it in the pool",
        "mempool_senders",
        "nobody",
        lambda txn: txn.put(MEMPOOL_SENDERS, b"nobody", pack_u64(1)),
    ),
    *(
        Case(
            "the arrivals are those of the pool, in order",
            "meta",
            "mempool_arrivals",
            damage,
        )
        for damage in (
            lambda txn: edit(txn, MEMPOOL, BEST, at_ms=1),
            lambda txn: txn.put(META, b"mempool_arrivals", bytes(16)),
        )
    ),
    *(
        Case(
            COME_TO,
            "consumer_pool",
            "pool",
            lambda txn, field=field: edit(txn, CONSUMER_POOL, b"pool", **{field: 1}),
        )
        for field in ("size", "p50_ms", "p95_ms", "fee_p50", "fee_p90")
    ),
    Case(
        COME_TO,
        "consumer_pool",
        "pool",
        lambda txn: txn.put(META, b"mempool_fees", pack_u64(7)),
    ),
    *(
        Case(
            TO_COME,
            "meta",
            MEMPOOL_NEXT_BLOCK,
            lambda txn, number=number: txn.set_number(MEMPOOL_NEXT_BLOCK, number),
        )
        for number in (0, mempool.NO_BLOCK)
    ),
)

CASES = (
    *POOL,
    *(
        Case(
            "usage and bursts are not negative",
            "usage",
            repr(BUYER),
            lambda txn, field=field: edit(txn, USAGE, BUYER, **{field: -1}),
        )
        for field in ("used_micro", "burst_micro")
    ),
    Case("every party is found by its last charge", "usage_recent", repr(BUYER), drop),
    Case(
        "every party is found by its last charge",
        "usage_recent",
        "*",
        lambda txn: txn.put(USAGE_RECENT, bytes(8) + b"buyer\0nobody"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)
