"""How long to wait between attempts to forward a bundle: exponential backoff, with jitter."""

from collections.abc import Callable
from typing import Final

WAIT_MS_MAX: Final = 3_600_000
# The part of a wait that is drawn, in hundredths: what failed together is not tried together.
JITTER_PCT: Final = 25


def wait_ms(base_ms: int, failures: int, draw: Callable[[int], int]) -> int:
    """Milliseconds to wait after so many failures in a row, 1 or more.

    It is `base_ms`, twice that, four times that and so on, an hour at most, and up to a quarter
    more. `draw` gives a whole number from 0 to one less than what it is asked for.
    """
    # Doubled no further than the longest wait needs: there may be a thousand failures.
    whole = min(base_ms << min(failures - 1, WAIT_MS_MAX.bit_length()), WAIT_MS_MAX)
    return whole + draw(whole * JITTER_PCT // 100 + 1)
