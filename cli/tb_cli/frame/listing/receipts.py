"""Receipts as they are listed: those of this market, and those of others."""

from typing import Any

from compute_market import archived
from compute_market.records import LANES
from compute_market.settlement import receipts, settlement
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted
from tb_cli.frame.session import PAGE

# Of receipts of this market the first three, of others all but `pending`.
STATUSES = ("recorded", "pending", "applied", "failed", "duplicate")
FILTERS = (
    among("--job", "Only of these jobs.", name="job_id", complete="any job"),
    among("--buyer", "Only of these buyers."),
    among("--provider", "Only of these providers."),
    among("--status", f"Only with these: {', '.join(STATUSES)}.", allowed=STATUSES),
    among("--lane", "Only of these lanes.", allowed=LANES),
)

_OWN = (
    Column("version", kind="number"),
    Column("job_id", "JOB"),
    Column("buyer"),
    Column("provider"),
    Column("quote_price", "PRICE", "number"),
    Column("units", kind="number"),
    Column("issued_at", "ISSUED", "at"),
    Column("idempotency_key", "KEY"),
    Column("lane", order=LANES),
    Column("dry_run"),
    Column("status", kind="state", order=STATUSES),
    Column("paid", kind="record"),
    Column("seq", "#", "number"),
)
RECEIPT_LIST = Noun(
    "receipts",
    "idempotency_key",
    _OWN,
    shown=("seq", "job_id", "provider", "units", "quote_price", "status", "idempotency_key"),
    table=(
        *("seq", "job_id", "status", "units", "quote_price", "issued_at", "provider", "buyer"),
        "idempotency_key",
    ),
)
_OF_BOTH = ("seq", "job_id", "buyer", "provider", "quote_price", "units", "issued_at")
IMPORTED_LIST = Noun(
    "imported receipts",
    "idempotency_key",
    (
        Column("market_id", "MARKET"),
        *RECEIPT_LIST.named((*_OF_BOTH, "idempotency_key", "status")),
        Column("reason", kind="long"),
        Column("at_ms", "IMPORTED", "ms"),
    ),
    shown=("market_id", *RECEIPT_LIST.shown, "reason"),
    table=(
        *("seq", "job_id", "status", "reason", "units", "quote_price", "issued_at"),
        *("provider", "buyer", "market_id", "idempotency_key"),
    ),
    age=lambda document: document["at_ms"],
)


def reading(wanted: Wanted, damaged: list[int]) -> Reading:
    """Receipts in order of issue. The numbers of those that do not tell are put into `damaged`."""

    def told(txn: Txn, entries: list[tuple[int, bytes, Any]]) -> list[dict[str, Any]]:
        found = []
        for seq, key, receipt in entries:
            settled = settlement.of(txn, key)
            if receipt is not None and settled is not None:
                document = receipts.document(receipt, settled)
                if wanted(txn, document):
                    found.append(document)
            elif archived.receipt(txn, key) is None:
                damaged.append(seq)
        return found

    def page(txn: Txn, after: int, size: int) -> tuple[list[dict[str, Any]], int | None]:
        entries = receipts.page(txn, after, size)
        return told(txn, entries), entries[-1][0] if len(entries) == size else None

    def newest(txn: Txn, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        before = None
        while len(found) < limit:
            entries = receipts.newest(txn, PAGE, before)
            if not entries:
                break
            found += told(txn, entries)
            before = entries[-1][0]
        return found[:limit][::-1]

    return Reading(page, 0, newest=newest)


def imported_reading(wanted: Wanted) -> Reading:
    """Receipts of other markets, by market."""
    from compute_market.settlement import imports  # It brings signatures, which few lists need.

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[Any], bytes | None]:
        found, last = imports.page(txn, after, size)
        return [document for document in found if wanted(txn, document)], last

    return Reading(page)
