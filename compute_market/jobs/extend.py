"""Moving deadlines, for as long as the market is away."""

from compute_market import clock
from compute_market.jobs import jobs
from compute_market.records import DEADLINE_MAX
from compute_market.store.txn import Txn


def extend(txn: Txn, by_secs: int) -> int:
    """Move the deadline of every live job, before or after the market is away; how many.

    Time that was held since a restore goes on then. No deadline goes beyond the year 9999.
    """
    clock.release(txn)
    live = list(jobs.live_ids(txn))
    for job_id in live:
        job = jobs.named(txn, job_id.encode())
        jobs.postpone(txn, job, min(job.deadline + by_secs, DEADLINE_MAX))
    # One that was overdue was passed over when something helped it.
    txn.helped = txn.helped or bool(live)
    return len(live)
