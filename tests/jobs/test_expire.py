"""Deadlines that were missed, and what each costs whom."""

from typing import Any

import pytest

from compute_market.jobs.expire import expire
from compute_market.jobs.submit import post_offer, submit
from compute_market.store.schema import DEADLINES
from compute_market.store.txn import Txn
from tests.support.market import Market, job_request, offer_request, slice_of
from tests.support.state import balances, command, receipt_of


def test_miss_of_an_active_job_costs_the_provider_its_bond_and_a_point(real: Market) -> None:
    real.post(price_per_unit=5, fee_pct_ct=25, provider_bond=30, reputation=3)
    real.submit(lengths=(1, 1, 1, 1), consumer_bond=20, deadline_secs=70)
    real.prove("job", 2)
    real.advance(71)
    command(real)
    job = real.job()
    assert (job.state, job.ended_by, job.cause) == ("failed", "deadline", "deadline_missed")
    assert job.ended_at == real.now_ms // 1000
    # 5 of 20 are paid as (2, 3); the rest of (5, 15) and the buyer's bond go back. When its epoch
    # ended, the unit that was proven also earned a subsidy of 1 IT.
    assert balances(real) == {
        "supply CT": -11_000,
        "supply IT": -10_001,
        "wallet/buyer CT": 9_998,
        "wallet/buyer IT": 9_997,
        "wallet/prov CT": 972,
        "wallet/prov IT": 3 + 1,
        "burned CT": 30,
    }
    assert real.score() == 2
    assert real.counter("industrial_rejected_total", "SLA") == 1
    assert real.counter("slashing_burn_ct_total") == 30
    assert real.counter("bonds_burned_total", "provider") == 1
    assert (real.offer("o-1").units_left, real.offer("o-1").units_proven) == (999, 1)
    receipt = receipt_of(real)
    assert receipt is not None
    assert receipt.units == 1


@pytest.mark.parametrize("state", ["queued", "pending"])
def test_miss_of_a_job_that_never_ran_costs_nobody_anything(real: Market, state: str) -> None:
    real.configure(slots=1)
    real.post(units=1 if state == "pending" else 2, provider_bond=30)
    real.submit("first")
    before = balances(real)
    real.submit(deadline_secs=70, wait=True)
    assert real.job().state == state
    real.advance(71)
    command(real)
    job = real.job()
    assert (job.state, job.ended_by) == ("failed", "deadline")
    assert job.cause == "never_started"
    assert balances(real) == before
    assert real.score() == 0
    assert real.counter("industrial_rejected_total", "SLA") == 0
    assert receipt_of(real) is None


def test_miss_in_dry_run_costs_a_point_and_no_money(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=70)
    market.advance(71)
    command(market)
    assert market.score() == -1
    assert balances(market) == {}
    assert market.counter("industrial_rejected_total", "SLA") == 1


def test_expire_names_the_oldest_deadlines_up_to_a_limit(market: Market) -> None:
    market.post()
    for job_id, secs in (("c", 69), ("a", 68), ("b", 67), ("d", 160)):
        market.submit(job_id, deadline_secs=secs)
    market.advance(110)

    def fail(limit: int) -> list[str]:
        return market.opened.engine.update(lambda txn: expire(txn, limit).job_ids, sweep_limit=0)

    assert fail(2) == ["b", "a"]
    assert fail(2) == ["c"]
    assert fail(2) == []


def test_expire_tells_what_was_burned(real: Market) -> None:
    real.configure(slots=2)
    real.post(provider_bond=30, reputation=5)
    for job_id in ("ran", "ran-too", "waited"):
        real.submit(job_id, deadline_secs=70)
    real.advance(71)
    command(real)
    due = real.opened.due
    assert (due.failed, due.burned_ct) == (("ran", "ran-too", "waited"), 60)
    assert real.opened.due.text == "3 overdue jobs failed, 60 CT of bonds burned"


def submit_many(market: Market, jobs: int, **fields: Any) -> None:
    """Jobs that all have the same deadline, more than one command sweeps."""
    market.configure(burst_quota_micro=10**12)
    inputs = [slice_of(1)]

    def action(txn: Txn) -> None:
        for n in range(jobs):
            request = job_request(f"job-{n:03}", inputs, deadline_secs=70, **fields)
            submit(txn, request, inputs, wait=True)

    market.update(action)


def live_jobs(market: Market) -> int:
    return market.view(lambda txn: txn.size(DEADLINES))


@pytest.mark.parametrize("slots", [1000, 1], ids=["active", "queued"])
def test_sweep_fails_at_most_256_jobs_a_command(market: Market, slots: int) -> None:
    market.configure(slots=slots)
    market.post(reputation=1000)
    submit_many(market, 600)
    market.advance(71)
    for left in (600 - 256, 600 - 512, 0, 0):
        command(market)
        assert live_jobs(market) == left
    assert market.counter("industrial_rejected_total", "SLA") == min(slots, 600)


def test_sweep_does_not_start_a_job_whose_deadline_has_passed(market: Market) -> None:
    # One job runs, 299 wait. Only the one that ran is its provider's fault, however many
    # commands it takes to sweep the others.
    market.configure(slots=1)
    market.post(reputation=1000)
    submit_many(market, 300)
    market.advance(71)
    for _ in range(50):
        command(market)
    assert live_jobs(market) == 0
    assert market.counter("industrial_rejected_total", "SLA") == 1
    assert market.score() == 999


def test_post_does_not_match_a_job_whose_deadline_has_passed(market: Market) -> None:
    submit_many(market, 300)
    market.advance(71)
    posted = market.update(lambda txn: post_offer(txn, offer_request(reputation=1000)))
    assert posted.matched == []


def test_look_shows_a_job_as_overdue_until_a_command_fails_it(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=70)

    def look() -> tuple[str, bool]:
        shown = market.opened.job("job")
        return shown["state"], shown["overdue"]

    market.advance(70.999)
    assert look() == ("active", False)
    market.advance(0.001)
    assert look() == ("active", True)
    command(market)
    assert look() == ("failed", False)
