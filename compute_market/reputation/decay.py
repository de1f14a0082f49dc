"""How a score fades while nothing changes it: exact integers, whatever the time that has passed.

After n whole periods a score is `score × (1 − decay)^n`, rounded half away from zero (spec 2.6).
"""

from functools import cache

from compute_market.amounts import PPM

# Bits of the exact powers up to which they are faster than bounds. They have to be exact for the
# first 11 periods: a tie needs a power of at least 2^n that divides twice the score, and that is at
# most 4000, so that later no number of the series lies half way between two integers.
_EXACT_BITS = 1_280
_BITS = 192  # of a fraction, to begin with
_LN_2_PPM = 693_148  # rounded up
_LN_2_LOW_PPM = 693_147  # and down


def decayed(score: int, decay_ppm: int, periods: int) -> int:
    """What a score, −2000 … 2000, is after so many periods in which nothing changed it."""
    keep_ppm = PPM - decay_ppm
    if not score or not periods or keep_ppm == PPM:
        return score
    size = abs(score)
    if periods * decay_ppm >= _LN_2_PPM * (size.bit_length() + 1):
        return 0  # Less than a half is left, since (1 − d)^n ≤ e^(−dn): most often by far.
    keep, whole = _reduced(keep_ppm)
    if periods * whole.bit_length() <= _EXACT_BITS:
        kept, of = _powers(keep, whole, periods)
        left = _nearest(size * kept, of)
    else:
        left = _between_bounds(size, keep_ppm, periods)
    return left if score > 0 else -left


@cache
def periods_to_zero(score: int, decay_ppm: int) -> int | None:
    """The first number of periods after which a score is zero; None for never.

    Scores have a bound and settings seldom change, and so has the cache.
    """
    if not score:
        return 0
    if not decay_ppm:
        return None
    # A half is left at least of a score of b bits, which is no less than 2^(b−1), while
    # (1 − d)^n ≥ e^(−dn/(1 − d)) is no less than 2^(−b); by the bound that `decayed` knows it is 0.
    bits = score.bit_length()
    below = _LN_2_LOW_PPM * bits * (PPM - decay_ppm) // (decay_ppm * PPM)
    above = -(-_LN_2_PPM * (bits + 1) // decay_ppm)
    while above - below > 1:
        middle = (above + below) // 2
        if decayed(score, decay_ppm, middle):
            below = middle
        else:
            above = middle
    return above


@cache
def _reduced(keep_ppm: int) -> tuple[int, int]:
    """What is kept in a period, as a ratio in its lowest terms."""
    divisor, rest = PPM, keep_ppm
    while rest:
        divisor, rest = rest, divisor % rest
    return keep_ppm // divisor, PPM // divisor


@cache
def _powers(keep: int, whole: int, periods: int) -> tuple[int, int]:
    """Both powers of a ratio. Of one setting there are no more than have `_EXACT_BITS`."""
    return keep**periods, whole**periods


def _between_bounds(size: int, keep_ppm: int, periods: int) -> int:
    """Both bounds of a power in so many bits, and in more until they round alike."""
    bits = _BITS
    while True:
        one = 1 << bits
        low = _nearest(size * _power(keep_ppm, periods, bits, up=0), one)
        high = _nearest(size * _power(keep_ppm, periods, bits, up=one - 1), one)
        if low == high:
            return low
        bits *= 2


def _power(keep_ppm: int, periods: int, bits: int, *, up: int) -> int:
    """`(keep / PPM)^periods` as a fraction of so many bits: never more, or with `up` never less."""
    square = ((keep_ppm << bits) + (PPM - 1 if up else 0)) // PPM
    result = 1 << bits
    while periods:
        if periods & 1:
            result = (result * square + up) >> bits
        periods >>= 1
        if periods:
            square = (square * square + up) >> bits
    return result


def _nearest(numerator: int, denominator: int) -> int:
    """The nearest integer of a ratio that is not negative; half goes away from zero."""
    return (2 * numerator + denominator) // (2 * denominator)
