"""Verbs on single jobs: status, requirements, wait. `job_lists` has those that list.

What only some of them need they import themselves: shell loops ask for the status of many jobs.
"""

import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from compute_market.errors import AlreadyDoneError, MarketError, PendingError
from compute_market.jobs import documents, jobs
from compute_market.records import JOB_STATES, LIVE_STATES, Cause, JobState, check_id
from compute_market.store.txn import Txn
from compute_market.text import some_of
from tb_cli.frame.options import (
    AT,
    FAILED_TO,
    JOB_ID,
    JOB_IDS,
    JOB_IDS_OR_NONE,
    are_several,
    waited_selection,
)
from tb_cli.frame.render import emit, fields, note, write_json, write_line
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import NOT_GIVEN, examples, option, takes

if TYPE_CHECKING:
    from compute_market.archive_records import ArchivedJob

_WAIT_POLL_S = 0.2
_ENDED = tuple(state for state in JOB_STATES if state not in LIVE_STATES)
# What may be waited for, and the states that are it.
_GOALS: dict[str, tuple[JobState, ...]] = {
    "completed": ("completed",),
    "ended": _ENDED,
    "active": ("active", "completed"),
}


@takes(JOB_IDS, AT)
@examples(
    "tb-cli compute status j-42",
    "tb-cli compute status j-42 j-43 --json",
    "tb-cli compute status j-42 --at '2h ago'",
)
def status(session: Session, job_ids: list[str], *, at: str | None) -> int:
    """Of several jobs each is shown; --json has a list of them then. With --at it is what the log
    tells of that time, without the money: it goes back as far as the log does, which is an error
    beyond that.
    """
    if at is None and not are_several(job_ids):
        job_id = check_id(job_ids[0], "job id")
        (document,) = session.view(lambda txn: _documents(txn, job_id))
        emit(session, document, fields(document))
        return 0
    from tb_cli.frame import several

    if at is None:
        return several.show(session, job_ids, "job id", _documents)
    from compute_market.jobs import past
    from tb_cli.frame.earlier import instant_before_now, told_from_when

    at_ms = instant_before_now(at, "--at")

    def then(txn: Txn, job_id: str) -> list[dict[str, Any]]:
        with told_from_when():
            return [past.document(txn, job_id, at_ms)]

    return several.show(session, job_ids, "job id", then)


@examples("tb-cli compute requirements j-1")
@takes(JOB_ID)
def requirements(session: Session, job_id: str) -> None:
    """It is {} for a job that is unknown or has ended."""
    check_id(job_id, "job id")
    write_json(session.view(lambda txn: documents.requirements(txn, job_id)))


@examples("tb-cli compute wait j-1 j-2", "tb-cli compute wait --buyer acme --for ended")
@takes(
    JOB_IDS_OR_NONE,
    option(
        "--timeout", "Give up after so long.", kind="number", unit="seconds", least=0, most=2**31
    ),
    option("--for", "What to wait for.", name="goal", choices=tuple(_GOALS), default="completed"),
    FAILED_TO,
    rarely=waited_selection,
)
def wait(
    session: Session,
    job_ids: list[str],
    *,
    timeout: float | None,
    goal: str,
    failed_to: str | None,
    filters: Mapping[str, Any] = NOT_GIVEN,
    selecting: Mapping[str, Any] = NOT_GIVEN,
) -> None:
    """Ends with 0 if all jobs came to what is waited for: completed, ended in any way, or active.

    Ends at once if they have. If one ended in another way, the code is 4, once the others are there
    too; a time-out ends with 10. An overdue job ends with the next command that changes the market;
    looking does not end it. Of a selection those are waited for that are in it at the beginning.
    """
    from tb_cli.frame import selected

    if selected.is_meant(job_ids, filters, selecting):
        from tb_cli.frame.listing.selections import asked_jobs, selected_jobs

        found = selected_jobs(asked_jobs(filters))
        left = found.looked_for(session, selecting)
        if not left:
            return
    else:
        from tb_cli.frame.ids import Ids

        left = Ids(job_ids, "job id").at_once()
        if not left:
            note("nothing given, nothing done")
    if failed_to is None:
        _wait(session, left, timeout, goal)
        return
    from tb_cli.frame.results import Result

    result = Result(failed_to, beside=session.home.path)
    try:
        _wait(session, left, timeout, goal)
    finally:
        result.write("".join(f"{job_id}\n" for job_id in left))


def _wait(session: Session, left: list[str], timeout: float | None, goal: str) -> None:
    """Wait until none of the jobs is `left`, but for those that ended in another way."""
    arrived: list[dict[str, Any]] = []
    try:
        _look_again(session, left, arrived, timeout, goal)
    except MarketError:
        if session.json and arrived:
            write_json(arrived)
        raise
    if session.json:
        write_json(arrived)
    missed = [each for each in arrived if each["state"] not in _GOALS[goal]]
    if missed:
        which = some_of([f"{each['job_id']} {each['state']}" for each in missed])
        raise AlreadyDoneError(
            f"{len(missed)} of {len(arrived)} ended otherwise: {which}", missed=len(missed)
        )


def _look_again(
    session: Session,
    left: list[str],
    arrived: list[dict[str, Any]],
    timeout: float | None,
    goal: str,
) -> None:
    """Take jobs from those that are `left` to those that `arrived`, until none is left."""
    from collections import Counter

    from tb_cli.frame.looks import looks
    from tb_cli.frame.progress import StatusLine

    give_up = None if timeout is None else time.monotonic() + timeout
    told: set[str] = set()
    with StatusLine() as line:
        for _ in looks(session, _WAIT_POLL_S, give_up):
            states, overdue = session.view(partial(_seen, job_ids=left))
            line.clear()
            for job_id in overdue:
                if job_id not in told:
                    told.add(job_id)
                    note(f"warning: job {job_id} is overdue; `tb-cli tick` fails it")
            there = [job for job in states if job.state in (*_GOALS[goal], *_ENDED)]
            for job in there:
                arrived.append(job._asdict())
                if not session.json:
                    write_line(f"job {job.job_id} {job.state}")
                    sys.stdout.flush()
            waiting = Counter(job.state for job in states if job not in there)
            left[:] = [job.job_id for job in states if job not in there]
            if not left:
                return
            if give_up is not None and time.monotonic() >= give_up:
                raise PendingError(f"not {goal} yet: {some_of(left, ' ')}", waiting=len(left))
            counts = ", ".join(f"{count} {state}" for state, count in waiting.items())
            line.show(f"waiting for {len(left)} of {len(left) + len(arrived)}: {counts}")


def _documents(txn: Txn, job_id: str) -> list[dict[str, Any]]:
    return [documents.job_document(txn, jobs.get(txn, job_id))]


class _Seen(NamedTuple):
    """How a look finds a job. Of one that was archived it is known how it ended, not why."""

    job_id: str
    state: JobState
    cause: Cause | None


def _seen(txn: Txn, job_ids: list[str]) -> tuple[list[_Seen], list[str]]:
    """Some jobs, and the ids of those that are overdue."""
    found: list[_Seen] = []
    overdue: list[str] = []
    for job_id in job_ids:
        job = jobs.find(txn, job_id)
        if job is None:
            found.append(_Seen(job_id, _archived(txn, job_id).state, None))
            continue
        found.append(_Seen(job_id, job.state, job.cause))
        if jobs.is_overdue(txn, job):
            overdue.append(job_id)
    return found, overdue


def _archived(txn: Txn, job_id: str) -> "ArchivedJob":
    from compute_market import archived  # Most jobs that are waited for are there.

    left = archived.job(txn, job_id)
    if left is None:
        raise archived.missing(txn, job_id)
    return left
