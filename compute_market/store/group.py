"""Several changes in one durable transaction, each in a transaction of LMDB within that.

One that raises leaves nothing of itself, and the others stand.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from msgspec import Struct

from compute_market.store.schema import TABLES
from compute_market.store.store import Store
from compute_market.store.translation import translated
from compute_market.store.txn import Txn

T = TypeVar("T")


class Outcome(Struct, Generic[T], frozen=True):
    """What became of one change of a group: what it returned, or what it raised."""

    returned: T | None = None
    error: BaseException | None = None

    @property
    def result(self) -> T:
        """What it returned. Raises what it raised."""
        if self.error is not None:
            raise self.error
        return cast(T, self.returned)


def attempt(store: Store, outer: Txn, change: Callable[[Txn], T]) -> Outcome[T]:
    """Run one change of the group whose transaction is `outer`, which nothing else uses."""
    handles = outer._handles
    if len(handles) < len(TABLES):
        # Those that a transaction within opens are lost when it is rolled back.
        handles = {table: handles[table] for table in TABLES}
    outer.flush()  # What was brought up to date.
    returned: T | None = None
    within = _Within(store._env.begin(write=True, parent=outer._txn))
    with within, translated(store.path):
        txn = Txn(within.txn, handles, outer.now_ms, outer.config, outer.stopwatch)
        returned = change(txn)
        txn.flush()
        within.txn.commit()
    return Outcome(returned) if within.error is None else Outcome(None, within.error)


class _Within:
    """A transaction within another. It keeps errors to itself; a signal ends the outer one too."""

    def __init__(self, txn: Any) -> None:
        self.txn = txn
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.txn.abort()  # Nothing, once it was committed.
        if not isinstance(error, Exception):
            return False
        self.error = error
        return True
