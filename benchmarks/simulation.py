"""Claim: the trace of a production GPU cluster is simulated at 3000 submitted jobs a second.

The trace is the public data set alibaba/clusterdata, cluster-trace-gpu-v2023; give the folder of
its files as an argument or in TB_TRACES. Nodes are offers, tasks are jobs: each is submitted when
it was created, started, proven when it was deleted, and completed, with all that the market finds
due at each of these instants. The nodes are read before, and the audit comes after: what that takes
is told apart.

Floors, in the same run, round by round: as many LMDB puts of the keys and values that the market
has stored in the end, and the same arrivals and ends played on a heap, without any market. Times
are those of the processor; the shortest round counts, since a neighbour only ever adds to it.

A simulation of ten times as many jobs takes no more memory than what is under way at once.
"""

import gc
import heapq
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import measure

from compute_market.config.settings import DEFAULTS
from compute_market.records import replace
from compute_market.requests import CapabilityRequest
from compute_market.simulation import openb, throwaway, traces
from compute_market.simulation.arrivals import Source
from compute_market.simulation.scenario import Arrivals, Buyers, Providers, Scenario
from compute_market.simulation.trace_jobs import TraceJob, arrivals
from compute_market.simulation.world import Step, run
from compute_market.store.schema import TABLES
from compute_market.store.txn import Txn

JOBS_A_SECOND = 3_000
MORE_MEMORY_MB = 30
NODES = "openb_node_list_all_node.csv"
TASKS = "openb_pod_list_default.csv"
DAY_SECS = 86_400
# Nothing is refused, and nobody has to wait.
CONFIG = replace(
    DEFAULTS, slots=1_000_000, initial_capacity=10**9, deadline_max_secs=10_000 * DAY_SECS
)
Entries = list[tuple[int, bytes, bytes]]


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("folder", nargs="?", default=os.environ.get("TB_TRACES"), type=Path)
    parser.add_argument("--steady", type=int, help="simulate so many jobs, one a second")
    chosen = parser.parse_args()
    if chosen.steady is not None:
        steady(chosen.steady)
        return
    memory(5_000 if chosen.quick else 100_000)
    if chosen.folder is None:
        print("skipped: no folder of the trace is given, neither as an argument nor in TB_TRACES")
        measure.finish()
    folder = str(chosen.folder)
    for settlement in ("dry_run", "real"):
        speed(folder, settlement, 1_000 if chosen.quick else 10**6, 1 if chosen.quick else 5)
    measure.finish()


def speed(folder: str, settlement: Any, limit: int, rounds: int) -> None:
    """What the trace takes in the market, and its floors; no garbage is looked for, as in every
    command."""
    gc.disable()
    found = [job for job, _ in zip(traces.jobs(f"{folder}/{TASKS}"), range(limit), strict=False)]
    scenario = Scenario(
        length_secs=max(job.at_ms + (job.duration_ms or 0) for job in found) // 1_000 + 2,
        providers=openb.nodes(f"{folder}/{NODES}"),
        buyers=[
            Buyers(
                name="cluster",
                arrivals=Arrivals(process="trace", file=TASKS),
                max_price_per_unit=10_000,
                ct=10**12,
            )
        ],
        settlement=settlement,
        tick_secs=DAY_SECS,
        sample_secs=DAY_SECS,
        config=CONFIG,
    )
    stored: Entries = []
    times: list[float] = []
    audits: list[float] = []
    puts: list[float] = []
    heaps: list[float] = []
    for _ in range(rounds):
        stored.clear()
        seconds, audited = simulated(scenario, found, stored)
        times.append(seconds)
        audits.append(audited)
        puts.append(put_alone(stored))
        heaps.append(on_a_heap(found))
    measure.claim_at_least(
        f"openb, {settlement}: jobs submitted in a second",
        len(found) / min(times),
        JOBS_A_SECOND,
        "",
    )
    print(
        f"     {settlement}: {measure.ratio(times, puts):.1f} × the puts alone, "
        f"{measure.ratio(times, heaps):.0f} × a heap without a market; "
        f"the audit took another {min(audits):.1f} s"
    )


def simulated(scenario: Scenario, jobs: list[TraceJob], stored: Entries) -> tuple[float, float]:
    """Seconds of a whole run, and of the audit after it; what it has stored goes to `stored`."""
    ended, end_ms = 0.0, scenario.end_ms

    def note_end(txn: Txn, step: Step) -> None:
        nonlocal ended
        if step.at_ms == end_ms:
            ended = time.process_time()

    def opened(scenario: Scenario, group: Buyers) -> Source:
        return arrivals(scenario, group, iter(jobs))

    with measure.scratch(on_disk=False) as home:
        began = time.process_time()
        outcome = run(scenario, partial(throwaway.open_market, str(home)), note_end, opened)
        audited = time.process_time() - ended
        assert outcome.submitted == len(jobs)
        assert not outcome.violations, outcome.violations[0]
        with lmdb.open(str(home), max_dbs=len(TABLES), readonly=True, lock=False) as env:
            tables = [env.open_db(table.name.encode(), create=False) for table in TABLES]
            with env.begin() as txn:
                for number, table in enumerate(tables):
                    stored += ((number, *entry) for entry in txn.cursor(table))
    return ended - began, audited


def put_alone(entries: Entries) -> float:
    """Seconds of putting entries into tables of a bare environment that is not synced either."""
    with (
        measure.scratch(on_disk=False) as home,
        lmdb.open(str(home), map_size=2**32, max_dbs=len(TABLES), sync=False) as env,
    ):
        tables = [env.open_db(table.name.encode()) for table in TABLES]
        began = time.process_time()
        with env.begin(write=True) as txn:
            for number, key, value in entries:
                txn.put(key, value, db=tables[number])
        return time.process_time() - began


def on_a_heap(jobs: list[TraceJob]) -> float:
    """Seconds of letting the same jobs begin and end, with nobody to decide anything."""
    began = time.process_time()
    planned = [(job.at_ms, job.number, job) for job in jobs]
    heapq.heapify(planned)
    running: set[int] = set()
    while planned:
        at_ms, number, job = heapq.heappop(planned)
        if number in running:
            running.remove(number)
        else:
            running.add(number)
            heapq.heappush(planned, (at_ms + (job.duration_ms or 0), number, job))
    return time.process_time() - began


def memory(jobs: int) -> None:
    """What ten times as many jobs take more, of which as many are under way at once."""
    env = measure.environment(Path(tempfile.gettempdir()))
    few, many = (
        measure.peak_memory([sys.executable, __file__, "--steady", str(count)], env).allocated_mb
        for count in (jobs // 10, jobs)
    )
    measure.claim(
        f"memory for {jobs} jobs above that for {jobs // 10}", many - few, MORE_MEMORY_MB, "MB"
    )


def steady(jobs: int) -> None:
    """Simulate jobs, one a second, and print a line now and then, while memory is looked at."""
    buyers = Buyers(name="b", count=10, arrivals=Arrivals(process="constant", per_minute=6))
    providers = Providers(
        name="p", count=10, units=1_000, capability=CapabilityRequest(cpu_cores=8)
    )
    scenario = Scenario(
        length_secs=jobs, providers=[providers], buyers=[buyers], tick_secs=600, config=CONFIG
    )
    with measure.scratch(on_disk=False) as home:
        run(scenario, partial(throwaway.open_market, str(home)), tell)


def tell(_: Txn, step: Step) -> None:
    print(step.at_ms)


if __name__ == "__main__":
    main()
