"""Bundle receipts as they are listed and shown."""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any

from compute_market.courier import courier, leases
from compute_market.courier_records import BundleReceipt
from compute_market.store import sparing
from compute_market.store.schema import BUNDLE_RECEIPTS, unpack_u64
from compute_market.store.txn import Txn


def listed(txn: Txn, after: bytes | None, size: int) -> tuple[list[BundleReceipt], bytes | None]:
    """Receipts in the order of sending, a page of them behind a key."""
    found, last = txn.page(BUNDLE_RECEIPTS, after, size)
    return [receipt for _, receipt in found], last


def newest(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The last `limit` receipts as rows, newest first."""
    return rows(txn, islice(sparing.keys_back(txn, BUNDLE_RECEIPTS), limit))


def waiting(txn: Txn, limit: int) -> list[dict[str, Any]]:
    """The first `limit` that wait as rows, in the order of sending."""
    found, _ = leases.page(txn, None, limit)
    return rows(txn, (key for key, _ in found))


def rows(txn: Txn, keys: Iterable[bytes]) -> list[dict[str, Any]]:
    """Receipts by their keys; one that is damaged as its number and `damaged`."""

    def of(key: bytes) -> dict[str, Any]:
        return document(txn, txn.must_read(BUNDLE_RECEIPTS, key))

    return [sparing.row({"seq": unpack_u64(key)}, partial(of, key)) for key in keys]


def document(txn: Txn, receipt: BundleReceipt) -> dict[str, Any]:
    """The JSON form. `next_attempt_at` is null when the next flush may have it at once."""
    until_ms = leases.until_ms(txn, receipt.seq)
    found: dict[str, Any] = {
        "id": courier.id_text(receipt.receipt_id),
        "bundle_hash": receipt.bundle_hash.hex(),
        "bytes": receipt.size,
        "sender": receipt.sender,
        "dest": receipt.dest,
        "timestamp": receipt.sent_ms // 1000,
        "acknowledged": receipt.state == "acknowledged",
        "attempts": receipt.attempts,
        "last_error": receipt.last_error,
        "next_attempt_at": None if until_ms is None else until_ms // 1000,
        "state": receipt.state,
        "kind": receipt.kind,
        "reward_ct": receipt.reward_ct,
    }
    if receipt.kind == "handoff":
        found |= {"job_id": receipt.job_id, "offer_id": receipt.offer_id}
    return found
