"""Where a slice is worked: one table, a row for every case."""

import itertools
from typing import get_args, get_type_hints

import pytest

from compute_market.workloads.places import (
    Facts,
    Limits,
    Place,
    ahead_max,
    choose,
    files_together,
    room,
)

KIB, MIB = 1024, 1_048_576
# From each length on, up to the next: where it may matter to any place.
LENGTHS = (0, 32 * KIB + 1, 16 * MIB + 1, 32 * MIB + 1, 64 * MIB + 1)
CPU = ("short", "pool", "pool", "here", "here")
DEVICE = ("short", "device", "here", "here", "here")
FORCED = ("device", "device", "here", "here", "here")
POOL = ("pool",) * 5
SIGHTED = ("executor",) * 5
BLIND = ("executor", "executor", "executor", "executor", "here")
# Built in, device, executor; then a place for each of the lengths.
TABLE: dict[Facts, tuple[Place, ...]] = {
    Facts(True, "none", "none"): CPU,
    Facts(True, "auto", "none"): DEVICE,
    Facts(True, "forced", "none"): FORCED,
    Facts(True, "none", "sighted"): SIGHTED,
    Facts(True, "auto", "sighted"): SIGHTED,
    Facts(True, "forced", "sighted"): SIGHTED,
    Facts(True, "none", "blind"): BLIND,
    Facts(True, "auto", "blind"): BLIND,
    Facts(True, "forced", "blind"): BLIND,
    Facts(False, "none", "none"): POOL,
    Facts(False, "auto", "none"): POOL,
    Facts(False, "forced", "none"): POOL,
    Facts(False, "none", "sighted"): SIGHTED,
    Facts(False, "auto", "sighted"): SIGHTED,
    Facts(False, "forced", "sighted"): SIGHTED,
    Facts(False, "none", "blind"): BLIND,
    Facts(False, "auto", "blind"): BLIND,
    Facts(False, "forced", "blind"): BLIND,
}


def test_table_is_complete() -> None:
    kinds = get_type_hints(Facts)
    values = [get_args(kind) or (True, False) for kind in kinds.values()]
    assert set(TABLE) == {Facts(*each) for each in itertools.product(*values)}
    assert {place for places in TABLE.values() for place in places} == set(get_args(Place))


@pytest.mark.parametrize("facts", TABLE)
def test_choose_gives_every_slice_its_place(facts: Facts) -> None:
    assert tuple(choose(length, facts) for length in LENGTHS) == TABLE[facts]
    # And the longest that is not yet the next one.
    lasts = (*[length - 1 for length in LENGTHS[1:]], 2**50)
    assert tuple(choose(length, facts) for length in lasts) == TABLE[facts]


def test_room_of_a_task_is_that_of_its_place() -> None:
    limits = Limits(1, 2, 3, 4, 5, 6, 7)
    assert room("pool", Facts(True), limits) == (1, 2)
    assert room("device", Facts(True, "auto"), limits) == (3, 4)
    assert room("executor", Facts(True, "none", "sighted"), limits) == (5, 7)
    assert room("executor", Facts(True, "none", "blind"), limits) == (6, 7)
    # Of another workload nothing is known: a slice may take minutes.
    assert room("pool", Facts(False), limits) == (1, 1)
    assert room("executor", Facts(False, "none", "sighted"), limits) == (5, 1)


def test_more_is_read_ahead_for_an_executor() -> None:
    assert ahead_max(Facts(True)) == ahead_max(Facts(True, "auto")) == 1024
    assert ahead_max(Facts(True, "none", "sighted")) == 16 * 1024
    assert ahead_max(Facts(False, "none", "sighted")) == 1024


@pytest.mark.parametrize(
    ("length", "together"), [(0, 256), (64 * KIB, 256), (MIB, 16), (16 * MIB, 1), (2**40, 1)]
)
def test_device_takes_as_many_files_as_fit_together(length: int, together: int) -> None:
    assert files_together(length) == together
