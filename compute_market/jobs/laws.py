"""What the audit checks of jobs: slices, offers, indexes, cancellations."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from compute_market import archived
from compute_market.amounts import units_of
from compute_market.jobs import cancellations, jobs, listed
from compute_market.laws import Law, Violation, same_size
from compute_market.records import (
    LIVE_STATES,
    Job,
)
from compute_market.scheduler import queue
from compute_market.store.schema import (
    ACTIVE,
    ACTIVE_LOW,
    ARCHIVED,
    ARCHIVED_JOBS,
    BACKLOG,
    CANCELLATIONS,
    DEADLINES,
    ENDED,
    JOBS,
    LANE_JOBS,
    META,
    OFFERS,
    PARTY_JOBS,
    PENDING,
    PLACEMENTS,
    QUEUE_PAIRS,
    SLICES,
    SLOTS_HELD,
    SUBMITTED,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn


def _slices(txn: Txn) -> Iterator[Violation]:
    total = placements = 0
    for job in txn.records(JOBS):
        placements += job.placements_before
        total += job.slices
        count = units = proven = units_proven = 0
        for entry in jobs.slices(txn, job.job_id):
            count += 1
            units += units_of(entry.length)
            if entry.proven_ms is not None:
                proven += 1
                units_proven += units_of(entry.length)
        computed = (count, units, proven, units_proven)
        stored = (job.slices, job.units, job.slices_proven, job.units_proven)
        if computed != stored:
            yield Violation(
                "jobs",
                job.job_id,
                "slices, units, proven slices and proven units are those of its slices",
                f"{stored}, slices say {computed}",
            )
        credited = sum(placement.units_proven for placement in jobs.placements(txn, job))
        if credited != job.units_proven:
            yield Violation(
                "jobs",
                job.job_id,
                "proven units are those of its providers",
                f"{job.units_proven}, providers have {credited}",
            )
        if (job.state == "completed") != (job.slices_proven == job.slices):
            yield Violation(
                "jobs",
                job.job_id,
                "completed means all slices proven",
                f"{job.state} with {job.slices_proven} of {job.slices}",
            )
    yield from same_size(txn, SLICES, total, "every slice belongs to a job")
    yield from same_size(txn, PLACEMENTS, placements, "every placement belongs to a job")


def _offer_units(txn: Txn) -> Iterator[Violation]:
    held: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for offer_id, units in archived.units(txn).items():
        held[offer_id][1] += units
    backlog = 0
    for job in txn.records(JOBS):
        for placement in jobs.placements(txn, job):
            held[placement.offer_id][1] += placement.units_proven
        if job.placement is not None and job.state in ("queued", "active"):
            held[job.placement.offer_id][0] += job.units - job.units_proven
            backlog += job.units - job.units_proven
    for offer in txn.records(OFFERS):
        stored = [offer.units_reserved, offer.units_proven]
        if stored != held[offer.offer_id]:
            yield Violation(
                "offers",
                offer.offer_id,
                "reserved and proven units are those of its jobs",
                f"{stored}, jobs have {held[offer.offer_id]}",
            )
    if jobs.backlog_units(txn) != backlog:
        yield Violation(
            "backlog",
            "units",
            "the backlog is what live jobs have left",
            f"{jobs.backlog_units(txn)}, jobs have {backlog}",
        )


def _indexes(txn: Txn) -> Iterator[Violation]:
    """Queue, active set, pending jobs, deadlines and ends against the states of the jobs."""
    expected: Counter[Table[bytes]] = Counter()
    for job in txn.records(JOBS):
        for table, key, value in index_entries(job):
            expected[table] += 1
            stored = txn.get(table, key)
            named = stored is not None and (
                table is not PENDING or stored[8:] == job.job_id.encode()
            )
            if not named or value not in (None, stored):
                yield Violation(
                    table.name,
                    job.job_id,
                    "every job is where its state says",
                    job.state,
                )
    for table in (PENDING, *_QUEUES, ACTIVE, ACTIVE_LOW, DEADLINES, ENDED):
        yield from same_size(txn, table, expected[table], "nothing but jobs in that state is there")


def _listings(txn: Txn) -> Iterator[Violation]:
    """The jobs by submission and by party against the jobs."""
    expected: Counter[Table[bytes]] = Counter()
    for job in txn.records(JOBS):
        for table, key, value in listed.entries(job):
            expected[table] += 1
            if txn.get(table, key) != value:
                yield Violation(
                    table.name, job.job_id, "every job is listed by submission and party", job.state
                )
    for table in (SUBMITTED, PARTY_JOBS):
        yield from same_size(txn, table, expected[table], "nothing but jobs that are kept is there")


def _slots(txn: Txn) -> Iterator[Violation]:
    held: Counter[bytes] = Counter()
    for job in txn.records(JOBS):
        if job.state == "active":
            held.update(queue.slot_holders(job))
    stored = txn.sums(SLOTS_HELD)
    for key in sorted(stored.keys() | held.keys()):
        if stored.get(key, 0) != held[key]:
            yield Violation(
                "slots_held",
                key.decode().replace("\0", " "),
                "the slots of a party are those of its active jobs",
                f"{stored.get(key, 0)}, jobs say {held[key]}",
            )


def _lanes(txn: Txn) -> Iterator[Violation]:
    waiting: Counter[bytes] = Counter()
    for job in txn.records(JOBS):
        waiting.update(queue.counted(job))
        if job.deferred and job.state != "pending":
            yield Violation("jobs", job.job_id, "only a pending job is deferred", job.state)
        if job.held and (job.deferred or job.state not in ("pending", "queued")):
            yield Violation("jobs", job.job_id, "only a job that waits is held", job.state)
    stored = txn.sums(LANE_JOBS)
    for key in sorted(stored.keys() | waiting.keys()):
        if stored.get(key, 0) != waiting[key]:
            yield Violation(
                "lane_jobs",
                key.decode().replace("\0", " "),
                "the jobs that wait in a lane are those whose states say so",
                f"{stored.get(key, 0)}, jobs say {waiting[key]}",
            )


def _cancellations(txn: Txn) -> Iterator[Violation]:
    offset = 0
    listed: Counter[tuple[str, str]] = Counter()
    for entry in txn.records(CANCELLATIONS):
        if entry.offset != offset:
            yield Violation("cancellations", entry.job_id, "lines follow each other", str(offset))
        offset += len(cancellations.line(entry))
        listed[entry.job_id, entry.reason] += 1
    if offset != cancellations.length(txn):
        yield Violation("cancellations", "*", "the length is that of all lines", str(offset))
    happened: Counter[tuple[str, str]] = Counter()
    for job in txn.records(JOBS):
        if job.state == "cancelled":
            happened[job.job_id, job.ended_by or ""] += 1
        if job.placements_before:
            happened[job.job_id, "preempted"] += job.placements_before
    for job_id, reason in _of_archived(txn):
        happened[job_id, reason] += 1
    for job_id, reason in sorted((listed - happened).keys() | (happened - listed).keys()):
        yield Violation(
            "cancellations",
            job_id,
            "one line for each cancelled job, and for each time one was handed over",
            f"{listed[job_id, reason]} lines say {reason}, {happened[job_id, reason]} are due",
        )


def _of_archived(txn: Txn) -> Iterator[tuple[str, str]]:
    """The lines that archived jobs have, by job and reason."""
    for key, payload in txn.scan(ARCHIVED_JOBS):
        left = ARCHIVED_JOBS.decode(key, payload)
        if left.state == "cancelled":
            yield key.decode(), left.ended_by or ""
        for _ in range(left.handed_over):
            yield key.decode(), "preempted"


_QUEUES = (*queue.TABLES.values(), QUEUE_PAIRS)


def index_entries(job: Job) -> Iterator[tuple[Table[bytes], bytes, bytes | None]]:
    """The (table, key, value) a job's state demands; None for a value that does not matter."""
    if job.state not in LIVE_STATES:
        yield ENDED, jobs.listed_key(job.ended_at or 0, job.job_id), None
        return
    yield DEADLINES, jobs.listed_key(job.deadline, job.job_id), None
    if job.held:
        return  # It is in none of those that wait.
    if job.state == "pending":
        table, key, _ = queue.pending_entry(job, 0)
        yield table, key, None
    elif job.state == "queued":
        yield from queue.entries(job)
    else:
        yield ACTIVE, job.job_id.encode(), None
        if job.priority == "low":
            yield ACTIVE_LOW, job.job_id.encode(), None


LAWS = (
    Law(_slices, (JOBS, SLICES, PLACEMENTS)),
    Law(_offer_units, (JOBS, PLACEMENTS, OFFERS, BACKLOG.table, ARCHIVED.table)),
    Law(_indexes, (JOBS, PENDING, *_QUEUES, ACTIVE, ACTIVE_LOW, DEADLINES, ENDED)),
    Law(_listings, (JOBS, SUBMITTED, PARTY_JOBS)),
    Law(_slots, (JOBS, SLOTS_HELD.table)),
    Law(_lanes, (JOBS, LANE_JOBS.table)),
    Law(_cancellations, (JOBS, CANCELLATIONS, ARCHIVED_JOBS, META)),
)
