"""How the highest prices of jobs compare with the bands of the price board, for a dry run."""

from collections import Counter

from compute_market.offers import board
from compute_market.offers.board import Bands
from compute_market.records import LANES, Lane
from compute_market.store.txn import Txn
from tb_cli.frame.render import note

_PLACES = ("below", "within", "above")


class Compared:
    """The bands as they were before the first job, and where the price of each job stands."""

    def __init__(self) -> None:
        self._bands: dict[Lane, Bands | None] | None = None
        self._prices: list[tuple[Lane, int]] = []

    def add(self, txn: Txn, lane: Lane, price: int) -> None:
        """Take a job in, before it is submitted: its own match would be on the board."""
        if self._bands is None:
            self._bands = {each: board.bands(txn, each) for each in LANES}
        self._prices.append((lane, price))

    def tell(self) -> None:
        """One line on stderr, if there was any job."""
        if self._bands is None:
            return
        texts = []
        for lane, bands in self._bands.items():
            asked = [price for of, price in self._prices if of == lane]
            if not asked:
                continue
            if bands is None:
                texts.append(f"there is no price data of the lane {lane}")
            else:
                texts.append(f"{_compared(asked, bands)} the {lane} band {_shown(bands)}")
        note("; ".join(texts))


def _compared(asked: list[int], bands: Bands) -> str:
    places = [_place(price, bands) for price in asked]
    if len(asked) == 1:
        return f"a highest price of {asked[0]} is {places[0]}"
    counted = Counter(places)
    parts = [f"{counted[place]} {place}" for place in _PLACES if counted[place]]
    return f"of {len(asked)} highest prices {' and '.join(parts)}"


def _place(price: int, bands: Bands) -> str:
    if price < bands.p25:
        return "below"
    return "above" if price > bands.p75 else "within"


def _shown(bands: Bands) -> str:
    prices = "1 price" if bands.samples == 1 else f"{bands.samples} prices"
    return f"{bands.p25}…{bands.p75}, median {bands.median} of {prices}"
