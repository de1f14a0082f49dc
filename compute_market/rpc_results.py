"""What the methods of the endpoint answer, as types: the documents themselves are made elsewhere.

They are those of the command line under `--json`. Only the description of the endpoint is made of
these, and the tests hold every document against its type.
"""

from typing import Literal, TypedDict

from compute_market.records import Actor, Cause, JobState, Lane, Mode, Priority


class Money(TypedDict):
    """Amounts of both tokens."""

    ct: int
    it: int


class Bonds(TypedDict):
    ct: int


class Demand(TypedDict):
    """Backlog, utilization of the last minute, units ever proven, the last effective price."""

    industrial_backlog: int
    industrial_utilization: float
    industrial_units_total: int
    industrial_price_per_unit: int


class SchedulerStatistics(TypedDict):
    """The outcomes of the last 100 matches, what runs and what waits."""

    success: int
    capability_mismatch: int
    reputation_failure: int
    active_jobs: int
    utilization: dict[str, int]  # matches by GPU model, else accelerator, else `cpu`
    preemptions: int
    effective_price: int | None
    queued_high: int
    queued_normal: int
    queued_low: int
    priority_miss: int
    price_mismatch: int
    no_capacity: int
    bond_unfunded: int
    pending: int


class PriceBands(TypedDict):
    """The quartiles of the last effective prices of a lane."""

    p25: int
    median: int
    p75: int
    samples: int
    newest_at: int | None  # unix seconds


class PriceBoard(TypedDict, total=False):
    """By lane; null for one without prices."""

    industrial: PriceBands | None
    consumer: PriceBands | None


class CapabilityAsked(TypedDict, total=False):
    """What a job asks of an offer: only what it asks."""

    cpu_cores: int
    gpu: str | list[str]
    gpu_count: int
    gpu_memory_mb: int
    accelerator: str
    accelerator_memory_mb: int


class JobStatus(TypedDict):
    """One job: state, progress, money. Times are unix seconds."""

    job_id: str
    state: JobState
    buyer: str
    provider: str | None
    offer_id: str | None
    workload: str
    priority: Priority
    lane: Lane
    units: int
    units_proven: int
    slices: int
    slices_proven: int
    price_per_unit: int | None
    max_price_per_unit: int
    fee_pct_ct: int | None
    consumer_bond: int
    provider_bond: int | None
    deadline: int
    submitted_at: int
    started_at: int | None
    ended_at: int | None
    funded: bool
    cause: Cause | None
    escrow: Money
    paid: Money
    refunded: Money
    ended_by: Actor | None
    capability: CapabilityAsked
    overdue: bool
    provider_bond_min: int
    unreadable_slice: int | None
    held: bool


class JobCancelled(JobStatus):
    """A job after the request to cancel it."""

    outcome: Literal["cancelled", "already_cancelled"]
    changed: bool


class ArchivedJobCancelled(TypedDict):
    """What is left to say of a cancelled job that was archived, when it is to be cancelled."""

    job_id: str
    outcome: Literal["already_cancelled"]
    changed: Literal[False]


class TokenBalances(TypedDict):
    """Where the tokens are that were paid in and not out again."""

    in_circulation: int
    in_wallets: int
    escrowed: int
    bonded: int
    sealed: int
    burned: int


class Balances(TypedDict):
    ct: TokenBalances
    it: TokenBalances


class Wallet(TypedDict):
    """What a party has, and what its jobs and bids hold of it."""

    owner: str
    ct: int
    it: int
    escrow: Money
    bonds: Bonds


class _SettlementAlways(TypedDict):
    mode: Mode
    height: int
    due: bool  # an armed mode past its height: the next change turns it real
    pending: int
    applied: int
    failed: int
    balances: Balances


class SettlementStatus(_SettlementAlways, total=False):
    """The mode, the receipts that wait, and the balances."""

    activate_at: int  # height, while armed
    reason: str  # of the last fall to dry_run
    wallet: Wallet  # of the owner who was asked for


class GossipTaken(TypedDict):
    """What became of scores that were told."""

    applied: int
    ignored: int
    from_the_future: int  # of those that were ignored


class BundleTaken(TypedDict):
    """What became of one bundle."""

    id: str
    bundle_hash: str
    outcome: Literal["taken", "refused"]
    error: str | None


class Acknowledgement(TypedDict):
    """The signed answer to an envelope."""

    format: Literal["tb-acknowledgement"]
    version: Literal[1]
    market_id: str
    public_key: str
    to_market_id: str
    envelope: str
    taken: list[BundleTaken]
    signature: str


class _ErrorAlways(TypedDict):
    error: str  # the token of its exit code
    message: str
    retryable: bool


class ErrorDocument(_ErrorAlways, total=False):
    """What was wrong, as under `--json` without hints."""

    reason: str
