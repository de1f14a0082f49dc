"""Who waits for a slot and who is next. Decides only; `jobs` starts and ends jobs.

Three tables, one per priority, hold the waiting jobs in order of arrival, and `active` holds the
running ones: their sizes are the queue depths and the number of active jobs, so there is no
counter that could drift.
"""

from collections.abc import Iterator
from heapq import merge
from typing import Final

from compute_market.config.settings import Config
from compute_market.records import PRIORITIES, Job, Priority
from compute_market.store.schema import pack_u64
from compute_market.store.store import Txn

TABLES: Final[dict[Priority, str]] = {
    "high": "queue_high",
    "normal": "queue_normal",
    "low": "queue_low",
}


def enter(txn: Txn, job: Job) -> None:
    """Put a job, whose `queue_seq` and `queued_ms` are set, at the end of its line."""
    txn.put(TABLES[job.priority], pack_u64(job.queue_seq), _waiting(job))


def leave(txn: Txn, job: Job) -> None:
    txn.delete(TABLES[job.priority], pack_u64(job.queue_seq))


def take_slot(txn: Txn, job: Job) -> None:
    txn.put("active", job.job_id.encode())
    if job.priority == "low":
        txn.put("active_low", job.job_id.encode())


def free_slot(txn: Txn, job: Job) -> None:
    txn.delete("active", job.job_id.encode())
    if job.priority == "low":
        txn.delete("active_low", job.job_id.encode())


def depth(txn: Txn, priority: Priority) -> int:
    return txn.size(TABLES[priority])


def active_jobs(txn: Txn) -> int:
    return txn.size("active")


def next_to_start(txn: Txn, config: Config) -> str | None:
    """The id of the job that takes the next slot, or None when none may start.

    Jobs go in order of priority, then arrival; a low job held back by its cap blocks nobody behind
    it, so while the cap holds the low line is left out as a whole.
    """
    if active_jobs(txn) >= config.slots:
        return None
    lines = [p for p in PRIORITIES if p != "low" or not low_held_back(txn, config)]
    for _, _, job_id in _in_order(txn, config, lines):
        return job_id
    return None


def in_order(txn: Txn, config: Config) -> Iterator[str]:
    """Ids of all waiting jobs in the order they would start, caps aside."""
    for _, _, job_id in _in_order(txn, config, PRIORITIES):
        yield job_id


def low_held_back(txn: Txn, config: Config) -> bool:
    """The cap on running low jobs: with nothing active one always starts, even at cap 0."""
    active = active_jobs(txn)
    active_low = txn.size("active_low")
    return active > 0 and (active_low + 1) * 100 > config.low_priority_cap_pct * (active + 1)


def _in_order(
    txn: Txn, config: Config, lines: tuple[Priority, ...] | list[Priority]
) -> Iterator[tuple[int, bytes, str]]:
    return merge(*(_line(txn, config, priority) for priority in lines))


def _line(txn: Txn, config: Config, priority: Priority) -> Iterator[tuple[int, bytes, str]]:
    """One line as (rank after aging, arrival, job id), sorted: who came first waited longest."""
    rank = PRIORITIES.index(priority)
    aging_ms = config.priority_aging_secs * 1000
    for key, value in txn.scan(TABLES[priority]):
        waited_ms = max(0, txn.now_ms - int.from_bytes(value[:8], "big"))
        risen = waited_ms // aging_ms if aging_ms else 0
        yield max(0, rank - risen), key, value[8:].decode()


def _waiting(job: Job) -> bytes:
    return pack_u64(job.queued_ms) + job.job_id.encode()


def rank_byte(priority: Priority) -> bytes:
    """One byte that sorts by priority, the highest first."""
    return bytes([PRIORITIES.index(priority)])
