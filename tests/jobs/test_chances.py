"""What chances an offer had: every job that came by counts once, for what became of it."""

from typing import Any

import pytest

from compute_market.errors import NotFoundError
from compute_market.jobs import chances as chances_module
from compute_market.jobs.chances import chances
from compute_market.offers import offers
from tests.support.market import Market

KINDS = ("won", "undercut", "lacking", "barred", "unfunded", "fits_now", "unknown")


def of(market: Market, offer_id: str = "mine", since_ms: int | None = None) -> dict[str, Any]:
    found = market.view(lambda txn: chances(txn, offer_id, since_ms))
    assert found["seen"] == sum(found[kind] for kind in KINDS)
    return found


def counts(found: dict[str, Any]) -> dict[str, int]:
    return {kind: found[kind] for kind in KINDS if found[kind]}


def test_each_job_counts_for_what_became_of_it(market: Market) -> None:
    market.post("acme", offer_id="mine", price_per_unit=9, capability={"cpu_cores": 4})
    market.submit("first")
    market.post("cheap", offer_id="cheap", price_per_unit=5, units=2)
    market.submit("lost")
    market.submit("lost-too", max_price_per_unit=9)
    market.submit("won-again")  # The cheap one has nothing left.
    market.submit("gpu", capability={"gpu": "H100", "cpu_cores": 8})
    market.submit("cores", capability={"cpu_cores": 8}, wait=True)
    market.submit("poor", max_price_per_unit=4)
    market.submit("poor", max_price_per_unit=4)  # It came twice, and is one job.
    found = of(market)
    assert counts(found) == {"won": 2, "undercut": 2, "lacking": 3}
    assert found["lacked"] == {"cpu_cores": 2, "gpu": 1, "gpu_count": 1, "max_price_per_unit": 1}
    assert (found["winner_price"], found["effective_price"]) == (5, 9)
    assert (found["is_cut"], found["since_ms"]) == (False, market.now_ms)
    with pytest.raises(NotFoundError, match="nope"):
        of(market, "nope")


def test_standing_and_wallet_are_told_apart_from_what_is_lacked(market: Market) -> None:
    market.opened.arm(0)
    market.advance(1)
    market.post("acme", offer_id="mine", provider_bond=5)
    market.post("bad", offer_id="bad", reputation=-3)
    market.deposit("bad", ct=100)
    market.submit("job")
    assert counts(of(market)) == {"unfunded": 1}
    assert counts(of(market, "bad")) == {"barred": 1}
    market.deposit("acme", ct=5)
    assert counts(of(market)) == {"fits_now": 1}


def test_jobs_from_before_the_offer_or_the_time_do_not_count(market: Market) -> None:
    market.submit("early")
    market.advance(10)
    market.post("acme", offer_id="mine")
    market.submit("one")
    market.advance(60)
    market.submit("two")
    assert counts(of(market)) == {"won": 2}
    assert counts(of(market, since_ms=market.now_ms - 30_000)) == {"won": 1}
    assert of(market, since_ms=market.now_ms - 30_000)["since_ms"] == market.now_ms - 30_000


def test_withdrawn_offer_is_asked_about_as_it_was(market: Market) -> None:
    market.post("acme", offer_id="mine")
    market.update(lambda txn: offers.withdraw(txn, "mine"))
    market.submit("job")
    found = of(market)
    assert (counts(found), found["state"]) == ({"fits_now": 1}, "withdrawn")


def test_no_more_of_the_log_is_read_than_is_said(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.post("acme", offer_id="mine")
    for number in range(4):
        market.advance(10)
        market.submit(f"j{number}", capability={"gpu": "T4"})
    monkeypatch.setattr(chances_module, "LOOKED_AT", 2)
    found = of(market)
    assert (found["seen"], found["is_cut"]) == (2, True)
    assert found["since_ms"] == market.now_ms - 10_000
