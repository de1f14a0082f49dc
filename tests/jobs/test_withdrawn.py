"""Units of an offer that its jobs give back, and offers withdrawn under their jobs."""

import pytest

from compute_market.offers import offers
from tests.support.market import Market
from tests.support.state import states


def withdraw_offer(market: Market, offer_id: str = "o-1") -> None:
    market.update(lambda txn: offers.withdraw(txn, offer_id))


def test_withdrawn_offer_takes_no_job(market: Market) -> None:
    market.post()
    withdraw_offer(market)
    assert market.submit().reason == "capability_mismatch"


def test_withdrawn_offer_lets_its_jobs_finish(real: Market) -> None:
    real.configure(slots=1)
    real.post()
    real.submit("a")
    real.submit("b")
    withdraw_offer(real)
    real.prove("a")
    real.prove("b")
    assert states(real, "a", "b") == ["completed", "completed"]
    assert real.balance("wallet/prov") == 1_010


def test_withdrawn_offer_does_not_sell_returned_units(market: Market) -> None:
    market.post(units=2)
    market.submit(lengths=(1, 1))
    withdraw_offer(market)
    market.cancel()
    assert market.offer("o-1").state == "withdrawn"
    assert market.submit("other").reason == "capability_mismatch"


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_returned_units_are_sold_again(market: Market, end: str) -> None:
    market.post(units=3, reputation=10)
    market.submit(lengths=(1, 1, 1), deadline_secs=70)
    market.prove("job", 0)
    assert market.submit("other", lengths=(1, 1)).reason == "no_capacity"
    if end == "cancel":
        market.cancel()
    else:
        market.advance(71)
    assert market.submit("other", lengths=(1, 1)).job.state == "active"
    offer = market.offer("o-1")
    assert (offer.units_left, offer.units_reserved, offer.units_proven) == (0, 2, 1)
