"""What a trace says of a job or an offer, whatever its form, and what the market is asked for."""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from compute_market.config.settings import Config
from compute_market.jobs.cancel import By
from compute_market.records import Lane, Priority
from compute_market.requests import CapabilityRequest, JobRequest
from compute_market.simulation.arrivals import SLICE_PATH, WORKLOAD, Arrival, slice_of
from compute_market.simulation.draws import Stream, draw
from compute_market.simulation.scenario import Buyers, Scenario

# A thousand years: what is later is no time of a trace.
SECS_MAX: Final = 1_000 * 366 * 86_400
# What one job may ask for; its price and demand in micro-units stay far below what is counted.
UNITS_MAX: Final = 2**40


class TraceJob(Struct, frozen=True, gc=False):
    """A job as a trace has it; None where it says nothing and the scenario does."""

    number: int  # of its line, from 1: it makes its id
    at_ms: int  # since the beginning of the trace
    user: str | None
    units: int | None
    duration_ms: int | None = None
    gives_up_ms: int | None = None  # after which it is cancelled
    given_up_by: By = "client"
    priority: Priority | None = None
    lane: Lane | None = None
    capability: CapabilityRequest | None = None
    max_price_per_unit: int | None = None
    deadline_secs: int | None = None
    consumer_bond: int | None = None
    provider_bond_min: int | None = None
    waits: bool | None = None
    job_id: str | None = None  # as it is, not made of the group and the line
    buyer: str | None = None  # likewise


def arrivals(scenario: Scenario, group: Buyers, found: Iterator[TraceJob]) -> Iterator[Arrival]:
    """The jobs of a trace as a group of buyers submits them, from `from_secs` of the scenario on.

    What the trace leaves open is what the group says. The users of a trace that has some are
    buyers of their own; else the buyers of the group take turns. A provider has as long as the
    trace says the work takes, and the `deadline_secs` of the group beside.
    """
    what = Stream(scenario.seed, f"trace of {group.name}")
    start_ms = scenario.start_ms + group.arrivals.from_secs * 1_000
    until_secs = group.arrivals.until_secs
    end_ms = scenario.end_ms if until_secs is None else scenario.start_ms + until_secs * 1_000
    buyers = group.count * group.identities
    for count, job in enumerate(found):
        at_ms = start_ms + job.at_ms
        if at_ms >= end_ms:
            return
        user = count % buyers + 1 if job.user is None else job.user
        units = draw(what, group.units) if job.units is None else job.units
        price = job.max_price_per_unit
        gives_up_ms = job.gives_up_ms
        if gives_up_ms is None and group.gives_up_secs is not None:
            gives_up_ms = draw(what, group.gives_up_secs) * 1_000
        request = JobRequest(
            job_id=job.job_id or f"{group.name}:{job.number}",
            buyer=job.buyer or f"{group.name}-{user}",
            workload=WORKLOAD,
            slices=[SLICE_PATH],
            max_price_per_unit=draw(what, group.max_price_per_unit) if price is None else price,
            capability=group.capability if job.capability is None else job.capability,
            consumer_bond=_or(job.consumer_bond, group.consumer_bond),
            provider_bond_min=_or(job.provider_bond_min, group.provider_bond_min),
            deadline_secs=_deadline_secs(scenario.config, job, draw(what, group.deadline_secs)),
            priority=job.priority or _priority(group, what),
            lane=group.lane if job.lane is None else job.lane,
        )
        yield Arrival(
            at_ms,
            request,
            [slice_of(max(1, units))],
            duration_ms=job.duration_ms,
            waits=group.waits if job.waits is None else job.waits,
            gives_up_ms=gives_up_ms,
            given_up_by=job.given_up_by,
            ct=group.ct,
            it=group.it,
        )


def _or(said: int | None, otherwise: int) -> int:
    return otherwise if said is None else said


def _deadline_secs(config: Config, job: TraceJob, beside_secs: int) -> int:
    if job.deadline_secs is not None:
        return job.deadline_secs
    secs = -(-(job.duration_ms or 0) // 1_000) + beside_secs
    if secs <= config.deadline_max_secs:
        return secs
    return max(beside_secs, config.deadline_max_secs)


def _priority(group: Buyers, stream: Stream) -> Priority:
    if isinstance(group.priority, str):
        return group.priority
    names = list(group.priority)  # In the order of the scenario.
    return names[stream.weighted(list(group.priority.values()))]
