"""Receipts: what a provider proved of a job, under a key, in a hash chain.

A receipt never changes; what became of its money is its `Settlement`. The only writer of the
receipt tables but `settlements` and `unsettled`, which belong to `settlement`.
"""

from collections.abc import Iterator
from typing import Any, Final

from blake3 import blake3
from msgspec.msgpack import Encoder

from compute_market import metrics
from compute_market.errors import ConflictError, IntegrityError
from compute_market.records import Job, Link, Receipt, Settlement
from compute_market.store.schema import decode, pack_u64
from compute_market.store.store import Txn

VERSION: Final = 1
CHAIN_CONTEXT: Final = "compute_market 2026-11 receipt chain v1"
_GENESIS = bytes(32)

_encode = Encoder().encode


def key_of(
    job_id: str, buyer: str, provider: str, quote_price: int, units: int, version: int = VERSION
) -> bytes:
    """The idempotency key, 32 bytes: BLAKE3 of the fields without separators (chapter 1.9).

    Ids as UTF-8, price and units as 8, the version as 2 bytes big-endian. Different receipts can
    share a key, since nothing marks where one id ends.
    """
    return blake3(
        f"{job_id}{buyer}{provider}".encode()
        + pack_u64(quote_price)
        + pack_u64(units)
        + version.to_bytes(2, "big")
    ).digest()


def check_claim(txn: Txn, job: Job, provider: str, quote_price: int) -> None:
    """Make sure, before any work is done, that the keys a job's receipts could have are free.

    Raises ConflictError (`key_collision`) when another job's receipts could have the same, so that
    no finished work is ever caught behind a key that is taken.
    """
    key = _claim_key(job.job_id, job.buyer, provider, quote_price)
    holder = txn.get("receipt_claims", key)
    if holder is not None and holder != job.job_id.encode():
        raise ConflictError(
            f"receipts of job {job.job_id} would have the keys of job {holder.decode()}: the ids "
            "of job, buyer and provider run together to the same text",
            hint="use another job id",
            reason="key_collision",
        )


def claim(txn: Txn, job: Job, provider: str, quote_price: int) -> None:
    """Reserve the keys that `check_claim` found free."""
    key = _claim_key(job.job_id, job.buyer, provider, quote_price)
    txn.put("receipt_claims", key, job.job_id.encode())


def issue(txn: Txn, job: Job, provider: str, units: int) -> tuple[Receipt, bool]:
    """Store the receipt of what `provider` proved of `job`, and link it into the chain.

    Returns the receipt and whether it is new: the same receipt again is a duplicate and counts
    nowhere. Raises ConflictError (`key_collision`) when the key stands for another receipt.
    """
    key = key_of(job.job_id, job.buyer, provider, job.price_per_unit, units)
    existing = _existing(txn, key)
    if existing is not None:
        _check_same(existing, job, provider, units)
        return existing, False
    receipt = Receipt(
        version=VERSION,
        job_id=job.job_id,
        buyer=job.buyer,
        provider=provider,
        quote_price=job.price_per_unit,
        units=units,
        issued_at=txn.now,
        idempotency_key=key,
        lane=job.lane,
        dry_run=not job.funded,
        seq=txn.next_number("receipt_seq"),
    )
    txn.write("receipts", key, receipt)
    digest = link_digest(receipt.seq, _last_link(txn, receipt.seq), _encode(receipt))
    txn.write("receipt_chain", pack_u64(receipt.seq), Link(key, digest))
    metrics.count(txn, "matches_total", "true" if receipt.dry_run else "false")
    return receipt, True


def find(txn: Txn, key: bytes) -> Receipt | None:
    """The receipt under a key. Raises IntegrityError when it does not decode."""
    receipt: Receipt | None = txn.read("receipts", key)
    return receipt


def of_job(txn: Txn, job: Job) -> Receipt | None:
    """The receipt of an ended job, None when nothing of it was proven."""
    key = key_of_job(job)
    return None if key is None else find(txn, key)


def key_of_job(job: Job) -> bytes | None:
    """The key of the receipt an ended job has, None when nothing of it was proven."""
    if job.provider is None or job.units_proven == 0:
        return None
    return key_of(job.job_id, job.buyer, job.provider, job.price_per_unit, job.units_proven)


def page(txn: Txn, after: int, limit: int) -> list[tuple[int, bytes, Receipt | None]]:
    """At most `limit` (seq, key, receipt) in order of issue, from after seq `after` on.

    None stands for a receipt that is in quarantine or does not decode.
    """
    found = []
    for seq_key, value in txn.collect("receipt_chain", limit, start=pack_u64(after + 1)):
        link: Link = decode("receipt_chain", seq_key, value)
        try:
            receipt = find(txn, link.key)
        except IntegrityError:
            receipt = None
        found.append((int.from_bytes(seq_key, "big"), link.key, receipt))
    return found


def damaged(txn: Txn) -> Iterator[bytes]:
    """Keys of stored receipts that do not decode."""
    for key, value in txn.scan("receipts"):
        try:
            decode("receipts", key, value)
        except IntegrityError:
            yield key


def quarantine(txn: Txn, key: bytes) -> None:
    """Move a receipt that does not decode out of the way of its key, and count it once."""
    txn.put("quarantine", key, txn.get("receipts", key) or b"")
    txn.delete("receipts", key)
    metrics.count(txn, "receipt_corrupt_total")


def quarantine_if_damaged(txn: Txn, key: bytes) -> None:
    try:
        find(txn, key)
    except IntegrityError:
        quarantine(txn, key)


def link_digest(seq: int, previous: bytes, receipt: bytes) -> bytes:
    """A link binds its sequence number, the link before it and the receipt's own bytes."""
    return blake3(pack_u64(seq) + previous + receipt, derive_key_context=CHAIN_CONTEXT).digest()


def document(receipt: Receipt, settlement: Settlement) -> dict[str, Any]:
    """The JSON form of a receipt; `paid` is what has really moved."""
    applied = settlement.status == "applied"
    return {
        "version": receipt.version,
        "job_id": receipt.job_id,
        "buyer": receipt.buyer,
        "provider": receipt.provider,
        "quote_price": receipt.quote_price,
        "units": receipt.units,
        "issued_at": receipt.issued_at,
        "idempotency_key": receipt.idempotency_key.hex(),
        "lane": receipt.lane,
        "dry_run": receipt.dry_run,
        "status": settlement.status,
        "paid": {"ct": settlement.ct if applied else 0, "it": settlement.it if applied else 0},
        "seq": receipt.seq,
    }


def _existing(txn: Txn, key: bytes) -> Receipt | None:
    quarantine_if_damaged(txn, key)
    return find(txn, key)


def _check_same(existing: Receipt, job: Job, provider: str, units: int) -> None:
    stored = (existing.job_id, existing.buyer, existing.provider, existing.quote_price)
    if (*stored, existing.units) != (job.job_id, job.buyer, provider, job.price_per_unit, units):
        raise ConflictError(
            f"the receipt of job {job.job_id} has the key of the receipt of job {existing.job_id}",
            reason="key_collision",
        )


def _last_link(txn: Txn, seq: int) -> bytes:
    link: Link | None = txn.read("receipt_chain", pack_u64(seq - 1))
    return _GENESIS if link is None else link.digest


def _claim_key(job_id: str, buyer: str, provider: str, quote_price: int) -> bytes:
    return blake3(f"{job_id}{buyer}{provider}".encode() + pack_u64(quote_price)).digest()
