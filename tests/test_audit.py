"""The audit: it walks the laws of every room; those that span rooms, broken by hand, are named."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from compute_market import audit
from compute_market.laws import Law, Violation
from compute_market.records import LogEntry
from compute_market.reputation.reputation import recent_key
from compute_market.store.rewriting import stored_entries
from compute_market.store.schema import (
    COUNTERS,
    EVENTS,
    JOBS,
    META,
    POSTINGS,
    RECEIPTS,
    RECORD_TABLES,
    REPUTATION,
    SCORES_RECENT,
    TABLES,
    pack_u64,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support.laws import (
    DAMAGED,
    Case,
    check_named,
    edit,
    found,
    laws_in,
    rolled_back,
)
from tests.support.market import Market
from tests.support.state import put_payload, put_raw

RECORDS_DECODE = "records decode"
LOG_IS_THE_TEXT = "the log is the text of the table"
NOTHING_HIDDEN = "no entry is hidden"
COUNTERS_FIT = "counters equal what the tables say"
ROOT = Path(__file__).parents[1]
# A room with many has a second module of them.
LAWS = tuple(
    (path.parent.name, path.stem) for path in sorted(ROOT.glob("compute_market/*/*laws.py"))
)


def miscount(txn: Txn, series: tuple[str, ...]) -> None:
    txn.add(COUNTERS, "\0".join(series).encode(), 1)


COUNTS = tuple(
    Case(
        COUNTERS_FIT,
        "counters",
        " ".join(series),
        lambda txn, series=series: miscount(txn, series),
    )
    for series in (
        ("compute_market_fee_split", "ct", "paid"),
        ("compute_market_fee_split", "it", "paid"),
        ("compute_market_fee_split", "ct", "refunded"),
        ("compute_market_fee_split", "it", "refunded"),
        ("compute_market_fee_split", "ct", "burned"),
        ("compute_market_fee_split", "it", "burned"),
        ("slashing_burn_ct_total",),
        ("industrial_units_total",),
        ("industrial_rejected_total", "SLA"),
        ("scheduler_cancel_total", "client"),
        ("scheduler_cancel_total", "provider"),
        ("matches_total", "true"),
        ("matches_total", "false"),
        ("settle_applied_total",),
        ("settle_failed_total", "insufficient_funds"),
        ("settle_failed_total", "overflow"),
        ("receipt_corrupt_total",),
    )
)


def entry_keys(txn: Txn) -> list[bytes]:
    return [key for key, _ in txn.scan(EVENTS)]


def drop_an_entry(txn: Txn) -> None:
    txn.delete(EVENTS, entry_keys(txn)[2])


def drop_the_last_entry(txn: Txn) -> None:
    txn.delete(EVENTS, entry_keys(txn)[-1])


def drop_an_event(txn: Txn) -> None:
    """Cut the last event off an entry that has several."""
    for key in entry_keys(txn)[:-1]:
        entry: LogEntry = txn.must_read(EVENTS, key)
        if len(entry.events) > 1:
            edit(txn, EVENTS, key, events=entry.events[:-1])
            return


def seq_behind_the_gap(txn: Txn) -> str:
    return str(int.from_bytes(entry_keys(txn)[3], "big"))


def seq_behind_a_cut(txn: Txn) -> str:
    keys = entry_keys(txn)
    cut = next(i for i, key in enumerate(keys) if len(txn.must_read(EVENTS, key).events) > 1)
    return str(int.from_bytes(keys[cut + 1], "big"))


LOG = (
    Case("no gaps", "events", seq_behind_the_gap, drop_an_entry),
    Case("no gaps", "events", seq_behind_a_cut, drop_an_event),
    Case("no gaps", "events", "*", drop_the_last_entry),
    Case(
        "every job has its last event",
        "events",
        "run",
        lambda txn: edit(txn, JOBS, b"run", event_seq=1),
    ),
    Case(
        "every job has its last event",
        "events",
        "run",
        lambda txn: edit(txn, JOBS, b"run", event_seq=10**6),
    ),
)

CASES = (*COUNTS, *LOG)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    others = {RECORDS_DECODE, LOG_IS_THE_TEXT, NOTHING_HIDDEN}
    assert {case.law for case in CASES} | others == laws_in(audit)


@pytest.mark.parametrize(("room", "module"), LAWS)
def test_laws_of_a_room_are_walked_and_have_their_cases(room: str, module: str) -> None:
    laws: tuple[Law, ...] = import_module(f"compute_market.{room}.{module}").LAWS
    assert laws
    assert set(audit.LAWS) >= set(laws)
    cases = import_module(f"tests.{room}.test_{module}")
    assert {case.law for case in cases.CASES}


def test_every_law_is_that_of_a_room_or_spans_them() -> None:
    modules = {f"compute_market.{room}.{module}" for room, module in LAWS}
    assert {law.check.__module__ for law in audit.LAWS} == modules | {"compute_market.audit"}


# Damage that no single law is about.


def by_name(table: Table[Any]) -> str:
    return table.name


@pytest.mark.parametrize("table", [t for t in RECORD_TABLES if t is not RECEIPTS], ids=by_name)
def test_check_names_a_record_that_does_not_decode(busy: Market, table: Table[Any]) -> None:
    entry = busy.view(lambda txn: txn.first(table))
    assert entry is not None
    violations = found(busy, lambda txn: put_payload(txn, table, entry[0], DAMAGED))
    assert (table.name, repr(entry[0]), RECORDS_DECODE) in {
        (v.table, v.key, v.law) for v in violations
    }


# What a busy market has nothing of: receipts that were found damaged.
EMPTY = {"quarantine"}


@pytest.mark.parametrize("table", [t for t in TABLES if t is not RECEIPTS], ids=by_name)
def test_check_names_a_flipped_bit_of_any_table_and_goes_on(
    busy: Market, table: Table[Any]
) -> None:
    entries = busy.view(lambda txn: list(stored_entries(txn, table)))
    assert bool(entries) == (table.name not in EMPTY)
    for key, value in entries if table is META else entries[:1]:
        flipped = value[:-1] + bytes([value[-1] ^ 1])

        def damage(txn: Txn, key: bytes = key, flipped: bytes = flipped) -> None:
            put_raw(txn, table, key, flipped)
            # Another law, of another table: it must still be looked at.
            if table is not REPUTATION and table is not SCORES_RECENT:
                score = txn.must_read(REPUTATION, b"prov")
                txn.delete(SCORES_RECENT, recent_key("prov", score))

        named = {(v.table, v.key, v.law) for v in found(busy, damage)}
        assert (table.name, repr(key), RECORDS_DECODE) in named
        if table is not REPUTATION and table is not SCORES_RECENT:
            assert ("scores_recent", "prov", "every score is found by its last change") in named


@pytest.mark.parametrize(
    "series",
    [
        ("industrial_rejected_total", "SLA"),
        ("industrial_units_total",),
        ("matches_total", "false"),
        ("receipt_corrupt_total",),
        ("scheduler_cancel_total", "provider"),
        ("settle_applied_total",),
        ("slashing_burn_ct_total",),
    ],
    ids=" ".join,
)
def test_check_finds_a_count_of_what_never_happened(
    market: Market, series: tuple[str, ...]
) -> None:
    assert {v.key for v in found(market, lambda txn: miscount(txn, series))} == {" ".join(series)}


def test_check_goes_on_behind_a_damaged_table(busy: Market) -> None:
    def damage(txn: Txn) -> None:
        put_payload(txn, POSTINGS, pack_u64(1), DAMAGED)
        edit(txn, REPUTATION, b"other", barred=True)

    laws = {violation.law for violation in found(busy, damage)}
    assert laws >= {RECORDS_DECODE, "below zero is bad standing"}


@pytest.mark.parametrize("extra", [b"", b"more\n"])
def test_log_violations_names_the_log(busy: Market, extra: bytes) -> None:
    log = b"older client\nstopped client\ndropped provider\n"
    assert busy.view(lambda txn: list(audit.log_violations(txn, log))) == []
    damaged = log.replace(b"s", b"z") if not extra else log + extra
    (violation,) = busy.view(lambda txn: list(audit.log_violations(txn, damaged)))
    assert (violation.table, violation.law) == ("cancellations.log", LOG_IS_THE_TEXT)


def test_check_of_a_sound_market_finds_nothing(busy: Market) -> None:
    assert found(busy, lambda txn: None) == []


def test_check_of_an_empty_market_finds_nothing(market: Market) -> None:
    assert market.violations() == []


def test_check_of_a_trimmed_log_finds_nothing(busy: Market) -> None:
    for key in busy.view(entry_keys):

        def trim(txn: Txn, last: bytes = key) -> None:
            for each in entry_keys(txn):
                if each <= last:
                    txn.delete(EVENTS, each)

        assert found(busy, trim) == []


def test_check_changes_nothing(busy: Market) -> None:
    def contents(txn: Txn) -> dict[str, list[tuple[bytes, bytes]]]:
        return {table.name: list(stored_entries(txn, table)) for table in TABLES}

    def unchanged(txn: Txn) -> bool:
        before = contents(txn)
        list(audit.check(txn))
        return contents(txn) == before and txn.writes == 0

    assert rolled_back(busy, unchanged)


def test_summary_counts_receipts_and_violations(busy: Market) -> None:
    assert busy.view(lambda txn: audit.summary(txn, [])) == {
        "receipts": 6,
        "invalid": 0,
        "violations": [],
    }
    violation = Violation("jobs", "run", "law", "detail")
    assert busy.view(lambda txn: audit.summary(txn, [violation])) == {
        "receipts": 6,
        "invalid": 1,
        "violations": [{"table": "jobs", "key": "run", "law": "law", "detail": "detail"}],
    }
