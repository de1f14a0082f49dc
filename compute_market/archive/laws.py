"""What the audit checks of archives: nothing is both kept and archived."""

from collections.abc import Iterator

from compute_market.laws import Law, Violation
from compute_market.store.schema import (
    ARCHIVED_JOBS,
    ARCHIVED_RECEIPTS,
    ARCHIVES,
    JOBS,
    RECEIPTS,
    SETTLEMENTS,
)
from compute_market.store.txn import Txn

_EITHER = "what is archived is not kept as well"
_NUMBERS = "archives have the jobs and receipts that were archived"


def _once(txn: Txn) -> Iterator[Violation]:
    for key, _ in txn.scan(ARCHIVED_JOBS):
        if txn.get(JOBS, key) is not None:
            yield Violation("archived_jobs", key.decode(), _EITHER, "it is in jobs")
    for key, _ in txn.scan(ARCHIVED_RECEIPTS):
        if txn.stored(RECEIPTS, key) or txn.get(SETTLEMENTS, key) is not None:
            yield Violation("archived_receipts", key.hex(), _EITHER, "it is in receipts")


def _numbers(txn: Txn) -> Iterator[Violation]:
    """In a market without archives nobody has counted what was thrown away."""
    archives = list(txn.records(ARCHIVES))
    said = sum(each.jobs for each in archives), sum(each.receipts for each in archives)
    left = txn.size(ARCHIVED_JOBS), txn.size(ARCHIVED_RECEIPTS)
    if archives and said != left:
        yield Violation("archives", "*", _NUMBERS, f"they say {said}, {left} are left")


LAWS = (
    Law(_once, (ARCHIVED_JOBS, ARCHIVED_RECEIPTS, JOBS, SETTLEMENTS)),
    Law(_numbers, (ARCHIVES, ARCHIVED_JOBS, ARCHIVED_RECEIPTS)),
)
