"""Receipts, their chain and what became of their money, and how they are stored."""

from typing import Literal

from msgspec import Struct

from compute_market.records import Lane


class Receipt(Struct, frozen=True, array_like=True, gc=False):
    """What one provider proved of one job. Never changes; what was paid is its `Settlement`."""

    version: int
    job_id: str
    buyer: str
    provider: str
    quote_price: int
    units: int
    issued_at: int
    idempotency_key: bytes
    lane: Lane
    dry_run: bool
    seq: int


class Settlement(Struct, frozen=True, array_like=True, gc=False):
    """What became of the money of one receipt. It alone says who is due what from which job, so
    that a receipt that was lost to damage stops nobody's money."""

    status: Literal["recorded", "pending", "applied"]
    ct: int  # due; moved once the status is applied
    it: int
    applied_ms: int | None
    job_id: str
    buyer: str
    provider: str


class Link(Struct, frozen=True, array_like=True, gc=False):
    """One link of the receipt chain."""

    key: bytes
    digest: bytes
