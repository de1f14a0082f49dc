"""Sealed bids under test: keys, salts and jobs that are the same in every run."""

from typing import Any

from compute_market.bid_records import Bid
from compute_market.bids import bids, sealed_jobs, sealing
from compute_market.bids.bids import Revealed, Taken
from compute_market.bids.sealing import Opening, Reveal, Sealed
from compute_market.records import Refused
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from tests.support.market import MARKET_ID, Market, job_request, slice_of

ALICE = keys.key_of(bytes(range(32)))
MALLORY = keys.key_of(bytes(range(1, 33)))
SALT = bytes(range(100, 132))


def state(job_id: str = "job", **fields: Any) -> bytes:
    """The bytes of a bid for a job of one slice."""
    inputs = [slice_of(10)]
    return sealed_jobs.state_of(job_request(job_id, inputs, **fields), inputs)


def seal(
    job_id: str = "job",
    *,
    key: Key = ALICE,
    height: int = 0,
    sequence: int = 1,
    market_id: bytes = MARKET_ID,
    salt: bytes = SALT,
    **fields: Any,
) -> Sealed:
    return sealing.blind_sign_cat(
        salt,
        state(job_id, **fields),
        market_id=market_id,
        key=key,
        height=height,
        sequence=sequence,
    )


def take(market: Market, sealed: Sealed, owner: str = "buyer") -> Taken:
    sealing.check_bid_tx(sealed.bid_tx)
    return market.update(lambda txn: bids.take(txn, sealed.bid_tx, owner))


def reveal(
    market: Market, opened: Sealed | Opening | Reveal, key: Key = ALICE
) -> Revealed | Refused:
    if isinstance(opened, Sealed):
        opened = opened.opening
    if isinstance(opened, Opening):
        opened = sealing.sign_reveal(opened, key)
    found = opened
    sealing.check_reveal(market.view(lambda txn: bids.to_open(txn, found)), found)
    return market.update(lambda txn: bids.reveal(txn, found))


def bid_of(market: Market, sealed: Sealed) -> Bid:
    return market.view(lambda txn: bids.get(txn, sealed.bid_tx.bid_id))
