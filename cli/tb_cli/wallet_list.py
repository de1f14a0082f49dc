"""The verb that lists the wallets of all owners."""

from typing import Any

from compute_market import overview
from compute_market.errors import UsageError
from tb_cli.frame.listing import lists
from tb_cli.frame.listing import wallets as listed
from tb_cli.frame.listing.options import LISTED, columns_of
from tb_cli.frame.listing.selecting import chosen
from tb_cli.frame.options import amount
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, takes


@takes(
    listed.FILTERS,
    amount(
        "--min", "Only those that have at least so much of a token, locked or not.", name="least"
    ),
    flag("--nonzero", help="Only those that have or have locked anything."),
    flag("--totals", help="Where all tokens are, instead of the list."),
    LISTED,
)
@examples(
    "tb-cli wallet list",
    "tb-cli wallet list --nonzero --sort -ct --limit 20",
    "tb-cli wallet list --totals --json",
)
@columns_of(listed.WALLET_LIST)
def list_(
    session: Session,
    *,
    filters: dict[str, Any],
    least: int | None,
    nonzero: bool,
    totals: bool,
    listing: dict[str, Any],
) -> None:
    """What is locked is in escrows and bonds of jobs and bids. The totals are by token:
    what is in circulation, which is what was paid in and not out again, and how much of it is in
    wallets, escrows, bonds and sealed bids, and burned.
    """
    if totals:
        if filters or listing or nonzero or least is not None:
            raise UsageError("--totals are those of all wallets", hint="leave the others out")
        document = session.view(overview.balances)
        emit(session, document, fields(document))
        return
    owners = chosen(listed.FILTERS, filters).get("owner", ())
    at_least = max(least or 0, int(nonzero))
    reading = listed.reading(owners, lambda document: _most(document) >= at_least)
    lists.show(session, listed.WALLET_LIST, listing, reading)


def _most(document: dict[str, Any]) -> int:
    """What an owner has of the token that it has more of, locked or not."""
    held, bonds = document["escrow"], document["bonds"]
    ct: int = document["ct"] + held["ct"] + bonds["ct"]
    it: int = document["it"] + held["it"]
    return max(ct, it)
