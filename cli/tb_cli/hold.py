"""Verbs that change live jobs: hold, release, set."""

from collections.abc import Mapping
from typing import Any

from compute_market.errors import UsageError
from compute_market.jobs import documents, holding
from compute_market.records import DEADLINE_MAX, WAITING_STATES, Job, Priority
from compute_market.store.txn import Txn
from tb_cli.frame import bulk, selected
from tb_cli.frame.ids import Ids
from tb_cli.frame.options import (
    ATOMIC,
    CHUNK,
    FAILED_TO,
    JOB_IDS,
    JOB_IDS_OR_NONE,
    JSONL,
    PRIORITY,
    job_selection,
)
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import NOT_GIVEN, examples, option, takes

_BULK = (CHUNK, ATOMIC, FAILED_TO, JSONL)


@examples("tb-cli compute hold j-1 j-2", "tb-cli compute hold --buyer acme --priority low -n")
@takes(JOB_IDS_OR_NONE, _BULK, rarely=job_selection)
def hold(
    session: Session,
    job_ids: list[str],
    *,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
    filters: Mapping[str, Any] = NOT_GIVEN,
    selecting: Mapping[str, Any] = NOT_GIVEN,
) -> int:
    """A job that is held keeps its place and is not started before `compute release`. Its deadline
    goes on. One that runs cannot be held. Of a selection those that wait are held, in one
    transaction.
    """

    def act(txn: Txn, job_id: str) -> bulk.Outcome:
        job, changed = holding.hold(txn, job_id)
        text = f"held job {job_id}: {job.state}"
        return _outcome(txn, job, text if changed else f"job {job_id} already held", changed)

    how: dict[str, Any] = {"chunk": chunk, "atomic": atomic, "failed_to": failed_to, "jsonl": jsonl}
    if selected.is_meant(job_ids, filters, selecting):
        from tb_cli.frame.listing.selections import asked_jobs, selected_jobs

        found = selected_jobs(asked_jobs(filters, WAITING_STATES, held=False))
        return selected.run(session, found, act, doing="hold", selecting=selecting, **how)
    return _run(session, job_ids, act, how)


@examples("tb-cli compute release j-1 j-2", "tb-cli compute release --all --yes")
@takes(JOB_IDS_OR_NONE, _BULK, rarely=job_selection)
def release(
    session: Session,
    job_ids: list[str],
    *,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
    filters: Mapping[str, Any] = NOT_GIVEN,
    selecting: Mapping[str, Any] = NOT_GIVEN,
) -> int:
    """It waits again in the place that it had, and starts if it is its turn. Of a selection those
    that are held are released, in one transaction.
    """

    def act(txn: Txn, job_id: str) -> bulk.Outcome:
        job, changed = holding.release(txn, job_id)
        text = f"released job {job_id}: {job.state}"
        return _outcome(txn, job, text if changed else f"job {job_id} is not held", changed)

    how: dict[str, Any] = {"chunk": chunk, "atomic": atomic, "failed_to": failed_to, "jsonl": jsonl}
    if selected.is_meant(job_ids, filters, selecting):
        from tb_cli.frame.listing.selections import asked_jobs, selected_jobs

        found = selected_jobs(asked_jobs(filters, WAITING_STATES, held=True))
        return selected.run(session, found, act, doing="release", selecting=selecting, **how)
    return _run(session, job_ids, act, how)


@examples(
    "tb-cli compute set j-1 --priority high",
    "tb-cli compute set j-1 j-2 --deadline-secs 2h -n",
)
@takes(
    JOB_IDS,
    option(
        "--deadline",
        "A later deadline: 03:00 (today), a date and time, or unix seconds.",
        metavar="WHEN",
    ),
    option(
        "--deadline-secs",
        "A later deadline, so long from now.",
        kind="integer",
        unit="seconds",
        least=0,
        most=DEADLINE_MAX,
    ),
    PRIORITY,
    _BULK,
)
def set_(
    session: Session,
    job_ids: list[str],
    *,
    deadline: str | None,
    deadline_secs: int | None,
    priority: Priority | None,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
) -> int:
    """A deadline only moves later. Among those of its new priority a job stands by its age. With
    --dry-run it says what would become other.
    """
    if deadline is None and deadline_secs is None and priority is None:
        raise UsageError(
            "nothing is to be changed", hint="give --priority, --deadline or --deadline-secs"
        )

    second: int | None = None
    if deadline is not None:
        from tb_cli.frame.terms import deadline_of  # Few deadlines are moved to a time.

        second = deadline_of(deadline, is_other_given=deadline_secs is not None)

    def act(txn: Txn, job_id: str) -> bulk.Outcome:
        before, job = holding.change(
            txn, job_id, priority=priority, deadline=second, deadline_secs=deadline_secs
        )
        told = ", ".join(
            f"{name} {was} -> {now}"
            for name, was, now in (
                ("deadline", before.deadline, job.deadline),
                ("priority", before.priority, job.priority),
                ("state", before.state, job.state),
            )
            if was != now
        )
        text = f"changed job {job_id}: {told}" if told else f"job {job_id} unchanged: {job.state}"
        return _outcome(txn, job, text, bool(told))

    how: dict[str, Any] = {"chunk": chunk, "atomic": atomic, "failed_to": failed_to, "jsonl": jsonl}
    return _run(session, job_ids, act, how)


def _outcome(txn: Txn, job: Job, text: str, changed: bool) -> bulk.Outcome:
    document = documents.job_document(txn, job) | {"changed": changed}
    return bulk.Outcome(job.job_id, text, document)


def _run(session: Session, job_ids: list[str], act: Any, how: dict[str, Any]) -> int:
    ids = Ids(job_ids, "job id", keep=how["failed_to"] is not None)
    return bulk.run(session, ids, act, source=ids, **how)
