"""The laws of the money of jobs: each one, broken by hand, is named by the audit."""

from collections.abc import Callable

import pytest

from compute_market.jobs import jobs, money_laws
from compute_market.records import Posting, replace
from compute_market.settlement import ledger, receipts, settlement
from compute_market.store.schema import (
    ACCOUNTS,
    HOLDINGS,
    JOBS,
    POSTINGS,
    RECEIPT_CHAIN,
    SETTLEMENTS,
    pack_u64,
)
from compute_market.store.txn import Txn
from tests.support.laws import (
    Case,
    check_named,
    edit,
    laws_in,
    posting_seq,
    receipt_hex,
    receipt_key,
    repost,
)
from tests.support.market import Market


def drop_a_link(txn: Txn) -> None:
    txn.delete(RECEIPT_CHAIN, pack_u64(txn.number("receipt_seq")))


MONEY = (
    *(
        Case(
            "escrow and bonds are what the job's state demands",
            "accounts",
            f"{account} CT",
            lambda txn, account=account: txn.add(ACCOUNTS, f"CT\0{account}".encode(), 1),
        )
        for account in (
            "escrow/run",
            "bond/run/buyer",
            "bond/run/provider",
            "escrow/handed",
            "bond/handed/provider",
            "escrow/wait-low",
            "escrow/owed",
            "bond/owed/buyer",
            "escrow/done",
            "escrow/moved",
            "bond/late/provider",
            "escrow/free",
            "escrow/pend",
        )
    ),
    Case(
        "escrow and bonds belong to a job",
        "accounts",
        "escrow/nobody CT",
        lambda txn: txn.add(ACCOUNTS, b"CT\0escrow/nobody", 1),
    ),
    *(
        Case(
            "what is held of an owner is the sum over its jobs and bids",
            "holdings",
            f"{owner} {what}",
            lambda txn, owner=owner, what=what: txn.add(HOLDINGS, f"{owner}\0{what}".encode(), 1),
        )
        for owner, what in (
            ("buyer", "escrow_ct"),
            ("buyer", "escrow_it"),
            ("buyer", "bonds_ct"),
            ("prov", "bonds_ct"),
            ("nobody", "escrow_ct"),
        )
    ),
    Case(
        "the amounts are those of its job",
        "settlements",
        receipt_hex("done"),
        lambda txn: edit(txn, SETTLEMENTS, receipt_key(txn, "done"), ct=5, it=5),
    ),
    Case(
        "the amounts are those of its job",
        "settlements",
        receipt_hex("done"),
        lambda txn: txn.delete(SETTLEMENTS, receipt_key(txn, "done")),
    ),
)

PARTY = "money is locked from the buyer and the providers of its job"
ONCE = "a receipt's units are what its provider proved of the job, once"


def issue_again(txn: Txn, job_id: str, units: int) -> None:
    """One more receipt, settled like any other, of what a job never proved."""
    job = jobs.get(txn, job_id)
    placement = replace(job.placed, units_proven=units, funded=False)
    receipt, _ = receipts.issue(txn, job, placement)
    settlement.settle(txn, job, placement, receipt)


def hex_of(job_id: str, units: int) -> Callable[[Txn], str]:
    def key(txn: Txn) -> str:
        job = jobs.get(txn, job_id)
        price = job.placed.price_per_unit
        return receipts.key_of(job_id, job.buyer, job.placed.provider, price, units).hex()

    return key


MOVEMENTS = (
    Case(
        "what is locked, paid or burned is that of a job",
        "postings",
        posting_seq("escrow:lock", "run"),
        repost("escrow:lock", "run", ref="nobody"),
    ),
    *(
        Case(PARTY, "postings", posting_seq(event, ref), damage)
        for event, ref, damage in (
            ("escrow:lock", "run", repost("escrow:lock", "run", debit="wallet/stranger")),
            ("bond:lock", "run", repost("bond:lock", "run", debit="wallet/stranger")),
            ("escrow:lock", "run", lambda txn: edit(txn, JOBS, b"run", buyer="stranger")),
        )
    ),
    *(
        Case("what was paid and refunded is what its postings say", "jobs", job_id, damage)
        for job_id, damage in (
            ("done", lambda txn: edit(txn, JOBS, b"done", paid_ct=0)),
            ("done", lambda txn: edit(txn, JOBS, b"done", paid_it=0)),
            ("dropped", lambda txn: edit(txn, JOBS, b"dropped", refunded_ct=0)),
            ("late", lambda txn: edit(txn, JOBS, b"late", refunded_it=0)),
            ("free", lambda txn: edit(txn, JOBS, b"free", paid_ct=1)),
            ("done", repost("settle", "done", amount=1)),
        )
    ),
    *(
        Case(ONCE, "receipts", hex_of(job_id, units), damage)
        for job_id, units, damage in (
            ("stopped", 2, lambda txn: issue_again(txn, "stopped", 2)),
            ("stopped", 0, lambda txn: issue_again(txn, "stopped", 0)),
            ("run", 1, lambda txn: issue_again(txn, "run", 1)),
        )
    ),
    Case(ONCE, "receipt_chain", "*", drop_a_link),
)


def burned(txn: Txn) -> Posting:
    """The posting of the one bond that was burned."""
    return next(each for each in txn.records(POSTINGS) if each.credit == ledger.BURNED)


BURNED = (
    Case(
        "a bond is burned for the fault its job ended with",
        "postings",
        lambda txn: str(burned(txn).seq),
        lambda txn: edit(txn, POSTINGS, pack_u64(burned(txn).seq), event="cancel:slash"),
    ),
    Case(
        "a bond is burned for the fault its job ended with",
        "postings",
        lambda txn: str(burned(txn).seq),
        lambda txn: edit(txn, JOBS, b"late", cause="slice_unreadable"),
    ),
    Case(
        "a bond is burned for the fault its job ended with",
        "jobs",
        "dropped",
        lambda txn: edit(txn, JOBS, b"dropped", cause="slice_changed"),
    ),
)

CASES = (*MONEY, *MOVEMENTS, *BURNED)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(money_laws)
