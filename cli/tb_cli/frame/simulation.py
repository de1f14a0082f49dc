"""Runs of scenarios in throw-away markets: one of them, or many side by side."""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from msgspec import Struct

from compute_market.clock import Clock
from compute_market.config import places
from compute_market.config.settings import Config
from compute_market.errors import UsageError, file_error
from compute_market.market import Market, open_store
from compute_market.records import replace
from compute_market.simulation import report, scenario_files
from compute_market.simulation.measures import Measures
from compute_market.simulation.scenario import Scenario
from compute_market.simulation.variations import Change, combinations, scenario_with
from compute_market.simulation.world import OpenMarket, Step, run
from compute_market.store.environment import Creation
from compute_market.store.txn import Txn
from tb_cli.frame import installed
from tb_cli.frame.progress import Progress
from tb_cli.frame.side_by_side import WHOLE, Tell, side_by_side

RUNS_MAX = 10_000
_SIZE_MAX = 2**20
_SUFFIX = ".toml"
_STDIN = "-"


class Variant(Struct, frozen=True):
    """A scenario as it is to be run."""

    name: str
    scenario: Scenario
    changes: tuple[Change, ...] = ()


class Played(Struct, frozen=True):
    """What a run came to."""

    report: dict[str, Any]
    series: list[dict[str, Any]]


def variants(
    path: str, *, seed: int | None, parameters: Sequence[str], seeds: int
) -> list[Variant]:
    """What is to be run: each combination of the parameters with each of the seeds.

    Raises UsageError, for a mistake in a file with its line and key.
    """
    combined = combinations(parameters)
    if len(combined) * seeds > RUNS_MAX:
        raise UsageError(f"{len(combined)} combinations with {seeds} seeds are above {RUNS_MAX}")
    source, content = _content(path)
    document, lines = places.read(content, source)
    plain = scenario_files.scenario_of(document, lines, source)
    name = os.path.basename(source).removesuffix(_SUFFIX)
    found = []
    for changes in combined:
        scenario = scenario_with(document, changes) if changes else plain
        first = scenario.seed if seed is None else seed
        found += [
            Variant(name, replace(scenario, seed=first + number), changes)
            for number in range(seeds)
        ]
    return found


def play_one(variant: Variant, *, color: bool) -> Played:
    """Run one; a bar shows how far it is."""
    with _throw_away() as directory, _bar(1, color) as bar:
        return _play(variant, directory, bar)


def play_all(variants: Sequence[Variant], workers: int, *, color: bool) -> list[dict[str, Any]]:
    """Run them in so many processes; the report of each, in their order."""
    with _throw_away() as directory, _bar(len(variants), color) as bar:
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
        outcome = run(scenario, _opener(place), observe)
    wall_ms = (time.perf_counter_ns() - begun_ns) // 1_000_000
    ran = report.Ran(
        variant.name, scenario.seed, length_ms, outcome.steps, wall_ms, len(outcome.violations)
    )
    return Played(report.document(ran, measures), list(report.series(measures)))


def _opener(directory: str) -> OpenMarket:
    @contextmanager
    def open_market(config: Config, clock: Clock) -> Iterator[Market]:
        creation = Creation(clock(), bytes(16))
        store = open_store(directory, config, sleep=time.sleep, creation=creation)
        with Market(store, config, clock=clock) as market:
            yield market

    return open_market


def _throw_away() -> "tempfile.TemporaryDirectory[str]":
    """The place of the markets, gone when this ends, however it does."""
    return tempfile.TemporaryDirectory(prefix="tb-simulate-")


def _bar(runs: int, color: bool) -> Progress:
    return Progress(runs * WHOLE, color=color, of_bytes=False)


def _content(path: str) -> tuple[str, bytes]:
    """What a scenario is called in messages, and its text.

    A word that names no file may be one of the scenarios that come with the tool.
    """
    if path == _STDIN:
        from tb_cli.frame.lines import standard_input

        return "stdin", _bounded(path, standard_input().read(_SIZE_MAX + 1))
    source = path
    if os.sep not in path and not path.endswith(_SUFFIX) and not os.path.exists(path):
        source = _shipped(path)
    try:
        with open(source, "rb") as file:
            return source, _bounded(path, file.read(_SIZE_MAX + 1))
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):
            raise UsageError(f"{path}: not a path") from error
        raise file_error(path, error) from error


def _bounded(path: str, content: bytes) -> bytes:
    if len(content) > _SIZE_MAX:
        raise UsageError(f"{path}: larger than {_SIZE_MAX} bytes")
    return content


def _shipped(name: str) -> str:
    """The path of a scenario that comes with the tool. Raises UsageError for any other name."""
    directory = installed.directory("scenarios", "sim/compute_market", "steady_load.toml")
    names = sorted(
        each.removesuffix(_SUFFIX) for each in os.listdir(directory) if each.endswith(_SUFFIX)
    )
    if name not in names:
        from difflib import get_close_matches

        near = get_close_matches(name, names, 1)
        raise UsageError(
            f"{name}: no such file, and no such scenario",
            hint=f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}",
        )
    return os.path.join(directory, f"{name}{_SUFFIX}")
