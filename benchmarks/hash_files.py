"""Claim: `tb-cli compute run` hashes files at least as fast as the official `b3sum`.

Peer: `b3sum` on the same warm files in the same rounds. Of one file of 1 GiB what either needs for
a file of one byte, its start above all, is subtracted. Of 10 000 files of 4 KiB it is told with and
without that, with the output in a pipe, a file and nowhere: `b3sum` hashes one file after another
and writes each line by itself, so where they go matters. Beside it: the runner alone, called from
Python. Last claim: memory does not grow with the file.
"""

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import measure

from compute_market.workloads.runner import Runner

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
        # What the installed script does.
        script = "from tb_cli.entry import main; main()"
        ours = (sys.executable, "-c", script, "compute", "run")
        sums = os.open(directory / "sums", os.O_WRONLY | os.O_CREAT)

        def run(*paths: str, stdout: int = subprocess.DEVNULL) -> measure.Action:
            return lambda: measure.command([*ours, *paths], env, stdout=stdout)

        def peer(*paths: str, stdout: int = subprocess.DEVNULL) -> measure.Action:
            return lambda: measure.command(["b3sum", *paths], env, stdout=stdout)

        def emptied(act: measure.Action) -> measure.Action:
            def act_anew() -> None:
                os.ftruncate(sums, 0)
                os.lseek(sums, 0, os.SEEK_SET)
                act()

            return act_anew

        times = measure.interleave(
            {
                "run tiny": run(tiny),
                "b3sum tiny": peer(tiny),
                "run long": run(long),
                "b3sum long": peer(long),
                "run to pipe": run(*short, stdout=subprocess.PIPE),
                "b3sum to pipe": peer(*short, stdout=subprocess.PIPE),
                "run to file": emptied(run(*short, stdout=sums)),
                "b3sum to file": emptied(peer(*short, stdout=sums)),
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
    level = measure.ratio(work["run long"], work["b3sum long"])
    measure.claim("one long file, without start-up", level, LEVEL, "× b3sum")
    for text, name, floor in (
        ("to a pipe", "run to pipe", "b3sum to pipe"),
        ("to a file", "run to file", "b3sum to file"),
        ("to /dev/null", "run short", "b3sum short"),
    ):
        for part, taken in ((", without start-up", work), ("", times)):
            level = measure.ratio(taken[name], taken[floor])
            measure.claim(f"{count} short files, {text}{part}", level, LEVEL, "× b3sum")
    level = measure.ratio(times["runner short"], times["b3sum short"])
    measure.claim(f"{count} short files, the runner alone", level, LEVEL, "× b3sum")
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
