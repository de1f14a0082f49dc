"""`compute-market simulate`: a scenario played through the real market, in a throw-away store.

It needs no market and touches no home.
"""

import os
import shutil
import sys
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError, exit_code
from compute_market.text import printable, quoted
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.reading import AtHand
from tb_cli.frame.options import JSONL
from tb_cli.frame.render import note, write_json, write_jsonl, write_line
from tb_cli.frame.results import Result
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, flag, option, takes

if TYPE_CHECKING:
    from tb_cli.frame.scenarios import Variant

SEEDS_MAX = 1000
# What a comparison is made for comes before what is the same in all runs, or near it.
_RANKED = (
    *("admitted", "refused", "utilization", "fairness", "wait_p95_ms", "completed"),
    *("seeds", "paid_ct", "failed", "submitted", "burned_ct"),
)


@takes(
    argument(
        "scenario",
        "[SCENARIO]",
        "A file, the name of one that comes with the tool, or - for stdin.",
        required=False,
    ),
    option(
        "--trace",
        "Jobs from a trace (SWF, or CSV in the form of openb) instead of the scenario's buyers; - "
        "for stdin.",
        metavar="FILE",
    ),
    option(
        "--nodes",
        "Providers from a list of nodes in the form of openb instead of the scenario's.",
        metavar="FILE",
    ),
    option(
        "--replay",
        "What a market went through, instead of a scenario: a file that `log --jsonl` printed, - "
        "for stdin, or its home, which is only read.",
        metavar="FILE|HOME",
    ),
    option("--seed", "Another seed than the scenario's.", kind="integer", least=0, most=AMOUNT_MAX),
    option(
        "--param",
        "Try each of these values of a setting, or of a key of the scenario; repeatable, for all "
        "combinations.",
        name="parameters",
        metavar="KEY=V,V…",
        many=True,
    ),
    option(
        "--seeds",
        "Run with so many seeds, one after the other, and show the spread.",
        kind="integer",
        least=1,
        most=SEEDS_MAX,
    ),
    option(
        "--workers",
        "Processes at a time that run a sweep. [one per core]",
        kind="integer",
        least=1,
        most=1024,
    ),
    JSONL,
    flag(
        "--example",
        help="Print the file of a scenario that comes with the tool, and play nothing.",
    ),
    option("--csv", "Write the series, or each run of a sweep, to this file.", metavar="FILE"),
)
@examples(
    "tb-cli compute-market simulate greedy_buyer",
    "tb-cli compute-market simulate greedy_buyer --example",
    "tb-cli compute-market simulate first.toml --seed 7 --csv series.csv",
    "tb-cli compute-market simulate cap_change --param fair_share_cap=0.1,0.25 --seeds 5",
    "tb-cli compute-market simulate --replay month.jsonl --json",
)
def simulate(
    session: Session,
    scenario: str | None,
    *,
    trace: str | None,
    nodes: str | None,
    replay: str | None,
    seed: int | None,
    parameters: list[str],
    seeds: int | None,
    workers: int | None,
    jsonl: bool,
    example: bool,
    csv: str | None,
) -> int:
    """Prints what it came to: jobs, waits, shares, prices, money and the audit.

    The same scenario and seed give the same output on every machine; only how long it took, which
    --json has as well, is another each time. With --jsonl it prints the series, one sample per
    line. With --param or --seeds it runs a sweep and prints one line for each combination, with the
    mean of each figure and its least and greatest over the seeds. Exits with 9 if the audit finds a
    law broken.
    """
    # All that a simulation takes; `--help` needs none of it.
    from tb_cli.frame.scenarios import Given, file_of, variants

    if example:
        sys.stdout.write(file_of(scenario))
        return 0
    given = Given(scenario, trace, nodes, replay, seed)
    found = variants(given, parameters, seeds or 1)
    if csv is not None:
        _check_apart(csv, found[0].files)
    if found[0].note:
        note(found[0].note)
    file = None if csv is None else Result(csv, beside=session.home.path)
    try:
        if parameters or seeds is not None:
            broken, rows = _sweep(session, found, workers or os.cpu_count() or 1, jsonl=jsonl)
        else:
            broken, rows = _one(session, found[0], jsonl=jsonl)
        if file is not None:
            file.write(_table(rows))
    finally:
        if file is not None:
            file.discard()
    return exit_code("integrity") if broken else 0


def _check_apart(csv: str, files: tuple[str, ...]) -> None:
    """Raise UsageError for results that would replace what they are made of."""
    for path in files:
        with suppress(OSError, ValueError):  # A name that leads to no file is no such one.
            if os.path.samefile(path, csv):
                raise UsageError(f"--csv {quoted(csv)} is what is played", hint="name another file")


def _one(session: Session, variant: "Variant", *, jsonl: bool) -> tuple[bool, list[dict[str, Any]]]:
    """Run one and print it; whether a law is broken, and the rows of a table."""
    from tb_cli.frame import reports
    from tb_cli.frame.simulation import play_one

    played = play_one(variant, color=session.color)
    if jsonl:
        for sample in played.series:
            write_jsonl(sample)
    elif session.json:
        write_json(played.report)
    else:
        told = map(printable, reports.lines(played.report))
        if sys.stdout.isatty():
            from textwrap import wrap

            from tb_cli.frame.listing.terminal import can_show
            from tb_cli.frame.plots import MARKS, pictures

            width = shutil.get_terminal_size().columns
            for line in told:
                write_line("\n".join(wrap(line, width, subsequent_indent="  ")))
            if can_show(MARKS):  # The numbers are in --jsonl and --csv.
                for line in pictures(played.series, width=width, color=session.color):
                    write_line(line)
        else:
            for line in told:
                write_line(line)
        note(reports.pace(played.report))
    return bool(played.report["audit"]["invalid"]), played.series


def _sweep(
    session: Session, variants: "list[Variant]", workers: int, *, jsonl: bool
) -> tuple[bool, list[dict[str, Any]]]:
    """Run all and compare them; whether a law is broken in any, and the rows of a table."""
    from compute_market.simulation.comparison import FIGURES, spreads
    from compute_market.simulation.report import repeatable
    from compute_market.simulation.variations import value_of
    from tb_cli.frame.simulation import play_all

    reports = play_all(variants, workers, color=session.color)
    # How long a run took is left out: a table of runs is the same each time.
    rows = [
        {"set": {key: value_of(text) for key, text in variant.changes}} | repeatable(report)
        for variant, report in zip(variants, reports, strict=True)
    ]
    keys = [key for key, _ in variants[0].changes]
    columns = [*keys, "seeds", *(name for name, _ in FIGURES)]
    broken = any(row["audit"]["invalid"] for row in rows)
    # For eyes a clean audit goes without saying: it would be the first to be left out.
    table = [*keys, *(["audit"] if broken else []), *_RANKED]
    noun = Noun(
        "runs",
        "seeds",
        [Column(name, kind="number") for name in (*columns, "audit")],
        shown=[*columns, "audit"],
        table=table,
    )
    told = []
    documents = []
    pairs = zip(variants, rows, strict=True)
    for changes, runs in groupby(pairs, key=lambda pair: pair[0].changes):
        same = [row for _, row in runs]
        figures, invalid = spreads(same), sum(run["audit"]["invalid"] for run in same)
        documents.append(
            {
                "set": same[0]["set"],
                "seeds": [run["seed"] for run in same],
                **{name: figure.document() for name, figure in figures.items()},
                "audit": {"invalid": invalid},
            }
        )
        if not (jsonl or session.json):
            texts = {name: figure.text for name, figure in figures.items()}
            clean = "clean" if not invalid else f"{invalid} broken"
            told.append(dict(changes) | {"seeds": len(same)} | texts | {"audit": clean})
    if jsonl:
        for row in rows:
            write_jsonl(row)
    elif session.json:
        write_json(documents)
    else:
        lists.show(session, noun, {}, AtHand(told))
    return broken, rows


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; the names of the columns stand above them."""
    import csv
    import io

    from compute_market.simulation.report import flat

    cells = [dict(flat(row)) for row in rows]
    columns = dict.fromkeys(name for row in cells for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()
