"""The pools of both lanes as `mempool stats` shows them: the industrial one is the queue."""

from typing import Any

from compute_market.admission import comfort, mempool
from compute_market.jobs import jobs, lanes
from compute_market.scheduler import queue
from compute_market.store.schema import unpack_u64
from compute_market.store.txn import Txn


def document(txn: Txn) -> dict[str, Any]:
    """The guard, the fees it goes by, and size and ages of each pool."""
    found = comfort.document(txn)
    pools = {"consumer": found.pop("consumer"), "industrial": _industrial(txn)}
    return found | {"lanes": pools}


def _industrial(txn: Txn) -> dict[str, int]:
    """The queued jobs of the industrial lane. Their ages are sorted for this alone."""
    mixed = lanes.queued_in(txn, "consumer") > 0
    arrivals = sorted(
        unpack_u64(value[:8])
        for table in queue.TABLES.values()
        for _, value in txn.scan(table)
        if not mixed or jobs.named(txn, value[8:]).lane == "industrial"
    )
    ages = (mempool.age_ms(txn, mempool.at_percentile(arrivals, pct)) for pct in (50, 95))
    return {"size": len(arrivals), **dict(zip(("age_p50_ms", "age_p95_ms"), ages, strict=True))}
