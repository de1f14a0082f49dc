"""What a law of the market is: a check, and the tables it cannot do without."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from compute_market.store.table import Table
from compute_market.store.txn import Txn


class Violation(Struct, frozen=True, gc=False):
    """One law of the market that is broken, and where."""

    table: str
    key: str
    law: str
    detail: str

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {self.law}: {self.detail}"


class Law(Struct, frozen=True, gc=False):
    """One check of the audit. It is left out when a record of a table it needs is damaged."""

    check: Callable[[Txn], Iterator[Violation]]
    needs: tuple[Table[Any], ...]


def same_size(
    txn: Txn, table: Table[Any], expected: int, law: str, what: str = "entries"
) -> Iterator[Violation]:
    """The law that a table has so many entries and no more."""
    if txn.size(table) != expected:
        detail = f"{txn.size(table)} {what}, {expected} expected"
        yield Violation(table.name, "*", law, detail)
