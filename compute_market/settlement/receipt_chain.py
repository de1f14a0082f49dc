"""The hash chain of the receipts of one store: each link binds the one before it."""

from typing import TYPE_CHECKING, Final

from compute_market.store.schema import RECEIPT_CHAIN, pack_u64
from compute_market.store.table import encode
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.receipt_records import Link, Receipt

CONTEXT: Final = "compute_market 2026-11 receipt chain v1"
DIGEST_BYTES: Final = 32
GENESIS: Final = bytes(DIGEST_BYTES)  # what the first receipt of a store follows


def link_digest(seq: int, previous: bytes, receipt: bytes) -> bytes:
    """A link binds its sequence number, the link before it and the receipt's own bytes."""
    import blake3  # Most commands import this module, and few issue receipts.

    return blake3.blake3(pack_u64(seq) + previous + receipt, derive_key_context=CONTEXT).digest()


def digest(txn: Txn, seq: int) -> bytes:
    """The link of a receipt, or for 0 what the first one follows.

    Raises IntegrityError when it is missing or damaged.
    """
    return txn.must_read(RECEIPT_CHAIN, pack_u64(seq)).digest if seq else GENESIS


def head(txn: Txn) -> tuple[int, bytes]:
    """Number and link of the last receipt; 0 when there is none."""
    last = txn.number("receipt_seq")
    return last, digest(txn, last)


def link_to(txn: Txn, receipt: "Receipt") -> "Link":
    """The next link, that of a receipt that is about to be stored."""
    last = txn.read(RECEIPT_CHAIN, pack_u64(receipt.seq - 1))
    previous = GENESIS if last is None else last.digest
    from compute_market.receipt_records import Link  # Most commands prove nothing.

    return Link(receipt.idempotency_key, link_digest(receipt.seq, previous, encode(receipt)))
