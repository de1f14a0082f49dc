"""Why a job runs, waits or is refused: what the market says of it as it is now.

The verdicts are those of the matcher, what holds a job is what admission, the wallets and the queue
would say to it in the next transaction. Writes nothing.
"""

from typing import Any, Final

from compute_market import archived, events
from compute_market.admission import admission, capacity
from compute_market.errors import ConflictError, NotFoundError, RefusedError
from compute_market.jobs import drafts, jobs, waiting
from compute_market.offers import offers
from compute_market.records import LIVE_STATES, Job, Slice
from compute_market.requests import JobRequest
from compute_market.scheduler import counterfactual, queue
from compute_market.scheduler import explain as matching
from compute_market.store.txn import Txn

# Of those ahead of a job that waits for a slot, so many are named.
AHEAD_MAX: Final = 10


def explain(txn: Txn, job: Job, *, offer_id: str | None = None) -> dict[str, Any]:
    """All there is to say of a job of the market; of one `offer_id` alone, if given.

    Raises NotFoundError for an offer that does not exist.
    """
    about = {"job_id": job.job_id, "state": job.state, "decision": _decision(txn, job)}
    held, place = None, None
    if job.state == "queued":
        place = _place(txn, job)
        held = {"by": place["held_by"], "message": _words(txn, job)}
    elif job.state == "pending":
        held = _held(waiting.present_reason(txn, job))
    return about | {"held": held} | _offers(txn, job, offer_id) | _told(job, place)


def explain_stored(txn: Txn, job_id: str, offer_id: str | None = None) -> dict[str, Any]:
    """The same by the id of a job. Raises NotFoundError also for a job that is not there."""
    job = jobs.find(txn, job_id)
    if job is None:
        raise never_stored(txn, job_id)
    return explain(txn, job, offer_id=offer_id)


def explain_draft(
    txn: Txn,
    request: JobRequest,
    inputs: list[Slice],
    *,
    is_ours: bool,
    is_whole: bool,
    offer_id: str | None = None,
) -> dict[str, Any]:
    """The same of a job that is not there yet. Its state is null.

    Without a buyer of its own (`is_ours` is false) nobody's share or wallet is asked for it; of
    one that is not whole nobody asks either whether its id is that of another.
    """
    job = drafts.sketch(request, inputs, txn.now)
    decision = events.decision_document(txn, job.job_id)  # It may have been refused before.
    about = {"job_id": job.job_id, "state": None, "decision": decision}
    reason: waiting.Reason
    try:
        # What a submission asks before it looks for an offer.
        if is_whole:
            drafts.existing(txn, request, inputs)
        drafts.draft(request, inputs, txn.now, txn.config)
    except (ConflictError, RefusedError) as error:
        reason = waiting.by_error(error)
    else:
        reason = waiting.present_reason(txn, job) if is_ours else _of_anybody(txn, job)
    return about | {"held": _held(reason)} | _offers(txn, job, offer_id) | _told(job, None, "")


def _offers(txn: Txn, job: Job, offer_id: str | None) -> dict[str, Any]:
    """The verdicts, how many fit, who wins, and how near the others came."""
    if offer_id is not None:
        offers.get(txn, offer_id)
    verdicts = matching.explain(txn, job)
    shown = [each for each in verdicts if offer_id in (None, each.offer.offer_id)]
    totals: dict[str, int] = {}
    for verdict in shown:
        totals[verdict.result] = totals.get(verdict.result, 0) + 1
    miss = counterfactual.nearest(job, verdicts if offer_id is None else shown)
    winner = verdicts[0] if verdicts and verdicts[0].fits else None
    return {
        "totals": totals,
        "offers": [matching.document(each) for each in shown],
        "fitting": sum(each.fits for each in shown),
        # What was withdrawn is listed, and offers nothing.
        "considered": sum(each.offer.state != "withdrawn" for each in shown),
        "winner": None
        if winner is None
        else {
            "offer_id": winner.offer.offer_id,
            "provider": winner.offer.provider,
            "effective_price": winner.effective_price,
        },
        "nearest": None if miss is None else counterfactual.document(miss),
    }


def _told(job: Job, place: dict[str, Any] | None, note: str | None = None) -> dict[str, Any]:
    """Where a job stands in the queue, and what the verdicts on one that has a place mean."""
    if note is None and job.state not in LIVE_STATES:
        note = f"job {job.job_id} has ended ({job.state}): this is the market as it is now"
    elif note is None and job.placement is not None:
        on = job.placement.offer_id
        note = f"job {job.job_id} has its units of {on}: this is how another like it would fare now"
    return {"queue": place, "note": note or None}


def _held(reason: waiting.Reason) -> dict[str, Any] | None:
    """What keeps a job out that some offer fits; null if nothing does, or no offer fits."""
    if reason.held_by is None or reason.held_by in waiting.LACKING:
        return None
    return {
        "by": reason.held_by,
        "message": reason.message,
        "hint": reason.hint,
        "retry_after_ms": reason.retry_after_ms,
    }


def _of_anybody(txn: Txn, job: Job) -> waiting.Reason:
    """What the load of the market says of a job, whoever's it is."""
    estimate, market = capacity.estimate(txn), capacity.whole_market(txn)
    refused = admission.gate(txn, job) or capacity.check(txn, estimate, market, job.units)
    if refused is None:
        return waiting.Reason(None, "")
    return waiting.by_admission(refused)


def _place(txn: Txn, job: Job) -> dict[str, Any]:
    """Where a queued job stands, what holds it, and who is ahead of it: not those that are held."""
    held = {each.job_id for each in queue.held(txn) if each.state == "queued"}
    ahead: list[str] = []
    before = held_before = 0
    for job_id in queue.in_order(txn):
        if job_id == job.job_id:
            break
        before += 1
        if job_id in held:
            held_before += 1
        elif len(ahead) < AHEAD_MAX:
            ahead.append(job_id)
    return {
        "place": before + 1,
        "waiting": sum(queue.depth(txn, priority) for priority in queue.TABLES) + len(held),
        "held_by": queue.held_by(txn, job),
        "ahead": ahead,
        "held_ahead": held_before,
        "waited_ms": max(0, txn.now_ms - job.queued_ms),
    }


def _words(txn: Txn, job: Job) -> str:
    """What holds a queued job, with the numbers behind it."""
    held, slots = queue.held_by(txn, job), txn.config.slots
    if held == "hold":
        return waiting.until_released(job)
    if held == "slots":
        return f"{queue.active_jobs(txn)} of {slots} slots are taken"
    if held == "cap":
        share = txn.config.low_priority_cap_pct
        return f"jobs of low priority have their {share} % of {slots} slots"
    return "those ahead of it"


def _decision(txn: Txn, job: Job) -> dict[str, Any] | None:
    """The last word about a job; why one that waits for an offer would not get in now."""
    last = events.decision_document(txn, job.job_id)
    if job.state != "pending" or not job.seq:
        return last
    reason = waiting.present_reason(txn, job)
    told = {"verdict": "pending", "at": job.submitted_at, "units": job.units}
    now = {"mode": admission.mode(txn), "reason": reason.held_by, "message": reason.message}
    return (last or told) | now


def never_stored(txn: Txn, job_id: str) -> NotFoundError:
    """What there is to say of a job that is not there: the log may know why."""
    if archived.job(txn, job_id) is not None:
        return archived.missing(txn, job_id)
    last = events.decision_document(txn, job_id)
    message = f"job {job_id} does not exist"
    if last is not None and "reason" in last:
        message += f": it was {last['verdict']}, {last['reason']}: {last.get('message', '')}"
    return NotFoundError(
        message, hint="explain takes a job file, or the options of `submit`, as well"
    )
