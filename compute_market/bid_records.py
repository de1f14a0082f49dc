"""Sealed bids as they are stored; see `records`."""

from typing import Literal, get_args

from msgspec import Struct

BidState = Literal["committed", "revealed", "expired"]
BID_STATES: tuple[BidState, ...] = get_args(BidState)


class Bidder(Struct, frozen=True, array_like=True, gc=False):
    """Who has sealed bids; stored under the id of the key."""

    public_key: bytes
    sequence: int  # the highest that was seen


class Bid(Struct, frozen=True, array_like=True, gc=False):
    """A sealed bid. What it holds is not known before it is revealed, and then it is a job."""

    bid_id: str
    key_id: bytes  # of its bidder
    owner: str  # whose wallet gave the bond
    height: int  # that was signed
    sequence: int
    commitment: bytes
    signature: bytes  # of the commitment
    reveal_from: int  # heights between which it may be revealed, both included
    reveal_until: int
    state: BidState
    bond_ct: int  # given; held while it is committed
    job_id: str | None = None
    refused: str | None = None  # why its job was not let in when it was revealed
    committed_at: int | None = None  # unix second; None of one that an older release took in
