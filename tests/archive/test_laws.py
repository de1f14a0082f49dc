"""The laws of archives: each one, broken by hand, is named by the audit."""

import pytest

from compute_market.archive import laws
from compute_market.archive_records import ArchivedReceipt
from compute_market.jobs import jobs
from compute_market.receipt_records import Receipt
from compute_market.records import Job
from compute_market.store.schema import (
    ARCHIVED_JOBS,
    ARCHIVED_RECEIPTS,
    ARCHIVES,
    JOBS,
    RECEIPTS,
)
from compute_market.store.txn import Txn
from tests.support.laws import (
    ARCHIVE_ID,
    Case,
    check_named,
    edit,
    laws_in,
    receipt_hex,
    receipt_key,
)
from tests.support.market import Market


def archived_receipt(txn: Txn) -> bytes:
    (key,) = (key for key, _ in txn.scan(ARCHIVED_RECEIPTS))
    return key


def keep_a_job(txn: Txn) -> None:
    job: Job = jobs.get(txn, "done")
    txn.write(JOBS, b"old", job)


def keep_a_receipt(txn: Txn) -> None:
    receipt: Receipt = txn.must_read(RECEIPTS, receipt_key(txn, "done"))
    txn.write(RECEIPTS, archived_receipt(txn), receipt)


def archive_twice(txn: Txn) -> None:
    left: ArchivedReceipt = txn.must_read(ARCHIVED_RECEIPTS, archived_receipt(txn))
    txn.write(ARCHIVED_RECEIPTS, receipt_key(txn, "done"), left)


_EITHER = "what is archived is not kept as well"
_NUMBERS = "archives have the jobs and receipts that were archived"
CASES = (
    Case(_EITHER, "archived_jobs", "old", keep_a_job),
    Case(_EITHER, "archived_receipts", lambda txn: archived_receipt(txn).hex(), keep_a_receipt),
    Case(_EITHER, "archived_receipts", receipt_hex("done"), archive_twice),
    Case(_NUMBERS, "archives", "*", lambda txn: edit(txn, ARCHIVES, ARCHIVE_ID, jobs=1)),
    Case(_NUMBERS, "archives", "*", lambda txn: txn.delete(ARCHIVED_JOBS, b"older")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)
