"""The verb that lists proposals of parameters."""

from typing import Any

from tb_cli.frame.listing import lists
from tb_cli.frame.listing import proposals as listed
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, takes


@takes(listed.FILTERS, DATED, LISTED)
@examples(
    "tb-cli compute-market params history --limit 10",
    "tb-cli compute-market params history --jsonl",
)
@columns_of(listed.PROPOSAL_LIST)
def history(session: Session, *, filters: dict[str, Any], listing: dict[str, Any]) -> None:
    """An active proposal that another one of its key has replaced is no longer in force, but is so
    again when the other is rolled back. --since and --until are about when they were made.
    """
    noun, utc = listed.PROPOSAL_LIST, listing.get("utc", False)
    selected = wanted(noun, listed.FILTERS, filters, dated="proposed_at", utc=utc)
    lists.show(session, noun, listing, listed.reading(selected, selects=bool(filters)))
