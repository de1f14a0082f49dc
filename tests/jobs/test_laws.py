"""The laws of jobs: each one, broken by hand, is named by the audit."""

from collections.abc import Callable

import pytest

from compute_market.jobs import cancellations, jobs, laws
from compute_market.store.schema import (
    ACTIVE,
    ACTIVE_LOW,
    BACKLOG,
    CANCELLATIONS,
    DEADLINES,
    ENDED,
    JOBS,
    LANE_JOBS,
    OFFERS,
    PARTY_JOBS,
    PENDING,
    PLACEMENTS,
    QUEUE_HIGH,
    QUEUE_LOW,
    QUEUE_NORMAL,
    QUEUE_PAIRS,
    SLICES,
    SLOTS_HELD,
    SUBMITTED,
    pack_u64,
    party_key,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support.laws import (
    Case,
    check_named,
    edit,
    found,
    key_of,
    laws_in,
)
from tests.support.market import Market


def credit_another(txn: Txn) -> None:
    """Take a proven unit from the earlier provider of a job."""
    edit(txn, PLACEMENTS, b"handed\0" + pack_u64(0), units_proven=0)


UNITS = (
    *(
        Case(
            "slices, units, proven slices and proven units are those of its slices",
            "jobs",
            "run",
            damage,
        )
        for damage in (
            lambda txn: edit(txn, JOBS, b"run", slices=2),
            lambda txn: edit(txn, JOBS, b"run", units=5),
            lambda txn: edit(txn, JOBS, b"run", slices_proven=0),
            lambda txn: edit(txn, JOBS, b"run", units_proven=2),
            lambda txn: txn.delete(SLICES, b"run\0" + pack_u64(0)),
            lambda txn: edit(txn, SLICES, b"run\0" + pack_u64(0), proven_ms=1),
        )
    ),
    Case(
        "every slice belongs to a job",
        "slices",
        "*",
        lambda txn: txn.write(
            SLICES, b"x\0" + pack_u64(0), txn.must_read(SLICES, b"run\0" + pack_u64(0))
        ),
    ),
    Case("proven units are those of its providers", "jobs", "handed", credit_another),
    Case(
        "every placement belongs to a job",
        "placements",
        "*",
        lambda txn: txn.write(
            PLACEMENTS,
            b"run\0" + pack_u64(0),
            txn.must_read(PLACEMENTS, b"handed\0" + pack_u64(0)),
        ),
    ),
    Case(
        "completed means all slices proven",
        "jobs",
        "run",
        lambda txn: edit(txn, JOBS, b"run", state="completed"),
    ),
    Case(
        "completed means all slices proven",
        "jobs",
        "done",
        lambda txn: edit(txn, JOBS, b"done", state="active"),
    ),
    *(
        Case(
            "reserved and proven units are those of its jobs",
            "offers",
            "gone",
            lambda txn, field=field: edit(txn, OFFERS, b"gone", units_left=999, **{field: 1}),
        )
        for field in ("units_reserved", "units_proven")
    ),
    Case("reserved and proven units are those of its jobs", "offers", "main", credit_another),
    Case(
        "the backlog is what live jobs have left",
        "backlog",
        "units",
        lambda txn: txn.add(BACKLOG, b"units", 1),
    ),
)

# Where jobs stand: table → a job in it and its key there.
PLACES: dict[Table[bytes], tuple[str, Callable[[Txn], bytes]]] = {
    DEADLINES: ("run", lambda txn: _deadline_key(txn, "run")),
    PENDING: ("pend", lambda txn: key_of(txn, PENDING, b"pend")),
    QUEUE_HIGH: ("wait-high", lambda txn: key_of(txn, QUEUE_HIGH, b"wait-high")),
    QUEUE_NORMAL: ("wait-normal", lambda txn: key_of(txn, QUEUE_NORMAL, b"wait-normal")),
    QUEUE_LOW: ("wait-low", lambda txn: key_of(txn, QUEUE_LOW, b"wait-low")),
    ACTIVE: ("run", lambda txn: b"run"),
    ACTIVE_LOW: ("run-low", lambda txn: b"run-low"),
    ENDED: ("done", lambda txn: key_of_ended(txn, "done")),
    QUEUE_PAIRS: ("wait-low", lambda txn: key_of(txn, QUEUE_PAIRS, b"wait-low")),
}


# The tables that list every job that is kept: table → a key in it of the job `moved`.
LISTINGS: dict[Table[bytes], Callable[[Txn], bytes]] = {
    SUBMITTED: lambda txn: pack_u64(_seq(txn, "moved")),
    PARTY_JOBS: lambda txn: party_key("provider", _holder_of(txn, "moved"), _seq(txn, "moved")),
}


def _holder_of(txn: Txn, job_id: str) -> str:
    return jobs.get(txn, job_id).placed.provider


def _seq(txn: Txn, job_id: str) -> int:
    return jobs.get(txn, job_id).seq


def key_of_ended(txn: Txn, job_id: str) -> bytes:
    return jobs.listed_key(jobs.get(txn, job_id).ended_at or 0, job_id)


def _deadline_key(txn: Txn, job_id: str) -> bytes:
    return pack_u64(jobs.get(txn, job_id).deadline) + job_id.encode()


INDEXES = (
    *(
        Case(
            "every job is where its state says",
            table.name,
            job_id,
            lambda txn, table=table, key=key: txn.delete(table, key(txn)),
        )
        for table, (job_id, key) in PLACES.items()
    ),
    *(
        Case(
            "nothing but jobs in that state is there",
            table.name,
            "*",
            lambda txn, table=table: txn.put(table, b"\xff" * 9, b"\0" * 8 + b"done"),
        )
        for table in PLACES
    ),
    *(
        Case(
            "every job is listed by submission and party",
            table.name,
            "moved",
            lambda txn, table=table, key=key: txn.delete(table, key(txn)),
        )
        for table, key in LISTINGS.items()
    ),
    *(
        Case(
            "nothing but jobs that are kept is there",
            table.name,
            "*",
            lambda txn, table=table: txn.put(table, b"\xff" * 9),
        )
        for table in LISTINGS
    ),
    Case(
        "every job is listed by submission and party",
        "submitted",
        "moved",
        lambda txn: txn.put(SUBMITTED, pack_u64(_seq(txn, "moved")), b"done"),
    ),
)


def add_line(job_id: str) -> Callable[[Txn], None]:
    return lambda txn: cancellations.add(txn, job_id, "client")


LINES = "one line for each cancelled job, and for each time one was handed over"
LOG = (
    Case(
        "lines follow each other",
        "cancellations",
        "dropped",
        lambda txn: edit(txn, CANCELLATIONS, pack_u64(3), offset=1),
    ),
    Case(
        "the length is that of all lines",
        "cancellations",
        "*",
        lambda txn: txn.set_number("cancellations_length", 1),
    ),
    Case(
        LINES,
        "cancellations",
        "dropped",
        lambda txn: txn.delete(CANCELLATIONS, pack_u64(3)),
    ),
    Case(LINES, "cancellations", "done", add_line("done")),
    Case(LINES, "cancellations", "dropped", add_line("dropped")),
    Case(
        LINES, "cancellations", "handed", lambda txn: cancellations.add(txn, "handed", "preempted")
    ),
    Case(
        LINES,
        "cancellations",
        "moved",
        lambda txn: edit(txn, JOBS, b"moved", placements_before=0),
    ),
)

SLOTS = tuple(
    Case(
        "the slots of a party are those of its active jobs",
        "slots_held",
        key.replace("\0", " "),
        lambda txn, key=key: txn.add(SLOTS_HELD, key.encode(), 1),
    )
    for key in ("buyer\0buyer", "provider\0prov", "provider\0nobody")
)

WAITING = (
    *(
        Case(
            "the jobs that wait in a lane are those whose states say so",
            "lane_jobs",
            key.replace("\0", " "),
            lambda txn, key=key: txn.add(LANE_JOBS, key.encode(), 1),
        )
        for key in ("queued\0consumer", "pending\0consumer", "deferred\0industrial")
    ),
    Case(
        "only a pending job is deferred",
        "jobs",
        "run",
        lambda txn: edit(txn, JOBS, b"run", deferred=True),
    ),
    Case(
        "only a job that waits is held",
        "jobs",
        "run",
        lambda txn: edit(txn, JOBS, b"run", held=True),
    ),
    Case(
        "the jobs that wait in a lane are those whose states say so",
        "lane_jobs",
        "held pend",
        lambda txn: edit(txn, JOBS, b"pend", held=True),
    ),
)

CASES = (*UNITS, *INDEXES, *LOG, *SLOTS, *WAITING)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)


def test_every_index_of_live_jobs_has_a_case(busy: Market) -> None:
    tables = busy.view(
        lambda txn: {table for job in txn.records(JOBS) for table, _, _ in laws.index_entries(job)}
    )
    assert tables == set(PLACES)


@pytest.mark.parametrize(
    "table", [PENDING, QUEUE_HIGH, QUEUE_NORMAL, QUEUE_LOW, QUEUE_PAIRS], ids=lambda t: t.name
)
def test_audit_finds_an_entry_that_names_another_job(busy: Market, table: Table[bytes]) -> None:
    def damage(txn: Txn) -> None:
        key, value = txn.first(table) or (b"", b"")
        txn.put(table, key, value[:8] + b"done")

    assert {v.table for v in found(busy, damage)} == {table.name}
