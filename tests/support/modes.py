"""The settlement mode as tests see and change it."""

from compute_market.records import SettleState
from compute_market.settlement import modes
from tests.support.market import Market
from tests.support.state import command


def mode(market: Market) -> str:
    return market.view(modes.state).mode


def arm(market: Market, delay_blocks: int = 0) -> SettleState:
    return market.update(lambda txn: modes.arm(txn, delay_blocks))


def cancel_arm(market: Market) -> SettleState:
    return market.update(modes.cancel_arm)


def to_dry_run(market: Market, reason: str = "test") -> tuple[SettleState, bool]:
    return market.update(lambda txn: modes.to_dry_run(txn, reason))


def go_real(market: Market) -> None:
    """Arm without delay; the next command turns the mode real and pays what waits."""
    arm(market)
    command(market)
