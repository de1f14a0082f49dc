"""Claim: `tb-cli compute run` hashes files at least as fast as the official `b3sum`.

Peer: `b3sum` on the same warm files in the same rounds: one file of 1 GiB, and 10 000 files of
4 KiB. What either needs for a file of one byte, its start above all, is subtracted. Beside it: the
runner alone, called from Python. Second claim: memory does not grow with the file.
"""

import os
import shutil
import statistics
import sys
from pathlib import Path

import measure

from compute_market.runner import Runner

REPOSITORY = Path(__file__).resolve().parent.parent
MIB = 2**20
LEVEL = 1.0
GROWTH_BOUND_MB = 8.0


def main() -> None:
    quick = measure.arguments(__doc__).parse_args().quick
    if shutil.which("b3sum") is None:
        sys.exit("b3sum is the peer: install it first")
    with measure.scratch(on_disk=False, gib=2) as directory:
        tiny = write(directory / "tiny", 1)
        middle = write(directory / "middle", 64 * MIB)
        long = write(directory / "long", (256 if quick else 1024) * MIB)
        count = 2000 if quick else 10_000
        short = [write(directory / f"{number:05d}.slice", 4096) for number in range(count)]

        env = measure.environment(directory / "home") | {"PYTHONPATH": str(REPOSITORY)}
        ours = (sys.executable, "-m", "cli.entry", "compute", "run")

        def run(*paths: str) -> measure.Action:
            return lambda: measure.command([*ours, *paths], env)

        def peer(*paths: str) -> measure.Action:
            return lambda: measure.command(["b3sum", *paths], env)

        times = measure.interleave(
            {
                "run tiny": run(tiny),
                "b3sum tiny": peer(tiny),
                "run long": run(long),
                "b3sum long": peer(long),
                "run short": run(*short),
                "b3sum short": peer(*short),
                "runner short": lambda: prove(short),
            },
            9 if quick else 15,
        )
        peaks_mb = [measure.peak_memory([*ours, path], env)[0] for path in (middle, long)]

    start = {name: statistics.median(times[f"{name} tiny"]) for name in ("run", "b3sum")}
    work = {
        name: [taken - start.get(name.split()[0], 0) for taken in taken_each]
        for name, taken_each in times.items()
    }
    print(f"{'':14} {'median ms':>9} {'without start':>13}")
    for name, taken_each in times.items():
        medians = (1000 * statistics.median(each) for each in (taken_each, work[name]))
        print("{:14} {:9.1f} {:13.1f}".format(name, *medians))
    print(f"peak memory {peaks_mb[0]:.1f} MB for 64 MiB, {peaks_mb[1]:.1f} MB for the long file")
    for text, name, floor in (
        ("one long file", "run long", "b3sum long"),
        (f"{count} short files", "run short", "b3sum short"),
        (f"{count} short files, the runner alone", "runner short", "b3sum short"),
    ):
        measure.claim(text, measure.ratio(work[name], work[floor]), LEVEL, "× b3sum")
    measure.claim("growth of memory", peaks_mb[1] - peaks_mb[0], GROWTH_BOUND_MB, "MB")
    measure.finish()


def write(path: Path, length: int) -> str:
    """Write a file in pieces, as this process's own peak memory is inherited by its children."""
    with open(path, "wb") as file:
        for start in range(0, length, MIB):
            file.write(os.urandom(min(MIB, length - start)))
    return str(path)


def prove(paths: list[str]) -> None:
    with Runner(may_fork=True) as runner:
        lines = [
            f"{result.digest.hex()}  {result.path}\n"
            for result in runner.run("transcode", paths, now_ms=measure.now_ms())
        ]
    assert len("".join(lines)) > 66 * len(paths)


if __name__ == "__main__":
    main()
