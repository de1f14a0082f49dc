"""The world: everybody does what the scenario says, and the market is the real one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from compute_market.archive.forgetting import Forgetter
from compute_market.config.settings import DEFAULTS
from compute_market.records import replace
from compute_market.requests import JobRequest
from compute_market.simulation import world
from compute_market.simulation.arrivals import Arrival, slice_of
from compute_market.simulation.draws import Spread
from compute_market.simulation.scenario import (
    Arrivals,
    Buyers,
    CapacitySample,
    Consumers,
    FeeChange,
    Outage,
    ParameterChange,
    PriceChange,
    Providers,
    Scenario,
)
from tests.support.simulated import Played, at_once, every, scenario
from tests.support.simulated import play as play_at

ROOT = Path(__file__).parents[2]

Play = Callable[[Scenario], Played]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return lambda taken: play_at(tmp_path / "market", taken)


BY_CHANCE = scenario(
    providers=[
        Providers(
            name="p",
            count=3,
            units=20,
            price_per_unit=Spread(least=4, most=9),
            reliability=Decimal("0.8"),
            up_secs=Spread(mean=100),
            down_secs=20,
            unit_ms=Spread(mean=2_000),
        )
    ],
    buyers=[
        Buyers(
            name="b",
            count=2,
            arrivals=Arrivals(process="poisson", per_minute=6),
            priority={"high": 1, "normal": 1, "low": 1},
            units=Spread(least=1, most=4),
            deadline_secs=70,
        )
    ],
    consumers=[Consumers(name="c", count=5, fee=Spread(mean=90, least=1), arrivals=every(4))],
)


def test_same_scenario_and_seed_give_the_same_events(tmp_path: Path) -> None:
    one = play_at(tmp_path / "one", BY_CHANCE)
    again = play_at(tmp_path / "again", BY_CHANCE)
    assert one == again
    assert min(one.count("job_completed"), one.count("job_failed"), one.count("tx_admitted")) > 0
    other = play_at(tmp_path / "other", replace(BY_CHANCE, seed=2))
    assert other.told != one.told


def test_order_of_hashes_changes_nothing(tmp_path: Path) -> None:
    """Python gives other hashes to the same texts in every process."""
    script = (
        "import sys; from pathlib import Path;"
        "from tests.market_simulation.test_world import BY_CHANCE;"
        "from tests.support.simulated import play;"
        "print(ascii(play(Path(sys.argv[1]), BY_CHANCE).told))"
    )
    told = subprocess.check_output(
        [sys.executable, "-c", script, tmp_path / "there"],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        text=True,
    )
    assert told == ascii(play_at(tmp_path / "here", BY_CHANCE).told) + "\n"


def test_jobs_come_and_are_done(play: Play) -> None:
    done = play(scenario(length_secs=120))
    assert done.outcome.submitted == 12
    assert [each.at_secs for each in done.of("job_queued")] == [10 * n for n in range(12)]
    assert [each.at_secs for each in done.of("job_completed")] == [10 * n + 1 for n in range(12)]
    assert done.failed == []
    assert done.outcome.ended_ms == scenario(length_secs=120).end_ms


def test_slices_are_proven_one_after_the_other(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=at_once(1), slices=3, units=2)]
    done = play(scenario(buyers=buyers, providers=[Providers(name="p", unit_ms=5_000)]))
    assert [each.at_secs for each in done.of("job_proved")] == [10, 20, 30]
    assert [each.at_secs for each in done.of("job_completed")] == [30]


def test_same_instant_goes_into_one_change_of_the_market(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=at_once(20))]
    done = play(scenario(buyers=buyers, length_secs=50))
    assert (done.outcome.steps, done.count("job_completed")) == (3, 20)  # begin, proofs, end


# Providers.


@pytest.mark.parametrize(
    "provider", [Providers(name="p", serves=False), Providers(name="p", reliability=0)]
)
def test_job_that_nobody_does_misses_its_deadline(play: Play, provider: Providers) -> None:
    buyers = [Buyers(name="b", arrivals=at_once(2), deadline_secs=60)]
    done = play(scenario(providers=[provider], buyers=buyers))
    assert done.details("job_failed", "cause") == {"deadline_missed": 2}
    assert done.count("bond_burned") == 2


def test_unreliable_provider_fails_its_part_of_the_jobs(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=every(12), deadline_secs=60)]
    provider = Providers(name="p", reliability=Decimal("0.7"), count=2)
    done = play(scenario(providers=[provider], buyers=buyers))
    failed, completed = done.count("job_failed"), done.count("job_completed")
    assert 0.2 < failed / (failed + completed) < 0.4


def test_provider_that_fails_may_cancel(play: Play) -> None:
    provider = Providers(name="p", reliability=0, failure="cancels")
    done = play(scenario(providers=[provider], buyers=[Buyers(name="b", arrivals=at_once(1))]))
    assert done.details("job_cancelled", "by") == {"provider": 1}


def test_provider_that_fails_may_prove_what_is_wrong_and_then_what_is_right(play: Play) -> None:
    provider = Providers(name="p", reliability=0, failure="wrong", unit_ms=3_000)
    done = play(scenario(providers=[provider], buyers=[Buyers(name="b", arrivals=at_once(1))]))
    assert [each.at_secs for each in done.of("proof_refused")] == [3]
    assert [each.at_secs for each in done.of("job_completed")] == [6]


@pytest.mark.parametrize(("restocks", "queued"), [(True, 12), (False, 5)])
def test_provider_posts_anew_what_is_used_up(play: Play, *, restocks: bool, queued: int) -> None:
    provider = Providers(name="p", units=5, restocks=restocks)
    done = play(scenario(providers=[provider], length_secs=120))
    assert done.count("job_queued") == queued
    assert done.details("job_refused", "reason") == (
        {} if restocks else {"no_capacity": 12 - queued}
    )


def test_price_changes_when_the_scenario_says(play: Play) -> None:
    changes = [
        PriceChange(at_secs=45, price_per_unit=8),
        PriceChange(at_secs=85, price_per_unit=500),
    ]
    provider = Providers(name="p", price_per_unit=5, price_changes=changes)
    done = play(scenario(providers=[provider], length_secs=120))
    prices = [each.event.detail["price_per_unit"] for each in done.of("job_queued")]
    assert prices == [5] * 5 + [8] * 4
    assert done.details("job_refused", "reason") == {"price_mismatch": 3}


def test_offer_at_the_price_of_the_market(play: Play) -> None:
    """The first one has none to take yet; once jobs were matched there is one."""
    providers = [
        Providers(name="p", price_per_unit=7, until_secs=100),
        Providers(name="early", price_per_unit=0),
        Providers(name="late", price_per_unit=0, from_secs=90),
    ]
    done = play(scenario(providers=providers, length_secs=120))
    assert [(at, each.about, each.reason) for at, each in done.failed] == [
        (0, "early-1-1", "no_price_data")
    ]
    assert done.details("job_queued", "price_per_unit") == {7: 12}
    assert {each.event.detail["provider"] for each in done.of("job_queued")} == {"p-1", "late-1"}


def test_provider_comes_and_goes_for_good(play: Play) -> None:
    provider = Providers(name="p", from_secs=25, until_secs=65, up_secs=1_000, down_secs=1)
    done = play(scenario(providers=[provider], length_secs=120))
    assert [each.at_secs for each in done.of("job_queued")] == [30, 40, 50, 60]
    assert [each.at_secs for each in done.of("offer_withdrawn")] == [65]


LONG = [Buyers(name="b", arrivals=at_once(1), slices=2, units=30)]


@pytest.mark.parametrize(
    ("leaving", "proven", "ended"),
    [
        ("finishes", [30, 60], ("job_completed", 60)),
        # It is there from 0 to 40 and from 50 to 90.
        ("pauses", [30, 70], ("job_completed", 70)),
        ("cancels", [30], ("job_cancelled", 40)),
    ],
)
def test_jobs_of_a_provider_that_flaps(
    play: Play, leaving: str, proven: list[int], ended: tuple[str, int]
) -> None:
    provider = Providers(name="p", up_secs=40, down_secs=10, leaving=leaving)  # type: ignore[arg-type]
    done = play(scenario(providers=[provider], buyers=LONG, length_secs=100))
    assert [each.at_secs for each in done.of("job_proved")] == proven
    assert [each.at_secs for each in done.of(ended[0])] == [ended[1]]
    assert [each.at_secs for each in done.of("offer_posted")] == [0, 50]
    assert [each.at_secs for each in done.of("offer_withdrawn")] == [40, 90]


def test_better_provider_takes_a_running_job_over_when_it_comes_back(play: Play) -> None:
    """While the good one is away the slow one gets its jobs, one of which it then takes over."""
    providers = [
        Providers(name="slow", price_per_unit=5, unit_ms=500_000),
        Providers(name="good", price_per_unit=4, up_secs=95, down_secs=50),
    ]
    config = replace(DEFAULTS, enable_preempt=True, preempt_min_delta=5)
    done = play(scenario(providers=providers, config=config, length_secs=160))
    (over,) = done.of("job_handed_over")
    assert (over.at_secs, over.event.detail["from"], over.event.detail["to"]) == (
        145,
        "slow-1",
        "good-1",
    )
    ended = [each.at_secs for each in done.of("job_completed", job_id=over.event.job_id)]
    assert ended == [146]


# Buyers.


def test_deadline_of_a_second_is_refused_and_told(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=every(6), deadline_secs=1)]
    done = play(scenario(buyers=buyers, length_secs=60))
    assert [(failed.action, failed.reason) for _, failed in done.failed] == [
        ("submit", "deadline")
    ] * 6
    assert done.failed[0][1].about == "b-1-1"
    assert done.outcome.submitted == 6
    assert done.count("job_queued") == 0


def test_job_waits_for_an_offer_if_its_buyer_does(play: Play) -> None:
    arrivals = at_once(1)
    buyers = [
        Buyers(name="stays", arrivals=arrivals, waits=True),
        Buyers(name="b", arrivals=arrivals),
    ]
    done = play(scenario(providers=[Providers(name="p", from_secs=20)], buyers=buyers))
    assert [(each.at_secs, each.event.job_id) for each in done.of("job_refused")] == [(0, "b-1-1")]
    assert [(each.at_secs, each.event.job_id) for each in done.of("job_queued")] == [
        (20, "stays-1-1")
    ]
    assert done.count("job_completed") == 1


def test_buyer_gives_up_what_takes_too_long(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=at_once(2), units=Spread(values=[1, 50]), gives_up_secs=15)]
    done = play(scenario(buyers=buyers, seed=2))
    assert [each.at_secs for each in done.of("job_completed")] == [1]
    assert [each.at_secs for each in done.of("job_cancelled")] == [15]
    assert done.details("job_cancelled", "by") == {"client": 1}


def test_each_identity_comes_with_a_wallet_once(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=every(60), identities=4, ct=500, it=9)]
    done = play(scenario(buyers=buyers, length_secs=20))
    paid = [each.event.owner for each in done.of("deposit")]
    assert paid == ["p-1", "b-1.1", "b-1.2", "b-1.3", "b-1.4"]


def test_buyer_without_money_is_refused_where_money_moves(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=at_once(1), ct=0, it=0)]
    assert play(scenario(buyers=buyers)).details("job_refused", "reason") == {
        "insufficient_funds": 1
    }


def test_nothing_is_paid_where_settlement_is_dry(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=at_once(1), ct=0, it=0)]
    done = play(scenario(buyers=buyers, settlement="dry_run"))
    assert done.details("job_completed", "paid_ct") == {0: 1}


def test_more_money_than_there_can_be_is_told_and_not_paid(play: Play) -> None:
    buyers = [Buyers(name="b", count=3, arrivals=at_once(1), ct=2**63 - 1)]
    done = play(scenario(buyers=buyers))
    assert {(failed.action, failed.reason) for _, failed in done.failed} == {
        ("deposit", "overflow")
    }


def test_overload_is_refused_for_want_of_capacity(play: Play) -> None:
    buyers = [Buyers(name="b", arrivals=every(300), units=10)]
    providers = [Providers(name="p", units=10**6)]
    config = replace(DEFAULTS, fair_share_cap_ppm=10**6)
    done = play(
        scenario(buyers=buyers, providers=providers, capacity=SMALL, config=config, length_secs=60)
    )
    assert done.details("job_refused", "reason") == {"capacity": 300 - done.count("job_queued")}
    assert 60 <= done.count("job_queued") < 125  # a window's capacity, and what decays in another


SMALL = [CapacitySample(at_secs=0, units_per_second=10)]


# The market as a whole.


def test_nobody_does_anything_in_an_outage(play: Play) -> None:
    outages = [Outage(from_secs=55, length_secs=35)]
    provider = Providers(name="p", unit_ms=15_000)
    done = play(scenario(outages=outages, providers=[provider], length_secs=120))
    times = [each.at_secs for each in done.told]
    assert not [at for at in times if 55 <= at < 90]
    assert [each.at_secs for each in done.of("job_queued")] == [0, 10, 20, 30, 40, 50, 90, 100, 110]
    assert [each.at_secs for each in done.of("job_completed")] == [15, 25, 35, 45, 90, 90, 105, 115]
    assert (done.outcome.submitted, done.outcome.missed) == (9, 3)


def test_outage_that_does_not_end_is_the_end(play: Play) -> None:
    done = play(scenario(outages=[Outage(from_secs=30, length_secs=9_999)], length_secs=60))
    assert (done.outcome.submitted, done.outcome.missed) == (3, 3)
    assert done.samples == [0, 60]


def test_samples_are_taken_when_the_scenario_says_and_at_the_end(play: Play) -> None:
    done = play(scenario(buyers=[], sample_secs=25, tick_secs=7, length_secs=60))
    assert done.samples == [0, 25, 50, 60]
    assert done.outcome.steps == 9 + 2 + 1  # ticks, samples apart from the first, the end


def test_armed_settlement_turns_real_two_epochs_later(play: Play) -> None:
    done = play(scenario(settlement="armed", length_secs=180))
    assert [(each.at_secs, each.event.detail["to"]) for each in done.of("mode_changed")] == [
        (0, "armed"),
        (120, "real"),
    ]


def test_fees_that_rise_close_the_gate_and_open_it_as_they_fall(play: Play) -> None:
    changes = [FeeChange(at_secs=200, fee=100), FeeChange(at_secs=100, fee=9_000)]
    consumers = [Consumers(name="c", fee=50, fee_changes=changes, arrivals=every(60), count=20)]
    done = play(scenario(consumers=consumers, length_secs=300))
    assert done.count("tx_admitted") == 300
    assert {each.event.detail["fee"] for each in done.of("tx_admitted") if each.at_secs < 100} == {
        50
    }
    refused = [each.at_secs for each in done.of("job_refused")]
    assert done.details("job_refused", "reason") == {"comfort_guard": len(refused)}
    # A tenth of the last fifty fees is enough to close it; nine tenths have to be gone to open it.
    assert refused == [*range(110, 250, 10)]


def test_parameter_that_changes_half_way_is_in_force_two_epochs_later(play: Play) -> None:
    change = ParameterChange(at_secs=61, key="fair_share_cap", value=Decimal("0.01"))
    config = replace(DEFAULTS, burst_quota_micro=0)
    buyers = [Buyers(name="b", arrivals=every(6), units=61)]  # more than a hundredth of 6000
    done = play(
        scenario(
            parameters=[change],
            config=config,
            providers=[Providers(name="p", units=10**6)],
            buyers=buyers,
            length_secs=240,
        )
    )
    assert done.details("params_approved", "activates_at") == {180: 1}
    assert [each.at_secs for each in done.of("params_activated")] == [180]
    assert [each.at_secs for each in done.of("job_refused")] == [*range(180, 240, 10)]
    assert done.details("job_refused", "reason") == {"fair_share": 6}


def test_consumers_miss_an_outage(play: Play) -> None:
    consumers = [Consumers(name="c", arrivals=every(60), count=20)]
    outages = [Outage(from_secs=10, length_secs=30)]
    done = play(scenario(buyers=[], consumers=consumers, outages=outages, length_secs=60))
    assert done.count("tx_admitted") == 30


def test_trace_brings_jobs_with_durations_and_money(tmp_path: Path) -> None:
    traced = Buyers(name="b", arrivals=Arrivals(process="trace", file="x"))
    taken = scenario(buyers=[traced])

    def open_trace(_: Scenario, group: Buyers) -> Iterator[Arrival]:
        for number, at_ms in enumerate((5_000, 7_500)):
            slices = [slice_of(1), slice_of(3)]
            request = JobRequest(
                job_id=f"t{number}",
                buyer="anybody",
                workload="transcode",
                slices=["x", "x"],
                max_price_per_unit=10,
            )
            start_ms = taken.start_ms
            yield Arrival(start_ms + at_ms, request, slices, duration_ms=8_000, ct=99, it=9)

    done = play_at(tmp_path / "market", taken, open_trace)
    assert [each.at_secs for each in done.of("job_proved")] == [7, 9.5, 13, 15.5]
    assert [each.event.owner for each in done.of("deposit")] == ["p-1", "anybody"]


def test_archives_change_nothing_of_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived: list[int] = []
    forget = Forgetter.forget
    monkeypatch.setattr(
        Forgetter, "forget", lambda each, txn, at: archived.append(forget(each, txn, at))
    )
    monkeypatch.setattr(world, "KEPT_SECS", 10**9)
    never = play_at(tmp_path / "never", BY_CHANCE)
    assert sum(archived) == 0
    monkeypatch.setattr(world, "KEPT_SECS", 0)
    assert play_at(tmp_path / "at once", BY_CHANCE) == never
    assert sum(archived) > 40
