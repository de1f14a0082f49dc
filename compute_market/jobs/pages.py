"""The pages in which the jobs of a selection are found, each in a short transaction of its own.

A listing takes the order of the store that leads to it with the least: the jobs of some parties by
those parties, those that ended within a time by their ends, live ones among the live ones where
they are few, and all others by their submission.
"""

from array import array
from collections.abc import Iterator
from functools import partial
from heapq import merge
from itertools import islice, takewhile
from typing import Final

from msgspec import Struct, field

from compute_market.jobs import jobs
from compute_market.jobs.selection import BEHIND, Check, Selection
from compute_market.offers import offers
from compute_market.records import LIVE_STATES, Job, JobState, Side
from compute_market.store import search
from compute_market.store.schema import (
    ACTIVE,
    DEADLINES,
    ENDED,
    JOBS,
    PARTY_JOBS,
    SUBMITTED,
    pack_u64,
    party_key,
)
from compute_market.store.table import Table, damaged
from compute_market.store.txn import Txn

# Jobs that a page looks at, unless it is to find more.
LOOKED_AT: Final = 1000
# Jobs that are read with the first look: each may be the last one that is asked for.
AT_ONCE: Final = 10
# Live jobs that are kept in memory from when they were gathered; others are read again.
KEPT_MAX: Final = 10_000


class Live(Struct):
    """The live jobs, where only such are asked for.

    They are met on the walk, until it has met more others than there are live ones: then they are
    gathered from the table that has them all, and listed by their numbers. Where they are few among
    all, and the newest need not come first, they are gathered at once.
    """

    table: Table[bytes]
    left: int | None  # those of the beginning that were not met; None where some need not be
    patience: int  # others that may yet be met
    begun_at: int  # unix second
    is_gathered: bool = False
    after: bytes = b""  # the key of the table to gather from
    until: bytes | None = None  # and the one to end at
    is_whole: bool = False
    seqs: "array[int]" = field(default_factory=lambda: array("Q"))  # the next one last
    kept: dict[int, Job] = {}  # some of them, by number

    def meets(self, job: Job) -> bool:
        """Take note of a job that is met; whether the walk is to be left."""
        states: tuple[JobState, ...] = ("active",) if self.table is ACTIVE else LIVE_STATES
        if job.state in states:
            if self.left is not None and self._was_there(job):
                self.left -= 1
            return self.left == 0
        self.patience -= 1
        self.is_gathered = self.patience < 0
        return self.is_gathered

    def _was_there(self, job: Job) -> bool:
        """Whether a job is known to be one of the beginning. Others may start between pages; live
        ones that come later lie behind the walk."""
        if self.table is not ACTIVE:
            return True
        return job.started_at is not None and job.started_at < self.begun_at


class Walk(Struct):
    """Where a listing stands. The next page goes on with it, and no other one."""

    newest_first: bool
    table: Table[bytes]
    prefixes: tuple[bytes, ...]  # those of its parties; the keys go on as `low` and `high` do
    # What is left: from the one to before the other.
    low: bytes
    high: bytes
    live: Live | None = None

    @property
    def is_over(self) -> bool:
        if self.live is not None and self.live.is_gathered:
            return self.live.is_whole and not self.live.seqs
        return self.low >= self.high

    def end(self) -> None:
        self.low = self.high

    def passed(self, key: bytes) -> None:
        """Leave everything up to a key behind."""
        place = self.place(key)
        if self.newest_first:
            self.high = place
        else:
            self.low = place + b"\0"

    def place(self, key: bytes) -> bytes:
        """Where a key stands, whichever of the parties it is of."""
        return key[-8:] if self.table is PARTY_JOBS else key


def page(
    txn: Txn,
    selection: Selection,
    walk: Walk | None,
    limit: int,
    *,
    newest_first: bool = False,
    but: Check | None = None,
) -> tuple[list[Job], Walk | None]:
    """The next jobs of a selection, at most `limit` of them, and what to go on with; None at the
    end. Those that `but` is true of are left out.

    The first page has nothing to go on with. They come in the order of submission; those asked for
    by their end in the order of ends. A page looks at `LOOKED_AT` jobs, or at `limit` if that is
    more, so that it may find fewer or none before the end.
    """
    if walk is None:
        walk = _begun(txn, selection, newest_first=newest_first)
    asked_for = selection.check(txn.now)
    check = asked_for if but is None else lambda job: asked_for(job) and not but(job)
    found: list[Job] = []
    left = max(limit, LOOKED_AT)
    if walk.live is None or not walk.live.is_gathered:
        left -= _walk_on(txn, walk, check, found, limit, left)
    if walk.live is not None and walk.live.is_gathered and left > 0:
        _gather(txn, walk, walk.live, check, left)
        if walk.live.is_whole:
            _take(txn, walk.live, check, found, limit)
    return found, None if walk.is_over else walk


def every(txn: Txn, selection: Selection) -> Iterator[Job]:
    """All jobs of a selection, in the order of its pages, within one transaction.

    The caller must not change jobs while it holds the iterator.
    """
    walk: Walk | None = None
    while True:
        found, walk = page(txn, selection, walk, LOOKED_AT)
        yield from found
        if walk is None:
            return


def _begun(txn: Txn, asked: Selection, *, newest_first: bool) -> Walk:
    """The walk that leads to a selection with the least."""
    if asked.is_by_end:
        low = max(0, asked.ended_since_ms or 0) // 1000
        until = asked.ended_until_ms
        high = BEHIND if until is None else max(0, until // 1000 + 1)
        return Walk(newest_first, ENDED, (b"",), pack_u64(low), pack_u64(high))
    parties = _parties(txn, asked)
    table = PARTY_JOBS if parties else SUBMITTED
    first, behind = _submitted_within(txn, asked)
    walk = Walk(newest_first, table, parties or (b"",), pack_u64(first), pack_u64(behind))
    if asked.is_live:
        walk.live = _live(txn, asked, walk)
    return walk


def _live(txn: Txn, asked: Selection, walk: Walk) -> Live:
    until = None
    if asked.overdue_in_secs is not None:
        until = pack_u64(max(0, txn.now + asked.overdue_in_secs))
    table = ACTIVE if asked.states == ("active",) and until is None else DEADLINES
    size = txn.size(table)
    live = Live(table, size if walk.table is SUBMITTED else None, size, txn.now, until=until)
    is_few = not walk.newest_first and 2 * size < txn.size(SUBMITTED)
    live.is_gathered = size <= LOOKED_AT or until is not None or is_few
    return live


def _parties(txn: Txn, asked: Selection) -> tuple[bytes, ...]:
    """What the keys of the jobs begin with by whose parties a selection is walked, if it is.

    Of buyers and providers it is those that seem to have fewer.
    """
    providers = asked.providers
    if not providers and asked.offer_ids:
        found = [offers.find(txn, offer_id) for offer_id in asked.offer_ids]
        providers = tuple(dict.fromkeys(offer.provider for offer in found if offer is not None))
    sides = [_of_parties("buyer", asked.buyers), _of_parties("provider", providers)]
    sides = [prefixes for prefixes in sides if prefixes]
    if len(sides) < 2:
        return sides[0] if sides else ()
    return min(sides, key=partial(_count, txn))


def _of_parties(side: Side, parties: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(party_key(side, party, 0)[:-8] for party in parties)


def _count(txn: Txn, prefixes: tuple[bytes, ...]) -> int:
    """How many jobs there are, as far as a page would look."""
    count = 0
    for prefix in prefixes:
        count += len(txn.collect(PARTY_JOBS, LOOKED_AT - count, prefix))
    return count


def _submitted_within(txn: Txn, asked: Selection) -> tuple[int, int]:
    """The number of the first job that was submitted within a time, and that of the first after."""

    def number_from(second: int) -> int:
        def is_there(_: bytes, job_id: bytes) -> bool:
            return jobs.named(txn, job_id).submitted_at >= second

        found = search.first_where(txn, SUBMITTED, is_there)
        return 0 if found is None else found[0]

    first = 0 if asked.since_ms is None else number_from(asked.since_ms // 1000)
    if asked.until_ms is None:
        return first, txn.number("job_seq") + 1
    return first, number_from(asked.until_ms // 1000 + 1)


def _walk_on(
    txn: Txn, walk: Walk, check: Check, found: list[Job], limit: int, looked_at: int
) -> int:
    """Look at the next jobs of a walk; returns at how many."""
    entries = _entries(txn, walk, looked_at)
    live = walk.live
    for number, ((key, _), job) in enumerate(_with_jobs(txn, walk.table, entries, limit), start=1):
        if check(job):
            found.append(job)
        if live is not None and live.meets(job):
            walk.passed(key)
            if not live.is_gathered:
                walk.end()
            return number
        if len(found) == limit:
            walk.passed(key)
            return looked_at
    if len(entries) < looked_at:
        walk.end()
    else:
        walk.passed(entries[-1][0])
    return len(entries)


def _with_jobs(
    txn: Txn, table: Table[bytes], entries: list[tuple[bytes, bytes]], limit: int
) -> Iterator[tuple[tuple[bytes, bytes], Job]]:
    """The entries of a walk with the jobs that they name, read as they are taken.

    With each look about as many as with all before it. Raises IntegrityError when one is missing.
    """
    start, at_once = 0, min(max(1, limit), AT_ONCE)
    while part := entries[start : start + at_once]:
        start += at_once
        at_once *= 2
        job_ids = [_job_id_at(txn, table, *entry) for entry in part]
        yield from zip(part, jobs.named_each(txn, job_ids), strict=True)


def _job_id_at(txn: Txn, table: Table[bytes], key: bytes, value: bytes) -> bytes:
    """The id of the job that an entry of a walk names."""
    if table is ENDED:
        return key[8:]
    job_id = value or txn.get(SUBMITTED, key[-8:])
    if job_id is None:
        raise damaged(SUBMITTED, key[-8:], "it is missing")
    return job_id


def _entries(txn: Txn, walk: Walk, count: int) -> list[tuple[bytes, bytes]]:
    """The next entries of a walk, at most so many."""
    if len(walk.prefixes) == 1 and not walk.newest_first:  # All at once takes less than in a walk.
        (prefix,) = walk.prefixes
        found = txn.collect(walk.table, count, prefix, prefix + walk.low)
        return list(takewhile(lambda entry: entry[0] < prefix + walk.high, found))
    # No more is read of a party than is taken, but for its next entry.
    ways = [_entries_of(txn, walk, prefix) for prefix in walk.prefixes]
    merged = merge(*ways, key=lambda entry: walk.place(entry[0]), reverse=walk.newest_first)
    return list(islice(merged, count))


def _entries_of(txn: Txn, walk: Walk, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The same of one party, one by one."""
    low, high = prefix + walk.low, prefix + walk.high
    if walk.newest_first:
        return takewhile(lambda entry: entry[0] >= low, txn.scan_back(walk.table, high))
    return takewhile(lambda entry: entry[0] < high, txn.scan(walk.table, prefix, low))


def _gather(txn: Txn, walk: Walk, live: Live, check: Check, looked_at: int) -> None:
    """Look for the next of the live jobs that are asked for and lie ahead of the walk."""
    if live.is_whole:
        return
    entries = txn.collect(live.table, looked_at, start=live.after)
    for key, _ in entries:
        if live.until is not None and key >= live.until:
            entries = []
            break
        job = jobs.named(txn, key if live.table is ACTIVE else key[8:])
        if walk.low <= pack_u64(job.seq) < walk.high and check(job):
            live.seqs.append(job.seq)
            if len(live.kept) < KEPT_MAX:
                live.kept[job.seq] = job
    if len(entries) < looked_at:
        live.is_whole = True
        live.seqs = array("Q", sorted(live.seqs, reverse=not walk.newest_first))
    else:
        live.after = entries[-1][0] + b"\0"


def _take(txn: Txn, live: Live, check: Check, found: list[Job], limit: int) -> None:
    """Find the next of those that were gathered and are still asked for."""
    while live.seqs and len(found) < limit:
        seq = live.seqs.pop()
        while live.seqs and live.seqs[-1] == seq:
            live.seqs.pop()  # Its deadline moved while they were gathered.
        job = live.kept.pop(seq, None)
        if job is None:
            job_id = txn.get(SUBMITTED, pack_u64(seq))
            job = None if job_id is None else txn.read(JOBS, job_id)
        if job is not None and check(job):
            found.append(job)
