"""The queue: who is next, what holds a job back, and what a wait counts as."""

import pytest

from compute_market.jobs import jobs
from compute_market.scheduler import queue
from compute_market.store.schema import ACTIVE, ACTIVE_LOW
from compute_market.store.txn import Txn
from tests.support.market import Market


def active(market: Market) -> set[str]:
    return {key.decode() for key, _ in market.view(lambda txn: list(txn.scan(ACTIVE)))}


def waiting(market: Market) -> list[str]:
    return market.view(lambda txn: list(queue.in_order(txn)))


def command(market: Market) -> None:
    """Any market command; this one has no effects of its own."""
    market.update(lambda txn: None)


def drain(market: Market) -> list[str]:
    """Complete the one active job until none is left; the jobs in the order they ran."""
    ran = []
    while running := active(market):
        (job_id,) = running
        market.prove(job_id)
        ran.append(job_id)
    return ran


def fill(market: Market, *jobs: tuple[str, str]) -> None:
    """Submit (id, priority) each, in order."""
    for job_id, priority in jobs:
        market.submit(job_id, priority=priority)


@pytest.fixture
def one_slot(market: Market) -> Market:
    """A market whose only slot is taken by the job `first`."""
    market.configure(slots=1)
    market.post()
    market.submit("first", priority="high")
    return market


# Order.


def test_drain_goes_by_priority_then_arrival(one_slot: Market) -> None:
    fill(
        one_slot,
        ("low-1", "low"),
        ("normal-1", "normal"),
        ("high-1", "high"),
        ("normal-2", "normal"),
        ("low-2", "low"),
        ("high-2", "high"),
    )
    expected = ["high-1", "high-2", "normal-1", "normal-2", "low-1", "low-2"]
    assert waiting(one_slot) == expected
    assert drain(one_slot) == ["first", *expected]


def test_drain_goes_by_arrival_when_the_clock_was_set_back(one_slot: Market) -> None:
    fill(one_slot, ("early", "normal"))
    one_slot.advance(-100)
    fill(one_slot, ("late", "normal"))
    assert drain(one_slot) == ["first", "early", "late"]


def test_depth_counts_the_waiting_jobs_of_a_priority(one_slot: Market) -> None:
    fill(one_slot, ("a", "normal"), ("b", "low"), ("c", "low"))
    depths = one_slot.view(lambda txn: [queue.depth(txn, p) for p in ("high", "normal", "low")])
    assert depths == [0, 1, 2]


# Slots.


def test_submit_starts_as_many_jobs_as_there_are_slots(market: Market) -> None:
    market.configure(slots=2)
    market.post()
    fill(market, ("a", "normal"), ("b", "normal"), ("c", "normal"))
    assert active(market) == {"a", "b"}
    assert waiting(market) == ["c"]
    assert market.job("c").state == "queued"


def test_raising_the_slots_starts_jobs_at_the_next_command(one_slot: Market) -> None:
    fill(one_slot, ("b", "normal"), ("c", "normal"), ("d", "normal"))
    one_slot.configure(slots=3)
    command(one_slot)
    assert active(one_slot) == {"first", "b", "c"}


def test_raising_the_low_cap_starts_jobs_at_the_next_command(market: Market) -> None:
    market.configure(low_priority_cap_pct=0)
    market.post()
    fill(market, ("a", "normal"), ("b", "low"))
    market.configure(low_priority_cap_pct=50)
    command(market)
    assert active(market) == {"a", "b"}


def test_lowering_the_slots_stops_no_job(market: Market) -> None:
    market.configure(slots=3)
    market.post()
    fill(market, ("a", "normal"), ("b", "normal"), ("c", "normal"), ("d", "normal"))
    market.configure(slots=1)
    market.prove("a")
    assert active(market) == {"b", "c"}
    market.prove("b")
    market.prove("c")
    assert active(market) == {"d"}


def test_cancelling_a_job_gives_its_slot_to_the_next(one_slot: Market) -> None:
    fill(one_slot, ("b", "normal"))
    one_slot.cancel("first")
    assert active(one_slot) == {"b"}


def test_missing_a_deadline_gives_the_slot_to_the_next(market: Market) -> None:
    market.configure(slots=1)
    market.post(reputation=1)
    market.submit("a", deadline_secs=70)
    market.submit("b", deadline_secs=1000)
    market.advance(71)
    command(market)
    assert active(market) == {"b"}


# The cap on low jobs, a share of the slots: held back iff something is active and
# (active_low + 1) · 100 > cap · slots.


@pytest.mark.parametrize(
    ("cap_pct", "slots", "active_jobs", "active_low", "held_back"),
    [
        (50, 64, 0, 0, False),
        (50, 64, 1, 0, False),
        (50, 64, 31, 31, False),  # 3200 = 50 · 64
        (50, 64, 32, 32, True),
        (50, 64, 63, 31, False),
        (50, 64, 63, 32, True),
        (50, 3, 1, 0, False),  # 100 < 50 · 3
        (50, 3, 1, 1, True),
        (50, 1, 0, 0, False),
        (0, 64, 0, 0, False),
        (0, 64, 1, 0, True),
        (0, 64, 63, 0, True),
        (1, 99, 1, 0, True),  # 100 > 99
        (1, 100, 1, 0, False),
        (33, 3, 2, 0, True),
        (34, 3, 2, 0, False),
        (99, 2, 1, 1, True),
        (100, 2, 1, 1, False),
        (100, 8, 7, 7, False),
    ],
)
def test_low_job_is_held_back_by_the_formula(
    market: Market, cap_pct: int, slots: int, active_jobs: int, active_low: int, held_back: bool
) -> None:
    market.configure(low_priority_cap_pct=cap_pct, slots=slots)

    def action(txn: Txn) -> bool:
        for n in range(active_jobs):
            txn.put(ACTIVE, b"job-%d" % n)
        for n in range(active_low):
            txn.put(ACTIVE_LOW, b"job-%d" % n)
        return queue.low_held_back(txn)

    assert market.update(action, dry_run=True) is held_back


def test_low_job_starts_at_cap_zero_when_nothing_is_active(market: Market) -> None:
    market.configure(low_priority_cap_pct=0)
    market.post()
    fill(market, ("a", "low"), ("b", "low"))
    assert active(market) == {"a"}
    market.prove("a")
    assert active(market) == {"b"}


def test_held_back_low_job_blocks_nobody_and_starts_when_the_cap_allows(market: Market) -> None:
    market.configure(slots=4)
    market.post()
    fill(market, ("n-1", "normal"), ("l-1", "low"), ("l-2", "low"), ("l-3", "low"))
    assert active(market) == {"n-1", "l-1", "l-2"}  # Two of four slots.
    fill(market, ("n-2", "normal"))
    assert active(market) == {"n-1", "l-1", "l-2", "n-2"}
    assert waiting(market) == ["l-3"]
    market.prove("n-1")  # A free slot is none for a low job.
    assert waiting(market) == ["l-3"]
    market.prove("l-1")
    assert active(market) == {"n-2", "l-2", "l-3"}


@pytest.mark.parametrize(
    ("submitted", "held"),
    [
        ([("a", "low"), ("b", "low"), ("c", "low")], {"c": "cap"}),
        ([("a", "high"), ("b", "low"), ("c", "normal")], {"c": "slots"}),
        ([("a", "low"), ("b", "high"), ("c", "low"), ("d", "high")], {"c": "slots", "d": "slots"}),
    ],
)
def test_held_by_says_what_keeps_a_job_waiting(
    market: Market, submitted: list[tuple[str, str]], held: dict[str, str]
) -> None:
    slots = 2 if "slots" in held.values() else 4
    market.configure(slots=slots)
    market.post()
    fill(market, *submitted)

    def ask(txn: Txn) -> dict[str, str | None]:
        return {i: queue.held_by(txn, jobs.get(txn, i)) for i in queue.in_order(txn)}

    assert market.view(ask) == held


def test_held_back_low_job_that_aged_blocks_nobody(market: Market) -> None:
    market.configure(low_priority_cap_pct=0, priority_aging_secs=10, slots=2)
    market.post()
    fill(market, ("a", "normal"), ("l", "low"))
    market.advance(100)
    fill(market, ("b", "normal"))
    assert waiting(market) == ["l"]
    assert active(market) == {"a", "b"}


def test_ending_low_job_makes_room_under_the_cap(market: Market) -> None:
    market.configure(slots=2)
    market.post()
    fill(market, ("l-1", "low"), ("l-2", "low"))
    assert active(market) == {"l-1"}
    market.prove("l-1")
    assert active(market) == {"l-2"}


# Aging.


def test_aging_lifts_a_job_one_class_per_period_up_to_high(one_slot: Market) -> None:
    one_slot.configure(priority_aging_secs=10)
    fill(one_slot, ("low", "low"))
    one_slot.advance(1)
    fill(one_slot, ("high-1", "high"))
    one_slot.advance(8.999)
    fill(one_slot, ("normal", "normal"))
    assert waiting(one_slot) == ["high-1", "normal", "low"]
    one_slot.advance(0.001)  # Ten seconds: as a normal job, and it came first.
    assert waiting(one_slot) == ["high-1", "low", "normal"]
    one_slot.advance(9.998)  # The normal job has waited for 9.999 s, the low one for 19.998 s.
    fill(one_slot, ("high-2", "high"))
    assert waiting(one_slot) == ["high-1", "high-2", "low", "normal"]
    one_slot.advance(0.002)
    assert waiting(one_slot) == ["low", "high-1", "normal", "high-2"]
    one_slot.advance(1000)  # Nothing is above high.
    fill(one_slot, ("high-3", "high"))
    assert waiting(one_slot) == ["low", "high-1", "normal", "high-2", "high-3"]


def test_aging_switched_off_lifts_nobody(one_slot: Market) -> None:
    fill(one_slot, ("low", "low"))
    one_slot.advance(80_000)
    fill(one_slot, ("high", "high"))
    assert waiting(one_slot) == ["high", "low"]


def test_aging_starts_the_lifted_job(one_slot: Market) -> None:
    one_slot.configure(priority_aging_secs=10)
    fill(one_slot, ("low", "low"))
    one_slot.advance(20)
    fill(one_slot, ("high", "high"))
    assert drain(one_slot) == ["first", "low", "high"]


# Priority misses.


@pytest.mark.parametrize(
    ("priority", "waited_secs", "misses"),
    [
        ("high", 5, 0),
        ("high", 5.001, 1),
        ("normal", 5, 0),
        ("normal", 5.001, 1),
        ("low", 5.001, 0),
        ("low", 3600, 0),
    ],
)
def test_start_counts_a_priority_miss_after_more_than_five_seconds(
    one_slot: Market, priority: str, waited_secs: float, misses: int
) -> None:
    fill(one_slot, ("job", priority))
    one_slot.advance(waited_secs)
    command(one_slot)
    assert one_slot.counter("scheduler_priority_miss_total") == 0
    one_slot.prove("first")
    assert active(one_slot) == {"job"}
    assert one_slot.counter("scheduler_priority_miss_total") == misses
    command(one_slot)
    assert one_slot.counter("scheduler_priority_miss_total") == misses


def test_next_to_start_is_the_first_in_order(one_slot: Market) -> None:
    """With and without aging, whatever waits; a full market starts nobody."""
    for number, priority in enumerate(("low", "normal", "high", "low", "normal", "high")):
        fill(one_slot, (f"{priority}-{number}", priority))
        one_slot.advance(7)
    assert one_slot.view(queue.next_to_start) is None
    for slots, aging in ((2, 0), (2, 10), (2, 20), (2, 1)):
        one_slot.configure(slots=slots, priority_aging_secs=aging, low_priority_cap_pct=100)
        assert one_slot.view(queue.next_to_start) == waiting(one_slot)[0]


def test_start_of_an_aged_low_job_counts_no_priority_miss(one_slot: Market) -> None:
    one_slot.configure(priority_aging_secs=1)
    fill(one_slot, ("low", "low"))
    one_slot.advance(100)
    one_slot.prove("first")
    assert active(one_slot) == {"low"}
    assert one_slot.counter("scheduler_priority_miss_total") == 0


def test_waiting_without_a_match_counts_no_priority_miss(market: Market) -> None:
    market.submit("job", priority="high", wait=True)
    market.advance(100)
    market.post()
    assert active(market) == {"job"}
    assert market.counter("scheduler_priority_miss_total") == 0
