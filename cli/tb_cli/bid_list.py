"""The verb that lists sealed bids."""

from typing import Any

from tb_cli.frame.listing import bids as listed
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, takes


@takes(listed.FILTERS, DATED, LISTED)
@examples(
    "tb-cli bid list --state committed --sort reveal_until",
    "tb-cli bid list --owner alice --json",
)
@columns_of(listed.BID_LIST)
def list_(session: Session, *, filters: dict[str, Any], listing: dict[str, Any]) -> None:
    """They come by id; the newest are those of the greatest height. --since and --until are about
    when they were committed, which is not known of those that older releases took in.
    """
    noun, utc = listed.BID_LIST, listing.get("utc", False)
    selected = wanted(noun, listed.FILTERS, filters, dated="committed_at", utc=utc)
    lists.show(session, noun, listing, listed.reading(selected))
