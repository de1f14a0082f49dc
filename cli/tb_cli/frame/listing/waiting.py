"""Jobs that wait, in the order in which they would start."""

from itertools import chain, islice
from typing import Any, NamedTuple

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


class _Order(NamedTuple):
    """Who waited at the first look, in order, and how many of them have been told."""

    job_ids: list[str]
    told: int


def reading(limit: int | None) -> Reading:
    """Those that wait, at most the first `limit`, each with its place at the first look.

    The queue moves between the pages of a list: its order is taken once, so that one that waits is
    neither missed nor told twice. One that does not wait any more when its page comes is left out.
    """

    def fetch(
        txn: Txn, after: _Order | None, size: int
    ) -> tuple[list[dict[str, Any]], _Order | None]:
        if after is None:
            waiting = chain(queue.in_order(txn), queue.pending_in_order(txn))
            after = _Order(list(islice(waiting, limit)), 0)
        told = after.told + size
        found = []
        for place, job_id in enumerate(after.job_ids[after.told : told], after.told + 1):
            job = jobs.find(txn, job_id)
            if job is not None and job.state in ("queued", "pending"):
                found.append(queue.document(txn, job, place, _held_by(txn, job)))
        return found, _Order(after.job_ids, told) if told < len(after.job_ids) else None

    return Reading(fetch)
