"""Bundles that other markets have brought, each taken once. The only writer of its table.

Whoever brings one has signed for it. The caller has the bundle on the disk, whole, before it is
taken here.
"""

from collections.abc import Iterator

from msgspec import Struct

from compute_market import archived, events
from compute_market.courier.courier import id_text
from compute_market.courier.envelope import Entry, Envelope, Outcome, Taken, check_trusted
from compute_market.courier_records import Delivery
from compute_market.errors import ConflictError, RefusedError, check_same
from compute_market.jobs import jobs
from compute_market.records import LIVE_STATES
from compute_market.store.schema import DELIVERIES, pack_u64
from compute_market.store.txn import Txn


class Brought(Struct, frozen=True, gc=False):
    """What became of a bundle that was brought: the answer, and whether it is new here."""

    taken: Taken
    is_new: bool


def check_sender(txn: Txn, envelope: Envelope) -> None:
    """Raise RefusedError (`untrusted_key`) for bundles of somebody who is not believed."""
    check_trusted(txn.config.net_trusted, envelope.market_id, envelope.key, "an envelope")


def wanted(txn: Txn, envelope: Envelope, entry: Entry) -> Brought | None:
    """The answer for a bundle that needs not be read: it was taken before, or is refused.

    None says that it is to be brought to the disk, and then to be given to `take`.
    """
    try:
        delivery = find(txn, envelope.market_id, entry.receipt_id)
        if delivery is None:
            _check_job(txn, entry)
            return None
        check_same(
            f"bundle {id_text(entry.receipt_id)} of market {envelope.market_id.hex()}",
            _asked(delivery),
            _asked(entry),
        )
    except (ConflictError, RefusedError) as error:
        return _answer(entry, error.message)
    return _answer(entry)


def take(txn: Txn, envelope: Envelope, entry: Entry) -> Brought:
    """Take a bundle whose file is on the disk, or say why not; one that was seen is taken again.

    The handoff of a job that has ended here is refused, and so is other content under an id that
    was taken. Raises RefusedError (`untrusted_key`) for an envelope of somebody not believed.
    """
    check_sender(txn, envelope)
    answer = wanted(txn, envelope, entry)
    if answer is not None:
        return answer
    delivery = Delivery(
        market_id=envelope.market_id,
        receipt_id=entry.receipt_id,
        key_id=envelope.key.key_id,
        kind=entry.kind,
        bundle_hash=entry.bundle_hash,
        size=entry.size,
        sender=entry.sender,
        sent_ms=entry.sent_ms,
        received_ms=txn.now_ms,
        job_id=entry.job_id,
    )
    txn.write(DELIVERIES, key_of(envelope.market_id, entry.receipt_id), delivery)
    events.note(
        txn,
        "bundle_received",
        job_id=entry.job_id,
        owner=entry.sender,
        bundle=id_text(entry.receipt_id),
        market=envelope.market_id.hex(),
    )
    return Brought(_answer(entry).taken, is_new=True)


def find(txn: Txn, market_id: bytes, receipt_id: int) -> Delivery | None:
    return txn.read(DELIVERIES, key_of(market_id, receipt_id))


def deliveries(txn: Txn) -> Iterator[tuple[bytes, Delivery]]:
    """All of them with their keys, by market."""
    for key, payload in txn.scan(DELIVERIES):
        yield key, DELIVERIES.decode(key, payload)


def _check_job(txn: Txn, entry: Entry) -> None:
    """Raise RefusedError (`job_ended`) for the handoff of a job that this market knows as ended."""
    if entry.job_id is None:
        return
    found = jobs.find(txn, entry.job_id) or archived.job(txn, entry.job_id)
    if found is not None and found.state not in LIVE_STATES:
        raise RefusedError(
            f"job {entry.job_id} is {found.state}: nothing of it is left to hand over",
            reason="job_ended",
        )


def _asked(of: Delivery | Entry) -> dict[str, object]:
    """What makes a bundle the one it is."""
    return {
        "kind": of.kind,
        "hash": of.bundle_hash.hex(),
        "bytes": of.size,
        "sender": of.sender,
        "job_id": of.job_id,
    }


def _answer(entry: Entry, error: str | None = None) -> Brought:
    outcome: Outcome = "taken" if error is None else "refused"
    return Brought(Taken(entry.receipt_id, entry.bundle_hash, outcome, error), is_new=False)


def key_of(market_id: bytes, receipt_id: int) -> bytes:
    return market_id + pack_u64(receipt_id)
