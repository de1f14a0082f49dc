"""The consumer pool: who gets in, who has to go, and what blocks take."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market import chain
from compute_market.admission import mempool
from compute_market.admission.mempool import Taken
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.mempool_records import Pool
from compute_market.records import Refused
from compute_market.store.schema import MEMPOOL, MEMPOOL_NEXT_BLOCK
from tests.support.market import Market
from tests.support.state import command, contents


def ids(market: Market) -> list[str]:
    """The pool in the order in which blocks take it."""
    return market.view(lambda txn: [each.tx_id for each in txn.records(MEMPOOL)])


def pool(market: Market) -> Pool:
    return market.view(mempool.present)


def advance_blocks(market: Market, blocks: int) -> None:
    market.update(lambda txn: chain.advance(txn, blocks))


def by_hand(market: Market, **changes: Any) -> None:
    """Let blocks pass by hand alone."""
    market.configure(block_interval_secs=0, **changes)


def test_submit_orders_by_exact_fee_per_byte_then_age(market: Market) -> None:
    for fee, size in ((2, 3), (3, 4), (1, 2), (2, 4), (AMOUNT_MAX, 2**20), (AMOUNT_MAX, 1)):
        assert isinstance(market.send(fee, size), Taken)
    assert ids(market) == ["t-6", "t-5", "t-2", "t-1", "t-3", "t-4"]


@given(
    one=st.tuples(st.integers(1, AMOUNT_MAX), st.integers(1, 2**20)),
    other=st.tuples(st.integers(1, AMOUNT_MAX), st.integers(1, 2**20)),
    near=st.integers(-2, 2),
)
def test_order_of_keys_is_that_of_fractions(
    one: tuple[int, int], other: tuple[int, int], near: int
) -> None:
    (fee, size), (_, other_size) = one, other
    # The nearest that another size can come.
    nearest = min(max(fee * other_size // size + near, 1), AMOUNT_MAX), other_size
    for each in (other, nearest):
        worse = Fraction(*one) < Fraction(*each)
        same = Fraction(*one) == Fraction(*each)
        assert (mempool.key_of(*one, 1) > mempool.key_of(*each, 2)) == worse
        assert (mempool.key_of(*one, 2) > mempool.key_of(*each, 1)) == (worse or same)


def test_submit_into_a_full_pool_evicts_the_lowest_rate(market: Market) -> None:
    by_hand(market, mempool_lane_limit=3)
    for fee in (5, 3, 3):
        market.send(fee)
    taken = market.send(8, 2)
    assert taken.evicted.tx_id == "t-3"  # Of equal ones the newest.
    assert ids(market) == ["t-1", "t-4", "t-2"]
    (evicted,) = market.events("tx_evicted")
    assert evicted.event.owner == "sender"
    assert evicted.event.detail == {"tx_id": "t-3", "fee": 3, "bytes": 1}


@pytest.mark.parametrize(("fee", "size"), [(3, 1), (2, 1), (6, 2), (1, 2**20)])
def test_submit_of_no_better_rate_into_a_full_pool_is_refused(
    market: Market, fee: int, size: int
) -> None:
    by_hand(market, mempool_lane_limit=2)
    market.send(5)
    market.send(3)
    before = contents(market)
    refused = market.send(fee, size)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.retry_after_ms) == ("pool_full", None)
    assert refused.message == (
        "the consumer pool holds 2 transactions, and none pays less per byte: the lowest pays 3 "
        "for 1 byte"
    )
    (noted,) = market.events("tx_refused")
    assert noted.event.owner == "sender"
    assert noted.event.detail == {
        "reason": "pool_full",
        "message": refused.message,
        "fee": fee,
        "bytes": size,
    }
    # But for the log nothing is used up, no number and no place in the fee window.
    after = contents(market)
    left_out = ("events", "meta")
    assert {k: v for k, v in after.items() if k not in left_out} == {
        k: v for k, v in before.items() if k not in left_out
    }
    assert market.send(9).transaction.tx_id == "t-3"


def test_submit_above_the_limit_of_a_sender_is_refused(market: Market) -> None:
    market.configure(mempool_sender_limit=2)
    market.send(1)
    market.send(1)
    assert isinstance(market.send(1, sender="another"), Taken)
    refused = market.send(9)
    assert (refused.reason, refused.retry_after_ms) == ("sender_limit", 1000)
    assert refused.message == ("the consumer pool holds 2 of sender, and mempool_sender_limit is 2")
    market.advance(1)
    assert isinstance(market.send(9), Taken)


def test_one_sender_may_be_evicted_by_itself(market: Market) -> None:
    by_hand(market, mempool_lane_limit=1)
    market.send(1)
    assert market.send(2).evicted.tx_id == "t-1"
    assert market.view(lambda txn: mempool.sent_by(txn, "sender")) == 1


def test_a_smaller_limit_evicts_one_for_one(market: Market) -> None:
    """Blocks make the pool smaller, and nobody who was admitted has to go for a setting."""
    by_hand(market)
    for fee in (1, 2, 3):
        market.send(fee)
    market.configure(mempool_lane_limit=1)
    assert market.send(4).evicted.tx_id == "t-1"
    assert ids(market) == ["t-4", "t-3", "t-2"]


@pytest.mark.parametrize(
    ("sender", "fee", "size"),
    [
        *(("ann", fee, 1) for fee in (0, -1, AMOUNT_MAX + 1, "7", 1.5, True, None)),
        *(("ann", 1, size) for size in (0, -1, 2**20 + 1, "7", False)),
        *((sender, 1, 1) for sender in ("", "a b", "-x", "x" * 129, "a\n")),
    ],
)
def test_submit_of_what_is_no_transaction_is_usage(
    market: Market, sender: Any, fee: Any, size: Any
) -> None:
    with pytest.raises(UsageError):
        market.send(fee, size, sender)
    assert ids(market) == []


def test_largest_fee_and_size_get_in(market: Market) -> None:
    assert isinstance(market.send(AMOUNT_MAX, 2**20), Taken)
    assert pool(market).fee_p90 == AMOUNT_MAX


# Blocks.


def test_block_takes_what_was_admitted_before_it_best_rate_first(market: Market) -> None:
    by_hand(market, block_tx_capacity=2)
    for fee in (1, 5, 3, 4):
        market.send(fee)
    command(market)
    assert ids(market) == ["t-2", "t-4", "t-3", "t-1"]  # The block of this height is over.
    advance_blocks(market, 1)
    command(market)
    assert ids(market) == ["t-3", "t-1"]
    market.send(2)
    advance_blocks(market, 1)
    command(market)
    assert ids(market) == ["t-1"]


def test_many_blocks_take_as_much_as_each_by_itself(market: Market) -> None:
    by_hand(market, block_tx_capacity=2)
    for fee in range(1, 8):
        market.send(fee)
    advance_blocks(market, 3)
    command(market)
    assert ids(market) == ["t-1"]
    advance_blocks(market, AMOUNT_MAX - 10)  # As many as there are.
    command(market)
    assert ids(market) == []
    assert market.view(lambda txn: txn.number(MEMPOOL_NEXT_BLOCK)) == mempool.NO_BLOCK


def test_pool_drains_at_the_last_height_there_is(market: Market) -> None:
    by_hand(market)
    advance_blocks(market, AMOUNT_MAX)
    market.send(1)
    command(market)
    assert ids(market) == ["t-1"]


def test_blocks_pass_with_time(market: Market) -> None:
    market.send(1)
    market.advance(0.999)
    command(market)
    assert ids(market) == ["t-1"]
    market.advance(0.001)
    command(market)
    assert ids(market) == []


@pytest.mark.parametrize("capacity", [1, 2, 3, 1024])
def test_view_shows_the_pool_as_the_next_change_would_find_it(
    market: Market, capacity: int
) -> None:
    by_hand(market, block_tx_capacity=capacity)
    for fee in (4, 1, 3):
        market.send(fee)
        market.advance(1)
    advance_blocks(market, 1)
    seen, before = pool(market), contents(market)
    assert contents(market) == before
    command(market)
    assert pool(market) == seen == market.view(mempool.stored)
    assert seen.size == max(0, 3 - capacity)


def test_market_without_a_pool_reads_one_number_of_it(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_to_be_asked(*_: object) -> None:
        raise AssertionError

    for name in ("stored", "present", "drain"):
        monkeypatch.setattr(mempool, name, not_to_be_asked)
    market.post()
    market.submit()
    market.advance(10)
    market.cancel()


def test_fee_window_is_of_the_last_fifty_that_were_admitted(market: Market) -> None:
    for n in range(1, 61):
        market.send(n, sender=f"s-{n}")
    assert market.view(mempool.fees_of) == list(range(11, 61))
    assert (pool(market).fee_p50, pool(market).fee_p90) == (11 + 25, 11 + 45)
    market.advance(1)
    command(market)
    assert (pool(market).size, pool(market).fee_p50) == (0, 11 + 25)  # It outlives the pool.
