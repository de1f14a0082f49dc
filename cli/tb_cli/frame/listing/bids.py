"""Sealed bids as they are listed."""

from typing import Any

from compute_market.bid_records import BID_STATES
from compute_market.bids import bids
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted

FILTERS = (
    among("--state", f"Only in these states: {', '.join(BID_STATES)}.", allowed=BID_STATES),
    among("--owner", "Only of these owners."),
)

BID_LIST = Noun(
    "bids",
    "bid_id",
    (
        Column("bid_id", "BID"),
        Column("bidder"),
        Column("state", kind="state", order=BID_STATES),
        Column("height", kind="number"),
        Column("reveal_from", "FROM", "number"),
        Column("reveal_until", "UNTIL", "number"),
        Column("sequence", "SEQ", "number"),
        Column("commitment"),
        Column("job_id", "JOB"),
        Column("owner"),
        Column("bond_ct", "BOND", "number"),
        Column("overdue"),
        Column("refused"),
        Column("committed_at", "COMMITTED", "at"),
    ),
    shown=(
        *("bid_id", "state", "owner", "height", "reveal_from", "reveal_until", "sequence"),
        *("job_id", "commitment"),
    ),
    table=(
        *("bid_id", "state", "reveal_from", "reveal_until", "owner", "bond_ct", "job_id"),
        *("height", "committed_at", "sequence", "commitment"),
    ),
    age=lambda document: document["height"],
)


def reading(wanted: Wanted) -> Reading:
    """Bids by id."""

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[Any], bytes | None]:
        found, last = bids.page(txn, after, size)
        return [document for document in found if wanted(txn, document)], last

    return Reading(page)
