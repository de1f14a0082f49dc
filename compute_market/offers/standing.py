"""Crossings: what moves a provider's offers from one shelf to another.

A score that crosses zero, and a wallet that crosses the bond of an offer. A change that crosses
nothing rewrites nothing.
"""

from compute_market.offers import offers
from compute_market.reputation import reputation
from compute_market.store.txn import Txn


def record_outcome(txn: Txn, provider: str, delta: int) -> None:
    """Adjust a provider's score by the outcome of a job, +1 or −1."""
    before, after = reputation.adjust(txn, provider, delta)
    if before.barred != after.barred:
        offers.restand(txn, provider)


def follow_wallets(txn: Txn) -> None:
    """Shelve the offers of which a wallet has crossed the bond since this was asked last.

    Before a match, and at the end of every transaction.
    """
    touched, txn.touched = txn.touched, {}
    for owner, (low, high) in touched.items():
        # Also what it crossed and crossed back: an offer may have been shelved in between.
        offers.restand(txn, owner, range(low + 1, high + 1))
