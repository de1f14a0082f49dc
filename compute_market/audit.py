"""Walks the laws of every room and names every violation.

What `compute-market audit` shows, and what the test suite runs after every test. The laws of a room
are in its `laws` module; here are those that span rooms.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from msgspec.structs import asdict

from compute_market import archived, metrics
from compute_market.admission import laws as admission
from compute_market.archive import counted
from compute_market.archive import laws as archive
from compute_market.bids import laws as bids
from compute_market.courier import delivery_laws
from compute_market.courier import laws as courier
from compute_market.governance import laws as governance
from compute_market.jobs import cancellations
from compute_market.jobs import laws as jobs
from compute_market.jobs import money_laws as job_money
from compute_market.laws import Law, Violation
from compute_market.offers import laws as offers
from compute_market.reputation import laws as reputation
from compute_market.scheduler import laws as scheduler
from compute_market.settlement import laws as settlement
from compute_market.store.rewriting import examined
from compute_market.store.schema import (
    ARCHIVED,
    COUNTERS,
    EVENTS,
    IMPORT_FAILURES,
    IMPORTS,
    JOBS,
    META,
    POSTINGS,
    QUARANTINE,
    RECEIPTS,
    SETTLEMENTS,
    TABLES,
    unpack_u64,
)
from compute_market.store.txn import Txn
from compute_market.subsidy import laws as subsidy

# Counters that the tables determine, all series of them.
_DERIVED = (
    "compute_market_fee_split",
    "slashing_burn_ct_total",
    "bonds_burned_total",
    "industrial_units_total",
    "scheduler_cancel_total",
    "matches_total",
    "settle_applied_total",
    "settle_failed_total",
)


def check(txn: Txn) -> Iterator[Violation]:
    """Every violation of the market's laws in one snapshot; nothing when all is well.

    A table with records that are damaged is named, and the laws that need it are left out.
    """
    damaged = {violation.table: violation for violation in _damaged(txn)}
    yield from damaged.values()
    for law in LAWS:
        if not damaged.keys() & {table.name for table in law.needs}:
            yield from law.check(txn)


def summary(txn: Txn, violations: list[Violation]) -> dict[str, Any]:
    """`audit` as a document: receipts looked at, violations found."""
    return {
        "receipts": txn.size(RECEIPTS) + txn.size(QUARANTINE),
        "invalid": len(violations),
        "violations": [asdict(violation) for violation in violations],
    }


def log_violations(txn: Txn, log: bytes) -> Iterator[Violation]:
    """Whether `cancellations.log` holds each cancellation once, in order, as far as it goes.

    A log that is behind the table is no violation: the next change makes it whole. It must have
    been read before the snapshot was taken.
    """
    offset = 0
    while offset < len(log) and (text := cancellations.text_from(txn, offset)):
        if log[offset : offset + len(text)] != text[: len(log) - offset]:
            yield Violation(
                "cancellations.log",
                f"byte {offset}",
                "the log is the text of the table",
                f"from here on it differs, at {len(log)} bytes of {cancellations.length(txn)}",
            )
            return
        offset += len(text)
    if len(log) > offset:
        yield Violation(
            "cancellations.log",
            f"byte {offset}",
            "the log is the text of the table",
            f"it goes on after its {offset} bytes",
        )


def _damaged(txn: Txn) -> Iterator[Violation]:
    """The first damaged record of each table; receipts are looked at one by one elsewhere.

    A table that has other entries than it says lacks those that a damaged page hides.
    """
    for table in TABLES:
        count = 0
        found: Violation | None = None
        for key, error in examined(txn, table):
            count += 1
            if error is not None and found is None and table is not RECEIPTS:
                found = Violation(table.name, repr(key), "records decode", error.message)
        if found is None and count != txn.size(table):
            detail = f"{count} are found, {txn.size(table)} expected"
            found = Violation(table.name, "*", "no entry is hidden", detail)
        if found is not None:
            yield found


def _counters(txn: Txn) -> Iterator[Violation]:
    """Counters against what the tables say."""
    expected: Counter[tuple[str, ...]] = Counter()
    expected.update(archived.counters(txn))
    for counts in chain(
        map(counted.of_posting, txn.records(POSTINGS)),
        map(counted.of_job, txn.records(JOBS)),
        map(counted.of_settlement, txn.records(SETTLEMENTS)),
    ):
        for names, by in counts:
            expected[names] += by
    for imported in txn.records(IMPORTS):
        if imported.status != "duplicate":
            expected["matches_total", "true" if imported.dry_run else "false"] += 1
        expected["settle_applied_total",] += imported.status == "applied"
    for failure in txn.records(IMPORT_FAILURES):
        expected["settle_failed_total", failure.reason] += 1
    expected["receipt_corrupt_total",] = txn.size(QUARANTINE)
    expected["industrial_rejected_total", "SLA"] += 0
    expected["scheduler_preempt_total", "success"] += 0
    for name in _DERIVED:
        for values, _ in metrics.series(txn, name):
            expected[name, *values] += 0
    for (name, *labels), should in sorted(expected.items()):
        is_ = metrics.value(txn, name, *labels)
        if is_ != should:
            yield Violation(
                "counters",
                " ".join((name, *labels)),
                "counters equal what the tables say",
                f"{is_}, tables say {should}",
            )


def _log(txn: Txn) -> Iterator[Violation]:
    """The log has no gaps, and knows the last event of every job unless it was trimmed."""
    law = "every job has its last event"
    last_of: dict[int, str] = {}
    for job in txn.records(JOBS):
        if job.event_seq and last_of.setdefault(job.event_seq, job.job_id) != job.job_id:
            yield Violation("events", job.job_id, law, f"{job.event_seq} is that of another")
    expected = 0
    first = 0
    for key, payload in txn.scan(EVENTS):
        seq = unpack_u64(key)
        first = first or seq
        if expected and seq != expected:
            yield Violation("events", str(seq), "no gaps", f"expected {expected}")
            return
        for expected, event in enumerate(EVENTS.decode(key, payload).events, seq):
            job_id = last_of.pop(expected, None)
            if job_id is not None and job_id != event.job_id:
                yield Violation("events", job_id, law, f"{expected} is that of another")
        expected += 1
    if first and expected != txn.number("event_seq") + 1:
        yield Violation("events", "*", "no gaps", f"the next would be {expected}")
    for seq, job_id in last_of.items():
        if seq >= first > 0:
            yield Violation("events", job_id, law, f"{seq} is missing")


LAWS: tuple[Law, ...] = (
    *governance.LAWS,
    *settlement.LAWS,
    *reputation.LAWS,
    *offers.LAWS,
    *scheduler.LAWS,
    *admission.LAWS,
    *jobs.LAWS,
    *job_money.LAWS,
    *bids.LAWS,
    *delivery_laws.LAWS,
    *courier.LAWS,
    *subsidy.LAWS,
    *archive.LAWS,
    Law(
        _counters,
        (
            *(POSTINGS, JOBS, SETTLEMENTS, IMPORTS, IMPORT_FAILURES, QUARANTINE),
            *(COUNTERS.table, ARCHIVED.table),
        ),
    ),
    Law(_log, (EVENTS, JOBS, META)),
)
