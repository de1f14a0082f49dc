"""Receipts as they are listed: those of this market, and those of others."""

from collections.abc import Iterable, Iterator
from typing import Any

from compute_market import archived
from compute_market.errors import IntegrityError
from compute_market.jobs import jobs
from compute_market.records import LANES
from compute_market.settlement import receipts, settlement
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted
from tb_cli.frame.paging import PAGE

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


def reading(
    wanted: Wanted,
    damaged: list[int],
    *,
    job_ids: tuple[str, ...] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Reading:
    """Receipts in order of issue. The numbers of those that do not tell are put into `damaged`.

    Those of jobs that are named are found by them, and a time without a walk to it.
    """
    since, until = _second(since_ms, 0), _second(until_ms, 2**63)

    def told(txn: Txn, entries: Iterable[tuple[int, bytes, Any]]) -> list[dict[str, Any]]:
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

    def page(txn: Txn, after: int | None, size: int) -> tuple[list[dict[str, Any]], int | None]:
        if after is None:
            after = receipts.first_since(txn, since) - 1 if since else 0
        entries = receipts.page(txn, after, size)
        is_last = len(entries) < size or any(_is_after(each, until) for each in entries)
        return told(txn, entries), None if is_last else entries[-1][0]

    def newest(txn: Txn, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        before = None if until_ms is None else receipts.first_since(txn, until + 1)
        while len(found) < limit:
            entries = receipts.newest(txn, PAGE, before)
            found += told(txn, entries)
            if len(entries) < PAGE or any(_is_before(each, since) for each in entries):
                break
            before = entries[-1][0]
        return found[:limit][::-1]

    def of_jobs(txn: Txn, after: None, size: int) -> tuple[list[dict[str, Any]], None]:
        entries = [entry for job_id in job_ids for entry in _of_job(txn, job_id)]
        return told(txn, sorted(entries)), None

    return Reading(of_jobs) if job_ids else Reading(page, newest=newest)


def _of_job(txn: Txn, job_id: str) -> Iterator[tuple[int, bytes, Any]]:
    """The receipts of one job: number, key, and the receipt, None where it is damaged."""
    job = jobs.find(txn, job_id)
    for placement in () if job is None else jobs.placements(txn, job):
        key = None if job is None else receipts.key_of_placement(job, placement)
        if key is None:
            continue
        try:
            receipt = receipts.find(txn, key)
        except IntegrityError:
            receipt = None
        if receipt is not None or settlement.of(txn, key) is not None:
            yield 0 if receipt is None else receipt.seq, key, receipt


def _second(at_ms: int | None, default: int) -> int:
    return default if at_ms is None else at_ms // 1000


def _is_before(entry: tuple[int, bytes, Any], second: int) -> bool:
    return entry[2] is not None and entry[2].issued_at < second


def _is_after(entry: tuple[int, bytes, Any], second: int) -> bool:
    return entry[2] is not None and entry[2].issued_at > second


def imported_reading(wanted: Wanted) -> Reading:
    """Receipts of other markets, by market."""
    from compute_market.settlement import imports  # It brings signatures, which few lists need.

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[Any], bytes | None]:
        found, last = imports.page(txn, after, size)
        return [document for document in found if wanted(txn, document)], last

    return Reading(page)
