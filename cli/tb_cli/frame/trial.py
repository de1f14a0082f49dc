"""An empty market to try on, for a verb that may come to make one: what is refused makes none."""

import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from compute_market.engine import Engine
    from compute_market.store.txn import Txn

T = TypeVar("T")


def throw_away() -> "tempfile.TemporaryDirectory[str]":
    """A directory for a market of which nothing is to stay."""
    return tempfile.TemporaryDirectory(prefix="tb-dry-run-")


class Trial:
    """The market, made by `opened` in a directory that is thrown away at the `end`."""

    def __init__(self, opened: "Callable[[str], Engine]") -> None:
        self._directory = throw_away()
        self.market = opened(self._directory.name)

    def attempt(self, fn: "Callable[[Txn], T]") -> tuple[T, bool]:
        """What an action comes to, and whether it has anything to write. It is rolled back."""

        def action(txn: "Txn") -> tuple[T, bool]:
            writes = txn.writes
            return fn(txn), txn.writes > writes

        return self.market.update(action, dry_run=True)

    def end(self) -> None:
        self.market.close()
        self._directory.cleanup()
