"""Runs of scenarios in throw-away markets: one of them, or many side by side."""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from compute_market.simulation import report
from compute_market.simulation.measures import Measures
from compute_market.simulation.throwaway import open_market
from compute_market.simulation.world import Step, run
from compute_market.store.txn import Txn
from tb_cli.frame.progress import Progress
from tb_cli.frame.scenarios import Variant
from tb_cli.frame.scratch import scratch
from tb_cli.frame.side_by_side import WHOLE, Tell, side_by_side

_PREFIX = "tb-simulate-"


class Played(Struct, frozen=True):
    """What a run came to."""

    report: dict[str, Any]
    series: list[dict[str, Any]]


def play_one(variant: Variant, *, color: bool) -> Played:
    """Run one; a bar shows how far it is."""
    with scratch(_PREFIX) as directory, _bar(1, color) as bar:
        return _play(variant, directory, bar)


def play_all(variants: Sequence[Variant], workers: int, *, color: bool) -> list[dict[str, Any]]:
    """Run them in so many processes; the report of each, in their order."""
    with scratch(_PREFIX) as directory, _bar(len(variants), color) as bar:
        works = [partial(_reported, variant, directory) for variant in variants]
        return side_by_side(works, workers, bar)


def _reported(variant: Variant, directory: str, tell: Tell) -> dict[str, Any]:
    return _play(variant, directory, tell).report


def _play(variant: Variant, directory: str, tell: Tell) -> Played:
    scenario = variant.scenario
    measures = Measures(scenario)
    length_ms = scenario.end_ms - scenario.start_ms

    def observe(txn: Txn, step: Step) -> None:
        measures(txn, step)
        tell((step.at_ms - scenario.start_ms) * WHOLE // length_ms)

    begun_ns = time.perf_counter_ns()
    with tempfile.TemporaryDirectory(dir=directory) as place:
        opened = partial(open_market, place)
        outcome = run(scenario, opened, observe, variant.open_trace, variant.script)
    wall_ms = (time.perf_counter_ns() - begun_ns) // 1_000_000
    ran = report.Ran(
        variant.name,
        scenario.seed,
        length_ms,
        outcome.steps,
        wall_ms,
        outcome.missed,
        len(outcome.violations),
    )
    return Played(report.document(ran, measures), list(report.series(measures)))


def _bar(runs: int, color: bool) -> Progress:
    return Progress(runs * WHOLE, color=color, of_bytes=False)
