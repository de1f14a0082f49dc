"""What came of matches: counts, the last hundred, prices by provider, use by hardware.

The only writer of `effective_prices` and `utilization`.
"""

from collections.abc import Iterator
from typing import Any

from compute_market import metrics
from compute_market.records import MATCH_RESULTS, PRIORITIES, Capability, Job
from compute_market.scheduler import queue
from compute_market.scheduler.matching import Match, NoMatch
from compute_market.store.schema import (
    EFFECTIVE_PRICES,
    EFFECTIVE_PRICES_RECENT,
    META,
    PENDING,
    UTILIZATION,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

OUTCOMES_KEPT = 100
_OUTCOMES = b"outcomes"
_LAST_PRICE = "effective_price"


def record(txn: Txn, job: Job, outcome: Match | NoMatch) -> None:
    """Count an outcome and keep it for the statistics."""
    result = "success" if isinstance(outcome, Match) else outcome.result
    metrics.count(txn, "scheduler_match_total", result)
    kept = (txn.get(META, _OUTCOMES) or b"") + bytes([MATCH_RESULTS.index(result)])
    txn.put(META, _OUTCOMES, kept[-OUTCOMES_KEPT:])
    if isinstance(outcome, Match):
        txn.set_number(_LAST_PRICE, outcome.effective_price)
        _note_price(txn, outcome.offer.provider, outcome.effective_price)
        txn.add(UTILIZATION, _hardware(outcome.offer.capability).encode(), 1)
    elif result == "capability_mismatch" and job.capability.accelerator is not None:
        metrics.count(txn, "scheduler_accelerator_miss_total")


def last_effective_price(txn: Txn) -> int | None:
    """The effective price of the last match, None before the first."""
    matches = metrics.value(txn, "scheduler_match_total", "success")
    return txn.number(_LAST_PRICE) if matches else None


def last_outcomes(txn: Txn) -> dict[str, int]:
    """How many of the last 100 matches ended with each result."""
    kept = txn.get(META, _OUTCOMES) or b""
    return {name: kept.count(bytes([i])) for i, name in enumerate(MATCH_RESULTS)}


def utilization(txn: Txn) -> dict[str, int]:
    """Matches ever made, by the provider's GPU model, else accelerator, else `cpu`."""
    return {key.decode(): count for key, count in txn.sums(UTILIZATION).items()}


def recent_prices(txn: Txn) -> Iterator[tuple[str, int]]:
    """(provider, effective price of its last match), the last match first."""
    for key, _ in txn.scan_back(EFFECTIVE_PRICES_RECENT):
        provider = key[8:]
        value = txn.get(EFFECTIVE_PRICES, provider) or b""
        yield provider.decode(), unpack_u64(value[8:])


def statistics(txn: Txn) -> dict[str, Any]:
    """`compute stats`: the last 100 matches, what runs and what waits."""
    last = last_outcomes(txn)
    queued = {f"queued_{priority}": queue.depth(txn, priority) for priority in PRIORITIES}
    return {
        "success": last["success"],
        "capability_mismatch": last["capability_mismatch"],
        "reputation_failure": last["reputation_failure"],
        "active_jobs": queue.active_jobs(txn),
        "utilization": utilization(txn),
        "preemptions": metrics.value(txn, "scheduler_preempt_total", "success"),
        "effective_price": last_effective_price(txn),
        **queued,
        "priority_miss": metrics.value(txn, "scheduler_priority_miss_total"),
        "price_mismatch": last["price_mismatch"],
        "no_capacity": last["no_capacity"],
        "bond_unfunded": last["bond_unfunded"],
        "pending": txn.size(PENDING),
    }


def _note_price(txn: Txn, provider: str, price: int) -> None:
    key, now = provider.encode(), pack_u64(txn.now_ms)
    after = now + price.to_bytes(16, "big")
    before = txn.get(EFFECTIVE_PRICES, key)
    if before == after:
        return
    txn.put(EFFECTIVE_PRICES, key, after)
    if before is None or before[:8] != now:
        if before is not None:
            txn.delete(EFFECTIVE_PRICES_RECENT, before[:8] + key)
        txn.put(EFFECTIVE_PRICES_RECENT, now + key)


def _hardware(capability: Capability) -> str:
    return " ".join(capability.gpu_models) or capability.accelerator or "cpu"
