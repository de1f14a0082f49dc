"""Claim: a flush of a million empty bundles to a directory does 20 000 a second in flat memory.

What the process itself has of memory stays within 8 MB of a flush of a thousand; pages of the data
file that happen to be mapped come on top, and are the system's to take back. The bundles are in the
spool and the home is in memory: the rate is that of the processor time of all threads. On a disk
each 500 bundles take a few calls of `fsync`, for the envelope, the names and the commit: beside the
claim stands what the clock says there.
"""

import subprocess
import sys
import time
from multiprocessing import Process
from pathlib import Path
from random import Random

import measure
from blake3 import blake3

from compute_market.courier import courier
from compute_market.courier.courier import Bundle

RATE = 20_000.0
BOUND_MB = 8.0
FEW = 1_000
CHUNK = 50_000
TOOL = Path(sys.executable).parent / "tb-cli"
FLUSH = [TOOL, "compute", "courier", "flush"]
EMPTY = Bundle(blake3(b"").digest(), 0, "alice", "dir:outbox")


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--bundles", type=int, help="how many are many")
    chosen = parser.parse_args()
    many = chosen.bundles or (50_000 if chosen.quick else 1_000_000)
    few = flushed(FEW, on_disk=False)
    lots = flushed(many, on_disk=False)
    on_disk = flushed(min(many, 50_000), on_disk=True)
    more_mb = lots.own_mb - few.own_mb
    measure.claim(f"flushing {many} above flushing {FEW}", more_mb, BOUND_MB, "MB")
    # What a flush takes with a thousand bundles is start-up, most of it.
    rate = (many - FEW) / (lots.busy_s - few.busy_s)
    print(f"on a disk {on_disk.count / on_disk.took_s:.0f} a second by the clock")
    measure.claim_at_least(f"flushing {many}, a second of work", rate, RATE, "/s")
    measure.finish()


class Flushed:
    """What a flush took."""

    def __init__(self, count: int, home: Path) -> None:
        self.count = count
        self.own_mb = 0.0
        before, began = busy_s(), time.perf_counter()
        child = subprocess.Popen(FLUSH, env=measure.environment(home), stdout=subprocess.DEVNULL)
        while child.poll() is None:
            self.own_mb = max(self.own_mb, own_mb(child.pid))
            time.sleep(0.01)
        if child.returncode:
            raise SystemExit(f"a flush ended with code {child.returncode}")
        self.took_s = time.perf_counter() - began
        self.busy_s = busy_s() - before
        print(
            f"{count:8} bundles in {self.took_s:.1f} s, of them {self.busy_s:.1f} s of work: "
            f"{self.own_mb:.1f} MB of memory"
        )


def own_mb(pid: int) -> float:
    """What a process has of memory that no file stands behind; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line for line in text.splitlines() if line.startswith("RssAnon:")]
    return int(found[0].split()[1]) * 1024 / 1e6 if found else 0.0


def flushed(count: int, *, on_disk: bool) -> Flushed:
    with measure.scratch(on_disk=on_disk, gib=2) as home:
        # In a process of its own: a command inherits the peak of the process that starts it.
        filler = Process(target=fill, args=(home, count))
        filler.start()
        filler.join()
        assert filler.exitcode == 0
        measure.command([TOOL, "key", "new", "node"], measure.environment(home))
        return Flushed(count, home)


def busy_s() -> float:
    """Seconds that processes which have ended worked for this one."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fill(home: Path, count: int) -> None:
    """Store receipts of the empty bundle, which is in the spool."""
    drawn = Random(1)
    ids = iter(lambda: drawn.getrandbits(64), None)
    with measure.open_market(home) as market:
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            market.update(
                lambda txn, size=size: [courier.send(txn, EMPTY, ids) for _ in range(size)]
            )
    spool = home / "spool"
    spool.mkdir(mode=0o700)
    (spool / EMPTY.bundle_hash.hex()).touch(0o600)


if __name__ == "__main__":
    main()
