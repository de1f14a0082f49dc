"""Scenarios played in this process, for tests that ask what they came to."""

import tempfile
from functools import partial
from typing import Any, NamedTuple

from compute_market.config import places
from compute_market.simulation import report
from compute_market.simulation.measures import Measures
from compute_market.simulation.scenario import Scenario
from compute_market.simulation.throwaway import open_market
from compute_market.simulation.variations import Change, scenario_with
from compute_market.simulation.world import Outcome, run


class Played(NamedTuple):
    """A run: its report, its series and what it left."""

    report: dict[str, Any]
    series: list[dict[str, Any]]
    outcome: Outcome
    measures: Measures

    def between(self, from_secs: int, until_secs: int) -> list[dict[str, Any]]:
        return [each for each in self.series if from_secs <= each["at_secs"] < until_secs]


def played(scenario: Scenario, name: str = "test") -> Played:
    """Play a scenario; the audit must find nothing."""
    measures = Measures(scenario)
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(scenario, partial(open_market, directory), measures)
    assert outcome.violations == []
    length_ms = scenario.end_ms - scenario.start_ms
    ran = report.Ran(name, scenario.seed, length_ms, outcome.steps, 1, outcome.missed, 0)
    return Played(report.document(ran, measures), list(report.series(measures)), outcome, measures)


def changed(content: bytes | str, *changes: Change) -> Scenario:
    """The scenario of a file with some keys changed."""
    document, _ = places.read(content, "test.toml")
    return scenario_with(document, changes)
