"""Proposals of parameters as they are listed."""

from typing import Any

from compute_market.governance import governance
from compute_market.records import PARAMETER_KEYS
from compute_market.store.schema import pack_u64
from compute_market.store.txn import Txn
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import among
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import Wanted

_STATES = ("proposed", "approved", "active", "rolled_back")
FILTERS = (
    among("--state", f"Only in these states: {', '.join(_STATES)}.", allowed=_STATES),
    among("--parameter", "Only of these parameters.", name="key", allowed=PARAMETER_KEYS),
)

PROPOSAL_LIST = Noun(
    "proposals",
    "id",
    (
        Column("id", kind="number"),
        Column("key", "PARAMETER"),
        Column("value", kind="number"),
        Column("state", kind="state", order=_STATES),
        Column("activates_at", "FROM HEIGHT", "number"),
        Column("in_force"),
        Column("proposed_at", "PROPOSED", "at"),
    ),
    shown=("id", "key", "value", "state", "activates_at", "in_force"),
    table=("id", "key", "value", "state", "activates_at", "in_force", "proposed_at"),
)


def reading(wanted: Wanted, *, selects: bool) -> Reading:
    """All by id; where nothing selects among them the newest are found at once."""

    def page(txn: Txn, after: bytes | None, size: int) -> tuple[list[Any], bytes | None]:
        found, last = governance.page(txn, after, size)
        return [document for document in found if wanted(txn, document)], last

    def newest(txn: Txn, limit: int) -> list[dict[str, Any]]:
        start = pack_u64(max(0, governance.count(txn) - limit))
        return governance.page(txn, start, limit)[0] if limit else []

    return Reading(page, newest=None if selects else newest)
