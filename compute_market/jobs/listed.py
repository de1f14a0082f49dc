"""The orders in which the store lists jobs: by submission, by party, by end."""

from compute_market.records import Job
from compute_market.store.schema import (
    ENDED,
    PARTY_JOBS,
    SUBMITTED,
    pack_u64,
    party_key,
    unpack_u64,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn


def entries(job: Job) -> list[tuple[Table[bytes], bytes, bytes]]:
    """The tables, keys and values that list a job as long as it is kept, whatever its state."""
    found: list[tuple[Table[bytes], bytes, bytes]] = [
        (SUBMITTED, pack_u64(job.seq), job.job_id.encode()),
        (PARTY_JOBS, party_key("buyer", job.buyer, job.seq), b""),
    ]
    if job.placement is not None:
        found.append((PARTY_JOBS, party_key("provider", job.placement.provider, job.seq), b""))
    return found


def first_ended(txn: Txn) -> tuple[int, str] | None:
    """The unix second in which the first of the ended jobs ended that are kept, and its id."""
    found = txn.first(ENDED)
    return None if found is None else (unpack_u64(found[0][:8]), found[0][8:].decode())
