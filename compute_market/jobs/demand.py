"""What the market is asked for and does: backlog and throughput. The only writer of the latter."""

from typing import Any

from compute_market import metrics
from compute_market.admission import capacity
from compute_market.admission.shares import WINDOW_SECS
from compute_market.amounts import half_up
from compute_market.jobs import jobs
from compute_market.scheduler import outcomes
from compute_market.store.schema import THROUGHPUT, pack_u64, unpack_u64
from compute_market.store.txn import Txn


def note_proven(txn: Txn, units: int) -> None:
    """Add units to those of the present second; seconds behind the window are dropped, and those
    that a clock which was ahead has left behind it."""
    key = pack_u64(txn.now)
    txn.put(THROUGHPUT, key, pack_u64(unpack_u64(txn.get(THROUGHPUT, key) or b"") + units))
    oldest = pack_u64(max(0, txn.now - WINDOW_SECS))
    for stale, _ in txn.collect(THROUGHPUT, 4):
        if stale <= oldest:
            txn.delete(THROUGHPUT, stale)
    for ahead, _ in txn.collect(THROUGHPUT, 4, start=pack_u64(txn.now + 1)):
        txn.delete(THROUGHPUT, ahead)


def utilization_pct(txn: Txn) -> int:
    """Units proven in the last 60 s as percent of what the estimate makes of 60 s, half up."""
    start, end = pack_u64(max(0, txn.now - WINDOW_SECS + 1)), pack_u64(txn.now)
    window = txn.scan(THROUGHPUT, start=start)
    proven = sum(unpack_u64(value) for second, value in window if second <= end)
    capacity_units = capacity.estimate(txn) * WINDOW_SECS
    return half_up(proven * 100, capacity_units) if capacity_units else 0


def document(txn: Txn) -> dict[str, Any]:
    """`compute-market stats`: backlog, utilization of the last minute, units ever proven, price."""
    return {
        "industrial_backlog": jobs.backlog_units(txn),
        "industrial_utilization": utilization_pct(txn) / 100,
        "industrial_units_total": metrics.value(txn, "industrial_units_total"),
        "industrial_price_per_unit": outcomes.last_effective_price(txn) or 0,
    }
