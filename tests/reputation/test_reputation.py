"""Scores of providers: where they start, how they move, who is first."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_market.offers import offers
from compute_market.records import Score
from compute_market.reputation import reputation
from compute_market.reputation.reputation import SCORE_MAX
from compute_market.store.store import Txn
from tests.support.market import START_MS, Market

START = START_MS // 1000


def entry(market: Market, provider: str = "prov") -> Score | None:
    return market.view(lambda txn: reputation.entry(txn, provider))


def adjust(delta: int, provider: str = "prov") -> Callable[[Txn], None]:
    return lambda txn: offers.record_outcome(txn, provider, delta)


def ranking(market: Market) -> list[tuple[int, str]]:
    return market.view(lambda txn: list(reputation.ranking(txn)))


def test_score_of_an_unknown_provider_is_zero(market: Market) -> None:
    assert market.view(lambda txn: reputation.score(txn, "nobody")) == 0
    assert entry(market, "nobody") is None


@pytest.mark.parametrize(
    ("advertised", "score"),
    [(0, 0), (7, 7), (-7, -7), (1000, 1000), (1001, 1000), (-1001, -1000), (2**63 - 1, 1000)],
)
def test_first_offer_seeds_the_score(market: Market, advertised: int, score: int) -> None:
    market.post(reputation=advertised)
    assert entry(market) == Score(score, score, START, START_MS)
    assert ranking(market) == [(score, "prov")]


def test_later_offers_change_no_score(market: Market) -> None:
    market.post(reputation=7)
    market.advance(60)
    market.post(reputation=500)
    assert entry(market) == Score(7, 7, START, START_MS)
    market.update(adjust(-1))
    market.post(reputation=500)
    assert market.view(lambda txn: reputation.score(txn, "prov")) == 6


def test_offer_of_a_provider_known_by_its_outcomes_changes_no_score(market: Market) -> None:
    market.update(adjust(-1))
    market.post(reputation=500)
    found = entry(market)
    assert found is not None
    assert (found.score, found.seed) == (-1, 0)


def test_adjusting_moves_by_one_and_keeps_the_seed(market: Market) -> None:
    market.post(reputation=5)
    market.advance(10)
    market.update(adjust(+1))
    market.update(adjust(+1))
    market.update(adjust(-1))
    found = entry(market)
    assert found is not None
    assert (found.score, found.seed, found.changed_ms) == (6, 5, START_MS + 10_000)
    assert market.counter("reputation_adjust_total", "success") == 2
    assert market.counter("reputation_adjust_total", "failure") == 1


def test_adjusting_returns_the_scores_before_and_after(market: Market) -> None:
    def action(txn: Txn) -> list[tuple[int, int]]:
        return [reputation.adjust(txn, "prov", delta) for delta in (1, 1, -1)]

    assert market.update(action) == [(0, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize(("advertised", "delta"), [(SCORE_MAX, 1), (-SCORE_MAX, -1)])
def test_adjusting_stops_at_the_bounds(market: Market, advertised: int, delta: int) -> None:
    market.post(reputation=advertised)
    market.update(adjust(delta))
    assert market.view(lambda txn: reputation.score(txn, "prov")) == advertised
    assert ranking(market) == [(advertised, "prov")]
    market.update(adjust(-delta))
    assert market.view(lambda txn: reputation.score(txn, "prov")) == advertised - delta


def test_epoch_is_the_time_and_always_grows(market: Market) -> None:
    epochs = []

    def step() -> None:
        market.update(adjust(+1))
        found = entry(market)
        assert found is not None
        epochs.append(found.epoch - START)

    step()
    step()
    step()
    market.advance(1)
    step()
    market.advance(100)
    step()
    market.advance(-50)
    step()
    assert epochs == [0, 1, 2, 3, 101, 102]


def test_ranking_puts_the_highest_score_first(market: Market) -> None:
    for provider, advertised in [("a", 0), ("b", 1000), ("c", -1000), ("d", -1), ("aa", 0)]:
        market.post(provider, reputation=advertised)
    assert ranking(market) == [(1000, "b"), (0, "a"), (0, "aa"), (-1, "d"), (-1000, "c")]


PROVIDERS = ("a", "ab", "b")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(st.sampled_from(PROVIDERS), st.integers(-3, 3)),
    st.lists(st.tuples(st.sampled_from(PROVIDERS), st.sampled_from([-1, 1])), max_size=20),
)
def test_ranking_holds_every_score_once(
    market: Market, seeds: dict[str, int], changes: list[tuple[str, int]]
) -> None:
    def action(txn: Txn) -> None:
        model = dict(seeds)
        for provider, advertised in seeds.items():
            reputation.seed(txn, provider, advertised)
        for provider, delta in changes:
            reputation.adjust(txn, provider, delta)
            model[provider] = model.get(provider, 0) + delta
        ranked = list(reputation.ranking(txn))
        assert ranked == sorted(ranked, key=lambda rank: (-rank[0], rank[1]))
        assert {provider: score for score, provider in ranked} == model
        assert len(ranked) == len(model)

    market.update(action, dry_run=True)
