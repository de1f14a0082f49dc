"""Verbs on matching: queue, explain, stats, match.

What only one of them needs it imports itself: to list the queue takes little.
"""

import os
from itertools import chain, islice
from typing import Any

from compute_market.errors import NotFoundError, UsageError
from compute_market.jobs import jobs
from compute_market.records import Job, check_id
from compute_market.scheduler import queue as run_queue
from compute_market.store.schema import PENDING
from compute_market.store.txn import Txn
from compute_market.text import clipped, quoted
from tb_cli.frame.options import JSONL, LIMIT, check_given
from tb_cli.frame.render import Listing, emit, fields, note, shown
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, flag, option, takes


@takes(LIMIT, JSONL)
def queue(session: Session, *, limit: int | None, jsonl: bool) -> None:
    """Those still without an offer come last."""

    def documents(txn: Txn) -> list[dict[str, Any]]:
        found = []
        waiting = chain(run_queue.in_order(txn), jobs.pending_ids(txn))
        for place, job_id in enumerate(islice(waiting, limit), 1):
            job = jobs.get(txn, job_id)
            held = "no offer" if job.state == "pending" else run_queue.held_by(txn, job)
            found.append(run_queue.document(txn, job, place, held))
        return found

    listing = Listing(
        session, ("place", "job_id", "state", "priority", "units", "held_by"), jsonl=jsonl
    )
    for document in session.view(documents):
        listing.add(document)
    listing.end()


@takes(
    argument("target", "JOB|FILE", "A job id, or a job file.", complete="job"),
    option("--offer", "Only this offer.", complete="offer"),
)
def explain(session: Session, target: str, *, offer: str | None) -> None:
    """Names for every offer each condition that it fails. The job may be one of the market or a job
    file. These are the matcher's own verdicts.
    """
    from compute_market import events
    from compute_market.scheduler.explain import explain as verdicts_on

    check_given("--offer", offer)
    draft = _draft_from_file(target)

    def document(txn: Txn) -> dict[str, Any]:
        job = jobs.find(txn, target) if draft is None else draft
        if job is None:
            raise _never_stored(txn, target)
        verdicts = list(verdicts_on(txn, job, offer_id=offer))
        totals: dict[str, int] = {}
        for verdict in verdicts:
            totals[verdict["result"]] = totals.get(verdict["result"], 0) + 1
        return {
            "job_id": job.job_id,
            "state": job.state,
            "decision": events.decision_document(txn, job.job_id),
            "totals": totals,
            "offers": verdicts,
        }

    found = session.view(document)
    lines = [
        f"{verdict['offer_id']}: "
        + ("fits" if verdict["fits"] else "; ".join(s["text"] for s in verdict["shortfalls"]))
        for verdict in found["offers"]
    ]
    if found["decision"] is not None:
        lines.append(f"decision: {shown(found['decision'])}")
    emit(session, found, [*lines, f"totals: {shown(found['totals'])}"])


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
    from compute_market.jobs.submit import match_pending

    def act(txn: Txn) -> tuple[list[str], int]:
        return match_pending(txn), txn.size(PENDING)

    matched, pending = session.update(act)
    lines = [f"matched job {job_id}" for job_id in matched]
    emit(
        session,
        {"matched": matched, "pending": pending},
        [*lines, f"{len(matched)} matched, {pending} still pending"],
    )


def _draft_from_file(target: str) -> Job | None:
    """The job a file describes, or None when the text is no file."""
    from tb_cli.frame import job_files

    if not os.path.isfile(target):
        try:
            check_id(target, "the job id")
        except UsageError as error:
            message = f"{clipped(quoted(target))} is no file, and {clipped(error.message)}"
            raise UsageError(message, hint=error.hint) from error
        return None
    return job_files.draft_of(target)


def _never_stored(txn: Txn, job_id: str) -> NotFoundError:
    from compute_market import events

    last = events.decision_document(txn, job_id)
    if last is None:
        return NotFoundError(f"job {job_id} does not exist, and there is no such file")
    return NotFoundError(
        f"job {job_id} does not exist: it was {last['verdict']}, {last.get('reason')}: "
        f"{last.get('message', '')}",
        hint="explain takes a job file as well",
    )
