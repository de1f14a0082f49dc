"""Sealing a bid and opening it again: a hash that hides it, and signatures that bind its bidder.

Everything here works on bytes and knows no market.
"""

from typing import Final

from msgspec import Struct

from compute_market.amounts import AMOUNT_MAX
from compute_market.chain import MARKET_ID_BYTES
from compute_market.errors import IntegrityError, UsageError
from compute_market.signatures import signatures
from compute_market.signatures.keys import Key
from compute_market.signatures.signatures import BID_COMMIT, BID_REVEAL, framed

SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
STATE_BYTES_MAX: Final = 2**20

_ID_BYTES: Final = 16
_COMMITMENT_CONTEXT: Final = "compute_market 2026-11 bid commitment v1"
_ID_CONTEXT: Final = "compute_market 2026-11 bid id v1"


class Terms(Struct, frozen=True, gc=False):
    """What a bid is bound to: one market, one bidder, one height, one place in its sequence."""

    market_id: bytes
    public_key: bytes
    height: int
    sequence: int

    @property
    def key_id(self) -> bytes:
        return signatures.key_id(self.public_key)


class Opening(Struct, frozen=True, gc=False):
    """What opens a commitment. `state` is the exact bytes of the bid."""

    terms: Terms
    salt: bytes
    state: bytes

    @property
    def commitment(self) -> bytes:
        """C: BLAKE3 in key-derivation mode over everything the bid is, 32 bytes (chapter 4.2)."""
        from blake3 import blake3

        message = framed(*_bound(self.terms), self.salt, self.state)
        return blake3(message, derive_key_context=_COMMITMENT_CONTEXT).digest()

    @property
    def bid_id(self) -> str:
        return id_of(self.terms, self.commitment)


class BidTx(Struct, frozen=True, gc=False):
    """What everybody may see of a sealed bid. `signature` is over its envelope."""

    terms: Terms
    commitment: bytes
    signature: bytes

    @property
    def bid_id(self) -> str:
        return id_of(self.terms, self.commitment)


class Sealed(Struct, frozen=True, gc=False):
    """A bid, and what its bidder alone knows of it until it is revealed."""

    bid_tx: BidTx
    opening: Opening


class Reveal(Struct, frozen=True, gc=False):
    """An opening, signed by the bidder: only the bidder may open a bid, whoever learns the salt."""

    opening: Opening
    signature: bytes


def blind_sign_cat(
    salt: bytes, state: bytes, *, market_id: bytes, key: Key, height: int, sequence: int
) -> Sealed:
    """Seal a bid: the `h = blind_sign_cat(salt, state)` of a BidTx.

    In spite of its name it is no blind signature, of which there is none that withstands quantum
    computers and is maintained: it is a commitment that hides `state` behind 32 random bytes of
    `salt`, and an ML-DSA-65 signature of the key over the envelope {market id, key id, height,
    sequence, commitment}. The signature is randomised. Raises UsageError for a salt, a state or a
    market id of a wrong length.
    """
    assert key.seed is not None, "only the holder of a key can sign with it"
    if len(salt) != SALT_BYTES:
        raise UsageError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    if len(market_id) != MARKET_ID_BYTES:
        raise UsageError(f"a market id has {MARKET_ID_BYTES} bytes, not {len(market_id)}")
    if len(state) > STATE_BYTES_MAX:
        raise UsageError(
            f"the bid has {len(state)} bytes, at most {STATE_BYTES_MAX} can be sealed",
            hint="give it fewer slices",
        )
    for number, what in ((height, "height"), (sequence, "sequence")):
        if not 0 <= number <= AMOUNT_MAX:
            raise UsageError(f"{what} {number} is not within 0…{AMOUNT_MAX}")
    opening = Opening(Terms(market_id, key.public_key, height, sequence), salt, state)
    commitment = opening.commitment
    signature = signatures.sign(key.seed, _envelope(opening.terms, commitment), BID_COMMIT)
    return Sealed(BidTx(opening.terms, commitment, signature), opening)


def sign_reveal(opening: Opening, key: Key) -> Reveal:
    """The reveal of a bid by its bidder."""
    assert key.seed is not None, "only the holder of a key can sign with it"
    message = _opened(opening.commitment, opening)
    return Reveal(opening, signatures.sign(key.seed, message, BID_REVEAL))


def check_bid_tx(bid_tx: BidTx) -> None:
    """Raise IntegrityError (`bad_signature`) unless the bidder has signed this envelope."""
    signatures.verify(
        bid_tx.terms.public_key,
        bid_tx.signature,
        _envelope(bid_tx.terms, bid_tx.commitment),
        BID_COMMIT,
        f"the commitment of bid {bid_tx.bid_id}",
    )


def check_reveal(bid_tx: BidTx, reveal: Reveal) -> None:
    """Make sure that a reveal opens a bid: both signatures, and the commitment recomputed.

    Raises IntegrityError (`bad_signature`, `bad_commitment`).
    """
    check_bid_tx(bid_tx)
    check_opens(bid_tx.bid_id, reveal.opening)
    check_signed(reveal)


def check_signed(reveal: Reveal) -> None:
    """Raise IntegrityError (`bad_signature`) unless the bidder has signed this reveal."""
    opening = reveal.opening
    commitment = opening.commitment
    signatures.verify(
        opening.terms.public_key,
        reveal.signature,
        _opened(commitment, opening),
        BID_REVEAL,
        f"the reveal of bid {id_of(opening.terms, commitment)}",
    )


def check_opens(bid_id: str, opening: Opening) -> None:
    """Raise IntegrityError (`bad_commitment`) unless salt, state and terms are those of a bid."""
    if opening.bid_id != bid_id:
        raise bad_commitment(bid_id)


def bad_commitment(bid_id: str) -> IntegrityError:
    return IntegrityError(
        f"bid {bid_id}: what is given is not what was committed to",
        hint="it was changed, or is that of another bid",
        reason="bad_commitment",
    )


def id_of(terms: Terms, commitment: bytes) -> str:
    """The id of a bid, a hash of its envelope.

    The key is part of it: who copies the commitment of another gets another id, and so cannot be
    first to use that of the bid he copied.
    """
    from blake3 import blake3

    digest = blake3(_envelope(terms, commitment), derive_key_context=_ID_CONTEXT).digest()
    return f"b-{digest[:_ID_BYTES].hex()}"


def _envelope(terms: Terms, commitment: bytes) -> bytes:
    return framed(*_bound(terms), commitment)


def _opened(commitment: bytes, opening: Opening) -> bytes:
    return framed(commitment, opening.salt, opening.state)


def _bound(terms: Terms) -> tuple[bytes, bytes, bytes, bytes]:
    height, sequence = terms.height.to_bytes(8, "big"), terms.sequence.to_bytes(8, "big")
    return terms.market_id, terms.key_id, height, sequence
