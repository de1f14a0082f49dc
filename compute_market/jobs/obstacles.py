"""What keeps an offer from being taken now, in words: its own state, its provider's, its share."""

from typing import Any

from compute_market.admission import capacity, shares
from compute_market.amounts import format_ppm
from compute_market.offers import standing
from compute_market.records import Offer
from compute_market.settlement import modes
from compute_market.store.txn import Txn


def document(txn: Txn, offer: Offer) -> dict[str, Any]:
    """The JSON form of an offer with its `problem`: one line, null for none."""
    found = standing.document(txn, offer)
    return found | {"problem": problem(txn, offer, found["barred_by"])}


def problem(txn: Txn, offer: Offer, barred_by: dict[str, Any] | None) -> str | None:
    """The first of: withdrawn, bad standing, no units, no bond, over its share, for one job alone.

    `barred_by` is that of `standing.document`. A bond counts once money moves, and a share is used
    up when not one more unit would be let in.
    """
    if offer.state == "withdrawn":
        return "withdrawn"
    if barred_by is not None and barred_by["reason"] == "bad_standing":
        return f"barred: score {barred_by['score']}"
    if offer.shelf == "exhausted":
        return "no units left"
    if barred_by is not None:
        when = "" if modes.is_real(txn) else " once money moves"
        return (
            f"unfunded{when}: bond {barred_by['provider_bond']}, the wallet has "
            f"{barred_by['balance']}"
        )
    parties = (shares.party(txn, "provider", offer.provider),)
    if not isinstance(shares.decide(txn, parties, 1, capacity.estimate(txn)), int):
        return f"over its share: {format_ppm(parties[0].used_micro)} units used in the last minute"
    return None if offer.job_id is None else f"for job {offer.job_id} alone"
