"""A market to be thrown away: the real one, on a store that forgets what durability costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compute_market import clock as clocks
from compute_market.clock import Clock
from compute_market.config.settings import Config
from compute_market.engine import Engine
from compute_market.price_records import Board
from compute_market.store.throwaway import ThrowAwayStore

MARKET_ID = bytes(16)


@contextmanager
def open_market(directory: str, config: Config, clock: Clock) -> Iterator[Engine]:
    """An empty market in an empty directory, which the caller removes with what is in it then.

    It is the same on every machine: it has no id of its own. Raises what `ThrowAwayStore` does.
    """
    # A market asks no more of its store than this one has.
    store: Any = ThrowAwayStore(directory, MARKET_ID, clocks.read(clock).wall_ms)
    with Engine(store, config, clock=clock) as market:
        market.board = Board()  # An empty one, so that offers may ask for the market price.
        yield market
