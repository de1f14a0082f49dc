"""Capacity: the estimate, the headroom, and what a refusal for lack of it says."""

import pytest

from compute_market.admission import capacity
from compute_market.records import Refused
from tests.admission.support import MICRO, enter, reason
from tests.support.market import Market


def record_capacity(market: Market, *samples: int) -> int:
    found = [market.update(lambda txn, n=sample: capacity.record(txn, n)) for sample in samples]
    return int(found[-1])


def headroom(market: Market) -> int:
    return market.view(capacity.headroom_micro)


def refused(market: Market, demand: int) -> Refused:
    verdict = enter(market, demand, buyer="late", provider="late")
    assert isinstance(verdict, Refused)
    return verdict


def test_estimate_without_samples_is_the_initial_capacity(market: Market) -> None:
    market.configure(initial_capacity=77)
    assert market.view(capacity.estimate) == 77


def test_record_capacity_seeds_the_history_once(market: Market) -> None:
    assert record_capacity(market, 201) == 150  # floor((100 + 201) / 2)
    market.configure(initial_capacity=1)
    assert record_capacity(market, 2) == 101  # (100 + 201 + 2) / 3
    assert market.view(capacity.estimate) == 101


def test_record_capacity_keeps_the_last_eight_samples(market: Market) -> None:
    assert record_capacity(market, *[20] * 7) == 30  # (100 + 7 · 20) / 8
    assert record_capacity(market, 20) == 20
    assert record_capacity(market, 27) == 20  # floor(20.875)
    assert record_capacity(market, 28) == 21  # floor(21.875)


def test_record_capacity_decides_the_next_submission(market: Market) -> None:
    market.post()
    record_capacity(market, *[9] * 8)
    assert reason(market.submit()) == "capacity"
    record_capacity(market, *[10] * 8)
    assert reason(market.submit()) == "admitted"


def test_record_capacity_is_an_event(market: Market) -> None:
    record_capacity(market, 300)
    (logged,) = market.events("capacity_recorded")
    assert logged.event.detail == {"units_per_second": 300, "estimate": 200}


# Headroom.


@pytest.fixture
def crowded(market: Market) -> Market:
    """A market that does 600 units a minute, of which four pairs of parties took 150 each."""
    market.configure(initial_capacity=10)
    for number in range(4):
        assert reason(enter(market, 150, buyer=f"b{number}", provider=f"p{number}")) == "admitted"
    return market


def test_headroom_is_what_all_parties_together_left(market: Market) -> None:
    assert headroom(market) == 6000 * MICRO
    enter(market, 100, buyer="anna", provider="prov")
    enter(market, 50, buyer="ben", provider="other")
    assert headroom(market) == 5850 * MICRO


def test_headroom_comes_back_in_a_line(crowded: Market) -> None:
    found = []
    for seconds in (0, 0.001, 29.999, 30, 100):
        crowded.advance(seconds)
        found.append(headroom(crowded))
    assert found == [0, 10_000, 300 * MICRO, 600 * MICRO, 600 * MICRO]


def test_headroom_follows_the_estimate_and_is_never_below_zero(crowded: Market) -> None:
    assert record_capacity(crowded, 20) == 15
    assert headroom(crowded) == 300 * MICRO
    crowded.configure(initial_capacity=10)
    assert record_capacity(crowded, *[1] * 8) == 1
    assert headroom(crowded) == 0


def test_admit_takes_what_is_left_and_not_one_unit_more(market: Market) -> None:
    market.configure(initial_capacity=10, fair_share_cap_ppm=MICRO)
    enter(market, 401)
    assert reason(enter(market, 200, buyer="late", provider="late")) == "capacity"
    assert reason(enter(market, 199, buyer="late", provider="late")) == "admitted"
    assert headroom(market) == 0


def test_refuse_by_headroom_names_the_wait_to_the_millisecond(crowded: Market) -> None:
    verdict = refused(crowded, 37)
    assert verdict.message == "the job needs 37 units, 0 of the 600 in 60 s are left"
    assert verdict.retry_after_ms == 3700
    assert verdict.hint == "it would pass in 4 s"
    crowded.advance(3.699)
    assert refused(crowded, 37).retry_after_ms == 1
    crowded.advance(0.001)
    assert reason(enter(crowded, 37, buyer="late", provider="late")) == "admitted"


def test_refuse_that_no_wait_can_help_says_how_many_units_a_job_may_have(crowded: Market) -> None:
    verdict = refused(crowded, 601)
    assert verdict.message == "the job needs 601 units, the market does 600 in 60 s"
    assert verdict.hint is not None
    assert "at most 600 units" in verdict.hint
    assert verdict.retry_after_ms is None
    assert not verdict.error().retryable


def test_refuse_below_the_least_capacity_says_how_to_record_one(market: Market) -> None:
    record_capacity(market, *[9] * 8)
    verdict = refused(market, 1)
    assert verdict.message == "the capacity estimate 9 units/s is below min_capacity 10"
    assert verdict.hint is not None
    assert "capacity record" in verdict.hint


def test_refuse_after_the_clock_was_set_back_waits_no_longer(crowded: Market) -> None:
    before = refused(crowded, 37).retry_after_ms
    crowded.advance(-10)
    assert refused(crowded, 37).retry_after_ms == before == 3_700


# `capacity show`.


def test_document_shows_samples_headroom_and_parties(market: Market) -> None:
    assert market.view(capacity.document) == {
        "estimate": 100,
        "samples": [100],
        "headroom": 6000,
        "window_secs": 60,
        "share": 1500,
        "burst": 30,
        "parties": [],
    }
    record_capacity(market, 20)
    enter(market, 60, buyer="anna", provider="prov")
    market.advance(30)
    enter(market, 1, buyer="ben", provider="prov")
    found = market.view(capacity.document)
    assert (found["estimate"], found["samples"], found["headroom"]) == (60, [100, 20], 3569)
    assert found["parties"] == [
        {"role": "provider", "identity": "prov", "used": 31, "burst_left": 30, "share_left": 869},
        {"role": "buyer", "identity": "ben", "used": 1, "burst_left": 30, "share_left": 899},
        {"role": "buyer", "identity": "anna", "used": 30, "burst_left": 30, "share_left": 870},
    ]
