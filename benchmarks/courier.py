"""Claims: listing a million bundle receipts, and sending a bundle of any length, take flat memory.

Peers: the same commands with a thousand receipts, and with a bundle of a mebibyte.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from multiprocessing import Process
from pathlib import Path

import measure

from compute_market.courier import courier
from compute_market.courier.courier import Bundle

BOUND_MB = 30.0
SEND_BOUND_MB = 8.0
FEW = 1_000
CHUNK = 50_000
MIB, GIB = 2**20, 2**30
TOOL = Path(sys.executable).parent / "tb-cli"


def main() -> None:
    parser = measure.arguments(__doc__)
    quick = parser.parse_args().quick
    listing(100_000 if quick else 1_000_000)
    sending(GIB // 8 if quick else GIB)
    measure.finish()


def listing(many: int) -> None:
    peaks: dict[tuple[str, int], measure.Peak] = {}
    for count in (FEW, many):
        with measure.scratch(on_disk=False, gib=2) as home:
            # In a process of its own: a command inherits the peak of the process that starts it.
            filler = Process(target=fill, args=(home, count))
            filler.start()
            filler.join()
            assert filler.exitcode == 0
            for more in ("", "--pending"):
                began = time.perf_counter()
                words = [TOOL, "compute", "courier", "list", "--jsonl", *more.split()]
                found = measure.peak_memory(words, measure.environment(home))
                print(f"{count:8} receipts, {more or 'all'}: {time.perf_counter() - began:.1f} s")
                assert found.lines == count
                peaks[more, count] = found
    for more in ("", " --pending"):
        measure.claim(
            f"`courier list --jsonl{more}` of {many} receipts above that of {FEW}",
            peaks[more.strip(), many].resident_mb - peaks[more.strip(), FEW].resident_mb,
            BOUND_MB,
            "MB",
        )


def fill(home: Path, count: int) -> None:
    bundle = Bundle(bytes(32), 0, "alice", "dir:outbox")
    ids = _random_ids()
    with measure.open_market(home) as market:
        for start in range(0, count, CHUNK):
            left = min(CHUNK, count - start)
            market.update(
                lambda txn, left=left: [courier.send(txn, bundle, ids) for _ in range(left)]
            )


def _random_ids() -> Iterator[int]:
    drawn = random.Random(0)
    while True:
        yield drawn.getrandbits(64)


def sending(size: int) -> None:
    with measure.scratch(on_disk=True) as directory:
        env = measure.environment(directory / "home")
        paths = {}
        for length in (MIB, size):
            paths[length] = directory / f"{length}.bin"
            with paths[length].open("wb") as file:
                for _ in range(length // MIB):
                    file.write(os.urandom(MIB))
        peaks = {
            length: measure.peak_memory([TOOL, "compute", "courier", "send", path, "alice"], env)
            for length, path in paths.items()
        }
    measure.claim(
        f"sending {size // MIB} MiB above sending 1 MiB",
        peaks[size].resident_mb - peaks[MIB].resident_mb,
        SEND_BOUND_MB,
        "MB",
    )


if __name__ == "__main__":
    main()
