"""The life of a proposal, and the values in force at every instant."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from compute_market import chain
from compute_market.amounts import AMOUNT_MAX, UNIT_BYTES
from compute_market.errors import NotFoundError, RefusedError
from compute_market.governance import governance, parameters
from compute_market.governance.governance import WAITING_MAX
from compute_market.records import PARAMETER_KEYS
from compute_market.store.txn import Txn
from tests.support.effort import effort
from tests.support.governance import approve, pass_epochs, propose, roll_back
from tests.support.market import Market
from tests.support.state import command


def in_force(market: Market) -> dict[str, Any]:
    """What a view finds in force, and what a change finds."""

    def read(txn: Txn) -> dict[str, Any]:
        return parameters.numbers(txn.config)

    seen = market.view(read)
    assert market.update(read, dry_run=True) == seen
    return seen


def cap(market: Market) -> float:
    found: float = in_force(market)["fair_share_cap"]
    return found


def states(market: Market) -> dict[int, str]:
    documents, _ = market.view(lambda txn: governance.page(txn, None, 1000))
    return {document["id"]: document["state"] for document in documents}


def refused(market: Market, action: Callable[[Txn], Any]) -> str | None:
    with pytest.raises(RefusedError) as caught:
        market.update(action)
    return caught.value.reason


@pytest.fixture
def still(market: Market) -> Market:
    """A market whose height moves by hand only."""
    market.configure(block_interval_secs=0)
    return market


# A life.


def test_proposal_is_in_force_two_epochs_after_its_approval_and_no_block_sooner(
    market: Market,
) -> None:
    market.advance(70)  # Epoch 1: in force from 180 on.
    made = propose(market, "fair_share_cap", "0.1")
    pass_epochs(market, 10)
    assert (cap(market), states(market)) == (0.25, {made: "proposed"})
    market.advance(50)  # Height 720, the first of epoch 12: in force from 840 on.
    market.update(lambda txn: governance.approve(txn, made))
    market.advance(119.999)
    assert (cap(market), states(market)) == (0.25, {made: "approved"})
    market.advance(0.001)
    assert (cap(market), states(market)) == (0.1, {made: "active"})
    assert market.events("params_activated") == []  # A view writes nothing down.
    command(market)
    assert market.opened.due.text == "fair_share_cap 0.1 in force"
    command(market)
    assert market.opened.due.text == ""
    (event,) = market.events("params_activated")
    assert event.event.detail == {"proposal": made, "key": "fair_share_cap", "value": "0.1"}
    assert (cap(market), states(market)) == (0.1, {made: "active"})
    assert market.update(governance.roll_back).restored is None
    assert (cap(market), states(market)) == (0.25, {made: "rolled_back"})
    assert [logged.event.event for logged in market.events() if "params" in logged.event.event] == [
        "params_proposed",
        "params_approved",
        "params_activated",
        "params_rolled_back",
    ]


def test_setting_lies_under_the_proposal(still: Market) -> None:
    approve(still, "fair_share_cap", "0.1")
    pass_epochs(still)
    still.configure(fair_share_cap_ppm=900_000, min_capacity=3)
    assert in_force(still)["min_capacity"] == 3
    assert cap(still) == 0.1
    still.reopen()
    assert cap(still) == 0.1
    roll_back(still)
    assert cap(still) == 0.9


def test_nothing_changes_within_a_transaction(still: Market) -> None:
    approve(still, "fair_share_cap", "0.1")

    def pass_by(txn: Txn) -> list[int]:
        before = txn.config.fair_share_cap_ppm
        chain.advance(txn, 120)
        return [before, txn.config.fair_share_cap_ppm]

    assert still.update(pass_by) == [250_000, 250_000]
    assert cap(still) == 0.1

    def undo(txn: Txn) -> list[int]:
        before = txn.config.fair_share_cap_ppm
        governance.roll_back(txn)
        return [before, txn.config.fair_share_cap_ppm]

    assert still.update(undo) == [100_000, 100_000]
    assert cap(still) == 0.25


# What is asked twice, too late or too early.


@pytest.mark.parametrize("epochs", [0, 2])
def test_approving_twice_changes_nothing(still: Market, epochs: int) -> None:
    made = approve(still, "min_capacity", "5")
    pass_epochs(still, epochs)
    again = still.update(lambda txn: governance.approve(txn, made))
    assert not again.changed
    assert again.proposal.activates_at == 120
    assert len(still.events("params_approved")) == 1


def test_what_was_rolled_back_is_not_approved_again(still: Market) -> None:
    made = approve(still, "min_capacity", "5")
    pass_epochs(still)
    roll_back(still)
    assert refused(still, lambda txn: governance.approve(txn, made)) == "rolled_back"


def test_unknown_proposal_is_not_found(market: Market) -> None:
    propose(market, "min_capacity", "5")
    for number in (0, 2, AMOUNT_MAX):
        with pytest.raises(NotFoundError, match=f"^proposal {number} does not exist$"):
            market.update(lambda txn, number=number: governance.approve(txn, number))


def test_rollback_needs_something_active(still: Market) -> None:
    assert refused(still, governance.roll_back) == "nothing_active"
    propose(still, "min_capacity", "5")
    approve(still, "min_capacity", "6")
    assert refused(still, governance.roll_back) == "nothing_active"
    pass_epochs(still)
    roll_back(still)
    assert refused(still, governance.roll_back) == "nothing_active"


def test_no_more_than_some_wait_at_once(still: Market) -> None:
    for _ in range(WAITING_MAX):
        approve(still, "min_capacity", "5")
    made = propose(still, "min_capacity", "6")
    assert refused(still, lambda txn: governance.approve(txn, made)) == "too_many"
    pass_epochs(still)
    assert still.update(lambda txn: governance.approve(txn, made)).changed
    pass_epochs(still)
    assert in_force(still)["min_capacity"] == 6


def test_height_that_cannot_be_reached_is_refused(still: Market) -> None:
    made = propose(still, "min_capacity", "5")
    still.update(lambda txn: chain.advance(txn, AMOUNT_MAX - 60))
    assert refused(still, lambda txn: governance.approve(txn, made)) == "overflow"


# Several at once.


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_of_one_key_the_one_approved_last_wins(
    still: Market, order: tuple[int, int]
) -> None:
    made = [propose(still, "fair_share_cap", value) for value in ("0.1", "0.2")]
    for index in order:
        still.update(lambda txn, index=index: governance.approve(txn, made[index]))
    pass_epochs(still)
    assert cap(still) == (0.1, 0.2)[order[-1]]
    assert roll_back(still) == made[order[-1]]
    assert cap(still) == (0.1, 0.2)[order[0]]
    assert roll_back(still) == made[order[0]]
    assert cap(still) == 0.25


def test_rollback_goes_back_over_all_keys_and_leaves_what_waits(still: Market) -> None:
    first = approve(still, "fair_share_cap", "0.1")
    second = approve(still, "min_capacity", "5")
    pass_epochs(still)
    waits = approve(still, "fair_share_cap", "0.3")
    assert roll_back(still) == second
    assert in_force(still) == in_force(still) | {"fair_share_cap": 0.1, "min_capacity": 10}
    assert roll_back(still) == first
    assert states(still) == {first: "rolled_back", second: "rolled_back", waits: "approved"}
    pass_epochs(still)
    assert (cap(still), states(still)[waits]) == (0.3, "active")


def test_heights_that_are_passed_at_once_come_into_force_in_their_order(still: Market) -> None:
    approve(still, "fair_share_cap", "0.1")
    pass_epochs(still, 1)
    approve(still, "fair_share_cap", "0.2")
    approve(still, "min_capacity", "7")
    pass_epochs(still, 100)
    assert (cap(still), in_force(still)["min_capacity"]) == (0.2, 7)
    command(still)
    assert still.opened.due.text == "fair_share_cap 0.2 in force, min_capacity 7 in force"
    roll_back(still)
    roll_back(still)
    assert (cap(still), in_force(still)["min_capacity"]) == (0.1, 10)


def test_height_is_fixed_when_it_is_approved(still: Market) -> None:
    approve(still, "fair_share_cap", "0.1")  # from 120 on
    still.configure(epoch_blocks=10)
    approve(still, "fair_share_cap", "0.2")  # from 20 on
    still.update(lambda txn: chain.advance(txn, 20))
    assert cap(still) == 0.2
    still.configure(epoch_blocks=10**9)
    still.update(lambda txn: chain.advance(txn, 99))
    assert cap(still) == 0.2
    still.update(lambda txn: chain.advance(txn, 1))
    assert cap(still) == 0.1


def test_nothing_comes_into_force_while_the_clock_is_not_believed(market: Market) -> None:
    made = approve(market, "fair_share_cap", "0.1")
    market.now_ms -= 1_000_000
    pass_epochs(market)
    assert market.opened.time is not None
    assert market.opened.time.doubt == "behind"
    assert (cap(market), states(market)) == (0.25, {made: "approved"})
    assert refused(market, governance.roll_back) == "nothing_active"
    market.now_ms += 1_000_000
    assert (cap(market), states(market)) == (0.1, {made: "active"})
    command(market)
    market.now_ms -= 1_000_000
    assert cap(market) == 0.1  # It is active, whatever the clock says since.
    roll_back(market)
    assert cap(market) == 0.25


# What follows from it.


def raise_share(market: Market) -> None:
    market.submit(lengths=(1501 * UNIT_BYTES,), wait=True)
    market.post(units=7000)
    approve(market, "fair_share_cap", "0.3")


def lower_capacity(market: Market) -> None:
    market.configure(initial_capacity=9)
    market.submit(wait=True)
    market.post()
    approve(market, "min_capacity", "9")


@pytest.mark.parametrize("begin", [raise_share, lower_capacity])
def test_waiting_job_gets_in_when_a_parameter_lets_it(
    still: Market, begin: Callable[[Market], None]
) -> None:
    begin(still)
    command(still)
    assert still.job().state == "pending"
    pass_epochs(still)
    assert still.job().state == "pending"
    command(still)
    assert still.job().state == "active"
    assert still.opened.due.text.endswith(" in force, 1 waiting job placed")


def test_waiting_job_gets_in_when_a_rollback_lets_it(still: Market) -> None:
    approve(still, "fair_share_cap", "0.01")
    pass_epochs(still)
    still.submit(lengths=(100 * UNIT_BYTES,), wait=True)
    still.post()
    command(still)
    assert still.job().state == "pending"
    roll_back(still)
    command(still)
    assert still.job().state == "active"


def test_pending_counts_what_waits_and_not_what_is_due(still: Market) -> None:
    def pending() -> dict[str, int]:
        found = still.view(governance.pending)
        assert tuple(found) == PARAMETER_KEYS
        return {key: count for key, count in found.items() if count}

    propose(still, "min_capacity", "5")
    assert pending() == {}
    approve(still, "min_capacity", "6")
    approve(still, "min_capacity", "7")
    pass_epochs(still, 1)
    approve(still, "fair_share_cap", "0.1")
    assert pending() == {"min_capacity": 2, "fair_share_cap": 1}
    pass_epochs(still, 1)
    assert pending() == {"fair_share_cap": 1}
    command(still)
    assert pending() == {"fair_share_cap": 1}


# Any history.


class Paper:
    """Proposals as one would keep them on paper: a list, walked from its begin for every answer."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.order: list[int] = []  # of activation, without what was rolled back
        self.approvals = 0

    def propose(self, key: str, value: float) -> None:
        self.rows.append({"key": key, "value": value, "state": "proposed"})

    def approve(self, index: int, height: int, epoch_blocks: int) -> None:
        row = self.rows[index]
        if row["state"] == "proposed":
            self.approvals += 1
            at = (height // epoch_blocks + 2) * epoch_blocks
            row |= {"state": "approved", "at": at, "turn": self.approvals}

    def pass_to(self, height: int) -> None:
        waiting = [i for i, row in enumerate(self.rows) if row["state"] == "approved"]
        for i in sorted(waiting, key=lambda i: (self.rows[i]["at"], self.rows[i]["turn"])):
            if self.rows[i]["at"] <= height:
                self.rows[i]["state"] = "active"
                self.order.append(i)

    def roll_back(self) -> None:
        self.rows[self.order.pop()]["state"] = "rolled_back"

    def in_force(self, configured: dict[str, Any]) -> dict[str, Any]:
        found = dict(configured)
        for i in self.order:
            found[self.rows[i]["key"]] = self.rows[i]["value"]
        return found


VALUES = {
    "min_capacity": ("1", "7", "10000"),
    "fair_share_cap": ("0.01", "0.3", "1"),
    "burst_refill_rate": ("0", "0.25"),
    "comfort_threshold_p90": ("500", "9999"),
}
MOVES = ("propose", "propose", "approve", "approve", "approve", "rollback", "blocks", "time")
MOVES += ("blocks", "configure", "reopen", "command", "clock")


@pytest.mark.parametrize("seed", range(effort(12, 500)))
def test_values_in_force_are_those_of_a_list_on_paper(market: Market, seed: int) -> None:
    random, paper = Random(seed), Paper()
    market.configure(epoch_blocks=7, block_interval_secs=random.choice((0, 1)))
    height, held = 0, False
    command(market)
    for _ in range(effort(40, 60)):
        move = random.choice(MOVES)
        if move == "propose":
            key = random.choice(tuple(VALUES))
            value = random.choice(VALUES[key])
            assert propose(market, key, value) == len(paper.rows) + 1
            paper.propose(key, parameters.number(key, parameters.parse(key, value)))
        elif move == "approve" and paper.rows:
            index = random.randrange(len(paper.rows))
            if paper.rows[index]["state"] == "rolled_back":
                reason = refused(market, lambda txn, i=index: governance.approve(txn, i + 1))
                assert reason == "rolled_back"
            else:
                market.update(lambda txn, i=index: governance.approve(txn, i + 1))
                paper.approve(index, height, market.config.epoch_blocks)
        elif move == "rollback" and paper.order:
            assert roll_back(market) == paper.order[-1] + 1
            paper.roll_back()
        elif move == "rollback":
            assert refused(market, governance.roll_back) == "nothing_active"
        elif move == "blocks":
            blocks = random.choice((1, 6, 7, 8, 30))
            market.update(lambda txn, blocks=blocks: chain.advance(txn, blocks))
            height += blocks
        elif move == "time":
            market.advance(5)
            height += 5 * market.config.block_interval_secs
        elif move == "configure":
            market.configure(
                epoch_blocks=random.choice((1, 3, 7, 20)), min_capacity=random.randint(1, 99)
            )
        elif move == "reopen":
            market.reopen()
        elif move == "clock" and not market.config.block_interval_secs:
            command(market)  # What was seen to be in force while it was believed stays so.
            held = not held
            market.now_ms += -1_000_000 if held else 1_000_000
        else:
            command(market)
        if not held:
            paper.pass_to(height)
        assert in_force(market) == paper.in_force(parameters.numbers(market.config))
        assert states(market) == {i: row["state"] for i, row in enumerate(paper.rows, 1)}
        waiting = [row["key"] for row in paper.rows if row["state"] == "approved"]
        assert sum(market.view(governance.pending).values()) == len(waiting)
    assert market.violations() == []
