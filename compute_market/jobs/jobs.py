"""Job records: how they are read, shown and moved from state to state. The only writer of jobs.

The actions that decide about these moves are beside it: `submit`, `prove`, `cancel`, `expire`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from compute_market import events, metrics
from compute_market.amounts import units_of
from compute_market.errors import UsageError
from compute_market.offers import offers
from compute_market.records import (
    DEADLINE_MAX,
    LIVE_STATES,
    Actor,
    Cause,
    Event,
    EventName,
    Job,
    JobState,
    Offer,
    Placement,
    Priority,
    Side,
    Slice,
    replace,
)
from compute_market.scheduler import queue
from compute_market.settlement import escrow, receipts, settlement
from compute_market.store.schema import (
    BACKLOG,
    DEADLINES,
    ENDED,
    JOBS,
    PARTY_JOBS,
    PLACEMENTS,
    SLICES,
    SUBMITTED,
    id_prefix,
    pack_u64,
    party_key,
)
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.receipt_records import Settlement

PRIORITY_MISS_MS = 5_000
_BACKLOG_UNITS = b"units"
_Fields = dict[str, Any]  # of a detail or a record, by name
_ENDINGS: dict[JobState, EventName] = {
    "completed": "job_completed",
    "cancelled": "job_cancelled",
    "failed": "job_failed",
}


def get(txn: Txn, job_id: str) -> Job:
    """The job. Raises NotFoundError, with the reason `archived` for one that was archived."""
    job = find(txn, job_id)
    if job is None:
        from compute_market import archived  # Most jobs that are asked for are there.

        raise archived.missing(txn, job_id)
    return job


def find(txn: Txn, job_id: str) -> Job | None:
    return txn.read(JOBS, job_id.encode())


def named(txn: Txn, job_id: bytes) -> Job:
    """The job that an index names. Raises IntegrityError when it is missing."""
    return txn.must_read(JOBS, job_id)


def named_each(txn: Txn, job_ids: list[bytes]) -> Iterator[Job]:
    """The same of many, in their order, with one look for all of them."""
    return txn.must_read_each(JOBS, job_ids)


def slices(txn: Txn, job_id: str) -> Iterator[Slice]:
    """The slices of a job in order."""
    return txn.records(SLICES, id_prefix(job_id))


def slices_of(txn: Txn, job: Job) -> list[Slice]:
    """The same of a job that is at hand: most have one slice, which is found without a walk."""
    if job.slices != 1:
        return list(slices(txn, job.job_id))
    only = txn.read(SLICES, numbered(job.job_id, 0))
    return [] if only is None else [only]


def slice_at(txn: Txn, job: Job, index: int) -> Slice:
    """One slice. Raises UsageError for an index the job does not have."""
    if not 0 <= index < job.slices:
        raise UsageError(
            f"job {job.job_id} has no slice {index}", hint=f"slices are 0…{job.slices - 1}"
        )
    return txn.must_read(SLICES, numbered(job.job_id, index))


def placements(txn: Txn, job: Job) -> list[Placement]:
    """All that a job was given to, the present one last; none while it is pending."""
    present = [] if job.placement is None else [job.placement]
    if not job.placements_before:  # Most often.
        return present
    earlier = range(job.placements_before)
    return [txn.must_read(PLACEMENTS, numbered(job.job_id, number)) for number in earlier] + present


def live_ids(txn: Txn) -> Iterator[str]:
    """Ids of every pending, queued and active job, the nearest deadline first."""
    for key, _ in txn.scan(DEADLINES):
        yield key[8:].decode()


def is_overdue(txn: Txn, job: Job) -> bool:
    """Whether a job is to be failed by the next change of the market."""
    return job.state in LIVE_STATES and job.deadline < txn.now


def backlog_units(txn: Txn) -> int:
    """Unproven units of queued and active jobs."""
    return txn.sum(BACKLOG, _BACKLOG_UNITS)


def keep_pending(txn: Txn, job: Job, inputs: list[Slice], reason: str, mode: str) -> Job:
    """Store a job that has no match yet; `mode` is that of the comfort guard."""
    job = replace(job, seq=_store_new(txn, job, inputs))
    queue.enter_pending(txn, job)
    return _moved(txn, job, "job_pending", {"reason": reason, "units": job.units, "mode": mode})


def enqueue(
    txn: Txn,
    job: Job,
    offer: Offer,
    placement: Placement,
    inputs: list[Slice] | None,
    mode: str,
    burst_micro: int = 0,
) -> Job:
    """Give a job to an offer: units reserved, money locked if funded, a place in the queue.

    `inputs` are the slices of a job that is not stored yet, `mode` that of the comfort guard, and
    `burst_micro` what was charged beside usage. The caller has checked the funds.
    """
    if inputs is None:
        queue.leave_pending(txn, job)
        seq = job.seq
    else:
        seq = _store_new(txn, job, inputs)
    txn.put(PARTY_JOBS, party_key("provider", placement.provider, seq))
    job = replace(
        job,
        seq=seq,
        state="queued",
        deferred=False,
        placement=placement,
        queue_seq=txn.next_number("queue_seq"),
        queued_ms=txn.now_ms,
        burst_micro=burst_micro,
    )
    offers.reserve(txn, offer, job.units)
    txn.add(BACKLOG, _BACKLOG_UNITS, job.units)
    if placement.funded:
        escrow.lock(txn, job)
    # A submission works the queue next: where nobody waits, the job need not go through it.
    at_once = inputs is not None and queue.takes_at_once(txn, job)
    if not at_once:
        queue.enter(txn, job)
    detail: _Fields = {"provider": offer.provider, "units": job.units}
    detail |= {"price_per_unit": offer.price_per_unit, "funded": placement.funded, "mode": mode}
    queued = Event("job_queued", job.job_id, offer.offer_id, job.buyer, detail, job.event_seq)
    seq = events.add(txn, queued)
    return _start(txn, job, seq) if at_once else with_event(txn, job, seq)


def start(txn: Txn, job: Job) -> Job:
    """Move a job from the queue to a slot. Now the time that its provider was promised begins."""
    queue.leave(txn, job)
    return _start(txn, job, job.event_seq)


def _start(txn: Txn, job: Job, before: int) -> Job:
    """The same of a job that is in no queue; `before` is the last event of it."""
    queue.take_slot(txn, job)
    waited_ms = txn.now_ms - job.queued_ms
    if job.priority != "low" and waited_ms > PRIORITY_MISS_MS:
        metrics.count(txn, "scheduler_priority_miss_total")
    deadline = job.deadline
    if job.deadline_secs is not None:
        # Unless it was moved beyond that while the job waited.
        promised = txn.now + job.deadline_secs
        if promised > deadline:
            deadline = min(promised, DEADLINE_MAX)
    if deadline != job.deadline:
        txn.delete(DEADLINES, listed_key(job.deadline, job.job_id))
        txn.put(DEADLINES, listed_key(deadline, job.job_id))
    detail = {"waited_ms": waited_ms if waited_ms > 0 else 0}
    seq = events.add(txn, Event("job_started", job.job_id, None, job.buyer, detail, before))
    begun: Job = replace(job, state="active", started_at=txn.now, deadline=deadline, event_seq=seq)
    return _stored(txn, begun)


def prove_slices(txn: Txn, job: Job, proven: dict[int, Slice]) -> Job:
    """Credit slices, by index, whose proofs were accepted to the provider that holds the job."""
    units = 0
    for index, entry in proven.items():
        units += units_of(entry.length)
        txn.write(SLICES, numbered(job.job_id, index), replace(entry, proven_ms=txn.now_ms))
    placement = job.placed
    offers.prove(txn, placement.offer_id, units)
    txn.add(BACKLOG, _BACKLOG_UNITS, -units)
    metrics.count(txn, "industrial_units_total", by=units)
    placement = replace(placement, units_proven=placement.units_proven + units)
    detail = {"slices": len(proven), "units": units, "provider": placement.provider}
    unreadable = None if job.unreadable_slice in proven else job.unreadable_slice
    changes: _Fields = {"placement": placement, "unreadable_slice": unreadable}
    changes |= {"slices_proven": job.slices_proven + len(proven)}
    changes |= {"units_proven": job.units_proven + units}
    return _moved(txn, job, "job_proved", detail, changes)


def keep_handed_over(txn: Txn, job: Job, placement: Placement, detail: dict[str, Any]) -> Job:
    """Store that what is left of an active job was given to another offer; see `handovers`."""
    txn.write(PLACEMENTS, numbered(job.job_id, job.placements_before), job.placed)
    txn.remove(PARTY_JOBS, party_key("provider", job.placed.provider, job.seq))
    txn.put(PARTY_JOBS, party_key("provider", placement.provider, job.seq))
    job = replace(job, placement=placement, placements_before=job.placements_before + 1)
    return _moved(txn, job, "job_handed_over", detail, offer_id=placement.offer_id)


def postpone(txn: Txn, job: Job, deadline: int) -> Job:
    """Move the deadline of a live job to a later second."""
    txn.delete(DEADLINES, listed_key(job.deadline, job.job_id))
    by_secs = deadline - job.deadline
    job = replace(job, deadline=deadline, extended_secs=job.extended_secs + by_secs)
    txn.put(DEADLINES, listed_key(job.deadline, job.job_id))
    return _moved(txn, job, "deadline_extended", {"deadline": deadline, "by_secs": by_secs})


def hold(txn: Txn, job: Job) -> Job:
    """Keep a job that waits from being started, in the place that it has."""
    queue.leave_waiting(txn, job)
    job = replace(job, held=True, deferred=False)
    queue.count(txn, job, +1)
    return _moved(txn, job, "job_held", {})


def release(txn: Txn, job: Job) -> Job:
    """Let a job that was held wait again, where it waited before."""
    queue.leave_waiting(txn, job)
    job = replace(job, held=False)
    queue.enter_again(txn, job)
    return _moved(txn, job, "job_released", {})


def prefer(txn: Txn, job: Job, priority: Priority) -> Job:
    """Give a live job another priority: its place is among those of it, by its age."""
    detail = {"was_priority": job.priority, "priority": priority}
    asked = job.asked_priority or job.priority
    changed = replace(job, priority=priority, asked_priority=None if asked == priority else asked)
    if job.state == "active":
        queue.prefer_active(txn, job, priority)
    elif not job.held:
        queue.leave_waiting(txn, job)
        queue.enter_again(txn, changed)
    return _moved(txn, changed, "job_changed", detail)


def close(
    txn: Txn,
    job: Job,
    state: JobState,
    ended_by: Actor,
    cause: Cause,
    *,
    burn_ct: int = 0,
    burn_event: str = "",
    burn_of: Side = "provider",
    reason: str | None = None,
) -> Job:
    """End a live job: slot, queue place and units given back, receipts, payments, refunds, bonds.

    Of a funded job, `burn_ct` of the bond of the side `burn_of` is burned under `burn_event`. The
    log keeps a `reason`.
    """
    _leave_indexes(txn, job)
    settled: list[Settlement] = []
    if job.placement is not None:
        left = job.units - job.units_proven
        if left:
            offers.release(txn, job.placement.offer_id, left)
            txn.add(BACKLOG, _BACKLOG_UNITS, -left)
        for placement in placements(txn, job):
            if placement.units_proven:
                receipt, _ = receipts.issue(txn, job, placement)
                settled.append(settlement.settle(txn, job, placement, receipt))
    if job.funded:
        if settled:
            job = _with_payments(job, settled)
        job = escrow.close(txn, job, settled, burn_ct, burn_event, burn_of)
    detail: _Fields = {
        "by": ended_by,
        "cause": cause,
        "units_proven": job.units_proven,
        "paid_ct": job.paid_ct,
        "paid_it": job.paid_it,
        "refunded_ct": job.refunded_ct,
        "refunded_it": job.refunded_it,
    }
    if reason is not None:
        detail["reason"] = reason
    ended = {"state": state, "ended_at": txn.now, "ended_by": ended_by, "cause": cause}
    return _moved(txn, job, _ENDINGS[state], detail, ended | {"deferred": False, "held": False})


def remember_unreadable(txn: Txn, job: Job, index: int) -> Job:
    """Keep in mind that a slice could not be read; a proof of it makes that good."""
    return _moved(txn, replace(job, unreadable_slice=index), "slice_unreadable", {"slice": index})


def mark_paid(txn: Txn, settled: "Settlement") -> None:
    """Show on the job what its receipt, which had waited, was paid."""
    job = _with_payments(named(txn, settled.job_id.encode()), [settled])
    _moved(txn, job, "job_paid", {"provider": settled.provider, "ct": settled.ct, "it": settled.it})


def defer(txn: Txn, job: Job, deferred: bool) -> Job:
    """Keep in mind whether the load alone kept a pending job out when it was tried last."""
    queue.count(txn, job, -1)
    job = _stored(txn, replace(job, deferred=deferred))
    queue.count(txn, job, +1)
    return job


def with_event(txn: Txn, job: Job, seq: int) -> Job:
    """Store that an event is the last one of a job."""
    return _stored(txn, replace(job, event_seq=seq))


def _moved(
    txn: Txn,
    job: Job,
    event: EventName,
    detail: _Fields,
    changes: _Fields | None = None,
    offer_id: str | None = None,
) -> Job:
    """Store a job as it is by now, but for these changes, and what brought it there."""
    seq = events.add(txn, Event(event, job.job_id, offer_id, job.buyer, detail, job.event_seq))
    return _stored(txn, replace(job, event_seq=seq, **(changes or {})))


def _stored(txn: Txn, job: Job) -> Job:
    txn.write(JOBS, job.job_id.encode(), job)
    return job


def _store_new(txn: Txn, job: Job, inputs: list[Slice]) -> int:
    """Store what a new job has beside its record, and return the seq that it gets."""
    seq = txn.next_number("job_seq")
    txn.put(SUBMITTED, pack_u64(seq), job.job_id.encode())
    txn.put(PARTY_JOBS, party_key("buyer", job.buyer, seq))
    for index, entry in enumerate(inputs):
        txn.write(SLICES, numbered(job.job_id, index), entry)
    txn.put(DEADLINES, listed_key(job.deadline, job.job_id))
    return seq


def _with_payments(job: Job, settled: "list[Settlement]") -> Job:
    applied = [due for due in settled if due.status == "applied"]
    return replace(
        job,
        paid_ct=job.paid_ct + sum(due.ct for due in applied),
        paid_it=job.paid_it + sum(due.it for due in applied),
    )


def _leave_indexes(txn: Txn, job: Job) -> None:
    txn.remove(DEADLINES, listed_key(job.deadline, job.job_id))
    if job.state == "active":
        queue.free_slot(txn, job)
    else:
        queue.leave_waiting(txn, job)
    txn.put(ENDED, listed_key(txn.now, job.job_id))


def numbered(job_id: str, number: int) -> bytes:
    """The key of a slice or of an earlier placement."""
    return job_id.encode() + b"\0" + number.to_bytes(8)


def listed_key(second: int, job_id: str) -> bytes:
    """The key of a live job in the order of deadlines, or of an ended one in that of ends."""
    return second.to_bytes(8) + job_id.encode()
