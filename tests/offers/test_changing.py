"""Changing: which terms are taken, what jobs that hold units keep, and who gets in by it."""

from typing import Any

import pytest

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import ConflictError, NotFoundError, RefusedError
from compute_market.jobs.submit import change_offer
from compute_market.offers import offers, standing
from compute_market.offers.changing import Changed
from compute_market.requests import OfferChange, OfferRequest, build
from tests.support.market import Market

# One row per refusal, in the order in which they are looked at.
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"price_per_unit": 0}, "no_price_data"),
    ({"units": "-1001"}, "units_not_left"),
    ({"units": "-1000"}, "no_units_offered"),
    ({"units": 0}, "no_units_offered"),
    ({"units": f"+{AMOUNT_MAX}"}, "overflow"),
    ({"fee_pct_ct": 101}, "invalid_fee_pct_ct"),
    ({"reputation_multiplier": "1.01"}, "invalid_reputation_multiplier"),
    ({"reputation_multiplier": True}, "invalid_reputation_multiplier"),
]


def change(market: Market, key: str | None = None, **fields: Any) -> Changed:
    asked = build({"offer_id": "o-1"} | fields, OfferChange, "change")
    return market.update(lambda txn: change_offer(txn, asked, key))


@pytest.mark.parametrize(("fields", "reason"), REFUSALS)
def test_change_is_refused_and_changes_nothing(
    market: Market, fields: dict[str, Any], reason: str
) -> None:
    before = market.post()
    with pytest.raises(RefusedError) as caught:
        change(market, **fields)
    assert caught.value.reason == reason
    assert market.offer("o-1") == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("provider", "other"),
        ("provider_bond", 9),
        ("consumer_bond", 9),
        ("capability", {"cpu_cores": 9}),
        ("reputation", 9),
        ("job_id", "other"),
    ],
)
def test_change_of_what_stays_is_a_conflict(market: Market, field: str, value: Any) -> None:
    before = market.post()
    with pytest.raises(ConflictError) as caught:
        change(market, price_per_unit=9, **{field: value})
    assert caught.value.details["field"] == field
    assert market.offer("o-1") == before


def test_change_of_a_withdrawn_or_unknown_offer_is_an_error(market: Market) -> None:
    with pytest.raises(NotFoundError):
        change(market, price_per_unit=9)
    market.post()
    market.update(lambda txn: offers.withdraw(txn, "o-1"))
    with pytest.raises(RefusedError) as caught:
        change(market, price_per_unit=9)
    assert caught.value.reason == "withdrawn"
    # What it has already is no change.
    assert change(market, price_per_unit=5).before == {}


def test_jobs_that_hold_units_keep_their_quote(market: Market) -> None:
    market.configure(settle_mode="real")
    market.deposit("buyer", ct=1000, it=1000)
    market.deposit("prov", ct=1000)
    market.post(units=2, fee_pct_ct=100)
    market.submit("first", max_price_per_unit=9)
    changed = change(market, price_per_unit=9, fee_pct_ct=0, reputation_multiplier="0.5")
    assert changed.before == {
        "price_per_unit": 5,
        "fee_pct_ct": 100,
        "reputation_multiplier": "1",
    }
    market.submit("second", max_price_per_unit=9)
    first, second = market.job("first"), market.job("second")
    assert (first.placed.price_per_unit, first.placed.fee_pct_ct) == (5, 100)
    assert (second.placed.price_per_unit, second.placed.fee_pct_ct) == (9, 0)
    market.prove("first")
    assert market.job("first").paid_ct == 5


def test_units_are_taken_away_while_they_are_left(market: Market) -> None:
    market.post(units=3)
    market.submit("first")
    change(market, units="-2")
    offer = market.offer("o-1")
    assert (offer.state, offer.units, offer.units_left) == ("exhausted", 1, 0)
    with pytest.raises(RefusedError):
        change(market, units="-1")
    change(market, units="+1")
    offer = market.offer("o-1")
    assert (offer.state, offer.units, offer.units_left) == ("open", 2, 1)
    change(market, units=9)
    assert market.offer("o-1").units_left == 8


@pytest.mark.parametrize("help_", [{"price_per_unit": 3}, {"units": "+9"}])
def test_job_that_waits_is_tried_by_the_next_change(market: Market, help_: dict[str, Any]) -> None:
    market.post(units=1, price_per_unit=4 if "price_per_unit" in help_ else 3)
    market.submit(
        "waits", wait=True, max_price_per_unit=3, lengths=(10, 10)[: 1 + ("units" in help_)]
    )
    assert market.job("waits").state == "pending"
    change(market, **help_)
    assert market.job("waits").state == "pending"
    market.opened.tick()
    assert market.job("waits").state == "active"


def test_the_cheapest_offer_is_found_after_a_change(market: Market) -> None:
    market.post("a", offer_id="o-1", price_per_unit=5)
    market.post("b", offer_id="o-2", price_per_unit=6)
    change(market, price_per_unit=7)
    market.submit("first", max_price_per_unit=9)
    change(market, reputation_multiplier="0.5")
    market.submit("second", max_price_per_unit=9)
    assert market.job("first").placed.offer_id == "o-2"
    assert market.job("second").placed.offer_id == "o-1"


def test_the_same_change_under_a_key_happens_once(market: Market) -> None:
    market.post(units=1)
    assert change(market, "k", units="+50").before == {"units": 1}
    assert change(market, "k", units="+50").before == {}
    with pytest.raises(ConflictError):
        change(market, "k", units="+51")
    assert market.offer("o-1").units == 51


def test_price_of_zero_is_the_market_price(market: Market) -> None:
    market.opened.prices.load()
    market.post(price_per_unit=8)
    market.submit(max_price_per_unit=9)
    market.post(price_per_unit=3, offer_id="o-2")
    asked = OfferChange("o-2", price_per_unit=0)
    assert market.update(lambda txn: change_offer(txn, asked)).before == {
        "price_per_unit": 3,
        "market_priced": False,
    }
    offer = market.offer("o-2")
    assert (offer.price_per_unit, offer.market_priced) == (8, True)
    # What it shows repeats it, as a file of an offer too.
    shown = market.view(lambda txn: standing.document(txn, offer))
    asked = build(shown, OfferChange, "shown")
    assert market.update(lambda txn: change_offer(txn, asked)).before == {}
    assert market.opened.post_offer(**shown)["changed"] is False
    change(market, offer_id="o-2", price_per_unit=4)
    assert not market.offer("o-2").market_priced


def test_shown_offer_has_what_it_is_posted_by_and_what_is_derived(market: Market) -> None:
    offer = market.post()
    shown = market.view(lambda txn: standing.document(txn, offer))
    request = build(shown, OfferRequest, "shown")
    assert {name: shown[name] for name in request.__struct_fields__ if name != "capability"} == {
        name: getattr(request, name) for name in request.__struct_fields__ if name != "capability"
    }
