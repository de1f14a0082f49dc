"""Submitting: every reason to say no, in the order in which they are looked at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from compute_market import events, metrics
from compute_market.admission import shares
from compute_market.amounts import UNIT_BYTES
from compute_market.errors import (
    MarketError,
)
from compute_market.records import MATCH_RESULTS, Refused, replace
from compute_market.settlement import receipts
from compute_market.store.schema import (
    COUNTERS,
    EFFECTIVE_PRICES,
    EFFECTIVE_PRICES_RECENT,
    EVENTS,
    META,
    UTILIZATION,
)
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.state import contents, improve_standing, record_capacity


class Rung(NamedTuple):
    """One reason to say no, and what takes it away."""

    reason: str
    world: Callable[[Market], None] = lambda market: None
    request: dict[str, Any] | None = None


def take_the_keys(market: Market) -> None:
    """Let another job hold the receipt keys that `job` of `buyer` would have."""
    market.submit("holder", wait=True, capability={"gpu": "none has it"})
    holder = replace(market.job("holder"), job_id="jo", buyer="bbuyer")

    def claim(txn: Txn) -> None:
        receipts.claim(txn, holder, receipts.check_claim(txn, holder, "prov", 5))

    market.update(claim)


def drain_the_bucket(market: Market) -> None:
    """Take one of the 30 units out of the buyer's burst bucket."""

    def charge(txn: Txn) -> None:
        shares.charge(txn, shares.party(txn, "buyer", "buyer"), 0, shares.MICRO)

    market.update(charge)


def hopeless(market: Market) -> dict[str, Any]:
    """A market, and a request that is refused there for every reason there is."""
    market.configure(
        settle_mode="real", initial_capacity=10, min_capacity=20, fair_share_cap_ppm=10_000
    )
    market.submit("taken", wait=True, capability={"gpu": "none has it"})
    take_the_keys(market)
    market.configure(comfort_threshold_p90=899)
    market.send(fee=900)
    drain_the_bucket(market)
    terms = {"units": 35, "provider_bond": 100, "consumer_bond": 50, "fee_pct_ct": 50}
    market.post(reputation=-1, capability={"cpu_cores": 4}, **terms)
    return {
        "job_id": "taken",
        "lengths": (0,),
        "consumer_bond": 0,
        "provider_bond_min": 0,
        "deadline": 1,
        "capability": {"cpu_cores": 64},
        "max_price_per_unit": 4,
    }


# Each reason must show as soon as those above it are taken away.
LADDER = (
    Rung("conflict", request={"job_id": "job"}),
    Rung("empty_slice", request={"lengths": (40 * UNIT_BYTES,)}),
    Rung("consumer_bond_too_low", request={"consumer_bond": 50}),
    Rung("provider_bond_too_low", request={"provider_bond_min": 1}),
    Rung("deadline", request={"deadline": 1_800_086_400}),
    Rung("comfort_guard", lambda market: market.configure(comfort_threshold_p90=900)),
    Rung("capability_mismatch", request={"capability": {"cpu_cores": 4}}),
    Rung("reputation_failure", improve_standing),
    Rung("price_mismatch", request={"max_price_per_unit": 5}),
    Rung("no_capacity", request={"lengths": (35 * UNIT_BYTES,)}),
    Rung("bond_unfunded", lambda market: market.deposit("prov", ct=100)),
    Rung("key_collision", request={"job_id": "another"}),
    Rung("capacity", lambda market: record_capacity(market, 40)),
    Rung("fair_share", request={"lengths": (30 * UNIT_BYTES,)}),
    Rung("burst_exhausted", request={"lengths": (29 * UNIT_BYTES,)}),
    Rung("insufficient_funds", lambda market: market.deposit("buyer", ct=123, it=72)),
    Rung("admitted"),
)
BY_ADMISSION = ("comfort_guard", "capacity", "fair_share", "burst_exhausted")
VERDICTS = {*MATCH_RESULTS[1:], *BY_ADMISSION, "insufficient_funds"}
STEPS = pytest.mark.parametrize("step", range(len(LADDER)), ids=[rung.reason for rung in LADDER])


def climbed(market: Market, step: int) -> dict[str, Any]:
    """The hopeless case without its first reasons; the request that is left."""
    request = hopeless(market)
    for rung in LADDER[:step]:
        rung.world(market)
        request |= rung.request or {}
    return request


def reason_of(market: Market, request: dict[str, Any]) -> str:
    """Why a request is refused, be it by a verdict or by an error, or `admitted`."""
    try:
        found = market.submit(**request)
    except MarketError as error:
        return error.reason or error.token
    return found.reason if isinstance(found, Refused) else "admitted"


@STEPS
def test_submit_names_the_first_reason_in_order(market: Market, step: int) -> None:
    request = climbed(market, step)
    assert reason_of(market, request) == LADDER[step].reason


def test_ladder_has_a_rung_for_every_verdict() -> None:
    reasons = [rung.reason for rung in LADDER]
    assert len(set(reasons)) == len(reasons)
    assert set(reasons) >= VERDICTS
    ((_, rejected),) = metrics.BY_NAME["industrial_rejected_total"].labels
    assert set(reasons) >= {*rejected, *MATCH_RESULTS} - {"SLA", "success"}


@STEPS
def test_refuse_uses_up_nothing(market: Market, step: int) -> None:
    request = climbed(market, step)
    # What a refusal leaves behind on purpose: its count, its line in the log, its statistics.
    remembered = (COUNTERS, EVENTS, UTILIZATION, EFFECTIVE_PRICES, EFFECTIVE_PRICES_RECENT, META)
    before = contents(market, *remembered)
    if reason_of(market, request) != "admitted":
        assert contents(market, *remembered) == before
        assert market.view(lambda txn: txn.number("job_seq")) == 2
        assert market.view(lambda txn: txn.number("queue_seq")) == 0
    else:
        assert contents(market, *remembered) != before


@STEPS
def test_refuse_by_a_verdict_is_logged_and_counted(market: Market, step: int) -> None:
    request = climbed(market, step)
    reason = LADDER[step].reason
    result = reason if reason in MATCH_RESULTS else "success"

    def counted() -> tuple[int, int]:
        rejected = [market.counter("industrial_rejected_total", each) for each in BY_ADMISSION]
        return market.counter("scheduler_match_total", result), sum(rejected)

    logged, matches, rejected = len(market.events()), *counted()
    before = contents(market)
    reason_of(market, request)
    if reason not in (*VERDICTS, "admitted"):
        assert contents(market) == before  # An error is not remembered.
        return
    is_matched = reason != "comfort_guard"  # It comes before the match.
    assert counted() == (matches + is_matched, rejected + (reason in BY_ADMISSION))
    names = [each.event.event for each in market.events()[logged:]]
    assert names == (["job_queued", "job_started"] if reason == "admitted" else ["job_refused"])
    event = market.events()[logged].event
    assert (event.job_id, event.owner) == (request["job_id"], "buyer")
    assert event.detail["units"] == request["lengths"][0] // UNIT_BYTES
    assert event.detail.get("reason") == (None if reason == "admitted" else reason)


def test_refuse_tells_the_decision_with_its_reason_and_numbers(market: Market) -> None:
    market.configure(initial_capacity=10, fair_share_cap_ppm=10_000)
    market.post()
    request = {"lengths": (25 * UNIT_BYTES,)}
    market.submit("first", **request)
    refused = market.submit(**request)
    decision = market.view(lambda txn: events.decision_document(txn, "job"))
    assert decision == {
        "verdict": "refused",
        "at": market.now_ms // 1000,
        "reason": "burst_exhausted",
        "message": refused.message,
        "units": 25,
        "mode": "loose",
        "retry_after_ms": refused.retry_after_ms,
    }
    assert refused.retry_after_ms > 0


def test_decision_of_an_id_is_the_last_one(market: Market) -> None:
    market.post()
    market.submit(max_price_per_unit=1)
    market.advance(5)
    market.submit()
    market.prove()
    assert market.view(lambda txn: events.decision_document(txn, "job")) == {
        "verdict": "admitted",
        "at": market.now_ms // 1000,
        "provider": "prov",
        "units": 1,
        "price_per_unit": 5,
        "funded": False,
        "mode": "loose",
    }
    assert market.view(lambda txn: events.decision_document(txn, "nobody")) is None


def test_refused_id_can_be_used_for_another_job(market: Market) -> None:
    market.post()
    assert market.submit("job", max_price_per_unit=1).reason == "price_mismatch"
    assert market.submit("job", buyer="somebody else").job.state == "active"
