"""The verb that lists the movements of a wallet."""

from typing import Any

from compute_market.records import check_id
from tb_cli.frame.listing import lists
from tb_cli.frame.listing import postings as listed
from tb_cli.frame.listing.options import DATED, LISTED
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, takes


@takes(argument("owner", "OWNER", "Whose wallet."), listed.FILTERS, DATED, LISTED)
@examples(
    "tb-cli wallet history alice --since 1d",
    "tb-cli wallet history acme --event settle --token CT --limit 20",
)
def history(
    session: Session, owner: str, *, filters: dict[str, Any], listing: dict[str, Any]
) -> None:
    """The oldest comes first. What was archived is one posting in each token, an `opening`."""
    check_id(owner, "owner")
    noun, utc = listed.POSTING_LIST, listing.get("utc", False)
    selected = wanted(noun, listed.FILTERS, filters, dated="at_ms", utc=utc)
    selects = bool(filters)
    lists.show(session, noun, listing, listed.reading(owner, selected, selects=selects))
