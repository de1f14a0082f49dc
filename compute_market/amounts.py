"""Integer arithmetic of money, units and ratios. No float decides anything here.

Amounts, prices and units are integers 0 … 2^63−1; ratios are parts per million (ppm).
"""

from compute_market.errors import RefusedError

AMOUNT_MAX = 2**63 - 1
PPM = 1_000_000
MICRO = 1_000_000  # micro-units in a unit, of what is used and may be
UNIT_BYTES = 1_048_576


def checked(amount: int, what: str) -> int:
    """Return `amount`, or raise RefusedError (`overflow`) when it is outside 0 … 2^63−1."""
    if 0 <= amount <= AMOUNT_MAX:
        return amount
    raise RefusedError(
        f"{what} {amount} is outside 0…{AMOUNT_MAX}", reason="overflow", limit=AMOUNT_MAX
    )


def split(amount: int, fee_pct_ct: int) -> tuple[int, int]:
    """Divide an amount into (CT, IT): `ct = ceil(amount · pct / 100)`, `it` is the rest.

    Raises RefusedError (`invalid_split`) when `fee_pct_ct` is outside 0…100.
    """
    if not 0 <= fee_pct_ct <= 100:
        raise RefusedError(f"fee_pct_ct {fee_pct_ct} is outside 0…100", reason="invalid_split")
    ct = -(-amount * fee_pct_ct // 100)
    return ct, amount - ct


def payment(paid_before: int, amount: int, fee_pct_ct: int) -> tuple[int, int]:
    """The (CT, IT) of one payment in a series, so that the series never leaks.

    Once a total of T has been paid, the CT paid equals `split(T).ct`; each payment is the
    difference to the total before it. Rounding each payment alone would overdraw CT.
    """
    ct_before, _ = split(paid_before, fee_pct_ct)
    ct_after, _ = split(paid_before + amount, fee_pct_ct)
    ct = ct_after - ct_before
    return ct, amount - ct


def units_of(length_bytes: int) -> int:
    """Compute units of one slice: one per started MiB."""
    return -(-length_bytes // UNIT_BYTES)


def half_up(numerator: int, denominator: int) -> int:
    """`floor(numerator / denominator + 1/2)` for non-negative numerators."""
    return (2 * numerator + denominator) // (2 * denominator)


def parse_ppm(text: str) -> int | None:
    """Parse plain decimal text ("0.58", "1") to parts per million.

    Returns None for anything that is not digits with at most six decimal places: signs,
    exponents, `nan`, `inf`, blanks and a seventh decimal are not numbers here.
    """
    whole, _, decimals = text.partition(".")
    if "." in text and not decimals:
        return None
    if len(whole) > 12 or len(decimals) > 6 or not text.isascii() or not whole.isdigit():
        return None
    if decimals and not decimals.isdigit():
        return None
    return int(whole) * PPM + int(decimals.ljust(6, "0"))


def format_ppm(ppm: int) -> str:
    """The shortest decimal text that `parse_ppm` reads back as `ppm`."""
    whole, decimals = divmod(ppm, PPM)
    return f"{whole}.{decimals:06d}".rstrip("0").rstrip(".")
