"""What a job that is handed over leaves with whom."""

import pytest

from compute_market import events
from compute_market.errors import RefusedError
from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.records import Job
from tests.support.market import Market


def hand_over(market: Market, offer_id: str) -> Job:
    return market.update(
        lambda txn: jobs.hand_over(txn, jobs.get(txn, "job"), offers.get(txn, offer_id))
    )


def test_hand_over_pays_each_provider_what_it_proved(real: Market) -> None:
    real.deposit("other", ct=100)
    real.post(offer_id="first", price_per_unit=8, fee_pct_ct=50)
    real.submit(lengths=(10, 10, 10))
    real.prove("job", 0)
    real.post("other", offer_id="second", price_per_unit=5, fee_pct_ct=25)
    job = hand_over(real, "second")
    assert [job.placed.provider, job.placements_before] == ["other", 1]
    real.prove("job", 1, 2)
    job = real.job()
    assert (job.state, job.paid_ct, job.paid_it) == ("completed", 4 + 3, 4 + 7)
    assert [real.balance("wallet/prov", token) for token in ("CT", "IT")] == [1_004, 4]
    assert [real.balance("wallet/other", token) for token in ("CT", "IT")] == [103, 7]


def test_hand_over_to_a_lower_price_is_a_refund(real: Market) -> None:
    real.deposit("other", ct=100)
    real.post(offer_id="first", price_per_unit=8)
    real.submit(lengths=(10, 10))
    real.post("other", offer_id="second", price_per_unit=5)
    job = hand_over(real, "second")
    assert (job.refunded_ct, real.balance("escrow/job")) == (6, 10)
    real.prove("job", 0, 1)
    assert (real.job().paid_ct, real.job().refunded_ct) == (10, 6)


def test_hand_over_that_the_buyer_cannot_pay_changes_nothing(real: Market) -> None:
    real.deposit("other", ct=100)
    real.post(offer_id="first")
    real.submit(lengths=(10, 10), max_price_per_unit=50_000)
    real.post("other", offer_id="second", price_per_unit=20_000)
    before = real.view(lambda txn: list(events.forward(txn)))
    with pytest.raises(RefusedError) as caught:
        hand_over(real, "second")
    assert caught.value.reason == "insufficient_funds"
    assert real.job().placed.offer_id == "first"
    assert real.view(lambda txn: list(events.forward(txn))) == before


def test_hand_over_to_who_held_the_job_before_is_refused(market: Market) -> None:
    for provider in ("prov", "other", "prov"):
        market.post(provider)
    market.submit(lengths=(10, 10, 10))
    market.prove("job", 0)
    hand_over(market, "o-2")
    market.prove("job", 1)
    for offer_id in ("o-1", "o-2", "o-3"):
        with pytest.raises(RefusedError) as caught:
            hand_over(market, offer_id)
        assert caught.value.reason == "held_before"


def test_history_of_a_job_tells_of_the_burned_bond(real: Market) -> None:
    real.post(provider_bond=50)
    real.submit(deadline_secs=5)
    real.advance(10)
    real.opened.tick()
    found = real.view(lambda txn: events.history(txn, jobs.get(txn, "job")))
    told = [logged.event.event for logged in found]
    assert told == ["job_queued", "job_started", "bond_burned", "job_failed"]
