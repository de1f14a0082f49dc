"""The last prices of each lane, as the store keeps them, and what they add to the price board.

The board is what its file says, and what the store has of prices that came later: so a command
that was killed before it could save has lost nothing. Without a file the board starts empty,
whatever the store has: no price counts that was there before this process first looked.
"""

from collections.abc import Iterator
from typing import Final

from compute_market import metrics
from compute_market.price_records import Board
from compute_market.records import LANES, Lane
from compute_market.store.schema import PRICES, pack_u64
from compute_market.store.txn import Txn

# Numbers of `meta`: how many prices there ever were, how many of each lane are stored, and whether
# any of it was dropped because the window was full.
SEQ: Final = "price_seq"
STORED: Final = {"industrial": "prices_industrial", "consumer": "prices_consumer"}
_DROPS: Final = {"industrial": "prices_drop_industrial", "consumer": "prices_drop_consumer"}
# The seq of the last saved board that was counted.
_COUNTED: Final = "price_board_counted"
_PREFIXES: Final = {"industrial": b"\0", "consumer": b"\1"}


def record(txn: Txn, lane: Lane, price: int) -> None:
    """Keep the effective price of a match, and of its lane only the window of the board."""
    seq = txn.number(SEQ)
    if txn.priced_after is None:
        txn.priced_after = seq
    txn.set_number(SEQ, seq + 1)
    value = price.to_bytes(8) + txn.now_ms.to_bytes(8)
    txn.put(PRICES, key_of(lane, seq + 1), value)
    before = txn.number(STORED[lane])
    stored = before + 1
    over = stored - txn.config.price_board_window
    if over > 0:
        oldest = txn.first(PRICES, _PREFIXES[lane])
        old = [oldest] if over == 1 and oldest else txn.collect(PRICES, over, _PREFIXES[lane])
        for key, _ in old:
            txn.remove(PRICES, key)
        if not txn.number(_DROPS[lane]):
            txn.set_number(_DROPS[lane], 1)
        stored -= over
    if stored != before:
        txn.set_number(STORED[lane], stored)


def key_of(lane: Lane, seq: int) -> bytes:
    """The key of a price, or where those begin that come after the one before it."""
    return _PREFIXES[lane] + pack_u64(seq)


def entries(txn: Txn, lane: Lane) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the stored prices of a lane, oldest first."""
    return txn.scan(PRICES, _PREFIXES[lane])


def since(txn: Txn, lane: Lane, seq: int) -> list[int]:
    """The stored prices of a lane that came after the one with this seq, oldest first."""
    entries = txn.scan(PRICES, _PREFIXES[lane], key_of(lane, seq + 1))
    return [int.from_bytes(value[:8], "big") for _, value in entries]


def last_ms(txn: Txn, lane: Lane) -> int | None:
    """When the last stored price of a lane came, in unix milliseconds."""
    if txn.is_empty(PRICES):
        return None
    below, _ = txn.beside(PRICES, key_of(lane, 2**64 - 1))
    if below is None or not below.startswith(_PREFIXES[lane]):
        return None
    value = txn.get(PRICES, below)
    return None if value is None else int.from_bytes(value[8:], "big")


def begun(txn: Txn, found: Board, priced_after: int | None) -> Board:
    """A board as this process goes on from it.

    Where there was no file, or one that knows prices which this market never had, what was stored
    before the first price of this process (`priced_after`, else before now) does not count.
    """
    last = txn.number(SEQ)
    if found.seq is not None and found.seq <= last:
        return found
    return found.begun_at(last if priced_after is None else priced_after)


def joined(txn: Txn, found: Board, priced_after: int, seq_of_others: int | None = None) -> Board:
    """What is to be saved: the file as it is found by now, and what came later.

    A file that had another market's `seq_of_others` when it was loaded has it still unless it was
    saved meanwhile, although this market may have come to have as many prices.

    Another process may have begun a board after the first price of this one, and left that out. All
    of them end with the last price, so the longer one is whole.
    """
    is_of_others = found.seq is not None and found.seq == seq_of_others
    start = found.begun_at(priced_after) if is_of_others else begun(txn, found, priced_after)
    lanes = []
    for lane in LANES:
        known = on_board(txn, start, lane)
        own = since(txn, lane, priced_after)
        lanes.append(tuple(max(known, own, key=len)[-txn.config.price_board_window :]))
    return Board("success", "", txn.number(SEQ), *lanes)


def on_board(txn: Txn, board: Board, lane: Lane) -> list[int]:
    """What a board that was begun has of a lane, and what the store has since."""
    assert board.seq is not None, "the board is begun by the market"
    fresh = since(txn, lane, board.seq)
    known = board.of(lane)
    if txn.number(_DROPS[lane]):
        # What the store has dropped since the board was saved is not on it any more either.
        known = known[max(0, len(known) + len(fresh) - txn.number(STORED[lane])) :]
    return [*known, *fresh]


def count(txn: Txn, loaded: Board | None) -> None:
    """Count that a board was loaded, if one was, and one that was saved before."""
    if loaded is not None:
        metrics.count(txn, "price_board_load_total", loaded.outcome)
    found = txn.board
    seq = found.seq if found is not None and found.outcome == "success" else None
    if seq is not None and txn.number(_COUNTED) < seq:
        metrics.count(txn, "price_board_save_total", "success")
        txn.set_number(_COUNTED, seq)
