"""Durations and sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.quantities import UNITS, in_unit, is_duration, ways_to_write, written


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200), ("45", 45), ("0", 0)),
        *(("0s", 0), ("007m", 420), ("999999999999", 999_999_999_999), ("2000ms", 2)),
        *(("1h30m", 5400), ("1d2h3m4s", 93_784), ("1m0s", 60), ("1s2000ms", 3)),
        *(("", None), ("s", None), ("-1h", None), ("1.5h", None), ("1 h", None), ("1H", None)),
        *(("1w", None), ("h1", None), ("٣m", None), ("²", None), ("1_0", None), ("+1", None)),
        *(("1000000000000", None), ("03:00", None), ("2026-11-27", None), ("1h 30m", None)),
        *(("30m1h", None), ("1h1h", None), ("1h30", None), ("1hm", None), ("500ms", None)),
    ],
)
def test_duration_is_numbers_with_units_from_long_to_short(text: str, seconds: int | None) -> None:
    assert in_unit(text, "seconds") == seconds


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        *(("10GiB", "bytes", 10 * 2**30), ("10G", "bytes", 10 * 2**30), ("10", "bytes", 10)),
        *(("10GB", "bytes", 10**10), ("1kB", "bytes", 1000), ("1K", "bytes", 1024)),
        *(("7b", "bytes", 7), ("2tib", "bytes", 2 * 2**40), ("10GiB", "GiB", 10)),
        *(("2TiB", "GiB", 2048), ("1", "GiB", 1), ("1MiB", "GiB", None), ("10GB", "GiB", None)),
        *(("24GiB", "MB", 24_576), ("24G", "MB", 24_576), ("24GB", "MB", 24_000)),
        *(("16384", "MB", 16_384), ("512MB", "MB", 512), ("512MiB", "MB", 512), ("1K", "MB", None)),
        *(("", "bytes", None), ("GiB", "bytes", None), ("1.5GiB", "bytes", None)),
        *(("-1GiB", "bytes", None), ("1 GiB", "bytes", None), ("1GiBB", "bytes", None)),
        *(("1s", "bytes", None), ("1G1M", "bytes", None), ("٣G", "bytes", None)),
        *(("250ms", "milliseconds", 250), ("2s", "milliseconds", 2000), ("3", "milliseconds", 3)),
    ],
)
def test_size_is_a_number_and_a_unit(text: str, unit: str, value: int | None) -> None:
    assert in_unit(text, unit) == value


@pytest.mark.parametrize("unit", sorted(UNITS))
@given(text=st.text("0123456789smhdkgtib.-+ ", max_size=8) | st.text(max_size=4))
def test_any_text_is_a_quantity_or_none(unit: str, text: str) -> None:
    value = in_unit(text, unit)
    assert value is None or value >= 0


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_hint_shows_what_is_understood(unit: str) -> None:
    examples, _, bare = ways_to_write(unit).partition("; ")
    assert bare == f"a bare number is {unit}"
    for text in examples.replace(" or ", ", ").split(", "):
        wanted = "bytes" if unit == "GiB" else unit
        assert in_unit(text, wanted) is not None
    assert is_duration(unit) == ("1h30m" in examples)


@given(value=st.integers(0, 10**11), unit=st.sampled_from(("seconds", "milliseconds")))
def test_a_duration_that_is_written_is_read_as_the_same(value: int, unit: str) -> None:
    assert in_unit(written(value, unit), unit) == value


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "seconds", "0s"),
        (30, "seconds", "30s"),
        (5400, "seconds", "90m"),
        (86_400, "seconds", "1d"),
        (1500, "milliseconds", "1500ms"),
        (500, "MB", "500 MB"),
    ],
)
def test_a_quantity_is_written_in_its_longest_whole_unit(value: int, unit: str, text: str) -> None:
    assert written(value, unit) == text
