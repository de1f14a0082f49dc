"""Draws: the same on every machine, and spread as they say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import ValidationError, convert

from compute_market.simulation.draws import MEANS_MAX, Spread, Stream, bounds, draw

BITS = [4971526805035884024, 8959543018689395670, 3005455219636713385]
DICE = [2, 2, 2, 1, 1, 1, 4, 2, 3, 4, 2, 2]
GAPS = [68836, 381463, 345869, 483291, 10149, 37099]
SEEDS = st.integers(0, 2**63 - 1)


def test_draw_gives_the_same_on_every_machine() -> None:
    stream = Stream(7, "jobs of b-1")
    assert [stream.bits() for _ in range(3)] == BITS
    assert [stream.between(1, 6) for _ in range(12)] == DICE
    assert [stream.exponential(1_000_000) for _ in range(6)] == GAPS


def test_streams_of_other_parts_and_seeds_draw_something_else() -> None:
    drawn = {Stream(seed, name).bits() for seed in range(4) for name in ("a", "b", "")}
    assert len(drawn) == 12


@given(SEEDS, st.integers(1, 2**64))
def test_draw_below_a_bound_is_a_number_below_it(seed: int, bound: int) -> None:
    stream = Stream(seed, "x")
    assert all(0 <= stream.below(bound) < bound for _ in range(8))


def test_draw_below_a_bound_is_even() -> None:
    stream = Stream(1, "even")
    counts = [0] * 6
    for _ in range(6_000):
        counts[stream.below(6)] += 1
    assert all(880 < count < 1_120 for count in counts), counts


def test_exponential_draws_have_the_shares_of_the_definition() -> None:
    stream = Stream(1, "gaps")
    drawn = [stream.exponential(10**6) for _ in range(6_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(10**6, 0.04)
    for quarters in range(1, 13):
        above = sum(each > quarters * 250_000 for each in drawn) / len(drawn)
        assert above == pytest.approx(math.exp(-quarters / 4), abs=0.02)


@given(SEEDS, st.integers(0, 10**12))
def test_exponential_draw_scales_with_its_mean(seed: int, mean: int) -> None:
    unit = Stream(seed, "x").exponential(10**18)
    assert Stream(seed, "x").exponential(mean) == pytest.approx(mean * unit / 10**18, abs=1)
    assert unit <= MEANS_MAX * 10**18


@given(SEEDS)
def test_weighted_draw_leaves_out_what_weighs_nothing(seed: int) -> None:
    stream = Stream(seed, "x")
    assert {stream.weighted([0, 3, 0, 1, 0]) for _ in range(20)} <= {1, 3}


def test_weighted_draws_follow_the_weights() -> None:
    stream = Stream(1, "weights")
    heavy = sum(stream.weighted([3, 1]) == 0 for _ in range(4_000))
    assert 2_880 < heavy < 3_120


@pytest.mark.parametrize(("chance_ppm", "least", "most"), [(0, 0, 0), (10**6, 500, 500)])
def test_happens_never_or_always_at_the_ends(chance_ppm: int, least: int, most: int) -> None:
    stream = Stream(1, "ends")
    assert least <= sum(stream.happens(chance_ppm) for _ in range(500)) <= most


SPREADS = st.one_of(
    st.integers(0, 10**9),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(
        lambda ends: Spread(least=min(ends), most=max(ends))
    ),
    st.integers(0, 10**6).map(lambda mean: Spread(mean=mean)),
    st.integers(0, 10**6).map(lambda mean: Spread(mean=mean, least=5, most=700)),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5).map(lambda v: Spread(values=v)),
)


@given(SEEDS, SPREADS)
def test_draw_of_a_spread_stays_within_its_bounds(seed: int, spread: int | Spread) -> None:
    least, most = bounds(spread)
    stream = Stream(seed, "x")
    assert all(least <= draw(stream, spread) <= most for _ in range(8))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "a spread has least and most, a mean, or values"),
        ({"least": 1}, "a spread has least and most, a mean, or values"),
        ({"least": 2, "most": 1}, "least: 2 is above most 1"),
        ({"mean": -1}, "mean: -1 is below 0"),
        ({"values": []}, "values: are none"),
        ({"values": [1], "mean": 1}, "values: stand alone, without least, most and mean"),
        (
            {"values": [1, 2], "weights": [1]},
            "weights: there must be one for each value, not 2 values and 1 weight",
        ),
        ({"values": [1], "weights": [0]}, "weights: none is negative, and their sum is above 0"),
        ({"values": [1, 2], "weights": [-1, 2]}, "weights: none is negative"),
        ({"weights": [1]}, "weights: are those of values, and there are none"),
    ],
)
def test_spread_that_says_nothing_clear_is_refused(fields: dict[str, int], problem: str) -> None:
    with pytest.raises(ValidationError, match=f"^{problem}"):
        convert(fields, Spread)
