"""Integer arithmetic: splits, series of payments, units, ratios and their decimal text."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.amounts import (
    AMOUNT_MAX,
    PPM,
    checked,
    format_ppm,
    half_up,
    parse_ppm,
    payment,
    split,
    units_of,
)
from compute_market.errors import RefusedError

AMOUNTS = st.integers(0, AMOUNT_MAX)
PERCENTAGES = st.integers(0, 100)
MIB = 2**20


@pytest.mark.parametrize(
    ("percentage", "amount", "parts"),
    [
        (25, 20, (5, 15)),
        (37, 10, (4, 6)),
        (50, 5, (3, 2)),
        (25, 1, (1, 0)),
        (0, 10, (0, 10)),
        (100, 10, (10, 0)),
        (1, 0, (0, 0)),
        (1, AMOUNT_MAX, (92_233_720_368_547_759, AMOUNT_MAX - 92_233_720_368_547_759)),
    ],
)
def test_split_rounds_ct_up(percentage: int, amount: int, parts: tuple[int, int]) -> None:
    assert split(amount, percentage) == parts


@given(AMOUNTS, PERCENTAGES)
def test_split_gives_all_of_the_amount(amount: int, percentage: int) -> None:
    ct, it = split(amount, percentage)
    assert ct == ceil(Fraction(amount * percentage, 100))
    assert ct + it == amount
    assert min(ct, it) >= 0


@pytest.mark.parametrize("percentage", [-1, 101])
def test_split_refuses_a_percentage_out_of_bounds(percentage: int) -> None:
    with pytest.raises(RefusedError, match=f"fee_pct_ct {percentage} is outside") as caught:
        split(10, percentage)
    assert caught.value.reason == "invalid_split"


def test_payment_follows_the_total_not_the_single_amount() -> None:
    assert [payment(before, 5, 25) for before in (0, 5, 10, 15)] == [(2, 3), (1, 4), (1, 4), (1, 4)]


@given(st.lists(st.integers(0, 10**15), max_size=20), PERCENTAGES)
def test_payments_never_leak(amounts: list[int], percentage: int) -> None:
    paid_ct = paid_it = 0
    for amount in amounts:
        ct, it = payment(paid_ct + paid_it, amount, percentage)
        assert min(ct, it) >= 0
        assert ct + it == amount
        paid_ct += ct
        paid_it += it
        assert (paid_ct, paid_it) == split(paid_ct + paid_it, percentage)


@pytest.mark.parametrize(
    ("length", "units"),
    [(0, 0), (1, 1), (MIB - 1, 1), (MIB, 1), (MIB + 1, 2), (2 * MIB, 2), (2**60 + 1, 2**40 + 1)],
)
def test_units_count_started_mebibytes(length: int, units: int) -> None:
    assert units_of(length) == units


@pytest.mark.parametrize("amount", [0, 1, AMOUNT_MAX])
def test_checked_returns_what_fits(amount: int) -> None:
    assert checked(amount, "price") == amount


@pytest.mark.parametrize("amount", [-1, AMOUNT_MAX + 1])
def test_checked_refuses_what_does_not_fit(amount: int) -> None:
    with pytest.raises(RefusedError, match=f"the bond {amount} is outside") as caught:
        checked(amount, "the bond")
    assert caught.value.reason == "overflow"


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(0, 2, 0), (1, 2, 1), (1, 3, 0), (2, 3, 1), (3, 2, 2), (5, 2, 3), (29, 2, 15), (7, 7, 1)],
)
def test_half_up_rounds_halves_up(numerator: int, denominator: int, rounded: int) -> None:
    assert half_up(numerator, denominator) == rounded


@given(st.integers(0, 2**90), st.integers(1, 2**40))
def test_half_up_is_floor_of_the_ratio_and_a_half(numerator: int, denominator: int) -> None:
    assert half_up(numerator, denominator) == floor(
        Fraction(numerator, denominator) + Fraction(1, 2)
    )


@pytest.mark.parametrize(
    ("text", "ppm"),
    [
        ("0", 0),
        ("1", PPM),
        ("0.5", 500_000),
        ("0.58", 580_000),
        ("0.000001", 1),
        ("0.999999", 999_999),
        ("00.50", 500_000),
        ("12.345678", 12_345_678),
        ("999999999999", 999_999_999_999 * PPM),
    ],
)
def test_parse_ppm_reads_plain_decimals(text: str, ppm: int) -> None:
    assert parse_ppm(text) == ppm


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " 1",
        "1 ",
        "1\n",
        "1.\n",
        "nan",
        "NaN",
        "inf",
        "Infinity",
        "1e-3",
        "1E3",
        "0x1",
        "1_0",
        "1,5",
        "+1",
        "-1",
        "-0",
        "0.-1",
        "1.",
        ".5",
        ".",
        "1.2.3",
        "0.1234567",
        "0.0000000",
        "1000000000000",
        "½",
        "²",
        "١",
        "0.١",
        "0.５",
    ],
)
def test_parse_ppm_rejects_everything_else(text: str) -> None:
    assert parse_ppm(text) is None


@pytest.mark.parametrize(
    ("ppm", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (500_000, "0.5"),
        (PPM, "1"),
        (10 * PPM, "10"),
        (10 * PPM + 100, "10.0001"),
    ],
)
def test_format_ppm_is_short(ppm: int, text: str) -> None:
    assert format_ppm(ppm) == text


@given(st.integers(0, 10**18 - 1))
def test_format_ppm_is_read_back(ppm: int) -> None:
    assert parse_ppm(format_ppm(ppm)) == ppm
