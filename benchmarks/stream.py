"""Claim: `compute offer post -` takes a million lines in the memory that a hundred thousand take.

Peer: the same command with a tenth of the lines, in an empty home of its own. What counts is what
the process itself allocated, looked at after each chunk: mostly the pages that a chunk of a
thousand offers writes, each of its own once the market is larger than a chunk. Shown beside it is
the peak of its resident memory, which includes pages of the data file: the kernel maps sixteen
around each one that is read, so a chunk that goes all over a large file counts more of them.
"""

import json
import sys
import time
from pathlib import Path

import measure

BOUND = 1.5
FEWER = 10  # times
PROVIDERS = 1_000


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--lines", type=int, help="how many are many")
    chosen = parser.parse_args()
    many = chosen.lines or (200_000 if chosen.quick else 1_000_000)
    few = many // FEWER
    peaks = {}
    for count in (few, many):
        with measure.scratch(on_disk=False, gib=3e-6 * count) as directory:
            lines = write(directory / "offers.jsonl", count)
            began = time.perf_counter()
            peak = measure.peak_memory(
                [Path(sys.executable).parent / "tb-cli", "compute", "offer", "post", "-"],
                measure.environment(directory / "home"),
                stdin=lines,
            )
            took = time.perf_counter() - began
        assert peak.lines == count
        peaks[count] = peak
        print(
            f"{count:8} offers posted in {took:.1f} s: {peak.resident_mb:.1f} MB resident, "
            f"{peak.allocated_mb:.1f} MB allocated"
        )
    print(f"resident {peaks[many].resident_mb / peaks[few].resident_mb:.2f} ×")
    level = peaks[many].allocated_mb / peaks[few].allocated_mb
    measure.claim(f"memory for {many} lines", level, BOUND, f"× that for {few}")
    measure.finish()


def write(path: Path, count: int) -> Path:
    """Offers as JSON lines, written one by one: a command inherits the peak of this process."""
    with open(path, "w", encoding="ascii") as file:
        for number in range(count):
            offer = {
                "offer_id": f"offer-{number:07d}",
                "provider": f"prov-{number % PROVIDERS:04d}",
                "units": 1 + number % 100,
                "price_per_unit": 1 + number % 977,
            }
            file.write(json.dumps(offer) + "\n")
    return path


if __name__ == "__main__":
    main()
