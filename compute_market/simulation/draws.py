"""Draws by chance that are the same on every machine.

A stream is a counter put through the mixing function of SplitMix64 (Steele, Lea and Flood 2014).
Every part of a scenario has one of its own, so that what one part draws moves nothing of another.
Integers alone decide.
"""

from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

from compute_market.amounts import PPM
from compute_market.text import counted

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
# What an exponential draw stays below, in means: it would be above it once in 10^19 draws.
MEANS_MAX = 45


class Stream:
    """A sequence of draws; the same seed and name give the same ones."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, name: str) -> None:
        digest = blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
        self._state = int.from_bytes(digest, "big")

    def bits(self) -> int:
        """64 bits, each as likely set as not."""
        self._state = z = (self._state + _GOLDEN) & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return z ^ z >> 31

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` − 1, each as likely; `bound` is at most 2^64."""
        least = (1 << 64) % bound  # Below it a remainder would come up once too often.
        while True:
            found = self.bits()
            if found >= least:
                return found % bound

    def between(self, least: int, most: int) -> int:
        """A whole number from `least` to `most`, each as likely."""
        return least + self.below(most - least + 1)

    def happens(self, chance_ppm: int) -> bool:
        """Whether something comes about that does so in that many of a million cases."""
        return chance_ppm >= PPM or (chance_ppm > 0 and self.below(PPM) < chance_ppm)

    def exponential(self, mean: int) -> int:
        """A whole number, exponentially distributed around a mean of at least 0, half up.

        By comparisons alone, without a logarithm (von Neumann 1951): a number at which a run of
        falling draws begins counts if the run has an odd length, which is as likely as e^−x; each
        one before it that does not adds a whole mean.
        """
        means = 0
        while True:
            first = last = self.bits()
            is_odd = True
            while (found := self.bits()) < last:
                last = found
                is_odd = not is_odd
            if is_odd or means == MEANS_MAX - 1:
                return (2 * mean * (means << 64 | first) + (1 << 64)) >> 65
            means += 1

    def weighted(self, weights: Sequence[int]) -> int:
        """A place in a list, each as likely as its weight is of their sum, which is above 0."""
        found = self.below(sum(weights))
        for place, weight in enumerate(weights):
            if found < weight:
                return place
            found -= weight
        raise AssertionError("a draw is below the sum of the weights")


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """How a number is spread: evenly from `least` to `most`, exponentially around `mean` and cut
    to what of `least` and `most` is given, or one of `values`, as likely as its weight."""

    least: int | None = None
    most: int | None = None
    mean: int | None = None
    values: list[int] | None = None
    weights: list[int] | None = None

    def __post_init__(self) -> None:
        if self.values is not None:
            self._check_values(self.values)
        elif self.weights is not None:
            raise ValueError("weights: are those of values, and there are none")
        elif self.mean is None and (self.least is None or self.most is None):
            raise ValueError("a spread has least and most, a mean, or values")
        if self.mean is not None and self.mean < 0:
            raise ValueError(f"mean: {self.mean} is below 0")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least: {self.least} is above most {self.most}")

    def _check_values(self, values: list[int]) -> None:
        if (self.least, self.most, self.mean) != (None, None, None):
            raise ValueError("values: stand alone, without least, most and mean")
        if not values:
            raise ValueError("values: are none")
        if self.weights is not None:
            if len(self.weights) != len(values):
                have = f"{counted(len(values), 'value')} and {counted(len(self.weights), 'weight')}"
                raise ValueError(f"weights: there must be one for each value, not {have}")
            if min(self.weights) < 0 or not 0 < sum(self.weights) < 2**63:
                raise ValueError("weights: none is negative, and their sum is above 0")


Amounts = int | Spread


def bounds(amounts: Amounts) -> tuple[int, int]:
    """The least and the most that may be drawn."""
    if isinstance(amounts, int):
        return amounts, amounts
    if amounts.values is not None:
        return min(amounts.values), max(amounts.values)
    least = 0 if amounts.least is None else amounts.least
    if amounts.most is not None:
        return least, amounts.most
    assert amounts.mean is not None
    return least, max(least, MEANS_MAX * amounts.mean)


def draw(stream: Stream, amounts: Amounts) -> int:
    """One number of a spread; a plain number stands for itself and takes no draw."""
    if isinstance(amounts, int):
        return amounts
    if amounts.values is not None:
        weights = amounts.weights
        place = stream.weighted(weights) if weights else stream.below(len(amounts.values))
        return amounts.values[place]
    if amounts.mean is None:
        assert amounts.least is not None
        assert amounts.most is not None
        return stream.between(amounts.least, amounts.most)
    found = stream.exponential(amounts.mean)
    found = found if amounts.least is None else max(found, amounts.least)
    return found if amounts.most is None else min(found, amounts.most)
