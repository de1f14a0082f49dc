"""The price board: the last effective prices of each lane, their bands, and what to bid.

The board is what its file says, and what the store has of prices that came later: so a command
that was killed before it could save has lost nothing. Without a file the board starts empty,
whatever the store has: no price counts that was there before this process first looked.

Commands load the file before their transaction (`Txn.board`); one that needs no board loads none.
"""

from typing import Any

from msgspec import Struct

from compute_market.errors import RefusedError
from compute_market.offers import price_window
from compute_market.records import Lane
from compute_market.store.txn import Txn


class Bands(Struct, frozen=True, gc=False):
    """Quartiles of the prices of a lane."""

    p25: int
    median: int
    p75: int
    samples: int


def window(txn: Txn, lane: Lane) -> list[int]:
    """The prices on the board, oldest first; none where nobody has loaded it."""
    board = txn.board
    return (
        []
        if board is None
        else price_window.on_board(txn, board, lane)[-txn.config.price_board_window :]
    )


def bands_of(found: list[int]) -> Bands | None:
    """The quartiles of prices in any order, by spec 3.5; None without any."""
    ordered = sorted(found)
    n = len(ordered)
    if not n:
        return None
    return Bands(ordered[n // 4], ordered[n // 2], ordered[3 * n // 4], n)


def bands(txn: Txn, lane: Lane) -> Bands | None:
    """The bands of the window; a transaction sorts it once for as long as no price comes."""
    seq = txn.number(price_window.SEQ)
    if txn.bands is None or txn.bands[0] != seq:
        txn.bands = seq, {}
    kept = txn.bands[1]
    if lane not in kept:
        kept[lane] = bands_of(window(txn, lane))
    found: Bands | None = kept[lane]
    return found


def document(txn: Txn, lane: Lane) -> dict[str, Any] | None:
    """The JSON form of the bands of a lane; `newest_at` is null for prices of another market."""
    found = bands(txn, lane)
    if found is None:
        return None
    newest_ms = price_window.last_ms(txn, lane)
    return {
        "p25": found.p25,
        "median": found.median,
        "p75": found.p75,
        "samples": found.samples,
        "newest_at": None if newest_ms is None else newest_ms // 1000,
    }


def suggested(txn: Txn, lane: Lane, backlog: int) -> dict[str, Any]:
    """What to bid: `ceil(median × (1 + backlog/window))`, by spec 3.5, and what it was made of.

    `backlog` are the jobs of the lane that wait, but for those that are deferred. Raises
    RefusedError (`no_price_data`) for an empty board.
    """
    found = bands(txn, lane)
    if found is None:
        raise no_price_data(lane)
    size = txn.config.price_board_window
    bid = -(-found.median * (size + backlog) // size)
    return {
        "lane": lane,
        "suggested": bid,
        "median": found.median,
        "backlog": backlog,
        "window": size,
    }


def no_price_data(lane: Lane) -> RefusedError:
    return RefusedError(
        "no price data",
        hint=f"no job of the lane {lane} was matched since the price board began",
        reason="no_price_data",
    )
