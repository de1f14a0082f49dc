"""What the audit checks of receipts of other markets."""

from collections import Counter
from collections.abc import Iterator

from compute_market.import_records import Imported, Origin
from compute_market.laws import Law, Violation, same_size
from compute_market.settlement import import_checks, imports, ledger, receipts
from compute_market.settlement.import_checks import key_of
from compute_market.settlement.receipt_chain import link_digest
from compute_market.store.schema import (
    ARCHIVED_RECEIPTS,
    IMPORT_FAILURES,
    IMPORT_KEYS,
    IMPORTS,
    META,
    ORIGINS,
    POSTINGS,
    SETTLEMENTS,
    unpack_u64,
)
from compute_market.store.table import encode
from compute_market.store.txn import Txn

_UNBROKEN = "the chain of another market is unbroken"


def _chains(txn: Txn) -> Iterator[Violation]:
    """Of each market a stretch of its chain, without a gap, and nothing of any other."""
    count = 0
    for market, payload in txn.scan(ORIGINS):
        origin = ORIGINS.decode(market, payload)
        seq, link = origin.from_seq - 1, origin.from_link
        for key, stored in txn.scan(IMPORTS, market):
            count += 1
            seq += 1
            imported = IMPORTS.decode(key, stored)
            expected = link_digest(seq, link, encode(imported.receipt))
            link = imported.link
            if key != key_of(market, seq) or link != expected:
                yield Violation("imports", _name(key), _UNBROKEN, "the link does not fit")
                break
        else:
            yield from _end(market, origin, seq, link)
    yield from same_size(txn, IMPORTS, count, "every import is that of a known market")


def _end(market: bytes, origin: Origin, seq: int, link: bytes) -> Iterator[Violation]:
    if (seq, link) != (origin.to_seq, origin.to_link):
        yield Violation("origins", market.hex(), _UNBROKEN, f"it ends with {seq}")


def _keys(txn: Txn) -> Iterator[Violation]:
    """Each key stands for one receipt, and each receipt has the key of its fields."""
    count = 0
    for key, payload in txn.scan(IMPORTS):
        imported = IMPORTS.decode(key, payload)
        receipt = imported.receipt
        computed = receipts.key_of_fields(receipt)
        if receipt.idempotency_key != computed:
            yield Violation("imports", _name(key), "the key is that of its fields", computed.hex())
            continue
        if receipt.buyer == receipt.provider:
            yield Violation("imports", _name(key), "nobody pays himself", receipt.buyer)
        holder = txn.get(IMPORT_KEYS, receipt.idempotency_key)
        is_first = imported.status != "duplicate"
        count += is_first
        is_held = holder is not None or import_checks.is_own(txn, receipt.idempotency_key)
        if (holder == key) != is_first or not is_held:
            yield Violation("imports", _name(key), "a key stands for one import", imported.status)
    yield from same_size(txn, IMPORT_KEYS, count, "a key stands for one import")


def _payments(txn: Txn) -> Iterator[Violation]:
    """What is applied was paid once, as it says, and nothing else was."""
    paid: Counter[tuple[str, str, str, str, int]] = Counter()
    for posting in txn.records(POSTINGS):
        if posting.event == imports.EVENT:
            ends = posting.ref, posting.token, posting.debit, posting.credit
            paid[(*ends, posting.amount)] += 1
    for imported in txn.records(IMPORTS):
        if imported.status == "applied" and (due := _due(imported))[-1]:
            paid[due] -= 1
    for (job_id, token, debit, credit, amount), times in paid.items():
        if times:
            yield Violation(
                "imports",
                job_id,
                "an import is paid once when it is applied",
                f"{amount} {token} from {debit} to {credit}, {abs(times)} times too "
                f"{'often' if times > 0 else 'seldom'}",
            )


def _due(imported: Imported) -> tuple[str, str, str, str, int]:
    receipt = imported.receipt
    ends = ledger.wallet(receipt.buyer), ledger.wallet(receipt.provider)
    return receipt.job_id, "CT", *ends, receipt.quote_price * receipt.units


def _failures(txn: Txn) -> Iterator[Violation]:
    """Each failure is that of an import, and an import that failed has one."""
    law = "what could not be paid is archived"
    archived: set[bytes] = set()
    count = 0
    for key, payload in txn.scan(IMPORT_FAILURES):
        count += 1
        failure = IMPORT_FAILURES.decode(key, payload)
        place = key_of(failure.market_id, failure.seq)
        archived.add(place)
        number = str(unpack_u64(key))
        if unpack_u64(key) != count:
            yield Violation("import_failures", number, "no gaps", f"expected {count}")
            return
        if txn.read(IMPORTS, place) is None:
            yield Violation("import_failures", number, law, "there is no such import")
    if count != txn.number("import_failures"):
        last = txn.number("import_failures")
        yield Violation("import_failures", "*", "no gaps", f"the last is {count}, {last} happened")
    for key, payload in txn.scan(IMPORTS):
        imported = IMPORTS.decode(key, payload)
        is_failed = imported.status == "failed"
        if is_failed != (imported.reason is not None) or (is_failed and key not in archived):
            yield Violation("imports", _name(key), law, imported.status)


def _name(key: bytes) -> str:
    return f"{key[:-8].hex()} {unpack_u64(key[-8:])}"


LAWS = (
    Law(_chains, (IMPORTS, ORIGINS)),
    Law(_keys, (IMPORTS, IMPORT_KEYS, SETTLEMENTS, ARCHIVED_RECEIPTS)),
    Law(_payments, (IMPORTS, POSTINGS)),
    Law(_failures, (IMPORTS, IMPORT_FAILURES, META)),
)
