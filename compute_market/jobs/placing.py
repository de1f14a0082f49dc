"""Placing a job: the comfort guard, match, admission, funding, and the effects.

`decide` says what would become of a job and writes nothing; `place` is what must succeed then.
"""

from msgspec import Struct

from compute_market import metrics
from compute_market.admission import admission
from compute_market.amounts import checked
from compute_market.jobs import jobs
from compute_market.offers import offers, price_window
from compute_market.records import Job, Placement, Refused, Slice
from compute_market.scheduler import outcomes
from compute_market.scheduler.matching import Match, NoMatch, match
from compute_market.settlement import escrow, modes, receipts
from compute_market.store.txn import Txn


class Decided(Struct, frozen=True, gc=False):
    """Everything decided about a job that gets in."""

    match: Match
    placement: Placement
    admitted: admission.Admitted
    claim: bytes  # of the keys that its receipts could have


class Unplaced(Struct, frozen=True, gc=False):
    """Admission or the funds say no."""

    match: Match | None  # None of a job that the comfort guard kept from being matched
    refused: Refused
    by_admission: bool


def decide(txn: Txn, job: Job) -> Decided | Unplaced | NoMatch:
    """The comfort guard, then match, admission, funding; the first "no" decides.

    Writes nothing but latencies.

    Raises ConflictError (`key_collision`) and RefusedError (`overflow`) for a job that the offer
    which is best for it cannot take.
    """
    held = admission.gate(txn, job)
    if held is not None:
        return Unplaced(None, held, True)
    real = modes.is_real(txn)
    began = txn.stopwatch() if txn.stopwatch else 0
    found = match(txn, job, real=real)
    took_ns = txn.stopwatch() - began if txn.stopwatch else 0
    decided = found if isinstance(found, NoMatch) else _admit(txn, job, found, real=real)
    # Last: a job that no market could take is told by an error, and then nothing is written.
    if txn.stopwatch:
        metrics.observe(txn, "scheduler_match_latency_seconds", took_ns)
    return decided


def place(txn: Txn, job: Job, decided: Decided, inputs: list[Slice] | None) -> Job:
    """Give a job to the offer that was decided on; `inputs` are the slices of a new one."""
    # After this point the submission must succeed.
    outcomes.record(txn, job, decided.match)
    price_window.record(txn, job.lane, decided.match.effective_price)
    placement = decided.placement
    receipts.claim(txn, job, decided.claim)
    admission.charge(txn, decided.admitted)
    offer, burst_micro = decided.match.offer, decided.admitted.burst_micro
    mode = admission.mode(txn)
    return jobs.enqueue(txn, job, offer, placement, inputs, mode, burst_micro)


def _admit(txn: Txn, job: Job, found: Match, *, real: bool) -> Decided | Unplaced:
    """Whether a job may go to the offer it matched. Writes nothing."""
    placement = offers.placement_on(found.offer, funded=real)
    checked(job.units * placement.price_per_unit, "the price of the whole job")
    claim = receipts.check_claim(txn, job, placement.provider, placement.price_per_unit)
    admitted = admission.admit(txn, job.buyer, placement.provider, job.units)
    if isinstance(admitted, Refused):
        return Unplaced(found, admitted, True)
    missing = escrow.missing_funds(txn, job, placement) if real else None
    if missing is not None:
        return Unplaced(found, missing, False)
    return Decided(found, placement, admitted, claim)
