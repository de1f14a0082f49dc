"""The verb on the log of events."""

import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain

from compute_market import events
from compute_market.events import Logged, Selection
from compute_market.records import EVENT_NAMES, check_id
from compute_market.store.txn import Txn
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.event_listing import EventListing
from tb_cli.frame.guard import stop_if_lost
from tb_cli.frame.options import JSONL, LIMIT, check_choices
from tb_cli.frame.session import Session
from tb_cli.frame.times import instant
from tb_cli.frame.verbs import flag, option, takes

_POLL_S = 0.5


@takes(
    option("--since", "From then on: 1h ago, 03:00 (today), or a date and time.", metavar="WHEN"),
    option("--until", "Up to then.", metavar="WHEN"),
    option("--job", "Only of this job.", complete="any job"),
    option("--offer", "Only of this offer.", complete="offer"),
    option("--owner", "Only of this buyer, provider or owner of a wallet."),
    option("--event", "Only this event; repeatable.", many=True),
    LIMIT,
    flag("--follow", "-f", help="Go on printing what happens, until --until or a signal."),
    JSONL,
)
def log(
    session: Session,
    *,
    since: str | None,
    until: str | None,
    job: str | None,
    offer: str | None,
    owner: str | None,
    event: list[str],
    limit: int | None,
    follow: bool,
    jsonl: bool,
) -> None:
    """The newest comes last; --limit keeps the newest. Each event says who asked for it: user,
    host, process and command line.
    """
    check_choices("--event", event, EVENT_NAMES)
    for what, given in (("job id", job), ("offer id", offer), ("owner", owner)):
        if given is not None:
            check_id(given, what)
    since_ms = None if since is None else instant(since, "--since", now_ms())
    until_ms = None if until is None else instant(until, "--until", now_ms())
    selection = Selection(job, offer, owner, tuple(event), since_ms, until_ms)
    listing = EventListing(session, jsonl=jsonl, at_once=follow)
    after = session.view(lambda txn: txn.number("event_seq")) if follow or limit is not None else 0
    if limit is None:
        found: Iterator[Logged] = chain.from_iterable(_pages(session, selection))
    else:
        found = iter(session.view(lambda txn: events.newest(txn, selection, limit)))
    for logged in found:
        listing.add(logged)
        after = max(after, logged.seq)
    while follow and (until_ms is None or now_ms() <= until_ms):
        sys.stdout.flush()
        stop_if_lost()
        time.sleep(_POLL_S)
        new, after = session.view(partial(_behind, selection=selection, after=after))
        for logged in new:
            listing.add(logged)
    listing.end()


def _pages(session: Session, selection: Selection) -> Iterator[list[Logged]]:
    since_ms = selection.since_ms
    start = 0
    if since_ms is not None:
        start = session.view(lambda txn: events.before_instant(txn, since_ms))
    return session.pages(lambda txn, after, size: events.page(txn, selection, after, size), start)


def _behind(txn: Txn, selection: Selection, after: int) -> tuple[list[Logged], int]:
    """What happened behind a sequence number, and the last one there is."""
    found = [logged for logged in events.forward(txn, after) if selection.wants(logged)]
    return found, txn.number("event_seq")
