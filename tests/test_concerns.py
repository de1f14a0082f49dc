"""What an operator is told at once: every concern appears with its cause and goes with it."""

from collections.abc import Callable

import pytest

from compute_market import concerns, overview
from compute_market.admission import mempool
from compute_market.concerns import Concern
from compute_market.courier import courier
from compute_market.courier.courier import Attempted
from compute_market.offers import standing
from compute_market.settlement import modes
from compute_market.store.schema import QUARANTINE
from compute_market.store.txn import Txn
from tests.support.bundles import HOLDER, bundle, ids
from tests.support.market import Market


def concerns_of(market: Market) -> list[Concern]:
    return market.view(lambda txn: concerns.of(txn, overview.document(txn)))


def texts(market: Market) -> list[str]:
    return [f"{each.level}: {each.text}" for each in concerns_of(market)]


def fail_a_bundle(txn: Txn) -> None:
    sent = courier.send(txn, bundle(), ids())
    courier.claim(txn, HOLDER, None, 100)
    courier.record(txn, [Attempted(sent.seq, "failed", 1, 1, "no")], HOLDER)


def tighten(market: Market) -> None:
    for number in range(mempool.FEES_KEPT):
        market.send(10**6, sender=f"sender-{number}")


def bar(market: Market) -> None:
    market.post()
    market.update(lambda txn: standing.record_outcome(txn, "prov", -1))


def wait_for_a_slot(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    market.submit("first")
    market.submit("second", priority="high")
    market.advance(61)


def fall_due(market: Market) -> None:
    market.post()
    market.submit("late", deadline_secs=600)
    market.advance(1300)


def lack_a_bond(market: Market) -> None:
    market.post(provider_bond=5)
    market.update(lambda txn: modes.arm(txn, 10**6))


CAUSES: dict[str, tuple[Callable[[Market], object], list[str]]] = {
    "bundle": (
        lambda market: market.update(fail_a_bundle),
        ["watch: 1 bundle has not arrived at the first attempt"],
    ),
    "guard": (tighten, ["watch: the comfort guard is tight: no industrial job is admitted"]),
    "standing": (bar, ["watch: 1 offer is barred: bad standing"]),
    "slot": (wait_for_a_slot, ["watch: a high job has waited 61 s for a slot"]),
    "offer": (
        lambda market: market.submit(wait=True),
        ["watch: 1 job waits for an offer, most for: no offer"],
    ),
    "bond": (lack_a_bond, ["watch: 1 offer cannot be taken: the bond is not there"]),
    "idle": (
        fall_due,
        ["act: something is due, and nothing has changed the market for 21 minutes"],
    ),
    "mode": (
        lambda market: market.update(lambda txn: (modes.arm(txn, 9), modes.to_dry_run(txn, "why"))),
        ["watch: settlement is in dry_run, no money moves: why"],
    ),
}


@pytest.mark.parametrize(("cause", "told"), CAUSES.values(), ids=CAUSES)
def test_cause_is_told_and_nothing_else(
    market: Market, cause: Callable[[Market], object], told: list[str]
) -> None:
    assert texts(market) == []
    cause(market)
    assert texts(market) == told
    assert all(each.way_out for each in concerns_of(market))


def test_what_needs_an_act_comes_first(market: Market) -> None:
    market.submit("waits", wait=True)
    market.alone(lambda txn: txn.put(QUARANTINE, bytes(32), b"rubbish"))
    assert [each.level for each in concerns_of(market)] == ["act", "watch"]
    market.alone(lambda txn: txn.delete(QUARANTINE, bytes(32)))


def test_clock_that_is_not_believed_is_told(market: Market) -> None:
    market.post()
    market.advance(-3600)
    assert texts(market) == ["act: the clock is not believed: nothing falls due until it is"]
