"""The stage: what happens in which order, what an outage does to it, what a refusal is."""

from typing import Any

import pytest

from compute_market.errors import (
    AlreadyDoneError,
    BusyError,
    ConflictError,
    IntegrityError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.simulation.stage import Failed, Stage

NO_TXN: Any = None


def run(stage: Stage) -> None:
    while (at_ms := stage.next_ms()) is not None:
        while (act := stage.take(at_ms)) is not None:
            act(NO_TXN)


def test_take_gives_what_comes_first_and_was_planned_first() -> None:
    stage, done = Stage(), list[str]()
    stage.plan(20, lambda _: done.append("late"))
    stage.plan(10, lambda _: stage.plan(10, lambda _: done.append("then")))
    stage.plan(10, lambda _: done.append("first"))
    run(stage)
    assert done == ["first", "then", "late"]


def test_put_off_loses_what_can_be_missed_and_keeps_the_rest_in_order() -> None:
    stage, done = Stage(), list[str]()
    stage.plan(10, lambda _: done.append("work"))
    stage.plan(10, lambda _: done.append("arrival"), lambda: done.append("missed"))
    stage.plan(10, lambda _: done.append("more work"))
    stage.put_off(10, 30)
    assert stage.next_ms() == 30
    run(stage)
    assert done == ["missed", "work", "more work"]


def failing(error: MarketError) -> Any:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("kind", [RefusedError, ConflictError, NotFoundError, AlreadyDoneError])
def test_attempt_keeps_what_the_market_refuses(kind: type[MarketError]) -> None:
    stage = Stage()
    assert stage.attempt("prove", "job", failing(kind("no", reason="why"))) is None
    assert stage.failed == [Failed("prove", "job", "why", "no")]
    assert stage.attempt("prove", "job", lambda: 7) == 7


@pytest.mark.parametrize("kind", [IntegrityError, BusyError, UsageError])
def test_attempt_lets_pass_what_no_market_may_say(kind: type[MarketError]) -> None:
    stage = Stage()
    with pytest.raises(kind):
        stage.attempt("prove", "job", failing(kind("broken")))
    assert stage.failed == []
