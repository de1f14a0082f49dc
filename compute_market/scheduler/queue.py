"""Who waits for a slot and who is next. Decides only; `jobs` starts and ends jobs.

Three tables, one per priority, hold the waiting jobs in order of arrival, and `active` holds the
running ones: their sizes are the queue depths and the number of active jobs, so there is no
counter that could drift. The only writer of these tables.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

from compute_market.records import PRIORITIES, Job, Priority
from compute_market.store.schema import (
    ACTIVE,
    ACTIVE_LOW,
    QUEUE_HIGH,
    QUEUE_LOW,
    QUEUE_NORMAL,
    Table,
    pack_u64,
    unpack_u64,
)
from compute_market.store.txn import Txn

TABLES: Final[dict[Priority, Table[bytes]]] = {
    "high": QUEUE_HIGH,
    "normal": QUEUE_NORMAL,
    "low": QUEUE_LOW,
}
# What keeps a waiting job from starting now.
HeldBy = Literal["slots", "cap"]


def enter(txn: Txn, job: Job) -> None:
    """Put a job, whose `queue_seq` and `queued_ms` are set, behind those of its priority."""
    _, key, value = entry(job)
    txn.put(TABLES[job.priority], key, value)


def leave(txn: Txn, job: Job) -> None:
    txn.remove(TABLES[job.priority], pack_u64(job.queue_seq))


def take_slot(txn: Txn, job: Job) -> None:
    txn.put(ACTIVE, job.job_id.encode())
    if job.priority == "low":
        txn.put(ACTIVE_LOW, job.job_id.encode())


def free_slot(txn: Txn, job: Job) -> None:
    txn.remove(ACTIVE, job.job_id.encode())
    if job.priority == "low":
        txn.remove(ACTIVE_LOW, job.job_id.encode())


def depth(txn: Txn, priority: Priority) -> int:
    return txn.size(TABLES[priority])


def active_jobs(txn: Txn) -> int:
    return txn.size(ACTIVE)


def next_to_start(txn: Txn) -> str | None:
    """The id of the job that takes the next slot, or None when none may start.

    Jobs go in order of priority, then arrival; a low job held back by its cap blocks nobody behind
    it, so while the cap holds the low jobs are left out as a whole.
    """
    if is_full(txn):
        return None
    # In each table those who came first come first, whatever aging makes of them.
    heads = ((priority, txn.first(table)) for priority, table in TABLES.items())
    may_start = [
        _place(txn, priority, *head)
        for priority, head in heads
        if head is not None and (priority != "low" or not low_held_back(txn))
    ]
    return min(may_start)[-1] if may_start else None


def in_order(txn: Txn) -> Iterator[str]:
    """Ids of all waiting jobs in the order they would start, caps aside."""
    from heapq import merge  # Few commands list the queue, and most import this module.

    for _, _, job_id in merge(*(_of_priority(txn, priority) for priority in PRIORITIES)):
        yield job_id


def is_full(txn: Txn) -> bool:
    return active_jobs(txn) >= txn.config.slots


def low_held_back(txn: Txn) -> bool:
    """The cap on active low jobs, a share of the slots: with nothing active one always starts."""
    cap = txn.config.low_priority_cap_pct * txn.config.slots
    return active_jobs(txn) > 0 and (txn.size(ACTIVE_LOW) + 1) * 100 > cap


def held_by(txn: Txn, job: Job) -> HeldBy | None:
    """What keeps a queued job waiting, beside those ahead of it."""
    if is_full(txn):
        return "slots"
    return "cap" if job.priority == "low" and low_held_back(txn) else None


def document(txn: Txn, job: Job, place: int, held: str | None) -> dict[str, Any]:
    """The JSON form of one waiting job."""
    return {
        "place": place,
        "job_id": job.job_id,
        "state": job.state,
        "priority": job.priority,
        "units": job.units,
        "held_by": held,
    }


def entry(job: Job) -> tuple[Table[bytes], bytes, bytes]:
    """The table, key and value of a queued job; also for the laws."""
    waiting = pack_u64(job.queued_ms) + job.job_id.encode()
    return TABLES[job.priority], pack_u64(job.queue_seq), waiting


def rank_byte(priority: Priority) -> bytes:
    """One byte that sorts by priority, the highest first."""
    return bytes([PRIORITIES.index(priority)])


def _of_priority(txn: Txn, priority: Priority) -> Iterator[tuple[int, bytes, str]]:
    """The places of those of one priority, sorted: who came first waited longest."""
    for key, value in txn.scan(TABLES[priority]):
        yield _place(txn, priority, key, value)


def _place(txn: Txn, priority: Priority, key: bytes, value: bytes) -> tuple[int, bytes, str]:
    """(rank after aging, arrival, job id) of an entry of a queue."""
    rank = PRIORITIES.index(priority)
    aging_ms = txn.config.priority_aging_secs * 1000
    if aging_ms:
        waited_ms = max(0, txn.now_ms - unpack_u64(value[:8]))
        rank = max(0, rank - waited_ms // aging_ms)
    return rank, key, value[8:].decode()
