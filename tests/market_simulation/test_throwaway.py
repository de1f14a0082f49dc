"""A market to be thrown away is the real one, whatever it does without."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from compute_market import audit
from compute_market.config.settings import Config
from compute_market.engine import Engine, open_store
from compute_market.errors import InternalError, MarketError, RefusedError, UsageError
from compute_market.jobs import jobs
from compute_market.jobs.prove import prove
from compute_market.jobs.submit import post_offer, submit
from compute_market.market import Market
from compute_market.records import replace
from compute_market.simulation import throwaway
from compute_market.simulation.arrivals import DIGEST, slice_of
from compute_market.store.environment import Creation
from compute_market.store.rewriting import stored_entries
from compute_market.store.schema import TABLES
from compute_market.store.txn import Txn
from tests.support.life import REAL, Clock, fund, job, life, offer


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., tuple[Engine, Clock]]]:
    """Opens throw-away markets, each with a clock of its own."""
    with ExitStack() as stack:

        def open_one(config: Config = REAL) -> tuple[Engine, Clock]:
            clock = Clock()
            home = tmp_path / f"home-{len(list(tmp_path.iterdir()))}"
            home.mkdir()
            market = stack.enter_context(throwaway.open_market(str(home), config, clock))
            return market, clock

        yield open_one


def durable(tmp_path: Path, clock: Clock, config: Config = REAL) -> Engine:
    """The same market on a store like any other."""
    creation = Creation(clock(), throwaway.MARKET_ID)
    store = open_store(str(tmp_path / "durable"), config, sleep=lambda _: None, creation=creation)
    return Engine(store, config, clock=clock)


def contents(market: Engine) -> dict[str, list[tuple[bytes, bytes]]]:
    return market.view(
        lambda txn: {table.name: list(stored_entries(txn, table)) for table in TABLES}
    )


def attempt(fn: Callable[[Txn], Any]) -> Callable[[Txn], Any]:
    """An action whose refusal by an error is its result, as everything in a simulation is."""

    def act(txn: Txn) -> Any:
        try:
            return fn(txn)
        except RefusedError as error:
            return error.reason
        except MarketError as error:
            return type(error).__name__

    return act


@pytest.mark.parametrize("mode", ["dry_run", "real"])
@pytest.mark.parametrize(("changes_max", "resident_max"), [(1, 20), (7, 2), (7, 90), (10_000, 0)])
def test_changes_leave_the_same_bytes_as_in_a_durable_market(
    tmp_path: Path,
    opened: Callable[..., tuple[Engine, Clock]],
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    changes_max: int,
    resident_max: int,
) -> None:
    """Also where tables become too long to be kept in memory."""
    monkeypatch.setattr("compute_market.store.resident.RESIDENT_MAX", resident_max)
    monkeypatch.setattr("compute_market.store.throwaway.CHANGES_MAX", changes_max)
    config = replace(REAL, settle_mode=mode)
    market, clock = opened(config)
    told = []
    for wait_ms, act in life(150):
        clock.now_ms += wait_ms
        told.append((market.update(attempt(act)), market.due))
    other_clock = Clock()
    with durable(tmp_path, other_clock, config) as other:
        for (wait_ms, act), (verdict, due) in zip(life(150), told, strict=True):
            other_clock.now_ms += wait_ms
            assert other.update(attempt(act)) == verdict
            assert other.due == due
        assert contents(market) == contents(other)
        states = {each["state"] for each in Market(other).jobs()}
        assert {"completed", "cancelled", "failed"} <= states
    assert Market(market).audit() == []


def test_view_sees_the_change_before_it(opened: Callable[..., tuple[Engine, Clock]]) -> None:
    market, clock = opened()
    market.update(fund)
    market.update(lambda txn: post_offer(txn, offer("o-1")))
    market.update(lambda txn: submit(txn, job("j-1"), [slice_of(2)]))
    assert Market(market).job("j-1")["state"] == "active"
    assert market.view(lambda txn: list(audit.check(txn))) == []
    clock.now_ms += 1_000
    market.update(lambda txn: prove(txn, "j-1", [(0, DIGEST)]))
    assert Market(market).job("j-1")["state"] == "completed"


def test_dry_run_leaves_nothing(opened: Callable[..., tuple[Engine, Clock]]) -> None:
    market, _ = opened()
    market.update(fund)
    before = contents(market)
    posted = market.update(lambda txn: post_offer(txn, offer("o-1")), dry_run=True)
    assert posted.changed
    assert contents(market) == before
    market.update(lambda txn: post_offer(txn, offer("o-2")))
    assert [each["offer_id"] for each in (Market(market).offer("o-2"),)] == ["o-2"]


def test_change_that_raises_ends_the_market(opened: Callable[..., tuple[Engine, Clock]]) -> None:
    market, _ = opened()
    market.update(fund)

    def fails(txn: Txn) -> None:
        post_offer(txn, offer("o-1"))
        jobs.get(txn, "none")

    with pytest.raises(Exception, match="job none does not exist"):
        market.update(fails)
    with pytest.raises(InternalError, match="no change after one that failed"):
        market.update(fund)
    assert Market(market).audit() == []


def test_open_in_a_directory_that_has_a_market_is_refused(tmp_path: Path) -> None:
    with durable(tmp_path, Clock()) as market:
        market.update(fund)
        before = contents(market)
        with (
            pytest.raises(UsageError, match="a market that somebody may need"),
            throwaway.open_market(market.store.path, REAL, Clock()),
        ):
            pass
        assert contents(market) == before
