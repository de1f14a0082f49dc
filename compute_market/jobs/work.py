"""Working the queue: starting jobs while there are slots."""

from compute_market import metrics
from compute_market.jobs import jobs
from compute_market.scheduler import queue
from compute_market.store.txn import Txn


def work(txn: Txn) -> None:
    """Start queued jobs while there is a slot and the cap allows.

    Stops before one whose deadline has passed: the sweep comes first, and no provider gets it.
    """
    began = txn.stopwatch() if txn.stopwatch else 0
    while (job_id := queue.next_to_start(txn)) is not None:
        job = jobs.named(txn, job_id.encode())
        if jobs.is_overdue(txn, job):
            break
        jobs.start(txn, job)
    if txn.stopwatch:
        metrics.observe(txn, "match_loop_latency_seconds", txn.stopwatch() - began)
