"""What a simulation came to: one document, and its series by time.

Ratios are decimals with four places made of integers, so that they are the same bytes everywhere.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from compute_market.amounts import PPM, half_up
from compute_market.errors import InternalError
from compute_market.simulation.measures import (
    PARTIES_MAX,
    Measures,
    Party,
    Sample,
    Waits,
    fairness_ppm,
)

# What two runs of the same scenario and seed differ in.
VOLATILE = ("wall_ms", "per_second")
_PLACES = 10_000


class Ran(Struct, frozen=True, gc=False):
    """One run as whoever ran it knows it."""

    scenario: str
    seed: int
    length_ms: int
    steps: int
    wall_ms: int
    missed: int  # jobs that an outage kept from being submitted
    violations: int  # laws that the audit found broken


def document(ran: Ran, measures: Measures) -> dict[str, Any]:
    """The report. Raises InternalError for a run that has not ended."""
    totals = measures.totals
    if totals is None:
        raise InternalError("the run has not ended")
    last = measures.samples[-1]
    buyers_units = [party.units for party in measures.buyers.values()]
    all_waits = Waits()
    for waits in measures.waits.values():
        all_waits.take(waits)
    return {
        "scenario": ran.scenario,
        "seed": ran.seed,
        "length_secs": ran.length_ms // 1000,
        "jobs": {
            "submitted": measures.submitted,
            "admitted": measures.admitted,
            **measures.ended,
            "left": totals.left,
            "refused": dict(sorted(measures.refused.items())),
            "deferred": totals.deferred,
            "missed": ran.missed,
        },
        "wait_ms": all_waits.document()
        | {
            "by_priority": {
                priority: {"jobs": waits.count} | waits.document()
                for priority, waits in measures.waits.items()
                if waits.count
            }
        },
        "utilization": _ratio(measures.units_proven * 1000, measures.capacity_units_ms),
        "fairness": decimal(fairness_ppm(buyers_units)),
        "shares": {
            "buyers": _parties(measures.buyers, measures.units_proven),
            "providers": _parties(measures.providers, measures.units_proven),
        },
        "prices": _prices(last),
        "money": totals.money | {"subsidies": {"it": measures.subsidies_it}},
        "consumers": measures.transactions | {"tight_secs": measures.tight_ms // 1000},
        "preemptions": totals.preemptions,
        "scores": totals.scores,
        "failures": {
            action: dict(sorted(reasons.items()))
            for action, reasons in sorted(measures.failures.items())
        },
        "audit": {"invalid": ran.violations},
        "steps": ran.steps,
        "wall_ms": ran.wall_ms,
        "per_second": half_up(ran.steps * 1000, max(1, ran.wall_ms)),
    }


def repeatable(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what is another each time."""
    return {name: value for name, value in report.items() if name not in VOLATILE}


def series(measures: Measures) -> Iterator[dict[str, Any]]:
    """The samples as documents, in order of time."""
    for sample in measures.samples:
        yield {
            "at_secs": sample.at_ms // 1000,
            "submitted": sample.submitted,
            "admitted": sample.admitted,
            "refused": sample.refused,
            "completed": sample.completed,
            "pending": sample.pending,
            "queued": sample.queued,
            "active": sample.active,
            "backlog": sample.backlog,
            "utilization": decimal(sample.utilization_ppm),
            "mode": sample.mode,
            "fee_p90": sample.fee_p90,
            "multiplier": sample.multiplier,
            "prices": _prices(sample),
            "shares": {
                "buyers": _decimals(sample.buyers_ppm),
                "providers": _decimals(sample.providers_ppm),
            },
        }


def flat(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The figures of a document with the names that lead to them, joined by dots, for a table."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield prefix + name, value


def decimal(ppm: int) -> float:
    """A ratio with four places."""
    return half_up(ppm * _PLACES, PPM) / _PLACES


def _ratio(part: int, whole: int) -> float:
    return half_up(part * _PLACES, whole) / _PLACES if whole else 0.0


def _decimals(shares_ppm: dict[str, int]) -> dict[str, float]:
    return {party: decimal(ppm) for party, ppm in shares_ppm.items()}


def _prices(sample: Sample) -> dict[str, dict[str, int] | None]:
    names = ("p25", "median", "p75")
    return {
        lane: None if bands is None else dict(zip(names, bands, strict=True))
        for lane, bands in sample.prices.items()
    }


def _parties(parties: dict[str, Party], units: int) -> list[dict[str, Any]]:
    """The largest of a role: by what was proven, then by the peak of their share."""
    ranked = sorted(parties.items(), key=lambda each: (-each[1].units, -each[1].peak_ppm, each[0]))
    return [
        {
            "party": name,
            "submitted": party.submitted,
            "units": party.units,
            "share": _ratio(party.units, units),
            "peak": decimal(party.peak_ppm),
        }
        for name, party in ranked[:PARTIES_MAX]
    ]
