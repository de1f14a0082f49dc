"""The comfort guard: when it is tight, whom it holds, and that it follows from fees and pool."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market import chain, events
from compute_market.admission import comfort, mempool
from compute_market.config.settings import DEFAULTS
from compute_market.jobs import jobs, lanes, pools, waiting
from compute_market.jobs.submit import ask
from compute_market.offers import offers
from compute_market.records import Refused, replace
from compute_market.store.schema import MEMPOOL, MEMPOOL_NEXT_BLOCK
from compute_market.store.txn import Txn
from tests.support.market import Market, job_request, slice_of
from tests.support.state import command, states

HIGH = DEFAULTS.comfort_threshold_p90 + 1


def mode(market: Market) -> str:
    return market.view(comfort.mode)


def refusal(market: Market, **fields: Any) -> Refused:
    found = market.submit("job", **fields)
    assert isinstance(found, Refused)
    return found


def send_old(market: Market, age_ms: int) -> None:
    """Let a cheap transaction wait for so long."""
    market.configure(block_interval_secs=0)
    market.send(1)
    market.advance(age_ms / 1000)


# The fixed points.


def test_guard_of_a_new_market_is_loose(market: Market) -> None:
    assert mode(market) == "loose"
    assert market.view(pools.document) == {
        "mode": "loose",
        "fee_p50": 0,
        "fee_p90": 0,
        "lanes": {
            lane: {"size": 0, "age_p50_ms": 0, "age_p95_ms": 0}
            for lane in ("consumer", "industrial")
        },
    }


@pytest.mark.parametrize(("fee", "expected"), [(2500, "loose"), (2501, "tight")])
def test_guard_is_tight_above_the_threshold_of_fees(
    market: Market, fee: int, expected: str
) -> None:
    market.send(fee)
    assert mode(market) == expected


@pytest.mark.parametrize(("age_ms", "expected"), [(30_000, "loose"), (30_001, "tight")])
def test_guard_is_tight_above_the_threshold_of_ages(
    market: Market, age_ms: int, expected: str
) -> None:
    send_old(market, age_ms)
    assert mode(market) == expected


def test_threshold_of_ages_can_be_switched_off(market: Market) -> None:
    send_old(market, 10**9)
    assert mode(market) == "tight"
    market.configure(comfort_max_age_p95_ms=0)
    assert mode(market) == "loose"


def test_guard_goes_by_the_ninetieth_percentile_of_fees(market: Market) -> None:
    """Of ten fees the highest, of eleven the second."""
    for n in range(9):
        market.send(1, sender=f"s-{n}")
    market.send(HIGH, sender="rich")
    assert mode(market) == "tight"
    market.send(1, sender="s-9")
    assert mode(market) == "loose"


def test_guard_goes_by_the_95th_percentile_of_ages(market: Market) -> None:
    """Of eleven ages the oldest (9.5 is rounded up), of twelve too, of thirty the second."""
    send_old(market, 30_001)
    for n in range(10):
        market.send(1, sender=f"s-{n}")
    assert mode(market) == "tight"
    for n in range(19):
        market.send(1, sender=f"t-{n}")
    assert mode(market) == "loose"


# Who is held.


def test_submit_while_the_guard_is_tight_is_refused(market: Market) -> None:
    market.post()
    market.send(HIGH)
    refused = refusal(market, lengths=(1, 1))
    assert refused.reason == "comfort_guard"
    assert refused.message == (
        "the comfort guard is tight: the 90th percentile of the last consumer fees is 2501, above "
        "comfort_threshold_p90 2500"
    )
    assert refused.hint is not None
    (noted,) = market.events("job_refused")
    assert noted.event.detail == {
        "reason": "comfort_guard",
        "message": refused.message,
        "units": 2,
        "mode": "tight",
        "asked": {"max_price_per_unit": 100, "consumer_bond": 1, "provider_bond_min": 1},
    }
    assert market.counter("industrial_rejected_total", "comfort_guard") == 1
    assert market.counter("industrial_deferred_total") == 1
    # It was not even matched.
    assert market.counter("scheduler_match_total", "success") == 0


def test_refusal_names_every_threshold_that_is_crossed(market: Market) -> None:
    market.configure(block_interval_secs=0)
    market.send(HIGH)
    market.advance(31)
    assert refusal(market).message == (
        "the comfort guard is tight: the 90th percentile of the last consumer fees is 2501, above "
        "comfort_threshold_p90 2500 and the 95th percentile of the ages in the consumer pool is "
        "31000 ms, above comfort_max_age_p95_ms 30000"
    )


def test_submit_with_wait_while_the_guard_is_tight_is_refused_too(market: Market) -> None:
    market.send(HIGH)
    assert refusal(market, wait=True).reason == "comfort_guard"
    assert market.view(lambda txn: jobs.find(txn, "job")) is None


def test_jobs_of_the_consumer_lane_are_not_held(market: Market) -> None:
    market.post()
    market.send(HIGH)
    assert market.submit(lane="consumer").job.state == "active"
    (noted,) = market.events("job_queued")
    assert noted.event.detail["mode"] == "tight"


def test_guard_holds_no_job_that_was_admitted_before(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    market.submit("runs")
    market.submit("waits")
    market.send(HIGH)
    market.prove("runs")
    assert states(market, "runs", "waits") == ["completed", "active"]
    assert market.submit("waits").changed is False  # The id comes before the guard.


def test_ask_spares_the_hashing_while_the_guard_is_tight(market: Market) -> None:
    market.post()
    inputs = [slice_of(1)]
    request = job_request("job", inputs)

    def asked(txn: Txn) -> bool:
        return ask(txn, request, inputs, wait=True)

    assert market.view(asked)
    market.send(HIGH)
    assert not market.view(asked)


# Those that wait.


def test_pending_job_waits_until_the_guard_opens(market: Market) -> None:
    market.submit(wait=True)
    market.send(HIGH)
    market.post()
    assert states(market, "job") == ["pending"]
    reason = market.view(lambda txn: waiting.present_reason(txn, jobs.get(txn, "job")))
    assert reason.held_by == "admission: comfort_guard"
    assert reason.message.startswith("the comfort guard is tight: ")
    assert market.view(lambda txn: lanes.deferred_in(txn, "industrial")) == 1
    assert market.view(lambda txn: lanes.waiting_in(txn, "industrial")) == 0
    # What does not open it lets nobody in.
    for n in range(8):
        market.send(1, sender=f"s-{n}")
    command(market)
    assert states(market, "job") == ["pending"]
    for n in range(2):
        market.send(1, sender=f"t-{n}")
    assert market.opened.tick().matched == ("job",)
    assert states(market, "job") == ["active"]
    assert market.view(lambda txn: lanes.deferred_in(txn, "industrial")) == 0


def test_pending_job_gets_in_when_a_block_takes_the_old_ones(market: Market) -> None:
    market.submit(wait=True)
    send_old(market, 40_000)
    market.post()
    assert states(market, "job") == ["pending"]
    market.update(lambda txn: chain.advance(txn, 1))
    assert states(market, "job") == ["pending"]
    assert market.opened.tick().matched == ("job",)


@pytest.mark.parametrize(
    "changes", [{"comfort_threshold_p90": HIGH}, {"comfort_threshold_p90": 25_000}], ids=str
)
def test_pending_job_gets_in_under_another_threshold(
    market: Market, changes: dict[str, int]
) -> None:
    market.submit(wait=True)
    market.send(HIGH)
    market.post()
    market.configure(**changes)
    assert market.opened.tick().matched == ("job",)


def test_a_newcomer_does_not_overtake_whom_the_guard_held(market: Market) -> None:
    market.submit("first", wait=True)
    market.send(HIGH)
    market.post(units=1)
    market.configure(comfort_threshold_p90=HIGH)
    assert market.submit("second").reason == "no_capacity"
    assert states(market, "first") == ["active"]


def test_guard_that_opens_tries_more_than_one_change_can(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "TRIED_MAX", 2)
    names = [f"job-{n}" for n in range(5)]
    for name in names:
        market.submit(name, wait=True)
    market.send(HIGH)
    market.post()
    assert states(market, *names) == ["pending"] * 5
    market.configure(comfort_threshold_p90=HIGH)
    for _ in range(3):
        command(market)
    assert states(market, *names) == ["active"] * 5


def test_deferral_of_a_job_that_waits_is_told_and_counted_once(market: Market) -> None:
    market.submit(lengths=(1, 1), wait=True)
    market.send(HIGH)
    assert market.events("job_deferred") == []
    market.post()
    for _ in range(2):
        market.post("other")  # It is tried again, and held as before.
        command(market)
    (noted,) = market.events("job_deferred")
    message = market.view(lambda txn: waiting.present_reason(txn, jobs.get(txn, "job"))).message
    detail = {"reason": "comfort_guard", "message": message, "units": 2, "mode": "tight"}
    assert (noted.event.job_id, noted.event.owner) == ("job", "buyer")
    assert noted.event.detail == detail
    assert market.counter("industrial_deferred_total") == 1
    assert market.counter("industrial_rejected_total", "comfort_guard") == 0
    decision = market.view(lambda txn: events.decision_document(txn, "job"))
    assert decision == {"verdict": "pending", "at": market.now_ms // 1000, **detail}
    history = market.view(lambda txn: events.history(txn, jobs.get(txn, "job")))
    assert [each.event.event for each in history] == ["job_pending", "job_deferred"]


def test_deferral_that_begins_again_is_told_again(market: Market) -> None:
    """In between the job lacked something else than a market with less load."""
    market.submit(wait=True, max_price_per_unit=5)
    market.send(HIGH)
    market.post(offer_id="cheap")
    market.update(lambda txn: offers.withdraw(txn, "cheap"))
    market.configure(comfort_threshold_p90=HIGH)
    command(market)
    assert market.view(lambda txn: lanes.deferred_in(txn, "industrial")) == 0
    market.configure(comfort_threshold_p90=HIGH - 1)
    market.post(offer_id="cheap again")
    assert len(market.events("job_deferred")) == 2
    assert market.counter("industrial_deferred_total") == 2


def test_decision_of_a_job_that_waits_carries_the_mode(market: Market) -> None:
    market.send(HIGH)
    market.submit(wait=True, lane="consumer")
    decision = market.view(lambda txn: events.decision_document(txn, "job"))
    assert decision is not None
    assert (decision["verdict"], decision["mode"]) == ("pending", "tight")


# The pools that are shown.


def test_industrial_pool_is_the_queued_jobs_of_that_lane(market: Market) -> None:
    market.configure(slots=1, block_interval_secs=0)
    market.post()
    market.submit("runs")
    for n, (lane, priority) in enumerate(
        (("industrial", "low"), ("consumer", "high"), ("industrial", "high"))
    ):
        market.submit(f"job-{n}", lane=lane, priority=priority)
        market.send(5)
        market.advance(1)
    found = market.view(pools.document)["lanes"]
    assert found == {
        "consumer": {"size": 3, "age_p50_ms": 2000, "age_p95_ms": 3000},
        "industrial": {"size": 2, "age_p50_ms": 3000, "age_p95_ms": 3000},
    }


# Against a list that is sorted anew at each call.

HALF, Q90, Q95 = Fraction(1, 2), Fraction(9, 10), Fraction(19, 20)


class Naive:
    """The pool by the words of the specification, as a list."""

    def __init__(self, limit: int, sender_limit: int, capacity: int) -> None:
        self.limit, self.sender_limit, self.capacity = limit, sender_limit, capacity
        self.waiting: list[tuple[Fraction, int, str, int]] = []  # rate, seq, sender, arrival
        self.fees: list[int] = []
        self.seq = 0

    def order(self) -> list[tuple[Fraction, int, str, int]]:
        return sorted(self.waiting, key=lambda each: (-each[0], each[1]))

    def send(self, fee: int, size: int, sender: str, now_ms: int) -> str:
        if sum(each[2] == sender for each in self.waiting) >= self.sender_limit:
            return "sender_limit"
        rate = Fraction(fee, size)
        if len(self.waiting) >= self.limit:
            last = self.order()[-1]
            if rate <= last[0]:
                return "pool_full"
            self.waiting.remove(last)
        self.seq += 1
        self.waiting.append((rate, self.seq, sender, now_ms))
        self.fees.append(fee)
        return "admitted"

    def blocks(self, number: int) -> None:
        for each in self.order()[: number * self.capacity]:
            self.waiting.remove(each)

    def numbers(self, now_ms: int) -> tuple[int, ...]:
        """Size, ages, fees: `size age_p50 age_p95 fee_p50 fee_p90`."""
        ages = sorted(now_ms - each[3] for each in self.waiting)
        fees = sorted(self.fees[-50:])
        of_ages = (ages[int((len(ages) - 1) * q + HALF)] if ages else 0 for q in (HALF, Q95))
        of_fees = (fees[int(len(fees) * q)] if fees else 0 for q in (HALF, Q90))
        return (len(ages), *of_ages, *of_fees)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"),
            st.sampled_from((1, 2, 3, 4, 6, 100)),
            st.sampled_from((1, 2, 3)),
            st.sampled_from("abc"),
        ),
        st.tuples(st.just("blocks"), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.sampled_from((1, 250, 10_000))),
    ),
    max_size=70,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A store whose every history is rolled back."""
    found = Market(tmp_path_factory.mktemp("comfort") / "market")
    yield found
    found.store.close()


@given(
    steps=STEPS,
    limit=st.sampled_from((1, 3, 20)),
    sender_limit=st.sampled_from((1, 4, 20)),
    capacity=st.sampled_from((1, 2, 30)),
    fee_bound=st.sampled_from((1, 3, 99)),
    age_bound=st.sampled_from((0, 250, 10_000)),
)
def test_guard_follows_from_the_last_fifty_fees_and_the_pool(
    shared: Market,
    steps: list[tuple[Any, ...]],
    limit: int,
    sender_limit: int,
    capacity: int,
    fee_bound: int,
    age_bound: int,
) -> None:
    config = replace(
        DEFAULTS,
        block_interval_secs=0,
        block_tx_capacity=capacity,
        mempool_lane_limit=limit,
        mempool_sender_limit=sender_limit,
        comfort_threshold_p90=fee_bound,
        comfort_max_age_p95_ms=age_bound,
    )
    naive = Naive(limit, sender_limit, capacity)

    def compare(txn: Txn) -> None:
        shown = comfort.document(txn)
        numbers = naive.numbers(txn.now_ms)
        assert (*shown["consumer"].values(), shown["fee_p50"], shown["fee_p90"]) == numbers
        is_tight = numbers[4] > fee_bound or bool(age_bound and numbers[2] > age_bound)
        assert shown["mode"] == comfort.mode(txn) == ("tight" if is_tight else "loose")
        assert (comfort.gate(txn) is not None) == is_tight

    def play(txn: Txn) -> None:
        for name, *arguments in steps:
            if name == "send":
                fee, size, sender = arguments
                found = mempool.submit(txn, sender, fee, size)
                verdict = found.reason if isinstance(found, Refused) else "admitted"
                assert verdict == naive.send(fee, size, sender, txn.now_ms)
            elif name == "blocks":
                naive.blocks(*arguments)
                chain.advance(txn, *arguments)
                compare(txn)
                if 0 < txn.number(MEMPOOL_NEXT_BLOCK) <= chain.height(txn):
                    mempool.drain(txn, chain.height(txn))
            else:
                txn.now_ms += arguments[0]
            compare(txn)
            found_order = [each.seq for each in txn.records(MEMPOOL)]
            assert found_order == [each[1] for each in naive.order()]

    shared.store.update(play, now_ms=shared.now_ms, config=config, dry_run=True)
