"""Deadlines: what becomes of jobs that missed them."""

from msgspec import Struct

from compute_market import clock, metrics
from compute_market.clock import Kept
from compute_market.jobs import jobs
from compute_market.jobs.work import work
from compute_market.offers.standing import record_outcome
from compute_market.records import Cause, Job
from compute_market.store.schema import DEADLINES, unpack_u64
from compute_market.store.txn import Txn


class Expired(Struct, frozen=True, gc=False):
    """Jobs that were failed, oldest deadline first, and what it cost."""

    job_ids: list[str]
    burned_ct: int  # of their providers' bonds
    away: int  # how many of them failed because the market was away


_NOTHING = Expired([], 0, 0)


def expire(txn: Txn, limit: int) -> Expired:
    """Fail at most `limit` jobs whose deadline has passed, the oldest deadline first.

    Only a provider that was running the job is at fault, and only while the market was there to
    take its proofs: it loses a point and its whole bond.
    """
    expired = _overdue_ids(txn, limit)
    if not expired:
        return _NOTHING
    kept = clock.stored(txn)
    burned_ct = away = 0
    for job_id in expired:
        job = jobs.named(txn, job_id.encode())
        cause = cause_of(job, kept)
        burned_ct += _fail(txn, job, cause)
        away += cause == "outage"
    work(txn)
    return Expired(expired, burned_ct, away)


def next_deadline(txn: Txn) -> int | None:
    """The nearest deadline of a live job; None without one. Looking at more of them takes longer
    than all else that is due."""
    first = txn.first_key(DEADLINES)
    return None if first is None else unpack_u64(first[:8])


def cause_of(job: Job, kept: Kept) -> Cause:
    """Why a job ends whose deadline has passed."""
    if kept.was_away(job.deadline):
        return "outage"
    if job.state != "active":
        return "never_started"
    return "deadline_missed" if job.unreadable_slice is None else "slice_unreadable"


def _overdue_ids(txn: Txn, limit: int) -> list[str]:
    deadline = next_deadline(txn)
    if deadline is None or deadline >= txn.now:
        return []  # Most often.
    return [
        key[8:].decode()
        for key, _ in txn.collect(DEADLINES, limit)
        if unpack_u64(key[:8]) < txn.now
    ]


def _fail(txn: Txn, job: Job, cause: Cause) -> int:
    """Fail an overdue job; what was burned of its provider's bond."""
    if cause != "deadline_missed":
        jobs.close(txn, job, "failed", "deadline", cause)
        return 0
    burn_ct = job.placed.provider_bond if job.funded else 0
    jobs.close(
        txn,
        job,
        "failed",
        "deadline",
        cause,
        burn_ct=burn_ct,
        burn_event="sla:slash",
    )
    record_outcome(txn, job.placed.provider, -1)
    metrics.count(txn, "industrial_rejected_total", "SLA")
    return burn_ct
