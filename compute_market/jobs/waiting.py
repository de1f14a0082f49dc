"""Jobs without a place: why they wait, and when they are tried again.

Whatever may help one of them (`Txn.helped`, `Txn.stirred`) leaves a mark. The next change of the
market first tries them in queue order, so that none is forgotten, and none overtaken by a job that
comes later: a submission finds only what no waiting job of its priority or above could take.
"""

from binascii import crc32

from msgspec import Struct

from compute_market import events
from compute_market.admission import admission
from compute_market.errors import ConflictError, MarketError, RefusedError
from compute_market.jobs import drafts, jobs, placing
from compute_market.jobs.placing import Decided, Unplaced
from compute_market.jobs.work import work
from compute_market.offers import offers
from compute_market.offers.standing import follow_wallets
from compute_market.records import PRIORITIES, Job, Offer, Priority, Refused
from compute_market.scheduler import queue
from compute_market.scheduler.matching import NoMatch, judge
from compute_market.settlement import modes
from compute_market.store.schema import PENDING, unpack_u64
from compute_market.store.txn import Txn

# Jobs that one change of the market tries at most.
TRIED_MAX = 256
_KEY_BYTES = 1 + 8  # priority, seq

_MARKED = "pending_marked"  # something may have helped since the present pass began
_NEXT = "pending_next"  # where a pass that is not through goes on, as a number; 0 without one
_REFUSED = "pending_refused"  # admission or funds stopped some: another best offer may help too
_RETRY_MS = "pending_retry_ms"  # when time alone may have helped; 0 for never
_GUARDED = "pending_guarded"  # the comfort guard stopped some
_SETTINGS = "pending_settings"  # under which of them the present pass began

_RESULTS = {
    "capability_mismatch": "no offer",
    "price_mismatch": "price",
    "no_capacity": "units",
    "reputation_failure": "reputation",
    "bond_unfunded": "bond_unfunded",
}


# What holds a job that no offer fits.
LACKING = frozenset(_RESULTS.values())


class Reason(Struct, frozen=True, gc=False):
    """Why a job without a place waits at present; `held_by` is None if the next change takes it."""

    held_by: str | None
    message: str
    hint: str | None = None
    retry_after_ms: int | None = None  # when it would pass by time alone, if it would


def until_released(job: Job) -> str:
    """What a job that is held waits for."""
    return f"it is held until `tb-cli compute release {job.job_id}`"


def present_reason(txn: Txn, job: Job) -> Reason:
    """Why a pending job would not get in now."""
    if job.held:
        return Reason("hold", until_released(job))
    late = _too_late(txn, job)
    if late is not None:
        return Reason("deadline", late)
    try:
        verdict = placing.decide(txn, job)
    except (ConflictError, RefusedError) as error:
        return by_error(error)
    if isinstance(verdict, NoMatch):
        return Reason(_RESULTS[verdict.result], verdict.message)
    if isinstance(verdict, Unplaced):
        refused = verdict.refused
        if verdict.by_admission:
            return by_admission(refused)
        return Reason("funds", refused.message, refused.hint)
    return Reason(None, f"offer {verdict.placement.offer_id} fits, the next change takes it")


def by_admission(refused: Refused) -> Reason:
    """A refusal by admission as what holds a job."""
    by = f"admission: {refused.reason}"
    return Reason(by, refused.message, refused.hint, refused.retry_after_ms)


def by_error(error: MarketError) -> Reason:
    """What no market could take, or is something else already, as what holds a job."""
    return Reason(error.reason or error.token, error.message, error.hint)


def mark(txn: Txn) -> None:
    """Note at the end of a change whether it may have helped a job that waits."""
    if _has_helped(txn):
        _set(txn, _MARKED, 1)


def try_again(txn: Txn) -> list[str]:
    """Try the next jobs that wait, in queue order, if that is due: what a change does first.

    Returns the ids that found a match. The caller works the queue.
    """
    follow_wallets(txn)
    retry_ms = txn.number(_RETRY_MS)
    is_due = (
        _has_helped(txn)
        or txn.number(_NEXT) > 0
        or 0 < retry_ms <= txn.now_ms
        or txn.number(_SETTINGS) != _settings(txn)
    )
    if not is_due:
        return []
    if not txn.number(_NEXT):
        _begin(txn)  # Else those behind come first: they were helped before.
    return _go_on(txn, "low")


def let_pass(txn: Txn, priority: Priority) -> bool:
    """Let those that wait and are of this priority or above go before a job that would get in.

    Those that have not been tried since something helped; at most `TRIED_MAX` of them. Whether
    there were any.
    """
    if txn.helped or txn.number(_MARKED):
        _begin(txn)
    elif txn.number(_NEXT) >> 64 > PRIORITIES.index(priority) or not txn.number(_NEXT):
        return False
    if _go_on(txn, priority):
        work(txn)
    return True


def match_pending(txn: Txn, offer: Offer | None = None) -> list[str]:
    """Try all jobs that wait, in queue order; only those a new `offer` fits, if given.

    Returns the ids that found a match.
    """
    matched: list[str] = []
    real = modes.is_real(txn)
    if offer is None:
        _begin(txn)
    # A list, since each match takes its job out of the table.
    for job_id in list(queue.pending_ids(txn)):
        if offer is not None:
            if not offer.units_left:
                break
            if judge(txn, jobs.named(txn, job_id.encode()), offer, real=real):
                continue
        if _try(txn, job_id):
            matched.append(job_id)
            if offer is not None:
                offer = offers.get(txn, offer.offer_id)
    if matched:
        work(txn)
    return matched


def _has_helped(txn: Txn) -> bool:
    """Whether something has helped a job that waits since all of them were tried."""
    return bool(
        txn.helped
        or txn.number(_MARKED)
        or (txn.stirred and txn.number(_REFUSED))
        or (txn.number(_GUARDED) and admission.mode(txn) == "loose")
    )


def _go_on(txn: Txn, priority: Priority) -> list[str]:
    """Try the next jobs of a pass, down to a priority; the ids of those that found a match."""
    start = txn.number(_NEXT).to_bytes(_KEY_BYTES, "big")
    entries = txn.collect(PENDING, TRIED_MAX + 1, start=start)
    last = queue.rank_byte(priority)
    tried = [value[8:].decode() for key, value in entries[:TRIED_MAX] if key[:1] <= last]
    matched = [job_id for job_id in tried if _try(txn, job_id)]
    left = entries[len(tried) :]
    _set(txn, _NEXT, unpack_u64(left[0][0]) if left else 0)
    return matched


def _try(txn: Txn, job_id: str) -> bool:
    """Place a job that waits if it gets in now."""
    job = jobs.named(txn, job_id.encode())
    if jobs.is_overdue(txn, job):
        return False  # The sweep will get to it.
    if _too_late(txn, job) is not None:
        _defer(txn, job, None)
        return False
    try:
        verdict = placing.decide(txn, job)
    except (ConflictError, RefusedError):
        # It cannot go to the offer that is best for it; another may be.
        _set(txn, _REFUSED, 1)
        _defer(txn, job, None)
        return False
    if isinstance(verdict, Decided):
        placing.place(txn, job, verdict, None)
        return True
    _defer(txn, job, _load_in(verdict))
    if isinstance(verdict, Unplaced):
        _set(txn, _GUARDED if verdict.match is None else _REFUSED, 1)
        if verdict.refused.retry_after_ms is not None:
            at_ms = txn.now_ms + verdict.refused.retry_after_ms
            _set(txn, _RETRY_MS, min(at_ms, txn.number(_RETRY_MS) or at_ms))
    return False


def _too_late(txn: Txn, job: Job) -> str | None:
    """Why a job's own deadline, a second that it names, leaves too little time for any provider."""
    # One that is given in seconds begins when the job starts.
    return drafts.too_near(job.deadline, txn.now, txn.config) if job.deadline_secs is None else None


def _defer(txn: Txn, job: Job, refused: Refused | None) -> None:
    """Note that the present load alone keeps a job out from now on, or no longer (None).

    It is told and counted once for as long as it lasts.
    """
    if job.deferred == (refused is not None):
        return
    job = jobs.defer(txn, job, refused is not None)
    if refused is not None:
        admission.count_deferral(txn)
        seq = events.note(
            txn,
            "job_deferred",
            job_id=job.job_id,
            owner=job.buyer,
            before=job.event_seq,
            reason=refused.reason,
            message=refused.message,
            units=job.units,
            mode=admission.mode(txn),
        )
        jobs.with_event(txn, job, seq)


def _load_in(verdict: Unplaced | NoMatch) -> Refused | None:
    """The refusal of a verdict, if it is the present load alone that keeps a job out."""
    if not isinstance(verdict, Unplaced) or not verdict.by_admission:
        return None
    return verdict.refused if verdict.refused.reason in admission.DEFERRING else None


def _begin(txn: Txn) -> None:
    """Begin a pass over all jobs that wait: what helped before is about to be made use of."""
    txn.helped = txn.stirred = False
    _set(txn, _SETTINGS, _settings(txn))
    for name in (_MARKED, _NEXT, _REFUSED, _GUARDED, _RETRY_MS):
        _set(txn, name, 0)


def _settings(txn: Txn) -> int:
    """A number that stands for the settings that decide whether a job that waits gets in."""
    config = txn.config
    return 1 + crc32(
        b"%d %d %d %d %d %d"
        % (
            config.initial_capacity,
            config.min_capacity,
            config.fair_share_cap_ppm,
            config.burst_quota_micro,
            config.burst_refill_rate_micro,
            config.deadline_min_secs,
        )
    )


def _set(txn: Txn, name: str, number: int) -> None:
    if txn.number(name) != number:
        txn.set_number(name, number)
