"""`wallet statement`: what an owner had, what came and went, what it has then."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from compute_market import parties
from compute_market.records import Posting, check_id
from compute_market.settlement import past, statements
from compute_market.settlement.past import Span
from compute_market.settlement.statements import GROUPINGS, Amounts, Lines
from compute_market.store.txn import Txn
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.options import JSONL
from tb_cli.frame.render import Listing, note, write_head, write_tail
from tb_cli.frame.session import Session
from tb_cli.frame.times import local, window
from tb_cli.frame.verbs import argument, examples, option, takes

_SUMS = ("movements", "ct", "it", "received", "spent", "balance")
# The columns of each kind of lines; opening and closing balance have theirs in the last.
_COLUMNS = {
    None: ("at_ms", "event", "ref", "ct", "it", "balance", "seq"),
    "job": ("job_id", "event", *_SUMS),
    "day": ("day", *_SUMS),
    "event": ("event", *_SUMS),
}


@takes(
    argument("owner", "OWNER", "Whose wallet.", complete="owner"),
    option("--since", "From then on: 1h ago, 03:00 (today), or a date and time.", metavar="WHEN"),
    option("--until", "Up to then.", metavar="WHEN"),
    option("--by", "One line per job, day or kind of event.", choices=GROUPINGS),
    JSONL,
)
@examples(
    "tb-cli wallet statement alice",
    "tb-cli wallet statement alice --since 7d --by day",
    "tb-cli wallet statement alice --by job --json",
)
def statement(
    session: Session,
    owner: str,
    *,
    since: str | None,
    until: str | None,
    by: str | None,
    jsonl: bool,
) -> None:
    """The opening balance, one line for each movement, the closing balance: what came in and what
    was spent add up, in each token. By job, a line without a job is of a kind of event that belongs
    to none, such as deposits. Bonds and escrows come back when a job ends, unless they are paid or
    burned. What has been archived is in the opening balance, which is told.
    """
    check_id(owner, "owner")
    since_ms, until_ms = window(since, until, now_ms())
    within, opening = _opened(session, owner, since_ms, until_ms)
    if within.archived_ms > (since_ms or 0):
        note(
            f"postings from before {local(within.archived_ms)} may have been archived: what they "
            "came to is in the opening balance"
        )
    lines = Lines(owner, opening, by, lambda at_ms: local(at_ms).partition(" ")[0])
    head = statements.head(owner, since_ms, until_ms, within, opening)
    as_json = session.json and not jsonl
    if as_json:
        write_head(head, "lines")
    listing = Listing(session, _COLUMNS[by], jsonl=jsonl)
    ends_told = not (session.json or jsonl)
    if jsonl:
        listing.add(head)
    elif ends_told:
        listing.add(_end(by, "opening", lines.balance, since_ms))
    for line in _told(session, owner, within, lines):
        listing.add(line)
    closing = {"closing": statements.amounts_document(lines.balance)}
    if jsonl:
        listing.add(closing)
    elif ends_told:
        listing.add(_end(by, "closing", lines.balance, until_ms))
    listing.end()
    if as_json:
        write_tail(closing)


def _told(session: Session, owner: str, within: Span, lines: Lines) -> Iterator[dict[str, Any]]:
    for posting in _postings(session, owner, within):
        line = lines.take(posting)
        if line is not None:
            yield line
    yield from lines.groups()


def _opened(
    session: Session, owner: str, since_ms: int | None, until_ms: int | None
) -> tuple[Span, Amounts]:
    """What a statement spans, and what the owner had at its beginning."""

    def begin(txn: Txn) -> tuple[Span, Span, Amounts]:
        parties.check_known(txn, owner)
        within = past.span(txn, since_ms, until_ms)
        if since_ms is None:
            return within, within, statements.archived(txn, owner)
        return within, past.span(txn, since_ms), statements.has_now(txn, owner)

    within, since_then, opening = session.view(begin)
    if since_ms is not None:
        for posting in _postings(session, owner, since_then):
            opening[posting.token] -= statements.signed(posting, owner)
    return within, opening


def _postings(session: Session, owner: str, within: Span) -> Iterator[Posting]:
    fetch = partial(_page, within=within, owner=owner)
    for page in session.pages(fetch, within.after):
        yield from page


def _page(
    txn: Txn, after: int, size: int, within: Span, owner: str
) -> tuple[list[Posting], int | None]:
    return past.of_wallet(txn, within, owner, after, size)


def _end(by: str | None, word: str, balance: Amounts, at_ms: int | None) -> dict[str, Any]:
    """The line of the opening or the closing balance."""
    first = "event" if by is None else _COLUMNS[by][0]
    return {"at_ms": at_ms, first: word, "balance": statements.amounts_document(balance)}
