"""Where the records of a list come from: the store, a page at a time, or what is at hand."""

from collections.abc import Callable, Iterable, Iterator
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
    of them at once, where there is a way that does not read all.
    """

    __slots__ = ("fetch", "newest", "start")

    def __init__(
        self,
        fetch: Fetch[Any],
        start: Any = None,
        *,
        newest: "Callable[[Txn, int], list[Any]] | None" = None,
    ) -> None:
        self.fetch = fetch
        self.start = start
        self.newest = newest

    def pages(self, session: Session, look: "Callable[[Txn, Any], Any]") -> Iterator[list[Any]]:
        """What `look` makes of each record, in the transaction that found it."""

        def fetch(txn: "Txn", after: Any, size: int) -> tuple[list[Any], Any]:
            found, last = self.fetch(txn, after, size)
            return [look(txn, each) for each in found], last

        return session.pages(fetch, self.start)

    def made(self, session: Session, records: list[Any], make: Make) -> list[Row]:
        """Rows of records that were kept."""
        return session.view(lambda txn: [make(txn, each) for each in records])


class AtHand:
    """Records that are no market's, or are known already. They are their own JSON form."""

    newest = None

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        self.records = records

    def pages(self, session: Session, look: "Callable[[Any, Any], Any]") -> Iterator[list[Any]]:
        yield [look(None, each) for each in self.records]

    def made(
        self, session: Session, records: list[Any], make: "Callable[[Any, Any], Row]"
    ) -> list[Row]:
        return [make(None, each) for each in records]


Source = Reading | AtHand
