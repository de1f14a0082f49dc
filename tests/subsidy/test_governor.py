"""The multiplier: the steps of the specification, and the clamp for any history."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.subsidy.governor import MULTIPLIER_MAX, MULTIPLIER_START, retuned


@pytest.mark.parametrize(
    ("multiplier", "backlog", "utilization_pct", "expected"),
    [
        (100, 10, 100, 110),
        (100, 12, 83, 114),
        (100, 12, 0, 115),
        (100, 0, 0, 100),
        (100, 0, 100, 100),
        (100, 1, 1000, 100),
        (100, 5, 1000, 101),  # half up
        (100, 15, 100, 115),
        (100, 16, 100, 115),
        (110, 1, 0, 127),  # 126.5
        (115, 1, 0, 132),  # 132.25
        # Without a backlog it comes back, no faster than it went.
        (200, 0, 0, 170),
        (200, 0, 100, 170),
        (110, 0, 50, 100),
        (118, 0, 0, 100),  # 100.3
        (119, 0, 0, 101),  # 101.15
        (10_000, 1, 0, 10_000),
        (9_000, 1, 0, 10_000),
    ],
)
def test_retuned_steps_as_specified(
    multiplier: int, backlog: int, utilization_pct: int, expected: int
) -> None:
    assert retuned(multiplier, backlog, utilization_pct) == expected


def half_up(exact: Fraction) -> int:
    return floor(exact + Fraction(1, 2))


SAMPLES = st.tuples(
    st.sampled_from((0, 0, 1, 12, 10**6, 2**63)), st.sampled_from((0, 0, 1, 83, 100, 10**6))
)


@given(history=st.lists(SAMPLES, max_size=80))
def test_multiplier_keeps_within_its_clamp_for_any_history(history: list[tuple[int, int]]) -> None:
    multiplier = MULTIPLIER_START
    for backlog, utilization_pct in history:
        after = retuned(multiplier, backlog, utilization_pct)
        assert MULTIPLIER_START <= after <= MULTIPLIER_MAX
        steps = Fraction(85 * multiplier, 100), Fraction(115 * multiplier, 100)
        assert half_up(steps[0]) <= after <= half_up(steps[1])
        assert after >= multiplier if backlog else after <= multiplier
        multiplier = after


@given(sample=SAMPLES, start=st.integers(MULTIPLIER_START, MULTIPLIER_MAX))
def test_multiplier_comes_to_rest_when_the_market_stays_as_it_is(
    sample: tuple[int, int], start: int
) -> None:
    """What lets a market that slept for years catch up at once."""
    multiplier, steps = start, 0
    while (after := retuned(multiplier, *sample)) != multiplier:
        multiplier, steps = after, steps + 1
    assert steps < 1_000
