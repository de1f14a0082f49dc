"""Submitting: match, admission, funding, and the effects; and trying again what waits.

An action decides first and writes then; one that raises has written nothing.
"""

from msgspec import Struct

from compute_market import events, metrics
from compute_market.admission import admission
from compute_market.amounts import checked
from compute_market.errors import ConflictError, RefusedError
from compute_market.jobs import drafts, jobs
from compute_market.jobs.work import work
from compute_market.offers import offers, posting
from compute_market.records import Job, Offer, Placement, Refused, Slice
from compute_market.requests import JobRequest, OfferRequest
from compute_market.scheduler import outcomes
from compute_market.scheduler.matching import Match, NoMatch, judge, match
from compute_market.settlement import escrow, modes, receipts
from compute_market.store.txn import Txn

_WAIT_HINT = (
    "`tb-cli compute explain FILE` names what each offer lacks; --wait keeps the job until an "
    "offer fits"
)


class Submitted(Struct, frozen=True, gc=False):
    job: Job
    changed: bool


class Posted(Struct, frozen=True, gc=False):
    offer: Offer
    changed: bool
    matched: list[str]  # pending jobs that found a match because of it


class _Decided(Struct, frozen=True, gc=False):
    """Everything decided about a job that gets in."""

    match: Match
    placement: Placement
    admitted: admission.Admitted


class _Unplaced(Struct, frozen=True, gc=False):
    """A match was found, but admission or the funds say no."""

    match: Match
    refused: Refused
    by_admission: bool


def post_offer(txn: Txn, request: OfferRequest) -> Posted:
    """Post an offer and try the pending jobs it fits. See `posting.post`."""
    offer, changed = posting.post(txn, request)
    matched = match_pending(txn, offer) if changed else []
    return Posted(offers.get(txn, offer.offer_id) if matched else offer, changed, matched)


def submit(
    txn: Txn, request: JobRequest, inputs: list[Slice], *, wait: bool = False
) -> Submitted | Refused:
    """Submit a job whose slices were measured and hashed; the same request again changes nothing.

    With `wait` a job without a match is kept as pending. A refusal is recorded and uses up
    nothing. Raises ConflictError naming the field when the id stands for another job, and
    RefusedError for a job no market could take (see `drafts.draft`).
    """
    existing = jobs.find(txn, request.job_id)
    if existing is not None:
        drafts.check_is(txn, existing, request, inputs)
        return Submitted(existing, False)
    job = drafts.draft(txn, request, inputs)
    verdict = _decide(txn, job)
    if isinstance(verdict, NoMatch):
        outcomes.record(txn, job, verdict)
        if wait:
            return Submitted(jobs.keep_pending(txn, job, inputs, verdict.result), True)
        return _refuse(txn, job, Refused(verdict.result, verdict.message, _WAIT_HINT))
    outcomes.record(txn, job, verdict.match)
    if isinstance(verdict, _Unplaced):
        if verdict.by_admission:
            admission.count_refusal(txn, verdict.refused)
        return _refuse(txn, job, verdict.refused)
    job = _place(txn, job, verdict, inputs)
    work(txn)
    return Submitted(jobs.get(txn, job.job_id), True)


def match_pending(txn: Txn, offer: Offer | None = None) -> list[str]:
    """Try the pending jobs again in queue order; only those a new `offer` fits, if given.

    Returns the ids that found a match.
    """
    matched: list[str] = []
    real = modes.is_real(txn)
    # A list, since each match takes its job out of the table.
    for job_id in list(jobs.pending_ids(txn)):
        job = jobs.named(txn, job_id.encode())
        if jobs.is_overdue(txn, job):
            continue  # The sweep will get to it.
        if offer is not None and judge(txn, job, offer, real=real):
            continue
        try:
            verdict = _decide(txn, job)
        except (ConflictError, RefusedError):
            continue  # The job cannot go to the offer that is best for it; another may come.
        if isinstance(verdict, _Decided):
            outcomes.record(txn, job, verdict.match)
            _place(txn, job, verdict, None)
            matched.append(job_id)
            if offer is not None:
                offer = offers.get(txn, offer.offer_id)
    if matched:
        work(txn)
    return matched


def _decide(txn: Txn, job: Job) -> _Decided | _Unplaced | NoMatch:
    """Match, then admission, then funding; the first "no" decides. Writes nothing but latencies."""
    real = modes.is_real(txn)
    began = txn.stopwatch() if txn.stopwatch else 0
    found = match(txn, job, real=real)
    took_ns = txn.stopwatch() - began if txn.stopwatch else 0
    decided = found if isinstance(found, NoMatch) else _admit(txn, job, found, real=real)
    # Last: a job that no market could take is told by an error, and then nothing is written.
    if txn.stopwatch:
        metrics.observe(txn, "scheduler_match_latency_seconds", took_ns)
    return decided


def _admit(txn: Txn, job: Job, found: Match, *, real: bool) -> _Decided | _Unplaced:
    """Whether a job may go to the offer it matched. Writes nothing."""
    placement = jobs.placement_on(found.offer, funded=real)
    checked(job.units * placement.price_per_unit, "the price of the whole job")
    receipts.check_claim(txn, job, placement.provider, placement.price_per_unit)
    admitted = admission.admit(txn, job.buyer, placement.provider, job.units)
    if isinstance(admitted, Refused):
        return _Unplaced(found, admitted, True)
    missing = escrow.missing_funds(txn, job, placement) if real else None
    if missing is not None:
        return _Unplaced(found, missing, False)
    return _Decided(found, placement, admitted)


def _place(txn: Txn, job: Job, decided: _Decided, inputs: list[Slice] | None) -> Job:
    # After this point the submission must succeed.
    placement = decided.placement
    receipts.claim(txn, job, placement.provider, placement.price_per_unit)
    admission.charge(txn, decided.admitted)
    return jobs.enqueue(txn, job, decided.match.offer, placement, inputs)


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
        retry_after_ms=refused.retry_after_ms,
    )
    return refused
