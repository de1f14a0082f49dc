"""Settlement: the modes and their changes, and who is paid what, when, exactly once."""

import pytest

from compute_market import chain
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import RefusedError
from compute_market.jobs import lifecycle
from compute_market.records import Settlement, SettleState
from compute_market.settlement import ledger, settlement
from compute_market.store.store import Txn
from tests.support.market import Market


def mode(market: Market) -> str:
    return market.view(lambda txn: settlement.state(txn, market.config)).mode


def arm(market: Market, delay_blocks: int = 0) -> SettleState:
    return market.update(lambda txn: settlement.arm(txn, market.config, delay_blocks))


def cancel_arm(market: Market) -> SettleState:
    return market.update(lambda txn: settlement.cancel_arm(txn, market.config))


def to_dry_run(market: Market, reason: str = "test") -> tuple[SettleState, bool]:
    return market.update(lambda txn: settlement.to_dry_run(txn, market.config, reason))


def command(market: Market) -> None:
    market.update(lambda txn: None)


def go_real(market: Market) -> None:
    """Arm without delay; the next command turns the mode real and pays what waits."""
    arm(market)
    command(market)


def statuses(market: Market) -> dict[str, str]:
    """Job → status of its receipt, in order of issue."""

    def read(txn: Txn) -> dict[str, str]:
        found: dict[str, str] = {}
        for receipt in sorted(txn.records("receipts"), key=lambda each: each.seq):
            settled = settlement.of(txn, receipt.idempotency_key)
            found[receipt.job_id] = settled.status if settled else "missing"
        return found

    return market.view(read)


def settle_postings(market: Market) -> list[tuple[str, str, int]]:
    """(job, token, amount) of every payment of a receipt, oldest first."""
    return [
        (posting.ref, posting.token, posting.amount)
        for posting in market.view(lambda txn: list(txn.records("postings")))
        if posting.event == "settle"
    ]


def holdings(market: Market) -> dict[str, int]:
    """CT of every account, by name."""
    return market.view(lambda txn: dict(ledger.balances(txn, "CT")))


def mode_changes(market: Market) -> dict[str, int]:
    return {
        to: number
        for to in ("dry_run", "armed", "real")
        if (number := market.counter("settle_mode_change_total", to))
    }


# The stored mode and the configuration.


@pytest.mark.parametrize("seed", ["dry_run", "real"])
def test_configured_mode_seeds_an_empty_store(market: Market, seed: str) -> None:
    market.configure(settle_mode=seed)
    assert mode(market) == seed
    command(market)
    assert mode(market) == seed
    assert mode_changes(market) == {}


@pytest.mark.parametrize(("seed", "later"), [("dry_run", "real"), ("real", "dry_run")])
def test_stored_mode_wins_over_the_configuration(market: Market, seed: str, later: str) -> None:
    market.configure(settle_mode=seed)
    command(market)
    market.configure(settle_mode=later)
    command(market)
    assert mode(market) == seed
    market.reopen()
    assert mode(market) == seed
    assert mode_changes(market) == {}


# Changing the mode.


def test_arm_turns_real_at_the_exact_height(market: Market) -> None:
    market.advance(50)
    assert arm(market, 10) == SettleState("armed", activate_at=60)
    market.advance(9.999)
    command(market)
    assert mode(market) == "armed"
    market.advance(0.001)
    assert mode(market) == "armed"  # until a command acts
    command(market)
    assert mode(market) == "real"


def test_arm_without_delay_turns_real_at_the_next_command(market: Market) -> None:
    arm(market, 0)
    assert mode(market) == "armed"
    command(market)
    assert mode(market) == "real"


def test_arm_turns_real_when_the_height_is_advanced_by_hand(market: Market) -> None:
    market.configure(block_interval_secs=0)
    arm(market, 5)
    market.update(lambda txn: chain.advance(txn, market.config, 4))
    command(market)
    assert mode(market) == "armed"
    market.update(lambda txn: chain.advance(txn, market.config, 1))
    assert mode(market) == "armed"
    command(market)
    assert mode(market) == "real"


def test_arm_that_is_due_turns_real_before_the_commands_own_effects(market: Market) -> None:
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=100)
    market.post()
    arm(market, 10)
    market.advance(9.999)
    market.submit("early")
    market.advance(0.001)
    market.submit("late")
    assert (market.job("early").funded, market.job("late").funded) == (False, True)


@pytest.mark.parametrize("present", ["armed", "real"])
def test_arm_from_another_mode_than_dry_run_is_refused(market: Market, present: str) -> None:
    arm(market, 100 if present == "armed" else 0)
    command(market)
    with pytest.raises(RefusedError, match=f"the mode is {present}") as caught:
        arm(market, 1)
    assert caught.value.reason == "mode"
    assert mode(market) == present


def test_arm_beyond_the_largest_height_is_refused(market: Market) -> None:
    market.advance(1)
    with pytest.raises(RefusedError) as caught:
        arm(market, AMOUNT_MAX)
    assert caught.value.reason == "overflow"
    assert mode(market) == "dry_run"


def test_cancel_arm_returns_to_dry_run(market: Market) -> None:
    arm(market, 10)
    cancel_arm(market)
    market.advance(100)
    command(market)
    assert mode(market) == "dry_run"


def test_cancel_arm_from_dry_run_is_refused(market: Market) -> None:
    with pytest.raises(RefusedError, match="the mode is dry_run, nothing is armed"):
        cancel_arm(market)


def test_cancel_arm_that_comes_too_late_is_refused(market: Market) -> None:
    arm(market, 10)
    market.advance(10)
    with pytest.raises(RefusedError, match="the mode is real, nothing is armed"):
        cancel_arm(market)


@pytest.mark.parametrize("present", ["armed", "real"])
def test_to_dry_run_keeps_the_reason(market: Market, present: str) -> None:
    arm(market, 100 if present == "armed" else 0)
    command(market)
    expected = SettleState("dry_run", reason="maintenance")
    assert to_dry_run(market, "maintenance") == (expected, True)
    assert mode(market) == "dry_run"


def test_to_dry_run_twice_changes_nothing(market: Market) -> None:
    arm(market)
    to_dry_run(market, "first")
    assert to_dry_run(market, "second") == (SettleState("dry_run", reason="first"), False)


def test_mode_changes_are_counted_once_each(market: Market) -> None:
    arm(market, 5)
    cancel_arm(market)
    to_dry_run(market)  # nothing changes
    assert mode_changes(market) == {"armed": 1, "dry_run": 1}
    arm(market, 5)
    for _ in range(7):
        market.advance(1)
        command(market)
    assert mode_changes(market) == {"armed": 2, "dry_run": 1, "real": 1}
    to_dry_run(market)
    to_dry_run(market)
    assert mode_changes(market) == {"armed": 2, "dry_run": 2, "real": 1}


# Dry run and armed: receipts are recorded, balances never move.


@pytest.mark.parametrize("armed", [False, True])
def test_complete_without_real_moves_no_money(market: Market, armed: bool) -> None:
    market.deposit("buyer", ct=100, it=100)
    market.deposit("prov", ct=100)
    if armed:
        arm(market, 1000)
    before = holdings(market)
    market.post(fee_pct_ct=50)
    market.submit()
    assert holdings(market) == before
    market.prove()
    assert holdings(market) == before
    assert statuses(market) == {"job": "recorded"}
    assert market.counter("matches_total", "true") == 1
    assert market.counter("settle_applied_total") == 0


def test_complete_without_real_needs_no_money(market: Market) -> None:
    market.post()
    market.submit()
    market.prove()
    assert holdings(market) == {}
    assert market.job().state == "completed"


@pytest.mark.parametrize("ends", ["completed", "cancelled"])
def test_job_admitted_unfunded_never_moves_money_later(market: Market, ends: str) -> None:
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=100)
    market.post()
    market.submit(lengths=(1, 1))
    go_real(market)
    before = holdings(market)
    market.prove("job", 0)
    if ends == "completed":
        market.prove("job", 1)
    else:
        market.cancel(by="provider")
    command(market)
    assert market.job().state == ends
    assert holdings(market) == before
    assert statuses(market) == {"job": "recorded"}
    assert market.counter("settle_applied_total") == 0
    assert market.view(lambda txn: next(txn.records("receipts"))).dry_run


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
    (receipt,) = real.view(lambda txn: list(txn.records("receipts")))
    settled = real.view(lambda txn: settlement.of(txn, receipt.idempotency_key))
    assert settled == Settlement("applied", 5, 0, real.now_ms)


# Falling to dry_run with funded jobs, and coming back.


def test_receipt_of_a_funded_job_waits_while_the_mode_is_dry_run(real: Market) -> None:
    real.post()
    real.submit(lengths=(1, 1, 1), consumer_bond=7)
    to_dry_run(real)
    real.prove("job", 0, 1)
    real.cancel()
    # What is owed stays in escrow; the rest and both bonds go back at once.
    assert statuses(real) == {"job": "pending"}
    assert holdings(real) == {
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
    assert holdings(real) == {"supply": -11_000, "wallet/buyer": 9_990, "wallet/prov": 1_010}


def test_receipts_that_wait_are_paid_in_order_of_issue(real: Market) -> None:
    real.post(fee_pct_ct=40)
    names = ["c", "a", "d", "b"]
    for name in sorted(names):
        real.submit(name)
    to_dry_run(real)
    for name in names:
        real.prove(name)
    assert real.view(lambda txn: settlement.document(txn, real.config))["pending"] == 4
    go_real(real)
    assert settle_postings(real) == [
        (name, token, amount) for name in names for token, amount in (("CT", 2), ("IT", 3))
    ]
    assert real.view(settlement.pending) == []


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
    assert real.job("second").provider == "anna"
    assert real.balance("wallet/prov") == 0


def test_cancel_refunds_true_money_in_every_mode(real: Market) -> None:
    before = holdings(real)
    real.post()
    real.submit()
    assert holdings(real) != before
    to_dry_run(real)
    real.cancel()
    assert holdings(real) == before
    assert settle_postings(real) == []


def test_missed_deadline_burns_a_true_bond_in_every_mode(real: Market) -> None:
    real.post(provider_bond=20)
    real.submit(deadline_secs=10)
    to_dry_run(real)
    real.advance(11)
    command(real)
    assert holdings(real) == {
        "supply": -11_000,
        "wallet/buyer": 10_000,
        "wallet/prov": 980,
        "burned": 20,
    }


def test_job_matched_in_dry_run_is_not_funded(real: Market) -> None:
    real.submit(wait=True)
    to_dry_run(real)
    before = holdings(real)
    real.post()
    assert real.job().state == "active"
    assert not real.job().funded
    assert holdings(real) == before


def test_job_pending_since_dry_run_is_funded_when_matched_in_real(market: Market) -> None:
    market.deposit("buyer", ct=100)
    market.deposit("prov", ct=100)
    market.submit(wait=True)
    go_real(market)
    market.post()
    assert market.job().funded
    assert market.balance("escrow/job") == 5


# What status shows, and when housekeeping is due.


def test_document_shows_the_mode_and_what_waits(real: Market) -> None:
    real.post()
    real.submit("a")
    real.submit("b")
    real.prove("a")
    to_dry_run(real, "maintenance")
    real.prove("b")
    real.advance(3)
    assert real.view(lambda txn: settlement.document(txn, real.config)) == {
        "mode": "dry_run",
        "height": 3,
        "reason": "maintenance",
        "pending": 1,
        "applied": 1,
        "failed": 0,
    }
    arm(real, 7)
    document = real.view(lambda txn: settlement.document(txn, real.config))
    assert (document["mode"], document["activate_at"]) == ("armed", 10)
    assert "reason" not in document


def test_is_due_once_the_height_is_reached(market: Market) -> None:
    def due() -> bool:
        return market.view(lambda txn: lifecycle.is_due(txn, market.config))

    assert not due()
    arm(market, 10)
    market.advance(9.999)
    assert not due()
    market.advance(0.001)
    assert due()
    command(market)
    assert not due()
