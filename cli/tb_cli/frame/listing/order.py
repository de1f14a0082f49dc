"""The order of a list, and which records of it stay under a limit."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest, nsmallest
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from tb_cli.frame.listing.asked import Asked
from tb_cli.frame.listing.columns import Make, Noun, Row, value_of
from tb_cli.frame.paging import PAGE

if TYPE_CHECKING:
    from compute_market.store.txn import Txn

# Pages of records as a noun comes, each looked at in a transaction of its own by the function that
# is handed in.
Looked = Iterable[list[Any]]
# The rows of records that were kept.
Made = Callable[[list[Any], Make], list[Row]]
Pages = Callable[["Callable[[Txn, Any], Any]"], Looked]


def streamed(pages: Pages, make: Make) -> Iterator[list[Row]]:
    """All rows, a page at a time, as they come."""
    yield from pages(make)


def first(limit: int, pages: Looked) -> Iterator[list[Row]]:
    """The first rows of a noun that comes in the order of its ranks."""
    if not limit:
        return
    for page in pages:
        yield page[:limit]
        limit -= len(page)
        if limit <= 0:
            return


def newest(noun: Noun, limit: int, pages: Pages, make: Make, made: Made) -> Iterator[list[Row]]:
    """The rows of the newest records, in the order in which the noun comes."""
    if not limit:
        return
    age = noun.age
    if age is None:  # They come the oldest first.
        kept: list[Any] = [record for page in _tails(pages(_record), limit) for record in page]
    else:
        number = count()
        aged = ((age(each), next(number), each) for page in pages(_record) for each in page)
        kept = [each for _, _, each in sorted(nlargest(limit, aged), key=itemgetter(1))]
    yield from _made(kept[-limit:], make, made)


def sorted_(noun: Noun, asked: Asked, pages: Pages, make: Make, made: Made) -> Iterator[list[Row]]:
    """The rows in the order of a column, at most as many as asked for.

    Those that have nothing in it come last, and those that have the same in it come in the order of
    the list, with the greatest first in that of its end. With a limit no more than that is kept in
    memory.
    """
    column = asked.sort
    assert column is not None
    value, limit, down = value_of(noun, column), asked.limit, asked.descending

    number = count()

    def keyed(txn: "Txn", record: Any) -> tuple[Any, Any]:
        kept = make(txn, record) if limit is None else record
        return (column.key(value(txn, record)), next(number)), kept

    found = (each for page in pages(keyed) for each in page)
    if limit is None:
        rows = sorted(found, key=itemgetter(0), reverse=True) if down else _upwards(list(found))
        yield from (
            [row for _, row in rows[start : start + PAGE]] for start in range(0, len(rows), PAGE)
        )
    else:
        kept = nlargest(limit, found, key=itemgetter(0)) if down else _least(limit, found)
        yield from _made([record for _, record in kept], make, made)


def _upwards(found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return sorted(found, key=_nothing_last)


def _least(limit: int, found: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return nsmallest(limit, found, key=_nothing_last)


def _nothing_last(keyed: tuple[Any, Any]) -> tuple[bool, Any, int]:
    ((is_there, key), number), _ = keyed
    return not is_there, key, number


def _tails(pages: Looked, limit: int) -> Iterable[list[Any]]:
    """The last pages, which hold the last so many records."""
    kept: deque[list[Any]] = deque()
    held = 0
    for page in pages:
        kept.append(page)
        held += len(page)
        while held - len(kept[0]) >= limit:
            held -= len(kept.popleft())
    return kept


def _made(records: list[Any], make: Make, made: Made) -> Iterator[list[Row]]:
    for start in range(0, len(records), PAGE):
        yield made(records[start : start + PAGE], make)


def _record(txn: "Txn", record: Any) -> Any:
    return record
