"""Heights: blocks pass with time since genesis, and by hand."""

from typing import NamedTuple

from compute_market.amounts import AMOUNT_MAX
from compute_market.config.settings import Config
from compute_market.errors import RefusedError
from compute_market.store.store import Txn


class ChainStatus(NamedTuple):
    height: int
    epoch: int
    market_id: str  # 32 hex digits
    genesis_ms: int


def height(txn: Txn, config: Config) -> int:
    """`floor((now − genesis) / block_interval_secs)` + the offset set by hand. Never goes back.

    A clock set back, or a longer interval, leaves the height where it was last seen by a writer.
    """
    return max(_computed(txn, config), txn.number("height_seen"))


def remember(txn: Txn, config: Config) -> int:
    """Record the height reached, so that it never falls below it; returns it."""
    now = height(txn, config)
    if now > txn.number("height_seen"):
        txn.set_number("height_seen", now)
    return now


def advance(txn: Txn, config: Config, blocks: int) -> ChainStatus:
    """Let `blocks` pass at once. Raises RefusedError (`overflow`)."""
    if height(txn, config) + blocks > AMOUNT_MAX:
        raise RefusedError(f"height would pass {AMOUNT_MAX}", reason="overflow")
    # Relative to what is shown, so that advancing always moves the height by what was asked.
    offset = txn.number("height_offset") + height(txn, config) - _computed(txn, config)
    txn.set_number("height_offset", offset + blocks)
    remember(txn, config)
    return status(txn, config)


def status(txn: Txn, config: Config) -> ChainStatus:
    now = height(txn, config)
    market_id = (txn.get("meta", b"market_id") or b"").hex()
    return ChainStatus(now, now // config.epoch_blocks, market_id, _genesis_ms(txn))


def _computed(txn: Txn, config: Config) -> int:
    offset = txn.number("height_offset")
    if config.block_interval_secs == 0:
        return offset
    elapsed_ms = max(0, txn.now_ms - _genesis_ms(txn))
    return elapsed_ms // (config.block_interval_secs * 1000) + offset


def _genesis_ms(txn: Txn) -> int:
    return int.from_bytes(txn.get("meta", b"genesis_ms") or b"", "big")
