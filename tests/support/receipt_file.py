"""Files of receipts: exported from a market, or forged by somebody who has a key."""

from collections.abc import Iterator, Sequence

from blake3 import blake3

from compute_market.receipt_records import Receipt
from compute_market.records import replace
from compute_market.settlement import receipt_export, receipt_files
from compute_market.settlement.receipt_chain import GENESIS, link_digest
from compute_market.settlement.receipt_files import Exported, Section
from compute_market.settlement.receipts import key_of_fields
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from compute_market.store.table import encode
from tests.support.market import MARKET_ID, START_MS, Market

KEY = keys.key_of(bytes(32))
OTHER_KEY = keys.key_of(bytes(31) + b"\1")
ROOT = blake3(b"some state").digest()


def exported(
    market: Market, from_seq: int = 1, to_seq: int | None = None, *, page: int = 2, key: Key = KEY
) -> list[bytes]:
    """The lines of an export."""
    section = market.view(lambda txn: receipt_export.section(txn, from_seq, to_seq))
    return [
        receipt_files.first_line(section, key.public_key),
        *map(receipt_files.receipt_line, receipts_of(market, section, page)),
        receipt_files.last_line(section, key),
    ]


def receipts_of(market: Market, section: Section, page: int = 2) -> Iterator[Exported]:
    last: Exported | None = None
    while found := market.view(lambda txn: receipt_export.page(txn, section, last, page)):  # noqa: B023 - called at once
        yield from found
        last = found[-1]


def receipt(seq: int, **fields: object) -> Receipt:
    """A receipt as a market issues it."""
    named = {"job_id": f"job-{seq}", "buyer": "buyer", "provider": "prov"}
    terms = {"quote_price": 5, "units": 1, "issued_at": START_MS // 1000, "lane": "industrial"}
    more = {"version": 1, "dry_run": False, "seq": seq, "idempotency_key": b""}
    found = Receipt(**(named | terms | more | fields))  # type: ignore[arg-type]
    return replace(found, idempotency_key=key_of_fields(found))


def chained(receipts: Sequence[Receipt], previous: bytes = GENESIS) -> Iterator[Exported]:
    """Receipts with the links they have one after the other."""
    for each in receipts:
        previous = link_digest(each.seq, previous, encode(each))
        yield Exported(each.seq, previous, each)


def signed(
    entries: Sequence[Exported],
    key: Key = KEY,
    market_id: bytes = MARKET_ID,
    from_link: bytes = GENESIS,
) -> list[bytes]:
    """The file that whoever has a key can make of entries that follow a link."""
    first = entries[0].seq if entries else 1
    end = entries[-1] if entries else Exported(0, GENESIS, receipt(1))
    section = Section(market_id, first, from_link, end.seq, end.link, "dry_run", 7, ROOT)
    return [
        receipt_files.first_line(section, key.public_key),
        *map(receipt_files.receipt_line, entries),
        receipt_files.last_line(section, key),
    ]
