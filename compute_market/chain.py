"""Heights: blocks pass with time since genesis, and by hand."""

from typing import Final

from msgspec import Struct

from compute_market import events
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import RefusedError
from compute_market.store.schema import EPOCH_FROM, META
from compute_market.store.txn import Txn

MARKET_ID_BYTES: Final = 16
# A number of `meta`, of the creation on.
_GENESIS_MS: Final = "genesis_ms"


class ChainStatus(Struct, frozen=True, gc=False):
    height: int
    epoch: int
    market_id: str  # 32 hex digits
    genesis_ms: int


def height(txn: Txn) -> int:
    """`floor((now − genesis) / block_interval_secs)` + the offset set by hand. Never goes back.

    A clock set back, or a longer interval, leaves the height where it was last seen by a writer.
    """
    now, seen = height_by(txn, txn.now_ms), txn.number("height_seen")
    return now if now > seen else seen


def remember(txn: Txn) -> int:
    """Record the height reached, so that it never falls below it; returns it."""
    now, seen = height_by(txn, txn.now_ms), txn.number("height_seen")
    if now > seen:
        txn.advance_number("height_seen", seen, now)
        return now
    return seen


def height_by(txn: Txn, at_ms: int) -> int:
    """The height that time alone has made by an instant, above what was set by hand."""
    number, interval_secs = txn.number, txn.config.block_interval_secs
    elapsed_ms = at_ms - number(_GENESIS_MS)
    if interval_secs == 0 or elapsed_ms <= 0:
        return number("height_offset")
    return elapsed_ms // (interval_secs * 1000) + number("height_offset")


def reached_ms(txn: Txn, height: int, since_ms: int) -> int:
    """When the first height that time alone has made since an instant, or a later one up to the
    present, was reached."""
    blocks = max(0, height - txn.number("height_offset"))
    at_ms = txn.number(_GENESIS_MS) + blocks * txn.config.block_interval_secs * 1000
    return min(max(at_ms, since_ms), txn.now_ms)


def epoch_end(txn: Txn) -> int:
    """The height at which the running epoch ends: the next multiple of `epoch_blocks`."""
    return next_epoch(txn, txn.number(EPOCH_FROM))


def next_epoch(txn: Txn, from_height: int) -> int:
    """The height at which the epoch after the one that began at a height begins."""
    blocks = txn.config.epoch_blocks
    return (from_height // blocks + 1) * blocks


def advance(txn: Txn, blocks: int) -> ChainStatus:
    """Let `blocks` pass at once. Raises RefusedError (`overflow`)."""
    if height(txn) + blocks > AMOUNT_MAX:
        raise RefusedError(f"height would pass {AMOUNT_MAX}", reason="overflow")
    # Relative to what is shown, so that advancing always moves the height by what was asked.
    offset = txn.number("height_offset") + height(txn) - height_by(txn, txn.now_ms)
    txn.set_number("height_offset", offset + blocks)
    events.note(txn, "blocks_advanced", blocks=blocks, height=remember(txn))
    return status(txn)


def status(txn: Txn) -> ChainStatus:
    now = height(txn)
    epoch = now // txn.config.epoch_blocks
    return ChainStatus(now, epoch, market_id(txn).hex(), txn.number(_GENESIS_MS))


def market_id(txn: Txn) -> bytes:
    """What this market is, 16 random bytes from its creation on; its copies have the same."""
    return txn.get(META, b"market_id") or b""
