"""Verbs on matching: queue, stats, match.

What only one of them needs it imports itself: to list the queue takes little.
"""

from itertools import chain, islice
from typing import Any

from compute_market.jobs import jobs
from compute_market.records import Job
from compute_market.scheduler import queue as run_queue
from compute_market.store.schema import PENDING
from compute_market.store.txn import Txn
from tb_cli.frame.options import JSONL, LIMIT
from tb_cli.frame.render import Listing, emit, fields, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import flag, takes


@takes(LIMIT, JSONL)
def queue(session: Session, *, limit: int | None, jsonl: bool) -> None:
    """Those still without an offer come last. What holds a job is told as it is now."""

    def documents(txn: Txn) -> list[dict[str, Any]]:
        found = []
        job_ids = chain(run_queue.in_order(txn), run_queue.pending_in_order(txn))
        for place, job_id in enumerate(islice(job_ids, limit), 1):
            job = jobs.get(txn, job_id)
            found.append(run_queue.document(txn, job, place, _held_by(txn, job)))
        return found

    listing = Listing(
        session, ("place", "job_id", "state", "priority", "units", "held_by"), jsonl=jsonl
    )
    for document in session.view(documents):
        listing.add(document)
    listing.end()


@takes(flag("--effective", help="Only the last effective price."))
def stats(session: Session, *, effective: bool) -> None:
    """They are the outcomes of the last 100 matches, what runs and what waits."""
    from compute_market.scheduler import outcomes

    document = session.view(outcomes.statistics)
    if not effective:
        emit(session, document, fields(document))
    elif document["effective_price"] is None:
        note("missing effective_price")
    else:
        emit(session, document["effective_price"], str(document["effective_price"]))


def match(session: Session) -> None:
    """Pending jobs wait for an offer; they are tried in queue order."""
    from compute_market.jobs.waiting import match_pending

    def act(txn: Txn) -> tuple[list[str], int]:
        return match_pending(txn), txn.size(PENDING)

    matched, pending = session.update(act)
    matched = [*session.market.due.matched, *matched]  # Some were tried because it was due.
    lines = [f"matched job {job_id}" for job_id in matched]
    emit(
        session,
        {"matched": matched, "pending": pending},
        [*lines, f"{len(matched)} matched, {pending} still pending"],
    )


def _held_by(txn: Txn, job: Job) -> str | None:
    """What holds a waiting job at present."""
    if job.state != "pending":
        return run_queue.held_by(txn, job)
    from compute_market.jobs import waiting

    return waiting.present_reason(txn, job).held_by
