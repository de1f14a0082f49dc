"""Receipts of other markets as they are stored; see `records`."""

from typing import Literal

from msgspec import Struct

from compute_market.receipt_records import Receipt

ImportStatus = Literal["recorded", "applied", "failed", "duplicate"]


class Imported(Struct, frozen=True, array_like=True, gc=False):
    """A receipt of another market. One that is held already is a duplicate, and counts nowhere."""

    receipt: Receipt
    link: bytes
    status: ImportStatus
    dry_run: bool  # it was recorded and nothing else when it was first stored
    at_ms: int  # when it came to its status
    reason: str | None = None  # why it could not be paid the last time


class Origin(Struct, frozen=True, array_like=True, gc=False):
    """Another market, and how much of its chain was imported, without a gap."""

    key_id: bytes  # of the last file
    from_seq: int
    from_link: bytes  # the link before the first receipt
    to_seq: int
    to_link: bytes


class ImportFailure(Struct, frozen=True, array_like=True, gc=False):
    """A receipt of another market that could not be paid."""

    market_id: bytes
    seq: int
    reason: str
    message: str
    at_ms: int
