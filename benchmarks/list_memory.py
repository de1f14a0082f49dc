"""Claim: `compute list --all --jsonl` of a million jobs peaks within 30 MB of listing a thousand.

Peer: the same command in a home with a thousand jobs. Peak resident memory as the kernel counts it
for a child, which includes the pages of the data file that happen to be mapped. The peak of what
the process itself allocated is shown beside it.
"""

import sys
import time
from multiprocessing import Process
from pathlib import Path

import measure

from compute_market.jobs import drafts, listed
from compute_market.records import Job, Slice, replace
from compute_market.store.schema import JOBS
from compute_market.store.txn import Txn

BOUND_MB = 30.0
FEW = 1_000
CHUNK = 50_000


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--jobs", type=int, help="how many are many")
    chosen = parser.parse_args()
    many = chosen.jobs or (100_000 if chosen.quick else 1_000_000)
    peaks = {}
    for count in (FEW, many):
        with measure.scratch(on_disk=False, gib=2) as home:
            began = time.perf_counter()
            # In a process of its own: a command inherits the peak of the process that starts it.
            filler = Process(target=fill, args=(home, count))
            filler.start()
            filler.join()
            assert filler.exitcode == 0
            filled = time.perf_counter() - began
            began = time.perf_counter()
            peak = measure.peak_memory(
                [Path(sys.executable).parent / "tb-cli", "compute", "list", "--all", "--jsonl"],
                measure.environment(home),
            )
            took = time.perf_counter() - began
        assert peak.lines == count
        peaks[count] = peak
        print(
            f"{count:8} jobs, stored in {filled:.1f} s, listed in {took:.1f} s: "
            f"{peak.resident_mb:.1f} MB resident, of them {peak.allocated_mb:.1f} MB allocated"
        )
    few, lots = peaks[FEW], peaks[many]
    print(f"resident {lots.resident_mb / few.resident_mb:.2f} ×")
    measure.claim(
        f"listing {many} jobs above listing {FEW}",
        lots.resident_mb - few.resident_mb,
        BOUND_MB,
        "MB",
    )
    measure.finish()


def fill(home: Path, count: int) -> None:
    """Store finished jobs as plain records: only what a listing reads."""
    with measure.open_market(home) as market:
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            market.update(lambda txn, numbers=numbers: write(txn, numbers))


def write(txn: Txn, numbers: range) -> None:
    job = drafts.sketch(measure.job_request("job"), [Slice("/slices/a", 10, bytes(32))], txn.now)
    job = replace(job, state="failed", ended_at=txn.now, ended_by="deadline", cause="never_started")
    for number in numbers:
        job_id = f"job-{number:07d}"
        ended: Job = replace(job, job_id=job_id, seq=number + 1)
        txn.write(JOBS, job_id.encode(), ended)
        for table, key, value in listed.entries(ended):
            txn.put(table, key, value)
    txn.set_number("job_seq", numbers[-1] + 1)


if __name__ == "__main__":
    main()
