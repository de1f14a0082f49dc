"""Preemption: a running job goes on with another offer, whose provider has earned more.

Between the decision and the act lies the way of a bundle to another market. What was decided is
decided again by then, in the transaction that acts, and what the bundle tells of the job must
still be true there.
"""

from compute_market import events, metrics
from compute_market.courier_records import Progress
from compute_market.errors import ConflictError, MarketError, NotFoundError, RefusedError
from compute_market.jobs import handovers, jobs
from compute_market.offers import offers
from compute_market.records import Job, Offer
from compute_market.scheduler import preemption
from compute_market.scheduler.preemption import Kept, Takeover
from compute_market.store.txn import Txn


def proposed(txn: Txn, offer: Offer) -> Takeover | None:
    """The job that a new offer takes over: the best of those that can be handed over to it."""
    found = preemption.candidates(txn, offer)
    return next((each for each in found if _can_be_handed(txn, each)), None)


def progress(job: Job) -> Progress:
    """What the bundle of a handoff tells of a job as it is now."""
    return Progress(job.placements_before, job.units - job.units_proven)


def decide(txn: Txn, job_id: str, offer_id: str, told: Progress | None = None) -> Takeover:
    """What an offer would take over; `told` is what a bundle tells of the job, if there is one.

    Raises NotFoundError, RefusedError with the reason why the job stays where it is (`outdated`
    where the bundle tells what is true no more), and ConflictError (`key_collision`). Writes
    nothing.
    """
    verdict = preemption.decide(txn, jobs.get(txn, job_id), offers.get(txn, offer_id))
    if isinstance(verdict, Kept):
        raise RefusedError(verdict.message, hint=verdict.hint, reason=verdict.reason)
    handovers.check(txn, verdict.job, verdict.offer)
    _check_told(told, verdict.job, progress(verdict.job))
    return verdict


def is_with(txn: Txn, job_id: str, offer_id: str) -> bool:
    """Whether an active job has gone over to an offer already. Raises NotFoundError."""
    job = jobs.get(txn, job_id)
    return job.state == "active" and job.placed.offer_id == offers.get(txn, offer_id).offer_id


def why_not(
    txn: Txn, job_id: str, offer_id: str, told: Progress | None = None
) -> MarketError | None:
    """What keeps an active job from going over to an offer, None if nothing does by now.

    One that has gone over already needs nothing more.
    """
    try:
        if not _is_done(txn, job_id, offer_id, told):
            decide(txn, job_id, offer_id, told)
    except (NotFoundError, RefusedError, ConflictError) as error:
        return error.with_traceback(None)
    return None


def take_over(txn: Txn, job_id: str, offer_id: str, told: Progress | None = None) -> Job:
    """Give what is left of an active job to another offer, if that is still to be.

    One that has gone over before stays as it is. Raises what `decide` raises, before anything is
    written.
    """
    if _is_done(txn, job_id, offer_id, told):
        return jobs.get(txn, job_id)
    takeover = decide(txn, job_id, offer_id, told)
    return handovers.hand_over(txn, takeover.job, takeover.offer)


def note_failed(
    txn: Txn, job_id: str | None, offer_id: str | None, reason: str, bundle: str | None = None
) -> None:
    """Count and tell that a handoff that was decided on has failed; `bundle` is its receipt."""
    metrics.count(txn, "scheduler_preempt_total", "handoff_failed")
    events.note(
        txn, "handoff_failed", job_id=job_id, offer_id=offer_id, reason=reason, bundle=bundle
    )


def _is_done(txn: Txn, job_id: str, offer_id: str, told: Progress | None) -> bool:
    """Whether a job has gone over already, by the very handover that a bundle tells of.

    Raises RefusedError (`outdated`) where it went over by another one.
    """
    if not is_with(txn, job_id, offer_id):
        return False
    job = jobs.get(txn, job_id)
    left = job.units - job.units_proven + job.placed.units_proven
    _check_told(told, job, Progress(job.placements_before - 1, left))
    return True


def _check_told(told: Progress | None, job: Job, true: Progress) -> None:
    """Raise RefusedError (`outdated`) unless what a bundle tells of a job is true."""
    if told is None or told == true:
        return
    if told.handovers != true.handovers:
        problem = f"job {job.job_id} has gone over otherwise since its bundle was written"
    else:
        problem = (
            f"the bundle tells of {told.units_left} units left of job {job.job_id}, and by now "
            f"{true.units_left} are"
        )
    raise RefusedError(
        problem, hint="hand it over anew with `tb-cli compute preempt`", reason="outdated"
    )


def _can_be_handed(txn: Txn, takeover: Takeover) -> bool:
    """Whether neither money nor the keys of receipts are in the way."""
    try:
        handovers.check(txn, takeover.job, takeover.offer)
    except (RefusedError, ConflictError):
        return False
    return True
