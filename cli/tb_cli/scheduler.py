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


@takes(
    argument("target", "JOB|FILE", "A job id, or a job file.", complete="job"),
    option("--offer", "Only this offer.", complete="offer"),
)
def explain(session: Session, target: str, *, offer: str | None) -> None:
    """Names for every offer each condition that it fails. The job may be one of the market or a job
    file. These are the matcher's own verdicts.
    """
    from compute_market.scheduler.explain import explain as verdicts_on

    check_given("--offer", offer)
    draft = _draft_from_file(target, session.config.slice_root)

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
            "decision": _decision(txn, job),
            "held": None if draft is None else _held_back(txn, draft),
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
    if found["held"] is not None:
        lines.append(f"held: {shown(found['held'])}")
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


def _held_back(txn: Txn, draft: Job) -> dict[str, str] | None:
    """Why the comfort guard would not let a job in now, whatever offers say of it."""
    from compute_market.admission import admission

    refused = admission.gate(txn, draft)
    if refused is None:
        return None
    return {"by": f"admission: {refused.reason}", "message": refused.message}


def _decision(txn: Txn, job: Job) -> dict[str, Any] | None:
    """The last word about a job; why one that waits for an offer would not get in now."""
    from compute_market import events
    from compute_market.admission import admission
    from compute_market.jobs import waiting

    last = events.decision_document(txn, job.job_id)
    if job.state != "pending" or not job.seq:
        return last
    reason = waiting.present_reason(txn, job)
    told = {"verdict": "pending", "at": job.submitted_at, "units": job.units}
    now = {"mode": admission.mode(txn), "reason": reason.held_by, "message": reason.message}
    return (last or told) | now


def _draft_from_file(target: str, slice_root: str) -> Job | None:
    """The job a file describes, or None when the text is no file."""
    from tb_cli.frame import job_files

    if not os.path.isfile(target):
        try:
            check_id(target, "the job id")
        except UsageError as error:
            message = f"{clipped(quoted(target))} is no file, and {clipped(error.message)}"
            raise UsageError(message, hint=error.hint) from error
        return None
    return job_files.draft_of(target, slice_root)


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
