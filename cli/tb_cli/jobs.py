"""Verbs on jobs: cancel, status, list, requirements, wait, sla sweep."""

import sys
import time
from functools import partial
from itertools import chain, islice
from typing import Any, Literal

from compute_market.errors import (
    AlreadyDoneError,
    MarketError,
    NotFoundError,
    PendingError,
    RefusedError,
)
from compute_market.jobs import jobs, lifecycle
from compute_market.offers import offers
from compute_market.records import JOB_STATES, LIVE_STATES, Job, check_id
from compute_market.store.store import Txn
from tb_cli.frame import bulk
from tb_cli.frame.options import (
    ATOMIC,
    CHUNK,
    JOB_ID,
    JOB_IDS,
    JSONL,
    LIMIT,
    PRIORITY,
    check_choices,
)
from tb_cli.frame.render import Listing, emit, fields, write_json, write_line
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import flag, option, takes

_SWEEP_CHUNK = 1000
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


@takes(
    JOB_IDS,
    option(
        "--by",
        "Who cancels: client or provider.",
        choices=("client", "provider"),
        default="client",
    ),
    CHUNK,
    ATOMIC,
    flag("--ignore-not-found", help="Unknown ids are no failure."),
    option("--failed-to", "Write the ids that failed to this file.", metavar="FILE"),
    JSONL,
)
def cancel(
    session: Session,
    job_ids: list[str],
    *,
    by: Literal["client", "provider"],
    chunk: int,
    atomic: bool,
    ignore_not_found: bool,
    failed_to: str | None,
    jsonl: bool,
) -> int:
    """Cancelling one again changes nothing.

    Refunds what was escrowed and not earned, and releases both bonds. For many ids, `-` reads them
    from stdin in one process: `tb-cli compute list --state queued --jsonl | jq -r .job_id |
    tb-cli compute cancel -`.
    """

    def act(txn: Txn, job_id: str) -> bulk.Outcome:
        try:
            cancelled = lifecycle.cancel(txn, session.config, job_id, by)
        except (NotFoundError, RefusedError) as error:
            document = {"job_id": job_id, "outcome": error.token, "changed": False}
            unknown = isinstance(error, NotFoundError)
            text = "job not found" if unknown else error.message
            return bulk.Outcome(job_id, text, document, error, is_named=False)
        changed = cancelled.outcome == "cancelled"
        document = {"job_id": job_id, "outcome": cancelled.outcome, "changed": changed}
        if session.json and not jsonl:
            document = jobs.document(txn, cancelled.job) | document
        done: MarketError | None = None
        if cancelled.outcome == "already_done":
            done = AlreadyDoneError(cancelled.text, hint=f"see `tb-cli compute status {job_id}`")
        return bulk.Outcome(job_id, cancelled.text, document, done, is_named=changed)

    return bulk.run(
        session,
        bulk.read_ids(job_ids, "job id"),
        act,
        chunk=chunk,
        atomic=atomic,
        jsonl=jsonl,
        ignore_not_found=ignore_not_found,
        failed_to=failed_to,
    )


@takes(JOB_ID)
def status(session: Session, job_id: str) -> None:
    check_id(job_id, "job id")
    document = session.view(lambda txn: jobs.document(txn, jobs.get(txn, job_id)))
    emit(session, document, fields(document))


@takes(
    option("--state", "Only jobs in this state; repeatable.", many=True),
    option("--buyer", "Only jobs of this buyer."),
    option("--provider", "Only jobs of this provider."),
    PRIORITY,
    LIMIT,
    JSONL,
)
def list_(
    session: Session,
    *,
    state: list[str],
    buyer: str | None,
    provider: str | None,
    priority: str | None,
    limit: int | None,
    jsonl: bool,
) -> None:
    """Reads in short transactions, so memory stays flat with any number."""
    asked: dict[str, Any] = {"buyer": buyer, "provider": provider, "priority": priority}
    given = {name: value for name, value in asked.items() if value is not None}
    check_choices("--state", state, JOB_STATES)

    def wanted(job: Job) -> bool:
        return (not state or job.state in state) and all(
            getattr(job, name) == value for name, value in given.items()
        )

    def page(txn: Txn, after: bytes, size: int) -> tuple[list[dict[str, Any]], bytes | None]:
        found, last = jobs.page(txn, after, size, wanted)
        return [jobs.document(txn, job) for job in found], last

    listing = Listing(session, _LIST_COLUMNS, jsonl=jsonl)
    for document in islice(chain.from_iterable(session.pages(page, b"")), limit):
        listing.add(document)
    listing.end()


@takes(JOB_ID)
def requirements(session: Session, job_id: str) -> None:
    """It is {} for a job that is unknown or has ended."""
    check_id(job_id, "job id")
    job = session.view(lambda txn: jobs.find(txn, job_id))
    live = job is not None and job.state in LIVE_STATES
    write_json(offers.capability_document(job.capability) if job is not None and live else {})


@takes(
    JOB_IDS,
    option("--timeout", "Give up after this many seconds.", kind="number", least=0),
)
def wait(session: Session, job_ids: list[str], *, timeout: float | None) -> None:
    """Ends at once if they have. A time-out ends with code 10."""
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


def sweep(session: Session) -> None:
    """A job is overdue once its deadline has passed."""
    # What a dry run rolls back it would find again, so it does all at once.
    limit = session.view(lambda txn: txn.size("deadlines")) if session.dry_run else _SWEEP_CHUNK
    failed: list[str] = []
    while True:
        session.update(lambda txn: None, sweep_limit=limit)
        failed += session.swept
        if not session.swept or session.dry_run:
            break
    lines = [f"failed job {job_id}" for job_id in failed]
    emit(session, {"failed": failed}, [*lines, f"{len(failed)} jobs failed"])


def _jobs(txn: Txn, job_ids: list[str]) -> list[Job]:
    return [jobs.get(txn, job_id) for job_id in job_ids]
