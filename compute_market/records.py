"""The nouns of the market and how they are stored.

Records are immutable; a change is a new record (`replace`). They are stored as MessagePack arrays,
so fields are only ever appended, with a default. Times named `*_at` and `deadline` are unix
seconds, times named `*_ms` unix milliseconds.
"""

from typing import Literal, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace as replace

from compute_market.errors import UsageError

Token = Literal["CT", "IT"]
Actor = Literal["client", "provider", "deadline"]
Priority = Literal["high", "normal", "low"]
Lane = Literal["industrial", "consumer"]
JobState = Literal["pending", "queued", "active", "completed", "cancelled", "failed"]
OfferState = Literal["open", "exhausted", "withdrawn"]
Mode = Literal["dry_run", "armed", "real"]

PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
LIVE_STATES: tuple[JobState, ...] = ("pending", "queued", "active")
JOB_STATES: tuple[JobState, ...] = (*LIVE_STATES, "completed", "cancelled", "failed")
OFFER_STATES: tuple[OfferState, ...] = ("open", "exhausted", "withdrawn")

ID_LENGTH_MAX = 128
_ID_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_ID_REST = _ID_FIRST | frozenset(".:@+-")

R = TypeVar("R", bound=Struct)


def check_id(text: str, what: str) -> str:
    """Return `text` if it can be an id, else raise UsageError.

    Ids are 1…128 ASCII letters, digits and `_ . : @ + -`, and do not begin with punctuation other
    than `_`: they pass through shells, file names, log lines and key separators unchanged.
    """
    if not text:
        raise UsageError(f"{what} is empty", hint=_ID_HINT)
    if len(text) > ID_LENGTH_MAX:
        raise UsageError(
            f"{what} has {len(text)} characters, at most {ID_LENGTH_MAX} are allowed",
            hint=_ID_HINT,
        )
    if text[0] in _ID_FIRST and _ID_REST.issuperset(text):
        return text
    bad = text[0] if text[0] not in _ID_FIRST else next(c for c in text if c not in _ID_REST)
    raise UsageError(f"{what} {text!a} has the character {bad!a}", hint=_ID_HINT)


_ID_HINT = "ids are letters, digits and _ . : @ + - , and begin with a letter, a digit or _"


class Capability(Struct, frozen=True, array_like=True, gc=False):
    """What an offer has or a job asks for. Zero and None mean "none" and "any"."""

    cpu_cores: int = 0
    gpu: str | None = None
    gpu_count: int = 0
    gpu_memory_mb: int = 0  # total over all GPUs
    accelerator: str | None = None
    accelerator_memory_mb: int = 0


class Offer(Struct, frozen=True, array_like=True, gc=False):
    offer_id: str
    seq: int  # order of posting
    provider: str
    units: int  # always units_left + units_reserved + units_proven
    price_per_unit: int
    fee_pct_ct: int
    provider_bond: int  # CT locked per job taken
    consumer_bond: int  # least CT bond asked of the buyer
    capability: Capability
    reputation: int  # advertised
    multiplier_ppm: int
    job_id: str | None  # a directed offer: only this job may take it
    state: OfferState
    units_left: int
    units_reserved: int
    units_proven: int
    posted_at: int


class Job(Struct, frozen=True, array_like=True, gc=False):
    job_id: str
    seq: int  # order of submission
    state: JobState
    buyer: str
    workload: str
    capability: Capability
    slices: int
    units: int
    max_price_per_unit: int
    consumer_bond: int
    deadline: int
    deadline_secs: int | None  # as asked for; None when an absolute deadline was given
    priority: Priority
    lane: Lane
    submitted_at: int
    # The match; empty while pending.
    offer_id: str | None = None
    provider: str | None = None
    price_per_unit: int = 0
    fee_pct_ct: int = 0
    provider_bond: int = 0
    funded: bool = False
    # The queue.
    queue_seq: int = 0  # order of arrival in the queue
    queued_ms: int = 0
    started_at: int | None = None
    # Progress and money.
    slices_proven: int = 0
    units_proven: int = 0
    paid_ct: int = 0
    paid_it: int = 0
    refunded_ct: int = 0
    refunded_it: int = 0
    # The end.
    ended_at: int | None = None
    ended_by: Actor | None = None
    cause: str | None = None


class Slice(Struct, frozen=True, array_like=True, gc=False):
    path: str
    length: int  # bytes
    reference: bytes  # expected BLAKE3-256
    proven_ms: int | None = None


class Score(Struct, frozen=True, array_like=True, gc=False):
    score: int  # −1000 … 1000
    seed: int  # the advertised first score, part of `score`
    epoch: int
    changed_ms: int


class Posting(Struct, frozen=True, array_like=True, gc=False):
    seq: int
    at_ms: int
    token: Token
    amount: int
    debit: str  # account the amount leaves
    credit: str  # account the amount enters
    event: str
    ref: str


class Tap(Struct, frozen=True, array_like=True, gc=False):
    """One deposit or withdrawal, remembered under its idempotency key."""

    key: str
    event: Literal["deposit", "withdraw"]
    owner: str
    ct: int
    it: int
    at_ms: int


class Usage(Struct, frozen=True, array_like=True, gc=False):
    """Fair-share usage and burst bucket of one identity in one role, in micro-units."""

    used_micro: int
    burst_micro: int
    at_ms: int


class Receipt(Struct, frozen=True, array_like=True, gc=False):
    """What one provider proved of one job. Never changes; what was paid is its `Settlement`."""

    version: int
    job_id: str
    buyer: str
    provider: str
    quote_price: int
    units: int
    issued_at: int
    idempotency_key: bytes
    lane: Lane
    dry_run: bool
    seq: int


class Settlement(Struct, frozen=True, array_like=True, gc=False):
    """What became of the money of one receipt."""

    status: Literal["recorded", "pending", "applied"]
    ct: int  # due; moved once the status is applied
    it: int
    applied_ms: int | None = None


class Link(Struct, frozen=True, array_like=True, gc=False):
    """One link of the receipt chain."""

    key: bytes
    digest: bytes


class Cancellation(Struct, frozen=True, array_like=True, gc=False):
    """One line of `cancellations.log` and where it begins in that file."""

    job_id: str
    reason: str
    offset: int


class Decision(Struct, frozen=True, array_like=True, gc=False):
    """Why a job was let in or not, kept for post-mortems."""

    seq: int
    at_ms: int
    job_id: str
    buyer: str
    units: int
    verdict: Literal["admitted", "refused", "pending"]
    reason: str
    detail: str
    mode: str  # of the comfort guard


class SettleState(Struct, frozen=True, array_like=True, gc=False):
    mode: Mode
    activate_at: int | None = None  # height, while armed
    reason: str | None = None  # of the last fall to dry_run


class Refused(NamedTuple):
    """A verdict of "no" that is remembered: it commits, and the caller turns it into exit 5."""

    reason: str
    message: str
    hint: str | None = None
    retry_after_ms: int | None = None
