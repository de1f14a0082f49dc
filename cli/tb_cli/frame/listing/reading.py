"""Where the records of a list come from: the store, a page at a time, or what is at hand."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tb_cli.frame.listing.columns import Make, Row
from tb_cli.frame.session import Session

if TYPE_CHECKING:
    from compute_market.store.txn import Txn

K = TypeVar("K")
Fetch = Callable[["Txn", K, int], tuple[list[Any], K | None]]


class Reading:
    """How the records of a list are read, the oldest first where the noun has no other order.

    `fetch` finds a page behind a key, as `Session.pages` calls it. `newest` finds the last so many
    of them at once, where there is a way that does not read all. `orders` has the columns in whose
    order the store can be read, from the least on or, where that is asked for, from the greatest.
    """

    __slots__ = ("fetch", "newest", "orders", "start")

    def __init__(
        self,
        fetch: Fetch[Any],
        start: Any = None,
        *,
        newest: "Callable[[Txn, int], list[Any]] | None" = None,
        orders: Mapping[str, Callable[[bool], Fetch[Any]]] | None = None,
    ) -> None:
        self.fetch = fetch
        self.start = start
        self.newest = newest
        self.orders = orders or {}

    def pages(self, session: Session, look: "Callable[[Txn, Any], Any]") -> Iterator[list[Any]]:
        """What `look` makes of each record, in the transaction that found it."""

        def fetch(txn: "Txn", after: Any, size: int) -> tuple[list[Any], Any]:
            found, last = self.fetch(txn, after, size)
            return [look(txn, each) for each in found], last

        return session.pages(fetch, self.start)

    def in_order(self, column: str, limit: int | None, *, descending: bool) -> "Reading | None":
        """The same in the order of a column, at most so many; None where all must be sorted."""
        order = self.orders.get(column)
        if order is None:
            return None
        fetch = order(descending)
        return Reading(fetch) if limit is None else Reading(_up_to(fetch), (None, limit))

    def made(self, session: Session, records: list[Any], make: Make) -> list[Row]:
        """Rows of records that were kept."""
        return session.view(lambda txn: [make(txn, each) for each in records])


class AtHand:
    """Records that are no market's, or are known already. They are their own JSON form."""

    newest = None

    def in_order(self, column: str, limit: int | None, *, descending: bool) -> None:
        return None

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        self.records = records

    def pages(self, session: Session, look: "Callable[[Any, Any], Any]") -> Iterator[list[Any]]:
        yield [look(None, each) for each in self.records]

    def made(
        self, session: Session, records: list[Any], make: "Callable[[Any, Any], Row]"
    ) -> list[Row]:
        return [make(None, each) for each in records]


def _up_to(fetch: Fetch[Any]) -> Fetch[tuple[Any, int]]:
    """What ends after so many records, and reads no more than those."""

    def limited(
        txn: "Txn", after: tuple[Any, int], size: int
    ) -> tuple[list[Any], tuple[Any, int] | None]:
        key, left = after
        if left <= 0:
            return [], None
        found, key = fetch(txn, key, min(size, left))
        left -= len(found)
        return found, None if key is None or left <= 0 else (key, left)

    return limited


Source = Reading | AtHand
