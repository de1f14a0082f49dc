"""What keeps an offer from being taken: a row for each, the first of which is told."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market.jobs import obstacles
from compute_market.offers import offers
from tests.support.market import Market


def problem(market: Market) -> Any:
    return market.view(lambda txn: obstacles.document(txn, offers.get(txn, "o-1")))["problem"]


def use_up(market: Market) -> None:
    """Let the provider do all that its share and its burst bucket allow."""
    number = 0
    while not hasattr(
        verdict := market.submit(f"j{number}", lengths=(2**20 * 10,), buyer=f"b{number}"), "reason"
    ):
        number += 1
    assert verdict.reason == "burst_exhausted"
    for rest in (5, 2, 1):
        for _ in range(10):
            number += 1
            market.submit(f"j{number}", lengths=(2**20 * rest,), buyer=f"b{number}")


def withdraw(market: Market) -> None:
    market.update(lambda txn: offers.withdraw(txn, "o-1"))


CASES: dict[str, tuple[dict[str, Any], Callable[[Market], None], str]] = {
    "withdrawn": ({}, withdraw, "withdrawn"),
    "barred": ({"reputation": -3}, lambda market: None, "barred: score -3"),
    "exhausted": ({"units": 1}, lambda market: market.submit(), "no units left"),
    "directed": ({"job_id": "j9"}, lambda market: None, "for job j9 alone"),
    "share": ({}, use_up, "over its share: "),
}


@pytest.mark.parametrize("case", CASES)
def test_problem_says_what_keeps_an_offer_from_being_taken(market: Market, case: str) -> None:
    fields, act, text = CASES[case]
    market.deposit("prov", ct=100)
    market.post(**({"units": 100_000} | fields))
    act(market)
    assert problem(market).startswith(text)
    if case == "share":
        assert market.submit("late", lengths=(1,)).reason in ("burst_exhausted", "fair_share")
        market.advance(60)
        assert problem(market) is None
        assert market.submit("late", lengths=(1,)).changed


def test_bond_is_a_problem_once_money_moves(market: Market) -> None:
    market.post(provider_bond=5)
    assert problem(market) == "unfunded once money moves: bond 5, the wallet has 0"
    market.opened.arm(0)
    market.advance(1)
    market.deposit("prov", ct=4)
    assert problem(market) == "unfunded: bond 5, the wallet has 4"
    market.deposit("prov", ct=1)
    assert problem(market) is None
