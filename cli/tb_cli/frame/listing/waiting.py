"""Jobs that wait, in the order in which they would start."""

from itertools import chain, islice
from typing import Any, NamedTuple

from compute_market.jobs import jobs
from compute_market.jobs.selection import Selection
from compute_market.records import PRIORITIES, WAITING_STATES, Job
from compute_market.scheduler import queue
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.reading import Reading


def _held_by(txn: Txn, job: Job) -> str | None:
    """What holds a waiting job at present."""
    if job.state != "pending":
        return queue.held_by(txn, job)
    from compute_market.jobs import waiting

    return waiting.present_reason(txn, job).held_by


WAITING = Noun(
    "waiting jobs",
    "job_id",
    (
        Column("place", "#", "number"),
        Column("job_id", "JOB"),
        Column("state", kind="state", order=WAITING_STATES[::-1]),
        Column("priority", "PRIO", order=PRIORITIES),
        Column("units", kind="number"),
        Column("held_by"),
    ),
    shown=("place", "job_id", "state", "priority", "units", "held_by"),
    ranked=True,
)


class _Order(NamedTuple):
    """Who waited at the first look, in order, how many were looked at, and how many may be told."""

    job_ids: list[str]
    looked_at: int
    left: int | None


def reading(selected: Selection, limit: int | None) -> Reading:
    """Those of a selection that wait, at most the first `limit`, each with its place among all that
    waited at the first look.

    The queue moves between the pages of a list: its order is taken once, so that one that waits is
    neither missed nor told twice. One that does not wait any more when its page comes is left out.
    """
    is_of_all = selected == Selection()

    def fetch(
        txn: Txn, after: _Order | None, size: int
    ) -> tuple[list[dict[str, Any]], _Order | None]:
        if after is None:
            waiting = chain(queue.in_order(txn), queue.pending_in_order(txn))
            after = _Order(list(islice(waiting, limit if is_of_all else None)), 0, limit)
        check = selected.check(txn.now)
        end = after.looked_at + size
        page = after.job_ids[after.looked_at : end]
        found: list[dict[str, Any]] = []
        for place, job_id in enumerate(page, after.looked_at + 1):
            job = jobs.find(txn, job_id)
            if job is not None and job.state in WAITING_STATES and check(job):
                found.append(queue.document(txn, job, place, _held_by(txn, job)))
                if len(found) == after.left:
                    return found, None
        left = None if after.left is None else after.left - len(found)
        return found, _Order(after.job_ids, end, left) if end < len(after.job_ids) else None

    return Reading(fetch)
