"""What a market has been through, to be played again under other settings: its own log.

The log says who asked for what when, what it took and what it cost. What a job or an offer was
beside that, its capability, its cap and its deadline, is with the market itself, and so known only
where a copy of its home is at hand.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct

from compute_market import events
from compute_market.amounts import AMOUNT_MAX
from compute_market.clock import EARLIEST_MS, LATEST_MS
from compute_market.config.settings import Config
from compute_market.errors import UsageError
from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.records import Capability, EventName, Job, Offer, check_id, replace
from compute_market.requests import CapabilityRequest
from compute_market.simulation.arrivals import OpenTrace, Source
from compute_market.simulation.scenario import (
    LENGTH_SECS_MAX,
    Arrivals,
    Buyers,
    PriceChange,
    Providers,
    Scenario,
)
from compute_market.simulation.trace_jobs import UNITS_MAX, TraceJob, arrivals
from compute_market.simulation.trace_lines import fail, lines, shown
from compute_market.store.txn import Txn
from compute_market.text import quoted

# What is kept of a job until the end of the log takes some hundred bytes.
JOBS_MAX: Final = 2_000_000
GROUP: Final = "log"
_DECISIONS: Final = ("job_queued", "job_pending", "job_refused")


class Replay(Struct, frozen=True, gc=False):
    """What happened from `start_ms` on, in so many seconds."""

    start_ms: int  # unix time
    length_secs: int
    providers: list[Providers]
    jobs: list[TraceJob]  # in order of submission


class _Line(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
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


class _Course(Struct, gc=False):
    """What the log has said so far of one job."""

    job: TraceJob
    started_ms: int | None = None


def of_log(path: str) -> Replay:
    """What a log says that was printed with `log --jsonl`, the oldest event first.

    Raises TraceError for a line that is no event, or out of order.
    """
    found = _Recorder(partial(fail, path))
    last = 0
    for number, text in lines(path):
        try:
            line = msgspec.json.decode(text, type=_Line)
        except (msgspec.DecodeError, RecursionError) as error:
            fail(path, number, f"this is no event of a log: {shown(str(error))}")
        if not EARLIEST_MS <= line.at_ms < LATEST_MS:
            fail(path, number, f"at_ms {line.at_ms} is no time of a market")
        if line.seq <= last:
            fail(path, number, f"event {line.seq} comes behind event {last}")
        last = line.seq
        found.take(number, line)
    return found.replay(quoted(path))


def of_market(txn: Txn) -> Replay:
    """What the log of a market says, and what its jobs and offers were. Changes nothing."""

    def problem(number: int, text: str) -> None:
        raise UsageError(f"event {number} of the log: {text}")

    found = _Recorder(problem, partial(jobs.find, txn), partial(offers.find, txn))
    for logged in events.forward(txn):
        event = logged.event
        line = _Line(
            logged.seq,
            logged.at_ms,
            event.event,
            event.job_id,
            event.offer_id,
            event.owner,
            event.detail,
        )
        found.take(logged.seq, line)
    return found.replay("the log")


def scenario(replay: Replay, config: Config, *, seed: int = 1) -> Scenario:
    """A scenario of what was, under settings as they might have been.

    Nobody is short of money in it: the log does not say who had how much when it began.
    """
    buyers = Buyers(name=GROUP, arrivals=Arrivals(process="trace", file=GROUP))
    return Scenario(
        length_secs=replay.length_secs,
        providers=replay.providers,
        buyers=[buyers],
        seed=seed,
        start_ms=replay.start_ms,
        config=config,
    )


def open_trace(replay: Replay) -> OpenTrace:
    """What opens the trace of such a scenario."""

    def opened(scenario: Scenario, group: Buyers) -> Source:
        return arrivals(scenario, group, iter(replay.jobs))

    return opened


class _Recorder:
    """Takes the events of a log in order, and remembers what they say of jobs and offers.

    `job_of` and `offer_of` look up what was stored, where there is a store.
    """

    def __init__(
        self,
        problem: Callable[[int, str], Any],
        job_of: Callable[[str], Job | None] = lambda _: None,
        offer_of: Callable[[str], Offer | None] = lambda _: None,
    ) -> None:
        self._problem = problem
        self._job_of = job_of
        self._offer_of = offer_of
        self._courses: dict[str, _Course] = {}
        self._providers: dict[str, Providers] = {}
        self._open: dict[str, set[str]] = {}  # provider → its offers that are not withdrawn
        self._start_ms = self._end_ms = 0

    def take(self, number: int, line: _Line) -> None:
        self._start_ms = self._start_ms or line.at_ms
        self._end_ms = max(self._end_ms, line.at_ms)
        if line.event in _DECISIONS:
            self._decided(number, line)
        elif line.event == "job_started":
            course = self._courses.get(line.job_id or "")
            if course is not None:
                course.started_ms = line.at_ms
        elif line.event in ("job_completed", "job_failed", "job_cancelled"):
            self._ended(line)
        elif line.event == "offer_posted":
            self._posted(number, line)
        elif line.event == "offer_withdrawn":
            self._withdrawn(line)

    def replay(self, source: str) -> Replay:
        """All that was taken. Raises UsageError when there is nothing in it to be played."""
        length_secs = (self._end_ms - self._start_ms) // 1_000 + 1
        if not self._providers:
            raise UsageError(f"{source}: no offer is posted in it, so there is nothing to replay")
        if length_secs > LENGTH_SECS_MAX:
            raise UsageError(f"{source}: {length_secs} s are more than {LENGTH_SECS_MAX}")
        return Replay(
            self._start_ms,
            length_secs,
            list(self._providers.values()),
            [course.job for course in self._courses.values()],
        )

    def _decided(self, number: int, line: _Line) -> None:
        """The first word of the market about a job is when it was submitted."""
        job_id = self._id(number, line.job_id, "job_id")
        if job_id in self._courses:
            return
        buyer = self._id(number, line.owner, "owner")
        if len(self._courses) == JOBS_MAX:
            self._problem(number, f"there are more than {JOBS_MAX} jobs")
        known = self._job_of(job_id)
        job = TraceJob(
            number,
            line.at_ms - self._start_ms,
            None,
            self._count(number, line, "units", UNITS_MAX),
            waits=line.event == "job_pending",
            job_id=job_id,
            buyer=buyer,
        )
        if known is not None:
            job = replace(
                job,
                capability=_asked(known.capability),
                max_price_per_unit=known.max_price_per_unit,
                priority=known.priority,
                lane=known.lane,
                deadline_secs=_deadline_secs(known),
            )
        self._courses[job_id] = _Course(job)

    def _ended(self, line: _Line) -> None:
        """A job that was done takes as long again; one that was not misses its deadline again, or
        is given up as soon."""
        course = self._courses.get(line.job_id or "")
        if course is None:
            return
        job = course.job
        started_ms = course.started_ms
        lasted_ms = None if started_ms is None else line.at_ms - started_ms
        if line.event == "job_completed":
            job = replace(job, duration_ms=lasted_ms)
        elif line.event == "job_failed" and lasted_ms is not None:
            secs = max(1, lasted_ms // 1_000)
            job = replace(job, duration_ms=2_000 * secs, deadline_secs=job.deadline_secs or secs)
        elif line.event == "job_cancelled" and line.detail.get("by") == "client":
            gives_up_ms = line.at_ms - self._start_ms - job.at_ms
            ends_ms = None if lasted_ms is None else lasted_ms + 1_000
            job = replace(job, gives_up_ms=gives_up_ms, duration_ms=ends_ms)
        course.job = job

    def _posted(self, number: int, line: _Line) -> None:
        """A provider has one offer at a time here: the largest of its own, posted again when it is
        used up, and at the price that it asked last."""
        name = self._id(number, line.owner, "owner")
        offer_id = self._id(number, line.offer_id, "offer_id")
        units = self._count(number, line, "units", AMOUNT_MAX)
        price = self._count(number, line, "price_per_unit", AMOUNT_MAX)
        at_secs = (line.at_ms - self._start_ms) // 1_000
        self._open.setdefault(name, set()).add(offer_id)
        known = self._offer_of(offer_id)
        before = self._providers.get(name)
        if before is None:
            self._providers[name] = _provider(name, at_secs, units, price, known)
            return
        changes = before.price_changes
        last = changes[-1].price_per_unit if changes else before.price_per_unit
        if price != last:
            changes = [*changes, PriceChange(at_secs=at_secs, price_per_unit=price)]
        assert isinstance(before.units, int)
        self._providers[name] = replace(
            before, units=max(units, before.units), price_changes=changes, until_secs=None
        )

    def _withdrawn(self, line: _Line) -> None:
        """A provider that has withdrawn all its offers is gone, until it posts another."""
        name = line.owner or ""
        still_open = self._open.get(name)
        if still_open is None:
            return
        still_open.discard(line.offer_id or "")
        if not still_open:
            before = self._providers[name]
            secs = max(before.from_secs + 1, (line.at_ms - self._start_ms) // 1_000)
            self._providers[name] = replace(before, until_secs=secs)

    def _id(self, number: int, text: str | None, what: str) -> str:
        try:
            return check_id(text or "", what)
        except UsageError as error:
            self._problem(number, error.message)
            raise

    def _count(self, number: int, line: _Line, name: str, most: int) -> int:
        found = line.detail.get(name)
        if type(found) is not int or not 0 <= found <= most:
            self._problem(number, f"{name} is {shown(str(found))}, not within 0…{most}")
            return 0
        return found


def _provider(name: str, at_secs: int, units: int, price: int, known: Offer | None) -> Providers:
    found = Providers(name=name, units=units, price_per_unit=price, from_secs=at_secs)
    if known is None:
        return found
    return replace(
        found,
        capability=_asked(known.capability),
        fee_pct_ct=known.fee_pct_ct,
        provider_bond=known.provider_bond,
        consumer_bond=known.consumer_bond,
        reputation=known.reputation,
    )


def _asked(capability: Capability) -> CapabilityRequest:
    models = list(capability.gpu_models)
    return CapabilityRequest(
        cpu_cores=capability.cpu_cores,
        gpu=models[0] if len(models) == 1 else models or None,
        gpu_count=capability.gpu_count,
        gpu_memory_mb=capability.gpu_memory_mb,
        accelerator=capability.accelerator,
        accelerator_memory_mb=capability.accelerator_memory_mb,
    )


def _deadline_secs(job: Job) -> int:
    """How long the provider of a job had, as it was asked for."""
    if job.deadline_secs is not None:
        return job.deadline_secs
    return job.deadline - job.extended_secs - job.submitted_at
