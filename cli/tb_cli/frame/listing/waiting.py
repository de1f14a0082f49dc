"""Jobs that wait, in the order in which they would start."""

from itertools import chain
from typing import Any

from compute_market.jobs import jobs
from compute_market.records import PRIORITIES, Job
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


def _page(txn: Txn, after: None, size: int) -> tuple[list[dict[str, Any]], None]:
    """All of them: the queue moves, and one that waits must neither be missed nor come twice."""
    found = []
    for place, job_id in enumerate(chain(queue.in_order(txn), queue.pending_in_order(txn)), 1):
        job = jobs.get(txn, job_id)
        found.append(queue.document(txn, job, place, _held_by(txn, job)))
    return found, None


WAITING = Noun(
    "waiting jobs",
    "job_id",
    (
        Column("place", "#", "number"),
        Column("job_id", "JOB"),
        Column("state", kind="state", order=("queued", "pending")),
        Column("priority", "PRIO", order=PRIORITIES),
        Column("units", kind="number"),
        Column("held_by"),
    ),
    shown=("place", "job_id", "state", "priority", "units", "held_by"),
    ranked=True,
)
READING = Reading(_page)
