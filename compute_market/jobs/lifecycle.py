"""What happens to jobs: submit, match, prove, cancel, expire. Calls the other rooms in order.

Each action decides first and writes then; an action that raises has written nothing.
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from compute_market import chain, metrics
from compute_market.admission import admission, decisions
from compute_market.amounts import checked, half_up, split, units_of
from compute_market.config.settings import Config
from compute_market.errors import AlreadyDoneError, ConflictError, RefusedError
from compute_market.jobs import cancellations, drafts, jobs
from compute_market.offers import offers
from compute_market.records import Job, Offer, Refused, Slice
from compute_market.requests import JobRequest, OfferRequest
from compute_market.scheduler import matching as scheduler
from compute_market.scheduler import queue
from compute_market.settlement import ledger, receipts, settlement
from compute_market.store.schema import pack_u64
from compute_market.store.store import Txn

SWEEP_LIMIT = 256


class Submitted(NamedTuple):
    job: Job
    changed: bool


class Posted(NamedTuple):
    offer: Offer
    changed: bool
    matched: list[str]  # pending jobs that found a match because of it


class Proven(NamedTuple):
    job: Job
    slice_index: int
    changed: bool


class InvalidProof(NamedTuple):
    """A verdict: the output is wrong. It cost the provider a point and left the slice open."""

    job: Job
    slice_index: int
    message: str


class Cancelled(NamedTuple):
    """What became of a request to cancel one job."""

    job: Job
    outcome: Literal["cancelled", "already_cancelled", "already_done"]

    @property
    def text(self) -> str:
        if self.outcome == "cancelled":
            return f"cancelled job {self.job.job_id}"
        return f"job already {self.job.state}"


class _Placement(NamedTuple):
    """Everything decided about a job that gets in."""

    match: scheduler.Match
    admitted: admission.Admitted
    funded: bool


def housekeeping(txn: Txn, config: Config, sweep_limit: int = SWEEP_LIMIT) -> list[str]:
    """What every market command does before its own effects.

    Keeps the height, lets an armed settlement turn real, pays receipts that waited for it, fails
    at most `sweep_limit` overdue jobs and works the queue. Returns the ids of jobs that failed.
    """
    txn.set_number("last_run_ms", txn.now_ms)
    chain.remember(txn, config)
    settlement.activate(txn, config)
    if settlement.is_real(txn, config):
        for waiting in settlement.pending(txn):
            receipts.quarantine_if_damaged(txn, waiting.key)
            job = jobs.get(txn, waiting.job_id)
            jobs.mark_paid(txn, job, settlement.apply_pending(txn, waiting, job))
    failed = expire(txn, config, sweep_limit)
    work(txn, config)
    return failed


def is_due(txn: Txn, config: Config) -> bool:
    """Whether `housekeeping` would do more than look, so that a reading command must run it."""
    return (
        settlement.is_due(txn, config)
        or _overdue(txn, 1) != []
        or queue.next_to_start(txn, config) is not None
    )


def post_offer(txn: Txn, config: Config, request: OfferRequest) -> Posted:
    """Post an offer and try the pending jobs it fits. See `offers.post`."""
    offer, changed = offers.post(txn, request, config)
    matched = match_pending(txn, config, offer) if changed else []
    return Posted(offers.get(txn, offer.offer_id), changed, matched)


def submit(
    txn: Txn, config: Config, request: JobRequest, inputs: list[Slice], *, wait: bool = False
) -> Submitted | Refused:
    """Submit a job whose slices were measured and hashed; the same request again changes nothing.

    With `wait` a job without a match is kept as pending. A refusal is recorded and uses up
    nothing. Raises ConflictError naming the field when the id stands for another job, and
    RefusedError for a job no market could take (see `drafts.draft`).
    """
    existing = jobs.find(txn, request.job_id)
    if existing is not None:
        drafts.check_same(txn, existing, request, inputs)
        return Submitted(existing, False)
    job = drafts.draft(txn, request, inputs)
    verdict = _decide(txn, config, job)
    if isinstance(verdict, scheduler.NoMatch):
        scheduler.record(txn, job, verdict)
        refused = Refused(
            verdict.result,
            verdict.message,
            "`tb-cli compute explain FILE` names what each offer lacks; --wait keeps the job until "
            "an offer fits",
        )
        if not wait:
            decisions.log(txn, job, "refused", refused.reason, refused.message)
            return refused
        decisions.log(txn, job, "pending", refused.reason, refused.message)
        return Submitted(jobs.keep_pending(txn, job, inputs), True)
    if isinstance(verdict, _Unplaced):
        scheduler.record(txn, job, verdict.match)
        if verdict.by_admission:
            admission.count_refusal(txn, verdict.refused)
        decisions.log(txn, job, "refused", verdict.refused.reason, verdict.refused.message)
        return verdict.refused
    scheduler.record(txn, job, verdict.match)
    job = _place(txn, job, verdict, inputs)
    work(txn, config)
    return Submitted(jobs.get(txn, job.job_id), True)


def match_pending(txn: Txn, config: Config, offer: Offer | None = None) -> list[str]:
    """Try the pending jobs again in queue order; only those a new `offer` fits, if given.

    Returns the ids that found a match.
    """
    matched = []
    real = settlement.is_real(txn, config)
    for job_id in jobs.pending_ids(txn):
        job = jobs.get(txn, job_id)
        if txn.now > job.deadline:
            continue  # The sweep will get to it.
        if offer is not None and scheduler.judge(txn, job, offer, real=real):
            continue
        try:
            verdict = _decide(txn, config, job)
        except (ConflictError, RefusedError):
            continue  # The job cannot go to the offer that is best for it; another may come.
        if isinstance(verdict, _Placement):
            scheduler.record(txn, job, verdict.match)
            _place(txn, job, verdict, None)
            matched.append(job_id)
            if offer is not None:
                offer = offers.get(txn, offer.offer_id)
    work(txn, config)
    return matched


def prove(
    txn: Txn, config: Config, job_id: str, proofs: Iterable[tuple[int, bytes]]
) -> list[Proven | InvalidProof]:
    """Submit proofs, (slice index, digest) each, of one active job; the last one completes it.

    A proof that was accepted before is a no-op. Raises NotFoundError, UsageError for an index the
    job does not have, AlreadyDoneError and RefusedError when the job takes no proofs, and
    ConflictError for another output of a proven slice, all before anything is written.
    """
    job = jobs.get(txn, job_id)
    given = list(proofs)
    known = [(index, digest, jobs.slice_at(txn, job, index)) for index, digest in given]
    fresh: set[int] = set()
    for index, digest, entry in known:
        if entry.proven_ms is None and index not in fresh:
            _check_takes_proofs(txn, job)
            if digest == entry.reference:
                fresh.add(index)
        elif digest != entry.reference:
            raise ConflictError(f"slice {index} of job {job_id} is proven with another output")
    # After this point every proof gets a verdict.
    outcomes: list[Proven | InvalidProof] = []
    for index, digest, entry in known:
        if digest != entry.reference:
            offers.record_outcome(txn, job.provider or "", -1)
            message = (
                f"slice {index} of job {job_id} has the output {digest.hex()}, expected "
                f"{entry.reference.hex()}"
            )
            outcomes.append(InvalidProof(job, index, message))
        elif index not in fresh:
            outcomes.append(Proven(job, index, False))
        else:
            fresh.discard(index)
            job = jobs.prove_slice(txn, job, index, entry)
            _note_throughput(txn, units_of(entry.length))
            outcomes.append(Proven(job, index, True))
    if job.state == "active" and job.slices_proven == job.slices:
        job = jobs.close(txn, config, job, "completed", "provider", "all slices proven")
        offers.record_outcome(txn, job.provider or "", +1)
        work(txn, config)
        last = outcomes[-1]
        outcomes[-1] = last._replace(job=job)
    return outcomes


def cancel(txn: Txn, config: Config, job_id: str, by: Literal["client", "provider"]) -> Cancelled:
    """Cancel a live job; what cannot be cancelled any more is an outcome, not an error.

    Raises NotFoundError, and RefusedError when a provider cancels a job that has none.
    """
    job = jobs.get(txn, job_id)
    if job.state == "cancelled":
        return Cancelled(job, "already_cancelled")
    if job.state in ("completed", "failed"):
        return Cancelled(job, "already_done")
    burn_ct = 0
    if by == "provider":
        if job.provider is None:
            raise RefusedError(
                f"job {job_id} is pending, no provider holds it", hint="cancel it as the client"
            )
        burn_ct = _cancel_penalty(txn, config, job, job.provider)
    cause = f"cancelled by the {by}"
    job = jobs.close(
        txn, config, job, "cancelled", by, cause, burn_ct=burn_ct, burn_event="cancel:slash"
    )
    if by == "provider":
        offers.record_outcome(txn, job.provider or "", -1)
    cancellations.add(txn, job_id, by)
    metrics.count(txn, "scheduler_cancel_total", by)
    work(txn, config)
    return Cancelled(job, "cancelled")


def expire(txn: Txn, config: Config, limit: int) -> list[str]:
    """Fail at most `limit` jobs whose deadline has passed, the oldest deadline first.

    Only a provider that was running the job is at fault: it loses a point and its whole bond.
    """
    expired = _overdue(txn, limit)
    for job_id in expired:
        _fail_overdue(txn, config, jobs.get(txn, job_id))
    if expired:
        work(txn, config)
    return expired


def work(txn: Txn, config: Config) -> None:
    """Start queued jobs while there is a slot and the cap allows.

    Stops before one whose deadline has passed: the sweep comes first, and no provider gets it.
    """
    began = txn.stopwatch() if txn.stopwatch else 0
    while (job_id := queue.next_to_start(txn, config)) is not None:
        job = jobs.get(txn, job_id)
        if txn.now > job.deadline:
            break
        jobs.start(txn, job)
    if txn.stopwatch:
        metrics.observe(txn, "match_loop_latency_seconds", txn.stopwatch() - began)


def demand(txn: Txn, config: Config) -> dict[str, Any]:
    """`compute-market stats`: backlog, utilization of the last minute, units ever proven, price."""
    backlog = sum(job.units - job.units_proven for job in jobs.live(txn) if job.state != "pending")
    start = pack_u64(max(0, txn.now - admission.WINDOW_SECS + 1))
    proven = sum(int.from_bytes(value, "big") for _, value in txn.scan("throughput", start=start))
    capacity = admission.estimate(txn, config) * admission.WINDOW_SECS
    return {
        "industrial_backlog": backlog,
        "industrial_utilization": half_up(proven * 100, capacity) / 100 if capacity else 0.0,
        "industrial_units_total": metrics.value(txn, "industrial_units_total"),
        "industrial_price_per_unit": scheduler.last_effective_price(txn) or 0,
    }


class _Unplaced(NamedTuple):
    """A match was found, but admission or the funds say no."""

    match: scheduler.Match
    refused: Refused
    by_admission: bool


def _decide(txn: Txn, config: Config, job: Job) -> _Placement | _Unplaced | scheduler.NoMatch:
    """Match, then admission, then funding; the first "no" decides. Writes nothing but latencies."""
    real = settlement.is_real(txn, config)
    began = txn.stopwatch() if txn.stopwatch else 0
    found = scheduler.match(txn, job, real=real)
    elapsed = txn.stopwatch() - began if txn.stopwatch else None
    if isinstance(found, scheduler.NoMatch):
        _observe_match(txn, elapsed)
        return found
    offer = found.offer
    checked(job.units * offer.price_per_unit, "the price of the whole job")
    receipts.check_claim(txn, job, offer.provider, offer.price_per_unit)
    _observe_match(txn, elapsed)
    admitted = admission.admit(txn, config, job.buyer, offer.provider, job.units)
    if isinstance(admitted, Refused):
        return _Unplaced(found, admitted, True)
    if real:
        missing = _missing_funds(txn, job, offer)
        if missing is not None:
            return _Unplaced(found, missing, False)
    return _Placement(found, admitted, real)


def _observe_match(txn: Txn, elapsed_ns: int | None) -> None:
    if elapsed_ns is not None:
        metrics.observe(txn, "scheduler_match_latency_seconds", elapsed_ns)


def _missing_funds(txn: Txn, job: Job, offer: Offer) -> Refused | None:
    """Whether the buyer can pay escrow and bond; the matcher has seen to the provider's bond."""
    ct, it = split(job.units * offer.price_per_unit, offer.fee_pct_ct)
    try:
        ledger.require(txn, ledger.wallet(job.buyer), "CT", ct + job.consumer_bond)
        ledger.require(txn, ledger.wallet(job.buyer), "IT", it)
    except RefusedError as error:
        return Refused("insufficient_funds", error.message, error.hint)
    return None


def _place(txn: Txn, job: Job, placement: _Placement, inputs: list[Slice] | None) -> Job:
    # After this point the submission must succeed.
    offer = placement.match.offer
    receipts.claim(txn, job, offer.provider, offer.price_per_unit)
    admission.charge(txn, job.buyer, offer.provider, placement.admitted)
    job = jobs.enqueue(txn, job, offer, funded=placement.funded, inputs=inputs)
    decisions.log(txn, job, "admitted", "admitted", f"offer {offer.offer_id} of {offer.provider}")
    return job


def _check_takes_proofs(txn: Txn, job: Job) -> None:
    if job.state in ("completed", "cancelled", "failed"):
        raise AlreadyDoneError(f"job {job.job_id} is {job.state}")
    if job.state != "active":
        raise RefusedError(
            f"job {job.job_id} is {job.state}, only an active job takes proofs",
            reason="not_active",
        )
    if txn.now > job.deadline:
        raise RefusedError(
            f"the deadline {job.deadline} of job {job.job_id} has passed", reason="deadline"
        )


def _cancel_penalty(txn: Txn, config: Config, job: Job, provider: str) -> int:
    """Note a cancel by a provider; the part of its bond that is burned for it, rounded up."""
    prefix = provider.encode() + b"\0"
    window_ms = config.provider_cancel_window_secs * 1000
    since = prefix + pack_u64(max(0, txn.now_ms - window_ms))
    for key, _ in txn.collect("provider_cancels", 64, prefix):
        if key < since:
            txn.delete("provider_cancels", key)
    txn.put("provider_cancels", prefix + pack_u64(txn.now_ms) + job.job_id.encode())
    after = config.provider_cancel_penalty_after
    if not job.funded or len(txn.collect("provider_cancels", after, prefix, since)) < after:
        return 0
    return -(-job.provider_bond * config.provider_cancel_slash_pct // 100)


def _fail_overdue(txn: Txn, config: Config, job: Job) -> None:
    at_fault = job.state == "active"
    jobs.close(
        txn,
        config,
        job,
        "failed",
        "deadline",
        "deadline missed" if at_fault else "deadline passed before a start",
        burn_ct=job.provider_bond if at_fault and job.funded else 0,
        burn_event="sla:slash",
    )
    if at_fault:
        offers.record_outcome(txn, job.provider or "", -1)
        metrics.count(txn, "industrial_rejected_total", "SLA")


def _overdue(txn: Txn, limit: int) -> list[str]:
    return [
        key[8:].decode()
        for key, _ in txn.collect("deadlines", limit)
        if int.from_bytes(key[:8], "big") < txn.now
    ]


def _note_throughput(txn: Txn, units: int) -> None:
    key = pack_u64(txn.now)
    before = int.from_bytes(txn.get("throughput", key) or b"", "big")
    txn.put("throughput", key, pack_u64(before + units))
    oldest = pack_u64(max(0, txn.now - admission.WINDOW_SECS))
    for stale, _ in txn.collect("throughput", 4):
        if stale <= oldest:
            txn.delete("throughput", stale)
