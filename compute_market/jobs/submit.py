"""Submitting a job, and posting or changing an offer, which pending jobs may take.

An action decides first and writes then; one that raises has written nothing.
"""

from typing import TYPE_CHECKING

from msgspec import Struct, UnsetType

from compute_market import events
from compute_market.admission import admission
from compute_market.errors import ConflictError, RefusedError
from compute_market.jobs import drafts, jobs, placing
from compute_market.jobs.placing import Decided, Unplaced
from compute_market.jobs.work import work
from compute_market.offers import offers, posting
from compute_market.records import UNHASHED, Job, Offer, Priority, Refused, Slice
from compute_market.requests import JobRequest, OfferChange, OfferRequest
from compute_market.scheduler import outcomes
from compute_market.scheduler.matching import NoMatch
from compute_market.store.schema import PENDING
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.offers.changing import Changed

_WAIT_HINT = "--wait keeps the job until an offer fits"


class Submitted(Struct, frozen=True, gc=False):
    job: Job
    changed: bool


class Posted(Struct, frozen=True, gc=False):
    offer: Offer
    changed: bool
    matched: list[str]  # pending jobs that found a match because of it


def post_offer(txn: Txn, request: OfferRequest, key: str | None = None) -> Posted:
    """Post an offer and try the pending jobs it fits. See `posting.post`."""
    offer, changed = posting.post(txn, request, key, _market_price(txn, request.price_per_unit))
    matched: list[str] = []
    if changed and not txn.is_empty(PENDING):
        from compute_market.jobs import waiting  # Most often no job waits for an offer.

        matched = waiting.match_pending(txn, offer)
    return Posted(offers.get(txn, offer.offer_id) if matched else offer, changed, matched)


def change_offer(txn: Txn, asked: OfferChange, key: str | None = None) -> "Changed":
    """Change the terms of an offer, or its units. See `changing.change`."""
    from compute_market.offers import changing  # Most offers are never changed.

    return changing.change(txn, asked, key, _market_price(txn, asked.price_per_unit))


def _market_price(txn: Txn, price: int | UnsetType) -> int | None:
    """What a price of 0 stands for now; None where there is no price data, or nobody asks."""
    if price != 0:
        return None
    from compute_market.jobs import lanes  # Few offers leave their price to the market.
    from compute_market.offers import board

    if board.bands(txn, "industrial") is None:
        return None
    found = board.suggested(txn, "industrial", lanes.waiting_in(txn, "industrial"))
    # A price of 0 would stand for itself; matches may have been made at less than half of 1.
    return max(1, int(found["suggested"]))


def submit(
    txn: Txn, request: JobRequest, inputs: list[Slice], *, wait: bool = False
) -> Submitted | Refused:
    """Submit a job whose slices were measured and hashed; the same request again changes nothing.

    With `wait` a job without a match is kept as pending. A refusal is recorded and uses up
    nothing; `not_hashed` is that of slices that were not hashed because of what `ask` said, when
    the market has come to say something else. Raises ConflictError naming the field when the id
    stands for another job, and RefusedError for a job no market could take (see `drafts.draft`).
    """
    existing = drafts.existing(txn, request, inputs)
    if existing is not None:
        return Submitted(existing, False)
    job = drafts.draft(request, inputs, txn.now, txn.config)
    verdict: Decided | Unplaced | NoMatch | Refused = placing.decide(txn, job)
    gets_in = isinstance(verdict, Decided)
    if (gets_in or (wait and isinstance(verdict, NoMatch))) and not all(map(_is_hashed, inputs)):
        message = "the market would not have taken it when it was asked, and now it does"
        return _refuse(txn, job, Refused("not_hashed", message, "submit it again", 0))
    if gets_in and not txn.is_empty(PENDING) and _let_pass(txn, job.priority):
        # What it found may have been what a job that waited could take.
        verdict = _decide_again(txn, job)
    if isinstance(verdict, Refused):
        return _refuse(txn, job, verdict)
    if isinstance(verdict, NoMatch):
        outcomes.record(txn, job, verdict)
        if wait:
            mode = admission.mode(txn)
            return Submitted(jobs.keep_pending(txn, job, inputs, verdict.result, mode), True)
        # Units come back, and wallets fill.
        for_now = verdict.result in ("no_capacity", "bond_unfunded")
        hint = f"{verdict.way_out}; {_WAIT_HINT}"
        refused = Refused(verdict.result, verdict.message, hint, is_for_now=for_now)
        return _refuse(txn, job, refused)
    if isinstance(verdict, Unplaced):
        if verdict.match is not None:
            outcomes.record(txn, job, verdict.match)
        if verdict.by_admission:
            admission.count_refusal(txn, verdict.refused)
        return _refuse(txn, job, verdict.refused)
    job = placing.place(txn, job, verdict, inputs)
    work(txn)
    return Submitted(job if job.state == "active" else jobs.get(txn, job.job_id), True)


def ask(txn: Txn, request: JobRequest, inputs: list[Slice], *, wait: bool) -> bool:
    """Whether it is worth the while to hash the slices of a job, of which the lengths are known.

    It is not when match or admission would say no now. Raises ConflictError naming the field when
    the id stands for another job, and RefusedError as `submit` does. Writes nothing.
    """
    if drafts.existing(txn, request, inputs) is not None:
        return True
    verdict = placing.decide(txn, drafts.draft(request, inputs, txn.now, txn.config))
    return wait if isinstance(verdict, NoMatch) else isinstance(verdict, Decided)


def _let_pass(txn: Txn, priority: Priority) -> bool:
    from compute_market.jobs import waiting

    return waiting.let_pass(txn, priority)


def _is_hashed(entry: Slice) -> bool:
    return entry.reference != UNHASHED


def _decide_again(txn: Txn, job: Job) -> Decided | Unplaced | NoMatch | Refused:
    """The verdict after something was written, when it is too late for an error."""
    try:
        return placing.decide(txn, job)
    except (ConflictError, RefusedError) as error:
        return Refused(error.reason or error.token, error.message, error.hint)


def _refuse(txn: Txn, job: Job, refused: Refused) -> Refused:
    """Remember why a job was not let in."""
    events.note(
        txn,
        "job_refused",
        job_id=job.job_id,
        owner=job.buyer,
        reason=refused.reason,
        message=refused.message,
        units=job.units,
        mode=admission.mode(txn),
        retry_after_ms=refused.retry_after_ms,
        asked=drafts.asked(job),
    )
    return refused
