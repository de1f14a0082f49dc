"""Letting go of what may be archived without keeping it: for a market that is thrown away."""

from typing import Final

from compute_market import archived
from compute_market.archive import removal, selection
from compute_market.records import Posting
from compute_market.store.schema import POSTINGS, pack_u64
from compute_market.store.txn import Txn

# Jobs, and postings, that are looked at at once.
PIECE_JOBS: Final = 1_000
PIECE_POSTINGS: Final = 1_000


class Forgetter:
    """Removes what may go from one market, time and again.

    It looks at each posting once, however many of them stay for good, and keeps in mind those that
    wait for their jobs to go.
    """

    def __init__(self) -> None:
        self._after = pack_u64(0)  # the last posting that was looked at
        self._waiting: dict[str, list[Posting]] = {}  # by job

    def forget(self, txn: Txn, before: int) -> int:
        """Remove jobs that ended before a second, and postings from before it; how many jobs.

        As in an archive, ids stay taken and sums keep what the audit adds up.
        """
        jobs = self._forget_jobs(txn, before)
        while True:
            old = self._old_postings(txn, before * 1000)
            free = [each for each in old if self._is_free(txn, each)]
            removal.remove_postings(txn, free, before * 1000)
            if len(old) < PIECE_POSTINGS:
                return jobs

    def _forget_jobs(self, txn: Txn, before: int) -> int:
        """Remove jobs, and those of their postings that have waited for it."""
        jobs, after = 0, None
        while True:
            ended, after = selection.ended(txn, before, after, PIECE_JOBS)
            removal.remove_jobs(txn, ended)
            waited = [
                posting for each in ended for posting in self._waiting.pop(each.job.job_id, ())
            ]
            removal.remove_postings(txn, waited, before * 1000)
            jobs += len(ended)
            if after is None:
                return jobs

    def _old_postings(self, txn: Txn, before_ms: int) -> list[Posting]:
        """The next ones from before an instant, which are not looked at again."""
        entries, _ = txn.page(POSTINGS, self._after, PIECE_POSTINGS)
        old = []
        for key, posting in entries:
            if posting.at_ms >= before_ms:
                break
            self._after = key
            old.append(posting)
        return old

    def _is_free(self, txn: Txn, posting: Posting) -> bool:
        """Whether a posting may go now; one of a job that is kept waits for it."""
        if posting.event in selection.TAPS:
            return True
        if posting.event in selection.RECORDED:
            return False
        if archived.job(txn, posting.ref) is not None:
            return True
        self._waiting.setdefault(posting.ref, []).append(posting)
        return False
