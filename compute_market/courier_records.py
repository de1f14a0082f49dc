"""Bundles on their way to other markets as they are stored; see `records`."""

from typing import Literal

from msgspec import Struct

# A handoff tells of a job that another provider takes over.
BundleKind = Literal["bundle", "handoff"]
BundleState = Literal["pending", "acknowledged", "refused"]


class Progress(Struct, frozen=True, array_like=True, gc=False):
    """How far an active job is: what the bundle of a handoff tells of it."""

    handovers: int
    units_left: int


class BundleReceipt(Struct, frozen=True, array_like=True, gc=False):
    """A bundle that was given to the courier, and what became of it."""

    receipt_id: int  # 64 random bits
    seq: int  # order of sending
    kind: BundleKind
    bundle_hash: bytes  # BLAKE3-256
    size: int  # bytes
    sender: str
    dest: str
    sent_ms: int
    state: BundleState = "pending"
    attempts: int = 0
    last_error: str | None = None
    ended_ms: int | None = None  # when it was acknowledged or refused
    reward_ct: int = 0  # what its sender was paid for it
    # Of a handoff: the job, the offer that takes it over, and what is told of the job.
    job_id: str | None = None
    offer_id: str | None = None
    told: Progress | None = None
    # When it was first acknowledged, which it may have been before it was sent again.
    acknowledged_ms: int | None = None


class Delivery(Struct, frozen=True, array_like=True, gc=False):
    """A bundle that another market has brought."""

    market_id: bytes
    receipt_id: int  # there
    key_id: bytes  # of who signed for it
    kind: BundleKind
    bundle_hash: bytes
    size: int
    sender: str
    sent_ms: int  # by the clock there
    received_ms: int
    job_id: str | None = None
