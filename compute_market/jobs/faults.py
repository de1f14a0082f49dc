"""Faults of the buyer: slices that are not what was submitted, or are not there."""

from compute_market.jobs import jobs
from compute_market.jobs.work import work
from compute_market.records import Fault, Job
from compute_market.store.txn import Txn

BURN_EVENT = "slice:slash"


def tell(txn: Txn, job_id: str, fault: Fault, index: int) -> Job:
    """What becomes of a job of which a slice was found faulty when it was run."""
    if fault == "slice_changed":
        return slice_changed(txn, job_id)
    return slice_unreadable(txn, job_id, index)


def slice_changed(txn: Txn, job_id: str) -> Job:
    """Fail an active job of which a slice has changed; one that ended meanwhile stays as it is.

    Proven units are paid. The provider gets its bond back and keeps its score; the bond of the
    buyer is burned: it secures that the job can be done. Raises NotFoundError.
    """
    job = jobs.get(txn, job_id)
    if job.state != "active":
        return job
    job = jobs.close(
        txn,
        job,
        "failed",
        "client",
        "slice_changed",
        burn_ct=job.consumer_bond if job.funded else 0,
        burn_event=BURN_EVENT,
        burn_of="buyer",
    )
    work(txn)
    return job


def slice_unreadable(txn: Txn, job_id: str, index: int) -> Job:
    """Remember that a slice of an active job cannot be read, which costs nobody anything.

    It may come back. If it does not, the deadline ends the job without fault of its provider.
    Raises NotFoundError.
    """
    job = jobs.get(txn, job_id)
    if job.state != "active" or job.unreadable_slice == index:
        return job
    return jobs.remember_unreadable(txn, job, index)
