"""Which jobs are asked for: one selection drives what is listed and what is acted upon."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final

from msgspec import Struct

from compute_market.records import LIVE_STATES, Job, JobState, Lane, Placement, Priority

# A second after all that are.
BEHIND: Final = 2**64 - 1

Check = Callable[[Job], bool]


class Selection(Struct, frozen=True, gc=False):
    """Which jobs are asked for; what is None, empty or false asks for all.

    Times are unix milliseconds, and what is known to the second is there in all of it. `until` is
    not after it.
    """

    states: tuple[JobState, ...] = ()
    buyers: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()  # that hold a job, or held it last
    offer_ids: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    priorities: tuple[Priority, ...] = ()
    lanes: tuple[Lane, ...] = ()
    since_ms: int | None = None  # of the submission
    until_ms: int | None = None
    ended_since_ms: int | None = None
    ended_until_ms: int | None = None
    overdue_in_secs: int | None = None  # live, and the deadline is not as many seconds away
    unfunded: bool = False  # placed while no money moved
    held: bool | None = None

    @property
    def is_by_end(self) -> bool:
        return self.ended_since_ms is not None or self.ended_until_ms is not None

    @property
    def may_be_few(self) -> bool:
        """Whether parties or a time lead to what is meant past all others."""
        parties = self.buyers or self.providers or self.offer_ids
        since_or_until = self.since_ms, self.until_ms
        return bool(parties) or since_or_until != (None, None) or self.is_by_end

    @property
    def is_live(self) -> bool:
        """Whether only live jobs can be meant."""
        return (
            self.overdue_in_secs is not None
            or bool(self.held)
            or (bool(self.states) and not set(self.states) - set(LIVE_STATES))
        )

    def check(self, now: int) -> Check:
        """What says of a job whether it is asked for, at an instant in unix seconds."""
        checks = list(_checks(self, now))
        if not checks:
            return lambda job: True
        if len(checks) == 1:
            return checks[0]
        return lambda job: all(each(job) for each in checks)


def _checks(asked: Selection, now: int) -> Iterator[Check]:
    for name, values in (
        ("state", asked.states),
        ("buyer", asked.buyers),
        ("workload", asked.workloads),
        ("priority", asked.priorities),
        ("lane", asked.lanes),
    ):
        if values:
            yield _is_among(attrgetter(name), values)
    for name, values in (("provider", asked.providers), ("offer_id", asked.offer_ids)):
        if values:
            yield _is_placed_among(attrgetter(name), values)
    yield from _within("submitted_at", asked.since_ms, asked.until_ms)
    yield from _within("ended_at", asked.ended_since_ms, asked.ended_until_ms)
    if asked.overdue_in_secs is not None:
        before = now + asked.overdue_in_secs
        yield lambda job: job.state in LIVE_STATES and job.deadline < before
    if asked.unfunded:
        yield lambda job: job.placement is not None and not job.placement.funded
    if asked.held is not None:
        yield lambda job: job.held == asked.held


def _is_among(value: Callable[[Job], str], values: tuple[str, ...]) -> Check:
    wanted = frozenset(values)
    return lambda job: value(job) in wanted


def _is_placed_among(value: Callable[[Placement], str], values: tuple[str, ...]) -> Check:
    wanted = frozenset(values)
    return lambda job: job.placement is not None and value(job.placement) in wanted


def _within(name: str, since_ms: int | None, until_ms: int | None) -> Iterator[Check]:
    if since_ms is None and until_ms is None:
        return
    since = 0 if since_ms is None else since_ms // 1000
    until = BEHIND if until_ms is None else until_ms // 1000

    def check(job: Job) -> bool:
        second = getattr(job, name)
        return second is not None and since <= second <= until

    yield check
