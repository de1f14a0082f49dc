"""The report of a simulation as lines of text, the same in a pipe and on a terminal."""

from collections.abc import Iterator
from typing import Any

_PARTIES_MAX = 5
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"))


def lines(report: dict[str, Any]) -> Iterator[str]:
    """What a run came to, a line for each thing that was measured."""
    jobs, waits, prices = report["jobs"], report["wait_ms"], report["prices"]
    length = span(report["length_secs"] * 1000)
    yield f"{report['scenario']}: {length} of market time, seed {report['seed']}"
    yield (
        f"jobs: {jobs['submitted']} submitted, {jobs['admitted']} admitted, "
        f"{jobs['completed']} completed, {jobs['cancelled']} cancelled, {jobs['failed']} failed, "
        f"{jobs['left']} left{_missed(jobs['missed'])}"
    )
    yield f"refused: {_counted(jobs['refused'])}; deferred {jobs['deferred']}"
    yield f"wait: {_waits(waits)}"
    by_priority = waits["by_priority"]
    for priority, found in by_priority.items() if len(by_priority) > 1 else ():
        yield f"wait {priority}: {_waits(found)}, {found['jobs']} jobs"
    yield f"utilization: {percent(report['utilization'])}"
    yield f"fairness among buyers: {report['fairness']:.4f} (1 is equal; Jain's index)"
    for role in ("buyers", "providers"):
        parties = report["shares"][role]
        yield f"{role}: {_parties(parties)}"
    for lane, band in prices.items():
        yield f"prices {lane}: {_band(band)}"
    money = report["money"]
    for kind in ("paid", "refunded", "burned"):
        yield f"{kind}: {money[kind]['ct']} CT, {money[kind]['it']} IT"
    yield f"subsidies: {money['subsidies']['it']} IT"
    consumers = report["consumers"]
    if any(consumers.values()):
        tight = span(consumers["tight_secs"] * 1000)
        yield (
            f"consumers: {consumers['admitted']} admitted, {consumers['refused']} refused, "
            f"{consumers['evicted']} evicted; guard tight for {tight}"
        )
    preemptions = report["preemptions"]
    yield f"preemptions: {preemptions['success']}, failed {preemptions['handoff_failed']}"
    yield f"scores: {_scores(report['scores'])}"
    for action, reasons in report["failures"].items():
        yield f"not taken, {action}: {_counted(reasons)}"
    invalid = report["audit"]["invalid"]
    yield f"audit: {f'{invalid} laws broken' if invalid else 'clean'}"


def pace(report: dict[str, Any]) -> str:
    """How fast it went, which is another each time."""
    submitted, wall_ms = report["jobs"]["submitted"], report["wall_ms"]
    jobs = submitted * 1000 // max(1, wall_ms)
    return (
        f"{report['steps']} steps in {wall_ms / 1000:.1f} s: "
        f"{report['per_second']} steps and {jobs} jobs a second"
    )


def span(ms: int) -> str:
    """A span of time in the largest unit that it has at least one of."""
    for size, unit in _UNITS:
        if ms >= size:
            return f"{round(ms / size, 1):g} {unit}"
    return f"{round(ms / 1000, 1):g} s" if ms >= 1000 else f"{ms} ms"


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _missed(missed: int) -> str:
    return f", {missed} missed in an outage" if missed else ""


def _waits(found: dict[str, Any]) -> str:
    if not found["max"]:
        return "none"
    return f"half within {span(found['p50'])}, 95 % within {span(found['p95'])}, " + (
        f"the longest {span(found['max'])}"
    )


def _counted(refused: dict[str, int]) -> str:
    total = sum(refused.values())
    by_number = sorted(refused.items(), key=lambda each: (-each[1], each[0]))
    reasons = ", ".join(f"{reason} {number}" for reason, number in by_number)
    return f"{total} ({reasons})" if refused else "none"


def _parties(parties: list[dict[str, Any]]) -> str:
    """What each of the largest got of all that was done, and the most it held of the capacity."""
    shown = [
        f"{party['party']} {percent(party['share'])} (peak {percent(party['peak'])})"
        for party in parties[:_PARTIES_MAX]
    ]
    return ", ".join(shown + ["…"] * (len(parties) > _PARTIES_MAX)) or "none"


def _band(band: dict[str, int] | None) -> str:
    if band is None:
        return "none"
    return f"{band['median']} (middle half {band['p25']} to {band['p75']})"


def _scores(scores: dict[str, int]) -> str:
    ranked = sorted(scores.items(), key=lambda each: (each[1], each[0]))
    if len(ranked) > 6:
        shown = [*ranked[:3], ("…", len(ranked) - 6), *ranked[-3:]]
        return ", ".join(
            f"{name} {score}" if name != "…" else f"{score} more" for name, score in shown
        )
    return ", ".join(f"{name} {score}" for name, score in ranked) or "none"
