"""Preemption: which active job a new offer takes over, and why it does not take one.

What counts is the earned score, so that nobody advertises itself into somebody else's job. Decides
only; `jobs.preempt` acts.
"""

from collections.abc import Iterator

from msgspec import Struct

from compute_market.records import Job, Offer, replace
from compute_market.reputation import reputation
from compute_market.scheduler.matching import STAGES, Shortfall, judge
from compute_market.store.schema import ACTIVE, JOBS
from compute_market.store.txn import Txn


class Takeover(Struct, frozen=True, gc=False):
    """A job that an offer may take over, and the earned scores of both providers."""

    job: Job
    offer: Offer
    score_from: int
    score_to: int

    @property
    def difference(self) -> int:
        return self.score_to - self.score_from

    @property
    def units(self) -> int:
        """What is left of the job."""
        return self.job.units - self.job.units_proven


class Kept(Struct, frozen=True, gc=False):
    """Why a job stays with its provider."""

    reason: str
    message: str
    hint: str | None = None


def decide(txn: Txn, job: Job, offer: Offer) -> Takeover | Kept:
    """Whether an offer may take an active job over; the first "no" decides.

    It must be allowed at all, and leave as much time as a job leaves its provider at least: whoever
    is late loses its bond. The offer must fit the job with units for what is left of it and at no
    more than its present price, and its provider's earned score exceed that of the present provider
    by `preempt_min_delta`.
    """
    if not txn.config.enable_preempt:
        return Kept(
            "preempt_disabled",
            "no offer takes a running job over here",
            "set enable_preempt = true in config.toml",
        )
    if job.state != "active":
        return Kept("not_active", f"job {job.job_id} is {job.state}, only an active job goes over")
    if job.deadline < txn.now:
        return Kept("deadline", f"the deadline {job.deadline} of job {job.job_id} has passed")
    ahead, least = job.deadline - txn.now, txn.config.deadline_min_secs
    if ahead < least:
        return Kept(
            "deadline_near",
            f"the deadline of job {job.job_id} is {ahead} s ahead, and nobody is given less than "
            f"{least} s for a job",
            "the setting is deadline_min_secs",
        )
    found = shortfalls(txn, job, offer)
    if found:
        lacking = "; ".join(map(str, found))
        result = STAGES[min(each.stage for each in found)]
        return Kept(result, f"offer {offer.offer_id} does not fit job {job.job_id}: {lacking}")
    present, delta = job.placed.provider, txn.config.preempt_min_delta
    takeover = Takeover(
        job, offer, reputation.earned(txn, present), reputation.earned(txn, offer.provider)
    )
    if takeover.difference < delta:
        return Kept(
            "score_difference",
            f"the earned score of {offer.provider}, {takeover.score_to}, is not {delta} above the "
            f"{takeover.score_from} of {present}",
            "what an offer advertises does not count; see preempt_min_delta",
        )
    return takeover


def shortfalls(txn: Txn, job: Job, offer: Offer) -> list[Shortfall]:
    """What an offer lacks to go on with an active job.

    The matcher's own verdict on what is left of the job at the price it has by now. Of one that
    holds money the provider must be able to pay its bond.
    """
    left = replace(
        job,
        units=job.units - job.units_proven,
        max_price_per_unit=job.placed.price_per_unit,
    )
    return [
        replace(each, condition="price_per_unit")
        if each.condition == "max_price_per_unit"
        else each
        for each in judge(txn, left, offer, real=job.funded)
    ]


def candidates(txn: Txn, offer: Offer) -> Iterator[Takeover]:
    """What an offer may take over: the largest difference first, then the oldest job.

    A directed offer has its own job alone. Reads no more jobs than there are slots, and judges only
    those whose provider has earned so much less.
    """
    if not txn.config.enable_preempt:
        return
    score_to = reputation.earned(txn, offer.provider)
    scores: dict[str, int] = {}
    ranked: list[tuple[int, int, Job]] = []
    for job in _considered(txn, offer):
        present = job.placed.provider
        if present not in scores:
            scores[present] = reputation.earned(txn, present)
        difference = score_to - scores[present]
        if difference >= txn.config.preempt_min_delta:
            ranked.append((-difference, job.seq, job))
    for _, _, job in sorted(ranked):
        verdict = decide(txn, job, offer)
        if isinstance(verdict, Takeover):
            yield verdict


def _considered(txn: Txn, offer: Offer) -> Iterator[Job]:
    if offer.job_id is None:
        for key, _ in txn.scan(ACTIVE):
            yield txn.must_read(JOBS, key)
    elif txn.get(ACTIVE, offer.job_id.encode()) is not None:
        yield txn.must_read(JOBS, offer.job_id.encode())
