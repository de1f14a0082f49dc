"""Claim: what a list shows costs what it shows, however many jobs and events there are beside it.

`compute list` of 10 000 live jobs to a pipe takes at most 12 µs a row above its start; the first
rows of 1 000 000 jobs stand on a terminal within 0.3 s; the newest 50 of them, or of the 50 jobs of
one party, take 20 ms above its start, and so does what the log has of the last minute behind
1 000 000 events. Its start is the same command in a market with one job, taken side by side. Of
commands that run to their end the time of the processor is taken, which what runs beside changes
least.
"""

import os
import pty
import resource
import select
import statistics
import sys
import time
from multiprocessing import Process
from pathlib import Path

import measure

from compute_market.jobs import drafts, jobs, listed
from compute_market.records import Asked, Event, Job, LogEntry, Slice, replace
from compute_market.store.schema import ACTIVE, DEADLINES, ENDED, EVENTS, JOBS, pack_u64
from compute_market.store.txn import Txn

ROW_US = 12.0
NEWEST_MS = 20.0
FIRST_ROWS_S = 0.3
LIVE = 10_000
FEW = 50  # jobs of the party `few`
LATELY = 50  # events of the last minute
CHUNK = 50_000
_TB = Path(sys.executable).parent / "tb-cli"


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--jobs", type=int, help="how many are many")
    chosen = parser.parse_args()
    many = chosen.jobs or (100_000 if chosen.quick else 1_000_000)
    rounds = 3 if chosen.quick else 7
    with measure.scratch(on_disk=False, gib=4) as home:
        homes = {name: home / name for name in ("one", "live", "many")}
        sizes = {"one": (1, 0), "live": (LIVE, 0), "many": (LIVE, many - LIVE)}
        for name, place in homes.items():
            apart(place, *sizes[name])
        rows(homes, rounds)
        for words in (
            ("compute", "list", "--all", "--limit", "50"),
            ("compute", "list", "--limit", "50"),
            ("compute", "list", "--all", "--buyer", "few", "--limit", "50"),
            ("log", "--since", "1m"),
        ):
            newest(homes, words, rounds)
        first_rows(homes["many"], rounds, many)
    measure.finish()


def rows(homes: dict[str, Path], rounds: int) -> None:
    times = side_by_side(
        {name: homes[name] for name in ("one", "live")}, ("compute", "list"), rounds
    )
    more = difference(times["live"], times["one"])
    measure.claim(f"a row of {LIVE} live jobs", more / LIVE * 1e6, ROW_US, "µs")


def newest(homes: dict[str, Path], words: tuple[str, ...], rounds: int) -> None:
    times = side_by_side({name: homes[name] for name in ("one", "many")}, words, rounds)
    more = difference(times["many"], times["one"])
    measure.claim(f"`{' '.join(words)}` among many", more * 1000, NEWEST_MS, "ms")


def first_rows(home: Path, rounds: int, many: int) -> None:
    took, worked = zip(*[first_output(home) for _ in range(rounds)], strict=True)
    text = f"first rows of {many} jobs on a terminal"
    measure.claim(text, statistics.median(took), FIRST_ROWS_S, "s")
    print(f"of that on a processor: {statistics.median(worked):.2f} s")


def first_output(home: Path) -> tuple[float, float]:
    """Seconds until a command on a terminal has written more than the head of a table, by the clock
    and on a processor."""
    began = time.perf_counter()
    child, terminal = pty.fork()
    if child == 0:
        environment = measure.environment(home) | {"TERM": "xterm", "COLUMNS": "100"}
        os.execve(_TB, ["tb-cli", "compute", "list", "--all"], environment)
    written = 0
    while written < 2_000:
        select.select([terminal], [], [])
        written += len(os.read(terminal, 1 << 16))
    took = time.perf_counter() - began
    worked_ns = int(Path(f"/proc/{child}/schedstat").read_text().split()[0])
    os.close(terminal)  # It is told that nobody reads any more.
    os.waitpid(child, 0)
    return took, worked_ns / 1e9


def side_by_side(
    homes: dict[str, Path], words: tuple[str, ...], rounds: int
) -> dict[str, list[float]]:
    """Processor time of a command in each home, round by round."""
    times: dict[str, list[float]] = {name: [] for name in homes}
    for number in range(rounds + 1):
        for name, home in homes.items():
            before = processor_s()
            measure.command([_TB, *words], measure.environment(home))
            if number:
                times[name].append(processor_s() - before)
    return times


def processor_s() -> float:
    """What commands that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def difference(times: list[float], floor: list[float]) -> float:
    """The median over the rounds of what one takes above the other."""
    return statistics.median(one - other for one, other in zip(times, floor, strict=True))


def apart(home: Path, live: int, ended: int) -> None:
    """Fill a home in a process of its own, whose memory goes with it."""
    process = Process(target=fill, args=(home, live, ended))
    process.start()
    process.join()
    assert process.exitcode == 0


def fill(home: Path, live: int, ended: int) -> None:
    """Store jobs, those that have ended first, as plain records: what a listing reads of them."""
    with measure.open_market(home) as market:
        count = ended + live
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            market.update(lambda txn, numbers=numbers: write(txn, numbers, ended, count - LATELY))


def write(txn: Txn, numbers: range, ended: int, behind: int) -> None:
    job: Job = drafts.sketch(
        measure.job_request("job"), [Slice("/slices/a", 10, bytes(32))], txn.now
    )
    for number in numbers:
        is_live = number >= ended
        one: Job = replace(
            job,
            job_id=f"job-{number:07d}",
            seq=number + 1,
            buyer="few" if number < FEW else "buyer",
            state="active" if is_live else "failed",
            ended_at=None if is_live else txn.now,
        )
        key = one.job_id.encode()
        txn.write(JOBS, key, one)
        for table, listed_key, value in listed.entries(one):
            txn.put(table, listed_key, value)
        if is_live:
            txn.put(DEADLINES, jobs.listed_key(one.deadline, one.job_id))
            txn.put(ACTIVE, key)
        else:
            txn.put(ENDED, jobs.listed_key(txn.now, one.job_id))
        event = Event("job_queued", one.job_id, None, one.buyer, {})
        # All but the last few of the log are from yesterday.
        ago_ms = 0 if number >= behind else 86_400_000
        entry = LogEntry(txn.now_ms - ago_ms, Asked(), (event,))
        txn.write(EVENTS, pack_u64(number + 1), entry)
    txn.set_number("job_seq", numbers[-1] + 1)
    txn.set_number("event_seq", numbers[-1] + 1)


if __name__ == "__main__":
    main()
