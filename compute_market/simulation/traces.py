"""Traces of what other machines were asked for, by the form of their files.

A trace is read twice: once to the end, so that what is wrong with it is told before anything is
played, and how long it lasts; then as it is played, one job after another.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

from msgspec import Struct

from compute_market.errors import UsageError
from compute_market.simulation import openb, swf
from compute_market.simulation.arrivals import OpenTrace, Source
from compute_market.simulation.scenario import Buyers, Scenario
from compute_market.simulation.trace_jobs import TraceJob, arrivals
from compute_market.simulation.trace_lines import lines
from compute_market.text import quoted

Format = Literal["swf", "openb"]
_ENDINGS: Final[dict[str, Format]] = {".swf": "swf", ".csv": "openb"}


class Extent(Struct, frozen=True, gc=False):
    """How much is in a trace."""

    jobs: int
    length_secs: int  # until the last job has ended, had it run at once
    longest_secs: int  # that a job ran
    last_secs: int  # when the last job is submitted


def format_of(path: str) -> Format:
    """The form of a trace by the name of its file, compressed or not, else by its first line.

    Raises UsageError for one that neither says it of, and what reading raises.
    """
    name = os.path.basename(path).lower().removesuffix(".gz")
    found = _ENDINGS.get(os.path.splitext(name)[1])
    if found is not None:
        return found
    _, first = next(lines(path), (0, ""))
    if openb.NODE_COLUMNS[1] in first and "," in first:
        return "openb"
    if first.startswith(";") or len(first.split()) == len(swf.FIELDS):
        return "swf"
    raise UsageError(
        f"{quoted(path)}: the name does not say what trace it is, and neither does the first line",
        hint="a trace of SWF begins with a comment or a job, one of openb with its columns",
    )


def jobs(path: str, form: Format | None = None) -> Iterator[TraceJob]:
    """The jobs of a trace in order of submission. Raises TraceError for a line that is wrong."""
    return (swf.jobs if (form or format_of(path)) == "swf" else openb.jobs)(path)


def extent(path: str, form: Format | None = None) -> Extent:
    """Read a trace to its end. Raises TraceError for a line that is wrong, and UsageError when
    there is no job in it."""
    count = end_ms = longest_ms = last_ms = 0
    for job in jobs(path, form):
        count += 1
        end_ms = max(end_ms, job.at_ms + (job.duration_ms or 0))
        longest_ms = max(longest_ms, job.duration_ms or 0)
        last_ms = job.at_ms
    if not count:
        raise UsageError(f"{quoted(path)}: there is no job in it")
    return Extent(count, end_ms // 1_000 + 1, -(-longest_ms // 1_000), last_ms // 1_000)


def opener(directory: str) -> OpenTrace:
    """What opens the traces that the buyers of a scenario name, relative to its directory."""
    return partial(_opened, directory)


def _opened(directory: str, scenario: Scenario, group: Buyers) -> Source:
    assert group.arrivals.file is not None, f"the arrivals of {group.name} are no trace"
    path = os.path.join(directory, group.arrivals.file)
    extent(path, group.arrivals.format)
    return arrivals(scenario, group, jobs(path, group.arrivals.format))
