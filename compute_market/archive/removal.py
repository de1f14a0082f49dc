"""Taking what was archived out of the store, and what is left of it in its place.

Ids and keys stay taken, and sums keep what the laws of the audit add up: opening balances, what was
counted, what was proven of an offer. Here alone records of other rooms are removed for good.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from compute_market import archived
from compute_market.archive import counted
from compute_market.archive.selection import Ended, Proof
from compute_market.archive_records import ArchivedJob, ArchivedReceipt
from compute_market.jobs import jobs, listed
from compute_market.records import Posting
from compute_market.settlement import ledger, receipts
from compute_market.store.rewriting import remove_each
from compute_market.store.schema import (
    ARCHIVED,
    ARCHIVED_JOBS,
    ARCHIVED_RECEIPTS,
    ENDED,
    JOBS,
    PARTY_JOBS,
    PLACEMENTS,
    POSTINGS,
    POSTINGS_BEFORE,
    RECEIPT_CHAIN,
    RECEIPT_CLAIMS,
    RECEIPTS,
    RECEIPTS_ARCHIVED,
    SETTLEMENTS,
    SLICES,
    SUBMITTED,
    WALLET_POSTINGS,
    pack_u64,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn

_Counts = defaultdict[tuple[str, ...], int]  # by the name of a counter and its label values
_Gone = dict[Table[Any], list[bytes]]  # the keys of what goes, by table

_OF_JOBS: Final[tuple[Table[Any], ...]] = (
    *(JOBS, ENDED, SUBMITTED, PARTY_JOBS, SLICES, PLACEMENTS, RECEIPTS, SETTLEMENTS),
)


def remove_jobs(txn: Txn, ended: Iterable[Ended]) -> None:
    """Remove ended jobs that may go. Raises IntegrityError when a part of one is missing."""
    counts: _Counts = defaultdict(int)
    gone: _Gone = {table: [] for table in _OF_JOBS}
    for each in ended:
        _remove_job(txn, each, counts, gone)
    _remove(txn, gone)
    _count(txn, counts)
    _shorten_chain(txn)


def _remove_job(txn: Txn, ended: Ended, counts: _Counts, gone: _Gone) -> None:
    job, key = ended.job, ended.job.job_id.encode()
    assert job.ended_at is not None, "only ended jobs are archived"
    gone[JOBS].append(key)
    gone[ENDED].append(jobs.listed_key(job.ended_at, job.job_id))
    for table, place, _ in listed.entries(job):
        gone[table].append(place)
    for index in range(len(ended.slices)):
        gone[SLICES].append(jobs.numbered(job.job_id, index))
    for number in range(len(ended.placements)):
        gone[PLACEMENTS].append(jobs.numbered(job.job_id, number))
    for placement in (*ended.placements, job.placement):
        if placement is not None and placement.units_proven:
            txn.add(ARCHIVED, archived.offer_key(placement.offer_id), placement.units_proven)
        elif placement is not None and not ended.proofs:
            # Without a receipt no key is taken.
            txn.delete(RECEIPT_CLAIMS, receipts.claim_of(job, placement))
    for proof in ended.proofs:
        _remove_receipt(txn, proof, counts, gone)
    for names, by in counted.of_job(job):
        if by:
            counts[names] += by
    left = ArchivedJob(job.state, job.ended_at, job.ended_by, job.placements_before)
    txn.write(ARCHIVED_JOBS, key, left)


def _remove_receipt(txn: Txn, proof: Proof, counts: _Counts, gone: _Gone) -> None:
    receipt, key = proof.receipt, proof.receipt.idempotency_key
    gone[RECEIPTS].append(key)
    gone[SETTLEMENTS].append(key)
    for names, by in counted.of_settlement(proof.settlement):
        if by:
            counts[names] += by
    is_applied = proof.settlement.status == "applied"
    left = ArchivedReceipt(len(receipt.job_id), len(receipt.buyer), is_applied)
    txn.write(ARCHIVED_RECEIPTS, key, left)


def _shorten_chain(txn: Txn) -> None:
    """Remove links from the beginning of the chain whose receipts have gone, but for the last of
    them: the chain goes on from there."""
    seq = before = txn.number(RECEIPTS_ARCHIVED)
    gone = []
    last = pack_u64(seq)
    while True:
        key = pack_u64(seq + 1)
        link = txn.read(RECEIPT_CHAIN, key)
        if link is None or archived.receipt(txn, link.key) is None:
            break
        if seq:
            gone.append(last)
        seq, last = seq + 1, key
    if seq != before:
        remove_each(txn, RECEIPT_CHAIN, gone)
        txn.set_number(RECEIPTS_ARCHIVED, seq)


def remove_postings(txn: Txn, postings: Iterable[Posting], before_ms: int) -> None:
    """Remove postings from before an instant that may go; balances keep what they come to.

    Raises IntegrityError when one of them is missing.
    """
    if before_ms > txn.number(POSTINGS_BEFORE):
        txn.set_number(POSTINGS_BEFORE, before_ms)
    moved: defaultdict[tuple[str, str], int] = defaultdict(int)  # by account and token
    counts: _Counts = defaultdict(int)
    gone: _Gone = {POSTINGS: [], WALLET_POSTINGS: []}
    for posting in postings:
        seq = pack_u64(posting.seq)
        gone[POSTINGS].append(seq)
        debit, credit, token, amount = posting.debit, posting.credit, posting.token, posting.amount
        moved[debit, token] -= amount
        moved[credit, token] += amount
        for account in (debit, credit):
            if ledger.is_wallet(account):
                gone[WALLET_POSTINGS].append(ledger.listed_under(account) + seq)
        for names, by in counted.of_posting(posting):
            counts[names] += by
    _remove(txn, gone)
    for (account, of), by in moved.items():
        if by:
            txn.add(ARCHIVED, archived.account_key(account, of), by)
    _count(txn, counts)


def _remove(txn: Txn, gone: _Gone) -> None:
    for table, keys in gone.items():
        remove_each(txn, table, keys)


def _count(txn: Txn, counts: _Counts) -> None:
    for names, by in counts.items():
        if by:
            txn.add(ARCHIVED, archived.counter_key(names), by)
