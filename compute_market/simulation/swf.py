"""Traces in the Standard Workload Format 2.2 of the Parallel Workloads Archive.

A line is a job: 18 numbers, −1 where one is not known. What follows a `;` is a comment; the header
is made of them. See Chapin et al., "Benchmarks and Standards for the Evaluation of Parallel Job
Schedulers", 1999, and https://www.cs.huji.ac.il/labs/parallel/workload/swf.html.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from compute_market.amounts import AMOUNT_MAX
from compute_market.simulation.trace_jobs import SECS_MAX, UNITS_MAX, TraceJob
from compute_market.simulation.trace_lines import fail, lines, shown
from compute_market.text import counted

# As the definition of the format calls them, in order.
FIELDS: Final = (
    "job number",
    "submit time",
    "wait time",
    "run time",
    "allocated processors",
    "average CPU time",
    "used memory",
    "requested processors",
    "requested time",
    "requested memory",
    "status",
    "user id",
    "group id",
    "executable number",
    "queue number",
    "partition number",
    "preceding job number",
    "think time",
)
# Processors and processor times are averages in some logs; the market counts whole ones.
_WHOLE: Final = re.compile(r"-1(?:\.0+)?|[0-9]{1,19}(?:\.[0-9]{1,19})?", re.ASCII)
# Part of a job that is summed up in a line of its own.
_PARTS: Final = (2, 3, 4)
_CANCELLED: Final = 5
_INTERACTIVE: Final = 0


class _Line(Struct, frozen=True, gc=False):
    """The fields that count; None for one that is not known."""

    submit_secs: int
    wait_secs: int | None
    run_secs: int | None
    processors: int | None
    requested_processors: int | None
    requested_secs: int | None
    status: int | None
    user: int | None
    queue: int | None


def jobs(path: str) -> Iterator[TraceJob]:
    """The jobs of a trace in order of submission.

    A processor is a unit. A job ran for its run time, else for what it requested; one that was
    cancelled before it began is given up after as long. Jobs of queue 0, by convention the
    interactive one, have high priority. Raises TraceError for a line that is wrong.
    """
    last_secs = 0
    for number, text in lines(path):
        content = text.partition(";")[0].split()
        if not content:
            continue
        line = _parsed(path, number, content)
        if line.submit_secs < last_secs:
            fail(
                path,
                number,
                f"submit time {line.submit_secs} comes behind {last_secs}",
                "the jobs of a trace stand in order of submission: `sort -n -k 2`",
            )
        last_secs = line.submit_secs
        if line.status in _PARTS:
            continue
        processors = line.requested_processors or line.processors or 1
        if processors > UNITS_MAX:
            fail(path, number, f"{processors} processors are more than {UNITS_MAX}")
        never_ran = line.status == _CANCELLED and not line.run_secs
        ran_secs = line.requested_secs if never_ran else line.run_secs
        yield TraceJob(
            number,
            line.submit_secs * 1000,
            None if line.user is None else str(line.user),
            processors,
            duration_ms=_ms(line.requested_secs if ran_secs is None else ran_secs),
            gives_up_ms=_ms(line.wait_secs or 0) if never_ran else None,
            priority="high" if line.queue == _INTERACTIVE else None,
        )


def _parsed(path: str, number: int, content: list[str]) -> _Line:
    if len(content) != len(FIELDS):
        fail(path, number, f"{counted(len(content), 'field')}, not {len(FIELDS)}")
    found: list[int | None] = []
    for place, text in enumerate(content):
        if not _WHOLE.fullmatch(text):
            problem = f"the {FIELDS[place]} is {shown(text)}, not a number of at least 0, or -1"
            fail(path, number, f"field {place + 1}: {problem}")
        value = int(text.partition(".")[0])
        if value > AMOUNT_MAX:
            fail(path, number, f"field {place + 1}: the {FIELDS[place]} is above {AMOUNT_MAX}")
        found.append(None if value < 0 else value)
    for place in (1, 2, 3, 8):
        if (found[place] or 0) > SECS_MAX:
            problem = f"the {FIELDS[place]} is above {SECS_MAX} s"
            fail(path, number, f"field {place + 1}: {problem}")
    if found[1] is None:
        fail(path, number, "field 2: the submit time is not known")
    return _Line(
        submit_secs=found[1],
        wait_secs=found[2],
        run_secs=found[3],
        processors=found[4],
        requested_processors=found[7],
        requested_secs=found[8],
        status=found[10],
        user=found[11],
        queue=found[14],
    )


def _ms(secs: int | None) -> int | None:
    return None if secs is None else secs * 1000
