"""Who arrives when: the instants of a process, and the jobs that a group of buyers submits.

A source is an iterator of arrivals in order of time, made as they are taken: a million jobs take
no more room than one.
"""

from collections.abc import Callable, Iterator
from itertools import count, repeat

from msgspec import Struct

from compute_market.amounts import PPM, UNIT_BYTES
from compute_market.jobs.cancel import By
from compute_market.records import Priority, Slice
from compute_market.requests import JobRequest
from compute_market.simulation.draws import Stream, draw
from compute_market.simulation.scenario import Arrivals, Buyers, Scenario, ppm

WORKLOAD = "transcode"
SLICE_PATH = "/simulated"
# What every slice must come to, and what a wrong proof says instead.
DIGEST = bytes(range(32))
WRONG = bytes(32)
_MINUTE_NS = 60 * 10**9
_NS_PER_MS = 10**6


class Arrival(Struct, frozen=True, gc=False):
    """A job on its way to the market. Its slices are known to be what they are: no file is read."""

    at_ms: int  # unix time
    request: JobRequest  # the id unique, the deadline by preference in seconds from then on
    slices: list[Slice]  # with `DIGEST` as their reference
    duration_ms: int | None = None  # of all its work; None where the provider decides
    waits: bool = False  # submitted with --wait
    gives_up_ms: int | None = None  # after which it is cancelled
    given_up_by: By = "client"
    ct: int = 0  # that its buyer has when it comes for the first time
    it: int = 0


# Arrivals in order of time. A trace is one, and so is each buyer of a scenario.
Source = Iterator[Arrival]
# Opens the trace that a group of buyers names. What it leaves open is what the group says.
OpenTrace = Callable[[Scenario, Buyers], Source]


def slice_of(units: int) -> Slice:
    """A slice of so many units, at least 1."""
    return Slice(SLICE_PATH, units * UNIT_BYTES, DIGEST)


def sources(scenario: Scenario, open_trace: OpenTrace | None = None) -> list[Source]:
    """The sources of all buyers, in the order of the scenario.

    Raises ValueError for a trace where `open_trace` is None, and what `open_trace` raises.
    """
    found: list[Source] = []
    for group in scenario.buyers:
        if group.arrivals.process == "trace":
            if open_trace is None:
                raise ValueError(f"nobody opens the trace of {group.name}")
            found.append(open_trace(scenario, group))
        else:
            found += [_jobs(scenario, group, number) for number in range(1, group.count + 1)]
    return found


def instants(scenario: Scenario, arrivals: Arrivals, stream: Stream) -> Iterator[int]:
    """The unix milliseconds at which something arrives, in order, until the end of the scenario.

    Gaps are counted in nanoseconds, so that rounding to milliseconds does not add up.
    """
    length_secs = scenario.length_secs
    until_secs = length_secs if arrivals.until_secs is None else arrivals.until_secs
    until_ms = scenario.at_ms(min(until_secs, length_secs))
    from_ms = scenario.at_ms(arrivals.from_secs)
    for after_ns in _spans(arrivals, stream):
        at_ms = from_ms + after_ns // _NS_PER_MS
        if at_ms >= until_ms:
            return
        yield at_ms


def _spans(arrivals: Arrivals, stream: Stream) -> Iterator[int]:
    """The nanoseconds from the start of a process to each arrival, without an end."""
    if arrivals.process == "burst":
        assert arrivals.every_secs is not None
        assert arrivals.size is not None
        for number in count():
            yield from repeat(number * arrivals.every_secs * 10**9, arrivals.size)
    assert arrivals.per_minute is not None
    rate = ppm(arrivals.per_minute)
    if arrivals.process == "constant":
        # The first comes at once; each is where it belongs, whatever rounding did to those before.
        yield from (number * _MINUTE_NS * PPM // rate for number in count())
    after_ns = 0
    while True:
        after_ns += stream.exponential(_MINUTE_NS * PPM // rate)
        yield after_ns


def _jobs(scenario: Scenario, group: Buyers, number: int) -> Source:
    """The jobs of one buyer of a group."""
    buyer = f"{group.name}-{number}"
    when = Stream(scenario.seed, f"arrivals of {buyer}")
    what = Stream(scenario.seed, f"jobs of {buyer}")
    for done, at_ms in enumerate(instants(scenario, group.arrivals, when)):
        who = buyer if group.identities == 1 else f"{buyer}.{done % group.identities + 1}"
        slices = [slice_of(draw(what, group.units)) for _ in range(draw(what, group.slices))]
        gives_up = group.gives_up_secs
        request = JobRequest(
            job_id=f"{buyer}-{done + 1}",
            buyer=who,
            workload=WORKLOAD,
            slices=[SLICE_PATH] * len(slices),
            max_price_per_unit=draw(what, group.max_price_per_unit),
            capability=group.capability,
            consumer_bond=group.consumer_bond,
            provider_bond_min=group.provider_bond_min,
            deadline_secs=draw(what, group.deadline_secs),
            priority=_priority(group, what),
            lane=group.lane,
        )
        yield Arrival(
            at_ms,
            request,
            slices,
            waits=group.waits,
            gives_up_ms=None if gives_up is None else draw(what, gives_up) * 1_000,
            ct=group.ct,
            it=group.it,
        )


def _priority(group: Buyers, stream: Stream) -> Priority:
    if isinstance(group.priority, str):
        return group.priority
    names = list(group.priority)  # In the order of the scenario.
    return names[stream.weighted(list(group.priority.values()))]
