"""Which copy of a market this is, and whether its time is held.

A restored copy is a market of its own from then on: it keeps the id of its market and gets one as
an instance. What time alone causes would fall on it all at once, deadlines of the whole outage
first, so its time is held until an operator says that it goes on.
"""

from typing import Final

from compute_market import chain
from compute_market.clock import TIME_HELD
from compute_market.store.schema import META
from compute_market.store.txn import Txn

ID_BYTES: Final = 16
_INSTANCE: Final = b"instance_id"


def begin(txn: Txn, instance_id: bytes, reason: str) -> None:
    """Make this copy an instance of its own, 16 random bytes, and hold its time for a reason."""
    txn.put(META, _INSTANCE, instance_id)
    txn.put(META, TIME_HELD, reason.encode())


def id_of(txn: Txn) -> str:
    """32 hex digits. The first instance has the id of the market."""
    found = txn.get(META, _INSTANCE) or chain.market_id(txn)
    return found.hex()


def held_because(txn: Txn) -> str | None:
    """Why time is held; None while it goes on."""
    reason = txn.get(META, TIME_HELD)
    return None if reason is None else reason.decode()
