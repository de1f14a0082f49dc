"""What may be archived: ended jobs whose money is settled, and postings that nobody needs.

A job goes with its slices, its earlier placements, its receipts and what became of their money. It
stays while a receipt of it waits to be paid or is damaged. A posting goes once its job has gone;
deposits and withdrawals go when they are old, their keys stay. Postings of sealed bids, imports,
bundles and subsidies stay, as what they belong to does.
"""

from typing import Final

from msgspec import Struct

from compute_market import archived
from compute_market.errors import IntegrityError
from compute_market.jobs import jobs
from compute_market.receipt_records import Link, Receipt, Settlement
from compute_market.records import Job, Placement, Posting, Slice
from compute_market.settlement import ledger, receipts, settlement
from compute_market.store.schema import ENDED, JOBS, POSTINGS, RECEIPT_CHAIN, pack_u64, unpack_u64
from compute_market.store.txn import Txn

# Slices that are read at once, but for those of one job more.
SLICES_MAX: Final = 10_000
# Movements of no job: by an operator, and others that have records of their own, which stay.
TAPS: Final = ("deposit", "withdraw")
RECORDED: Final = ledger.OF_NO_JOB.difference(TAPS)


class Proof(Struct, frozen=True, gc=False):
    """A receipt, its link in the chain, and what became of its money."""

    receipt: Receipt
    link: Link
    settlement: Settlement


class Ended(Struct, frozen=True, gc=False):
    """All that the store has of one ended job."""

    job: Job
    slices: list[Slice]
    placements: list[Placement]  # earlier ones
    proofs: list[Proof]


def ended(
    txn: Txn, before: int, after: bytes | None, limit: int
) -> tuple[list[Ended], bytes | None]:
    """Of the next `limit` jobs that ended before a second those that may go, in that order.

    It goes on behind the key `after`, and returns the key to go on behind; None at the end.
    """
    found: list[Ended] = []
    slices = 0
    keys = txn.collect(ENDED, limit, start=None if after is None else after + b"\0")
    for key, _ in keys:
        if unpack_u64(key[:8]) >= before:
            return found, None
        whole = gathered(txn, key[8:])
        if whole is not None:
            found.append(whole)
            slices += len(whole.slices)
        if slices > SLICES_MAX:
            return found, key
    return found, keys[-1][0] if len(keys) == limit else None


def gathered(txn: Txn, job_id: bytes) -> Ended | None:
    """All of an ended job; None while it has to stay, or when it has gone."""
    job = txn.read(JOBS, job_id)
    if job is None or job.ended_at is None:
        return None
    placements = jobs.placements(txn, job)
    proofs = []
    for placement in placements:
        key = receipts.key_of_placement(job, placement)
        if key is None:
            continue
        proof = _proof(txn, key)
        if proof is None:
            return None
        proofs.append(proof)
    return Ended(job, jobs.slices_of(txn, job), placements[: job.placements_before], proofs)


def _proof(txn: Txn, key: bytes) -> Proof | None:
    """A receipt whose money is settled; None while that waits, and for one that is damaged."""
    try:
        receipt = receipts.find(txn, key)
    except IntegrityError:
        return None
    if receipt is None:
        return None  # It is in quarantine.
    settled = settlement.of(txn, key)
    if settled is None or settled.status == "pending":
        return None
    return Proof(receipt, txn.must_read(RECEIPT_CHAIN, pack_u64(receipt.seq)), settled)


def postings(
    txn: Txn, before_ms: int, after: int, limit: int, ended_before: int = 0
) -> tuple[list[Posting], int | None]:
    """Of the next `limit` postings from before an instant those that may go, oldest first.

    It goes on behind the number `after`, and returns the one to go on behind; None at the end.
    With `ended_before` also those of jobs that may go themselves, as they ended before a second.
    """
    found: list[Posting] = []
    entries = txn.collect(POSTINGS, limit, start=pack_u64(after + 1))
    for key, payload in entries:
        posting = POSTINGS.decode(key, payload)
        if posting.at_ms >= before_ms:
            return found, None
        if _may_go(txn, posting, ended_before):
            found.append(posting)
    return found, unpack_u64(entries[-1][0]) if len(entries) == limit else None


def _may_go(txn: Txn, posting: Posting, ended_before: int) -> bool:
    """Whether nothing that is kept needs a posting, once it is old."""
    if posting.event in TAPS:
        return True
    if posting.event in RECORDED:
        return False
    if archived.job(txn, posting.ref) is not None:
        return True
    whole = gathered(txn, posting.ref.encode()) if ended_before else None
    return whole is not None and (whole.job.ended_at or 0) < ended_before
