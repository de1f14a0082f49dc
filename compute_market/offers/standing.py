"""Crossings: what moves a provider's offers from one shelf to another.

A score that crosses zero, and a wallet that crosses the bond of an offer. A change that crosses
nothing rewrites nothing.
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from compute_market.offers import offers
from compute_market.records import Offer, Score
from compute_market.reputation import reputation
from compute_market.settlement import ledger
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.reputation.gossip import Applied, Message


def record_outcome(txn: Txn, provider: str, delta: int) -> None:
    """Adjust a provider's score by the outcome of a job, +1 or −1."""
    _follow(txn, provider, *reputation.adjust(txn, provider, delta))


def pardon(txn: Txn, provider: str, delta: int, reason: str) -> None:
    """Adjust a provider's score by what the operator says, for a reason that the log keeps."""
    _follow(txn, provider, *reputation.pardon(txn, provider, delta, reason))


def take_gossip(txn: Txn, message: "Message") -> "Applied":
    """Take the scores that another market tells, each that is news; see `gossip.apply`."""
    from compute_market.reputation import gossip

    applied = gossip.apply(txn, message)
    for provider in applied.crossed:
        offers.restand(txn, provider)
    return applied


def follow_time(txn: Txn, limit: int) -> tuple[int, int, int]:
    """Do what time has made of at most so many scores, by the settings in force.

    Returns of how many, how many bar no longer, and how many bar again by other settings.
    """
    from compute_market.reputation import due  # Most often nothing is.

    barred = reputation.take_terms(txn)
    for provider in barred:
        offers.restand(txn, provider)
    done = restored = 0
    while overdue := due.overdue(txn, limit - done):
        done += len(overdue)
        for provider in overdue:
            if reputation.fade(txn, provider):
                restored += 1
                offers.restand(txn, provider)
    due.settle(txn)
    return done, restored, len(barred)


def follow_wallets(txn: Txn) -> None:
    """Shelve the offers of which a wallet has crossed the bond since this was asked last.

    Before a match, and at the end of every transaction.
    """
    if not txn.touched:
        return
    touched, txn.touched = txn.touched, {}
    for owner, (low, high) in touched.items():
        # Also what it crossed and crossed back: an offer may have been shelved in between.
        offers.restand(txn, owner, range(low + 1, high + 1))


def document(txn: Txn, offer: Offer) -> dict[str, Any]:
    """The JSON form of an offer, with what bars one that has units from being taken.

    `barred_by` is null, or the reason with its numbers: `bad_standing` with the provider's score
    and when it will have faded to zero, in unix seconds, null for never; `unfunded` with the bond
    and what the wallet holds. The latter matters once money moves.
    """
    return offers.document(offer) | {"barred_by": _bar(txn, offer)}


def rows(txn: Txn, offer_ids: Iterable[bytes]) -> list[dict[str, Any]]:
    """Offers by their ids, to be shown; one that is damaged as its id and `damaged`."""
    from compute_market.store import sparing  # Most commands show nothing.

    def of(offer_id: bytes) -> dict[str, Any]:
        return document(txn, offers.named(txn, offer_id))

    return [sparing.row({"offer_id": each.decode()}, partial(of, each)) for each in offer_ids]


def _bar(txn: Txn, offer: Offer) -> dict[str, Any] | None:
    if offer.shelf == "barred":
        found = reputation.document(txn, offer.provider)
        until = found["barred_until"]
        return {"reason": "bad_standing", "score": found["score"], "until": until}
    if offer.shelf == "unfunded":
        balance = ledger.balance(txn, ledger.wallet(offer.provider), "CT")
        return {"reason": "unfunded", "provider_bond": offer.provider_bond, "balance": balance}
    return None


def _follow(txn: Txn, provider: str, before: Score, after: Score) -> None:
    if before.barred != after.barred:
        offers.restand(txn, provider)
