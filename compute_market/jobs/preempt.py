"""Preemption: a running job goes on with another offer."""

from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.records import Job
from compute_market.store.txn import Txn


def take_over(txn: Txn, job_id: str, offer_id: str) -> Job:
    """Give what is left of an active job to another offer; see `jobs.hand_over`.

    Raises NotFoundError, RefusedError or ConflictError before anything is written.
    """
    return jobs.hand_over(txn, jobs.get(txn, job_id), offers.get(txn, offer_id))
