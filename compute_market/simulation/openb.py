"""Traces as CSV in the form of "openb", the production GPU cluster of alibaba/clusterdata.

A file of nodes, which become offers, and one of tasks, which become jobs. A unit is one core for
one second: a task asks for as many as it held its cores, and a market of nodes does as many units
a second as they have cores. The market rents whole GPUs and knows no main memory, so `gpu_milli`
and `memory_mib` are left out.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from compute_market.errors import UsageError
from compute_market.records import Priority, replace
from compute_market.requests import GPU_MODELS_MAX, CapabilityRequest
from compute_market.simulation.scenario import Providers
from compute_market.simulation.trace_jobs import SECS_MAX, UNITS_MAX, TraceJob
from compute_market.simulation.trace_lines import fail, lines, shown
from compute_market.text import counted, quoted

NODE_COLUMNS: Final = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
TASK_COLUMNS: Final = (
    *("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "pod_phase"),
    *("creation_time", "deletion_time", "scheduled_time"),
)
NODES_MAX: Final = 100_000
# What an offer is good for: all that its node can do in a year.
OFFER_SECS: Final = 366 * 86_400
_NUMBER_MAX: Final = 2**40
_NAME_MAX: Final = 60

# Classes of service.
PRIORITIES: Final[dict[str, Priority]] = {"LS": "high", "Guaranteed": "high", "BE": "low"}
# What a unit costs on a node, by its model of GPU: the trace says nothing of prices. All nodes of
# one model cost the same.
CPU_PRICE: Final = 10
GPU_PRICES: Final = {
    "P100": 20,
    "T4": 25,
    "A10": 40,
    "G2": 45,
    "V100M16": 50,
    "V100M32": 60,
    "G3": 90,
}
OTHER_GPU_PRICE: Final = 50


def cores_of(nodes: list[Providers]) -> int:
    """What nodes can do together, in units per second."""
    return sum(each.capability.cpu_cores for each in nodes)


def offering(nodes: list[Providers], secs: int) -> list[Providers]:
    """The same nodes, each with an offer of all that it can do in so many seconds."""
    return [replace(each, units=each.capability.cpu_cores * secs) for each in nodes]


def nodes(path: str, ct: int = 1_000_000) -> list[Providers]:
    """The nodes of a file, each a provider with one offer of all that it can do in a year.

    A core does a unit a second. Each has `ct` CT in its wallet. Raises TraceError for a line
    that is wrong, and UsageError where no node is left.
    """
    found: list[Providers] = []
    names: set[str] = set()
    for number, row in _rows(path, NODE_COLUMNS):
        name = row["sn"]
        if not name or not name.isascii() or not name.replace("-", "").isalnum() or name[0] == "-":
            fail(path, number, f"sn {shown(name)} is no name: letters, digits and -")
        if len(name) > _NAME_MAX or name in names:
            problem = "too long" if len(name) > _NAME_MAX else "there already"
            fail(path, number, f"sn {shown(name)} is {problem}")
        names.add(name)
        cores = _count(path, number, row, "cpu_milli") // 1_000
        gpus = _count(path, number, row, "gpu")
        model = _model(path, number, row["model"]) if gpus else None
        price = CPU_PRICE if model is None else GPU_PRICES.get(model, OTHER_GPU_PRICE)
        if len(found) == NODES_MAX:
            fail(path, number, f"there are more than {NODES_MAX} nodes")
        if not cores:
            continue  # It has nothing to offer.
        found.append(
            Providers(
                name=name,
                units=cores * OFFER_SECS,
                price_per_unit=price,
                capability=CapabilityRequest(cpu_cores=cores, gpu=model, gpu_count=gpus),
                ct=ct,
                reliability=Decimal(1),
                restocks=False,
            )
        )
    if not found:
        raise UsageError(f"{quoted(path)}: there is no node in it that has a core to offer")
    return found


def jobs(path: str) -> Iterator[TraceJob]:
    """The tasks of a file in order of creation, on a machine as asked for.

    Cores are rounded up, and each of them is a unit for every second that the task ran, at least
    one. The class of service is the priority; a task that never ran would have
    run until it was deleted. Raises TraceError for a line that is wrong.
    """
    last_secs = 0
    for number, row in _rows(path, TASK_COLUMNS):
        created = _count(path, number, row, "creation_time", SECS_MAX)
        if created < last_secs:
            fail(
                path,
                number,
                f"creation_time {created} comes behind {last_secs}",
                "the tasks of a trace stand in order of creation",
            )
        last_secs = created
        begun = created
        if row["scheduled_time"]:
            begun = _count(path, number, row, "scheduled_time", SECS_MAX)
        ended = _count(path, number, row, "deletion_time", SECS_MAX)
        cores = -(-_count(path, number, row, "cpu_milli") // 1_000)
        gpus = _count(path, number, row, "num_gpu")
        named = [_model(path, number, text) for text in row["gpu_spec"].split("|") if text]
        if len(named) > GPU_MODELS_MAX:
            fail(path, number, f"gpu_spec names more than {GPU_MODELS_MAX} models")
        ran_secs = max(0, ended - begun)
        units = max(1, cores * ran_secs)
        if units > UNITS_MAX:
            fail(path, number, f"{cores} cores for {ran_secs} s are more than {UNITS_MAX} units")
        yield TraceJob(
            number,
            created * 1_000,
            None,
            units,
            duration_ms=ran_secs * 1_000,
            priority=PRIORITIES.get(row["qos"], "normal"),
            capability=CapabilityRequest(cpu_cores=cores, gpu=named or None, gpu_count=gpus),
        )


def _rows(path: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows by column. The first line names these columns, in any order, and no others."""
    found = lines(path)
    first = next(found, None)
    if first is None:
        raise UsageError(
            f"{quoted(path)}: is empty", hint="a trace begins with " + ",".join(columns)
        )
    header = _fields(first[1])
    if sorted(header) != sorted(columns):
        missing = [name for name in columns if name not in header]
        extra = [name for name in header if name not in columns]
        problem = (
            f"the column {missing[0]} is missing"
            if missing
            else f"the column {shown(extra[0])} is unknown"
            if extra
            else "a column is there twice"
        )
        fail(path, first[0], problem, "the columns are " + ",".join(columns))
    for number, text in found:
        row = _fields(text)
        if len(row) != len(header):
            fail(path, number, f"{counted(len(row), 'field')}, not {len(header)}")
        yield number, dict(zip(header, row, strict=True))


def _fields(text: str) -> list[str]:
    """The fields of a line, quoted ones without their quotes; none holds a comma or line break."""
    return [
        field[1:-1] if len(field) > 1 and field[0] == field[-1] == '"' else field
        for field in map(str.strip, text.split(","))
    ]


def _count(
    path: str, number: int, row: dict[str, str], column: str, most: int = _NUMBER_MAX
) -> int:
    text = row[column]
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        fail(path, number, f"{column} is {shown(text)}, not a whole number of at least 0")
    found = int(text)
    if found > most:
        fail(path, number, f"{column} {found} is above {most}")
    return found


def _model(path: str, number: int, text: str) -> str:
    if not text or len(text) > 64 or not text.isascii() or not text.isprintable():
        fail(path, number, f"{shown(text)} is no model of a GPU")
    return text
