"""When the time of a job begins, and how near and far its deadline may be."""

import pytest

from compute_market.errors import RefusedError
from compute_market.records import DEADLINE_MAX
from compute_market.store.schema import DEADLINES
from tests.support.market import Market
from tests.support.state import command, states


def one_slot(market: Market) -> None:
    market.configure(slots=1)
    market.post(reputation=9)
    market.submit("first", deadline_secs=600)


def test_span_counts_from_the_start_of_the_job(market: Market) -> None:
    one_slot(market)
    market.submit(deadline_secs=100)
    market.advance(90)
    market.prove("first")
    job = market.job()
    assert (job.state, job.deadline) == ("active", market.now_ms // 1000 + 100)
    assert market.view(lambda txn: txn.size(DEADLINES)) == 1
    market.advance(100)
    market.prove()
    assert market.job().state == "completed"


def test_absolute_deadline_does_not_move(market: Market) -> None:
    one_slot(market)
    deadline = market.now_ms // 1000 + 100
    market.submit(deadline=deadline)
    market.advance(90)
    market.prove("first")
    assert (market.job().state, market.job().deadline) == ("active", deadline)


def test_job_that_waits_as_long_as_its_span_ends_without_penalty(market: Market) -> None:
    one_slot(market)
    market.submit(deadline_secs=100)
    market.advance(101)
    command(market)
    assert states(market, "first", "job") == ["active", "failed"]
    assert (market.job().cause, market.score()) == ("never_started", 9)


def test_submit_again_after_the_start_is_the_same_job(market: Market) -> None:
    one_slot(market)
    market.submit(deadline_secs=100)
    market.advance(90)
    market.prove("first")
    assert market.submit(deadline_secs=100).changed is False


@pytest.mark.parametrize("secs", [60, 2_592_000])
def test_deadline_at_the_bound_is_taken(market: Market, secs: int) -> None:
    market.post()
    market.submit("span", deadline_secs=secs)
    market.submit("absolute", deadline=market.now_ms // 1000 + secs)
    assert states(market, "span", "absolute") == ["active", "active"]


@pytest.mark.parametrize(("secs", "words"), [(59, "at least 60 s"), (2_592_001, "at most 2592000")])
def test_deadline_beyond_a_bound_is_refused(market: Market, secs: int, words: str) -> None:
    market.post()
    for fields in ({"deadline_secs": secs}, {"deadline": market.now_ms // 1000 + secs}):
        with pytest.raises(RefusedError, match=words) as caught:
            market.submit(**fields)
        assert caught.value.reason == "deadline"


def test_bounds_are_settings(market: Market) -> None:
    market.configure(deadline_min_secs=0, deadline_max_secs=DEADLINE_MAX)
    market.post()
    market.submit("now", deadline_secs=0)
    market.submit("ever", deadline_secs=DEADLINE_MAX)
    assert market.job("ever").deadline == DEADLINE_MAX
