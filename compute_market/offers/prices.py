"""Effective prices: as they are compared and shown, and as the store keeps the last of each lane.

What the price board makes of them is in `offers.board`.
"""

from typing import Final

from compute_market.amounts import PPM, half_up
from compute_market.records import Lane
from compute_market.store.schema import PRICES, pack_u64
from compute_market.store.txn import Txn

# Numbers of `meta`: how many prices there ever were, and how many of each lane are stored.
SEQ: Final = "price_seq"
STORED: Final[dict[Lane, str]] = {
    "industrial": "prices_industrial",
    "consumer": "prices_consumer",
}
_PREFIXES: Final[dict[Lane, bytes]] = {"industrial": b"\0", "consumer": b"\1"}


def effective_price(price_per_unit: int, multiplier_ppm: int, accelerator: bool = False) -> int:
    """Price × multiplier, × 6/5 when the job asks for an accelerator, rounded half up.

    For display only: the matcher compares exact products.
    """
    premium = 6 if accelerator else 5
    return half_up(price_per_unit * multiplier_ppm * premium, 5 * PPM)


def record(txn: Txn, lane: Lane, price: int) -> None:
    """Keep the effective price of a match, and of its lane only the window of the board."""
    seq = txn.number(SEQ)
    if txn.priced_after is None:
        txn.priced_after = seq
    txn.set_number(SEQ, seq + 1)
    txn.put(PRICES, key_of(lane, seq + 1), pack_u64(price) + pack_u64(txn.now_ms))
    stored = txn.number(STORED[lane]) + 1
    over = stored - txn.config.price_board_window
    if over > 0:
        for key, _ in txn.collect(PRICES, over, _PREFIXES[lane]):
            txn.delete(PRICES, key)
        stored -= over
    txn.set_number(STORED[lane], stored)


def key_of(lane: Lane, seq: int) -> bytes:
    """The key of a price, or where those begin that come after the one before it."""
    return _PREFIXES[lane] + pack_u64(seq)


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
