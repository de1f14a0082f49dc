"""The bundle of a handoff: a job and what is left of it, for whoever goes on with it."""

from typing import Any

from msgspec import Struct

from compute_market import chain
from compute_market.jobs import jobs
from compute_market.records import Lane, Priority, capability_document
from compute_market.scheduler.preemption import Takeover
from compute_market.signatures import canonical
from compute_market.store.txn import Txn

FORMAT = "tb-handoff"
VERSION = 1


class Left(Struct, frozen=True, gc=False):
    """A slice that is not proven yet. What it must come to is never told to who proves it."""

    index: int
    path: str
    bytes: int


class Handoff(Struct, frozen=True, gc=False):
    """One canonical line of JSON: the same job at the same point is the same bundle."""

    format: str
    version: int
    market_id: str  # hex
    job_id: str
    buyer: str
    workload: str
    capability: dict[str, Any]
    lane: Lane
    priority: Priority
    deadline: int  # unix seconds
    from_provider: str
    units_proven: int
    to_provider: str
    offer_id: str
    price_per_unit: int
    units: int  # of what is left
    slices: list[Left]


def bundle(txn: Txn, takeover: Takeover) -> bytes:
    """The bundle that tells of a takeover."""
    job, offer = takeover.job, takeover.offer
    left = [
        Left(index, entry.path, entry.length)
        for index, entry in enumerate(jobs.slices(txn, job.job_id))
        if entry.proven_ms is None
    ]
    handoff = Handoff(
        FORMAT,
        VERSION,
        chain.market_id(txn).hex(),
        job.job_id,
        job.buyer,
        job.workload,
        capability_document(job.capability),
        job.lane,
        job.priority,
        job.deadline,
        job.placed.provider,
        job.units_proven,
        offer.provider,
        offer.offer_id,
        offer.price_per_unit,
        takeover.units,
        left,
    )
    return canonical.line(handoff)
