"""Reading past damage: for who shows a market, and shows the rest of it where a record is damaged.

Keys are walked without a look at their values, and what is made of one record is made by itself.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from compute_market.errors import IntegrityError
from compute_market.store.table import Table
from compute_market.store.txn import Txn

T = TypeVar("T")


def keys(txn: Txn, table: Table[Any], after: bytes | None = None) -> Iterator[bytes]:
    """The keys of a table in their order, those behind `after` if given."""
    handle = txn._whole(table)
    if handle is not None:
        with txn._txn.cursor(db=handle) as cursor:
            if cursor.first() if after is None else cursor.set_range(after + b"\0"):
                yield from cursor.iternext(keys=True, values=False)


def keys_back(txn: Txn, table: Table[Any], before: bytes | None = None) -> Iterator[bytes]:
    """The keys of a table, last first, those below `before` if given."""
    handle = txn._whole(table)
    if handle is not None:
        with txn._txn.cursor(db=handle) as cursor:
            is_behind = before is None or not cursor.set_range(before)
            if cursor.last() if is_behind else cursor.prev():
                yield from cursor.iterprev(keys=True, values=False)


def part(make: Callable[[], T]) -> T | None:
    """A part of what is shown; None where anything that it is made of is damaged."""
    try:
        return make()
    except IntegrityError:
        return None


def row(named: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row of a listing. Of a record that is damaged what names it, and `damaged`."""
    try:
        return make()
    except IntegrityError:
        return named | {"damaged": True}
