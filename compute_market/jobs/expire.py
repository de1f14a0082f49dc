"""Deadlines: what becomes of jobs that missed them."""

from msgspec import Struct

from compute_market import metrics
from compute_market.jobs import jobs
from compute_market.jobs.work import work
from compute_market.offers.standing import record_outcome
from compute_market.records import Cause, Job
from compute_market.store.txn import Txn


class Expired(Struct, frozen=True, gc=False):
    """Jobs that were failed, oldest deadline first, and what was burned for it."""

    job_ids: list[str]
    burned_ct: int


def expire(txn: Txn, limit: int) -> Expired:
    """Fail at most `limit` jobs whose deadline has passed, the oldest deadline first.

    Only a provider that could run the job is at fault: it loses a point and its whole bond.
    """
    expired = jobs.overdue_ids(txn, limit)
    burned_ct = sum(_fail(txn, jobs.named(txn, job_id.encode())) for job_id in expired)
    if expired:
        work(txn)
    return Expired(expired, burned_ct)


def cause_of(job: Job) -> Cause:
    """Why an overdue job fails. Nobody but the provider is at fault when its deadline is missed."""
    if job.state != "active":
        return "never_started"
    return "deadline_missed" if job.unreadable_slice is None else "slice_unreadable"


def _fail(txn: Txn, job: Job) -> int:
    """Fail an overdue job; what was burned of its provider's bond."""
    cause = cause_of(job)
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
