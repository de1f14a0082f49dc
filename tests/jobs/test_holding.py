"""Changing live jobs: held, released, preferred, given more time."""

from typing import Any

import pytest

from compute_market.errors import AlreadyDoneError, NotFoundError, RefusedError
from compute_market.jobs import holding, present
from compute_market.records import Priority
from compute_market.scheduler import queue
from compute_market.store.txn import Txn
from tests.support.market import Market

NONE_HAS_IT = {"gpu": "none has it"}


@pytest.fixture
def full(market: Market) -> Market:
    """One slot, a job `runs`, and three that wait for it, and one without an offer."""
    market.configure(slots=1, party_slots_pct=100)
    market.post()
    market.submit("runs")
    for job_id in ("a", "b", "c"):
        market.submit(job_id, buyer=f"buyer-{job_id}")
    market.submit("pending", wait=True, capability=NONE_HAS_IT)
    return market


def hold(market: Market, job_id: str) -> bool:
    return market.update(lambda txn: holding.hold(txn, job_id))[1]


def release(market: Market, job_id: str) -> bool:
    return market.update(lambda txn: holding.release(txn, job_id))[1]


def change(market: Market, job_id: str, **what: Any) -> Any:
    return market.update(lambda txn: holding.change(txn, job_id, **what))


def order(market: Market) -> list[str]:
    return market.view(lambda txn: [*queue.in_order(txn), *queue.pending_in_order(txn)])


def test_held_job_keeps_its_place_and_is_passed_over(full: Market) -> None:
    assert hold(full, "a")
    assert not hold(full, "a")
    assert order(full) == ["a", "b", "c", "pending"]
    full.cancel("runs")
    assert (full.job("a").state, full.job("b").state) == ("queued", "active")
    assert release(full, "a")
    assert not release(full, "a")
    assert order(full) == ["a", "c", "pending"]
    full.cancel("b")
    assert full.job("a").state == "active"


def test_released_job_starts_at_once_where_there_is_a_slot(full: Market) -> None:
    for job_id in ("a", "b", "c"):
        hold(full, job_id)
    full.cancel("runs")
    assert full.view(queue.active_jobs) == 0
    release(full, "c")
    assert full.job("c").state == "active"


def test_held_pending_job_is_tried_once_it_is_released(full: Market) -> None:
    hold(full, "pending")
    full.submit("later", wait=True, capability=NONE_HAS_IT)
    full.post("new", capability=NONE_HAS_IT, price_per_unit=1)
    assert full.job("pending").state == "pending"
    assert full.job("later").state == "queued"
    release(full, "pending")
    full.opened.tick()
    assert full.job("pending").state == "queued"


def test_what_holds_a_job_is_told(full: Market) -> None:
    hold(full, "a")
    hold(full, "pending")

    def told(txn: Txn) -> dict[str, Any]:
        found = [*present.queued(txn, 9), *present.unplaced(txn, 9)]
        return {each["job_id"]: each["held_by"] for each in found}

    assert full.view(told) == {"a": "hold", "b": "slots", "c": "slots", "pending": "hold"}
    assert full.opened.job("a")["held"]


@pytest.mark.parametrize("job_id", ["a", "pending"])
def test_held_job_can_be_cancelled_and_misses_its_deadline(full: Market, job_id: str) -> None:
    hold(full, job_id)
    full.cancel(job_id)
    assert (full.job(job_id).state, full.job(job_id).held) == ("cancelled", False)
    hold(full, "b")
    for _ in range(25):  # Never away for as long as an outage.
        full.advance(3_600)
        full.opened.tick()
    assert (full.job("b").state, full.job("b").cause) == ("failed", "never_started")


def test_running_or_ended_or_unknown_job_is_not_held(full: Market) -> None:
    with pytest.raises(RefusedError) as caught:
        hold(full, "runs")
    assert caught.value.reason == "not_waiting"
    assert not release(full, "runs")
    full.cancel("a")
    for act in (hold, release, change):
        with pytest.raises(AlreadyDoneError):
            act(full, "a")
        with pytest.raises(NotFoundError):
            act(full, "nobody")


def test_preferred_job_stands_among_those_of_its_priority(full: Market) -> None:
    change(full, "c", priority="high")
    change(full, "a", priority="low")
    assert order(full) == ["c", "b", "a", "pending"]
    hold(full, "b")
    change(full, "b", priority="high")
    assert order(full) == ["b", "c", "a", "pending"]
    release(full, "b")
    full.submit("older", wait=True, priority="high", capability=NONE_HAS_IT)
    change(full, "pending", priority="high")
    assert order(full) == ["b", "c", "a", "pending", "older"]


@pytest.mark.parametrize(("before", "after"), [("low", "high"), ("high", "low")])
def test_active_job_counts_by_its_new_priority(
    market: Market, before: Priority, after: Priority
) -> None:
    market.configure(slots=2, low_priority_cap_pct=50)
    market.post()
    market.submit("runs", priority=before)
    market.submit("low", priority="low")
    change(market, "runs", priority=after)
    held_back = market.view(queue.low_held_back)
    assert (market.job("low").state, held_back) == ("active", True)
    market.cancel("runs")


def test_job_can_be_submitted_again_whatever_was_changed(full: Market) -> None:
    change(full, "a", priority="high", deadline_secs=100_000)
    assert not full.submit("a", buyer="buyer-a").changed
    change(full, "a", priority="normal")
    assert full.job("a").asked_priority is None


def test_deadline_only_moves_later(full: Market) -> None:
    at = full.job("a").deadline
    before, after = change(full, "a", deadline=at + 60)
    assert (before.deadline, after.deadline) == (at, at + 60)
    before, after = change(full, "a", deadline=at + 60)
    assert before == after
    for what in ({"deadline": at}, {"deadline_secs": 60}, {"deadline_secs": 31 * 86_400}):
        with pytest.raises(RefusedError) as caught:
            change(full, "a", **what, priority="high")
        assert caught.value.reason == "deadline"
    assert full.job("a").priority == "normal"
    change(full, "a", deadline_secs=2 * 86_400)
    full.advance(86_500)
    full.opened.tick()
    assert [full.job(job_id).state for job_id in ("runs", "a", "b")] == [
        *("failed", "active", "failed"),
    ]
