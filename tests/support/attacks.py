"""Counts what the torture tries, and prints it as the table of docs/reliability.md.

A test that attacks says how many cases it tried: `attacks("kills at random instants", 120)`. The
numbers travel with its report, so that they add up over the workers of a run.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.effort import TORTURE

_PROPERTY = "attack"
# Called with the attack, how many cases there were, and how many of them failed.
Attacks = Callable[..., None]


@pytest.fixture
def attacks(record_property: Callable[[str, object], None]) -> Attacks:
    def count(attack: str, cases: int, failures: int = 0) -> None:
        record_property(_PROPERTY, [attack, cases, failures])

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    cases: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            told = [value for name, value in report.user_properties if name == _PROPERTY]
            for attack, tried, failed in told if report.when == "call" else ():
                cases[attack] += tried
                failures[attack] += failed
            if outcome == "failed" and told and not any(failed for _, _, failed in told):
                failures[told[-1][0]] += 1
    if TORTURE and cases:
        terminalreporter.section("attacks")
        terminalreporter.write_line("| attack | cases | failures |\n|---|---:|---:|")
        for attack in sorted(cases):
            terminalreporter.write_line(f"| {attack} | {cases[attack]} | {failures[attack]} |")
