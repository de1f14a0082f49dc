"""The methods of the endpoint and the numbers of its errors, as two tables. No network.

A read method looks at one snapshot; one that changes the market does so in one transaction. What
each answers is the document of the command line. Source: spec 8.2.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from compute_market import overview
from compute_market.courier import envelope
from compute_market.errors import AlreadyDoneError
from compute_market.jobs import cancel, demand, documents, jobs
from compute_market.offers import board
from compute_market.records import ID_LENGTH_MAX, LANES, Job, Lane, check_id
from compute_market.reputation import gossip
from compute_market.rpc_results import (
    Acknowledgement,
    ArchivedJobCancelled,
    CapabilityAsked,
    Demand,
    GossipTaken,
    JobCancelled,
    JobStatus,
    PriceBoard,
    SchedulerStatistics,
    SettlementStatus,
)
from compute_market.scheduler import outcomes
from compute_market.settlement import escrow, modes
from compute_market.store.txn import Txn

# Who may call a method: anyone who reaches the endpoint, whoever has its token, or who has signed
# what is sent with a key that this market trusts.
Access = Literal["anyone", "token", "signature"]
Document = dict[str, Any]
# `check_id` says the same, and what is wrong.
Id = Annotated[
    str, Meta(min_length=1, max_length=ID_LENGTH_MAX, pattern="^[A-Za-z0-9_][A-Za-z0-9_.:@+-]*$")
]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """No parameters."""


class OfJob(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    job_id: Id

    def __post_init__(self) -> None:
        check_id(self.job_id, "job_id")


class OfLane(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    lane: Lane | None = None  # both without


class OfOwner(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    owner: Id | None = None  # whose wallet is told as well

    def __post_init__(self) -> None:
        if self.owner is not None:
            check_id(self.owner, "owner")


class Cancel(OfJob, frozen=True, forbid_unknown_fields=True, gc=False):
    by: cancel.By = "client"


class Scores(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    message: str  # a signed message of scores, as `net reputation export` writes it


class Method(Struct, frozen=True, gc=False):
    """One row of the table."""

    name: str
    summary: str
    access: Access
    result: Any  # the type of its document
    params: type[Struct] | None  # None: it takes an envelope and the bytes of a bundle
    # What it does in its transaction. None: what is signed is looked at before there is one.
    act: Callable[[Txn, Any], Any] | None = None
    # Numbers of errors beside those that any method may have.
    errors: tuple[int, ...] = ()
    archived: Any = None  # the type of its document for a job that was archived, if it has one

    @property
    def reads(self) -> bool:
        """Whether it changes nothing, and so may be asked for by its path."""
        return self.access == "anyone"


class Code(Struct, frozen=True, gc=False):
    """One row of the table of errors."""

    number: int
    meaning: str
    # Of the document of an error: its tokens, and reasons that go before a token.
    tokens: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
REFUSED: Final = -32000
NO_PRICE_DATA: Final = -33000
INVALID_WORKLOAD: Final = -33001
JOB_NOT_FOUND: Final = -33002
INTERNAL: Final = -33099
INSUFFICIENT_CAPACITY: Final = -33100
FAIR_SHARE_EXCEEDED: Final = -33101
BURST_EXHAUSTED: Final = -33102
CAPABILITY_MISMATCH: Final = -33103

CODES: Final = (
    Code(PARSE_ERROR, "parse error: this is not JSON"),
    Code(INVALID_REQUEST, "invalid request"),
    Code(METHOD_NOT_FOUND, "method not found"),
    Code(INVALID_PARAMS, "invalid params", ("usage",)),
    Code(
        REFUSED,
        "any other refusal: `data` is the document of the error",
        ("refused", "already_done", "conflict", "partial", "busy", "integrity", "pending"),
    ),
    Code(NO_PRICE_DATA, "no price data", reasons=("no_price_data",)),
    Code(INVALID_WORKLOAD, "invalid workload", reasons=("unknown_workload", "broken_workload")),
    Code(JOB_NOT_FOUND, "job not found", ("not_found",)),
    Code(INTERNAL, "internal: this failed here", ("internal",)),
    Code(INSUFFICIENT_CAPACITY, "insufficient capacity", reasons=("capacity", "no_capacity")),
    Code(FAIR_SHARE_EXCEEDED, "fair share cap exceeded", reasons=("fair_share",)),
    Code(BURST_EXHAUSTED, "burst quota exhausted", reasons=("burst_exhausted",)),
    Code(CAPABILITY_MISMATCH, "capability mismatch", reasons=("capability_mismatch",)),
)
_BY_TOKEN: Final = {token: code.number for code in CODES for token in code.tokens}
_BY_REASON: Final = {reason: code.number for code in CODES for reason in code.reasons}


def code_of(error: Document) -> int:
    """The number of an error by its document, which is that of `--json`."""
    found = _BY_REASON.get(error.get("reason") or "")
    return _BY_TOKEN[error["error"]] if found is None else found


def _price_board(txn: Txn, params: OfLane) -> Document:
    """Raises RefusedError (`no_price_data`) where none of the lanes has a price."""
    lanes = LANES if params.lane is None else (params.lane,)
    found: Document = {lane: board.document(txn, lane) for lane in lanes}
    if not any(found.values()):
        raise board.no_price_data(lanes[0])
    return found


def _cancel(txn: Txn, params: Cancel) -> Document:
    """Raises NotFoundError, AlreadyDoneError, and RefusedError as `cancel.cancel` does."""
    cancelled = cancel.cancel(txn, params.job_id, params.by)
    if cancelled.outcome == "already_done":
        raise AlreadyDoneError(cancelled.text)
    if not isinstance(cancelled.job, Job):
        return cancelled.document  # What is left of one that was archived.
    return documents.job_document(txn, cancelled.job) | cancelled.document


def _settlement(txn: Txn, params: OfOwner) -> Document:
    found = modes.document(txn) | {"balances": overview.balances(txn)}
    if params.owner is not None:
        found["wallet"] = escrow.balance_document(txn, params.owner)
    return found


_ROWS: Final = (
    Method(
        "compute_market.stats",
        "Backlog, utilization, units ever proven, and price.",
        "anyone",
        Demand,
        Nothing,
        lambda txn, _: demand.document(txn),
    ),
    Method(
        "compute_market.scheduler_stats",
        "Outcomes of the last matches, what runs and what waits.",
        "anyone",
        SchedulerStatistics,
        Nothing,
        lambda txn, _: outcomes.statistics(txn),
    ),
    Method(
        "compute_market.price_board",
        "The price bands of each lane, or of one.",
        "anyone",
        PriceBoard,
        OfLane,
        _price_board,
        (NO_PRICE_DATA,),
    ),
    Method(
        "compute.job_requirements",
        "The capability a live job asks for; {} for one that is unknown or has ended.",
        "anyone",
        CapabilityAsked,
        OfJob,
        lambda txn, params: documents.requirements(txn, params.job_id),
    ),
    Method(
        "compute.job_status",
        "One job: state, progress, money.",
        "anyone",
        JobStatus,
        OfJob,
        lambda txn, params: documents.job_document(txn, jobs.get(txn, params.job_id)),
        (JOB_NOT_FOUND,),
    ),
    Method(
        "compute.job_cancel",
        "Cancel a job that has not ended. Cancelling one again changes nothing.",
        "token",
        JobCancelled,
        Cancel,
        _cancel,
        (JOB_NOT_FOUND,),
        ArchivedJobCancelled,
    ),
    Method(
        "settlement_status",
        "The settlement mode, the receipts that wait, and where the money is.",
        "anyone",
        SettlementStatus,
        OfOwner,
        _settlement,
    ),
    Method(
        gossip.METHOD,
        "Take the scores that another market tells, each that is news.",
        "signature",
        GossipTaken,
        Scores,
    ),
    Method(
        envelope.METHOD,
        "Take a bundle of another market.",
        "signature",
        Acknowledgement,
        None,
    ),
)
METHODS: Final = {method.name: method for method in _ROWS}
