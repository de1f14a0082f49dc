"""Scenarios played in tests: through the real market, in the directory of a test."""

from collections import Counter
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from compute_market.records import Event
from compute_market.simulation import throwaway
from compute_market.simulation.arrivals import OpenTrace
from compute_market.simulation.scenario import Arrivals, Buyers, Providers, Scenario
from compute_market.simulation.stage import Failed
from compute_market.simulation.world import Outcome, Step, run
from compute_market.store.txn import Txn


class Told(NamedTuple):
    """One event and when it was, in seconds from the start of the scenario."""

    at_secs: float
    event: Event


class Played(NamedTuple):
    """What a scenario came to."""

    outcome: Outcome
    told: list[Told]
    failed: list[tuple[float, Failed]]
    samples: list[float]  # when one was due

    def of(self, name: str, **fields: Any) -> list[Told]:
        """The events of a name, and of whom `fields` say."""
        return [
            each
            for each in self.told
            if each.event.event == name
            and all(getattr(each.event, field) == value for field, value in fields.items())
        ]

    def count(self, name: str, **fields: Any) -> int:
        return len(self.of(name, **fields))

    def details(self, name: str, key: str) -> Counter[Any]:
        """How often the events of a name have each value of a detail."""
        return Counter(each.event.detail.get(key) for each in self.of(name))


def play(path: Path, scenario: Scenario, open_trace: OpenTrace | None = None) -> Played:
    """Play a scenario in a new market at a path; the audit must find nothing."""
    told: list[Told] = []
    failed: list[tuple[float, Failed]] = []
    samples: list[float] = []

    def observe(txn: Txn, step: Step) -> None:
        at_secs = (step.at_ms - scenario.start_ms) / 1_000
        told.extend(Told(at_secs, event) for event in step.events)
        failed.extend((at_secs, each) for each in step.failed)
        if step.is_sample:
            samples.append(at_secs)

    path.mkdir()
    open_market = partial(throwaway.open_market, str(path))
    outcome = run(scenario, open_market, observe, open_trace)
    assert outcome.violations == []
    return Played(outcome, told, failed, samples)


def every(per_minute: int | str, **fields: Any) -> Arrivals:
    """So many arrivals a minute, evenly."""
    return Arrivals(process="constant", per_minute=Decimal(per_minute), **fields)


def at_once(size: int, *, from_secs: int = 0) -> Arrivals:
    """So many arrivals at one second, and never again."""
    return Arrivals(process="burst", size=size, every_secs=1_000_000, from_secs=from_secs)


def scenario(
    *, providers: list[Providers] | None = None, buyers: list[Buyers] | None = None, **fields: Any
) -> Scenario:
    """Ten minutes of one provider and one buyer, of which tests say what they are about."""
    return Scenario(
        length_secs=fields.pop("length_secs", 600),
        providers=[Providers(name="p")] if providers is None else providers,
        buyers=[Buyers(name="b", arrivals=every(6))] if buyers is None else buyers,
        **fields,
    )
