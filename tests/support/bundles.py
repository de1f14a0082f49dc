"""Bundles under test: receipts as the library stores them, with no file behind."""

from collections.abc import Iterable, Iterator
from itertools import count

from compute_market.courier import courier
from compute_market.courier.courier import Attempted, Bundle, Claimed
from compute_market.courier_records import BundleReceipt
from compute_market.jobs import preempt
from tests.support.market import Market

HASH = bytes(range(32))
HOLDER = b"flush 01"
OTHER = b"flush 02"
# Ids are random where they matter: here those after another.
_ids = count(1)


def ids() -> Iterator[int]:
    return _ids


def bundle(sender: str = "alice", **fields: object) -> Bundle:
    defaults = {"bundle_hash": HASH, "size": 5, "dest": "dir:outbox"}
    return Bundle(sender=sender, **(defaults | fields))  # type: ignore[arg-type]


def send(market: Market, sender: str = "alice", **fields: object) -> BundleReceipt:
    return market.update(lambda txn: courier.send(txn, bundle(sender, **fields), ids()))


def send_handoff(
    market: Market, job_id: str = "job", offer_id: str = "better", **fields: object
) -> BundleReceipt:
    """Send the handoff of an active job as it is now."""
    told = preempt.progress(market.job(job_id))
    return send(market, kind="handoff", job_id=job_id, offer_id=offer_id, told=told, **fields)


def claim(
    market: Market, holder: bytes = HOLDER, limit: int = 100, only: int | None = None
) -> Claimed:
    return market.update(lambda txn: courier.claim(txn, holder, None, limit, only=only))


def record(
    market: Market,
    outcome: str,
    receipts: Iterable[BundleReceipt],
    *,
    attempts: int = 1,
    error: str | None = None,
    holder: bytes | None = None,
) -> int:
    failures = attempts - (outcome == "acknowledged")
    told = [
        Attempted(each.seq, outcome, attempts, failures, error)  # type: ignore[arg-type]
        for each in receipts
    ]
    return market.update(lambda txn: courier.record(txn, told, holder))


def receipt(market: Market, receipt_id: int) -> BundleReceipt:
    return market.view(lambda txn: courier.get(txn, receipt_id))
