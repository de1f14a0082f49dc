"""Receipts: what a provider proved of a job, under a key, in a hash chain.

A receipt never changes; what became of its money is its `Settlement`. The only writer of the
receipt tables but `settlements` and `unsettled`, which belong to `settlement`.
"""

from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from compute_market import events, metrics
from compute_market.errors import ConflictError, IntegrityError
from compute_market.records import ID_LENGTH_MAX, Job, Placement
from compute_market.settlement.receipt_chain import link_to
from compute_market.store.schema import (
    JOBS,
    QUARANTINE,
    RECEIPT_CHAIN,
    RECEIPT_CLAIMS,
    RECEIPTS,
    UNSETTLED,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    import blake3

    from compute_market.receipt_records import Receipt, Settlement

VERSION: Final = 1
_IDS_TRIED = 100


def key_of(
    job_id: str, buyer: str, provider: str, quote_price: int, units: int, version: int = VERSION
) -> bytes:
    """The idempotency key, 32 bytes: BLAKE3 of the fields without separators (chapter 1.9).

    Ids as UTF-8, price and units as 8, the version as 2 bytes big-endian. Different receipts can
    share a key, since nothing marks where one id ends.
    """
    return _digest(
        f"{job_id}{buyer}{provider}".encode()
        + quote_price.to_bytes(8)
        + units.to_bytes(8)
        + version.to_bytes(2)
    )


def key_of_fields(receipt: "Receipt") -> bytes:
    """The key that a receipt must have."""
    return key_of(
        receipt.job_id,
        receipt.buyer,
        receipt.provider,
        receipt.quote_price,
        receipt.units,
        receipt.version,
    )


def key_of_placement(job: Job, placement: Placement) -> bytes | None:
    """The key of the receipt an ended job has for one placement; None if nothing was proven."""
    if placement.units_proven == 0:
        return None
    return key_of(
        job.job_id,
        job.buyer,
        placement.provider,
        placement.price_per_unit,
        placement.units_proven,
    )


def check_claim(txn: Txn, job: Job, provider: str, quote_price: int) -> bytes:
    """Make sure, before any work is done, that the keys a job's receipts could have are free.

    Returns what stands for them in `claim`. Raises ConflictError (`key_collision`) when another
    job's receipts could have the same, so that no finished work is ever caught behind a key that
    is taken.
    """
    key = _claim_key(job.job_id, job.buyer, provider, quote_price)
    holder = txn.get(RECEIPT_CLAIMS, key)
    if holder is not None and holder != job.job_id.encode():
        free = _free_id(txn, job, provider, quote_price)
        raise ConflictError(
            f"receipts of job {job.job_id} would have the keys of job {holder.decode()}: the ids "
            "of job, buyer and provider run together to the same text",
            hint=f"use another job id: {free} will do" if free else "use another job id",
            reason="key_collision",
        )
    return key


def check_claim_again(
    txn: Txn, job: Job, earlier: Iterable[Placement], provider: str, quote_price: int
) -> bytes:
    """The same for a job that goes on with another provider after those of `earlier`.

    None may come to have two receipts of one job at one price.
    """
    if any(
        each.units_proven and (each.provider, each.price_per_unit) == (provider, quote_price)
        for each in earlier
    ):
        raise ConflictError(
            f"provider {provider} has proven some of job {job.job_id} at {quote_price} a unit: "
            "both its receipts could have the same key",
            reason="key_collision",
        )
    return check_claim(txn, job, provider, quote_price)


def claim_of(job: Job, placement: Placement) -> bytes:
    """What a placement of a job has claimed."""
    return _claim_key(job.job_id, job.buyer, placement.provider, placement.price_per_unit)


def claim(txn: Txn, job: Job, free: bytes) -> None:
    """Reserve the keys that `check_claim` found free."""
    txn.put(RECEIPT_CLAIMS, free, job.job_id.encode())


def issue(txn: Txn, job: Job, placement: Placement) -> "tuple[Receipt, bool]":
    """Store the receipt of what the provider of a placement proved, and link it into the chain.

    Returns the receipt and whether it is new: the same receipt again is a duplicate and counts
    nowhere. Raises ConflictError (`key_collision`) when the key stands for another receipt.
    """
    provider, units = placement.provider, placement.units_proven
    key = key_of(job.job_id, job.buyer, provider, placement.price_per_unit, units)
    existing = _sound(txn, key)
    if existing is not None:
        _check_same(existing, job, placement)
        return existing, False
    receipt = RECEIPTS.kind(  # Most commands prove nothing, and never import it.
        version=VERSION,
        job_id=job.job_id,
        buyer=job.buyer,
        provider=provider,
        quote_price=placement.price_per_unit,
        units=units,
        issued_at=txn.now,
        idempotency_key=key,
        lane=job.lane,
        dry_run=not placement.funded,
        seq=txn.next_number("receipt_seq"),
    )
    txn.write(RECEIPT_CHAIN, pack_u64(receipt.seq), link_to(txn, receipt))
    txn.write(RECEIPTS, key, receipt)
    metrics.count(txn, "matches_total", "true" if receipt.dry_run else "false")
    txn.issued += 1
    return receipt, True


def find(txn: Txn, key: bytes) -> "Receipt | None":
    """The receipt under a key. Raises IntegrityError when it is damaged."""
    return txn.read_alone(RECEIPTS, key)  # One beside it that is damaged is in nobody's way.


def page(txn: Txn, after: int, limit: int) -> "list[tuple[int, bytes, Receipt | None]]":
    """(seq, key, receipt) of the next `limit` in order of issue, from after seq `after` on.

    None stands for a receipt that is in quarantine or damaged, or that was archived.
    """
    found = []
    for seq_key, payload in txn.collect(RECEIPT_CHAIN, limit, start=pack_u64(after + 1)):
        link = RECEIPT_CHAIN.decode(seq_key, payload)
        found.append((unpack_u64(seq_key), link.key, _if_sound(txn, link.key)))
    return found


def newest(
    txn: Txn, limit: int, before: int | None = None
) -> "list[tuple[int, bytes, Receipt | None]]":
    """The last `limit` of `page` with a seq below `before`, newest first."""
    found = []
    end = None if before is None else pack_u64(before)
    for seq_key, payload in islice(txn.scan_back(RECEIPT_CHAIN, end), limit):
        key = RECEIPT_CHAIN.decode(seq_key, payload).key
        found.append((unpack_u64(seq_key), key, _if_sound(txn, key)))
    return found


def first_since(txn: Txn, second: int) -> int:
    """A number below which no receipt was issued at a second or later: where to begin to look.

    Most often it is that of the first one that was. Of a receipt that was archived or is damaged
    nobody knows when it was issued, and then it may be a lower one.
    """
    from compute_market.store import search  # Few commands ask for a time.

    def is_there(key: bytes, payload: bytes) -> bool:
        receipt = _if_sound(txn, RECEIPT_CHAIN.decode(key, payload).key)
        return receipt is None or receipt.issued_at >= second

    found = search.first_where(txn, RECEIPT_CHAIN, is_there)
    return 1 if found is None else found[0]


def oldest_wait_ms(txn: Txn) -> int | None:
    """How long the first receipt that waits to be paid has done so, 0 without any.

    None where that receipt is damaged, and does not tell.
    """
    found = txn.first(UNSETTLED)
    if found is None:
        return 0
    receipt = _if_sound(txn, found[1])
    return None if receipt is None else max(0, txn.now_ms - receipt.issued_at * 1000)


def scrub(txn: Txn, limit: int) -> int:
    """Look at the next `limit` receipts and quarantine the damaged; how many there were.

    It goes on where it stopped the last time, and begins anew at the end.
    """
    after = txn.number("receipts_scrubbed")
    entries = txn.collect(RECEIPT_CHAIN, limit, start=pack_u64(after + 1))
    damaged = 0
    for seq_key, payload in entries:
        damaged += quarantine_if_damaged(txn, RECEIPT_CHAIN.decode(seq_key, payload).key)
    last = unpack_u64(entries[-1][0]) if len(entries) == limit else 0
    if last != after:
        txn.set_number("receipts_scrubbed", last)
    return damaged


def quarantine_if_damaged(txn: Txn, key: bytes) -> bool:
    """Move a receipt that is damaged out of the way of its key, and count it once."""
    try:
        find(txn, key)
    except IntegrityError:
        _quarantine(txn, key)
        return True
    return False


def document(receipt: "Receipt", settlement: "Settlement") -> dict[str, Any]:
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


def _if_sound(txn: Txn, key: bytes) -> "Receipt | None":
    """The receipt under a key; None for one that is in quarantine or damaged."""
    try:
        return find(txn, key)
    except IntegrityError:
        return None


def _sound(txn: Txn, key: bytes) -> "Receipt | None":
    """The receipt under a key, unless it is damaged and goes out of the way."""
    try:
        return find(txn, key)
    except IntegrityError:
        _quarantine(txn, key)
        return None


def _quarantine(txn: Txn, key: bytes) -> None:
    txn.put(QUARANTINE, key, txn.stored(RECEIPTS, key))
    txn.delete(RECEIPTS, key)
    metrics.count(txn, "receipt_corrupt_total")
    events.note(txn, "receipt_quarantined", key=key.hex())


def _check_same(existing: "Receipt", job: Job, placement: Placement) -> None:
    stored = (existing.job_id, existing.buyer, existing.provider)
    terms = (existing.quote_price, existing.units)
    asked = (job.job_id, job.buyer, placement.provider)
    if stored != asked or terms != (placement.price_per_unit, placement.units_proven):
        raise ConflictError(
            f"the receipt of job {job.job_id} has the key of the receipt of job {existing.job_id}",
            reason="key_collision",
        )


def _claim_key(job_id: str, buyer: str, provider: str, quote_price: int) -> bytes:
    return _digest(f"{job_id}{buyer}{provider}".encode() + pack_u64(quote_price))


def _free_id(txn: Txn, job: Job, provider: str, quote_price: int) -> str | None:
    """An id like that of a job, which nobody uses and whose receipts have keys of their own."""
    from compute_market import archived  # Few ids run together.

    for number in range(2, 2 + _IDS_TRIED):
        suffix = f".{number}"
        job_id = job.job_id[: ID_LENGTH_MAX - len(suffix)] + suffix
        is_new = txn.read(JOBS, job_id.encode()) is None and archived.job(txn, job_id) is None
        if is_new and (
            txn.get(RECEIPT_CLAIMS, _claim_key(job_id, job.buyer, provider, quote_price)) is None
        ):
            return job_id
    return None


def _digest(fields: bytes) -> bytes:
    return _blake3()(fields).digest()


@cache
def _blake3() -> "type[blake3.blake3]":
    """Most commands import this module, and few issue receipts; an import takes long each time."""
    import blake3

    return blake3.blake3
