"""Offers: what stands beside what, where the units go, and how many there are of each kind."""

import pytest

from compute_market.errors import NotFoundError
from compute_market.offers import offers
from compute_market.records import OFFER_STATES
from compute_market.store.schema import BOOK, PROVIDER_OFFERS
from compute_market.store.txn import Txn
from tests.support.market import Market


def test_second_offer_of_a_provider_stands_beside_the_first(market: Market) -> None:
    first = market.post("prov", price_per_unit=5)
    second = market.post("prov", price_per_unit=5)
    assert first.offer_id != second.offer_id
    assert market.offer(first.offer_id) == first
    assert market.view(lambda txn: [o.offer_id for o in offers.listed(txn)]) == ["o-1", "o-2"]


def test_get_of_an_unknown_offer_is_not_found(market: Market) -> None:
    for ask in (offers.get, offers.withdraw):
        with pytest.raises(NotFoundError, match="offer nope does not exist"):
            market.update(lambda txn, ask=ask: ask(txn, "nope"))


# Where the units go.


def units(market: Market, offer_id: str = "o-1") -> tuple[str, int, int, int]:
    found = market.offer(offer_id)
    return found.state, found.units_left, found.units_reserved, found.units_proven


def test_units_move_from_left_to_reserved_to_proven(market: Market) -> None:
    market.post(units=3)
    assert units(market) == ("open", 3, 0, 0)
    market.submit("job", lengths=(1, 1))
    assert units(market) == ("open", 1, 2, 0)
    market.prove("job", 1)
    assert units(market) == ("open", 1, 1, 1)
    market.cancel("job")
    assert units(market) == ("open", 2, 0, 1)


def test_offer_without_units_left_is_exhausted_until_some_return(market: Market) -> None:
    market.post(units=2)
    market.submit("job", lengths=(1, 1))
    assert units(market) == ("exhausted", 0, 2, 0)
    assert market.submit("late", lengths=(1,)).reason == "no_capacity"
    market.cancel("job")
    assert units(market) == ("open", 2, 0, 0)
    assert market.submit("late", lengths=(1,)).job.placed.offer_id == "o-1"


def test_offer_whose_units_are_all_proven_stays_exhausted(market: Market) -> None:
    market.post(units=1)
    market.submit("job", lengths=(1,))
    market.prove("job")
    assert units(market) == ("exhausted", 0, 0, 1)


def test_withdraw_ends_matching_and_is_repeatable(market: Market) -> None:
    market.post(units=5)

    def withdraw(txn: Txn) -> tuple[str, bool, int]:
        before = txn.writes
        offer, changed = offers.withdraw(txn, "o-1")
        return offer.state, changed, txn.writes - before

    state, changed, writes = market.update(withdraw)
    assert (state, changed) == ("withdrawn", True)
    assert writes > 0
    assert market.update(withdraw) == ("withdrawn", False, 0)
    assert market.submit("job", lengths=(1,)).reason == "capability_mismatch"


def test_withdrawn_offer_never_matches_again_when_units_return(market: Market) -> None:
    market.post(units=5)
    market.submit("job", lengths=(1, 1))
    market.update(lambda txn: offers.withdraw(txn, "o-1"))
    market.prove("job", 0)  # Jobs that hold it go on.
    assert units(market) == ("withdrawn", 3, 1, 1)
    market.cancel("job")
    assert units(market) == ("withdrawn", 4, 0, 1)
    assert market.submit("late", lengths=(1,)).reason == "capability_mismatch"
    assert market.view(lambda txn: (txn.size(BOOK), txn.size(PROVIDER_OFFERS))) == (0, 0)


def test_exhausted_offer_can_be_withdrawn(market: Market) -> None:
    market.post(units=1)
    market.submit("job", lengths=(1,))
    market.update(lambda txn: offers.withdraw(txn, "o-1"))
    market.cancel("job")
    assert units(market) == ("withdrawn", 1, 0, 0)
    assert market.submit("late", lengths=(1,)).reason == "capability_mismatch"


# How many there are.


def counts(market: Market) -> dict[str, int]:
    names = [f"state {state}" for state in OFFER_STATES]
    names += [f"shelf {shelf}" for shelf in ("open", "exhausted", "barred", "unfunded")]
    found = market.view(lambda txn: {name: offers.count_of(txn, name) for name in names})
    return {name: count for name, count in found.items() if count}


def test_counts_follow_every_change_of_an_offer(market: Market) -> None:
    assert counts(market) == {}
    market.post("prov", units=1)
    market.post("other", units=9)
    assert counts(market) == {"state open": 2, "shelf unfunded": 2}
    market.deposit("prov", ct=1)
    assert counts(market) == {"state open": 2, "shelf open": 1, "shelf unfunded": 1}
    market.submit("job", lengths=(1,))
    assert counts(market) == {
        "state open": 1,
        "state exhausted": 1,
        "shelf exhausted": 1,
        "shelf unfunded": 1,
    }
    market.cancel("job", by="provider")
    assert counts(market) == {"state open": 2, "shelf barred": 1, "shelf unfunded": 1}
    market.update(lambda txn: offers.withdraw(txn, "o-1"))
    assert counts(market) == {"state open": 1, "state withdrawn": 1, "shelf unfunded": 1}


def test_counts_forget_an_action_that_was_rolled_back(market: Market) -> None:
    market.post("prov")
    market.update(lambda txn: offers.withdraw(txn, "o-1"), dry_run=True)
    assert counts(market) == {"state open": 1, "shelf unfunded": 1}
