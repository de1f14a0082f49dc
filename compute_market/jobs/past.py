"""A job at an earlier time: what its events since then have changed is taken back.

The log is trimmed and jobs are kept, so there are times of which nobody knows any more how a job
stood; who asks for one is told so.
"""

from itertools import islice
from typing import Any

from compute_market import events
from compute_market.errors import NotFoundError
from compute_market.events import Logged
from compute_market.jobs import documents, jobs
from compute_market.records import DEADLINE_MAX, LIVE_STATES, Job, JobState
from compute_market.store.schema import EVENTS
from compute_market.store.txn import Txn

_BEGINNINGS = frozenset(("job_queued", "job_pending"))
_ENDINGS = frozenset(("job_completed", "job_cancelled", "job_failed"))
_HOLDING = frozenset(("job_held", "job_released"))


def document(txn: Txn, job_id: str, at_ms: int) -> dict[str, Any]:
    """A job as it was at an instant: the fields of a job but for its money, and its last event.

    Raises NotFoundError for a job that is not there, or was not there yet (`not_yet`), and when the
    log does not reach back so far (`log_trimmed`).
    """
    job = jobs.get(txn, job_id)
    known = events.history(txn, job)
    earlier = [each for each in known if each.at_ms <= at_ms]
    later = known[len(earlier) :]
    if at_ms // 1000 < job.submitted_at or (not earlier and _has_beginning(known)):
        raise NotFoundError(
            f"job {job_id} was not there yet: it was submitted later",
            hint=f"see `tb-cli compute history {job_id}`",
            reason="not_yet",
            known_from_ms=known[0].at_ms if _has_beginning(known) else job.submitted_at * 1000,
        )
    _check_reached(txn, job, known, at_ms)
    return _document(txn, job, earlier, later, at_ms)


def _document(
    txn: Txn, job: Job, earlier: list[Logged], later: list[Logged], at_ms: int
) -> dict[str, Any]:
    happened_since = {each.event.event for each in later}
    is_placed = job.placement is not None and "job_queued" not in happened_since
    is_started = job.started_at is not None and "job_started" not in happened_since
    has_ended = job.ended_at is not None and not happened_since & _ENDINGS
    waiting: JobState = "queued" if is_placed else "pending"
    state = job.state if has_ended else "active" if is_started else waiting
    on = None
    if is_placed:
        handed_over = sum(each.event.event == "job_handed_over" for each in later)
        on = jobs.placements(txn, job)[-1 - handed_over]
    deadline = _deadline(job, later, is_started=is_started)
    last = earlier[-1] if earlier else None
    return {
        "job_id": job.job_id,
        "at_ms": at_ms,
        "state": state,
        "buyer": job.buyer,
        "provider": None if on is None else on.provider,
        "offer_id": None if on is None else on.offer_id,
        "workload": job.workload,
        "priority": _first_of(later, "was_priority", job.priority),
        "lane": job.lane,
        "units": job.units,
        "units_proven": job.units_proven - _sum_of(later, "job_proved", "units"),
        "slices": job.slices,
        "slices_proven": job.slices_proven - _sum_of(later, "job_proved", "slices"),
        "price_per_unit": None if on is None else on.price_per_unit,
        "max_price_per_unit": job.max_price_per_unit,
        "fee_pct_ct": None if on is None else on.fee_pct_ct,
        "deadline": deadline,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at if is_started else None,
        "ended_at": job.ended_at if has_ended else None,
        "funded": on is not None and on.funded,
        "cause": job.cause if has_ended else None,
        "ended_by": documents.ended_early_by(job) if has_ended else None,
        "overdue": state in LIVE_STATES and at_ms // 1000 > deadline,
        "held": _was_held(job, earlier, later),
        "last_event": None if last is None else {"event": last.event.event, "at_ms": last.at_ms},
    }


def _has_beginning(known: list[Logged]) -> bool:
    """Whether the log has all of a job."""
    return bool(known) and known[0].event.event in _BEGINNINGS and not known[0].event.before


def _check_reached(txn: Txn, job: Job, known: list[Logged], at_ms: int) -> None:
    """Raise NotFoundError unless all that happened to a job since an instant is known."""
    if _has_beginning(known):
        return
    reaches_ms: int | None = None
    missing = known[0].event.before if known else job.event_seq
    if missing:
        # It was trimmed with all that is older than the first entry.
        for key, payload in islice(txn.scan(EVENTS), 1):
            reaches_ms = EVENTS.decode(key, payload).at_ms
    elif known:
        reaches_ms = known[0].at_ms  # An older release logged nothing of it before.
    if reaches_ms is None or at_ms < reaches_ms:
        raise NotFoundError(
            f"how job {job.job_id} stood then is not known: the log does not reach back so far",
            hint=f"see `tb-cli compute history {job.job_id}`",
            reason="log_trimmed",
            known_from_ms=reaches_ms,
        )


def _deadline(job: Job, later: list[Logged], *, is_started: bool) -> int:
    """The deadline; while a job with a span waits, it is that span since the submission."""
    moved_since = _sum_of(later, "deadline_extended", "by_secs")
    if is_started or job.deadline_secs is None or job.started_at is None:
        return job.deadline - moved_since
    asked = min(job.submitted_at + job.deadline_secs, DEADLINE_MAX)
    return asked + job.extended_secs - moved_since


def _was_held(job: Job, earlier: list[Logged], later: list[Logged]) -> bool | None:
    """Whether a job was held; None where the log no longer tells."""
    for each in reversed(earlier):
        if each.event.event in _HOLDING | _ENDINGS:
            return each.event.event == "job_held"
    for each in later:
        if each.event.event in _HOLDING:
            return each.event.event == "job_released"
    has_ended_since = any(each.event.event in _ENDINGS for each in later)
    return None if has_ended_since and not _has_beginning([*earlier, *later]) else job.held


def _sum_of(logged: list[Logged], event: str, name: str) -> int:
    """The sum of a number that all events of a kind tell."""
    return sum(each.event.detail[name] for each in logged if each.event.event == event)


def _first_of(logged: list[Logged], name: str, default: Any) -> Any:
    """What the first event that tells it says."""
    return next((each.event.detail[name] for each in logged if name in each.event.detail), default)
