"""Claim: 5000 receipts a second are exported, and verified, on one core, in flat memory.

Floor: for time the bare work on the same bytes in one loop, which is decoding and encoding each
line and one hash for its link. For memory the peer is the same command on a hundredth of the
receipts, with the pages of the data file that happen to be mapped. Each command is a whole process,
start and signature included.
"""

import statistics
import sys
from multiprocessing import Process
from pathlib import Path

import measure
from blake3 import blake3
from msgspec import json

from compute_market.receipt_records import Receipt, Settlement
from compute_market.settlement import receipts
from compute_market.settlement.receipt_chain import CONTEXT, link_to
from compute_market.store.schema import RECEIPT_CHAIN, RECEIPTS, SETTLEMENTS, pack_u64
from compute_market.store.txn import Txn

PER_SECOND = 5_000
BOUND_MB = 30.0
CHUNK = 20_000
KEY = "node"
TOOL = Path(sys.executable).parent / "tb-cli"


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--receipts", type=int, help="how many are many")
    chosen = parser.parse_args()
    many = chosen.receipts or (20_000 if chosen.quick else 100_000)
    few = many // 100
    rounds = 3 if chosen.quick else 7
    with (
        measure.scratch(on_disk=False, gib=0.3) as small,
        measure.scratch(on_disk=False, gib=0.3) as large,
    ):
        for count, home in ((few, small), (many, large)):
            # In a process of its own: a command inherits the peak of the process that starts it.
            filler = Process(target=fill, args=(home, count))
            filler.start()
            filler.join()
            assert filler.exitcode == 0
            run(home, "key", "new", KEY)
            run(home, *export(home))
        actions = {
            "export": lambda: run(large, *export(large)),
            "verify": lambda: run(large, *verify(large)),
            "floor": lambda: bare(large / "receipts.jsonl"),
        }
        times = measure.interleave(actions, rounds)
        peaks = {
            (verb, home): measure.peak_memory([TOOL, *words(home)], measure.environment(home))
            for verb, words in (("export", export), ("verify", verify))
            for home in (small, large)
        }
    for verb in ("export", "verify"):
        took = statistics.median(times[verb])
        over = measure.ratio(times[verb], times["floor"])
        print(f"{verb} {many} receipts: {took:.2f} s, {over:.2f} × the bare loop")
        measure.claim_at_least(f"receipts a second, {verb}", many / took, PER_SECOND, "a second")
        more = peaks[verb, large].resident_mb - peaks[verb, small].resident_mb
        measure.claim(f"{verb} {many} receipts above {few}", more, BOUND_MB, "MB")
    measure.finish()


def export(home: Path) -> tuple[str, ...]:
    return "compute-market", "receipts", "export", str(home / "receipts.jsonl"), "--key", KEY


def verify(home: Path) -> tuple[str, ...]:
    return "compute-market", "receipts", "verify", str(home / "receipts.jsonl"), "--key", KEY


def run(home: Path, *words: str) -> None:
    measure.command([TOOL, *words], measure.environment(home))


def bare(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            blake3(json.encode(json.decode(line)), derive_key_context=CONTEXT).digest()


def fill(home: Path, count: int) -> None:
    """Store receipts with their chain and settlements: only what an export reads."""
    with measure.open_market(home) as market:
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            market.update(lambda txn, numbers=numbers: write(txn, numbers))


def write(txn: Txn, numbers: range) -> None:
    for number in numbers:
        job_id = f"job-{number:07d}"
        key = receipts.key_of(job_id, "buyer", "prov", 5, 3)
        seq = txn.next_number("receipt_seq")
        receipt = Receipt(1, job_id, "buyer", "prov", 5, 3, txn.now, key, "industrial", True, seq)
        txn.write(RECEIPT_CHAIN, pack_u64(seq), link_to(txn, receipt))
        txn.write(RECEIPTS, key, receipt)
        settled = Settlement("recorded", 15, 0, None, job_id, "buyer", "prov")
        txn.write(SETTLEMENTS, key, settled)


if __name__ == "__main__":
    main()
