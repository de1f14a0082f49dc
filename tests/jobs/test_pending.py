"""Jobs without a match: they are kept, and tried again."""

from compute_market.amounts import UNIT_BYTES
from compute_market.jobs.submit import post_offer
from compute_market.jobs.waiting import match_pending
from compute_market.offers import offers, standing
from compute_market.offers.standing import record_outcome
from compute_market.scheduler import outcomes
from compute_market.store.schema import JOBS
from compute_market.store.txn import Txn
from tests.support.market import Market, offer_request
from tests.support.state import command, record_capacity, states


def test_submit_with_wait_keeps_a_job_without_a_match(market: Market) -> None:
    found = market.submit(wait=True)
    assert (found.job.state, found.changed) == ("pending", True)
    (noted,) = market.events("job_pending")
    assert noted.event.detail == {
        "reason": "capability_mismatch",
        "units": 1,
        "mode": "loose",
    }
    assert market.counter("industrial_admitted_total") == 0


def test_submit_with_wait_does_not_keep_a_job_that_admission_refuses(market: Market) -> None:
    market.post(units=7000)
    refused = market.submit(lengths=(6001 * UNIT_BYTES,), wait=True)
    assert refused.reason == "capacity"
    assert market.view(lambda txn: txn.size(JOBS)) == 0


def test_post_matches_a_pending_job(market: Market) -> None:
    market.submit(wait=True)
    posted = market.update(lambda txn: post_offer(txn, offer_request(units=10)))
    assert posted.matched == ["job"]
    assert (posted.offer.units_left, posted.offer.units_reserved) == (9, 1)
    assert market.job().state == "active"
    assert market.counter("industrial_admitted_total") == 1


def test_post_leaves_pending_what_it_does_not_fit(market: Market) -> None:
    market.submit("gpu", wait=True, capability={"gpu": "a"})
    market.submit("any", wait=True)
    market.post()
    assert states(market, "gpu", "any") == ["pending", "active"]


def test_post_again_tries_nothing(market: Market) -> None:
    market.post(offer_id="o")
    market.submit("first", wait=True)
    market.update(lambda txn: offers.withdraw(txn, "o"))
    market.submit("second", wait=True)
    posted = market.update(lambda txn: post_offer(txn, offer_request(offer_id="o")))
    assert (posted.changed, posted.matched) == (False, [])
    assert market.job("second").state == "pending"


def test_post_serves_pending_jobs_in_queue_order(market: Market) -> None:
    for job_id, priority in (
        ("low", "low"),
        ("normal-1", "normal"),
        ("normal-2", "normal"),
        ("high", "high"),
    ):
        market.submit(job_id, priority=priority, wait=True)
    posted = market.update(lambda txn: post_offer(txn, offer_request(units=3)))
    assert posted.matched == ["high", "normal-1", "normal-2"]
    assert posted.offer.state == "exhausted"
    assert market.job("low").state == "pending"


def test_post_serves_a_smaller_job_behind_one_that_does_not_fit(market: Market) -> None:
    market.submit("large", lengths=(1,) * 5, wait=True)
    market.submit("small", wait=True)
    market.post(units=4)
    assert states(market, "large", "small") == ["pending", "active"]


def test_offer_that_came_back_into_good_standing_is_tried_before_a_new_one(market: Market) -> None:
    market.post("old", price_per_unit=9, reputation=-1)
    market.submit("a", wait=True)
    market.submit("b", wait=True)
    market.update(lambda txn: record_outcome(txn, "old", +1))
    posted = market.update(lambda txn: post_offer(txn, offer_request(units=1)))
    assert posted.matched == []
    assert states(market, "a", "b") == ["active", "active"]
    assert [market.job(name).placed.provider for name in "ab"] == ["old", "old"]


def test_pending_job_is_matched_in_the_second_of_its_deadline(market: Market) -> None:
    market.submit(wait=True, deadline_secs=60)
    market.advance(60.999)
    market.post()
    assert market.job().state == "active"


def test_pending_job_that_is_matched_counts_as_a_match(market: Market) -> None:
    market.submit(wait=True)
    market.post(price_per_unit=7)
    assert market.counter("scheduler_match_total", "success") == 1
    assert market.view(outcomes.last_effective_price) == 7


def test_match_tries_every_pending_job_again(market: Market) -> None:
    market.post(reputation=-1)
    market.submit("b", wait=True)
    market.submit("a", wait=True)
    assert market.update(lambda txn: match_pending(txn)) == []

    def act(txn: Txn) -> list[str]:
        standing.record_outcome(txn, "prov", +1)
        return match_pending(txn)

    assert market.update(act) == ["b", "a"]
    assert states(market, "a", "b") == ["active", "active"]
    assert market.update(lambda txn: match_pending(txn)) == []


def test_match_leaves_pending_what_admission_refuses(market: Market) -> None:
    market.configure(fair_share_cap_ppm=1_000_000)
    market.submit("large", lengths=(6001 * UNIT_BYTES,), wait=True)
    market.post(units=7000)
    assert market.job("large").state == "pending"
    market.update(lambda txn: match_pending(txn))
    assert market.job("large").state == "pending"
    (noted,) = market.events("job_deferred")
    assert (noted.event.detail["reason"], noted.event.detail["units"]) == ("capacity", 6001)
    assert market.counter("industrial_deferred_total") == 1
    assert market.counter("industrial_rejected_total", "capacity") == 0
    record_capacity(market, 101)
    command(market)
    assert market.job("large").state == "active"


def test_match_in_real_leaves_pending_what_nobody_can_pay(real: Market) -> None:
    real.submit(buyer="poor", wait=True)
    real.post(price_per_unit=5)
    assert real.job().state == "pending"
    assert real.update(lambda txn: match_pending(txn)) == []
    real.deposit("poor", ct=6)
    command(real)
    assert real.job().state == "active"
    assert real.balance("escrow/job") == 5


def test_match_takes_a_directed_offer_for_its_job_only(market: Market) -> None:
    market.submit("other", wait=True)
    market.submit("mine", wait=True)
    market.post(job_id="mine")
    assert states(market, "other", "mine") == ["pending", "active"]
