"""The jobs of a selection in the order of their ends, page by page; those that have none come last.

Those of one second come in the order of submission. Every job comes once, where it stood at the
first look: one that ends meanwhile is found among those that had not.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct, field

from compute_market.jobs import jobs, pages
from compute_market.jobs.selection import Selection
from compute_market.records import LIVE_STATES, Job
from compute_market.store.schema import ENDED, JOBS, pack_u64, unpack_u64
from compute_market.store.txn import Txn

# Bytes of a key of `ended` that are the second.
_SECOND: Final = 8


class Walk(Struct):
    """Where a listing stands. The next page goes on with it, and no other one."""

    newest_first: bool
    last: int  # second of the last end at the first look, -1 without any
    # Of the ends those that are left: from the one second to before the other.
    low: int
    high: int
    in_last: set[str] = field(default_factory=set)  # ids of those that ended in the last second
    rest: list[bytes] = field(default_factory=list)  # ids of the second at hand, the next one last
    others: pages.Walk | None = None  # among all jobs, for those that had not ended

    def passed(self, second: int) -> None:
        if self.newest_first:
            self.high = second
        else:
            self.low = second + 1

    def had_ended(self, job: Job) -> bool:
        """Whether a job had ended at the first look."""
        if job.ended_at is None or job.ended_at > self.last:
            return False
        return job.ended_at < self.last or job.job_id in self.in_last


def page(
    txn: Txn, asked: Selection, walk: Walk | None, limit: int, *, newest_first: bool = False
) -> tuple[list[Job], Walk | None]:
    """The next jobs of a selection, as `pages.page` finds them.

    All that ended in one second are looked at in one transaction.
    """
    if walk is None:
        walk = _begun(txn, newest_first=newest_first)
    check = asked.check(txn.now)
    found: list[Job] = []
    left = max(limit, pages.LOOKED_AT)
    while len(found) < limit and left > 0:
        if not walk.rest and not _next_second(txn, walk):
            break
        count = min(limit - len(found), len(walk.rest))
        left -= count
        for _ in range(count):
            job = txn.read(JOBS, walk.rest.pop())  # None is one that was archived meanwhile.
            if job is not None and check(job):
                found.append(job)
    if walk.rest or walk.low < walk.high:
        return found, walk
    if asked.states and not set(asked.states) & set(LIVE_STATES):
        return found, None
    if len(found) == limit or left <= 0:
        return found, walk
    size = min(limit - len(found), left)
    more, walk.others = pages.page(
        txn, asked, walk.others, size, newest_first=newest_first, but=walk.had_ended
    )
    return found + more, None if walk.others is None else walk


def _begun(txn: Txn, *, newest_first: bool) -> Walk:
    last = next((unpack_u64(key[:_SECOND]) for key, _ in txn.scan_back(ENDED)), -1)
    return Walk(newest_first, last, 0, last + 1)


def _next_second(txn: Txn, walk: Walk) -> bool:
    """Take up those of the next second; whether there is one."""
    if walk.newest_first:
        found = next(txn.scan_back(ENDED, pack_u64(walk.high)), None)
    else:
        found = txn.first(ENDED, start=pack_u64(walk.low))
    second = -1 if found is None else unpack_u64(found[0][:_SECOND])
    if not walk.low <= second < walk.high:
        walk.low = walk.high
        return False
    job_ids = [key[_SECOND:] for key, _ in txn.scan(ENDED, pack_u64(second))]
    if second == walk.last:
        walk.in_last = {job_id.decode() for job_id in job_ids}
    if len(job_ids) > 1:
        numbered = sorted(_numbered(txn, job_ids), reverse=not walk.newest_first)
        job_ids = [job_id for _, job_id in numbered]
    walk.rest = job_ids
    walk.passed(second)
    return True


def _numbered(txn: Txn, job_ids: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """Jobs by their numbers, of which no more is kept in memory."""
    for start in range(0, len(job_ids), pages.LOOKED_AT):
        part = job_ids[start : start + pages.LOOKED_AT]
        for job, job_id in zip(jobs.named_each(txn, part), part, strict=True):
            yield job.seq, job_id
