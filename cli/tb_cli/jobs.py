"""Verbs on jobs: cancel, status, list, queue, requirements, explain, stats, wait."""

import os
import sys
import time
from functools import partial
from itertools import chain, islice
from typing import Annotated, Any, Literal

import typer

from compute_market.admission import decisions
from compute_market.errors import (
    NotFoundError,
    PendingError,
)
from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.records import JOB_STATES, LIVE_STATES, Job, check_id
from compute_market.scheduler import matching as scheduler
from compute_market.scheduler import queue as run_queue
from compute_market.settlement import settlement
from compute_market.store.store import Txn
from tb_cli.frame import bulk, files, options
from tb_cli.frame import plain as hot
from tb_cli.frame.render import Listing, emit, fields, note, shown, write_json, write_line
from tb_cli.frame.session import Session

_PAGE = 1000
_LIST_COLUMNS = (
    "job_id",
    "state",
    "priority",
    "buyer",
    "provider",
    "units",
    "units_proven",
    "price_per_unit",
    "deadline",
)
_WAIT_POLL_S = 0.2


def cancel(
    ctx: typer.Context,
    job_ids: options.JobIds,
    by: Annotated[
        Literal["client", "provider"], typer.Option(help="Who cancels: client or provider.")
    ] = "client",
    chunk: options.Chunk = 1000,
    atomic: options.Atomic = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="Unknown ids are no failure.")
    ] = False,
    failed_to: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the ids that failed to this file.")
    ] = None,
    jsonl: options.Jsonl = False,
) -> int:
    """Cancel jobs that have not ended. Cancelling one again changes nothing.

    Refunds what was escrowed and not earned, and releases both bonds. For many ids, `-` reads them
    from stdin in one process: `tb-cli compute list --state queued --jsonl | jq -r .job_id |
    tb-cli compute cancel -`.
    """
    return hot.cancel(
        Session.of(ctx),
        job_ids,
        by=by,
        chunk=chunk,
        atomic=atomic,
        ignore_not_found=ignore_not_found,
        failed_to=failed_to,
        jsonl=jsonl,
    )


def status(ctx: typer.Context, job_id: options.JobId) -> int:
    """Show one job: state, progress, money."""
    return hot.status(Session.of(ctx), job_id)


def list_(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state; repeatable.")
    ] = None,
    buyer: Annotated[str | None, typer.Option(help="Only jobs of this buyer.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only jobs of this provider.")] = None,
    priority: options.PriorityName = None,
    limit: options.Limit = None,
    jsonl: options.Jsonl = False,
) -> None:
    """List jobs by id. Reads in short transactions, so memory stays flat with any number."""
    session = Session.of(ctx)
    asked: dict[str, Any] = {"buyer": buyer, "provider": provider, "priority": priority}
    given = {name: value for name, value in asked.items() if value is not None}
    options.check_choices("--state", state, JOB_STATES)

    def wanted(job: Job) -> bool:
        return (not state or job.state in state) and all(
            getattr(job, name) == value for name, value in given.items()
        )

    def page(txn: Txn, after: bytes) -> tuple[list[dict[str, Any]], bytes | None]:
        found, last = jobs.page(txn, after, _PAGE, wanted)
        return [jobs.document(txn, job) for job in found], last

    listing = Listing(session, _LIST_COLUMNS, jsonl=jsonl)
    for document in islice(chain.from_iterable(session.pages(page, b"")), limit):
        listing.add(document)
    listing.end()


def queue(ctx: typer.Context, limit: options.Limit = None, jsonl: options.Jsonl = False) -> None:
    """List waiting jobs in the order they would start, and those still without an offer."""
    session = Session.of(ctx)

    def documents(txn: Txn) -> list[dict[str, Any]]:
        held_back = run_queue.low_held_back(txn, session.config)
        full = run_queue.active_jobs(txn) >= session.config.slots
        found = []
        waiting = [*run_queue.in_order(txn, session.config), *jobs.pending_ids(txn)]
        for place, job_id in enumerate(waiting[:limit], 1):
            job = jobs.get(txn, job_id)
            held = "slots" if full else "cap" if held_back and job.priority == "low" else None
            found.append(
                {
                    "place": place,
                    "job_id": job.job_id,
                    "state": job.state,
                    "priority": job.priority,
                    "units": job.units,
                    "held_by": "no offer" if job.state == "pending" else held,
                }
            )
        return found

    listing = Listing(
        session, ("place", "job_id", "state", "priority", "units", "held_by"), jsonl=jsonl
    )
    for document in session.view(documents):
        listing.add(document)
    listing.end()


def requirements(ctx: typer.Context, job_id: options.JobId) -> None:
    """Print the capability a live job asks for, {} for a job that is unknown or has ended."""
    check_id(job_id, "job id")
    job = Session.of(ctx).view(lambda txn: jobs.find(txn, job_id))
    live = job is not None and job.state in LIVE_STATES
    write_json(offers.capability_document(job.capability) if job is not None and live else {})


def explain(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="JOB|FILE", help="A job id, or a job file.", autocompletion=options.complete_job
        ),
    ],
    offer: Annotated[
        str | None,
        typer.Option(help="Only this offer.", autocompletion=options.complete_offer),
    ] = None,
) -> None:
    """Say for every offer whether it fits a job and, if not, each condition it fails.

    The job may be one of the market or a job file. These are the matcher's own verdicts.
    """
    session = Session.of(ctx)
    draft = _draft_from_file(target)

    def document(txn: Txn) -> dict[str, Any]:
        job = jobs.find(txn, target) if draft is None else draft
        if job is None:
            raise _never_stored(txn, target)
        real = settlement.is_real(txn, session.config)
        verdicts = list(scheduler.explain(txn, job, real=real, offer_id=offer))
        totals: dict[str, int] = {}
        for verdict in verdicts:
            totals[verdict["result"]] = totals.get(verdict["result"], 0) + 1
        return {
            "job_id": job.job_id,
            "state": job.state,
            "decision": _decision(txn, job.job_id),
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


def stats(
    ctx: typer.Context,
    effective: Annotated[
        bool, typer.Option("--effective", help="Only the last effective price.")
    ] = False,
) -> None:
    """Print the outcomes of the last 100 matches, what runs and what waits."""
    session = Session.of(ctx)
    document = session.view(scheduler.statistics)
    if not effective:
        emit(session, document, fields(document))
    elif document["effective_price"] is None:
        note("missing effective_price")
    else:
        emit(session, document["effective_price"], str(document["effective_price"]))


def wait(
    ctx: typer.Context,
    job_ids: options.JobIds,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Give up after this many seconds.")
    ] = None,
) -> None:
    """Wait until every job has ended; at once if they have. A time-out ends with code 10."""
    session = Session.of(ctx)
    left = bulk.read_ids(job_ids, "job id")
    give_up = None if timeout is None else time.monotonic() + timeout
    ended: list[dict[str, Any]] = []
    while True:
        states = session.view(partial(_jobs, job_ids=left))
        for job in states:
            if job.state not in LIVE_STATES:
                ended.append({"job_id": job.job_id, "state": job.state, "cause": job.cause})
                if not session.json:
                    write_line(f"job {job.job_id} {job.state}")
                    sys.stdout.flush()
        left = [job.job_id for job in states if job.state in LIVE_STATES]
        if not left:
            break
        if give_up is not None and time.monotonic() >= give_up:
            raise PendingError(f"not ended yet: {' '.join(left[:5])}", waiting=len(left))
        time.sleep(_WAIT_POLL_S)
    if session.json:
        write_json(ended)


def _jobs(txn: Txn, job_ids: list[str]) -> list[Job]:
    return [jobs.get(txn, job_id) for job_id in job_ids]


def _draft_from_file(target: str) -> Job | None:
    """The job a file describes, or None when the text is no file."""
    if not os.path.isfile(target):
        files.check_text(target, "the job id")
        return None
    from tb_cli.submit import draft_of

    return draft_of(target)


def _decision(txn: Txn, job_id: str) -> dict[str, Any] | None:
    """What admission last said about a job, as far back as its log goes."""
    last = decisions.last(txn, job_id)
    if last is None:
        return None
    return {
        "verdict": last.verdict,
        "reason": last.reason,
        "detail": last.detail,
        "at": last.at_ms // 1000,
        "units": last.units,
        "mode": last.mode,
    }


def _never_stored(txn: Txn, job_id: str) -> NotFoundError:
    last = decisions.last(txn, job_id)
    if last is None:
        return NotFoundError(f"job {job_id} does not exist, and there is no such file")
    return NotFoundError(
        f"job {job_id} does not exist: it was {last.verdict}, {last.reason}: {last.detail}",
        hint="explain takes a job file as well",
    )
