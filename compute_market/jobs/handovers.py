"""Active jobs that are handed over: what is left of one is given to another offer."""

from compute_market import metrics
from compute_market.errors import RefusedError
from compute_market.jobs import cancellations, jobs
from compute_market.offers import offers
from compute_market.records import Job, Offer, Placement
from compute_market.reputation import reputation
from compute_market.scheduler import queue
from compute_market.settlement import escrow, receipts, settlement
from compute_market.store.txn import Txn


def check(txn: Txn, job: Job, offer: Offer) -> tuple[Placement, bytes]:
    """What an active job would get from another offer for what is left of it, and the receipts
    it would claim.

    Raises RefusedError (`not_active`, `insufficient_funds`), and ConflictError (`key_collision`)
    for a provider that has proven some of the job at the same price before. Writes nothing.
    """
    if job.state != "active":
        raise RefusedError(
            f"job {job.job_id} is {job.state}, only an active job is handed over",
            hint="`tb-cli compute list --state active` shows those that are",
            reason="not_active",
        )
    placement = offers.placement_on(offer, funded=job.funded)
    earlier = jobs.placements(txn, job)
    claim = receipts.check_claim_again(txn, job, earlier, offer.provider, offer.price_per_unit)
    if job.funded:
        escrow.check_hand_over(txn, job, placement, dues(txn, job))
    return placement, claim


def dues(txn: Txn, job: Job) -> list[tuple[int, int]]:
    """What each provider of a job is owed for what it has proven, (CT, IT)."""
    return [settlement.due_to(each) for each in jobs.placements(txn, job)]


def hand_over(txn: Txn, job: Job, offer: Offer) -> Job:
    """Give what is left of an active job to another offer; what was proven stays its provider's.

    The job is taken as it is by now, for what was due may have ended it. It gets a line in
    `cancellations.log`, though it goes on. The caller has judged the offer. Raises what
    `check` raises, before anything is written.
    """
    job = jobs.get(txn, job.job_id)
    placement, claim = check(txn, job, offer)
    # After this point the handover must succeed.
    left, before = job.units - job.units_proven, job.placed
    if job.funded:
        job = escrow.hand_over(txn, job, placement, dues(txn, job))
    receipts.claim(txn, job, claim)
    offers.release(txn, before.offer_id, left)
    offers.reserve(txn, offers.get(txn, offer.offer_id), left)
    queue.hand_slot_over(txn, job, offer.provider)
    cancellations.add(txn, job.job_id, "preempted")
    metrics.count(txn, "scheduler_cancel_total", "preempted")
    metrics.count(txn, "scheduler_preempt_total", "success")
    detail = {
        "from": before.provider,
        "to": offer.provider,
        "from_score": reputation.earned(txn, before.provider),
        "to_score": reputation.earned(txn, offer.provider),
        "units": left,
        "price_per_unit": offer.price_per_unit,
    }
    return jobs.keep_handed_over(txn, job, placement, detail)
