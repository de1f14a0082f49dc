"""How scores fade: exact, whatever the time."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compute_market.reputation.decay import decayed, periods_to_zero

FIVE_PERCENT = 50_000


@pytest.mark.parametrize(
    ("score", "decay_ppm", "periods", "left"),
    [
        (100, FIVE_PERCENT, 0, 100),
        (100, FIVE_PERCENT, 1, 95),
        (100, FIVE_PERCENT, 2, 90),  # 90.25
        (10, FIVE_PERCENT, 1, 10),  # 9.5: half goes away from zero
        (-10, FIVE_PERCENT, 1, -10),
        (10, FIVE_PERCENT, 2, 9),  # from the last change, not from what it was before
        (1, 500_000, 1, 1),  # 0.5
        (1, 500_000, 2, 0),
        (2000, 500_000, 11, 1),  # 0.9765625
        (1024, 500_000, 11, 1),  # 0.5
        (1023, 500_000, 11, 0),
        (7, 1_000_000, 1, 0),
        (-7, 1_000_000, 10**12, 0),
        (7, 0, 10**12, 7),
        (0, FIVE_PERCENT, 10**12, 0),
        (1000, FIVE_PERCENT, 10**15, 0),
        (1000, 1, 1_000_000, 368),  # 1000 / e
        (-1000, 1, 10**15, 0),
    ],
)
def test_score_fades_by_whole_periods(score: int, decay_ppm: int, periods: int, left: int) -> None:
    assert decayed(score, decay_ppm, periods) == left


@given(
    st.integers(-2000, 2000),
    st.integers(0, 1_000_000) | st.integers(0, 100),
    st.integers(0, 30) | st.integers(0, 10**6),
)
@example(1000, 1, 7_600_901)
def test_score_fades_as_two_hundred_digits_say(score: int, decay_ppm: int, periods: int) -> None:
    with localcontext() as context:
        context.prec = 200
        kept = (Decimal(1_000_000 - decay_ppm) / 1_000_000) ** periods if periods else Decimal(1)
        exact = score * kept
        expected = int(abs(exact) + Decimal("0.5"))
    assert decayed(score, decay_ppm, periods) == (expected if score > 0 else -expected)


@given(st.integers(1, 1000), st.integers(1, 1_000_000) | st.integers(1, 100))
@example(1000, 1)
def test_zero_is_reached_in_the_first_period_that_rounds_to_it(score: int, decay_ppm: int) -> None:
    periods = periods_to_zero(score, decay_ppm)
    assert periods is not None
    assert decayed(score, decay_ppm, periods) == decayed(-score, decay_ppm, periods) == 0
    assert decayed(score, decay_ppm, periods - 1) > 0


def test_score_that_does_not_fade_never_reaches_zero() -> None:
    assert periods_to_zero(1, 0) is None
    assert periods_to_zero(0, 0) == 0
