"""Consumer transactions as they are asked for, under a key if their sender likes."""

from typing import Any

from compute_market import idempotency
from compute_market.admission import comfort, mempool
from compute_market.records import Refused
from compute_market.store.txn import Txn


def submit(
    txn: Txn, sender: str, fee: int, size: int, key: str | None = None
) -> tuple[dict[str, Any], Refused | None]:
    """Take a transaction into the pool, and tell of it; with the refusal, which is remembered.

    With a `key` the same again changes nothing. What is asked was checked by `check_asked`. Raises
    ConflictError for a key that stands for something else.
    """
    asked: dict[str, Any] = {"sender": sender, "fee": fee, "bytes": size}
    known = idempotency.find(txn, key, "tx_admitted", asked)
    if known is not None:
        return _document(txn, known.made, asked) | {"changed": False}, None
    taken = mempool.submit(txn, sender, fee, size)
    if isinstance(taken, Refused):
        return _document(txn, None, asked) | {"reason": taken.reason, "changed": False}, taken
    tx_id = taken.transaction.tx_id
    idempotency.remember(txn, key, "tx_admitted", asked, tx_id)
    document = _document(txn, tx_id, asked) | {"changed": True}
    if taken.evicted is not None:
        document["evicted"] = taken.evicted.tx_id
    return document, None


def _document(txn: Txn, tx_id: str | None, asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "tx_id": tx_id,
        "lane": "consumer",
        **asked,
        "admitted": tx_id is not None,
        "mode": comfort.mode(txn),
    }
