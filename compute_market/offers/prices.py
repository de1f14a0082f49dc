"""Prices as they are compared and shown."""

from compute_market.amounts import PPM, half_up


def effective_price(price_per_unit: int, multiplier_ppm: int, accelerator: bool = False) -> int:
    """Price × multiplier, × 6/5 when the job asks for an accelerator, rounded half up.

    For display only: the matcher compares exact products.
    """
    premium = 6 if accelerator else 5
    return half_up(price_per_unit * multiplier_ppm * premium, 5 * PPM)
