"""Settlement: who is paid what, when, exactly once."""

import pytest

from compute_market.receipt_records import Settlement
from compute_market.settlement import ledger, modes, settlement
from compute_market.store.schema import POSTINGS, RECEIPTS
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.modes import arm, go_real, to_dry_run
from tests.support.state import command


def statuses(market: Market) -> dict[str, str]:
    """Job → status of its receipt, in order of issue."""

    def read(txn: Txn) -> dict[str, str]:
        found: dict[str, str] = {}
        for receipt in sorted(txn.records(RECEIPTS), key=lambda each: each.seq):
            settled = settlement.of(txn, receipt.idempotency_key)
            found[receipt.job_id] = settled.status if settled else "missing"
        return found

    return market.view(read)


def settle_postings(market: Market) -> list[tuple[str, str, int]]:
    """(job, token, amount) of every payment of a receipt, oldest first."""
    return [
        (posting.ref, posting.token, posting.amount)
        for posting in market.view(lambda txn: list(txn.records(POSTINGS)))
        if posting.event == "settle"
    ]


def ct_balances(market: Market) -> dict[str, int]:
    """CT of every account, by name."""
    return market.view(lambda txn: ledger.balances(txn, "CT"))


@pytest.mark.parametrize("armed", [False, True])
def test_complete_without_real_moves_no_money(market: Market, armed: bool) -> None:
    market.deposit("buyer", ct=100, it=100)
    market.deposit("prov", ct=100)
    if armed:
        arm(market, 1000)
    before = ct_balances(market)
    market.post(fee_pct_ct=50)
    market.submit()
    assert ct_balances(market) == before
    market.prove()
    assert ct_balances(market) == before
    assert statuses(market) == {"job": "recorded"}
    assert market.counter("matches_total", "true") == 1
    assert market.counter("settle_applied_total") == 0


def test_complete_without_real_needs_no_money(market: Market) -> None:
    market.post()
    market.submit()
    market.prove()
    assert ct_balances(market) == {}
    assert market.job().state == "completed"


@pytest.mark.parametrize("ends", ["completed", "cancelled"])
def test_job_admitted_unfunded_never_moves_money_later(market: Market, ends: str) -> None:
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=100)
    market.post()
    market.submit(lengths=(1, 1))
    go_real(market)
    before = ct_balances(market)
    market.prove("job", 0)
    if ends == "completed":
        market.prove("job", 1)
    else:
        market.cancel(by="provider")
    command(market)
    assert market.job().state == ends
    assert ct_balances(market) == before
    assert statuses(market) == {"job": "recorded"}
    assert market.counter("settle_applied_total") == 0
    assert market.view(lambda txn: next(txn.records(RECEIPTS))).dry_run


# Real: paid at once.


def test_complete_in_real_pays_at_once(real: Market) -> None:
    real.post(price_per_unit=10, fee_pct_ct=37)
    real.submit()
    assert real.balance("escrow/job", "CT") == 4
    assert real.balance("escrow/job", "IT") == 6
    real.prove()
    assert (real.balance("wallet/prov"), real.balance("wallet/prov", "IT")) == (1004, 6)
    assert (real.balance("wallet/buyer"), real.balance("wallet/buyer", "IT")) == (9996, 9994)
    assert statuses(real) == {"job": "applied"}
    assert real.counter("settle_applied_total") == 1
    assert real.counter("matches_total", "false") == 1
    assert real.counter("compute_market_fee_split", "ct", "paid") == 4
    assert real.counter("compute_market_fee_split", "it", "paid") == 6
    assert (real.job().paid_ct, real.job().paid_it) == (4, 6)


def test_settlement_remembers_when_it_was_applied(real: Market) -> None:
    real.post()
    real.submit()
    real.advance(5)
    real.prove()
    (receipt,) = real.view(lambda txn: list(txn.records(RECEIPTS)))
    settled = real.view(lambda txn: settlement.of(txn, receipt.idempotency_key))
    assert settled == Settlement("applied", 5, 0, real.now_ms, "job", "buyer", "prov")


# Falling to dry_run with funded jobs, and coming back.


def test_receipt_of_a_funded_job_waits_while_the_mode_is_dry_run(real: Market) -> None:
    real.post()
    real.submit(lengths=(1, 1, 1), consumer_bond=7)
    to_dry_run(real)
    real.prove("job", 0, 1)
    real.cancel()
    # What is owed stays in escrow; the rest and both bonds go back at once.
    assert statuses(real) == {"job": "pending"}
    assert ct_balances(real) == {
        "supply": -11_000,
        "wallet/buyer": 9_990,
        "wallet/prov": 1_000,
        "escrow/job": 10,
    }
    assert real.counter("settle_applied_total") == 0
    assert real.counter("matches_total", "false") == 1
    assert (real.job().paid_ct, real.job().refunded_ct) == (0, 5)


def test_receipt_that_waits_is_paid_once_when_real_returns(real: Market) -> None:
    real.post()
    real.submit(lengths=(1, 1))
    to_dry_run(real)
    real.prove("job", 0, 1)
    arm(real, 10)
    real.advance(9.999)
    command(real)
    assert statuses(real) == {"job": "pending"}
    real.advance(0.001)
    command(real)
    for _ in range(3):  # Whatever is replayed or restarted, it is paid once.
        command(real)
        real.reopen()
        to_dry_run(real)
        go_real(real)
    assert statuses(real) == {"job": "applied"}
    assert settle_postings(real) == [("job", "CT", 10)]
    assert real.counter("settle_applied_total") == 1
    assert real.job().paid_ct == 10
    assert ct_balances(real) == {"supply": -11_000, "wallet/buyer": 9_990, "wallet/prov": 1_010}


def test_receipts_that_wait_are_paid_in_order_of_issue(real: Market) -> None:
    real.post(fee_pct_ct=40)
    names = ["c", "a", "d", "b"]
    for name in sorted(names):
        real.submit(name)
    to_dry_run(real)
    for name in names:
        real.prove(name)
    assert real.view(modes.document)["pending"] == 4
    go_real(real)
    assert settle_postings(real) == [
        (name, token, amount) for name in names for token, amount in (("CT", 2), ("IT", 3))
    ]
    assert real.view(settlement.waiting) == []


def test_receipts_that_wait_are_paid_before_the_commands_own_effects(real: Market) -> None:
    real.deposit("anna", ct=1)
    real.post(provider_bond=1000)
    real.submit("first", lengths=(1, 1))
    to_dry_run(real)
    real.prove("first", 0, 1)
    real.post("anna", price_per_unit=1)
    arm(real)
    # The provider of the first job is a buyer too, and needs what it earned.
    real.submit("second", buyer="prov", lengths=(1,) * 10, consumer_bond=1000)
    assert real.job("second").placed.provider == "anna"
    assert real.balance("wallet/prov") == 0


def test_cancel_refunds_true_money_in_every_mode(real: Market) -> None:
    before = ct_balances(real)
    real.post()
    real.submit()
    assert ct_balances(real) != before
    to_dry_run(real)
    real.cancel()
    assert ct_balances(real) == before
    assert settle_postings(real) == []


def test_missed_deadline_burns_a_true_bond_in_every_mode(real: Market) -> None:
    real.post(provider_bond=20)
    real.submit(deadline_secs=70)
    to_dry_run(real)
    real.advance(71)
    command(real)
    assert ct_balances(real) == {
        "supply": -11_000,
        "wallet/buyer": 10_000,
        "wallet/prov": 980,
        "burned": 20,
    }


def test_job_matched_in_dry_run_is_not_funded(real: Market) -> None:
    real.submit(wait=True)
    to_dry_run(real)
    before = ct_balances(real)
    real.post()
    assert real.job().state == "active"
    assert not real.job().funded
    assert ct_balances(real) == before


def test_job_pending_since_dry_run_is_funded_when_matched_in_real(market: Market) -> None:
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=100)
    market.submit(wait=True)
    go_real(market)
    market.post()
    assert market.job().funded
    assert market.balance("escrow/job") == 5
