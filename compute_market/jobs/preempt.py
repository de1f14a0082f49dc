"""Preemption: a running job goes on with another offer, whose provider has earned more.

Between the decision and the act lies the way of a bundle to another market. What was decided is
decided again by then, in the transaction that acts.
"""

from compute_market.errors import ConflictError, MarketError, NotFoundError, RefusedError
from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.records import Job, Offer
from compute_market.scheduler import preemption
from compute_market.scheduler.preemption import Kept, Takeover
from compute_market.store.txn import Txn


def proposed(txn: Txn, offer: Offer) -> Takeover | None:
    """The job that a new offer takes over: the best of those that can be handed over to it."""
    found = preemption.candidates(txn, offer)
    return next((each for each in found if _can_be_handed(txn, each)), None)


def decide(txn: Txn, job_id: str, offer_id: str) -> Takeover:
    """What an offer would take over.

    Raises NotFoundError, RefusedError with the reason why the job stays where it is, and
    ConflictError (`key_collision`). Writes nothing.
    """
    verdict = preemption.decide(txn, jobs.get(txn, job_id), offers.get(txn, offer_id))
    if isinstance(verdict, Kept):
        raise RefusedError(verdict.message, hint=verdict.hint, reason=verdict.reason)
    jobs.check_hand_over(txn, verdict.job, verdict.offer)
    return verdict


def is_with(txn: Txn, job_id: str, offer_id: str) -> bool:
    """Whether an active job has gone over to an offer already. Raises NotFoundError."""
    job = jobs.get(txn, job_id)
    return job.state == "active" and job.placed.offer_id == offers.get(txn, offer_id).offer_id


def why_not(txn: Txn, job_id: str, offer_id: str) -> MarketError | None:
    """What keeps an active job from going over to an offer, None if nothing does by now.

    One that has gone over already needs nothing more.
    """
    try:
        if not is_with(txn, job_id, offer_id):
            decide(txn, job_id, offer_id)
    except (NotFoundError, RefusedError, ConflictError) as error:
        return error.with_traceback(None)
    return None


def take_over(txn: Txn, job_id: str, offer_id: str) -> Job:
    """Give what is left of an active job to another offer, if that is still to be.

    One that has gone over before stays as it is. Raises what `decide` raises, before anything is
    written.
    """
    if is_with(txn, job_id, offer_id):
        return jobs.get(txn, job_id)
    takeover = decide(txn, job_id, offer_id)
    return jobs.hand_over(txn, takeover.job, takeover.offer)


def _can_be_handed(txn: Txn, takeover: Takeover) -> bool:
    """Whether neither money nor the keys of receipts are in the way."""
    try:
        jobs.check_hand_over(txn, takeover.job, takeover.offer)
    except (RefusedError, ConflictError):
        return False
    return True
