"""The files of bids: what is broadcast, what reveals it, and what its bidder keeps secret.

Each is one line of canonical JSON that proves itself: the id is recomputed from everything else,
and the signature is checked, so that no bit of it can be changed unnoticed.
"""

from typing import Final

from msgspec import Struct

from compute_market.amounts import AMOUNT_MAX
from compute_market.bids import sealing
from compute_market.bids.sealing import (
    COMMITMENT_BYTES,
    SALT_BYTES,
    STATE_BYTES_MAX,
    BidTx,
    Opening,
    Reveal,
    Sealed,
    Terms,
)
from compute_market.chain import MARKET_ID_BYTES
from compute_market.signatures import canonical
from compute_market.signatures.canonical import malformed
from compute_market.signatures.signatures import PUBLIC_KEY_BYTES, SIGNATURE_BYTES

VERSION: Final = 1
BID_FORMAT: Final = "tb-bid"
REVEAL_FORMAT: Final = "tb-bid-reveal"
SECRET_FORMAT: Final = "tb-bid-secret"
# No file of a bid is longer: a state in hex, and then some.
FILE_BYTES_MAX: Final = 2 * STATE_BYTES_MAX + 2**16


class BidFile(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What is broadcast of a sealed bid. Bytes are in hex."""

    format: str  # what it is: `tb-bid`
    version: int  # of the format: 1
    bid_id: str  # its id, which is made of all the rest
    market_id: str  # the market it is for, 32 hex digits
    public_key: str  # the key of the bidder, 3904 hex digits
    height: int  # of that market when it was sealed
    sequence: int  # number of the bid among those of its key
    commitment: str  # what binds the bidder to what is hidden, 64 hex digits
    signature: str  # of the commitment, 6618 hex digits


class OpeningFile(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What opens a bid: the secret of its bidder, or its reveal. Bytes are in hex."""

    format: str  # what it is: `tb-bid-secret`, or `tb-bid-reveal`
    version: int  # of the format: 1
    bid_id: str  # the id of the bid that it opens
    market_id: str  # as in the bid
    public_key: str  # as in the bid
    height: int  # as in the bid
    sequence: int  # as in the bid
    salt: str  # what hides the job in the commitment, 64 hex digits
    state: str  # the job that was hidden, in hex
    signature: str  # of the commitment in a secret, of the opening in a reveal


def bid_text(bid_tx: BidTx) -> bytes:
    """The file of a bid as it is broadcast."""
    return canonical.line(
        BidFile(
            BID_FORMAT,
            VERSION,
            bid_tx.bid_id,
            bid_tx.terms.market_id.hex(),
            bid_tx.terms.public_key.hex(),
            bid_tx.terms.height,
            bid_tx.terms.sequence,
            bid_tx.commitment.hex(),
            bid_tx.signature.hex(),
        )
    )


def reveal_text(reveal: Reveal) -> bytes:
    """The file that reveals a bid."""
    return _opening_text(REVEAL_FORMAT, reveal.opening, reveal.signature)


def secret_text(sealed: Sealed) -> bytes:
    """The file that its bidder keeps of a bid, and nobody else may read."""
    return _opening_text(SECRET_FORMAT, sealed.opening, sealed.bid_tx.signature)


def parse_bid(text: bytes, what: str) -> BidTx:
    """The bid in a file. Raises IntegrityError naming `what` for any change of it.

    Its reason is `malformed`, `bad_commitment` or `bad_signature`.
    """
    canonical.check_kind(text, BID_FORMAT, VERSION, what)
    found = canonical.parsed(text, BidFile, what)
    bid_tx = BidTx(
        _terms(found, what),
        canonical.unhex(found.commitment, COMMITMENT_BYTES, f"{what}: the commitment"),
        canonical.unhex(found.signature, SIGNATURE_BYTES, f"{what}: the signature"),
    )
    if bid_tx.bid_id != found.bid_id:
        raise sealing.bad_commitment(found.bid_id)
    sealing.check_bid_tx(bid_tx)
    return bid_tx


def parse_reveal(text: bytes, what: str) -> Reveal:
    """The reveal in a file. Raises IntegrityError as `parse_bid` does."""
    reveal = Reveal(*_opening(text, REVEAL_FORMAT, what))
    sealing.check_signed(reveal)
    return reveal


def parse_secret(text: bytes, what: str) -> Sealed:
    """The secret in a file. Raises IntegrityError as `parse_bid` does."""
    opening, signature = _opening(text, SECRET_FORMAT, what)
    bid_tx = BidTx(opening.terms, opening.commitment, signature)
    sealing.check_bid_tx(bid_tx)
    return Sealed(bid_tx, opening)


def _opening_text(format_: str, opening: Opening, signature: bytes) -> bytes:
    return canonical.line(
        OpeningFile(
            format_,
            VERSION,
            opening.bid_id,
            opening.terms.market_id.hex(),
            opening.terms.public_key.hex(),
            opening.terms.height,
            opening.terms.sequence,
            opening.salt.hex(),
            opening.state.hex(),
            signature.hex(),
        )
    )


def _opening(text: bytes, format_: str, what: str) -> tuple[Opening, bytes]:
    canonical.check_kind(text, format_, VERSION, what)
    found = canonical.parsed(text, OpeningFile, what)
    opening = Opening(
        _terms(found, what),
        canonical.unhex(found.salt, SALT_BYTES, f"{what}: the salt"),
        canonical.unhex(found.state, len(found.state) // 2, f"{what}: the state"),
    )
    if len(opening.state) > STATE_BYTES_MAX:
        raise malformed(f"{what}: the state has more than {STATE_BYTES_MAX} bytes")
    sealing.check_opens(found.bid_id, opening)
    return opening, canonical.unhex(found.signature, SIGNATURE_BYTES, f"{what}: the signature")


def _terms(found: BidFile | OpeningFile, what: str) -> Terms:
    for number, name in ((found.height, "height"), (found.sequence, "sequence")):
        if not 0 <= number <= AMOUNT_MAX:
            raise malformed(f"{what}: the {name} is not within 0…{AMOUNT_MAX}")
    return Terms(
        canonical.unhex(found.market_id, MARKET_ID_BYTES, f"{what}: the market id"),
        canonical.unhex(found.public_key, PUBLIC_KEY_BYTES, f"{what}: the public key"),
        found.height,
        found.sequence,
    )
