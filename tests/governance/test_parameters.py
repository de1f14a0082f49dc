"""What a proposal may ask for: keys, bounds, and values as they are written."""

import pytest

from compute_market.config.files import SETTINGS
from compute_market.config.settings import DEFAULTS
from compute_market.errors import RefusedError, UsageError
from compute_market.governance import parameters
from compute_market.records import PARAMETER_KEYS

# Key → texts of the least and the most, the next that are beyond them, and their number as stored.
BOUNDS = {
    "min_capacity": (("1", 1), ("10000", 10_000), ("0", "10001")),
    "fair_share_cap": (("0.01", 10_000), ("1", 1_000_000), ("0.009999", "1.000001")),
    "burst_refill_rate": (("0", 0), ("1.0", 1_000_000), ("1.000001", "2")),
    "comfort_threshold_p90": (("500", 500), ("25000", 25_000), ("499", "25001")),
}
NO_NUMBERS = ("", " ", "x", "-1", "+1", "1_0", "1e1", "0x1", "nan", "inf", "٣", "²", "\udcff", "1.")
# What only those take that are ratios, if at all.
FRACTIONS = ("0.5", "0.1234567", "9" * 13, "9" * 5000)


def test_parameters_are_settings_and_have_bounds() -> None:
    assert tuple(BOUNDS) == PARAMETER_KEYS == tuple(parameters.FIELDS)
    fields = {setting.name: setting.field for setting in SETTINGS}
    assert {key: fields[key] for key in PARAMETER_KEYS} == parameters.FIELDS


@pytest.mark.parametrize("key", BOUNDS)
def test_value_is_taken_up_to_its_bounds_and_refused_beyond(key: str) -> None:
    (least, lowest), (most, highest), beyond = BOUNDS[key]
    assert parameters.bounds(key) == (lowest, highest)
    assert (parameters.parse(key, least), parameters.parse(key, most)) == (lowest, highest)
    for text in beyond:
        with pytest.raises(UsageError, match=rf"^VALUE: {key}: '?{text}'? is not .+….+$"):
            parameters.parse(key, text)


@pytest.mark.parametrize("key", BOUNDS)
@pytest.mark.parametrize("text", NO_NUMBERS, ids=ascii)
def test_what_is_no_number_is_no_value(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=rf"^VALUE: {key}: ") as caught:
        parameters.parse(key, text)
    assert "…" in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", FRACTIONS)
def test_whole_numbers_have_no_fraction_and_no_end_of_digits(text: str) -> None:
    for key in ("min_capacity", "comfort_threshold_p90"):
        with pytest.raises(UsageError) as caught:
            parameters.parse(key, text)
        assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("fair_shar_cap", "fair_share_cap"),
        ("mincapacity", "min_capacity"),
        ("burst_quote", "burst_quota"),
        ("Fair_Share_Cap", "fair_share_cap"),
        ("slots", None),
        ("", None),
        ("\x1b[2J", None),
        ("x" * 10_000, None),
    ],
)
def test_unknown_key_names_the_nearest(key: str, near: str | None) -> None:
    with pytest.raises(UsageError, match=rf"^KEY: .* is none of {', '.join(BOUNDS)}$") as caught:
        parameters.parse(key, "1")
    assert caught.value.hint == (near and f"did you mean {near}?")
    assert len(caught.value.message) < 200


def test_burst_quota_is_read_only() -> None:
    with pytest.raises(RefusedError) as caught:
        parameters.parse("burst_quota", "30")
    assert (caught.value.reason, caught.value.hint) == (
        "read_only",
        "set burst_quota in config.toml",
    )


@pytest.mark.parametrize("key", BOUNDS)
def test_text_of_a_value_reads_back_as_it(key: str) -> None:
    for text, value in BOUNDS[key][:2]:
        shown = parameters.text(key, value)
        assert parameters.parse(key, shown) == parameters.parse(key, text) == value
        assert float(shown) == parameters.number(key, value)


def test_values_are_told_in_the_units_of_the_configuration() -> None:
    assert parameters.numbers(DEFAULTS) == {
        "min_capacity": 10,
        "fair_share_cap": 0.25,
        "burst_refill_rate": 0.5,
        "comfort_threshold_p90": 2500,
    }
