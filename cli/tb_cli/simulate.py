"""`compute-market simulate`: a scenario played through the real market, in a throw-away store.

It needs no market and touches no home.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from compute_market.errors import UsageError, exit_code
from tb_cli.frame.options import JSONL
from tb_cli.frame.render import emit, note, write_json, write_jsonl, write_line
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, option, takes

if TYPE_CHECKING:
    from tb_cli.frame.simulation import Played, Variant

SEED_MAX = 2**64 - 1
SEEDS_MAX = 1000


@takes(
    argument(
        "scenario", "SCENARIO", "A file, the name of one that comes with the tool, or - for stdin."
    ),
    option("--trace", "Jobs from this trace instead of the scenario's buyers.", metavar="FILE"),
    option("--replay", "What happened in this log of a market, once more.", metavar="FILE"),
    option("--seed", "Another seed than the scenario's.", kind="integer", least=0, most=SEED_MAX),
    option(
        "--param",
        "Try each of these values of a setting or of a key; repeatable: all combinations.",
        name="parameters",
        metavar="KEY=V,V…",
        many=True,
    ),
    option(
        "--seeds",
        "Run with so many seeds, and tell the spread.",
        kind="integer",
        least=1,
        most=SEEDS_MAX,
    ),
    option(
        "--workers",
        "Processes that run at the same time. [one per core]",
        kind="integer",
        least=1,
        most=1024,
    ),
    JSONL,
    option("--csv", "Write the series, or the runs of a sweep, to this file.", metavar="FILE"),
)
def simulate(
    session: Session,
    scenario: str,
    *,
    trace: str | None,
    replay: str | None,
    seed: int | None,
    parameters: list[str],
    seeds: int | None,
    workers: int | None,
    jsonl: bool,
    csv: str | None,
) -> int:
    """Prints what it came to: jobs, waits, shares, prices, money and the audit.

    The same scenario and seed give the same output on every machine. With `--jsonl` it prints the
    series, one sample per line. With `--param` or `--seeds` it prints a table that compares the
    combinations. Exits with 9 if the audit finds a law broken.
    """
    from tb_cli.frame import simulation
    from tb_cli.frame.results import Result

    variants = simulation.variants(
        scenario, trace=trace, replay=replay, seed=seed, parameters=parameters, seeds=seeds or 1
    )
    is_sweep = bool(parameters) or seeds is not None
    result = None if csv is None else Result(csv)
    try:
        if is_sweep:
            table = _sweep(session, variants, workers, jsonl=jsonl)
        else:
            table = _one(session, variants[0], jsonl=jsonl)
