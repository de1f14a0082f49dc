"""Jobs that wait, for an offer or for a slot, and how many of them are in each lane.

The only writer of `pending` and `lane_jobs`. The tables of those that wait tell how many there are
of all lanes together. Beside them is kept only what they do not tell: how many are of the consumer
lane, and how many are deferred. So a job of the industrial lane, which most are, comes and goes
without a further write.
"""

from collections.abc import Iterator

from compute_market.records import Job, Lane
from compute_market.scheduler import queue
from compute_market.store.schema import LANE_JOBS, PENDING, QUEUE_PAIRS, Table, pack_u64
from compute_market.store.txn import Txn


def waiting_in(txn: Txn, lane: Lane) -> int:
    """Jobs of a lane that wait for a slot or an offer, without the deferred ones."""
    return queued_in(txn, lane) + pending_in(txn, lane) - deferred_in(txn, lane)


def queued_in(txn: Txn, lane: Lane) -> int:
    """Jobs of a lane that wait for a slot."""
    of_consumers = txn.sum(LANE_JOBS, _key("queued", "consumer"))
    return of_consumers if lane == "consumer" else txn.size(QUEUE_PAIRS) - of_consumers


def pending_in(txn: Txn, lane: Lane) -> int:
    """Jobs of a lane that wait for an offer, the deferred ones among them."""
    of_consumers = txn.sum(LANE_JOBS, _key("pending", "consumer"))
    return of_consumers if lane == "consumer" else txn.size(PENDING) - of_consumers


def deferred_in(txn: Txn, lane: Lane) -> int:
    """Pending jobs of a lane that the present load alone kept out when they were tried last."""
    return txn.sum(LANE_JOBS, _key("deferred", lane))


def pending_ids(txn: Txn) -> Iterator[str]:
    """Ids of jobs without a match, in order of priority, then submission."""
    for _, value in txn.scan(PENDING):
        yield value[8:].decode()


def enter_pending(txn: Txn, job: Job) -> None:
    """Let a job wait for an offer, behind those of its priority."""
    txn.put(*pending_entry(job, txn.now_ms))
    count(txn, job, +1)


def leave_pending(txn: Txn, job: Job) -> None:
    _, key, _ = pending_entry(job, 0)
    txn.remove(PENDING, key)
    count(txn, job, -1)


def enter_queue(txn: Txn, job: Job) -> None:
    """Let a job wait for a slot, see `queue.enter`."""
    queue.enter(txn, job)
    count(txn, job, +1)


def leave_queue(txn: Txn, job: Job) -> None:
    queue.leave(txn, job)
    count(txn, job, -1)


def count(txn: Txn, job: Job, by: int) -> None:
    """Count a job that begins (1) or ceases (-1) to wait in the state that it has."""
    for key in counted(job):
        txn.add(LANE_JOBS, key, by)


def counted(job: Job) -> list[bytes]:
    """The keys under which a job counts while it waits; also for the laws."""
    found = []
    if job.lane == "consumer" and job.state in ("queued", "pending"):
        found.append(_key(job.state, job.lane))
    if job.deferred:
        found.append(_key("deferred", job.lane))
    return found


def pending_entry(job: Job, since_ms: int) -> tuple[Table[bytes], bytes, bytes]:
    """The table, key and value of a pending job; also for the laws."""
    key = queue.rank_byte(job.priority) + pack_u64(job.seq)
    return PENDING, key, pack_u64(since_ms) + job.job_id.encode()


def _key(state: str, lane: Lane) -> bytes:
    return f"{state}\0{lane}".encode()
