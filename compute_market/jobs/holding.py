"""Changing a live job: holding it back, releasing it, another priority, a later deadline."""

from compute_market.errors import AlreadyDoneError, RefusedError
from compute_market.jobs import drafts, jobs
from compute_market.jobs.work import work
from compute_market.records import LIVE_STATES, Job, Priority, replace
from compute_market.store.txn import Txn


def hold(txn: Txn, job_id: str) -> tuple[Job, bool]:
    """Keep a job that waits from being started; its deadline goes on. Whether it was not held.

    Raises NotFoundError, AlreadyDoneError, and RefusedError (`not_waiting`) for one that runs.
    """
    job = _live(txn, job_id)
    if job.held:
        return job, False
    if job.state == "active":
        raise RefusedError(
            f"job {job_id} is active, only one that waits can be held",
            hint="it holds a slot; `tb-cli compute cancel` ends it",
            reason="not_waiting",
        )
    return jobs.hold(txn, job), True


def release(txn: Txn, job_id: str) -> tuple[Job, bool]:
    """Let a held job wait again, in the place that it had, or start; whether it was held.

    One without an offer is tried by the next change of the market. Raises NotFoundError and
    AlreadyDoneError.
    """
    job = _live(txn, job_id)
    if not job.held:
        return job, False
    jobs.release(txn, job)
    txn.helped = True
    work(txn)
    return jobs.get(txn, job_id), True


def change(
    txn: Txn,
    job_id: str,
    *,
    priority: Priority | None = None,
    deadline: int | None = None,
    deadline_secs: int | None = None,
) -> tuple[Job, Job]:
    """Give a live job another priority, or a later deadline: a unix second, or so long from now.

    Returns the job before and after. Raises NotFoundError, AlreadyDoneError, and RefusedError
    (`deadline`) for an earlier deadline and for one that no job could be submitted with.
    """
    before = job = _live(txn, job_id)
    if deadline_secs is not None:
        deadline = txn.now + deadline_secs
    if deadline is not None and deadline != job.deadline:
        if deadline < job.deadline:
            raise RefusedError(
                f"the deadline of job {job_id} is {job.deadline}, {deadline} is earlier",
                hint="a deadline only moves later",
                reason="deadline",
            )
        drafts.check_deadline(replace(job, deadline=deadline), txn.now, txn.config)
        job = jobs.postpone(txn, job, deadline)
    if priority is not None and priority != job.priority:
        job = jobs.prefer(txn, job, priority)
    if job != before:
        txn.helped = True
        work(txn)  # A low one may have been held back by the cap.
        job = jobs.get(txn, job_id)
    return before, job


def _live(txn: Txn, job_id: str) -> Job:
    job = jobs.get(txn, job_id)
    if job.state not in LIVE_STATES:
        raise AlreadyDoneError(
            f"job already {job.state}", hint=f"see `tb-cli compute status {job_id}`"
        )
    return job
