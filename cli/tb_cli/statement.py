"""`wallet statement`: what an owner had, what came and went, what it has then."""

from functools import partial
from typing import Any

from compute_market import parties
from compute_market.records import Posting, check_id
from compute_market.settlement import past, statements
from compute_market.settlement.past import Span
from compute_market.settlement.statements import GROUPINGS, Amounts, Lines
from compute_market.store.txn import Txn
from tb_cli.frame import guard
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.earlier import told_from_when
from tb_cli.frame.listing import lists
from tb_cli.frame.listing import statements as listed
from tb_cli.frame.listing.asked import asked_of
from tb_cli.frame.listing.options import DATED
from tb_cli.frame.listing.reading import Reading
from tb_cli.frame.listing.selecting import window
from tb_cli.frame.render import (
    end_elements,
    note,
    write_element,
    write_head,
    write_jsonl,
    write_tail,
)
from tb_cli.frame.session import Session
from tb_cli.frame.times import local, utc_text
from tb_cli.frame.verbs import argument, examples, option, takes


@takes(
    argument("owner", "OWNER", "Whose wallet.", complete="party"),
    option("--by", "One line per job, day or kind of event.", choices=GROUPINGS),
    DATED,
    listed.FORMS,
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
    by: str | None,
    filters: dict[str, Any],
    form: dict[str, Any],
) -> None:
    """The opening balance, one line for each movement, the closing balance: what came in and what
    was spent add up, in each token. By job, a line without a job is of a kind of event that belongs
    to none, such as deposits. Bonds and escrows come back when a job ends, unless they are paid or
    burned. What has been archived is in the opening balance, which is told; a statement that ends
    before that is an error.
    """
    check_id(owner, "owner")
    utc = form.get("utc", False)
    noun = listed.STATEMENTS[by]
    asked = asked_of(session, noun, form)
    since_ms, until_ms = window(filters, now_ms(), utc=utc)
    within, opening = _opened(session, owner, since_ms, until_ms)
    at = utc_text if utc else local
    if within.archived_ms > (since_ms or 0):
        note(
            f"postings from before {at(within.archived_ms)} may have been archived: what they "
            "came to is in the opening balance"
        )
    lines = Lines(owner, opening, by, lambda at_ms: at(at_ms)[: len("2026-11-28")])
    if asked.output in ("json", "jsonl"):
        head = statements.head(owner, since_ms, until_ms, within, opening)
        _documents(session, head, owner, within, lines, as_lines=asked.output == "jsonl")
        return
    first = "event" if by is None else noun.key
    lists.tell(session, noun, asked, Reading(partial(_page, owner, within, lines, first), None))


def _documents(
    session: Session,
    head: dict[str, Any],
    owner: str,
    within: Span,
    lines: Lines,
    *,
    as_lines: bool,
) -> None:
    """One document, or each of its parts on a line, written as it comes."""
    if as_lines:
        write_jsonl(head)
    else:
        write_head(head, "lines")
    is_first = True
    for page in session.pages(partial(_page, owner, within, lines, None), None):
        for line in page:
            if as_lines:
                write_jsonl(line)
            else:
                write_element(line, first=is_first)
            is_first = False
        guard.stop_if_lost()
    closing = {"closing": statements.amounts_document(lines.balance)}
    if as_lines:
        write_jsonl(closing)
    else:
        end_elements(empty=is_first)
        write_tail(closing)


def _page(
    owner: str,
    within: Span,
    lines: Lines,
    ends_in: str | None,
    txn: Txn,
    after: int | None,
    size: int,
) -> tuple[list[dict[str, Any]], int | None]:
    """A page of lines; with the opening and the closing balance, told in the column `ends_in`."""
    postings, last = past.of_wallet(txn, within, owner, after or 0, size)
    found = []
    if after is None and ends_in is not None:
        found.append(_end(ends_in, "opening", lines.balance))
    found += [line for each in postings if (line := lines.take(each)) is not None]
    if last is None:
        found += lines.groups()
        if ends_in is not None:
            found.append(_end(ends_in, "closing", lines.balance))
    return found, last


def _end(column: str, word: str, balance: Amounts) -> dict[str, Any]:
    return {column: word, "balance_ct": balance["CT"], "balance_it": balance["IT"]}


def _opened(
    session: Session, owner: str, since_ms: int | None, until_ms: int | None
) -> tuple[Span, Amounts]:
    """What a statement spans, and what the owner had at its beginning."""

    def begin(txn: Txn) -> tuple[Span, Span, Amounts]:
        parties.check_known(txn, owner)
        if until_ms is not None:
            # What it closes with would be what there was when postings were archived.
            with told_from_when():
                past.check_kept(txn, until_ms)
        within = past.span(txn, since_ms, until_ms)
        if since_ms is None:
            return within, within, statements.archived(txn, owner)
        return within, past.span(txn, since_ms), statements.has_now(txn, owner)

    within, since_then, opening = session.view(begin)
    if since_ms is not None:
        for page in session.pages(partial(_postings, owner, since_then), 0):
            for posting in page:
                opening[posting.token] -= statements.signed(posting, owner)
    return within, opening


def _postings(
    owner: str, within: Span, txn: Txn, after: int, size: int
) -> tuple[list[Posting], int | None]:
    return past.of_wallet(txn, within, owner, after, size)
