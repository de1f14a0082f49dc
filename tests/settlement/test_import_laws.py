"""The laws of other markets' receipts: each one, broken by hand, is named by the audit."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market.receipt_records import Receipt
from compute_market.records import replace
from compute_market.settlement import import_laws
from compute_market.settlement.import_checks import key_of
from compute_market.store.schema import (
    IMPORT_FAILURES,
    IMPORT_KEYS,
    IMPORTS,
    ORIGINS,
    POSTINGS,
    pack_u64,
)
from compute_market.store.txn import Txn
from tests.support.importing import OTHERS, THEIRS
from tests.support.laws import Case, check_named, edit, found, laws_in, repost
from tests.support.market import Market
from tests.support.receipt_file import receipt


def change(seq: int, /, market: bytes = THEIRS, **fields: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, IMPORTS, key_of(market, seq), **fields)


def change_receipt(seq: int, /, **fields: Any) -> Callable[[Txn], None]:
    """Change the receipt of an import, but not its key."""

    def damage(txn: Txn) -> None:
        key = key_of(THEIRS, seq)
        before: Receipt = txn.must_read(IMPORTS, key).receipt
        edit(txn, IMPORTS, key, receipt=replace(before, **fields))

    return damage


def remove(seq: int) -> Callable[[Txn], Any]:
    return lambda txn: txn.delete(IMPORTS, key_of(THEIRS, seq))


def change_origin(**fields: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, ORIGINS, THEIRS, **fields)


def name(seq: int, market: bytes = THEIRS) -> str:
    return f"{market.hex()} {seq}"


UNBROKEN = "the chain of another market is unbroken"
ARCHIVED = "what could not be paid is archived"
STANDS = "a key stands for one import"
PAID = "an import is paid once when it is applied"
FIRST = receipt(1, buyer="far").idempotency_key

CASES = (
    Case(UNBROKEN, "imports", name(2), change(2, link=bytes(32))),
    Case(UNBROKEN, "imports", name(2), change_receipt(2, issued_at=1)),
    Case(UNBROKEN, "imports", name(3), remove(2)),
    Case(UNBROKEN, "imports", name(1), change_origin(from_link=bytes(31) + b"\1")),
    Case(UNBROKEN, "imports", name(1), change_origin(from_seq=2)),
    Case(UNBROKEN, "origins", THEIRS.hex(), remove(4)),
    Case(UNBROKEN, "origins", THEIRS.hex(), change_origin(to_seq=3)),
    Case(UNBROKEN, "origins", THEIRS.hex(), change_origin(to_link=bytes(32))),
    Case(
        "every import is that of a known market",
        "imports",
        "*",
        lambda txn: txn.delete(ORIGINS, THEIRS),
    ),
    *(
        Case("the key is that of its fields", "imports", name(2), change_receipt(2, **fields))
        for fields in ({"units": 9}, {"buyer": "x"}, {"version": 2}, {"idempotency_key": FIRST})
    ),
    Case(
        "nobody pays himself",
        "imports",
        name(2),
        change(2, receipt=receipt(2, buyer="far", provider="far")),
    ),
    Case(STANDS, "imports", name(1), lambda txn: txn.delete(IMPORT_KEYS, FIRST)),
    Case(STANDS, "imports", name(1), lambda txn: txn.put(IMPORT_KEYS, FIRST, key_of(THEIRS, 2))),
    Case(STANDS, "imports", name(1, OTHERS), change(1, OTHERS, status="recorded")),
    Case(STANDS, "import_keys", "*", lambda txn: txn.put(IMPORT_KEYS, bytes(32), FIRST)),
    *(
        Case(PAID, "imports", job_id, damage)
        for job_id, damage in (
            ("job-1", change(1, status="recorded")),
            ("job-4", change(4, status="applied")),
            ("job-1", repost("import:settle", "job-1", amount=1)),
            ("job-1", repost("import:settle", "job-1", debit="wallet/stranger")),
            ("job-1", repost("import:settle", "job-1", credit="wallet/stranger")),
            ("job-2", repost("import:settle", "job-1", ref="job-2")),
            ("job-1", repost("import:settle", "job-1", token="IT")),
            ("job-1", lambda txn: twice(txn, "job-1")),
        )
    ),
    Case("no gaps", "import_failures", "*", lambda txn: txn.delete(IMPORT_FAILURES, pack_u64(1))),
    Case("no gaps", "import_failures", "2", lambda txn: move_failure(txn)),
    Case(
        ARCHIVED,
        "import_failures",
        "1",
        lambda txn: edit(txn, IMPORT_FAILURES, pack_u64(1), seq=9),
    ),
    Case(ARCHIVED, "imports", name(4), change(4, status="failed", reason="overflow")),
    Case(ARCHIVED, "imports", name(3), change(3, reason=None)),
    Case(ARCHIVED, "imports", name(1), change(1, reason="overflow")),
)


def twice(txn: Txn, ref: str) -> None:
    posting = next(p for p in txn.records(POSTINGS) if (p.event, p.ref) == ("import:settle", ref))
    seq = txn.next_number("posting_seq")
    txn.write(POSTINGS, pack_u64(seq), replace(posting, seq=seq))


def move_failure(txn: Txn) -> None:
    failure = txn.must_read(IMPORT_FAILURES, pack_u64(1))
    txn.delete(IMPORT_FAILURES, pack_u64(1))
    txn.write(IMPORT_FAILURES, pack_u64(2), failure)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(import_laws)


def test_audit_names_a_payment_to_what_is_no_wallet(busy: Market) -> None:
    violations = found(busy, repost("import:settle", "job-1", credit="burned"))
    assert "money moves as its event says, and back to where it came from" in {
        v.law for v in violations
    }
