"""The share of the slots that one buyer or provider may hold while others wait."""

import pytest

from compute_market.store.schema import SLOTS_HELD
from tests.support.market import Market
from tests.support.state import command, states


@pytest.fixture
def four(market: Market) -> Market:
    """A market of four slots with two providers that differ in what they offer."""
    market.configure(slots=4)
    for name in ("one", "two"):
        market.post(name, capability={"gpu": name}, reputation=9)
    return market


def order(market: Market, job_id: str, buyer: str, provider: str, priority: str = "normal") -> None:
    market.submit(job_id, buyer=buyer, capability={"gpu": provider}, priority=priority)


def active(market: Market, *job_ids: str) -> list[str]:
    found = states(market, *job_ids)
    return [job_id for job_id, state in zip(job_ids, found, strict=True) if state == "active"]


def held(market: Market) -> dict[str, int]:
    found = market.view(lambda txn: txn.sums(SLOTS_HELD))
    return {key.decode().replace("\0", " "): count for key, count in found.items()}


def full_of(market: Market, buyer: str, provider: str) -> None:
    for number in range(4):
        order(market, f"{buyer}-{number}", buyer, provider)


def test_party_may_hold_all_slots_while_nobody_waits(four: Market) -> None:
    full_of(four, "eve", "one")
    assert held(four) == {"buyer eve": 4, "provider one": 4}


@pytest.mark.parametrize("side", ["buyer", "provider"])
def test_slot_of_a_party_with_its_share_goes_to_another(four: Market, side: str) -> None:
    full_of(four, "eve", "one")
    order(four, "more", "eve" if side == "buyer" else "eva", "one")
    other = ("alice", "one") if side == "buyer" else ("eva", "two")
    order(four, "other", *other)
    four.prove("eve-0")
    assert active(four, "more", "other") == ["other"]
    # With 3 of 4 slots it still has its share; nobody else waits, so none is left idle.
    four.prove("eve-1")
    assert active(four, "more", "other") == ["more", "other"]


def test_priority_does_not_help_a_party_with_its_share(four: Market) -> None:
    full_of(four, "eve", "one")
    order(four, "urgent", "eve", "two", "high")
    order(four, "other", "alice", "two", "low")
    four.prove("eve-0")
    assert active(four, "urgent", "other") == ["other"]


def test_party_below_its_share_keeps_its_turn(four: Market) -> None:
    four.configure(party_slots_pct=100)
    full_of(four, "eve", "one")
    order(four, "more", "eve", "one")
    order(four, "other", "alice", "two")
    four.prove("eve-0")
    assert active(four, "more", "other") == ["more"]


def test_two_that_would_wait_for_each_other_leave_no_slot_idle(market: Market) -> None:
    # Eve has her share as a buyer and `two` its share as a provider; each job is one of theirs.
    market.configure(slots=5, party_slots_pct=40)
    for name in ("one", "two", "three"):
        market.post(name, capability={"gpu": name})
    for number, (buyer, provider) in enumerate(
        (("eve", "one"), ("eve", "three"), ("x", "two"), ("y", "two"), ("z", "one"))
    ):
        order(market, f"runs-{number}", buyer, provider)
    order(market, "a", "eve", "one")
    order(market, "b", "alice", "two")
    market.prove("runs-4")
    assert active(market, "a", "b") == ["a"]


def test_low_job_that_its_cap_holds_back_is_nobody_to_let_pass(four: Market) -> None:
    four.configure(low_priority_cap_pct=0)
    full_of(four, "eve", "one")
    order(four, "more", "eve", "one")
    order(four, "other", "alice", "two", "low")
    four.prove("eve-0")
    assert active(four, "more", "other") == ["more"]


def test_slots_are_those_of_the_active_jobs(four: Market) -> None:
    full_of(four, "eve", "one")
    order(four, "other", "alice", "two")
    four.cancel("eve-0")
    four.prove("eve-1")
    four.advance(86_401)
    command(four)
    assert held(four) == {}
