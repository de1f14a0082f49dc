"""The verb that lists the movements of a wallet."""

from typing import Any

from compute_market.records import check_id
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing import lists
from tb_cli.frame.listing import postings as listed
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted, window
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, takes


@takes(argument("owner", "OWNER", "Whose wallet.", complete="party"), listed.FILTERS, DATED, LISTED)
@examples(
    "tb-cli wallet history alice --since 1d",
    "tb-cli wallet history acme --event settle --token CT --limit 20",
)
@columns_of(listed.POSTING_LIST)
def history(
    session: Session, owner: str, *, filters: dict[str, Any], listing: dict[str, Any]
) -> None:
    """The oldest comes first. What was archived is one posting in each token, an `opening`."""
    check_id(owner, "owner")
    noun, utc = listed.POSTING_LIST, listing.get("utc", False)
    selected = wanted(noun, listed.FILTERS, filters, dated="at_ms", utc=utc)
    since_ms, until_ms = window(filters, now_ms(), utc=utc)
    reading = listed.reading(owner, selected, since_ms=since_ms, until_ms=until_ms)
    lists.show(session, noun, listing, reading)
