"""The nouns of the market and how they are stored.

Records are immutable; a change is a new record (`replace`). They are stored as MessagePack arrays,
so fields are only ever appended, with a default, and the values of a literal are only ever
appended too. Times named `*_at` and `deadline` are unix seconds, times named `*_ms` unix
milliseconds.
"""

from typing import Any, Literal, get_args

from msgspec import Struct
from msgspec.structs import replace as replace

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import RefusedError, UsageError
from compute_market.text import legible

Token = Literal["CT", "IT"]
Side = Literal["buyer", "provider"]
Actor = Literal["client", "provider", "deadline"]
Priority = Literal["high", "normal", "low"]
Lane = Literal["industrial", "consumer"]
JobState = Literal["pending", "queued", "active", "completed", "cancelled", "failed"]
OfferState = Literal["open", "exhausted", "withdrawn"]
Mode = Literal["dry_run", "armed", "real"]
# Why a job ended.
Cause = Literal[
    "all_proven",
    "cancelled_by_client",
    "cancelled_by_provider",
    "deadline_missed",
    "never_started",
    "outage",
    "slice_changed",
    "slice_unreadable",
]
# What may be wrong with a slice when it is run.
Fault = Literal["slice_changed", "slice_unreadable"]
# What the log tells of. `job_queued` is an admission.
EventName = Literal[
    "job_queued",
    "job_pending",
    "job_refused",
    "job_started",
    "job_proved",
    "proof_refused",
    "job_completed",
    "job_cancelled",
    "job_failed",
    "job_handed_over",
    "job_paid",
    "offer_posted",
    "offer_withdrawn",
    "score_changed",
    "bond_burned",
    "mode_changed",
    "capacity_recorded",
    "deposit",
    "withdraw",
    "blocks_advanced",
    "receipt_quarantined",
    "deadline_extended",
    "clock_accepted",
    "slice_unreadable",
    "key_made",
    "key_imported",
    "bid_committed",
    "bid_revealed",
    "bid_expired",
    "receipts_imported",
    "import_paid",
    "import_failed",
    "bundle_sent",
    "bundle_acknowledged",
    "bundle_refused",
    "bundle_resent",
    "bundle_received",
    "handoff_failed",
    "score_adjusted",
    "score_gossiped",
    "score_restored",
    "scores_imported",
    "score_barred",
    "params_proposed",
    "params_approved",
    "params_activated",
    "params_rolled_back",
    "multiplier_changed",
    "subsidy_paid",
    "tx_admitted",
    "tx_refused",
    "tx_evicted",
    "job_deferred",
    "jobs_archived",
    "store_compacted",
    "offer_changed",
    "job_held",
    "job_released",
    "job_changed",
]
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName)

# Where an offer stands in the index: it can be taken; no units are left; its provider is in bad
# standing; its provider cannot pay its bond. None stands for a withdrawn one, which is not there.
Shelf = Literal["open", "exhausted", "barred", "unfunded"]

LANES: tuple[Lane, ...] = ("industrial", "consumer")
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
WAITING_STATES: tuple[JobState, ...] = ("pending", "queued")
LIVE_STATES: tuple[JobState, ...] = (*WAITING_STATES, "active")
JOB_STATES: tuple[JobState, ...] = (*LIVE_STATES, "completed", "cancelled", "failed")
OFFER_STATES: tuple[OfferState, ...] = ("open", "exhausted", "withdrawn")
SETTLE_MODES: tuple[Mode, ...] = ("dry_run", "armed", "real")
# Settings that proposals may change while the market runs.
PARAMETER_KEYS = ("min_capacity", "fair_share_cap", "burst_refill_rate", "comfort_threshold_p90")

# Results of a match: success, or the furthest stage any offer reached. What the store keeps of a
# result is its place in here, so that new ones are only ever appended.
MATCH_RESULTS = (
    "success",
    "capability_mismatch",
    "reputation_failure",
    "price_mismatch",
    "no_capacity",
    "bond_unfunded",
)

DEADLINE_MAX = 253_402_300_799  # the last second of the year 9999
ID_LENGTH_MAX = 128
REASON_LENGTH_MAX = 200  # characters
_ID_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_ID_REST = _ID_FIRST | frozenset(".:@+-")


def check_id(text: str, what: str) -> str:
    """Return `text` if it can be an id, else raise UsageError.

    Ids are 1…128 ASCII letters, digits and `_ . : @ + -`, and do not begin with punctuation other
    than `_`: they pass through shells, file names, log lines and key separators unchanged.
    """
    if type(text) is not str:
        raise UsageError(f"{what} is no text", hint=_ID_HINT)
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


def check_number(value: Any, what: str) -> int:
    """Return `value`, or raise UsageError unless it is an integer from 0 to 2^63−1."""
    if type(value) is int and 0 <= value <= AMOUNT_MAX:
        return value
    raise UsageError(f"{what} is not a whole number within 0…{AMOUNT_MAX}")


def check_reason(text: Any, what: str) -> str:
    """Return why something was done, or raise UsageError unless that is a text of 1…200 characters
    that are not all blanks: the log keeps it."""
    if type(text) is not str:
        raise UsageError(f"{what} is no text")
    if not text.strip():
        raise UsageError(f"{what} is empty")
    if len(text) > REASON_LENGTH_MAX:
        raise UsageError(
            f"{what} has {len(text)} characters, at most {REASON_LENGTH_MAX} are allowed"
        )
    if legible(text) != text:
        raise UsageError(f"{what} {legible(text)} is not UTF-8")
    return text


_ID_HINT = "ids are letters, digits and any of _.:@+- and begin with a letter, a digit or _"


class Capability(Struct, frozen=True, array_like=True, gc=False):
    """What an offer has or a job asks for. Zero and None mean "none" and "any"."""

    cpu_cores: int = 0
    gpu: str | tuple[str, ...] | None = None  # a job may name several models, any of which will do
    gpu_count: int = 0
    gpu_memory_mb: int = 0  # total over all GPUs
    accelerator: str | None = None
    accelerator_memory_mb: int = 0

    @property
    def gpu_models(self) -> tuple[str, ...]:
        """The models that are named, none or one or several."""
        if self.gpu is None:
            return ()
        return (self.gpu,) if isinstance(self.gpu, str) else self.gpu


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
    shelf: Shelf | None = None
    market_priced: bool = False  # a price of 0 was asked for, which means the market price


class Placement(Struct, frozen=True, array_like=True, gc=False):
    """What a job was given to: an offer on its terms of that moment."""

    offer_id: str
    provider: str
    price_per_unit: int
    fee_pct_ct: int
    provider_bond: int  # CT
    funded: bool  # escrow and bonds are true money
    units_proven: int = 0  # by this provider


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
    deadline: int  # while a job with `deadline_secs` waits: that span since its submission
    deadline_secs: int | None  # from the start on, as asked for; None for an absolute deadline
    priority: Priority
    lane: Lane
    submitted_at: int
    placement: Placement | None = None  # the present or the last one; None while pending
    placements_before: int = 0  # earlier ones, which the table `placements` keeps
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
    cause: Cause | None = None
    event_seq: int = 0  # its last event
    extended_secs: int = 0  # by which its deadline was moved
    provider_bond_min: int = 1  # least CT bond asked of the provider
    burst_micro: int = 0  # what its admission took out of both burst buckets
    unreadable_slice: int | None = None  # the last one that could not be read when it was run
    deferred: bool = False  # pending, and the load alone kept it out when it was tried last
    held: bool = False  # pending or queued, and not to be started before it is released
    asked_priority: Priority | None = None  # as submitted; None if it is the present one

    @property
    def funded(self) -> bool:
        return self.placement is not None and self.placement.funded

    @property
    def placed(self) -> Placement:
        """The placement of a job that must have one."""
        assert self.placement is not None, f"job {self.job_id} is {self.state} without a placement"
        return self.placement


# The reference of a slice that nobody has hashed yet. None is stored so.
UNHASHED = b""


class Slice(Struct, frozen=True, array_like=True, gc=False):
    path: str
    length: int  # bytes
    reference: bytes  # expected BLAKE3-256
    proven_ms: int | None = None


class Score(Struct, frozen=True, array_like=True, gc=False):
    """A score as it was at its last change; it fades since, see `reputation.decay`."""

    score: int  # −1000 … 1000
    seed: int  # the advertised first score, part of `score`
    epoch: int  # 0 as long as only its provider has made it, who advertised it
    changed_ms: int
    barred: bool = False  # in bad standing, as the index of offers knows it


class Posting(Struct, frozen=True, array_like=True, gc=False):
    seq: int
    at_ms: int
    token: Token
    amount: int
    debit: str  # account the amount leaves
    credit: str  # account the amount enters
    event: str
    ref: str


class Usage(Struct, frozen=True, array_like=True, gc=False):
    """Usage within the window and burst bucket of one identity in one role, in micro-units."""

    used_micro: int
    burst_micro: int
    at_ms: int


class Cancellation(Struct, frozen=True, array_like=True, gc=False):
    """One line of `cancellations.log` and where it begins in that file."""

    job_id: str
    reason: str
    offset: int


class Event(Struct, frozen=True, array_like=True, gc=False):
    """One thing that happened, and to what."""

    event: EventName
    job_id: str | None = None
    offer_id: str | None = None
    owner: str | None = None  # buyer, provider or owner of a wallet
    # Integers, texts and true or false; `asked` is what a job that is not stored asked for.
    detail: dict[str, Any] = {}
    before: int = 0  # seq of the event before this one of the same job


class Asked(Struct, frozen=True, array_like=True, gc=False):
    """Who asked for a transaction."""

    user: str = ""
    host: str = ""
    pid: int = 0
    command: str = ""


class LogEntry(Struct, frozen=True, array_like=True, gc=False):
    """The events of one transaction. It is stored under the seq of the first; the others follow."""

    at_ms: int
    asked: Asked
    events: tuple[Event, ...]


class SettleState(Struct, frozen=True, array_like=True, gc=False):
    mode: Mode
    activate_at: int | None = None  # height, while armed
    reason: str | None = None  # of the last fall to dry_run


class Refused(Struct, frozen=True, gc=False):
    """A verdict of "no" that is remembered: it commits, and the caller turns it into exit 5."""

    reason: str
    message: str
    hint: str | None = None
    retry_after_ms: int | None = None
    is_for_now: bool = False  # the same may pass later, though nobody knows when

    def error(self) -> RefusedError:
        """The error form of a verdict that has been committed."""
        details = {} if self.retry_after_ms is None else {"retry_after_ms": self.retry_after_ms}
        error = RefusedError(self.message, hint=self.hint, reason=self.reason, **details)
        error.retryable = self.is_for_now or self.retry_after_ms is not None
        return error


def capability_document(capability: Capability) -> dict[str, Any]:
    """The JSON form of a capability: only what is set."""
    fields = {
        name: value for name in Capability.__struct_fields__ if (value := getattr(capability, name))
    }
    if len(capability.gpu_models) > 1:
        fields["gpu"] = list(capability.gpu_models)
    return fields
