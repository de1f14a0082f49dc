"""The settlement modes: what changes them, and when."""

import pytest

from compute_market import chain
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import RefusedError
from compute_market.records import SettleState
from compute_market.settlement import modes
from tests.support.market import Market
from tests.support.modes import arm, cancel_arm, mode, to_dry_run
from tests.support.state import command


def mode_changes(market: Market) -> dict[str, int]:
    return {
        to: number
        for to in ("dry_run", "armed", "real")
        if (number := market.counter("settle_mode_change_total", to))
    }


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
    market.update(lambda txn: chain.advance(txn, 4))
    command(market)
    assert mode(market) == "armed"
    market.update(lambda txn: chain.advance(txn, 1))
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


def test_arm_reaches_to_the_largest_height(market: Market) -> None:
    assert arm(market, AMOUNT_MAX).activate_at == AMOUNT_MAX


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


# What status shows.


def test_document_shows_the_mode_and_what_waits(real: Market) -> None:
    real.post()
    real.submit("a")
    real.submit("b")
    real.prove("a")
    to_dry_run(real, "maintenance")
    real.prove("b")
    real.advance(3)
    assert real.view(modes.document) == {
        "mode": "dry_run",
        "height": 3,
        "reason": "maintenance",
        "due": False,
        "pending": 1,
        "applied": 1,
        "failed": 0,
    }
    arm(real, 7)
    document = real.view(modes.document)
    assert (document["mode"], document["activate_at"]) == ("armed", 10)
    assert "reason" not in document


def test_document_says_when_an_armed_mode_is_due(market: Market) -> None:
    def due() -> bool:
        return bool(market.view(modes.document)["due"])

    assert not due()
    arm(market, 10)
    market.advance(9.999)
    assert not due()
    market.advance(0.001)
    assert due()
    command(market)
    assert not due()
