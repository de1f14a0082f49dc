"""Claim: `compute cancel -` of 10 000 funded active jobs takes at most one second.

The home is on a disk and each chunk of 1000 is a durable commit. Floor: one durable LMDB commit of
one key in the same place. Beside it: what a job costs in a shell loop and in `batch -`.
"""

import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import lmdb
import measure

BOUND_S = 1.0


def main() -> None:
    parser = measure.arguments(__doc__)
    quick = parser.parse_args().quick
    jobs = 2_000 if quick else 10_000
    looped = 20 if quick else 100
    rounds = 3 if quick else 7
    tool = Path(sys.executable).parent / "tb-cli"
    with measure.scratch(on_disk=True) as directory:
        full = directory / "full"
        job_ids = measure.funded_jobs(full, jobs)
        ids = directory / "jobs.txt"
        ids.write_text("".join(f"{job_id}\n" for job_id in job_ids))
        lines = directory / "lines.txt"
        lines.write_text("".join(f"compute cancel {job_id}\n" for job_id in job_ids[looped:]))
        homes = [directory / f"home-{number}" for number in range(rounds)]
        for home in homes:
            shutil.copytree(full, home)
        os.sync()  # What the copies left to write must not be in the way of the commits.
        slots = {"TB_SCHEDULER_SLOTS": str(jobs)}
        bulk, commits = [], []
        for number, home in enumerate(homes):
            env = measure.environment(home) | slots
            commits.append(durable_commit(directory / f"floor-{number}"))
            bulk.append(seconds(tool, "compute", "cancel", "-", env=env, stdin=ids))
        env = measure.environment(full) | slots
        one_by_one = [
            seconds(tool, "compute", "cancel", job_id, env=env) for job_id in job_ids[:looped]
        ]
        batch = seconds(tool, "batch", "-", env=env, stdin=lines)
    total = statistics.median(bulk)
    commit = statistics.median(commits)
    loop = statistics.median(one_by_one)
    in_batch = batch / (jobs - looped)
    per_id = total / jobs
    print(f"one durable LMDB commit      {1000 * commit:9.3f} ms")
    print(f"{'way':28} {'ms per job':>10} {'× cancel -':>10} {'× commit':>8}")
    for name, cost in (
        ("compute cancel -", per_id),
        ("batch -", in_batch),
        ("shell loop", loop),
    ):
        print(f"{name:28} {1000 * cost:10.3f} {cost / per_id:10.1f} {cost / commit:8.2f}")
    print(
        f"{jobs} jobs in {total:.2f} s, {min(bulk):.2f} s at best, "
        f"as long as {total / commit:.0f} durable commits"
    )
    measure.claim(f"compute cancel - of {jobs} jobs", total, BOUND_S * jobs / 10_000, "s")
    measure.finish()


def durable_commit(path: Path) -> float:
    """Seconds of one synchronous LMDB commit: the median of 21."""
    path.mkdir()
    times = []
    with lmdb.open(str(path), map_size=2**20) as env:
        for number in range(21):
            began = time.perf_counter()
            with env.begin(write=True) as txn:
                txn.put(b"key", number.to_bytes(8, "big"))
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def seconds(*words: str | Path, env: dict[str, str], stdin: Path | None = None) -> float:
    """How long a command takes, its start included."""
    began = time.perf_counter()
    measure.command(words, env, stdin)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
