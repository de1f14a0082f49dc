"""The tables of the store, and how their values are written and read."""

from typing import Any, Final

from msgspec import DecodeError, Struct
from msgspec.msgpack import Decoder, Encoder

from compute_market import records
from compute_market.errors import IntegrityError

SCHEMA_VERSION: Final = 1

# Table → the record its values decode to; None for tables of plain bytes (indexes and numbers).
TABLES: Final[dict[str, type[Struct] | None]] = {
    "meta": None,
    "counters": None,
    "accounts": None,
    "postings": records.Posting,
    "wallet_postings": None,
    "taps": records.Tap,
    "reputation": records.Score,
    "standing": None,
    "offers": records.Offer,
    "book": None,
    "heads": None,
    "provider_prices": None,
    "usage": records.Usage,
    "throughput": None,
    "jobs": records.Job,
    "slices": records.Slice,
    "deadlines": None,
    "pending": None,
    "queue_high": None,
    "queue_normal": None,
    "queue_low": None,
    "active": None,
    "active_low": None,
    "provider_cancels": None,
    "utilization": None,
    "effective_prices": None,
    "receipt_claims": None,
    "receipts": records.Receipt,
    "receipt_chain": records.Link,
    "settlements": records.Settlement,
    "unsettled": None,
    "settle_state": records.SettleState,
    "quarantine": None,
    "cancellations": records.Cancellation,
    "decisions": records.Decision,
}

encode = Encoder().encode
_decoders = {name: Decoder(kind).decode for name, kind in TABLES.items() if kind is not None}


def pack_u64(number: int) -> bytes:
    """Eight bytes that sort like the number."""
    return number.to_bytes(8, "big")


def decode(table: str, key: bytes, value: bytes) -> Any:
    """Decode a stored value. Raises IntegrityError naming table and key when it is damaged."""
    try:
        return _decoders[table](value)
    except (DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"table {table}, key {key!r}: the stored record is damaged ({error})",
            hint="run `tb-cli compute-market audit`; restore from a backup",
        ) from error
