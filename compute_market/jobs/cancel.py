"""Cancelling a job, by its buyer or by the provider that holds it."""

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from compute_market import metrics
from compute_market.errors import RefusedError
from compute_market.jobs import cancellations, jobs
from compute_market.jobs.work import work
from compute_market.offers.standing import record_outcome
from compute_market.records import Job, Placement
from compute_market.store.schema import PROVIDER_CANCELS, id_prefix, pack_u64
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.archive_records import ArchivedJob

By = Literal["client", "provider"]
Outcome = Literal["cancelled", "already_cancelled", "already_done"]


class Cancelled(Struct, frozen=True, gc=False):
    """What became of a request to cancel one job, or what is left of an archived one."""

    job_id: str
    job: "Job | ArchivedJob"
    outcome: Outcome

    @property
    def text(self) -> str:
        if self.outcome == "cancelled":
            return f"cancelled job {self.job_id}"
        return f"job already {self.job.state}"

    @property
    def document(self) -> dict[str, Any]:
        """The JSON form, without the job itself."""
        changed = self.outcome == "cancelled"
        return {"job_id": self.job_id, "outcome": self.outcome, "changed": changed}


def cancel(txn: Txn, job_id: str, by: By, reason: str | None = None) -> Cancelled:
    """Cancel a live job; what cannot be cancelled any more is an outcome, not an error.

    The log keeps a `reason` that was given. Raises NotFoundError, and RefusedError when a
    provider cancels a job that has none.
    """
    job = jobs.find(txn, job_id)
    if job is None:
        return _cancel_archived(txn, job_id)
    if job.state == "cancelled":
        return Cancelled(job_id, job, "already_cancelled")
    if job.state in ("completed", "failed"):
        return Cancelled(job_id, job, "already_done")
    if job.state == "queued":
        _give_back_usage(txn, job)
    if by == "client":
        job = jobs.close(txn, job, "cancelled", by, "cancelled_by_client", reason=reason)
    else:
        job = _by_provider(txn, job, reason)
    cancellations.add(txn, job_id, by)
    metrics.count(txn, "scheduler_cancel_total", by)
    work(txn)
    return Cancelled(job_id, job, "cancelled")


def _cancel_archived(txn: Txn, job_id: str) -> Cancelled:
    """What is said of a job that ended long ago, as before it was archived."""
    from compute_market import archived  # Most jobs that are cancelled are there.

    left = archived.job(txn, job_id)
    if left is None:
        raise archived.missing(txn, job_id)
    outcome: Outcome = "already_cancelled" if left.state == "cancelled" else "already_done"
    return Cancelled(job_id, left, outcome)


def _give_back_usage(txn: Txn, job: Job) -> None:
    """A job that never ran used nothing."""
    from compute_market.admission import admission  # Most jobs that are cancelled have started.

    charged = job.units, job.burst_micro, job.queued_ms
    admission.give_back(txn, job.buyer, job.placed.provider, *charged)


def _by_provider(txn: Txn, job: Job, reason: str | None) -> Job:
    if job.placement is None:
        raise RefusedError(
            f"job {job.job_id} is pending, no provider holds it", hint="cancel it as the client"
        )
    job = jobs.close(
        txn,
        job,
        "cancelled",
        "provider",
        "cancelled_by_provider",
        burn_ct=_penalty(txn, job.job_id, job.placement),
        burn_event="cancel:slash",
        reason=reason,
    )
    record_outcome(txn, job.placed.provider, -1)
    return job


def _penalty(txn: Txn, job_id: str, placement: Placement) -> int:
    """Note a cancel by a provider; the part of its bond that is burned for it, rounded up."""
    prefix = id_prefix(placement.provider)
    window_ms = txn.config.provider_cancel_window_secs * 1000
    since = prefix + pack_u64(max(0, txn.now_ms - window_ms))
    for key, _ in txn.collect(PROVIDER_CANCELS, 64, prefix):
        if key < since:
            txn.delete(PROVIDER_CANCELS, key)
    now = prefix + pack_u64(txn.now_ms)
    # What a clock that was ahead has noted counts as now, and is held against nobody for longer.
    for key, _ in txn.collect(PROVIDER_CANCELS, 64, prefix, prefix + pack_u64(txn.now_ms + 1)):
        txn.delete(PROVIDER_CANCELS, key)
        txn.put(PROVIDER_CANCELS, now + key[len(now) :])
    txn.put(PROVIDER_CANCELS, now + job_id.encode())
    after = txn.config.provider_cancel_penalty_after
    if not placement.funded or len(txn.collect(PROVIDER_CANCELS, after, prefix, since)) < after:
        return 0
    return -(-placement.provider_bond * txn.config.provider_cancel_slash_pct // 100)
