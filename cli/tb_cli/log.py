"""The verb on the log of events."""

from typing import Any

from compute_market import events
from compute_market.events import Logged, Selection
from compute_market.records import EVENT_NAMES
from compute_market.store.txn import Txn
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing import events as listed_events
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.options import DATED, LISTED, among, columns_of
from tb_cli.frame.listing.selecting import chosen, window
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, flag, takes

_FILTERS = (
    among("--job", "Only of these jobs.", complete="any job"),
    among("--offer", "Only of these offers.", complete="offer"),
    among("--owner", "Only of these buyers, providers or owners of wallets.", complete="party"),
    among("--event", "Only these events.", allowed=EVENT_NAMES),
)


@takes(
    DATED,
    _FILTERS,
    flag("--follow", "-f", help="Go on printing what happens, until --until or a signal."),
    LISTED,
)
@examples(
    "tb-cli log --since 03:00 --until 03:30",
    "tb-cli log --event job_failed,job_cancelled --since 1d --columns at_ms,job_id,user",
    "tb-cli log --follow",
)
@columns_of(listed_events.EVENTS)
def log(
    session: Session, *, filters: dict[str, Any], follow: bool, listing: dict[str, Any]
) -> None:
    """The newest comes last; --limit keeps the newest. Each event says who asked for it: user,
    host, process and command line.
    """
    values = chosen(_FILTERS, filters)
    since_ms, until_ms = window(filters, now_ms(), utc=listing.get("utc", False))
    selection = Selection(
        job_ids=values.get("job", ()),
        offer_ids=values.get("offer", ()),
        owners=values.get("owner", ()),
        names=values.get("event", ()),
        since_ms=since_ms,
        until_ms=until_ms,
    )
    start = 0
    if since_ms is not None and "limit" not in listing:
        start = session.view(lambda txn: events.before_instant(txn, since_ms))
    if not follow:
        lists.show(session, listed_events.EVENTS, listing, listed_events.of_log(selection, start))
        return
    after = session.view(lambda txn: txn.number("event_seq"))

    def newer(txn: Txn) -> list[Logged]:
        """What happened behind the last one."""
        nonlocal after
        found = [each for each in events.forward(txn, after) if selection.wants(each)]
        after = txn.number("event_seq")
        return found

    before = listed_events.of_log(selection, start, until_seq=after)
    lists.follow(
        session,
        listed_events.EVENTS,
        listing,
        before,
        newer,
        lambda: until_ms is None or now_ms() <= until_ms,
    )
