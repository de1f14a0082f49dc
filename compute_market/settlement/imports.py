"""Receipts of other markets: each is taken once, in the order of its chain, and paid once.

They have no escrow. In the mode real the buyer's wallet pays quoted price × units in CT; in any
other mode a receipt is recorded, and paid when it is imported again in real. What the mode of the
other market was makes no difference, and neither scores nor the units of offers change. The only
writer of its tables.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

from msgspec import Struct, field

from compute_market import chain, events, metrics
from compute_market.amounts import checked
from compute_market.errors import ConflictError, MarketError, RefusedError
from compute_market.import_records import Imported, ImportFailure, ImportStatus, Origin
from compute_market.receipt_records import Receipt
from compute_market.records import replace
from compute_market.settlement import import_checks as checks
from compute_market.settlement import ledger, modes
from compute_market.settlement.receipt_files import Exported, Verified
from compute_market.signatures import signatures
from compute_market.store.schema import (
    IMPORT_FAILURES,
    IMPORT_KEYS,
    IMPORTS,
    ORIGINS,
    pack_u64,
)
from compute_market.store.txn import Txn

EVENT: Final = "import:settle"  # of the posting
CHUNK: Final = 1000  # receipts in one transaction

# Why a receipt cannot be paid, which is archived; any other refusal leaves it out.
_UNPAID = ("insufficient_funds", "overflow")


class Taken(Struct):
    """What became of receipts of a file: how many came to each status, and how many are new."""

    became: Counter[ImportStatus] = field(default_factory=Counter)
    imported: int = 0  # stored now and no duplicates, whatever became of them
    # Of the duplicates those whose holder was not paid, by the market of the holder in hex.
    unpaid: Counter[str] = field(default_factory=Counter)
    failure: MarketError | None = None  # of the one that failed
    stop: MarketError | None = None  # why the next one was not taken, nor any behind it
    is_unpaid: bool = False  # the next one could not be paid, and is to be archived

    def add(self, more: "Taken") -> None:
        self.became.update(more.became)
        self.imported += more.imported
        self.unpaid.update(more.unpaid)
        self.failure = self.failure or more.failure
        self.stop, self.is_unpaid = more.stop, more.is_unpaid


def take_all(
    update: Callable[[Callable[[Txn], Taken]], Taken],
    file: Verified,
    entries: Iterable[Exported],
    *,
    from_link: bytes | None = None,
) -> Taken:
    """Take the receipts of a file that verified, `CHUNK` in each transaction that `update` runs.

    The transaction in which one cannot be paid keeps those before it. The next one archives the
    failure and lets the mode fall to dry_run; whatever follows is recorded and not paid. Who is
    killed in between comes to the same end when the file is imported again.

    Raises what `take` raises if that is before anything was taken; later it is the `stop`.
    """
    given = iter(entries)
    taken = Taken()
    part: list[Exported] = []
    while part := part or list(islice(given, CHUNK)):
        act = partial(
            take,
            file=file,
            entries=part,
            from_link=from_link,
            pays=taken.failure is None,
            archives=taken.is_unpaid,
        )
        try:
            now = update(act)
        except MarketError as error:
            if not taken.became:
                raise
            now = Taken(stop=error)
        taken.add(now)
        if taken.stop is not None:
            break
        part = part[now.became.total() :]
    return taken


def take(
    txn: Txn,
    file: Verified,
    entries: Iterable[Exported],
    *,
    from_link: bytes | None = None,
    pays: bool = True,
    archives: bool = False,
) -> Taken:
    """Take receipts of a file that verified, in order, as far as they can be taken.

    `from_link` is where an operator lets the chain of a market begin that was not imported before.
    Without `pays` they are recorded whatever the mode. One that cannot be paid ends it; if it
    `archives`, that one is stored as failed, and the mode falls to dry_run.

    Before anything was taken it raises, and later returns as the `stop`: RefusedError for a key
    that is not trusted (`untrusted_key`) or not that of the market (`another_key`), receipts that
    are missing (`gap`) or lie before the first one (`before_first`), and a party that paid itself
    (`self_deal`); ConflictError (`key_collision`) for a key that stands for another receipt.
    IntegrityError (`fork`) is raised wherever the chain is not the one that was imported.
    """
    taken = Taken()
    changed: list[int] = []
    checks.check_key(txn, file)
    pays = pays and modes.is_real(txn)
    for each in entries:
        try:
            status, is_new = _take(txn, file, each, from_link, pays=pays)
        except (ConflictError, RefusedError) as error:
            if error.reason not in _UNPAID:
                if not taken.became:
                    raise
                taken.stop = error
                break
            if not archives:
                taken.is_unpaid = True
                break
            taken.failure, pays = _failure(file, each, error), False
            status, is_new = _archive(txn, file, each, taken.failure)
        taken.became[status] += 1
        taken.imported += is_new
        if status != "duplicate":
            changed.append(each.seq)
        elif holder := checks.unpaid_holder(txn, file, each):
            taken.unpaid[holder] += 1
    if changed:
        events.note(
            txn,
            "receipts_imported",
            market_id=file.market_id.hex(),
            from_seq=changed[0],
            to_seq=changed[-1],
            imported=taken.imported,
            applied=taken.became["applied"],
        )
    return taken


def page(txn: Txn, after: bytes | None, limit: int) -> tuple[list[dict[str, Any]], bytes | None]:
    """At most `limit` imported receipts as documents, by market, from behind a key on."""
    found, last = txn.page(IMPORTS, after, limit)
    return [_document(key, imported) for key, imported in found], last


def _take(
    txn: Txn, file: Verified, each: Exported, from_link: bytes | None, *, pays: bool
) -> tuple[ImportStatus, bool]:
    """Take one receipt; what became of it, and whether it is new. Raises before it writes."""
    if chain.market_id(txn) == file.market_id:
        checks.check_own(txn, file, each)
        return "duplicate", False
    key = checks.key_of(file.market_id, each.seq)
    stored = txn.read(IMPORTS, key)
    if stored is not None:
        if stored.link != each.link:
            raise checks.fork(file, each.seq)
        if not pays or stored.status in ("applied", "duplicate"):
            return "duplicate", False
        _pay(txn, stored.receipt)
        txn.write(IMPORTS, key, replace(stored, status="applied", at_ms=txn.now_ms, reason=None))
        return "applied", False
    origin = checks.check_next(txn, file, each, from_link)
    status: ImportStatus = "recorded"
    if checks.is_held(txn, file, each):
        status = "duplicate"
    elif pays:
        _pay(txn, each.receipt)
        status = "applied"
    _store(txn, file, origin, each, status)
    return status, status != "duplicate"


def _pay(txn: Txn, receipt: Receipt) -> None:
    """Move what a receipt is worth. Raises RefusedError, with nothing written, if it cannot be."""
    amount = checked(receipt.quote_price * receipt.units, f"the price of job {receipt.job_id},")
    ends = ledger.wallet(receipt.buyer), ledger.wallet(receipt.provider)
    ledger.transfer(txn, "CT", amount, *ends, EVENT, receipt.job_id)
    metrics.count(txn, "settle_applied_total")
    events.note(
        txn,
        "import_paid",
        job_id=receipt.job_id,
        owner=receipt.buyer,
        provider=receipt.provider,
        ct=amount,
    )


def _failure(file: Verified, each: Exported, error: MarketError) -> MarketError:
    which = f"receipt {each.seq} of market {file.market_id.hex()}"
    again = (
        "`tb-cli compute-market settle arm --delay-blocks N`, "
        "and import the file again once the mode is real"
    )
    return RefusedError(
        f"{which} was not paid, and the mode is dry_run now: {error.message}",
        hint=again if error.hint is None else f"{error.hint}; then {again}",
        reason=error.reason,
        **error.details,
        seq=each.seq,
    )


def _archive(
    txn: Txn, file: Verified, each: Exported, error: MarketError
) -> tuple[ImportStatus, bool]:
    """Store a receipt as one that could not be paid, and stop moving money."""
    market, reason = file.market_id.hex(), error.reason or error.token
    key = checks.key_of(file.market_id, each.seq)
    stored = txn.read(IMPORTS, key)
    if stored is None:
        origin = checks.check_next(txn, file, each, file.from_link)
        _store(txn, file, origin, each, "failed", reason)
    else:
        failed = replace(stored, status="failed", at_ms=txn.now_ms, reason=reason)
        txn.write(IMPORTS, key, failed)
    number = pack_u64(txn.next_number("import_failures"))
    failure = ImportFailure(file.market_id, each.seq, reason, error.message, txn.now_ms)
    txn.write(IMPORT_FAILURES, number, failure)
    metrics.count(txn, "settle_failed_total", reason)
    events.note(
        txn,
        "import_failed",
        job_id=each.receipt.job_id,
        owner=each.receipt.buyer,
        provider=each.receipt.provider,
        market_id=market,
        seq=each.seq,
        reason=reason,
    )
    modes.to_dry_run(txn, _why_dry_run(failure))
    return "failed", stored is None


def stopped_paying(txn: Txn) -> bool:
    """Whether the mode is dry_run since a receipt could not be paid, and nobody chose it after."""
    present = modes.state(txn)
    last = txn.read(IMPORT_FAILURES, pack_u64(txn.number("import_failures")))
    return present.mode == "dry_run" and last is not None and present.reason == _why_dry_run(last)


def _why_dry_run(failure: ImportFailure) -> str:
    market = failure.market_id.hex()
    return f"receipt {failure.seq} of market {market} was not paid: {failure.reason}"


def _store(
    txn: Txn,
    file: Verified,
    origin: Origin,
    each: Exported,
    status: ImportStatus,
    reason: str | None = None,
) -> None:
    key, is_recorded = checks.key_of(file.market_id, each.seq), status == "recorded"
    imported = Imported(each.receipt, each.link, status, is_recorded, txn.now_ms, reason)
    txn.write(IMPORTS, key, imported)
    key_id = signatures.key_id(file.public_key)
    reached = replace(origin, key_id=key_id, to_seq=each.seq, to_link=each.link)
    txn.write(ORIGINS, file.market_id, reached)
    if status != "duplicate":
        txn.put(IMPORT_KEYS, each.receipt.idempotency_key, key)
        metrics.count(txn, "matches_total", "true" if is_recorded else "false")


def _document(key: bytes, imported: Imported) -> dict[str, Any]:
    receipt = imported.receipt
    return {
        "market_id": key[:-8].hex(),
        "seq": receipt.seq,
        "job_id": receipt.job_id,
        "buyer": receipt.buyer,
        "provider": receipt.provider,
        "quote_price": receipt.quote_price,
        "units": receipt.units,
        "issued_at": receipt.issued_at,
        "idempotency_key": receipt.idempotency_key.hex(),
        "status": imported.status,
        "reason": imported.reason,
        "at_ms": imported.at_ms,
    }
