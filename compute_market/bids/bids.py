"""Sealed bids: taken in, revealed as the jobs they hold, or expired. The only writer of its tables.

A bid that was committed is revealed between two heights or expires, and then its bond burns. Until
then nobody can know what is in it, this market neither.
"""

from typing import Any

from msgspec import Struct

from compute_market import chain, events
from compute_market.amounts import AMOUNT_MAX
from compute_market.bid_records import Bid, Bidder
from compute_market.bids import sealed_jobs
from compute_market.bids.sealing import BidTx, Reveal, Terms
from compute_market.errors import (
    ConflictError,
    IntegrityError,
    MarketError,
    NotFoundError,
    PendingError,
    RefusedError,
    check_same,
)
from compute_market.jobs import jobs
from compute_market.jobs.submit import Submitted, submit
from compute_market.records import Job, Refused, check_id, replace
from compute_market.settlement import escrow, ledger, modes
from compute_market.store.schema import (
    BIDDERS,
    BIDS,
    BIDS_DUE,
    BIDS_DUE_FROM,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

# Blocks from the one in which a bid was taken in to the first in which it may be revealed.
REVEAL_AFTER = 2


class Taken(Struct, frozen=True, gc=False):
    bid: Bid
    changed: bool


class Revealed(Struct, frozen=True, gc=False):
    """A revealed bid: with its job, or with why the job was not let in."""

    bid: Bid
    job: Job | None
    refused: Refused | None
    changed: bool


def find(txn: Txn, bid_id: str) -> Bid | None:
    return txn.read(BIDS, bid_id.encode())


def get(txn: Txn, bid_id: str) -> Bid:
    """Raises NotFoundError."""
    bid = find(txn, bid_id)
    if bid is None:
        raise NotFoundError(
            f"there is no bid {bid_id}",
            hint="`tb-cli bid list` shows those of this market; `tb-cli bid import` takes one in",
        )
    return bid


def next_terms(txn: Txn, public_key: bytes, key_id: bytes, sequence: int | None = None) -> Terms:
    """What a bidder binds a bid to that is sealed now; the next sequence number unless given.

    Raises ConflictError (`sequence_used_up`) when the key has used the highest that there is.
    """
    if sequence is None:
        bidder = txn.read(BIDDERS, key_id)
        sequence = 1 if bidder is None else bidder.sequence + 1
        if sequence > AMOUNT_MAX:
            raise ConflictError(
                f"key {key_id.hex()} has used the highest sequence number, {AMOUNT_MAX}",
                hint="it can seal no more bids for this market; use another key",
                reason="sequence_used_up",
            )
    return Terms(chain.market_id(txn), public_key, chain.height(txn), sequence)


def bid_tx_of(txn: Txn, bid: Bid) -> BidTx:
    """What was broadcast of a bid. Raises IntegrityError when its bidder is missing."""
    bidder = txn.must_read(BIDDERS, bid.key_id)
    terms = Terms(chain.market_id(txn), bidder.public_key, bid.height, bid.sequence)
    return BidTx(terms, bid.commitment, bid.signature)


def take(txn: Txn, bid_tx: BidTx, owner: str) -> Taken:
    """Take a sealed bid in, with a bond from the wallet of its owner; the same again is no change.

    It may be revealed from two blocks after this one, so that no bid can be chosen by what others
    have revealed, until the window after the height that it was signed at has passed. Its
    signature is checked before, outside of any transaction: by `bid_files.parse_bid` or
    `sealing.check_bid_tx`. Raises RefusedError (`foreign_market`, `height_ahead`, `expired`,
    `insufficient_funds`), and ConflictError (`sequence_reused`, or for another owner).
    """
    check_id(owner, "owner")
    terms, bid_id = bid_tx.terms, bid_tx.bid_id
    _check_market(txn, terms, bid_id)
    existing = find(txn, bid_id)
    if existing is not None:
        check_same(f"bid {bid_id}", {"owner": existing.owner}, {"owner": owner})
        return Taken(existing, False)
    key_id = terms.key_id
    _check_sequence(txn, key_id, terms.sequence)
    height = chain.height(txn)
    reveal_from, reveal_until = height + REVEAL_AFTER, terms.height + txn.config.bid_reveal_window
    _check_height(bid_id, terms.height, height, reveal_until)
    bond_ct = txn.config.bid_bond_ct if modes.is_real(txn) else 0
    ledger.require(txn, ledger.wallet(owner), "CT", bond_ct)
    # After this point it must succeed.
    bid = Bid(
        bid_id,
        key_id,
        owner,
        terms.height,
        terms.sequence,
        bid_tx.commitment,
        bid_tx.signature,
        reveal_from,
        reveal_until,
        "committed",
        bond_ct,
        committed_at=txn.now,
    )
    escrow.lock_bid(txn, owner, bid_id, bond_ct)
    txn.write(BIDDERS, key_id, Bidder(terms.public_key, terms.sequence))
    txn.write(BIDS, bid_id.encode(), bid)
    txn.put(BIDS_DUE, due_key(bid))
    _note_next(txn)
    events.note(
        txn,
        "bid_committed",
        owner=owner,
        bid_id=bid_id,
        bidder=key_id.hex(),
        height=terms.height,
        sequence=terms.sequence,
        reveal_from=reveal_from,
        reveal_until=reveal_until,
        bond_ct=bond_ct,
    )
    return Taken(bid, True)


def to_open(txn: Txn, opened: Reveal) -> BidTx:
    """What a reveal must open: `sealing.check_reveal` says whether it does.

    Raises NotFoundError and RefusedError (`foreign_market`).
    """
    bid_id = opened.opening.bid_id
    _check_market(txn, opened.opening.terms, bid_id)
    return bid_tx_of(txn, get(txn, bid_id))


def reveal(txn: Txn, opened: Reveal, barred: Refused | None = None) -> Revealed | Refused:
    """Reveal a bid, which gives its bond back and submits the job it holds.

    The job waits where no offer fits it. What else keeps it out is kept with the bid, which is
    revealed all the same: that it is no job (`malformed`), that it would spend the money of
    another than the bid's owner (`buyer_mismatch`), what the caller says (`barred`), and what
    `submit` does. Another reveal within the window tries it again. A bid whose job is there is
    unchanged. Both signatures are checked before, outside of any transaction: see `to_open`.
    Returns Refused (`expired`) when it is too late. Raises NotFoundError, PendingError
    (`too_early`), and RefusedError (`foreign_market`).
    """
    opening = opened.opening
    bid_id = opening.bid_id
    _check_market(txn, opening.terms, bid_id)
    # Its id is a hash of all that was signed, the commitment too: it is the bid that was checked.
    bid = get(txn, bid_id)
    if bid.job_id is not None:
        return Revealed(bid, jobs.get(txn, bid.job_id), None, False)
    late = check_window(txn, bid)
    if late is not None:
        return late
    if bid.state == "committed":
        # First of all: the bond may be what the job is paid with.
        escrow.release_bid(txn, bid.owner, bid_id, bid.bond_ct)
        txn.delete(BIDS_DUE, due_key(bid))
        _note_next(txn)
    verdict = barred or _submit(txn, bid, opening.state)
    if isinstance(verdict, Refused):
        return _revealed(txn, replace(bid, refused=verdict.reason), None, verdict)
    bid = replace(bid, job_id=verdict.job.job_id, refused=None)
    return _revealed(txn, bid, verdict.job, None)


def _submit(txn: Txn, bid: Bid, state: bytes) -> Submitted | Refused:
    """Submit the job of a bid; whatever keeps it out is a verdict."""
    try:
        request, inputs = sealed_jobs.job_of(state)
        check_buyer(bid.owner, request.buyer)
        # What it raises it raises before it has written anything.
        return submit(txn, request, inputs, wait=True)
    except ConflictError as error:
        hint = "what is sealed cannot be changed: seal a new bid, with another job id"
        return Refused(error.reason or error.token, error.message, hint)
    except (IntegrityError, RefusedError) as error:
        return Refused(error.reason or error.token, error.message, error.hint)


def check_buyer(owner: str, buyer: str) -> None:
    """Raise RefusedError (`buyer_mismatch`) unless a bid's job spends the money of its owner.

    The signature says whose bid it is, and not whose wallet: only the owner, whom this market's
    operator has named, is known to have bid.
    """
    if buyer != owner:
        raise RefusedError(
            f"the job's buyer is {buyer}, and the bid is {owner}'s: a bid spends the money of "
            "its owner alone",
            hint=f"seal a new bid and give `--owner {buyer}`",
            reason="buyer_mismatch",
        )


def check_window(txn: Txn, bid: Bid) -> Refused | None:
    """Whether it is too late to reveal a bid. Raises PendingError (`too_early`)."""
    height = chain.height(txn)
    if height < bid.reveal_from:
        blocks = bid.reveal_from - height
        raise PendingError(
            f"bid {bid.bid_id} may be revealed from height {bid.reveal_from} on, in "
            f"{'1 block' if blocks == 1 else f'{blocks} blocks'}; it is {height} now",
            reason="too_early",
            blocks=blocks,
        )
    return lateness(txn, bid)


def lateness(txn: Txn, bid: Bid) -> Refused | None:
    """That it is too late to reveal a bid, and what it has cost; None while it is not."""
    height = chain.height(txn)
    if bid.state == "expired" or height > bid.reveal_until:
        message = f"bid {bid.bid_id} could be revealed until height {bid.reveal_until}"
        bond = f"; its bond of {bid.bond_ct} CT" if bid.bond_ct else ""
        cost = {
            "expired": bond and f"{bond} is burned",
            "committed": bond and f"{bond} is forfeit",
            "revealed": f"; it was revealed, and its job refused: {bid.refused}",
        }[bid.state]
        return Refused("expired", f"{message}, and it is {height} now{cost}")
    return None


def expire(txn: Txn, limit: int) -> tuple[int, int]:
    """Let at most `limit` bids expire whose window has passed; how many, and the CT burned."""
    height = chain.height(txn)
    overdue = [
        key[8:].decode() for key, _ in txn.collect(BIDS_DUE, limit) if unpack_u64(key[:8]) < height
    ]
    burned_ct = 0
    for bid_id in overdue:
        bid = txn.must_read(BIDS, bid_id.encode())
        escrow.burn_bid(txn, bid.owner, bid_id, bid.bond_ct)
        burned_ct += bid.bond_ct
        txn.write(BIDS, bid_id.encode(), replace(bid, state="expired"))
        txn.delete(BIDS_DUE, due_key(bid))
        events.note(txn, "bid_expired", owner=bid.owner, bid_id=bid_id, burned_ct=bid.bond_ct)
    _note_next(txn)
    return len(overdue), burned_ct


def due_key(bid: Bid) -> bytes:
    return pack_u64(bid.reveal_until) + bid.bid_id.encode()


def document(txn: Txn, bid: Bid) -> dict[str, Any]:
    """The JSON form of a bid. `overdue` marks one that the next change of the market lets expire;
    `refused` is why the job of a revealed one was not let in."""
    return {
        "bid_id": bid.bid_id,
        "bidder": bid.key_id.hex(),
        "state": bid.state,
        "height": bid.height,
        "reveal_from": bid.reveal_from,
        "reveal_until": bid.reveal_until,
        "sequence": bid.sequence,
        "commitment": bid.commitment.hex(),
        "job_id": bid.job_id,
        "owner": bid.owner,
        "bond_ct": bid.bond_ct,
        "overdue": bid.state == "committed" and chain.height(txn) > bid.reveal_until,
        "refused": bid.refused,
        "committed_at": bid.committed_at,
    }


def page(txn: Txn, after: bytes | None, limit: int) -> tuple[list[dict[str, Any]], bytes | None]:
    """At most `limit` bids by id from behind the key `after` on; see `Txn.page`."""
    found, last = txn.page(BIDS, after, limit)
    return [document(txn, bid) for _, bid in found], last


def foreign_market(bid_id: str, market: bytes) -> MarketError:
    return RefusedError(
        f"bid {bid_id} is for market {market.hex()}, not for this one",
        hint="`tb-cli chain status` shows the id of a market",
        reason="foreign_market",
    )


def _revealed(txn: Txn, bid: Bid, job: Job | None, refused: Refused | None) -> Revealed:
    bid = replace(bid, state="revealed")
    txn.write(BIDS, bid.bid_id.encode(), bid)
    events.note(
        txn,
        "bid_revealed",
        job_id=bid.job_id,
        owner=bid.owner,
        bid_id=bid.bid_id,
        refused=bid.refused,
    )
    return Revealed(bid, job, refused, True)


def _check_market(txn: Txn, terms: Terms, bid_id: str) -> None:
    if terms.market_id != chain.market_id(txn):
        raise foreign_market(bid_id, terms.market_id)


def _check_sequence(txn: Txn, key_id: bytes, sequence: int) -> None:
    bidder = txn.read(BIDDERS, key_id)
    if bidder is not None and sequence <= bidder.sequence:
        raise ConflictError(
            f"sequence {sequence} is not above {bidder.sequence}, the last of key {key_id.hex()}",
            hint="each bid of a key has a higher sequence number than the one before",
            reason="sequence_reused",
        )


def _check_height(bid_id: str, signed: int, height: int, reveal_until: int) -> None:
    if signed > height:
        raise RefusedError(
            f"bid {bid_id} was signed at height {signed}, and it is {height} now",
            hint="import it again when that height is reached",
            reason="height_ahead",
        )
    if height + REVEAL_AFTER > reveal_until:
        raise RefusedError(
            f"bid {bid_id} can be revealed until height {reveal_until}, and it is {height} now: "
            "it comes too late to be revealed in time",
            hint="seal it again",
            reason="expired",
        )


def _note_next(txn: Txn) -> None:
    """Keep the height from which on there is something to do, so that others need not look."""
    first = txn.first(BIDS_DUE)
    txn.set_number(BIDS_DUE_FROM, 0 if first is None else unpack_u64(first[0][:8]) + 1)
