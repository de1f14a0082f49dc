"""Claim: the tasks of a production GPU cluster are submitted in at most 0.35 ms each.

The trace is the public data set alibaba/clusterdata, cluster-trace-gpu-v2023; give the folder of
its files as an argument or in TB_TRACES. Nodes are offers: what they have, as many units as cores,
and nodes with the same model of GPU cost the same whatever their size, so that every match is among
many equals, of providers with scores of all kinds. Tasks are jobs of one slice of a unit, in order
of creation: cores rounded up, GPUs, any of the models named. The market rents whole GPUs and knows
no main memory, so `gpu_milli` and `memory_mib` are left out. The class of service is the priority.
All are asked at one instant, a thousand per transaction.

Floor: what was submitted leaves so many entries in the store; as many LMDB puts of the same keys
and values, in the same run. Where each task has to go is what a plain search through all nodes
finds, and the market must have sent every one there. Times are those of the processor; the shortest
round counts, since a neighbour only ever adds to it.
"""

import csv
import os
import time
from operator import ne
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import measure

from compute_market.engine import Engine
from compute_market.jobs.submit import post_offer, submit
from compute_market.records import Priority, Refused, Slice, replace
from compute_market.requests import CapabilityRequest, JobRequest, OfferRequest
from compute_market.settlement import ledger
from compute_market.store.rewriting import stored_entries
from compute_market.store.schema import TABLES
from compute_market.store.txn import Txn

TASK_BOUND_MS = 0.35
CHUNK = 1_000
ENTRIES_PER_TASK = 10
NODES = "openb_node_list_all_node.csv"
TASKS = "openb_pod_list_default.csv"
SLICE = [Slice("/slices/a", 10, bytes(32))]
PRIORITIES: dict[str, Priority] = {"LS": "high", "Guaranteed": "high", "BE": "low"}
CPU_PRICE = 10
GPU_PRICES = {"P100": 20, "T4": 25, "V100M16": 50, "V100M32": 60, "A10": 40, "G2": 45, "G3": 90}
PRICE_MAX = 10_000


class Node(NamedTuple):
    name: str
    cores: int
    gpus: int
    model: str
    price: int


class Task(NamedTuple):
    name: str
    cores: int
    gpus: int
    models: tuple[str, ...]
    priority: Priority


class Run(NamedTuple):
    """Where each task went, the seconds of submitting them all, and those of the floor."""

    offer_ids: list[str | None]
    seconds: float
    floor_seconds: float


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("folder", nargs="?", default=os.environ.get("TB_TRACES"), type=Path)
    chosen = parser.parse_args()
    if chosen.folder is None:
        print("skipped: no folder of the trace is given, neither as an argument nor in TB_TRACES")
        measure.finish()
    nodes, tasks = read(chosen.folder, 2_000 if chosen.quick else None)
    expected = search(nodes, tasks)
    placed = [offer_id for offer_id in expected if offer_id is not None]
    print(
        f"{len(tasks)} tasks, {len(placed)} of them go to {len(set(placed))} of {len(nodes)} nodes"
    )
    runs: dict[str, list[Run]] = {"dry_run": [], "real": []}
    for _ in range(1 if chosen.quick else 5):
        for mode, done in runs.items():
            done.append(through_market(mode, nodes, tasks))
    for mode, done in runs.items():
        wrong = max(sum(map(ne, run.offer_ids, expected)) for run in done)
        measure.claim(f"{mode}: tasks that went elsewhere", wrong, 0, "tasks")
        times = [run.seconds for run in done]
        per_task = 1000 * min(times) / len(tasks)
        measure.claim(f"{mode}: submission of a task", per_task, TASK_BOUND_MS, "ms")
        factor = measure.ratio(times, [run.floor_seconds for run in done])
        print(f"     {mode}: {factor:.1f} × the puts alone")
    measure.finish()


def read(folder: Path, limit: int | None = None) -> tuple[list[Node], list[Task]]:
    """The nodes, and at most `limit` tasks, the first created first."""
    with open(folder / NODES, newline="") as file:
        nodes = [_node(row) for row in csv.DictReader(file)]
    with open(folder / TASKS, newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["creation_time"]))
    return nodes, [_task(row) for row in rows[:limit]]


def through_market(mode: Any, nodes: list[Node], tasks: list[Task]) -> Run:
    """Submit the tasks to a market of these nodes."""
    config = replace(measure.OPEN_HANDED, settle_mode=mode)
    with (
        measure.scratch(on_disk=False) as home,
        measure.open_market(home / "market", config) as market,
    ):
        market.update(lambda txn: open_shop(txn, nodes))
        before = contents(market)
        requests = [job_request(task) for task in tasks]
        began = time.process_time()
        offer_ids = submit_all(market, requests)
        seconds = time.process_time() - began
        written = [entry for entry in contents(market) if entry not in before]
        return Run(offer_ids, seconds, put_alone(home / "floor", written))


def contents(market: Engine) -> set[tuple[int, bytes, bytes]]:
    """All that is stored: number of a table, key, value."""
    return market.view(
        lambda txn: {
            (number, *entry)
            for number, table in enumerate(TABLES)
            for entry in stored_entries(txn, table)
        }
    )


def put_alone(path: Path, entries: list[tuple[int, bytes, bytes]]) -> float:
    """Seconds of putting entries into tables of a bare environment."""
    with lmdb.open(str(path), map_size=2**30, max_dbs=len(TABLES)) as env:
        tables = [env.open_db(table.name.encode()) for table in TABLES]
        began = time.process_time()
        for start in range(0, len(entries), CHUNK * ENTRIES_PER_TASK):
            with env.begin(write=True) as txn:
                for number, key, value in entries[start : start + CHUNK * ENTRIES_PER_TASK]:
                    txn.put(key, value, db=tables[number])
        return time.process_time() - began


def open_shop(txn: Txn, nodes: list[Node]) -> None:
    """Give everybody money, and post the offers."""
    ledger.tap(txn, "deposit", "cluster", {"CT": 10**12, "IT": 0}, None)
    for node in nodes:
        ledger.tap(txn, "deposit", node.name, {"CT": node.cores, "IT": 0}, None)
        post_offer(txn, offer_request(node))


def submit_all(market: Engine, requests: list[JobRequest]) -> list[str | None]:
    """The offer that each job was given to; None for one that was refused."""

    def act(txn: Txn, chunk: list[JobRequest]) -> list[str | None]:
        verdicts = [submit(txn, request, SLICE) for request in chunk]
        return [None if isinstance(v, Refused) else v.job.placed.offer_id for v in verdicts]

    found: list[str | None] = []
    for start in range(0, len(requests), CHUNK):
        chunk = requests[start : start + CHUNK]
        found += market.update(lambda txn, chunk=chunk: act(txn, chunk))
    return found


def search(nodes: list[Node], tasks: list[Task]) -> list[str | None]:
    """Look at every node for every task: the cheapest that fits, among equals the first."""
    left = {node.name: node.cores for node in nodes}
    found: list[str | None] = []
    for task in tasks:
        best: Node | None = None
        for node in nodes:
            if (
                (best is None or node.price < best.price)
                and left[node.name]
                and node.cores >= task.cores
                and node.gpus >= task.gpus
                and (not task.models or node.model in task.models)
            ):
                best = node
        if best is not None:
            left[best.name] -= 1
        found.append(None if best is None else best.name)
    return found


def offer_request(node: Node) -> OfferRequest:
    gpu = node.model if node.gpus else None
    return measure.offer_request(
        node.name,
        offer_id=node.name,
        units=node.cores,
        price_per_unit=node.price,
        reputation=sum(node.name.encode()) % 100,
        capability=CapabilityRequest(cpu_cores=node.cores, gpu=gpu, gpu_count=node.gpus),
    )


def job_request(task: Task) -> JobRequest:
    models: Any = list(task.models) or None
    return measure.job_request(
        task.name,
        buyer="cluster",
        max_price_per_unit=PRICE_MAX,
        priority=task.priority,
        capability=CapabilityRequest(cpu_cores=task.cores, gpu=models, gpu_count=task.gpus),
    )


def _node(row: dict[str, str]) -> Node:
    cores, gpus = int(row["cpu_milli"]) // 1000, int(row["gpu"])
    price = GPU_PRICES[row["model"]] if gpus else CPU_PRICE
    return Node(row["sn"], cores, gpus, row["model"], price)


def _task(row: dict[str, str]) -> Task:
    models = tuple(model for model in row["gpu_spec"].split("|") if model)
    cores = -(-int(row["cpu_milli"]) // 1000)
    priority = PRIORITIES.get(row["qos"], "normal")
    return Task(row["name"], cores, int(row["num_gpu"]), models, priority)


if __name__ == "__main__":
    main()
