"""What a market went through, as it is read from its log, and a line of such a log."""

from typing import Any

from msgspec import Struct

from compute_market.records import EventName
from compute_market.simulation.script import Entry
from compute_market.simulation.trace_jobs import TraceJob


class Replay(Struct, frozen=True, gc=False):
    """What happened from `start_ms` on, in so many seconds."""

    start_ms: int  # unix time
    length_secs: int
    providers: list[str]  # in order of their first offer
    jobs: list[TraceJob]  # in order of submission
    script: list[Entry]  # in order of time
    unit_ms: int  # that a unit took on average
    is_real: bool  # whether money moved at the start
    inferred: int  # offers that were posted before
    terms_known: bool  # caps, capabilities, deadlines and the like
    imports: int  # files of scores


class Line(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An event as `log --jsonl` prints it."""

    seq: int
    at_ms: int
    event: EventName
    job_id: str | None = None
    offer_id: str | None = None
    owner: str | None = None
    detail: dict[str, Any] = {}
    user: str = ""
    host: str = ""
    pid: int = 0
    command: str = ""
