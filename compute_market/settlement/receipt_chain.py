"""The hash chain of the receipts of one store: each link binds the one before it."""

from functools import cache
from typing import TYPE_CHECKING, Final

from compute_market.store.schema import RECEIPT_CHAIN, pack_u64
from compute_market.store.table import encode
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    import blake3

    from compute_market.receipt_records import Link, Receipt

CONTEXT: Final = "compute_market 2026-11 receipt chain v1"
DIGEST_BYTES: Final = 32
GENESIS: Final = bytes(DIGEST_BYTES)  # what the first receipt of a store follows


def link_digest(seq: int, previous: bytes, receipt: bytes) -> bytes:
    """A link binds its sequence number, the link before it and the receipt's own bytes."""
    return _hasher()(pack_u64(seq) + previous + receipt, derive_key_context=CONTEXT).digest()


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
    linked = link_digest(receipt.seq, previous, encode(receipt))
    return RECEIPT_CHAIN.kind(receipt.idempotency_key, linked)


@cache
def _hasher() -> "type[blake3.blake3]":
    """Most commands import this module, and few issue receipts; an import takes long each time."""
    import blake3

    return blake3.blake3
