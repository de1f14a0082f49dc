"""The JSON forms of a job and of its slices."""

from typing import Any

from compute_market.amounts import units_of
from compute_market.jobs import jobs
from compute_market.records import LIVE_STATES, Actor, Job, Slice, capability_document
from compute_market.settlement import escrow
from compute_market.store.schema import JOBS
from compute_market.store.txn import Txn


def job_document(txn: Txn, job: Job) -> dict[str, Any]:
    """The JSON form of a job. `escrow` is what is still held for it; what it asks is null until
    an offer is found; `ended_by` is null for one that was done to its end; `overdue` marks one that
    the next change of the market will fail."""
    on = job.placement
    return {
        "job_id": job.job_id,
        "state": job.state,
        "buyer": job.buyer,
        "provider": None if on is None else on.provider,
        "offer_id": None if on is None else on.offer_id,
        "workload": job.workload,
        "priority": job.priority,
        "lane": job.lane,
        "units": job.units,
        "units_proven": job.units_proven,
        "slices": job.slices,
        "slices_proven": job.slices_proven,
        "price_per_unit": None if on is None else on.price_per_unit,
        "max_price_per_unit": job.max_price_per_unit,
        "fee_pct_ct": None if on is None else on.fee_pct_ct,
        "consumer_bond": job.consumer_bond,
        "provider_bond": None if on is None else on.provider_bond,
        "deadline": job.deadline,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "funded": job.funded,
        "cause": job.cause,
        "escrow": escrow.escrow_document(txn, job.job_id),
        "paid": {"ct": job.paid_ct, "it": job.paid_it},
        "refunded": {"ct": job.refunded_ct, "it": job.refunded_it},
        "ended_by": ended_early_by(job),
        "capability": capability_document(job.capability),
        "overdue": jobs.is_overdue(txn, job),
        "provider_bond_min": job.provider_bond_min,
        "unreadable_slice": job.unreadable_slice,
        "held": job.held,
    }


def ended_early_by(job: Job) -> Actor | None:
    """Who ended a job before it was done; nobody, one that was or that goes on."""
    return None if job.state == "completed" else job.ended_by


def job_page(
    txn: Txn, after: bytes | None, limit: int
) -> tuple[list[dict[str, Any]], bytes | None]:
    """At most `limit` jobs by id from behind the key `after` on; see `Txn.page`."""
    found, last = txn.page(JOBS, after, limit)
    return [job_document(txn, job) for _, job in found], last


def requirements(txn: Txn, job_id: str) -> dict[str, Any]:
    """What a live job asks of an offer; nothing for one that is unknown or has ended."""
    job = jobs.find(txn, job_id)
    return capability_document(job.capability) if job and job.state in LIVE_STATES else {}


def slice_document(index: int, entry: Slice, *, reference: bool = False) -> dict[str, Any]:
    """The JSON form of a slice. Its digest is told once it is proven.

    Before that it is what proves the work: only the buyer's own view, with `reference`, tells it.
    """
    found: dict[str, Any] = {
        "index": index,
        "path": entry.path,
        "bytes": entry.length,
        "units": units_of(entry.length),
        "proven_at": None if entry.proven_ms is None else entry.proven_ms // 1000,
    }
    if entry.proven_ms is not None:
        found["digest"] = entry.reference.hex()
    if reference:
        found["reference"] = entry.reference.hex()
    return found
