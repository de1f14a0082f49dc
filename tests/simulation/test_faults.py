"""Every system call by which a command writes fails, or is the last: what is told is true.

For each change of a market, its calls are counted once; then it runs again and again, each time
with another of them failing, done in part, or the process killed before, in or after it. Whatever
happens, the audit finds nothing, the exit code is the truth, and the same command once more brings
the market to where it should be.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from compute_market.errors import MarketError, exit_code
from tests.simulation.changes import CHANGES, Change, lacking
from tests.simulation.places import (
    NOT_SAVED,
    Place,
    Reference,
    check_again,
    check_told,
    failed_saves,
    template_in,
)
from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.faults import Fault, Outcome, Server, faults_of, in_memory
from tests.support.processes import random

# A sample of the cases of each change; the torture tries them all.
CASES = effort(3, sys.maxsize)
# A full disk is worth another try; one that fails, or cuts writes short, may be damage.
_CODES = {
    "EIO": ("ok", "usage", "busy", "integrity"),
    "ENOSPC": ("ok", "busy"),
    "EDQUOT": ("ok", "busy"),
}


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with in_memory("faults") as directory:
        yield directory


@pytest.fixture(scope="module")
def template(server: Server, memory: Path) -> Path:
    return template_in(server.run, memory / "template")


def test_every_changing_verb_is_among_the_changes() -> None:
    assert lacking() == set()


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_failing_calls_leave_the_truth(
    change: Change, server: Server, template: Path, memory: Path, attacks: Attacks
) -> None:
    place = Place(server.run, memory / "work")
    reference = Reference(place, template, change)
    cases = list(faults_of(reference.done.calls))
    rng = random(change.name)
    chosen = sample(cases, rng)
    failed: dict[Fault, str] = {}
    for fault in chosen:
        reference.begin()
        outcome = place.run(change, fault=fault)
        try:
            check(place, reference, fault, outcome)
            check_again(place, reference)
        except (AssertionError, MarketError) as error:
            failed[fault] = f"{fault}, {hit(outcome, fault)}: {error}\n{outcome}"
    for kills, attack in ((True, "killed at a system call"), (False, "a system call fails")):
        tried = [fault for fault in chosen if fault.kills == kills]
        attacks(attack, len(tried), sum(fault in failed for fault in tried))
    shown = "\n".join(list(failed.values())[:5])
    assert not failed, f"{len(failed)} of {len(chosen)} cases: {shown}"


class Mended(NamedTuple):
    """A case that went wrong once: the fault at one of the calls of a name, by its place."""

    change: str
    call: str
    place: int
    action: str
    error: str = "EIO"


MENDED = (
    # The disk is full, or fails, where the home is to be.
    Mended("state init", "mkdir", 0, "fail", "ENOSPC"),
    Mended("state init", "mkdir", 1, "fail"),
    # What was begun is begun anew, and that is the same market.
    Mended("state init", "pwrite", 0, "write half"),
    # The store is looked at again after it could not be opened, or failed to commit.
    Mended("compute execute", "mkdir", 0, "fail from there on"),
    Mended("compute execute", "pwrite", -1, "fail", "ENOSPC"),
)


@pytest.mark.parametrize(
    "case", MENDED, ids=lambda case: f"{case.change} {case.call} {case.action}"
)
def test_faults_that_were_mended_stay_so(
    case: Mended, server: Server, template: Path, memory: Path
) -> None:
    change = next(each for each in CHANGES if each.name == case.change)
    place = Place(server.run, memory / "work")
    reference = Reference(place, template, change)
    calls = enumerate(reference.done.calls, 1)
    numbers = [number for number, call in calls if call.name == case.call]
    fault = Fault(numbers[case.place], case.action, case.error)
    reference.begin()
    check(place, reference, fault, place.run(change, fault=fault))
    check_again(place, reference)


def sample(cases: list[Fault], rng: Random) -> list[Fault]:
    return cases if len(cases) <= CASES else rng.sample(cases, CASES)


def hit(outcome: Outcome, fault: Fault) -> str | None:
    """The name of the call that met the fault; None if there were not so many."""
    calls = outcome.calls[fault.at - 1 : fault.at]
    return calls[0].name if calls else None


def check(place: Place, reference: Reference, fault: Fault, outcome: Outcome) -> None:
    """Hold what a command told against what it left."""
    steps = check_told(place, reference, outcome)
    if fault.kills and len(outcome.calls) >= fault.at:  # It may have got by with fewer calls.
        assert outcome.killed
        return
    codes = ("ok", "busy", "integrity") if fault.action == "write half" else _CODES[fault.error]
    allowed = {0 if each == "ok" else exit_code(each) for each in codes}  # type: ignore[arg-type]
    if reference.change.steps > 1:
        allowed.add(exit_code("partial"))
    assert outcome.code in allowed, "not the code of this"
    if outcome.code == 0:
        assert steps == reference.change.steps, "exit code 0, and not done"
        assert outcome.out == reference.done.out
    if NOT_SAVED in outcome.err and fault.action != "fail from there on":
        assert failed_saves(place.state()) == 1, "a board was not saved, and that is not counted"
    # What cannot be taken away again stays.
    if fault.action not in ("fail from there on", "fail afterwards") and (
        hit(outcome, fault) != "unlink"
    ):
        left = place.names() - reference.names
        assert left == set(), "files are left behind"
