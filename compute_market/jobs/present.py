"""The jobs that live now as documents: those that run, those that wait and why, and who has left.

Bounded: each listing looks at no more than it is asked for. One that is damaged is a row with its
id and `damaged`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

from compute_market import events
from compute_market.events import Selection
from compute_market.jobs import jobs, waiting
from compute_market.records import Job
from compute_market.scheduler import queue
from compute_market.store import sparing
from compute_market.store.schema import ACTIVE, DEADLINES, JOBS
from compute_market.store.txn import Txn

# Events of the log that are looked at for jobs that have ended, and deadlines for those that run.
LOOKED_AT: Final = 1_000
_ENDS: Final = Selection(names=("job_completed", "job_cancelled", "job_failed"))


def running(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """At most `limit` jobs that run: by deadline, of the next `LOOKED_AT`, then others by id."""
    next_ends = islice(sparing.keys(txn, DEADLINES), LOOKED_AT)
    running_ids = (key[8:].decode() for key in next_ends if txn.stored(ACTIVE, key[8:]))
    found = dict.fromkeys(islice(running_ids, limit))
    if len(found) < limit:
        found |= dict.fromkeys(queue.active_ids(txn, limit))
    return _rows(txn, islice(found, limit))


def queued(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The first `limit` jobs that wait for a slot, in the order in which they would start.

    `held_by` is what keeps a job waiting beside those ahead of it, null for nothing.
    """

    def held(job: Job) -> dict[str, Any]:
        waited_ms = max(0, txn.now_ms - job.queued_ms)
        return {"held_by": queue.held_by(txn, job), "waited_ms": waited_ms}

    found = _rows(txn, islice(queue.in_order(txn), limit), held)
    return [{"place": place} | each for place, each in enumerate(found, 1)]


def unplaced(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The first `limit` jobs that wait for an offer, in queue order, with the reason of each."""
    return _rows(txn, islice(queue.pending_in_order(txn), limit), lambda job: reason(txn, job))


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
        job_id = logged.event.job_id or ""
        if txn.stored(JOBS, job_id.encode()):
            found += [{"ended_ms": logged.at_ms} | each for each in _rows(txn, [job_id])]
    return found


def _rows(
    txn: Txn, job_ids: Iterable[str], more: Callable[[Job], dict[str, Any]] = lambda job: {}
) -> list[dict[str, Any]]:
    """Jobs by their ids, each with more that is known of it."""

    def of(job_id: str) -> dict[str, Any]:
        job = jobs.named(txn, job_id.encode())
        return _document(txn, job) | more(job)

    return [sparing.row({"job_id": each}, partial(of, each)) for each in job_ids]


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
