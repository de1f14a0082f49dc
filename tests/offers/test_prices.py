"""Effective prices, as they are shown."""

import pytest

from compute_market.amounts import AMOUNT_MAX
from compute_market.offers.prices import effective_price


@pytest.mark.parametrize(
    ("price", "ppm", "accelerator", "effective"),
    [
        (100, 800_000, False, 80),
        (5, 500_000, False, 3),
        (1, 500_000, False, 1),
        (5, 500_000, True, 3),
        (3, 500_000, True, 2),
        (3, 500_000, False, 2),
        (25, 580_000, False, 15),
        (1, 499_999, False, 0),
        (5, 1_000_000, True, 6),
        (AMOUNT_MAX, 1_000_000, False, AMOUNT_MAX),
        (AMOUNT_MAX, 1_000_000, True, 11_068_046_444_225_730_968),
    ],
)
def test_effective_price_rounds_half_up(
    price: int, ppm: int, accelerator: bool, effective: int
) -> None:
    assert effective_price(price, ppm, accelerator) == effective
