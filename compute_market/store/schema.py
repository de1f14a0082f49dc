"""The tables of the store: what each holds, under which key, and who writes it.

A release that adds tables opens the homes of older ones: the first writer makes what is
missing. A change of what stands in a table is a new schema, see `compute_market.upgrades`.

In keys, `u64` is eight bytes that sort like the number, and `·` a zero byte, which no id holds.
"""

from typing import TYPE_CHECKING, Any, Final

from compute_market import records
from compute_market.store.table import Sums, Table

if TYPE_CHECKING:
    from compute_market.archive_records import Archive, ArchivedJob, ArchivedReceipt
    from compute_market.bid_records import Bid, Bidder
    from compute_market.courier_records import BundleReceipt, Delivery
    from compute_market.governance_records import Parameter, Proposal
    from compute_market.import_records import Imported, ImportFailure, Origin
    from compute_market.keyed_records import Keyed, Tap
    from compute_market.mempool_records import Pool, Transaction
    from compute_market.receipt_records import Link, Receipt, Settlement
    from compute_market.subsidy_records import Epochs

SCHEMA_VERSION: Final = 8
# The last schema whose values have no checksum.
UNSEALED_SCHEMA: Final = 1

_SUM_BYTES: Final = 16


def pack_u64(number: int) -> bytes:
    """Eight bytes that sort like the number."""
    return number.to_bytes(8)


def pack_number(number: int) -> bytes:
    """A number of any size, in as few bytes as it needs."""
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def unpack_u64(packed: bytes) -> int:
    """The number behind `pack_u64` or `pack_number`; 0 for no bytes."""
    return int.from_bytes(packed)


def pack_sum(number: int) -> bytes:
    return number.to_bytes(_SUM_BYTES, "big", signed=True)


def unpack_sum(packed: bytes) -> int:
    return int.from_bytes(packed, "big", signed=True)


def id_prefix(text: str) -> bytes:
    """What the keys of everything that belongs to one id begin with."""
    return text.encode() + b"\0"


def party_key(side: str, party: str, seq: int) -> bytes:
    """The key of a job among those of a buyer or a provider."""
    return f"{side}\0{party}\0".encode() + seq.to_bytes(8)


META = Table("meta", bytes, key="name of a small number or text", writer="", kept=True)
COUNTERS = Sums("counters", key="metric · label values", writer="metrics")

KEYED: "Table[Keyed]" = Table(
    "keyed", "keyed_records.Keyed", key="idempotency key", writer="idempotency"
)

# governance
PROPOSALS: "Table[Proposal]" = Table(
    "proposals", "governance_records.Proposal", key="u64 id", writer="governance.governance"
)
PARAMETERS: "Table[Parameter]" = Table(
    "parameters", "governance_records.Parameter", key="parameter", writer="governance.governance"
)
PARAMETERS_DUE = Table(
    "parameters_due",
    bytes,
    key="u64 height to be active from, u64 number of the approval",
    writer="governance.governance",
)

# A number of `meta`: how many entries the last two tables have. A market without a proposal that is
# in force, or is to be, reads no more than this.
PARAMETERS_SET: Final = "parameters_set"

# settlement
ACCOUNTS = Sums("accounts", key="token · account", writer="settlement.ledger")
POSTINGS = Table("postings", records.Posting, key="u64 seq", writer="settlement.ledger", late=True)
WALLET_POSTINGS = Table(
    "wallet_postings",
    bytes,
    key="owner · u64 seq of a posting",
    writer="settlement.ledger",
    late=True,
)
TAPS: "Table[Tap]" = Table(
    "taps", "keyed_records.Tap", key="idempotency key", writer="settlement.ledger"
)
HOLDINGS = Sums("holdings", key="owner · what is held", writer="settlement.escrow")
RECEIPT_CLAIMS = Table(
    "receipt_claims",
    bytes,
    key="digest of job, buyer, provider, price",
    writer="settlement.receipts",
    late=True,
)
RECEIPTS: "Table[Receipt]" = Table(
    "receipts",
    "receipt_records.Receipt",
    key="idempotency key",
    writer="settlement.receipts",
    late=True,
)
RECEIPT_CHAIN: "Table[Link]" = Table(
    "receipt_chain", "receipt_records.Link", key="u64 seq", writer="settlement.receipts", late=True
)
QUARANTINE = Table("quarantine", bytes, key="idempotency key", writer="settlement.receipts")
SETTLEMENTS: "Table[Settlement]" = Table(
    "settlements",
    "receipt_records.Settlement",
    key="idempotency key",
    writer="settlement.settlement",
    late=True,
)
UNSETTLED = Table("unsettled", bytes, key="u64 seq of a receipt", writer="settlement.settlement")
SETTLE_STATE = Table(
    "settle_state", records.SettleState, key="mode", writer="settlement.modes", kept=True
)
IMPORTS: "Table[Imported]" = Table(
    "imports",
    "import_records.Imported",
    key="market id, u64 seq there",
    writer="settlement.imports",
)
IMPORT_KEYS = Table(
    "import_keys", bytes, key="idempotency key of an import", writer="settlement.imports"
)
ORIGINS: "Table[Origin]" = Table(
    "origins", "import_records.Origin", key="market id", writer="settlement.imports"
)
IMPORT_FAILURES: "Table[ImportFailure]" = Table(
    "import_failures", "import_records.ImportFailure", key="u64 number", writer="settlement.imports"
)

# reputation, offers
REPUTATION = Table(
    "reputation", records.Score, key="provider", writer="reputation.reputation", late=True
)
SCORES_RECENT = Table(
    "scores_recent",
    bytes,
    key="u64 ms of the last change, provider",
    writer="reputation.reputation",
    late=True,
)
SCORES_DUE = Table(
    "scores_due",
    bytes,
    key="u64 ms at which time alone changes something, provider",
    writer="reputation.due",
)

# Numbers of `meta`: the settings that `scores_due` was made under, and no later than when the first
# of it is due. The terms are 0 as long as there was no score.
SCORE_TERMS: Final = "score_terms"
SCORES_DUE_FROM: Final = "scores_due_from_ms"
# A number of `meta`: when a score of another market was stored last.
SCORES_TOLD: Final = "scores_told_ms"

OFFERS = Table("offers", records.Offer, key="offer id", writer="offers.offers", late=True)
BOOK = Table("book", bytes, key="see `offers.book`", writer="offers.book")
HEADS = Table("heads", bytes, key="see `offers.book`", writer="offers.book")
PROVIDER_OFFERS = Table(
    "provider_offers", bytes, key="provider · u64 bond, offer id", writer="offers.offers"
)
OFFER_COUNTS = Sums("offer_counts", key="state or shelf", writer="offers.offers")
PRICES = Table("prices", bytes, key="lane, u64 seq of a match", writer="offers.price_window")

# scheduler
EFFECTIVE_PRICES = Table(
    "effective_prices", bytes, key="provider", writer="scheduler.outcomes", late=True
)
EFFECTIVE_PRICES_RECENT = Table(
    "effective_prices_recent",
    bytes,
    key="u64 ms of a match, provider",
    writer="scheduler.outcomes",
    late=True,
)
UTILIZATION = Sums("utilization", key="hardware model", writer="scheduler.outcomes")
QUEUE_HIGH = Table("queue_high", bytes, key="u64 arrival", writer="scheduler.queue")
QUEUE_NORMAL = Table("queue_normal", bytes, key="u64 arrival", writer="scheduler.queue")
QUEUE_LOW = Table("queue_low", bytes, key="u64 arrival", writer="scheduler.queue")
ACTIVE = Table("active", bytes, key="job id", writer="scheduler.queue")
ACTIVE_LOW = Table("active_low", bytes, key="job id", writer="scheduler.queue")
QUEUE_PAIRS = Table(
    "queue_pairs", bytes, key="buyer · provider · priority, u64 arrival", writer="scheduler.queue"
)
SLOTS_HELD = Sums("slots_held", key="side · identity", writer="scheduler.queue")

# admission
USAGE = Table("usage", records.Usage, key="role · identity", writer="admission.shares", kept=True)
USAGE_RECENT = Table(
    "usage_recent",
    bytes,
    key="u64 ms of the last charge, role · identity",
    writer="admission.shares",
    late=True,
)

MEMPOOL: "Table[Transaction]" = Table(
    "mempool",
    "mempool_records.Transaction",
    key="inverted fee per byte in 16 bytes, u64 seq",
    writer="admission.mempool",
)
MEMPOOL_SENDERS = Table("mempool_senders", bytes, key="sender", writer="admission.mempool")
CONSUMER_POOL: "Table[Pool]" = Table(
    "consumer_pool", "mempool_records.Pool", key="pool", writer="admission.mempool", kept=True
)

# A number of `meta`: the height of the block that takes the next consumer transactions, beyond
# all heights while none waits, and 0 before the first.
MEMPOOL_NEXT_BLOCK: Final = "mempool_next_block"

# jobs
JOBS = Table("jobs", records.Job, key="job id", writer="jobs.jobs", late=True)
PLACEMENTS = Table(
    "placements", records.Placement, key="job id · u64 number of an earlier one", writer="jobs.jobs"
)
SLICES = Table("slices", records.Slice, key="job id · u64 index", writer="jobs.jobs", late=True)
SUBMITTED = Table("submitted", bytes, key="u64 seq of a job", writer="jobs.jobs", late=True)
PARTY_JOBS = Table(
    "party_jobs", bytes, key="side · party · u64 seq of a job", writer="jobs.jobs", late=True
)
DEADLINES = Table("deadlines", bytes, key="u64 deadline, job id", writer="jobs.jobs")
ENDED = Table("ended", bytes, key="u64 second of the end, job id", writer="jobs.jobs", late=True)
PENDING = Table("pending", bytes, key="priority, u64 seq of a job", writer="scheduler.queue")
BACKLOG = Sums("backlog", key="units", writer="jobs.jobs")
LANE_JOBS = Sums("lane_jobs", key="state · lane", writer="scheduler.queue")
PROVIDER_CANCELS = Table(
    "provider_cancels", bytes, key="provider · u64 ms, job id", writer="jobs.cancel"
)
CANCELLATIONS = Table(
    "cancellations", records.Cancellation, key="u64 seq", writer="jobs.cancellations", late=True
)
THROUGHPUT = Table("throughput", bytes, key="u64 unix second", writer="jobs.demand")
EPOCH_UNITS = Sums("epoch_units", key="provider", writer="jobs.demand")

# bids
BIDS: "Table[Bid]" = Table("bids", "bid_records.Bid", key="bid id", writer="bids.bids")
BIDDERS: "Table[Bidder]" = Table(
    "bidders", "bid_records.Bidder", key="id of a public key", writer="bids.bids"
)
BIDS_DUE = Table("bids_due", bytes, key="u64 last height to reveal at, bid id", writer="bids.bids")

# A number of `meta`: the height at which the next bid expires, 0 when none waits to be revealed.
BIDS_DUE_FROM: Final = "bids_due_from"

# courier
BUNDLE_RECEIPTS: "Table[BundleReceipt]" = Table(
    "bundle_receipts", "courier_records.BundleReceipt", key="u64 seq", writer="courier.courier"
)
# The seq of the receipt with an id, which is drawn.
BUNDLE_IDS = Table("bundle_ids", bytes, key="u64 id", writer="courier.courier")
BUNDLES_PENDING = Table("bundles_pending", bytes, key="u64 seq", writer="courier.leases")
BUNDLES_ENDED = Table(
    "bundles_ended", bytes, key="u64 ms of the end, u64 seq", writer="courier.courier"
)
BUNDLE_COPIES = Sums("bundle_copies", key="hash of a bundle", writer="courier.courier")
DELIVERIES: "Table[Delivery]" = Table(
    "deliveries",
    "courier_records.Delivery",
    key="market id, u64 id there",
    writer="courier.deliveries",
)

# subsidy
EPOCHS: "Table[Epochs]" = Table(
    "epochs", "subsidy_records.Epochs", key="u64 height of the beginning", writer="subsidy.subsidy"
)

# Numbers of `meta`: the height at which the running epoch began, the multiplier that the last one
# left (0 when none has ended), and the units that were proven before the first.
EPOCH_FROM: Final = "epoch_from"
MULTIPLIER: Final = "multiplier"
UNITS_BEFORE_EPOCHS: Final = "units_before_epochs"

# archives
ARCHIVES: "Table[Archive]" = Table(
    "archives", "archive_records.Archive", key="id", writer="archive.archives"
)
ARCHIVED_JOBS: "Table[ArchivedJob]" = Table(
    "archived_jobs",
    "archive_records.ArchivedJob",
    key="job id",
    writer="archive.removal",
    late=True,
)
ARCHIVED_RECEIPTS: "Table[ArchivedReceipt]" = Table(
    "archived_receipts",
    "archive_records.ArchivedReceipt",
    key="idempotency key",
    writer="archive.removal",
    late=True,
)
# What of the archived is still counted elsewhere: `account · token · account`, the opening balance;
# `counter · metric · label values`; `offer · offer id`, its proven units.
ARCHIVED = Sums("archived", key="what it counts for", writer="archive.removal")

# Numbers of `meta`: the last receipt up to which the chain is archived, its link alone being kept;
# and before which instant postings that belong to no job that is kept may have been archived.
RECEIPTS_ARCHIVED: Final = "receipts_archived"
POSTINGS_BEFORE: Final = "postings_before_ms"

# the log
EVENTS = Table(
    "events", records.LogEntry, key="u64 seq of the first event", writer="events", late=True
)

SUMS: Final = tuple(each for each in list(globals().values()) if isinstance(each, Sums))
TABLES: Final[tuple["Table[Any]", ...]] = tuple(
    each.table if isinstance(each, Sums) else each
    for each in list(globals().values())
    if isinstance(each, Table | Sums)
)
# Those whose values are records.
RECORD_TABLES: Final = tuple(table for table in TABLES if table.has_records)
