"""What is remembered of matches: outcomes, prices, use by hardware."""

from compute_market.records import MATCH_RESULTS
from compute_market.scheduler import outcomes
from tests.support.market import Market


def recent(market: Market) -> list[tuple[str, int]]:
    return market.view(lambda txn: list(outcomes.recent_prices(txn)))


def test_record_keeps_the_last_hundred_outcomes(market: Market) -> None:
    market.configure(initial_capacity=10**6, burst_quota_micro=10**12)
    for number in range(70):
        market.submit(f"none{number}")
    market.post(price_per_unit=5)
    for number in range(60):
        market.submit(f"job{number}")
    assert market.view(outcomes.last_outcomes) == dict.fromkeys(MATCH_RESULTS, 0) | {
        "success": 60,
        "capability_mismatch": 40,
    }
    assert market.counter("scheduler_match_total", "capability_mismatch") == 70
    assert market.counter("scheduler_match_total", "success") == 60


def test_record_counts_a_missing_accelerator(market: Market) -> None:
    market.submit("plain")
    assert market.counter("scheduler_accelerator_miss_total") == 0
    market.submit("special", capability={"accelerator": "TPU"})
    assert market.counter("scheduler_accelerator_miss_total") == 1
    market.post("bad", reputation=-1, capability={"accelerator": "TPU"})
    market.submit("disgraced", capability={"accelerator": "TPU"})
    assert market.counter("scheduler_accelerator_miss_total") == 1


def test_record_counts_matches_by_hardware(market: Market) -> None:
    market.post("g", price_per_unit=1, units=2, capability={"gpu": "A100", "accelerator": "TPU"})
    market.post("a", price_per_unit=2, units=1, capability={"accelerator": "TPU"})
    market.post("c", price_per_unit=3)
    for number in range(4):
        market.submit(f"job{number}")
    assert market.view(outcomes.utilization) == {"A100": 2, "TPU": 1, "cpu": 1}


def test_record_keeps_effective_prices(market: Market) -> None:
    assert market.view(outcomes.last_effective_price) is None
    market.submit("none")
    assert market.view(outcomes.last_effective_price) is None
    market.post("a", price_per_unit=5, reputation_multiplier="0.5", units=1)
    market.post("b", price_per_unit=9)
    market.submit("one")
    market.advance(5)
    market.submit("two")
    assert market.view(outcomes.last_effective_price) == 9
    assert recent(market) == [("b", 9), ("a", 3)]
    market.advance(5)
    market.cancel("one")
    market.submit("three")  # The one unit of `a` is free again.
    assert recent(market) == [("a", 3), ("b", 9)]
    assert market.view(outcomes.last_effective_price) == 3


def test_record_of_a_price_again_at_the_same_moment_keeps_it_once(market: Market) -> None:
    market.post("a", price_per_unit=5, units=2)
    market.post("a", price_per_unit=6)
    for job_id in ("one", "two"):
        market.submit(job_id)
    assert recent(market) == [("a", 5)]
    market.submit("three")
    assert recent(market) == [("a", 6)]


def test_last_effective_price_of_nothing_is_told_from_none(market: Market) -> None:
    market.configure(multiplier_min_ppm=0)
    market.post(price_per_unit=1, reputation_multiplier="0.1")
    assert market.view(outcomes.last_effective_price) is None
    market.submit()
    assert market.view(outcomes.last_effective_price) == 0


def test_statistics_tell_of_matches_jobs_and_queue(market: Market) -> None:
    market.configure(slots=1)
    market.submit("pending", wait=True, capability={"gpu": "H100"})
    market.post(price_per_unit=10, reputation_multiplier="0.8", units=3)
    market.submit("high", priority="high")
    market.submit("low", priority="low")
    market.submit("dear", max_price_per_unit=9)
    market.submit("large", lengths=(2 * 2**20,))
    assert market.view(outcomes.statistics) == {
        "success": 2,
        "capability_mismatch": 1,
        "reputation_failure": 0,
        "active_jobs": 1,
        "utilization": {"cpu": 2},
        "preemptions": 0,
        "effective_price": 8,
        "queued_high": 0,
        "queued_normal": 0,
        "queued_low": 1,
        "priority_miss": 0,
        "price_mismatch": 1,
        "no_capacity": 1,
        "bond_unfunded": 0,
        "pending": 1,
    }
