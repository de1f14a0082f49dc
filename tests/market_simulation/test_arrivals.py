"""Arrivals: who comes when, and what the jobs of a group of buyers are."""

from collections import Counter
from itertools import islice
from typing import Any

import pytest

from compute_market.amounts import units_of
from compute_market.simulation.arrivals import Arrival, Source, instants, slice_of, sources
from compute_market.simulation.draws import Spread, Stream
from compute_market.simulation.scenario import START_MS, Arrivals, Buyers, Process, Scenario
from tests.support.simulated import at_once, every, scenario


def seconds(arrivals: Arrivals, length_secs: int = 600, seed: int = 1) -> list[float]:
    """When something arrives, in seconds from the start."""
    found = instants(scenario(length_secs=length_secs), arrivals, Stream(seed, "x"))
    return [(at_ms - START_MS) / 1_000 for at_ms in found]


def arrivals_of(group: Buyers, **fields: Any) -> list[Arrival]:
    found: list[Arrival] = []
    for source in sources(scenario(buyers=[group], **fields)):
        found += source
    return found


def test_constant_process_comes_evenly_until_the_end() -> None:
    assert seconds(every(4), length_secs=60) == [0, 15, 30, 45]


def test_rounding_to_milliseconds_does_not_add_up() -> None:
    found = seconds(every("7"), length_secs=6_000)
    assert len(found) == 700
    assert found[-1] == pytest.approx(699 * 60 / 7, abs=0.001)


def test_burst_comes_at_once_and_again() -> None:
    found = seconds(Arrivals(process="burst", size=3, every_secs=25, from_secs=5), length_secs=60)
    assert found == [5, 5, 5, 30, 30, 30, 55, 55, 55]


def test_poisson_process_has_its_rate_and_other_gaps_for_other_seeds() -> None:
    arrivals = Arrivals(process="poisson", per_minute=60)
    found = seconds(arrivals, length_secs=3_600)
    assert 3_420 < len(found) < 3_780
    assert found == sorted(found)
    assert found != seconds(arrivals, length_secs=3_600, seed=2)


@pytest.mark.parametrize("process", ["poisson", "constant"])
def test_arrivals_stay_within_their_span(process: Process) -> None:
    arrivals = Arrivals(process=process, per_minute=60, from_secs=100, until_secs=200)
    found = seconds(arrivals)
    assert found
    assert all(100 <= at < 200 for at in found)


def test_sources_make_jobs_as_they_are_taken() -> None:
    million = Buyers(name="b", arrivals=every(1_000_000))
    source = sources(scenario(buyers=[million], length_secs=10**6))[0]
    assert len(list(islice(source, 5))) == 5


def test_each_buyer_of_a_group_has_arrivals_and_ids_of_its_own() -> None:
    group = Buyers(name="b", count=3, arrivals=Arrivals(process="poisson", per_minute=10))
    found = arrivals_of(group)
    assert {arrival.request.buyer for arrival in found} == {"b-1", "b-2", "b-3"}
    assert len({arrival.request.job_id for arrival in found}) == len(found)
    by_buyer = [{a.at_ms for a in found if a.request.buyer == f"b-{n}"} for n in (1, 2, 3)]
    assert by_buyer[0] != by_buyer[1] != by_buyer[2]


def test_buyer_with_many_identities_goes_by_one_after_the_other() -> None:
    found = arrivals_of(Buyers(name="b", identities=3, arrivals=at_once(7)))
    names = [arrival.request.buyer for arrival in found]
    assert names == ["b-1.1", "b-1.2", "b-1.3", "b-1.1", "b-1.2", "b-1.3", "b-1.1"]


def test_jobs_have_what_the_scenario_says_of_them() -> None:
    group = Buyers(
        name="b",
        arrivals=at_once(400),
        slices=Spread(least=1, most=3),
        units=Spread(values=[2, 8]),
        priority={"high": 1, "low": 3, "normal": 0},
        deadline_secs=90,
        gives_up_secs=7,
    )
    found = arrivals_of(group)
    units = Counter(units_of(entry.length) for arrival in found for entry in arrival.slices)
    assert set(units) == {2, 8}
    assert {len(arrival.slices) for arrival in found} == {1, 2, 3}
    priorities = Counter(arrival.request.priority for arrival in found)
    assert set(priorities) == {"high", "low"}
    assert 250 < priorities["low"] < 350
    assert {arrival.request.deadline_secs for arrival in found} == {90}
    assert {arrival.gives_up_ms for arrival in found} == {7_000}
    assert all(len(a.request.slices) == len(a.slices) for a in found)


def test_what_one_group_draws_moves_nothing_of_another() -> None:
    chance = Arrivals(process="poisson", per_minute=30)
    plain = Buyers(name="b", arrivals=chance, units=Spread(mean=5, least=1))
    alone = arrivals_of(plain)
    more = scenario(
        buyers=[Buyers(name="a", arrivals=chance, units=Spread(mean=9, least=1)), plain]
    )
    assert list(sources(more)[1]) == alone


def test_trace_is_opened_by_who_knows_how() -> None:
    traced = Buyers(name="b", arrivals=Arrivals(process="trace", file="jobs.swf"))
    taken = scenario(buyers=[traced])
    asked: list[tuple[Scenario, str]] = []

    def open_trace(whole: Scenario, group: Buyers) -> Source:
        asked.append((whole, group.name))
        return iter([])

    assert len(sources(taken, open_trace)) == 1
    assert asked == [(taken, "b")]
    with pytest.raises(ValueError, match="nobody opens the trace of b"):
        sources(taken)


def test_slice_has_its_units() -> None:
    assert [units_of(slice_of(units).length) for units in (1, 2, 1_000)] == [1, 2, 1_000]
