"""The verb that lists sealed bids."""

from typing import Any

from tb_cli.frame.listing import bids as listed
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.options import LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, takes


@takes(listed.FILTERS, LISTED)
@examples(
    "tb-cli bid list --state committed --sort reveal_until",
    "tb-cli bid list --owner alice --json",
)
@columns_of(listed.BID_LIST)
def list_(session: Session, *, filters: dict[str, Any], listing: dict[str, Any]) -> None:
    """They come by id; the newest are those of the greatest height."""
    noun = listed.BID_LIST
    lists.show(session, noun, listing, listed.reading(wanted(noun, listed.FILTERS, filters)))
