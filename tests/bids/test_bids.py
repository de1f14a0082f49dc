"""Bids in a market: when they are taken in, when they may be revealed, and what they cost."""

from typing import Any

import pytest

from compute_market import chain, clock
from compute_market.bids import bids, sealing
from compute_market.bids.bids import Revealed
from compute_market.errors import (
    ConflictError,
    IntegrityError,
    NotFoundError,
    PendingError,
    RefusedError,
)
from compute_market.housekeeping import BIDS_LIMIT
from compute_market.records import Refused, replace
from compute_market.settlement import escrow, modes
from compute_market.store.schema import BIDS_DUE_FROM, META
from tests.support.bids import ALICE, MALLORY, bid_of, reveal, seal, take
from tests.support.market import Market

WINDOW = 100


@pytest.fixture
def real(market: Market) -> Market:
    """Money moves, and the buyer has some."""
    market.update(lambda txn: modes.arm(txn, 0))
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=100)
    market.post(fee_pct_ct=100)
    return market


def advance(market: Market, blocks: int) -> None:
    market.update(lambda txn: chain.advance(txn, blocks))


def test_take_binds_a_window_from_two_blocks_on(real: Market) -> None:
    advance(real, 10)
    sealed = seal(height=4)
    bid = take(real, sealed).bid
    assert (bid.height, bid.reveal_from, bid.reveal_until) == (4, 12, 104)
    assert (bid.state, bid.bond_ct, bid.owner) == ("committed", 1, "buyer")
    (event,) = real.events("bid_committed")
    assert event.event.detail["reveal_from"] == 12


def test_take_again_changes_nothing_even_if_signed_anew(real: Market) -> None:
    first = take(real, seal())
    assert take(real, seal()) == replace(first, changed=False)
    assert real.balance("wallet/buyer") == 99
    with pytest.raises(ConflictError, match="owner"):
        take(real, seal(), owner="prov")


@pytest.mark.parametrize("sequence", [5, 4, 0])
def test_take_refuses_a_sequence_that_is_not_higher(real: Market, sequence: int) -> None:
    take(real, seal(sequence=5))
    with pytest.raises(ConflictError) as caught:
        take(real, seal("other", sequence=sequence))
    assert caught.value.reason == "sequence_reused"
    # Another bidder counts for itself.
    take(real, seal("other", key=MALLORY, sequence=sequence))


@pytest.mark.parametrize(
    ("signed", "now", "expected"),
    [
        (11, 10, "height_ahead"),
        (10, 10, None),
        (10, 10 + WINDOW - 2, None),
        (10, 10 + WINDOW - 1, "expired"),
        (0, 10_000, "expired"),
    ],
)
def test_take_wants_a_height_that_can_still_be_revealed(
    real: Market, signed: int, now: int, expected: str | None
) -> None:
    advance(real, now)
    sealed = seal(height=signed)
    if expected is None:
        bid = take(real, sealed).bid
        advance(real, bid.reveal_from - now)
        assert isinstance(reveal(real, sealed), Revealed)
        return
    with pytest.raises(RefusedError) as caught:
        take(real, sealed)
    assert caught.value.reason == expected


def test_take_refuses_another_market_a_wrong_signature_and_an_empty_wallet(real: Market) -> None:
    for sealed, owner, expected in (
        (seal(market_id=b"\1" * 16), "buyer", "foreign_market"),
        (seal(), "poor", "insufficient_funds"),
    ):
        with pytest.raises(RefusedError) as caught:
            take(real, sealed, owner)
        assert caught.value.reason == expected
    sealed = seal()
    forged = replace(sealed, bid_tx=replace(sealed.bid_tx, signature=bytes(3309)))
    with pytest.raises(IntegrityError) as wrong:
        take(real, forged)
    assert wrong.value.reason == "bad_signature"
    assert real.view(lambda txn: bids.page(txn, None, 10)) == ([], None)


def test_bond_is_that_of_the_moment_it_was_taken(market: Market) -> None:
    free = seal("free")
    take(market, free)
    market.update(lambda txn: modes.arm(txn, 0))
    market.deposit("buyer", ct=10)
    market.configure(bid_bond_ct=7)
    paid = seal("paid", sequence=2)
    take(market, paid)
    market.configure(bid_bond_ct=2)
    assert (bid_of(market, free).bond_ct, bid_of(market, paid).bond_ct) == (0, 7)
    market.update(lambda txn: modes.to_dry_run(txn, "test"))
    advance(market, WINDOW + 1)
    market.opened.tick()
    assert (market.opened.due.bids, market.opened.due.bids_burned_ct) == (2, 7)
    assert market.balance("burned") == 7
    assert market.balance("wallet/buyer") == 3


def test_reveal_submits_the_job_and_gives_the_bond_back(real: Market) -> None:
    sealed = seal(max_price_per_unit=9)
    take(real, sealed)
    assert real.view(lambda txn: escrow.held_of(txn, "buyer", "bonds_ct")) == 1
    advance(real, 2)
    found = reveal(real, sealed)
    assert isinstance(found, Revealed)
    assert found.job == real.job()
    assert (found.bid.state, found.bid.job_id, found.changed) == ("revealed", "job", True)
    job = real.job()
    assert (job.state, job.max_price_per_unit) == ("active", 9)
    assert real.balance(f"bid/{found.bid.bid_id}") == 0
    (event,) = real.events("bid_revealed")
    assert (event.event.job_id, event.event.detail["bid_id"]) == ("job", found.bid.bid_id)
    again = reveal(real, sealed)
    assert isinstance(again, Revealed)
    assert (again.bid, again.changed) == (found.bid, False)
    assert len(real.events("bid_revealed")) == 1


@pytest.mark.parametrize("blocks", [0, 1])
def test_reveal_too_early_says_when(real: Market, blocks: int) -> None:
    sealed = seal()
    take(real, sealed)
    advance(real, blocks)
    with pytest.raises(PendingError) as caught:
        reveal(real, sealed)
    assert (caught.value.reason, caught.value.details["blocks"]) == ("too_early", 2 - blocks)
    assert bid_of(real, sealed).state == "committed"


def test_reveal_too_late_is_refused_and_the_bond_is_burned(real: Market) -> None:
    sealed = seal()
    take(real, sealed)
    advance(real, WINDOW + 1)
    found = reveal(real, sealed)
    assert isinstance(found, Refused)
    assert found.reason == "expired"
    assert bid_of(real, sealed).state == "expired"
    assert real.balance("burned") == 1
    assert real.counter("slashing_burn_ct_total") == 1
    assert real.counter("bonds_burned_total", "bidder") == 1
    assert real.counter("bonds_burned_total", "provider") == 0
    assert (real.opened.due.bids, real.opened.due.bids_burned_ct) == (1, 1)


def test_reveal_of_an_unknown_bid_or_by_another_is_an_error(real: Market) -> None:
    sealed = seal()
    with pytest.raises(NotFoundError):
        reveal(real, sealed)
    take(real, sealed)
    advance(real, 2)
    with pytest.raises(IntegrityError) as caught:
        reveal(real, sealed, MALLORY)
    assert caught.value.reason == "bad_signature"
    # Nor does the right to reveal end the checks once it was revealed.
    reveal(real, sealed)
    with pytest.raises(IntegrityError):
        reveal(real, sealed, MALLORY)


def test_reveal_of_what_is_no_job_gives_the_bond_back(real: Market) -> None:
    sealed = sealing.blind_sign_cat(
        bytes(32), b"no job", market_id=bytes(16), key=ALICE, height=0, sequence=1
    )
    take(real, sealed)
    advance(real, 2)
    found = reveal(real, sealed)
    assert isinstance(found, Revealed)
    assert (found.bid.state, found.bid.refused, found.job) == ("revealed", "malformed", None)
    assert real.balance("wallet/buyer") == 100
    assert real.opened.audit() == []


def test_job_of_another_buyer_than_the_owner_is_refused(real: Market) -> None:
    """Whoever seals a bid signs for his own money, and for nobody else's."""
    real.deposit("mallory", ct=10)
    before = real.balance("wallet/buyer")
    sealed = seal(key=MALLORY)
    take(real, sealed, "mallory")
    advance(real, 2)
    found = reveal(real, sealed, MALLORY)
    assert isinstance(found, Revealed)
    assert (found.bid.state, found.bid.refused, found.job) == ("revealed", "buyer_mismatch", None)
    assert (real.balance("wallet/buyer"), real.balance("wallet/mallory")) == (before, 10)
    assert real.opened.audit() == []


def test_bond_helps_to_pay_the_job(real: Market) -> None:
    real.submit("first")
    cost = 100 - real.balance("wallet/buyer")
    real.deposit("poor", ct=cost)
    sealed = seal(buyer="poor")
    take(real, sealed, "poor")
    advance(real, 2)
    found = reveal(real, sealed)
    assert isinstance(found, Revealed)
    assert (found.refused, real.balance("wallet/poor")) == (None, 0)


def test_refused_job_is_not_tried_again_after_the_window(real: Market) -> None:
    """Else who has a bid could wait for ever for the moment that suits him."""
    sealed = seal(consumer_bond=1000)
    take(real, sealed)
    advance(real, 2)
    reveal(real, sealed)
    real.deposit("buyer", ct=2000)
    advance(real, WINDOW - 1)
    found = reveal(real, sealed)
    assert isinstance(found, Refused)
    assert (found.reason, bid_of(real, sealed).refused) == ("expired", "insufficient_funds")
    assert "insufficient_funds" in found.message
    assert real.balance("burned") == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"consumer_bond": 1000}, "insufficient_funds"),
        ({"consumer_bond": 0}, "consumer_bond_too_low"),
        ({"deadline": 5}, "deadline"),
        ({"workload": "inference"}, "conflict"),
        ({"max_price_per_unit": 2**62, "consumer_bond": 2**62}, "insufficient_funds"),
    ],
)
def test_reveal_of_a_refused_job_is_a_reveal(
    real: Market, fields: dict[str, Any], expected: str
) -> None:
    if expected == "conflict":
        real.submit()
    before = real.balance("wallet/buyer")
    sealed = seal(**fields)
    take(real, sealed)
    advance(real, 2)
    for _ in range(2):
        found = reveal(real, sealed)
        assert isinstance(found, Revealed)
        assert found.refused is not None
        assert (found.refused.reason, found.bid.refused, found.job) == (expected, expected, None)
    assert real.balance("wallet/buyer") == before


def test_job_that_was_there_already_is_that_of_the_bid(real: Market) -> None:
    real.submit()
    sealed = seal()
    take(real, sealed)
    advance(real, 2)
    found = reveal(real, sealed)
    assert isinstance(found, Revealed)
    assert (found.bid.job_id, real.job().seq) == ("job", 1)


def test_bids_expire_at_most_so_many_at_a_time_the_oldest_first(market: Market) -> None:
    count = BIDS_LIMIT + 2
    for number in range(count):
        market.configure(bid_reveal_window=1000 + (number > 0) + (number == count - 1))
        take(market, seal(sequence=number + 1, height=0))

    def expired(blocks: int) -> int:
        advance(market, blocks)
        market.opened.tick()
        return market.opened.due.bids

    assert [expired(1000), expired(1)] == [0, 1]
    assert market.opened.due.text == "1 bid expired"
    assert [expired(1), expired(0)] == [BIDS_LIMIT, 0]
    assert [expired(1), expired(1)] == [1, 0]
    assert market.view(lambda txn: txn.number(BIDS_DUE_FROM)) == 0


def test_bid_whose_window_is_shorter_is_due_before_older_ones(market: Market) -> None:
    take(market, seal(sequence=1))
    market.configure(bid_reveal_window=10)
    take(market, seal("other", sequence=2))
    assert market.view(lambda txn: txn.number(BIDS_DUE_FROM)) == 11
    advance(market, 2)
    reveal(market, seal("other", sequence=2))
    assert market.view(lambda txn: txn.number(BIDS_DUE_FROM)) == WINDOW + 1


def test_nothing_expires_while_the_clock_is_not_believed(real: Market) -> None:
    sealed = seal()
    take(real, sealed)
    real.alone(lambda txn: txn.put(META, clock.TIME_HELD))
    advance(real, WINDOW + 1)
    assert real.opened.tick().bids == 0
    assert bid_of(real, sealed).state == "committed"
    found = reveal(real, sealed)
    assert isinstance(found, Refused)
    assert "burned" not in found.message
    assert real.balance("burned") == 0
    real.opened.accept_clock()
    assert real.opened.tick().bids == 1


def test_held_clock_makes_no_window_longer(market: Market) -> None:
    """Heights stand while time is held, and a bid of then is bound to them."""
    market.alone(lambda txn: txn.put(META, clock.TIME_HELD))
    sealed = seal()
    take(market, sealed)
    market.advance(50)
    with pytest.raises(PendingError):
        reveal(market, sealed)
    market.opened.accept_clock()
    assert isinstance(reveal(market, sealed), Revealed)


def test_bids_outlive_the_process(market: Market) -> None:
    sealed = seal()
    take(market, sealed)
    market.reopen()
    advance(market, 2)
    market.reopen()
    assert isinstance(reveal(market, sealed), Revealed)
    market.reopen()
    with pytest.raises(ConflictError):
        take(market, seal("other"))
