"""The verb that lists receipts."""

from collections.abc import Mapping
from typing import Any

from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing import lists
from tb_cli.frame.listing import receipts as listed
from tb_cli.frame.listing.columns import Noun
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import chosen, wanted, window
from tb_cli.frame.render import note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, takes


def _noun(given: Mapping[str, Any]) -> Noun:
    """Those of this market have fields of their own."""
    return listed.IMPORTED_LIST if given.get("imported") else listed.RECEIPT_LIST


@takes(
    listed.FILTERS,
    flag("--imported", help="Those of other markets, by market."),
    DATED,
    LISTED,
)
@examples(
    "tb-cli compute-market receipts list --provider acme --since 1d",
    "tb-cli compute-market receipts list --status recorded --sort -units --limit 20",
)
@columns_of(_noun)
def list_(
    session: Session, *, filters: dict[str, Any], imported: bool, listing: dict[str, Any]
) -> None:
    """--since and --until are about when they were issued."""
    noun = _noun({"imported": imported})
    declared = [each for each in listed.FILTERS if each.name in noun.columns]
    utc = listing.get("utc", False)
    selected = wanted(noun, declared, filters, dated="issued_at", utc=utc)
    damaged: list[int] = []
    if imported:
        reading = listed.imported_reading(selected)
    else:
        since_ms, until_ms = window(filters, now_ms(), utc=utc)
        job_ids = chosen(declared, filters).get("job_id", ())
        reading = listed.reading(
            selected, damaged, job_ids=job_ids, since_ms=since_ms, until_ms=until_ms
        )
    lists.show(session, noun, listing, reading)
    if damaged:
        note("warning: damaged receipts are left out; `tb-cli compute-market audit` names them")
