"""What the events of a log say, taken in order: who asked for what, and what was offered when."""

from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec
from msgspec import Struct, ValidationError
from msgspec.structs import asdict

from compute_market.admission.mempool import BYTES_MAX
from compute_market.amounts import AMOUNT_MAX, parse_ppm
from compute_market.clock import EARLIEST_MS, LATEST_MS
from compute_market.errors import MarketError, UsageError
from compute_market.governance import parameters
from compute_market.records import (
    DEADLINE_MAX,
    PRIORITIES,
    Job,
    Mode,
    Offer,
    check_id,
    replace,
)
from compute_market.requests import OfferChange, OfferRequest
from compute_market.simulation import terms
from compute_market.simulation.replay_records import Line, Replay
from compute_market.simulation.scenario import LENGTH_SECS_MAX
from compute_market.simulation.script import (
    Act,
    Adjusted,
    Capacity,
    Changed,
    Entry,
    Extended,
    Held,
    InForce,
    Posted,
    Preferred,
    Released,
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
_OF_JOBS: Final = ("job_held", "job_released", "job_changed", "deadline_extended")


class _Course(Struct, gc=False):
    """What the log has said so far of one job."""

    job: TraceJob
    started_ms: int | None = None
    extended_secs: int = 0
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
        problem: Callable[[int, str], NoReturn],
        job_of: Callable[[str], Job | None] | None = None,
        offer_of: Callable[[str], Offer | None] | None = None,
    ) -> None:
        self._problem = problem
        self._job_of = job_of
        self._offer_of = offer_of
        self._courses: dict[str, _Course] = {}
        self._providers: dict[str, None] = {}
        self._posted: dict[str, int] = {}  # place in the script, per offer
        self._told: set[tuple[str, str]] = set()  # terms of offers whose first value is known
        self._unposted: dict[str, _Unposted] = {}
        self._script: list[Entry] = []
        self._is_real: bool | None = None
        self._done_ms = self._done_units = 0
        self._start_ms = self._end_ms = self._imports = 0

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
        elif line.event == "scores_imported":
            self._imports += 1
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
            self._imports,
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
        asked = line.detail.get("asked")
        found = None
        if known is not None:
            found = terms.of_job(known)
        elif line.event == "job_refused" and isinstance(asked, dict):
            try:
                found = terms.of_refused(asked)
            except ValidationError as error:
                self._problem(number, terms.told_of_refused("asked", error))
        if found is not None:
            job = replace(job, **asdict(found))
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
        """A job that was done takes as long again; one that was not fails as soon, by its deadline,
        or is cancelled as soon by whoever did."""
        course = self._courses.get(line.job_id or "")
        if course is None or course.has_ended:
            return
        course.has_ended = True
        job = course.job
        started_ms = course.started_ms
        lasted_ms = None if started_ms is None else line.at_ms - started_ms
        by = line.detail.get("by")
        if line.event == "job_completed":
            job = replace(job, duration_ms=lasted_ms)
            if lasted_ms is not None:
                self._done_ms += lasted_ms
                self._done_units += job.units or 0
        elif line.event == "job_failed":
            waited_ms = line.at_ms - self._start_ms - job.at_ms
            secs = max(1, (waited_ms if lasted_ms is None else lasted_ms) // 1_000)
            # One that failed before its deadline came has less time now.
            is_late = line.detail.get("cause") in ("deadline_missed", "never_started")
            until_secs = max(1, secs - course.extended_secs)
            if is_late and job.deadline_secs is not None:
                until_secs = job.deadline_secs
            lasts_ms = None if lasted_ms is None else 2_000 * secs
            job = replace(job, duration_ms=lasts_ms, deadline_secs=until_secs)
        elif by == "client" or by == "provider":
            gives_up_ms = line.at_ms - self._start_ms - job.at_ms
            ends_ms = None if lasted_ms is None else lasted_ms + 1_000
            job = replace(job, gives_up_ms=gives_up_ms, given_up_by=by, duration_ms=ends_ms)
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
        if line.event in _OF_JOBS:
            return self._moved(number, line)
        if line.event in ("score_adjusted", "score_gossiped"):
            return self._adjusted(number, line)
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
        self._posted[offer_id] = len(self._script)
        self._providers.setdefault(name)
        return Posted(self._request(offer_id, name, units, price))

    def _changed(self, number: int, line: Line) -> Act:
        """What of its terms became other. The market price is a price that was found then."""
        terms_now: dict[str, Any] = {
            name: self._count(number, line, name, most, least=least)
            for name, least, most in (
                ("units", 1, AMOUNT_MAX),
                ("price_per_unit", 1, AMOUNT_MAX),
                ("fee_pct_ct", 0, 100),
            )
            if name in line.detail
        }
        if "reputation_multiplier" in line.detail:
            terms_now["reputation_multiplier"] = self._multiplier(
                number, line, "reputation_multiplier"
            )
        offer_id = self._id(number, line.offer_id, "offer_id")
        self._post_as_it_was(number, line, offer_id)
        return Changed(OfferChange(offer_id, **terms_now))

    def _post_as_it_was(self, number: int, line: Line, offer_id: str) -> None:
        """What is known of an offer is what it has become: it was posted with what it had before
        the first change."""
        place = self._posted.get(offer_id)
        entry = None if place is None else self._script[place]
        if place is None or entry is None or not isinstance(entry.act, Posted):
            return
        was: dict[str, Any] = {}
        for name in ("fee_pct_ct", "reputation_multiplier"):
            before = f"was_{name}"
            if before in line.detail and (offer_id, name) not in self._told:
                self._told.add((offer_id, name))
                was[name] = (
                    self._multiplier(number, line, before)
                    if name == "reputation_multiplier"
                    else self._count(number, line, before, 100, least=0)
                )
        if was:
            self._script[place] = Entry(entry.at_ms, Posted(replace(entry.act.request, **was)))

    def _request(self, offer_id: str, provider: str, units: int, price: int) -> OfferRequest:
        known = None if self._offer_of is None else self._offer_of(offer_id)
        if known is None:
            return OfferRequest(provider, units, price, offer_id)
        # One that was posted before the log begins had at least what it has.
        return terms.of_offer(known, units if offer_id in self._posted else known.units, price)

    def _moved(self, number: int, line: Line) -> Act:
        """A live job was held, released, or given another priority or more time."""
        job_id = self._id(number, line.job_id, "job_id")
        if line.event == "job_held":
            return Held(job_id)
        if line.event == "job_released":
            return Released(job_id)
        if line.event == "deadline_extended":
            by_secs = self._count(number, line, "by_secs", DEADLINE_MAX)
            if (course := self._courses.get(job_id)) is not None:
                course.extended_secs += by_secs
            return Extended(job_id, by_secs)
        priority = line.detail.get("priority")
        found = next((each for each in PRIORITIES if each == priority), None)
        if found is None:
            self._problem(number, f"{_as_json(priority)} is no priority")
        return Preferred(job_id, found)

    def _adjusted(self, number: int, line: Line) -> Act | None:
        """A score that was moved by hand, or by the word of another market."""
        provider = self._id(number, line.owner, "owner")
        if line.event == "score_adjusted":
            delta = self._count(number, line, "delta", AMOUNT_MAX, least=-AMOUNT_MAX)
        else:
            score = self._count(number, line, "score", AMOUNT_MAX, least=-AMOUNT_MAX)
            delta = score - self._count(number, line, "was", AMOUNT_MAX, least=-AMOUNT_MAX)
        return Adjusted(provider, delta) if delta else None

    def _governed(self, number: int, line: Line) -> Act:
        key, value = str(line.detail.get("key")), str(line.detail.get("value"))
        try:
            parsed = parameters.parse(key, value)
        except MarketError as error:
            self._problem(number, error.message)
        return InForce(key, parsed) if line.event == "params_activated" else RolledBack(key)

    def _turned(self, number: int, line: Line) -> Act | None:
        """Armed moves nothing yet: that it turned real is an event of its own."""
        modes: dict[str, Mode] = {"dry_run": "dry_run", "armed": "armed", "real": "real"}
        to = modes.get(str(line.detail.get("to")))
        if to is None:
            self._problem(number, f"{_as_json(line.detail.get('to'))} is no mode of settlement")
        if self._is_real is None:
            self._is_real = to == "dry_run" and line.detail.get("reason") != "arming cancelled"
        return Turned(to) if to == "real" or to == "dry_run" else None

    def _id(self, number: int, text: str | None, what: str) -> str:
        try:
            return check_id(text or "", what)
        except UsageError as error:
            self._problem(number, error.message)

    def _multiplier(self, number: int, line: Line, name: str) -> str:
        found = line.detail[name]
        if not isinstance(found, str) or parse_ppm(found) is None:
            self._problem(number, f"{name} is {_as_json(found)}, not a decimal in quotes")
        return found

    def _count(self, number: int, line: Line, name: str, most: int, *, least: int = 1) -> int:
        found = line.detail.get(name)
        if name not in line.detail:
            self._problem(number, f"{name} is missing")
        if type(found) is not int:
            self._problem(number, f"{name} is {_as_json(found)}, not a whole number")
        if not least <= found <= most:
            self._problem(number, f"{name} is {_as_json(found)}, not within {least}…{most}")
        return found


def _as_json(value: object) -> str:
    """A value of a log as an error quotes it, so that its type is seen."""
    return shown(msgspec.json.encode(value).decode())
