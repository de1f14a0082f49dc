"""What the events of a log say, taken in order: who asked for what, and what was offered when."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET, Struct

from compute_market.admission.mempool import BYTES_MAX
from compute_market.amounts import AMOUNT_MAX
from compute_market.clock import EARLIEST_MS, LATEST_MS
from compute_market.errors import MarketError, UsageError
from compute_market.governance import parameters
from compute_market.records import Capability, EventName, Job, Mode, Offer, check_id, replace
from compute_market.requests import CapabilityRequest, OfferChange, OfferRequest
from compute_market.simulation.scenario import LENGTH_SECS_MAX
from compute_market.simulation.script import (
    Act,
    Capacity,
    Changed,
    Entry,
    InForce,
    Posted,
    RolledBack,
    Sent,
    Turned,
    Withdrawn,
)
from compute_market.simulation.trace_jobs import UNITS_MAX, TraceJob
from compute_market.simulation.trace_lines import shown

# What is kept of a log until its end takes some hundred bytes for each of these.
JOBS_MAX: Final = 2_000_000
ACTS_MAX: Final = 2_000_000
# What a job may cost for a unit where nobody knows better.
PRICE_MAX: Final = 100
_DECISIONS: Final = ("job_queued", "job_pending", "job_refused")


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


class _Course(Struct, gc=False):
    """What the log has said so far of one job."""

    job: TraceJob
    started_ms: int | None = None
    has_ended: bool = False


class _Unposted(Struct, gc=False):
    """An offer that jobs ran on and that was posted before the log begins."""

    provider: str
    price: int
    units: int = 0  # that its jobs took


class Recorder:
    """Takes the events of a log in order, and remembers what they say of jobs and offers.

    `problem` raises what is wrong with an event. `job_of` and `offer_of` look up what was stored,
    where there is a store.
    """

    def __init__(
        self,
        problem: Callable[[int, str], Any],
        job_of: Callable[[str], Job | None] | None = None,
        offer_of: Callable[[str], Offer | None] | None = None,
    ) -> None:
        self._problem = problem
        self._job_of = job_of
        self._offer_of = offer_of
        self._courses: dict[str, _Course] = {}
        self._providers: dict[str, None] = {}
        self._posted: set[str] = set()
        self._unposted: dict[str, _Unposted] = {}
        self._script: list[Entry] = []
        self._is_real: bool | None = None
        self._done_ms = self._done_units = 0
        self._start_ms = self._end_ms = 0

    def take(self, number: int, line: Line) -> None:
        """Take the next event; `number` is what `problem` calls it."""
        if not EARLIEST_MS <= line.at_ms < LATEST_MS:
            self._problem(number, f"at_ms {line.at_ms} is no time of a market")
        if line.at_ms < self._end_ms:
            self._problem(number, f"at_ms {line.at_ms} comes behind {self._end_ms}")
        self._start_ms = self._start_ms or line.at_ms
        self._end_ms = line.at_ms
        if line.event in _DECISIONS:
            self._decided(number, line)
        if line.event in ("job_queued", "job_handed_over"):
            self._placed(number, line)
        elif line.event == "job_started":
            course = self._courses.get(line.job_id or "")
            if course is not None:
                course.started_ms = line.at_ms
        elif line.event in ("job_completed", "job_failed", "job_cancelled"):
            self._ended(line)
        elif line.event == "job_paid":
            self._is_real = True if self._is_real is None else self._is_real
        else:
            act = self._act(number, line)
            if act is not None:
                if len(self._script) == ACTS_MAX:
                    self._problem(number, f"more than {ACTS_MAX} things happened beside the jobs")
                self._script.append(Entry(line.at_ms, act))

    def replay(self, source: str) -> Replay:
        """All that was taken. Raises UsageError when there is nothing in it to be played."""
        length_secs = (self._end_ms - self._start_ms) // 1_000 + 1
        before = [
            Entry(
                self._start_ms,
                Posted(self._request(offer_id, each.provider, each.units, each.price)),
            )
            for offer_id, each in self._unposted.items()
        ]
        if not self._providers:
            raise UsageError(f"{source}: no offer is posted in it, so there is nothing to replay")
        if length_secs > LENGTH_SECS_MAX:
            raise UsageError(f"{source}: {length_secs} s are more than {LENGTH_SECS_MAX}")
        return Replay(
            self._start_ms,
            length_secs,
            list(self._providers),
            [self._as_it_ended(course) for course in self._courses.values()],
            before + self._script,
            max(1, self._done_ms // self._done_units) if self._done_units else 1_000,
            bool(self._is_real),
            len(before),
            self._job_of is not None,
        )

    # Jobs.

    def _decided(self, number: int, line: Line) -> None:
        """The first word of the market about a job is when it was submitted."""
        job_id = self._id(number, line.job_id, "job_id")
        if job_id in self._courses:
            return
        buyer = self._id(number, line.owner, "owner")
        if len(self._courses) == JOBS_MAX:
            self._problem(number, f"there are more than {JOBS_MAX} jobs")
        known = None if self._job_of is None else self._job_of(job_id)
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

    def _placed(self, number: int, line: Line) -> None:
        """A job has an offer: one that the log does not know of was posted before."""
        units = self._count(number, line, "units", UNITS_MAX)
        price = self._count(number, line, "price_per_unit", AMOUNT_MAX)
        names = line.detail.get("to" if line.event == "job_handed_over" else "provider")
        provider = self._id(number, names if isinstance(names, str) else None, "provider")
        offer_id = self._id(number, line.offer_id, "offer_id")
        course = self._courses.get(line.job_id or "")
        if course is not None and course.job.max_price_per_unit is None and price > PRICE_MAX:
            course.job = replace(course.job, max_price_per_unit=price)
        if offer_id in self._posted:
            return
        self._providers.setdefault(provider)
        found = self._unposted.setdefault(offer_id, _Unposted(provider, price))
        found.units = min(found.units + units, AMOUNT_MAX)

    def _ended(self, line: Line) -> None:
        """A job that was done takes as long again; one that was not misses its deadline again, or
        is given up as soon."""
        course = self._courses.get(line.job_id or "")
        if course is None or course.has_ended:
            return
        course.has_ended = True
        job = course.job
        started_ms = course.started_ms
        lasted_ms = None if started_ms is None else line.at_ms - started_ms
        if line.event == "job_completed":
            job = replace(job, duration_ms=lasted_ms)
            if lasted_ms is not None:
                self._done_ms += lasted_ms
                self._done_units += job.units or 0
        elif line.event == "job_failed" and lasted_ms is not None:
            secs = max(1, lasted_ms // 1_000)
            job = replace(job, duration_ms=2_000 * secs, deadline_secs=job.deadline_secs or secs)
        elif line.event == "job_cancelled" and line.detail.get("by") == "client":
            gives_up_ms = line.at_ms - self._start_ms - job.at_ms
            ends_ms = None if lasted_ms is None else lasted_ms + 1_000
            job = replace(job, gives_up_ms=gives_up_ms, duration_ms=ends_ms)
        course.job = job

    def _as_it_ended(self, course: _Course) -> TraceJob:
        """One that was at work when the log ends is at work then again."""
        if course.has_ended or course.started_ms is None:
            return course.job
        return replace(course.job, duration_ms=self._end_ms - course.started_ms + 1_000)

    # What happens beside them.

    def _act(self, number: int, line: Line) -> Act | None:
        """What an event says happened beside the jobs; None if nothing that a replay knows."""
        if line.event == "offer_posted":
            return self._offered(number, line)
        if line.event == "offer_withdrawn":
            return Withdrawn(self._id(number, line.offer_id, "offer_id"))
        if line.event == "offer_changed":
            return self._changed(number, line)
        if line.event == "capacity_recorded":
            return Capacity(self._count(number, line, "estimate", AMOUNT_MAX, least=0))
        if line.event in ("params_activated", "params_rolled_back"):
            return self._governed(number, line)
        if line.event == "mode_changed":
            return self._turned(number, line)
        if line.event in ("tx_admitted", "tx_refused"):
            fee = self._count(number, line, "fee", AMOUNT_MAX)
            size = self._count(number, line, "bytes", BYTES_MAX)
            return Sent(self._id(number, line.owner, "owner"), fee, size)
        return None

    def _offered(self, number: int, line: Line) -> Act:
        name = self._id(number, line.owner, "owner")
        offer_id = self._id(number, line.offer_id, "offer_id")
        units = self._count(number, line, "units", AMOUNT_MAX)
        price = self._count(number, line, "price_per_unit", AMOUNT_MAX)
        self._posted.add(offer_id)
        self._providers.setdefault(name)
        return Posted(self._request(offer_id, name, units, price))

    def _changed(self, number: int, line: Line) -> Act:
        """What of its terms became other. The market price is a price that was found then."""
        terms: dict[str, Any] = {
            name: self._count(number, line, name, most, least=least)
            for name, least, most in (
                ("units", 1, AMOUNT_MAX),
                ("price_per_unit", 1, AMOUNT_MAX),
                ("fee_pct_ct", 0, 100),
            )
            if name in line.detail
        }
        multiplier = line.detail.get("reputation_multiplier", UNSET)
        offer_id = self._id(number, line.offer_id, "offer_id")
        return Changed(OfferChange(offer_id, reputation_multiplier=multiplier, **terms))

    def _request(self, offer_id: str, provider: str, units: int, price: int) -> OfferRequest:
        known = None if self._offer_of is None else self._offer_of(offer_id)
        if known is None:
            return OfferRequest(provider, units, price, offer_id)
        return OfferRequest(
            provider,
            known.units,
            price,
            offer_id,
            fee_pct_ct=known.fee_pct_ct,
            provider_bond=known.provider_bond,
            consumer_bond=known.consumer_bond,
            capability=_asked(known.capability),
            reputation=known.reputation,
        )

    def _governed(self, number: int, line: Line) -> Act:
        key, value = str(line.detail.get("key")), str(line.detail.get("value"))
        try:
            parsed = parameters.parse(key, value)
        except MarketError as error:
            self._problem(number, error.message)
            raise
        return InForce(key, parsed) if line.event == "params_activated" else RolledBack(key)

    def _turned(self, number: int, line: Line) -> Act | None:
        """Armed moves nothing yet: that it turned real is an event of its own."""
        modes: dict[str, Mode] = {"dry_run": "dry_run", "armed": "armed", "real": "real"}
        to = modes.get(str(line.detail.get("to")))
        if to is None:
            self._problem(number, f"{shown(str(line.detail.get('to')))} is no mode of settlement")
        if self._is_real is None:
            self._is_real = to == "dry_run" and line.detail.get("reason") != "arming cancelled"
        return Turned(to) if to == "real" or to == "dry_run" else None

    def _id(self, number: int, text: str | None, what: str) -> str:
        try:
            return check_id(text or "", what)
        except UsageError as error:
            self._problem(number, error.message)
            raise

    def _count(self, number: int, line: Line, name: str, most: int, *, least: int = 1) -> int:
        found = line.detail.get(name)
        if type(found) is not int or not least <= found <= most:
            self._problem(number, f"{name} is {shown(str(found))}, not within {least}…{most}")
            return least
        return found


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
