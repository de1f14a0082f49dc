"""What the market is asked for and does: backlog, throughput, and who did how much in this epoch.

The only writer of the latter two.
"""

from typing import Any

from compute_market import metrics
from compute_market.admission import capacity
from compute_market.admission.shares import WINDOW_SECS
from compute_market.amounts import half_up
from compute_market.jobs import jobs
from compute_market.scheduler import outcomes
from compute_market.store.schema import EPOCH_UNITS, THROUGHPUT, pack_u64, unpack_u64
from compute_market.store.txn import Txn

_SECONDS_MAX = 2**63


def note_proven(txn: Txn, provider: str, units: int) -> None:
    """Add units to those of the present second and of the running epoch; seconds behind the window
    are dropped, and those that a clock which was ahead has left behind it."""
    now = txn.now
    key = pack_u64(now)
    txn.add(EPOCH_UNITS, provider.encode(), units)
    oldest = pack_u64(now - WINDOW_SECS if now > WINDOW_SECS else 0)
    found = txn.collect(THROUGHPUT, 4)
    for stale, _ in found:
        if stale <= oldest:
            txn.delete(THROUGHPUT, stale)
    # Where it is short, these were all.
    if found and (len(found) == 4 or found[-1][0] > oldest):
        known = txn.get(THROUGHPUT, key)
        units += 0 if known is None else unpack_u64(known)
        behind = pack_u64(now + 1)
        if txn.first(THROUGHPUT, start=behind) is not None:  # Hardly ever.
            for ahead, _ in txn.collect(THROUGHPUT, 4, start=behind):
                txn.delete(THROUGHPUT, ahead)
    txn.put(THROUGHPUT, key, pack_u64(units))


def throughput(txn: Txn, since: int) -> list[tuple[int, int]]:
    """Seconds and the units that were proven in each, of the 60 s up to a second and later."""
    first = since - WINDOW_SECS + 1
    start = pack_u64(first if first > 0 else 0)
    # One by the second: there are no more of them than seconds.
    found = txn.collect(THROUGHPUT, _SECONDS_MAX, start=start)
    if not found:
        return []
    return [(unpack_u64(second), unpack_u64(units)) for second, units in found]


def percent(proven: int, estimate: int) -> int:
    """Units of 60 s as percent of what a capacity estimate makes of 60 s, half up."""
    return half_up(proven * 100, estimate * WINDOW_SECS) if proven and estimate else 0


def percent_at(of: list[tuple[int, int]], second: int, estimate: int) -> int:
    """The percentage of the 60 s up to a second, from what was proven in each."""
    proven = sum(units for each, units in of if second - WINDOW_SECS < each <= second)
    return percent(proven, estimate)


def utilization_pct(txn: Txn) -> int:
    """Units proven in the last 60 s as percent of what the estimate makes of 60 s, half up."""
    return percent_at(throughput(txn, txn.now), txn.now, capacity.estimate(txn))


def epoch_units(txn: Txn) -> dict[str, int]:
    """Units proven in the running epoch, by provider."""
    found = txn.sums(EPOCH_UNITS)
    if not found:  # Often.
        return {}
    return {provider.decode(): units for provider, units in found.items()}


def begin_epoch(txn: Txn, proven: dict[str, int]) -> None:
    """Let the next units be those of another epoch, after what was proven in this one."""
    for provider, units in proven.items():
        txn.add(EPOCH_UNITS, provider.encode(), -units)


def document(txn: Txn) -> dict[str, Any]:
    """`compute-market stats`: backlog, utilization of the last minute, units ever proven, price."""
    return {
        "industrial_backlog": jobs.backlog_units(txn),
        "industrial_utilization": utilization_pct(txn) / 100,
        "industrial_units_total": metrics.value(txn, "industrial_units_total"),
        "industrial_price_per_unit": outcomes.last_effective_price(txn) or 0,
    }
