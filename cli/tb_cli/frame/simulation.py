"""Runs of scenarios in throw-away markets: one of them, or many side by side."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from msgspec import Struct

from compute_market.clock import Clock
from compute_market.config.settings import Config
from compute_market.errors import UsageError, file_error
from compute_market.market import Market, open_store
from compute_market.simulation import report, scenario_files
from compute_market.simulation.measures import Measures
from compute_market.simulation.scenario import Scenario
from compute_market.simulation.variations import Change, changed, combinations
from compute_market.simulation.world import OpenMarket, Step, run
from compute_market.store.environment import Creation
from compute_market.store.txn import Txn
from tb_cli.frame import installed
from tb_cli.frame.progress import Progress
from tb_cli.frame.side_by_side import WHOLE, Tell, side_by_side

RUNS_MAX = 10_000
_SIZE_MAX = 2**20
_SUFFIX = ".toml"


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
    path: str,
    *,
    trace: str | None,
    replay: str | None,
    seed: int | None,
    parameters: Sequence[str],
    seeds: int,
) -> list[Variant]:
    """What is to be run: each combination of the parameters with each of the seeds.

    Raises UsageError, for a mistake in a file with its line and key.
    """
    combined = combinations(parameters)
    if len(combined) * seeds > RUNS_MAX:
        raise UsageError(f"{len(combined)} combinations with {seeds} seeds are above {RUNS_MAX}")
    source, content = _content(path)
    plain = scenario_files.read(content, source)
    plain.scenario()  # What is wrong with the file itself is told of it.
    name = os.path.basename(source).removesuffix(_SUFFIX)
    found = []
    for changes in combined:
        scenario = _with(plain, changes)
        first = scenario.seed if seed is None else seed
        for number in range(seeds):
            found.append(Variant(name, replace(scenario, seed=first + number), changes))
    return found
