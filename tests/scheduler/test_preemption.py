"""Which active job an offer takes over: every reason why not, in order, and the best of many."""

from collections.abc import Callable
from typing import Any

import pytest

from compute_market.offers import offers
from compute_market.scheduler import preemption
from compute_market.scheduler.matching import STAGES
from compute_market.scheduler.preemption import Kept, Takeover
from compute_market.settlement import modes
from compute_market.store.schema import ACTIVE, JOBS
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.preempting import DELTA, earn, preempting, rival
from tests.support.state import withdraw


def verdict(market: Market, offer_id: str = "better", job_id: str = "job") -> Takeover | Kept:
    return market.view(
        lambda txn: preemption.decide(
            txn, txn.must_read(JOBS, job_id.encode()), offers.get(txn, offer_id)
        )
    )


def found(market: Market, offer_id: str = "better") -> list[tuple[str, int]]:
    """(job, difference) of all that an offer could take over, the best first."""
    chosen = market.view(lambda txn: list(preemption.candidates(txn, offers.get(txn, offer_id))))
    return [(each.job.job_id, each.difference) for each in chosen]


def test_offer_of_a_provider_with_enough_earned_takes_a_job_over(market: Market) -> None:
    preempting(market)
    rival(market)
    taken = verdict(market)
    assert isinstance(taken, Takeover)
    assert (taken.job, taken.offer) == (market.job(), market.offer("better"))
    assert (taken.score_from, taken.score_to, taken.units) == (0, DELTA, 4)
    assert found(market) == [("job", DELTA)]


def disable(market: Market) -> None:
    market.configure(enable_preempt=False)


def take_bond_away(market: Market) -> None:
    # A job that was funded goes on to need a bond of true money.
    withdraw(market, "other", ct=market.balance("wallet/other"))


def fall(market: Market) -> None:
    earn(market, "prov", -40)
    earn(market, "other", -DELTA - 1)


# Each reason with how it comes about, after which the job would have gone over but for it; those
# behind it hold too, so that the order is seen.
REASONS: dict[str, tuple[dict[str, Any], Callable[[Market], Any], str]] = {
    "preempt_disabled": ({}, disable, "no offer takes a running job over here"),
    "not_active": ({}, lambda market: market.cancel(), "job job is cancelled, only an active job"),
    "deadline": ({}, lambda market: market.advance(86_401), "the deadline 1800086400 of job job"),
    "deadline_near": (
        {},
        lambda market: market.advance(86_400 - 59),
        "the deadline of job job is 59 s ahead, and nobody is given less than 60 s",
    ),
    "capability_mismatch": (
        {},
        lambda market: market.update(lambda txn: offers.withdraw(txn, "better")),
        "offer better does not fit job job: state: is withdrawn",
    ),
    "reputation_failure": ({}, fall, "reputation: needs 0, has -1"),
    "price_mismatch": (
        {"price_per_unit": 6},
        lambda market: None,
        "price_per_unit: pays 5, asks 6",
    ),
    "no_capacity": ({"units": 3}, lambda market: None, "units: needs 4, has 3 left"),
    "bond_unfunded": ({}, take_bond_away, "provider_bond: needs 1 CT, the wallet has 0"),
    "score_difference": (
        {},
        lambda market: earn(market, "prov", 1),
        "the earned score of other, 10, is not 10 above the 1 of prov",
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_job_stays_for_each_reason(market: Market, reason: str) -> None:
    fields, act, message = REASONS[reason]
    preempting(market, real=True)
    rival(market, **fields)
    act(market)
    kept = verdict(market)
    assert isinstance(kept, Kept)
    assert kept.reason == reason
    assert message in kept.message
    assert found(market) == []


def test_reasons_are_all_there_are() -> None:
    assert list(REASONS) == [
        "preempt_disabled",
        "not_active",
        "deadline",
        "deadline_near",
        *STAGES,
        "score_difference",
    ]


@pytest.mark.parametrize("first", range(len(REASONS) - 1))
def test_first_reason_decides(market: Market, first: int) -> None:
    """All reasons from one on at once: the first of them is told."""
    names = list(REASONS)[first:]
    preempting(market, real=True)
    fields: dict[str, Any] = {}
    for name in names:
        fields |= REASONS[name][0]
    rival(market, **fields)
    for name in reversed(names):
        REASONS[name][1](market)
    kept = verdict(market)
    assert isinstance(kept, Kept)
    assert kept.reason == names[0]


@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({"job_id": "another"}, "job_id: is for job another alone"),
        ({"consumer_bond": 21}, "consumer_bond: gives 20, asks 21"),
    ],
)
def test_offer_whose_terms_the_job_does_not_meet_takes_nothing(
    market: Market, fields: dict[str, Any], condition: str
) -> None:
    preempting(market)
    rival(market, **fields)
    kept = verdict(market)
    assert isinstance(kept, Kept)
    assert condition in kept.message


def test_buyer_does_not_take_its_own_job_over(market: Market) -> None:
    preempting(market)
    earn(market, "buyer", 50)
    market.post("buyer", offer_id="own")
    kept = verdict(market, "own")
    assert isinstance(kept, Kept)
    assert kept.reason == "capability_mismatch"


def test_advertised_score_counts_on_neither_side(market: Market) -> None:
    preempting(market, reputation=1000)
    rival(market, reputation=0)
    assert found(market) == [("job", DELTA)]


@pytest.mark.parametrize(("earned", "takes"), [(DELTA - 1, False), (DELTA, True)])
def test_difference_must_be_the_least_one(market: Market, earned: int, takes: bool) -> None:
    preempting(market)
    rival(market, earned=earned)
    assert bool(found(market)) == takes


@pytest.mark.parametrize(("ahead", "takes"), [(60, True), (59, False), (0, False)])
def test_nobody_is_given_less_time_than_a_job_leaves_its_provider(
    market: Market, ahead: int, takes: bool
) -> None:
    preempting(market)
    rival(market)
    assert market.config.deadline_min_secs == 60
    market.advance(86_400 - ahead)
    assert bool(found(market)) == takes
    market.configure(deadline_min_secs=0)
    assert found(market)


def test_units_for_what_is_left_are_enough(market: Market) -> None:
    preempting(market)
    market.prove("job", 0, 1)
    rival(market, units=2)
    taken = verdict(market)
    assert isinstance(taken, Takeover)
    assert taken.units == 2


def test_price_is_measured_by_the_present_one_and_not_by_what_the_buyer_would_pay(
    market: Market,
) -> None:
    preempting(market, price_per_unit=7)
    rival(market, price_per_unit=8)
    assert market.job().max_price_per_unit == 100
    assert found(market) == []
    rival(market, "same", price_per_unit=7)
    assert [job for job, _ in found(market, "same")] == ["job"]


def test_job_that_holds_no_money_asks_for_no_bond_in_real(market: Market) -> None:
    preempting(market)
    market.update(lambda txn: modes.arm(txn, 0))
    market.update(lambda txn: None)
    rival(market)
    take_bond_away(market)
    assert [job for job, _ in found(market)] == ["job"]


def test_largest_difference_comes_first_then_the_older_job(market: Market) -> None:
    preempting(market)
    for name, earned in (("a", 3), ("c", -2), ("b", -2)):
        market.post(f"of-{name}", offer_id=f"o-{name}", price_per_unit=4, job_id=name)
        market.submit(name)
        earn(market, f"of-{name}", earned)
    rival(market, earned=20, price_per_unit=4)
    assert found(market) == [("c", 22), ("b", 22), ("job", 20), ("a", 17)]


def test_directed_offer_considers_its_own_job_alone(market: Market) -> None:
    preempting(market)
    market.submit("j2")
    rival(market, job_id="j2")
    assert found(market) == [("j2", DELTA)]
    market.post("other", offer_id="lost", job_id="unknown")
    assert found(market, "lost") == []


def test_queued_and_pending_jobs_are_not_taken_over(market: Market) -> None:
    preempting(market)
    market.configure(slots=1)
    market.submit("waits")
    market.submit("no-offer", wait=True, capability={"cpu_cores": 9})
    rival(market)
    assert market.job("waits").state == "queued"
    assert [job for job, _ in found(market)] == ["job"]


def test_disabled_market_reads_no_job(market: Market) -> None:
    """What most markets pay for the question is nothing."""
    preempting(market)
    rival(market)
    market.configure(enable_preempt=False)

    def without_active(txn: Txn) -> list[Takeover]:
        txn.delete(JOBS, b"job")  # It would be missed.
        assert txn.size(ACTIVE) == 1
        return list(preemption.candidates(txn, offers.get(txn, "better")))

    assert (
        market.store.update(
            without_active, now_ms=market.now_ms, config=market.config, dry_run=True
        )
        == []
    )
