"""The decision log: why each job was let in or not, the last 10 000 decisions."""

from typing import Literal

from compute_market.records import Decision, Job
from compute_market.store.schema import pack_u64
from compute_market.store.store import Txn

KEPT = 10_000


def log(
    txn: Txn,
    job: Job,
    verdict: Literal["admitted", "refused", "pending"],
    reason: str,
    detail: str,
) -> None:
    """Record a decision with the job's demand and the mode of the comfort guard."""
    seq = txn.next_number("decision_seq")
    decision = Decision(
        seq, txn.now_ms, job.job_id, job.buyer, job.units, verdict, reason, detail, "loose"
    )
    txn.write("decisions", pack_u64(seq), decision)
    if seq > KEPT:
        txn.delete("decisions", pack_u64(seq - KEPT))


def last(txn: Txn, job_id: str) -> Decision | None:
    """The last decision about a job id, whether it was let in or not."""
    for key, _ in txn.scan_back("decisions"):
        decision: Decision = txn.read("decisions", key)
        if decision.job_id == job_id:
            return decision
    return None
