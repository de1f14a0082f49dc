"""The audit: every law, broken by hand, is named with its table and key."""

import ast
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compute_market import audit
from compute_market.jobs import cancellations, jobs
from compute_market.offers import book, offers
from compute_market.records import replace
from compute_market.settlement import ledger, receipts, settlement
from compute_market.store.schema import TABLES, pack_u64
from compute_market.store.store import Txn
from tests.support.market import Market

DAMAGED = b"\xc1"  # the one byte that no MessagePack value begins with


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with jobs in every state and receipts of every status.

    Tests damage it inside a transaction that is rolled back, so they can share it.
    """
    market = Market(tmp_path_factory.mktemp("audit") / "market")
    market.configure(slots=3)
    market.update(lambda txn: ledger.tap(txn, "deposit", "buyer", {"CT": 9000, "IT": 9000}, "k"))
    market.deposit("prov", ct=900)
    market.deposit("other", ct=900)
    market.post(offer_id="main", fee_pct_ct=40, provider_bond=20, reputation=5)
    market.post("other", offer_id="small", units=1, price_per_unit=1)
    market.post("other", offer_id="gone", price_per_unit=9)
    market.update(lambda txn: offers.withdraw(txn, "gone"))
    # Paid nothing: admitted before the mode was real.
    market.submit("free", max_price_per_unit=1)
    market.prove("free")
    market.update(lambda txn: settlement.arm(txn, market.config, 0))
    # Ended: completed, cancelled, failed; paid at once.
    market.submit("done", lengths=(1, 1), consumer_bond=3)
    market.prove("done", 0, 1)
    market.submit("stopped", lengths=(1, 1))
    market.prove("stopped", 1)
    market.cancel("stopped")
    market.submit("dropped")
    market.cancel("dropped", by="provider")
    market.submit("late", deadline_secs=1)
    market.advance(2)
    # Live: active, queued in every line, pending.
    market.submit("run", lengths=(1, 1, 2_000_000))
    market.prove("run", 1)
    market.submit("run-low", priority="low")
    market.submit("owed", lengths=(1, 1))
    market.submit("next", priority="high")
    for priority in ("high", "normal", "low"):
        market.submit(f"wait-{priority}", priority=priority)
    market.submit("pend", wait=True, capability={"gpu": "none has it"})
    # Owed: the mode fell before the receipt could be paid.
    market.update(lambda txn: settlement.to_dry_run(txn, market.config, "test"))
    market.prove("owed", 0, 1)
    market.submit("refused", buyer="prov", lengths=(1,) * 2000)
    assert market.job("run").state == "active"
    assert market.violations() == []
    yield market
    market.store.close()


def found(market: Market, damage: Callable[[Txn], Any]) -> list[audit.Violation]:
    def action(txn: Txn) -> list[audit.Violation]:
        damage(txn)
        return list(audit.check(txn, market.config))

    return market.store.update(action, now_ms=market.now_ms, dry_run=True)


def edit(txn: Txn, table: str, key: bytes, **changes: Any) -> None:
    txn.write(table, key, replace(txn.read(table, key), **changes))


def put_balance(txn: Txn, account: str, amount: int) -> None:
    txn.put("accounts", f"CT\0{account}".encode(), struct.pack(">q", amount))


def add_balance(txn: Txn, account: str, amount: int) -> None:
    put_balance(txn, account, ledger.balance(txn, account, "CT") + amount)


def leaf_above(txn: Txn, offer_id: bytes) -> bytes:
    """The lowest node of the index above an offer."""
    *_, (leaf, _, _) = book.nodes_of(entry_of(txn, "book", offer_id))
    return leaf


def entry_of(txn: Txn, table: str, value: bytes) -> bytes:
    """The first key of a table with a value that ends so."""
    return next(key for key, stored in txn.scan(table) if stored.endswith(value))


def receipt_key(txn: Txn, job_id: str) -> bytes:
    return next(r.idempotency_key for r in txn.records("receipts") if r.job_id == job_id)


class Case(NamedTuple):
    """One way to break one law, and what the violation must name."""

    law: str
    table: str
    key: str | Callable[[Txn], str]
    damage: Callable[[Txn], Any]

    def __str__(self) -> str:
        return f"{self.table}: {self.law}"


def hex_key(job_id: str) -> Callable[[Txn], str]:
    return lambda txn: receipt_key(txn, job_id).hex()


def first_link(txn: Txn, **changes: Any) -> None:
    edit(txn, "receipt_chain", pack_u64(1), **changes)


def quarantine(txn: Txn) -> None:
    key = receipt_key(txn, "done")
    txn.put("receipts", key, DAMAGED)
    receipts.quarantine(txn, key)


def copy_receipt(txn: Txn) -> None:
    key = receipt_key(txn, "done")
    txn.put("receipts", key[::-1], txn.get("receipts", key) or b"")


def settle(job_id: str, **changes: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, "settlements", receipt_key(txn, job_id), **changes)


LEDGER = (
    Case("no gaps", "postings", "3", lambda txn: txn.delete("postings", pack_u64(2))),
    Case("conservation", "accounts", "CT", lambda txn: add_balance(txn, "wallet/buyer", 1)),
    Case(
        "balance equals postings",
        "accounts",
        "wallet/buyer CT",
        lambda txn: add_balance(txn, "wallet/buyer", 1),
    ),
    Case(
        "balance equals postings",
        "accounts",
        "wallet/nobody CT",
        lambda txn: put_balance(txn, "wallet/nobody", 1),
    ),
    Case(
        "balance equals postings",
        "accounts",
        "wallet/buyer CT",
        lambda txn: txn.delete("accounts", b"CT\0wallet/buyer"),
    ),
    Case(
        "not negative",
        "accounts",
        "wallet/buyer CT",
        lambda txn: put_balance(txn, "wallet/buyer", -1),
    ),
    Case(
        "every posting of a wallet is in its history",
        "wallet_postings",
        "*",
        lambda txn: txn.delete("wallet_postings", b"prov\0" + pack_u64(3)),
    ),
)

OFFERS = (
    Case(
        "every offer is in its place",
        "book",
        "main",
        lambda txn: txn.delete("book", entry_of(txn, "book", b"main")),
    ),
    Case(
        "every offer is in its place",
        "provider_prices",
        "main",
        lambda txn: txn.delete("provider_prices", entry_of(txn, "provider_prices", b"main")),
    ),
    Case(
        "nothing but offers is in the index",
        "book",
        "*",
        lambda txn: txn.put("book", entry_of(txn, "book", b"main") + b"x", b"main"),
    ),
    Case(
        "nothing but offers is in the index",
        "provider_prices",
        "*",
        lambda txn: txn.put("provider_prices", b"nobody\0", b"main"),
    ),
    Case(
        "units = reserved + proven + left",
        "offers",
        "main",
        lambda txn: edit(txn, "offers", b"main", units=999),
    ),
    Case(
        "units = reserved + proven + left",
        "offers",
        "small",
        lambda txn: edit(txn, "offers", b"small", units_left=-1, units_reserved=1),
    ),
    Case(
        "reserved and proven units are those of its jobs",
        "offers",
        "gone",
        lambda txn: edit(txn, "offers", b"gone", units_left=999, units_reserved=1),
    ),
    Case(
        "reserved and proven units are those of its jobs",
        "offers",
        "gone",
        lambda txn: edit(txn, "offers", b"gone", units_left=999, units_proven=1),
    ),
    Case(
        "exhausted means no units left",
        "offers",
        "small",
        lambda txn: edit(txn, "offers", b"small", state="open"),
    ),
    Case(
        "exhausted means no units left",
        "offers",
        "main",
        lambda txn: edit(txn, "offers", b"main", state="exhausted"),
    ),
    Case(
        "each node knows the least below it",
        "heads",
        "main",
        lambda txn: txn.put("heads", leaf_above(txn, b"main"), bytes(20)),
    ),
    Case(
        "no node without offers below it",
        "heads",
        "*",
        lambda txn: txn.put("heads", b"x" * 40, b"main"),
    ),
    Case(
        "every score is ranked",
        "standing",
        "other",
        lambda txn: edit(txn, "reputation", b"other", score=77),
    ),
    Case("one rank per score", "standing", "*", lambda txn: txn.put("standing", b"\0\0nobody")),
)

JOBS = (
    *(
        Case(
            "escrow and bonds are what the job's state demands",
            "accounts",
            f"{account} CT",
            lambda txn, account=account: add_balance(txn, account, 1),
        )
        for account in (
            "escrow/run",
            "bond/run/buyer",
            "bond/run/provider",
            "escrow/wait-low",
            "escrow/owed",
            "bond/owed/buyer",
            "escrow/done",
            "bond/late/provider",
            "escrow/free",
            "escrow/pend",
        )
    ),
    Case(
        "escrow and bonds belong to a job",
        "accounts",
        "escrow/nobody CT",
        lambda txn: put_balance(txn, "escrow/nobody", 1),
    ),
    *(
        Case(
            "slices, units, proven slices and proven units are those of its slices",
            "jobs",
            "run",
            damage,
        )
        for damage in (
            lambda txn: edit(txn, "jobs", b"run", slices=2),
            lambda txn: edit(txn, "jobs", b"run", units=5),
            lambda txn: edit(txn, "jobs", b"run", slices_proven=0),
            lambda txn: edit(txn, "jobs", b"run", units_proven=2),
            lambda txn: txn.delete("slices", b"run\0" + pack_u64(0)),
            lambda txn: edit(txn, "slices", b"run\0" + pack_u64(0), proven_ms=1),
        )
    ),
    Case(
        "completed means all slices proven",
        "jobs",
        "run",
        lambda txn: edit(txn, "jobs", b"run", state="completed"),
    ),
    Case(
        "completed means all slices proven",
        "jobs",
        "done",
        lambda txn: edit(txn, "jobs", b"done", state="active"),
    ),
)

# Where live jobs stand: table → a job in it and its key there.
LINES: dict[str, tuple[str, Callable[[Txn], bytes]]] = {
    "deadlines": ("run", lambda txn: _deadline_key(txn, "run")),
    "pending": ("pend", lambda txn: entry_of(txn, "pending", b"pend")),
    "queue_high": ("wait-high", lambda txn: entry_of(txn, "queue_high", b"wait-high")),
    "queue_normal": ("wait-normal", lambda txn: entry_of(txn, "queue_normal", b"wait-normal")),
    "queue_low": ("wait-low", lambda txn: entry_of(txn, "queue_low", b"wait-low")),
    "active": ("run", lambda txn: b"run"),
    "active_low": ("run-low", lambda txn: b"run-low"),
}


def _deadline_key(txn: Txn, job_id: str) -> bytes:
    return pack_u64(txn.read("jobs", job_id.encode()).deadline) + job_id.encode()


LINE_CASES = (
    *(
        Case(
            "every live job is in its line",
            table,
            job_id,
            lambda txn, table=table, key=key: txn.delete(table, key(txn)),
        )
        for table, (job_id, key) in LINES.items()
    ),
    *(
        Case(
            "nothing but live jobs is in a line",
            table,
            "*",
            lambda txn, table=table: txn.put(table, b"\xff" * 9, b"\0" * 8 + b"done"),
        )
        for table in LINES
    ),
)

RECEIPTS = (
    Case("no gaps", "receipt_chain", "2", lambda txn: txn.delete("receipt_chain", pack_u64(1))),
    Case(
        "receipts decode",
        "receipts",
        hex_key("done"),
        lambda txn: txn.put("receipts", receipt_key(txn, "done"), DAMAGED),
    ),
    Case("receipts decode", "receipts", hex_key("done"), quarantine),
    Case(
        "no link without a receipt",
        "receipts",
        hex_key("done"),
        lambda txn: txn.delete("receipts", receipt_key(txn, "done")),
    ),
    Case(
        "the chain is unbroken", "receipt_chain", "1", lambda txn: first_link(txn, digest=bytes(32))
    ),
    Case(
        "the chain is unbroken",
        "receipt_chain",
        "2",
        lambda txn: edit(txn, "receipts", receipt_key(txn, "done"), issued_at=1),
    ),
    Case("every receipt is on the chain", "receipts", "*", copy_receipt),
    *(
        Case(
            "the key is that of its fields",
            "receipts",
            hex_key("done"),
            lambda txn, change=change: edit(txn, "receipts", receipt_key(txn, "done"), **change),
        )
        for change in ({"units": 9}, {"buyer": "x"}, {"version": 2}, {"idempotency_key": bytes(32)})
    ),
    Case(
        "every receipt is settled",
        "settlements",
        hex_key("done"),
        lambda txn: txn.delete("settlements", receipt_key(txn, "done")),
    ),
    *(
        Case("the amounts are those of its receipt", "settlements", hex_key(job_id), damage)
        for job_id, damage in (
            ("done", settle("done", ct=5)),
            ("free", settle("free", it=5)),
            ("owed", settle("owed", ct=5)),
        )
    ),
    *(
        Case(
            "the status fits the receipt",
            "settlements",
            hex_key(job_id),
            settle(job_id, status=to),
        )
        for job_id, to in (
            ("owed", "applied"),
            ("owed", "recorded"),
            ("done", "pending"),
            ("done", "recorded"),
            ("free", "applied"),
            ("free", "pending"),
        )
    ),
    Case(
        "the status fits the receipt",
        "settlements",
        hex_key("owed"),
        lambda txn: txn.delete(
            "unsettled", entry_of(txn, "unsettled", receipt_key(txn, "owed") + b"owed")
        ),
    ),
)


def miscount(*series: str) -> Callable[[Txn], None]:
    return lambda txn: txn.count("\0".join(series).encode())


COUNTERS = tuple(
    Case("counters equal what the tables say", "counters", " ".join(series), miscount(*series))
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
        ("receipt_corrupt_total",),
    )
)


def add_line(job_id: str) -> Callable[[Txn], None]:
    return lambda txn: cancellations.add(txn, job_id, "client")


CANCELLATIONS = (
    Case(
        "lines follow each other",
        "cancellations",
        "dropped",
        lambda txn: edit(txn, "cancellations", pack_u64(2), offset=1),
    ),
    Case(
        "the length is that of all lines",
        "cancellations",
        "*",
        lambda txn: txn.set_number("cancellations_length", 1),
    ),
    Case(
        "one line for each cancelled job",
        "cancellations",
        "dropped",
        lambda txn: txn.delete("cancellations", pack_u64(2)),
    ),
    Case("one line for each cancelled job", "cancellations", "done", add_line("done")),
    Case("one line for each cancelled job", "cancellations", "dropped", add_line("dropped")),
)

CASES = (*LEDGER, *OFFERS, *JOBS, *LINE_CASES, *RECEIPTS, *COUNTERS, *CANCELLATIONS)

# Laws with tests of their own.
RECORDS_DECODE = "records decode"
LOG_IS_THE_TEXT = "the log is the text of the table"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_check_names_the_broken_law(busy: Market, case: Case) -> None:
    key = case.key if isinstance(case.key, str) else busy.view(case.key)
    violations = found(busy, case.damage)
    assert (case.table, key, case.law) in {(v.table, v.key, v.law) for v in violations}
    for violation in violations:
        line = str(violation)
        assert "\n" not in line
        assert line.startswith(f"{violation.table} {violation.key}: {violation.law}: ")


@pytest.mark.parametrize("table", [t for t, kind in TABLES.items() if kind and t != "receipts"])
def test_check_names_a_record_that_does_not_decode(busy: Market, table: str) -> None:
    entry = busy.view(lambda txn: txn.first(table))
    assert entry is not None
    violations = found(busy, lambda txn: txn.put(table, entry[0], DAMAGED))
    assert (table, repr(entry[0]), RECORDS_DECODE) in {(v.table, v.key, v.law) for v in violations}


# Damage that no single law above is about.


def test_check_names_a_balance_that_does_not_decode(busy: Market) -> None:
    violations = found(busy, lambda txn: txn.put("accounts", b"CT\0wallet/buyer", b"x"))
    assert any(v.table == "accounts" and "wallet/buyer" in v.key for v in violations)


@pytest.mark.parametrize("line", ["pending", "queue_high", "queue_normal", "queue_low"])
def test_check_finds_an_entry_of_a_line_that_names_another_job(busy: Market, line: str) -> None:
    def damage(txn: Txn) -> None:
        key, value = txn.first(line) or (b"", b"")
        txn.put(line, key, value[:8] + b"done")

    assert {v.table for v in found(busy, damage)} == {line}


def test_check_finds_a_receipt_that_waits_twice(busy: Market) -> None:
    def damage(txn: Txn) -> None:
        (_, value) = txn.first("unsettled") or (b"", b"")
        txn.put("unsettled", pack_u64(99), value)

    assert {v.table for v in found(busy, damage)} == {"unsettled"}


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
    assert {v.key for v in found(market, miscount(*series))} == {" ".join(series)}


def test_check_goes_on_behind_a_damaged_table(busy: Market) -> None:
    def damage(txn: Txn) -> None:
        txn.put("postings", pack_u64(1), DAMAGED)
        txn.put("standing", b"\0\0nobody")

    laws = {violation.law for violation in found(busy, damage)}
    assert laws >= {RECORDS_DECODE, "one rank per score"}


@pytest.mark.parametrize("extra", [b"", b"more\n"])
def test_log_violations_names_the_log(busy: Market, extra: bytes) -> None:
    log = b"stopped client\ndropped provider\n"
    assert busy.view(lambda txn: list(audit.log_violations(txn, log))) == []
    damaged = log.replace(b"s", b"z") if not extra else log + extra
    (violation,) = busy.view(lambda txn: list(audit.log_violations(txn, damaged)))
    assert (violation.table, violation.law) == ("cancellations.log", LOG_IS_THE_TEXT)


def laws_in_the_source() -> set[str]:
    """The third argument of every Violation the module makes."""
    tree = ast.parse(Path(audit.__file__).read_text())
    return {
        ast.literal_eval(node.args[2])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Violation"
    }


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} | {RECORDS_DECODE, LOG_IS_THE_TEXT} == laws_in_the_source()


def test_every_line_of_jobs_has_a_case(busy: Market) -> None:
    tables = busy.view(
        lambda txn: {table for job in txn.records("jobs") for table, _ in jobs.lines_of(job)}
    )
    assert tables == set(LINES)


def test_check_of_a_sound_market_finds_nothing(busy: Market) -> None:
    assert found(busy, lambda txn: None) == []


def test_check_of_an_empty_market_finds_nothing(market: Market) -> None:
    assert market.violations() == []


def test_check_changes_nothing(busy: Market) -> None:
    def contents(txn: Txn) -> dict[str, list[tuple[bytes, bytes]]]:
        return {table: list(txn.scan(table)) for table in TABLES}

    def unchanged(txn: Txn) -> bool:
        before = contents(txn)
        list(audit.check(txn, busy.config))
        return contents(txn) == before and txn.writes == 0

    assert busy.store.update(unchanged, now_ms=busy.now_ms, dry_run=True)


def test_summary_counts_receipts_and_violations(busy: Market) -> None:
    assert busy.view(lambda txn: audit.summary(txn, [])) == {
        "receipts": 4,
        "invalid": 0,
        "violations": [],
    }
    violation = audit.Violation("jobs", "run", "law", "detail")
    assert busy.view(lambda txn: audit.summary(txn, [violation])) == {
        "receipts": 4,
        "invalid": 1,
        "violations": [{"table": "jobs", "key": "run", "law": "law", "detail": "detail"}],
    }
