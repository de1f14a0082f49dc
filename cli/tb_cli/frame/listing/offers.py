"""Offers as they are listed."""

from typing import Any

from compute_market.jobs import obstacles
from compute_market.offers import standing
from compute_market.records import OFFER_STATES, Offer
from compute_market.store.schema import OFFERS
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted

FILTERS = (
    among("--state", f"Only in these states: {', '.join(OFFER_STATES)}.", allowed=OFFER_STATES),
    among("--provider", "Only of these providers."),
)


def _barred_by(txn: Txn, offer: Offer) -> Any:
    return standing.document(txn, offer)["barred_by"]


def _problem(txn: Txn, offer: Offer) -> str | None:
    found: str | None = obstacles.document(txn, offer)["problem"]
    return found


OFFER_LIST = Noun(
    "offers",
    "offer_id",
    (
        Column("offer_id", "OFFER", of="offer_id"),
        Column("provider", of="provider"),
        Column("units", kind="number", of="units"),
        Column("price_per_unit", "PRICE", "number", "price_per_unit"),
        Column("fee_pct_ct", "CT%", "number", "fee_pct_ct"),
        Column("provider_bond", "BOND", "number", "provider_bond"),
        Column("consumer_bond", "BUYER BOND", "number", "consumer_bond"),
        Column("capability", kind="record"),
        Column("reputation", kind="number", of="reputation"),
        Column("reputation_multiplier", "MULT"),
        Column("job_id", "JOB", of="job_id"),
        Column("state", kind="state", of="state", order=OFFER_STATES),
        Column("units_left", "LEFT", "number", "units_left"),
        Column("units_reserved", "RESERVED", "number", "units_reserved"),
        Column("units_proven", "DONE", "number", "units_proven"),
        Column("effective_price", "EFFECTIVE", "number"),
        Column("posted_at", "POSTED", "at", "posted_at"),
        Column("shelf", of="shelf"),
        Column("market_priced", of="market_priced"),
        Column("barred_by", kind="record", of=_barred_by),
        Column("problem", kind="long", of=_problem),
    ),
    shown=(
        *("offer_id", "state", "provider", "price_per_unit", "effective_price", "units_left"),
        *("units", "capability", "shelf", "problem"),
    ),
    table=(
        *("offer_id", "state", "problem", "provider", "price_per_unit", "effective_price"),
        *("units_left", "units", "capability"),
    ),
    document=obstacles.document,
    age=lambda offer: offer.seq,
)


def reading(wanted: Wanted) -> Reading:
    """Offers by id."""

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[Offer], bytes | None]:
        found, last = txn.page(OFFERS, after, size)
        return [offer for _, offer in found if wanted(txn, offer)], last

    return Reading(page)
