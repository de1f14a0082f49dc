"""Proposals on the market under test."""

from compute_market import chain
from compute_market.governance import governance, parameters
from tests.support.market import Market


def propose(market: Market, key: str, value: str) -> int:
    """Make a proposal; returns its id."""
    parsed = parameters.parse(key, value)
    return market.update(lambda txn: governance.propose(txn, key, parsed)).id


def approve(market: Market, key: str, value: str) -> int:
    """Make a proposal and approve it; returns its id."""
    made = propose(market, key, value)
    assert market.update(lambda txn: governance.approve(txn, made)).changed
    return made


def roll_back(market: Market) -> int:
    """Roll back what came into force last; returns its id."""
    return market.update(governance.roll_back).proposal.id


def pass_epochs(market: Market, epochs: int = governance.DELAY_EPOCHS) -> None:
    """Let whole epochs pass by hand. What is approved comes into force with the next command."""
    blocks = epochs * market.config.epoch_blocks
    market.update(lambda txn: chain.advance(txn, blocks))


def govern(market: Market) -> None:
    """Proposals in every state; what they set is what is configured, or does not matter.

    Numbers 1 and 3 are active, 2 lies below 3 and has the same key, 4 is rolled back, 5 and 6 wait
    and 7 is not approved.
    """
    approve(market, "min_capacity", "9")
    approve(market, "burst_refill_rate", "0.4")
    pass_epochs(market)
    approve(market, "burst_refill_rate", "0.5")
    pass_epochs(market)
    approve(market, "min_capacity", "8")
    pass_epochs(market)
    roll_back(market)
    approve(market, "comfort_threshold_p90", "3000")
    approve(market, "comfort_threshold_p90", "500")
    propose(market, "fair_share_cap", "1")
