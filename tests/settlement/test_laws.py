"""The laws of money: each one, broken by hand, is named by the audit."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market.jobs import cancellations, jobs
from compute_market.settlement import laws, receipts
from compute_market.store.schema import (
    ACCOUNTS,
    JOBS,
    POSTINGS,
    RECEIPT_CHAIN,
    RECEIPTS,
    RECEIPTS_ARCHIVED,
    SETTLEMENTS,
    TAPS,
    UNSETTLED,
    WALLET_POSTINGS,
    pack_u64,
)
from compute_market.store.txn import Txn
from tests.support.laws import (
    DAMAGED,
    Case,
    check_named,
    edit,
    found,
    key_of,
    laws_in,
    posting_seq,
    receipt_hex,
    receipt_key,
    repost,
    set_sum,
)
from tests.support.market import Market
from tests.support.state import put_payload


def quarantine(txn: Txn) -> None:
    key = receipt_key(txn, "done")
    put_payload(txn, RECEIPTS, key, DAMAGED)
    receipts.quarantine_if_damaged(txn, key)


def copy_receipt(txn: Txn) -> None:
    key = receipt_key(txn, "done")
    txn.write(RECEIPTS, key[::-1], txn.must_read(RECEIPTS, key))


def drop_the_last_receipt(txn: Txn) -> None:
    seq = pack_u64(txn.number("receipt_seq"))
    txn.delete(RECEIPTS, txn.must_read(RECEIPT_CHAIN, seq).key)
    txn.delete(RECEIPT_CHAIN, seq)


def settle(of: str, **changes: Any) -> Callable[[Txn], None]:
    return lambda txn: edit(txn, SETTLEMENTS, receipt_key(txn, of), **changes)


LEDGER = (
    Case("no gaps", "postings", "5", lambda txn: txn.delete(POSTINGS, pack_u64(4))),
    Case("conservation", "accounts", "CT", lambda txn: txn.add(ACCOUNTS, b"CT\0wallet/buyer", 1)),
    *(
        Case("balance equals postings", "accounts", f"wallet/{owner} CT", damage)
        for owner, damage in (
            ("buyer", lambda txn: txn.add(ACCOUNTS, b"CT\0wallet/buyer", 1)),
            ("buyer", lambda txn: set_sum(txn, ACCOUNTS, b"CT\0wallet/buyer", 0)),
            ("nobody", lambda txn: txn.add(ACCOUNTS, b"CT\0wallet/nobody", 1)),
        )
    ),
    Case(
        "not negative",
        "accounts",
        "wallet/buyer CT",
        lambda txn: set_sum(txn, ACCOUNTS, b"CT\0wallet/buyer", -1),
    ),
    Case(
        "every posting of a wallet is in its history",
        "wallet_postings",
        "*",
        lambda txn: txn.delete(WALLET_POSTINGS, b"prov\0" + pack_u64(5)),
    ),
)

MOVED = "money moves as its event says, and back to where it came from"
MOVEMENTS = (
    *(
        Case(MOVED, "postings", posting_seq(event, ref), repost(event, ref, **changes))
        for event, ref, changes in (
            # A refund and a bond, paid to a stranger, to the other side, or for another job.
            ("escrow:refund", "dropped", {"credit": "wallet/stranger"}),
            ("escrow:refund", "stopped", {"credit": "wallet/prov"}),
            ("escrow:refund", "late", {"ref": "done"}),
            ("bond:release", "done", {"credit": "wallet/stranger"}),
            ("bond:release", "handed", {"credit": "wallet/other"}),
            ("escrow:lock", "run", {"debit": "supply"}),
            ("escrow:lock", "run", {"credit": "escrow/done"}),
            ("bond:lock", "run", {"credit": "escrow/run"}),
            ("settle", "done", {"debit": "escrow/run"}),
            ("settle", "done", {"credit": "burned"}),
            ("sla:slash", "late", {"credit": "wallet/prov"}),
            ("deposit", "k", {"debit": "wallet/prov"}),
            ("deposit", "k", {"event": "withdraw"}),
            ("settle", "done", {"event": "gift"}),
        )
    ),
    Case(
        "a key of a deposit or withdrawal is that of its owner",
        "postings",
        posting_seq("deposit", "k"),
        repost("deposit", "k", credit="wallet/prov"),
    ),
    Case(
        "a key of a deposit or withdrawal is that of its owner",
        "postings",
        posting_seq("deposit", "k"),
        lambda txn: txn.delete(TAPS, b"k"),
    ),
    *(
        Case("what a key moved is posted once", "taps", "k", damage)
        for damage in (
            repost("deposit", "k", amount=1),
            repost("deposit", "k", ref=""),
            lambda txn: edit(txn, TAPS, b"k", it=1),
        )
    ),
    *(
        Case("what was paid to a provider is what its receipts say", "settlements", ref, damage)
        for ref, damage in (
            ("done", repost("settle", "done", credit="wallet/stranger")),
            ("done", repost("settle", "done", amount=1)),
            ("stopped", repost("settle", "done", debit="escrow/stopped", ref="stopped")),
            ("owed", settle("owed", status="applied")),
        )
    ),
)

RECEIPT_CASES = (
    Case(
        "the chain goes on behind what was archived",
        "receipt_chain",
        "1",
        lambda txn: txn.set_number(RECEIPTS_ARCHIVED, 1),
    ),
    Case("no gaps", "receipt_chain", "2", lambda txn: txn.delete(RECEIPT_CHAIN, pack_u64(1))),
    Case("no gaps", "receipt_chain", "*", drop_the_last_receipt),
    Case(
        "receipts decode",
        "receipts",
        receipt_hex("done"),
        lambda txn: put_payload(txn, RECEIPTS, receipt_key(txn, "done"), DAMAGED),
    ),
    Case("receipts decode", "receipts", receipt_hex("done"), quarantine),
    Case(
        "no link without a receipt",
        "receipts",
        receipt_hex("done"),
        lambda txn: txn.delete(RECEIPTS, receipt_key(txn, "done")),
    ),
    Case(
        "the chain is unbroken",
        "receipt_chain",
        "1",
        lambda txn: edit(txn, RECEIPT_CHAIN, pack_u64(1), digest=bytes(32)),
    ),
    Case(
        "the chain is unbroken",
        "receipt_chain",
        "3",
        lambda txn: edit(txn, RECEIPTS, receipt_key(txn, "done"), issued_at=1),
    ),
    Case("every receipt is on the chain", "receipts", "*", copy_receipt),
    *(
        Case(
            "the key is that of its fields",
            "receipts",
            receipt_hex("done"),
            lambda txn, change=change: edit(txn, RECEIPTS, receipt_key(txn, "done"), **change),
        )
        for change in ({"units": 9}, {"buyer": "x"}, {"version": 2}, {"idempotency_key": bytes(32)})
    ),
    Case(
        "every receipt is settled",
        "settlements",
        receipt_hex("done"),
        lambda txn: txn.delete(SETTLEMENTS, receipt_key(txn, "done")),
    ),
    *(
        Case("the amounts are those of its receipt", "settlements", receipt_hex(job_id), damage)
        for job_id, damage in (
            ("done", settle("done", ct=5)),
            ("free", settle("free", it=5)),
            ("owed", settle("owed", ct=5)),
        )
    ),
    *(
        Case("the money is that of its receipt", "settlements", receipt_hex("owed"), damage)
        for damage in (
            settle("owed", provider="other"),
            settle("owed", buyer="other"),
            settle("owed", job_id="done"),
        )
    ),
    *(
        Case("the status fits the receipt", "settlements", receipt_hex(job_id), damage)
        for job_id, damage in (
            ("owed", settle("owed", status="applied")),
            ("owed", settle("owed", status="recorded")),
            ("done", settle("done", status="pending")),
            ("done", settle("done", status="recorded")),
            ("free", settle("free", status="applied")),
            ("free", settle("free", status="pending")),
            (
                "owed",
                lambda txn: txn.delete(UNSETTLED, key_of(txn, UNSETTLED, receipt_key(txn, "owed"))),
            ),
        )
    ),
    Case(
        "the status fits the receipt",
        "unsettled",
        "*",
        lambda txn: txn.put(UNSETTLED, pack_u64(99), receipt_key(txn, "owed")),
    ),
)

CASES = (*LEDGER, *MOVEMENTS, *RECEIPT_CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)


def test_audit_names_nothing_but_a_receipt_that_waits_twice(busy: Market) -> None:
    def damage(txn: Txn) -> None:
        txn.put(UNSETTLED, pack_u64(99), receipt_key(txn, "owed"))

    assert {v.table for v in found(busy, damage)} == {"unsettled"}


def test_audit_names_the_stranger_that_a_flipped_buyer_would_have_paid(busy: Market) -> None:
    """Everybody's balances add up: what is wrong is where the money went."""

    def damage(txn: Txn) -> None:
        edit(txn, JOBS, b"run", buyer="stranger")
        jobs.close(txn, jobs.get(txn, "run"), "cancelled", "client", "cancelled_by_client")
        cancellations.add(txn, "run", "client")

    named = {(v.table, v.law) for v in found(busy, damage)}
    assert ("postings", MOVED) in named
    assert ("postings", "money is locked from the buyer and the providers of its job") in named
