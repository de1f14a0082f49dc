"""Bundles that another market brings, whose key is known."""

from typing import Any

from blake3 import blake3

from compute_market.courier import deliveries, envelope
from compute_market.courier.deliveries import Brought
from compute_market.courier.envelope import Entry, Envelope
from compute_market.signatures.keys import Key
from tests.support.importing import THEIRS
from tests.support.market import START_MS, Market
from tests.support.receipt_file import KEY

CONTENT = b"a bundle"


def entry(receipt_id: int = 1, content: bytes = CONTENT, **fields: Any) -> Entry:
    defaults: dict[str, Any] = {
        "kind": "bundle",
        "bundle_hash": blake3(content).digest(),
        "size": len(content),
        "sender": "alice",
        "dest": "dir:outbox",
        "sent_ms": START_MS,
    }
    return Entry(receipt_id=receipt_id, **(defaults | fields))


def handoff(receipt_id: int = 1, job_id: str = "job", **fields: Any) -> Entry:
    return entry(receipt_id, kind="handoff", job_id=job_id, **fields)


def envelope_of(*entries: Entry, key: Key = KEY, market_id: bytes = THEIRS) -> Envelope:
    """An envelope as its receiver has it."""
    return envelope.parse(envelope.text(market_id, key, entries or (entry(),)), "an envelope")


def bring(
    market: Market, *entries: Entry, key: Key = KEY, market_id: bytes = THEIRS
) -> list[Brought]:
    """Take the bundles of an envelope, their files aside."""
    found = envelope_of(*entries, key=key, market_id=market_id)
    return [
        market.update(lambda txn: deliveries.take(txn, found, each))  # noqa: B023 - called at once
        for each in found.entries
    ]
