"""The jobs that live now as documents: those that run, those that wait and why, and who has left.

Bounded: each listing looks at no more than it is asked for.
"""

from itertools import islice
from typing import Any, Final

from compute_market import events
from compute_market.events import Selection
from compute_market.jobs import jobs, waiting
from compute_market.records import Job
from compute_market.scheduler import queue
from compute_market.store.txn import Txn

# Events of the log that are looked at for jobs that have ended.
LOOKED_AT: Final = 1_000
_ENDS: Final = Selection(names=("job_completed", "job_cancelled", "job_failed"))


def running(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The first `limit` jobs that run, by id."""
    found = [jobs.named(txn, job_id.encode()) for job_id in queue.active_ids(txn, limit)]
    return [_document(txn, job) for job in found]


def queued(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The first `limit` jobs that wait for a slot, in the order in which they would start.

    `held_by` is what keeps a job waiting beside those ahead of it, null for nothing.
    """
    found = []
    for place, job_id in enumerate(islice(queue.in_order(txn), limit), 1):
        job = jobs.named(txn, job_id.encode())
        held = {"place": place, "held_by": queue.held_by(txn, job)}
        found.append(_document(txn, job) | held | {"waited_ms": max(0, txn.now_ms - job.queued_ms)})
    return found


def unplaced(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The first `limit` jobs that wait for an offer, in queue order, with the reason of each."""
    found = []
    for job_id in islice(queue.pending_in_order(txn), limit):
        job = jobs.named(txn, job_id.encode())
        found.append(_document(txn, job) | reason(txn, job))
    return found


def reason(txn: Txn, job: Job) -> dict[str, Any]:
    """Why a job waits, and since when; empty for one that does not."""
    if job.state == "queued":
        held = queue.held_by(txn, job)
        return {"held_by": held or "those ahead of it", "waited_ms": txn.now_ms - job.queued_ms}
    if job.state != "pending":
        return {}
    found = waiting.present_reason(txn, job)
    return {
        "held_by": found.held_by or "the next change",
        "message": found.message,
        "waited_ms": max(0, txn.now_ms - job.submitted_at * 1000),
    }


def ended(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The last `limit` jobs that ended, newest first, as far back as `LOOKED_AT` events go."""
    found = []
    for logged in events.recent(txn, _ENDS, limit, LOOKED_AT):
        job = jobs.find(txn, logged.event.job_id or "")
        if job is not None:
            found.append(_document(txn, job) | {"ended_ms": logged.at_ms})
    return found


def _document(txn: Txn, job: Job) -> dict[str, Any]:
    on = job.placement
    return {
        "job_id": job.job_id,
        "state": job.state,
        "priority": job.priority,
        "lane": job.lane,
        "buyer": job.buyer,
        "provider": None if on is None else on.provider,
        "units": job.units,
        "units_proven": job.units_proven,
        "deadline": job.deadline,
        "overdue": jobs.is_overdue(txn, job),
        "cause": job.cause,
    }
