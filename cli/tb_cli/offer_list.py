"""The verb that lists offers."""

from typing import Any

from tb_cli.frame.listing import lists
from tb_cli.frame.listing import offers as listed
from tb_cli.frame.listing.options import DATED, LISTED, columns_of
from tb_cli.frame.listing.selecting import wanted
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, takes


@takes(listed.FILTERS, DATED, LISTED)
@examples(
    "tb-cli compute offer list --state open --sort price_per_unit",
    "tb-cli compute offer list --provider acme -q | tb-cli compute offer withdraw -",
)
@columns_of(listed.OFFER_LIST)
def list_(session: Session, *, filters: dict[str, Any], listing: dict[str, Any]) -> None:
    """The problem is what keeps an offer from being taken now: bad standing, no units, a bond that
    its provider cannot pay, which matters once money moves, a share that is used up, or that it is
    for one job alone. In JSON `barred_by` has the numbers, and when a score will have faded to
    zero. They come by id; --since and --until are about when they were posted.
    """
    noun, utc = listed.OFFER_LIST, listing.get("utc", False)
    selected = wanted(noun, listed.FILTERS, filters, dated="posted_at", utc=utc)
    lists.show(session, noun, listing, listed.reading(selected))
