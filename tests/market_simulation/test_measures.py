"""What is measured is what happened: against the market's own records and the definitions."""

import tempfile
from collections import Counter
from decimal import Decimal
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market import metrics
from compute_market.amounts import PPM, half_up
from compute_market.records import Job
from compute_market.simulation.measures import SAMPLES_MIN, Measures, Waits, fairness_ppm
from compute_market.simulation.scenario import Arrivals, Buyers, Providers, Scenario
from compute_market.simulation.throwaway import open_market
from compute_market.simulation.world import Step, run
from compute_market.store.schema import JOBS
from compute_market.store.txn import Txn
from tests.market_simulation.playing import played


def arrivals(per_minute: int) -> Arrivals:
    return Arrivals(process="poisson", per_minute=Decimal(per_minute))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.integers(0, 100))
def test_quantile_is_that_of_the_sorted_waits_to_a_thousandth(
    found: list[int], percent: int
) -> None:
    waits = Waits()
    for wait_ms in found:
        waits.add(wait_ms)
    exact = sorted(found)[half_up((len(found) - 1) * percent, 100)]
    assert exact * 999 // 1000 <= waits.quantile(percent) <= exact
    if exact < 2048:
        assert waits.quantile(percent) == exact
    assert waits.max_ms == max(found)


def test_waits_take_bounded_room() -> None:
    waits = Waits()
    for wait_ms in range(0, 400_000_000, 997):
        waits.add(wait_ms)
    assert len(waits._counts) < 2**11 * 20
    assert Waits().document() == {"p50": 0, "p95": 0, "max": 0}


def test_waits_of_several_kinds_add_up() -> None:
    one, other = Waits(), Waits()
    for wait_ms in (1, 2, 3):
        one.add(wait_ms)
    for wait_ms in (4, 5):
        other.add(wait_ms)
    one.take(other)
    assert (one.count, one.document()) == (5, {"p50": 3, "p95": 5, "max": 5})


@pytest.mark.parametrize(
    ("shares", "index"),
    [
        ([5], PPM),
        ([7, 7, 7, 7], PPM),
        ([9, 0, 0], 333_333),  # one has everything: 1/n
        ([1, 1, 0, 0], 500_000),  # half of them share it: 1/2
        ([1, 2, 3], 857_143),  # 36 / (3 * 14)
        ([0, 0], PPM),
        ([], PPM),
    ],
)
def test_fairness_is_jains_index(shares: list[int], index: int) -> None:
    assert fairness_ppm(shares) == index


def test_measures_agree_with_the_market_itself() -> None:
    scenario = Scenario(
        length_secs=300,
        providers=[
            Providers(name="good", units=40, unit_ms=700, count=2),
            Providers(name="bad", units=40, reliability=Decimal("0.5"), failure="cancels"),
        ],
        buyers=[
            Buyers(name="a", count=3, units=9, waits=True, deadline_secs=90, arrivals=arrivals(30)),
            Buyers(name="b", units=30, priority="high", arrivals=arrivals(60)),
        ],
    )
    measures = Measures(scenario)
    found: dict[str, object] = {}

    def observe(txn: Txn, step: Step) -> None:
        measures(txn, step)
        if step.at_ms == scenario.end_ms:
            stored: list[Job] = [JOBS.decode(key, value) for key, value in txn.scan(JOBS)]
            found["states"] = Counter(job.state for job in stored)
            found["admitted"] = metrics.value(txn, "industrial_admitted_total")
            found["units"] = metrics.value(txn, "industrial_units_total")
            found["of a-1"] = sum(job.units_proven for job in stored if job.buyer == "a-1")

    with tempfile.TemporaryDirectory() as directory:
        outcome = run(scenario, partial(open_market, directory), observe)
    assert outcome.violations == []
    assert measures.totals is not None
    states = Counter(measures.ended) + Counter(left=measures.totals.left)
    stored_states = found["states"]
    assert isinstance(stored_states, Counter)
    live = sum(stored_states.pop(state, 0) for state in ("pending", "queued", "active"))
    assert states == stored_states + Counter(left=live)
    assert states["completed"] > 50
    assert states["cancelled"] > 5
    assert measures.admitted == found["admitted"]
    assert measures.units_proven == found["units"]
    assert measures.buyers["a-1"].units == found["of a-1"]
    assert measures.submitted == outcome.submitted
    assert sum(party.submitted for party in measures.buyers.values()) == outcome.submitted
    refused = sum(measures.refused.values())
    assert outcome.submitted == refused + sum(states.values())
    assert refused > 0


def test_wait_runs_from_submission_to_start() -> None:
    # One provider comes after a minute, and both jobs waited for it.
    scenario = Scenario(
        length_secs=120,
        providers=[Providers(name="late", from_secs=60, units=10)],
        buyers=[
            Buyers(
                name="b",
                waits=True,
                arrivals=Arrivals(process="burst", size=2, every_secs=1000),
            )
        ],
    )
    waits = played(scenario).report["wait_ms"]
    assert (waits["p50"], waits["max"]) == (_kept(60_000), 60_000)
    assert waits["by_priority"]["normal"]["jobs"] == 2


def _kept(wait_ms: int) -> int:
    waits = Waits()
    waits.add(wait_ms)
    return waits.quantile(50)


@pytest.mark.parametrize("sample_secs", [60, 299])
def test_peak_is_that_of_the_busiest_minute_however_seldom_samples_are(sample_secs: int) -> None:
    # 6 000 units a minute; a burst of 3 · 400 at 100 s, which has faded by 160 s.
    scenario = Scenario(
        length_secs=300,
        sample_secs=sample_secs,
        providers=[Providers(name="p", units=5000)],
        buyers=[
            Buyers(
                name="b",
                units=400,
                arrivals=Arrivals(process="burst", size=3, every_secs=1000, from_secs=100),
            )
        ],
    )
    shares = played(scenario).report["shares"]
    assert [shares[role][0]["peak"] for role in ("buyers", "providers")] == [0.2, 0.2]


def test_series_is_bounded_however_long_it_is() -> None:
    scenario = Scenario(
        length_secs=3_000, sample_secs=1, tick_secs=3_000, providers=[Providers(name="p")]
    )
    found = played(scenario).series
    at = [sample["at_secs"] for sample in found]
    assert SAMPLES_MIN <= len(at) <= 2 * SAMPLES_MIN
    assert len({after - before for before, after in pairwise(at[:-1])}) == 1


def test_same_seed_gives_the_same_report_and_another_one_another() -> None:
    def report(seed: int) -> tuple[object, ...]:
        scenario = Scenario(
            length_secs=300,
            seed=seed,
            providers=[Providers(name="p", count=2)],
            buyers=[Buyers(name="b", count=3, units=5, arrivals=arrivals(20))],
        )
        found = played(scenario)
        return found.report | {"per_second": 0}, found.series

    assert report(1) == report(1)
    assert report(1) != report(2)
