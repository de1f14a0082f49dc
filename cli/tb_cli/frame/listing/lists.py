"""A list from its records to what is told: once, or again and again."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from compute_market.errors import NotFoundError, UsageError
from tb_cli.frame import guard
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.listing import order, terminal
from tb_cli.frame.listing.asked import Asked, asked_of
from tb_cli.frame.listing.columns import Make, Noun, Row, documents_of, rows_of
from tb_cli.frame.listing.outputs import lines_or_documents
from tb_cli.frame.listing.reading import Source
from tb_cli.frame.session import Session

if TYPE_CHECKING:
    from compute_market.store.txn import Txn

_POLL_S = 0.5


def show(session: Session, noun: Noun, given: Mapping[str, Any], reading: Source) -> None:
    """List records as the options say that every list has.

    Raises UsageError for options that do not fit the noun or each other, and NotFoundError for a
    list that is empty and must not be.
    """
    tell(session, noun, asked_of(session, noun, given), reading)


def tell(session: Session, noun: Noun, asked: Asked, reading: Source) -> None:
    """The same, once it is known what is asked for."""
    if asked.watch_s is None:
        if not _look(session, noun, asked, reading) and asked.fail_empty:
            raise NotFoundError(f"there are no {noun.plural} to list", reason="empty")
        return
    from tb_cli.frame.listing.watch import Screen
    from tb_cli.frame.looks import looks

    screen = Screen(asked.watch_s) if asked.output == "table" and terminal.is_capable() else None
    for _ in looks(session, asked.watch_s):
        if screen is None:
            _look(session, noun, asked, reading)
        else:
            pages = screen.pages(_pages(session, noun, asked, reading))
            _told(session, noun, asked, pages, screen.take)
            screen.draw()
        sys.stdout.flush()
        guard.stop_if_lost()


def follow(
    session: Session,
    noun: Noun,
    given: Mapping[str, Any],
    reading: Source,
    newer: "Callable[[Txn], list[Any]]",
    goes_on: Callable[[], bool],
) -> None:
    """List records, and then those that come, for as long as it goes on.

    Raises UsageError for options that ask for a list that ends.
    """
    from tb_cli.frame.looks import looks

    asked = asked_of(session, noun, given)
    for name in ("sort", "watch", "fail_empty"):
        if given.get(name):
            raise UsageError(f"--{name.replace('_', '-')} is for a list that ends, not --follow")
    if asked.output == "json":
        asked_by = "-o json" if "output" in given else "--json"
        raise UsageError(
            f"{asked_by} is for a list that ends, not --follow",
            hint=f"--jsonl prints each of the {noun.plural} on a line of its own",
        )
    make = _make(noun, asked)
    output = _output(session, asked, sys.stdout.write)
    for page in _pages(session, noun, asked, reading):
        output.rows(page)
    moments = looks(session, _POLL_S)
    next(moments)  # That was the first look.
    while goes_on():
        if asked.output == "table":
            output.begin()
        sys.stdout.flush()
        guard.stop_if_lost()
        next(moments)
        output.rows(session.view(lambda txn: [make(txn, each) for each in newer(txn)]))
    output.end()


def _look(session: Session, noun: Noun, asked: Asked, reading: Source) -> int:
    """Tell the list as it is now, and return how many there are."""
    pages = _pages(session, noun, asked, reading)
    return _told(session, noun, asked, pages, sys.stdout.write)


def _told(
    session: Session,
    noun: Noun,
    asked: Asked,
    pages: Iterable[list[Row]],
    write: Callable[[str], object],
) -> int:
    output = _output(session, asked, write)
    told = 0
    for page in pages:
        told += len(page)
        output.rows(page)
        guard.stop_if_lost()
    output.end()
    if not told and asked.output == "table" and terminal.is_one():
        write(f"no {noun.plural}\n")
    return told


def _output(session: Session, asked: Asked, write: Callable[[str], object]) -> Any:
    """What tells rows: one of `outputs`, or a table, which `write` gets in lines."""
    if asked.output != "table":
        return lines_or_documents(asked)
    from tb_cli.frame.listing.table import Table

    return Table(
        asked.columns,
        write,
        now_ms=now_ms(),
        width=terminal.size()[0] if terminal.is_one() else None,
        color=session.color and terminal.is_capable(),
        utc=asked.utc,
    )


def _pages(session: Session, noun: Noun, asked: Asked, reading: Source) -> Iterator[list[Row]]:
    make = _make(noun, asked)
    pages = partial(reading.pages, session)
    made = partial(reading.made, session)
    if asked.sort is not None:
        ordered = reading.in_order(asked.sort.name, asked.limit, descending=asked.descending)
        if ordered is not None:
            return order.streamed(partial(ordered.pages, session), make)
        return order.sorted_(noun, asked, pages, make, made)
    limit, newest = asked.limit, reading.newest
    if limit is None:
        return order.streamed(pages, make)
    if noun.ranked:
        return order.first(limit, pages(make))
    if newest is None:
        return order.newest(noun, limit, pages, make, made)
    return iter([session.view(lambda txn: [make(txn, each) for each in newest(txn, limit)])])


def _make(noun: Noun, asked: Asked) -> Make:
    """What is told of a record."""
    if asked.whole:
        return noun.document
    if asked.output in ("json", "jsonl"):
        return documents_of(noun, asked.columns)
    return rows_of(noun, asked.columns)
