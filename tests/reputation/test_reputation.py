"""Scores of providers: where they start, how they move, who is in bad standing."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compute_market.errors import NotFoundError
from compute_market.housekeeping import SCORES_LIMIT, housekeeping
from compute_market.offers import standing
from compute_market.records import Score, replace
from compute_market.reputation import reputation
from compute_market.reputation.laws import LAWS
from compute_market.reputation.reputation import SCORE_MAX
from compute_market.store.schema import REPUTATION, SCORES_DUE, SCORES_RECENT
from compute_market.store.txn import Txn
from tests.support.market import START_MS, Market

START = START_MS // 1000


def entry(market: Market, provider: str = "prov") -> Score | None:
    return market.view(lambda txn: reputation.entry(txn, provider))


def adjust(delta: int, provider: str = "prov") -> Callable[[Txn], None]:
    return lambda txn: standing.record_outcome(txn, provider, delta)


def recent(market: Market) -> list[tuple[str, int]]:
    return market.view(lambda txn: list(reputation.recent(txn)))


def test_score_of_an_unknown_provider_is_zero(market: Market) -> None:
    assert market.view(lambda txn: reputation.score(txn, "nobody")) == 0
    assert entry(market, "nobody") is None


@pytest.mark.parametrize(
    ("advertised", "score"),
    [(0, 0), (7, 7), (-7, -7), (1000, 1000), (1001, 1000), (-1001, -1000), (2**63 - 1, 1000)],
)
def test_first_offer_seeds_the_score(market: Market, advertised: int, score: int) -> None:
    market.post(reputation=advertised)
    assert entry(market) == Score(score, score, 0, START_MS, score < 0)
    assert recent(market) == [("prov", score)]


def test_later_offers_change_no_score(market: Market) -> None:
    market.post(reputation=7)
    market.advance(60)
    market.post(reputation=500)
    assert entry(market) == Score(7, 7, 0, START_MS)
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
        changes = [reputation.adjust(txn, "prov", delta) for delta in (1, 1, -1)]
        return [(before.score, after.score) for before, after in changes]

    assert market.update(action) == [(0, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize(("advertised", "delta"), [(SCORE_MAX, 1), (-SCORE_MAX, -1)])
def test_adjusting_stops_at_the_bounds(market: Market, advertised: int, delta: int) -> None:
    market.post(reputation=advertised)
    market.update(adjust(delta))
    assert market.view(lambda txn: reputation.score(txn, "prov")) == advertised
    assert recent(market) == [("prov", advertised)]
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


@pytest.mark.parametrize("advertised", [-2, -1, 0, 1])
def test_score_below_zero_is_bad_standing_and_zero_is_not(market: Market, advertised: int) -> None:
    market.post(reputation=advertised)
    found = []
    for delta in (1, 1, -1, -1, -1):
        market.update(adjust(delta))
        found.append(market.view(lambda txn: reputation.is_barred(txn, "prov")))
    scores = [advertised + change for change in (1, 2, 1, 0, -1)]
    assert found == [score < 0 for score in scores]


def test_unknown_provider_is_in_good_standing(market: Market) -> None:
    assert not market.view(lambda txn: reputation.is_barred(txn, "nobody"))


def test_recent_puts_the_last_change_first(market: Market) -> None:
    for provider in ("a", "b", "c"):
        market.post(provider, reputation=3)
        market.advance(1)
    market.update(adjust(-1, "a"))
    assert recent(market) == [("a", 2), ("c", 3), ("b", 3)]


PROVIDERS = ("a", "ab", "b")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(st.sampled_from(PROVIDERS), st.integers(-3, 3)),
    st.lists(
        st.tuples(
            st.sampled_from(PROVIDERS), st.sampled_from([-1, 1]), st.sampled_from([0, 1, -1])
        ),
        max_size=20,
    ),
)
def test_recent_holds_every_score_once(
    market: Market, seeds: dict[str, int], changes: list[tuple[str, int, int]]
) -> None:
    def action(txn: Txn) -> None:
        model = dict(seeds)
        for provider, advertised in seeds.items():
            reputation.seed(txn, provider, advertised)
        for provider, delta, later_ms in changes:
            txn.now_ms += later_ms
            reputation.adjust(txn, provider, delta)
            model[provider] = model.get(provider, 0) + delta
        found = list(reputation.recent(txn))
        assert dict(found) == model
        assert len(found) == len(model)
        assert [violation for law in LAWS for violation in law.check(txn)] == []

    market.update(action, dry_run=True)


def test_document_shows_score_seed_and_last_change(market: Market) -> None:
    market.post(reputation=5)
    market.advance(2.5)
    market.update(adjust(-1))
    assert market.view(lambda txn: reputation.document(txn, "prov")) == {
        "provider": "prov",
        "score": 4,
        "seed": 5,
        "epoch": START + 2,
        "last_change": START + 2,
        "barred": False,
        "barred_until": None,
    }


def test_document_of_an_unknown_provider_is_not_found(market: Market) -> None:
    with pytest.raises(NotFoundError, match="provider nobody has no score"):
        market.view(lambda txn: reputation.document(txn, "nobody"))


def test_adjusting_is_an_event(market: Market) -> None:
    market.update(adjust(-1))
    (logged,) = market.events("score_changed")
    assert (logged.event.owner, logged.event.detail) == ("prov", {"delta": -1, "score": -1})


# What time alone does.

DAY = 86_400
WEEK = 7 * DAY


def fades(market: Market, provider: str = "prov") -> tuple[int, int]:
    """The present score and what is earned of it."""
    return market.view(
        lambda txn: (reputation.score(txn, provider), reputation.earned(txn, provider))
    )


def gain(market: Market, times: int, provider: str = "prov") -> None:
    for _ in range(times):
        market.update(adjust(+1, provider))


def test_score_fades_when_read_and_nothing_is_written(market: Market) -> None:
    market.post(reputation=100)
    gain(market, 20)
    stored = entry(market)
    assert fades(market) == (120, 20)
    market.advance(DAY - 1)
    assert fades(market) == (120, 20)
    market.advance(1)
    assert fades(market) == (114, 19)
    market.advance(DAY)
    assert fades(market) == (108, 18)
    market.update(lambda txn: None)
    assert entry(market) == stored
    assert recent(market) == [("prov", 108)]


def test_outcome_counts_from_the_faded_score_on(market: Market) -> None:
    market.post(reputation=100)
    gain(market, 20)
    market.advance(DAY + 60)
    market.update(adjust(+1))
    found = entry(market)
    assert found is not None
    assert (found.score, found.seed) == (115, 95)
    assert fades(market) == (115, 20)
    market.advance(DAY - 60)  # A period begins with the last change.
    assert fades(market) == (115, 20)
    market.advance(60)
    assert fades(market) == (109, 19)


def test_decay_of_zero_switches_fading_off(market: Market) -> None:
    market.configure(reputation_decay_ppm=0)
    market.post(reputation=100)
    market.advance(1000 * DAY)
    assert fades(market) == (100, 0)


def test_score_that_bars_returns_when_it_has_faded_to_zero(market: Market) -> None:
    market.deposit("prov", ct=100)
    offer = market.post(reputation=0)
    market.update(adjust(-1))
    assert market.offer(offer.offer_id).shelf == "barred"
    # 0.95^13 is more than a half, 0.95^14 is not.
    until = START + 14 * DAY
    document = market.view(lambda txn: reputation.document(txn, "prov"))
    assert (document["barred"], document["barred_until"]) == (True, until)
    market.advance(14 * DAY - 1)
    assert market.submit("early").reason == "reputation_failure"
    market.advance(1)
    market.submit("due")
    assert market.job("due").placed.offer_id == offer.offer_id
    assert market.offer(offer.offer_id).shelf == "open"
    (logged,) = market.events("score_restored")
    assert logged.event.owner == "prov"
    assert fades(market) == (0, 0)


def test_score_that_bars_stays_while_the_clock_is_not_believed(market: Market) -> None:
    offer = market.post(reputation=-1)

    def untimely(txn: Txn) -> None:
        txn.timely = False
        txn.now_ms += 100 * DAY * 1000
        housekeeping(txn, 0)
        assert reputation.is_barred(txn, "prov")

    market.update(untimely, dry_run=True)
    assert market.offer(offer.offer_id).shelf == "barred"


def test_change_puts_off_what_was_due(market: Market) -> None:
    market.post(reputation=-1)
    market.advance(10 * DAY)
    market.update(adjust(-1))
    market.advance(5 * DAY)
    market.update(lambda txn: None)
    assert market.view(lambda txn: reputation.is_barred(txn, "prov"))


def test_provider_at_zero_is_forgotten_after_the_retention(market: Market) -> None:
    market.post(reputation=0)
    market.post("other", reputation=1)
    market.advance(WEEK)
    market.update(lambda txn: None)
    assert entry(market) is not None
    market.advance(1)
    market.update(lambda txn: None)
    assert entry(market) is None
    # 0.95^14 is less than a half.
    market.advance(14 * DAY)
    market.update(lambda txn: None)
    assert entry(market, "other") is None
    assert recent(market) == []
    assert market.view(lambda txn: txn.size(SCORES_DUE)) == 0


def test_provider_that_was_barred_is_forgotten_later(market: Market) -> None:
    market.post(reputation=-1)
    market.advance(14 * DAY + WEEK)
    market.update(lambda txn: None)
    assert entry(market) == Score(-1, -1, 0, START_MS)
    market.advance(1)
    market.update(lambda txn: None)
    assert entry(market) is None


def test_forgotten_provider_begins_anew(market: Market) -> None:
    market.post(reputation=-1)
    market.advance(365 * DAY)
    market.post(reputation=7)
    assert fades(market) == (7, 0)


def test_other_settings_change_what_is_due(market: Market) -> None:
    market.deposit("prov", ct=100)
    offer = market.post(reputation=-1)
    market.advance(DAY)
    market.configure(reputation_decay_ppm=500_001)
    market.update(lambda txn: None)
    assert market.offer(offer.offer_id).shelf == "open"
    market.configure(reputation_decay_ppm=0)
    assert market.violations() == []  # It is not worked yet.
    market.update(lambda txn: None)
    assert market.offer(offer.offer_id).shelf == "barred"
    assert (market.opened.due.restored, market.opened.due.barred) == (0, 1)
    assert market.opened.due.text == "1 provider in bad standing by other settings"
    market.update(lambda txn: None)
    assert market.opened.due.text == ""
    market.configure(reputation_decay_ppm=50_000, reputation_decay_period_secs=60)
    market.update(lambda txn: None)
    assert market.offer(offer.offer_id).shelf == "open"
    market.configure(reputation_retention_secs=60)
    market.update(lambda txn: None)
    assert entry(market) is None


def test_one_change_does_a_bounded_part_of_what_is_due(market: Market) -> None:
    def seed(txn: Txn) -> None:
        for number in range(2 * SCORES_LIMIT + 1):
            reputation.seed(txn, f"p{number}", 0)

    market.update(seed)
    market.advance(WEEK + 1)
    left = []
    for _ in range(4):
        market.update(lambda txn: None)
        left.append(market.view(lambda txn: txn.size(REPUTATION)))
    assert left == [SCORES_LIMIT + 1, 1, 0, 0]


def test_pardon_is_an_event_with_its_reason(market: Market) -> None:
    market.deposit("prov", ct=100)
    offer = market.post(reputation=-3)
    market.update(lambda txn: standing.pardon(txn, "prov", 5, "the power was out"))
    assert fades(market) == (2, 5)
    assert market.offer(offer.offer_id).shelf == "open"
    (logged,) = market.events("score_adjusted")
    assert (logged.event.owner, logged.event.detail) == (
        "prov",
        {"delta": 5, "score": 2, "reason": "the power was out"},
    )
    assert market.counter("reputation_adjust_total", "success") == 0


# What the audit finds.


@pytest.mark.parametrize(
    ("table", "damage", "law"),
    [
        ("reputation", {"barred": True}, "below zero is bad standing"),
        ("reputation", {"score": -4}, "below zero is bad standing"),
        ("scores_recent", {"changed_ms": 1}, "every score is found by its last change"),
    ],
)
def test_audit_finds_a_score_that_was_tampered_with(
    market: Market, table: str, damage: dict[str, int], law: str
) -> None:
    market.post(reputation=3)

    def action(txn: Txn) -> list[tuple[str, str]]:
        score = txn.must_read(REPUTATION, b"prov")
        txn.write(REPUTATION, b"prov", replace(score, **damage))
        return [(v.table, v.law) for each in LAWS for v in each.check(txn)]

    due = "scores_due", "what time changes of a score falls due"
    assert market.update(action, dry_run=True) == [(table, law), due]


def test_audit_finds_a_change_of_no_score(market: Market) -> None:
    def action(txn: Txn) -> list[str]:
        txn.put(SCORES_RECENT, bytes(8) + b"nobody")
        return [v.table for each in LAWS for v in each.check(txn)]

    assert market.update(action, dry_run=True) == ["scores_recent"]
