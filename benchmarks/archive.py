"""Claim: `state archive` moves a million ended jobs in one run, within 40 MB more than a thousand.

Each job has a slice and eight postings. Peers: the same command in a home with a thousand jobs, for
the memory that the process itself allocates; and as many deletes of LMDB alone, of the same
entries in transactions of as many jobs, synced, for its time.
"""

import sys
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path

import lmdb
import measure

from compute_market.archive.archives import PIECE_JOBS
from compute_market.jobs import drafts, jobs, listed
from compute_market.records import Job, Posting, Slice, Token, replace
from compute_market.settlement import ledger
from compute_market.store.schema import (
    ENDED,
    JOBS,
    PARTY_JOBS,
    POSTINGS,
    SLICES,
    SUBMITTED,
    WALLET_POSTINGS,
    id_prefix,
    pack_u64,
    party_key,
)
from compute_market.store.txn import Txn

BOUND_MB = 40.0
TIMES_LMDB = 12.0
FEW = 1_000
CHUNK = 20_000
_TOKENS: tuple[Token, ...] = ("CT", "IT")
_TABLES = (JOBS, ENDED, SUBMITTED, PARTY_JOBS, SLICES, POSTINGS, WALLET_POSTINGS)


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--jobs", type=int, help="how many are many")
    chosen = parser.parse_args()
    many = chosen.jobs or (100_000 if chosen.quick else 1_000_000)
    peaks = {}
    for count in (FEW, many):
        with measure.scratch(on_disk=False, gib=8) as home:
            apart(fill, home, count)
            began = time.perf_counter()
            words = ["state", "archive", home / "out.jsonl", "--before", "3600"]
            program = Path(sys.executable).parent / "tb-cli"
            peaks[count] = measure.peak_memory([program, *words], measure.environment(home))
            took = time.perf_counter() - began
        print(f"{count:8} jobs in {took:.1f} s: {took / count * 1e6:.0f} µs a job")
    with measure.scratch(on_disk=False, gib=8) as home:
        apart(fill, home, many)
        began = time.perf_counter()
        apart(delete_alone, home, many)
        alone = time.perf_counter() - began
    print(f"LMDB deletes alone: {alone:.1f} s")
    measure.claim(f"archiving {many} jobs", took / alone, TIMES_LMDB, "× LMDB deletes alone")
    more = peaks[many].allocated_mb - peaks[FEW].allocated_mb
    measure.claim(f"archiving {many} jobs above archiving {FEW}", more, BOUND_MB, "MB")
    measure.finish()


def apart(call: Callable[[Path, int], object], home: Path, count: int) -> None:
    """In a process of its own: a command inherits the peak of the process that starts it."""
    process = Process(target=call, args=(home, count))
    process.start()
    process.join()
    assert process.exitcode == 0


def fill(home: Path, count: int) -> None:
    """Store cancelled jobs as plain records, with all that an archive takes of them."""
    with measure.open_market(home) as market:
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            market.update(lambda txn, numbers=numbers: write(txn, numbers))


def write(txn: Txn, numbers: range) -> None:
    entry = Slice("/slices/a", 10, bytes(32))
    job: Job = drafts.sketch(measure.job_request("job"), [entry], txn.now)
    ended_at = txn.now - 7_200
    job = replace(job, state="failed", ended_by="deadline", cause="never_started")
    for number in numbers:
        job_id = f"job-{number:07d}"
        ended: Job = replace(job, job_id=job_id, seq=number + 1, ended_at=ended_at)
        txn.write(JOBS, job_id.encode(), ended)
        txn.put(ENDED, jobs.listed_key(ended_at, job_id))
        for table, key, value in listed.entries(ended):
            txn.put(table, key, value)
        txn.write(SLICES, jobs.numbered(job_id, 0), entry)
        for place in range(8):
            locks = place < 4
            wallet, escrow = ledger.wallet("buyer"), ledger.escrow(job_id)
            ends = (wallet, escrow) if locks else (escrow, wallet)
            event = "escrow:lock" if locks else "escrow:refund"
            seq = 8 * number + place + 1
            posting = Posting(seq, ended_at * 1000, _TOKENS[place % 2], 1, *ends, event, job_id)
            txn.write(POSTINGS, pack_u64(seq), posting)
            txn.put(WALLET_POSTINGS, id_prefix("buyer") + pack_u64(seq))
    txn.set_number("job_seq", numbers[-1] + 1)
    txn.set_number("posting_seq", 8 * (numbers[-1] + 1))


def delete_alone(home: Path, count: int) -> None:
    """The deletes of an archive without a market around them."""
    path = str(home / "market")
    with lmdb.open(path, max_dbs=256, map_size=64 * 2**30, lib_version=0) as env:
        handles = {table: env.open_db(table.name.encode()) for table in _TABLES}
        ended_keys: list[bytes] = []
        with env.begin() as txn:
            ended_keys.extend(key for key, _ in txn.cursor(handles[ENDED]))
        for start in range(0, count, PIECE_JOBS):
            with env.begin(write=True) as txn:
                for place, key in enumerate(ended_keys[start : start + PIECE_JOBS], start):
                    job_id = key[8:]
                    txn.delete(key, db=handles[ENDED])
                    txn.delete(pack_u64(place + 1), db=handles[SUBMITTED])
                    txn.delete(party_key("buyer", "buyer", place + 1), db=handles[PARTY_JOBS])
                    txn.delete(job_id, db=handles[JOBS])
                    txn.delete(job_id + b"\0" + pack_u64(0), db=handles[SLICES])
                    for seq in range(8 * place + 1, 8 * place + 9):
                        txn.delete(pack_u64(seq), db=handles[POSTINGS])
                        txn.delete(id_prefix("buyer") + pack_u64(seq), db=handles[WALLET_POSTINGS])


if __name__ == "__main__":
    main()
