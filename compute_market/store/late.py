"""What a transaction writes late: entries of tables that are asked for a key, if at all.

They are kept as they are, records as records, until the end or until somebody asks for their order
(`Table.late`). What is read of tables of which the same few entries are asked for again and again
is kept in mind as well (`Table.kept`).
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from compute_market.store.schema import TABLES, unpack_sum
from compute_market.store.table import Sums, Table

# Entries of one table that wait to be written, at most.
LATE_MAX: Final = 10_000

# Table → its handle; None for one that an older release has not made.
Handles = dict[Table[Any], Any]
# Table → what holds all of its entries in memory (`resident`); None for one that is not held.
InMemory = dict[Table[Any], Any]


class _NotInMemory(dict[Table[Any], None]):
    """That of a store that lasts: tables of older schemas are not in memory either."""

    def __missing__(self, table: Table[Any]) -> None:
        return None


NOT_IN_MEMORY: Final[InMemory] = _NotInMemory.fromkeys(TABLES)


class Cursors(dict[Table[Any], Any]):
    """A cursor by table, which stands anywhere: making one takes longer than what it is made for.

    None for a table that is not there.
    """

    def __init__(self, txn: Any, handles: Handles) -> None:
        super().__init__()
        self._txn = txn
        self._handles = handles

    def __missing__(self, table: Table[Any]) -> Any:
        handle = self._handles[table]
        cursor = self[table] = None if handle is None else self._txn.cursor(handle)
        return cursor


class Late:
    """Entries of one transaction, by table and key: a payload or the record it is encoded from."""

    __slots__ = ("_cursors", "_kept", "_waiting")

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors
        self._waiting: defaultdict[Table[Any], dict[bytes, Any]] = defaultdict(dict)
        # As stored; None where there is no entry.
        self._kept: dict[Table[Any], dict[bytes, Any]] = {}

    def find(self, table: Table[Any], key: bytes) -> Any:
        """Payload or record under a key of any table, whichever is at hand; None for neither."""
        if table.late:
            waiting = self._waiting.get(table)
            if waiting is not None and (found := waiting.get(key)) is not None:
                return found
            if table.kept:
                return self._find_once(table, key)
        cursor = self._cursors[table]
        return None if cursor is None else table.find(cursor, key)

    def waiting(self, table: Table[Any], key: bytes) -> Any:
        """Payload or record that waits to be written under a key; None when there is none."""
        waiting = self._waiting.get(table)
        return None if waiting is None else waiting.get(key)

    def find_alone(self, table: Table[Any], key: bytes, txn: Any, handle: Any) -> Any:
        """The same as `find`, whatever is wrong with what stands beside it: nothing is walked."""
        found = self.waiting(table, key)
        if found is None and handle is not None:
            value = txn.get(key, default=b"", db=handle)
            found = table.opened(key, value) if value else None
        return found

    def _find_once(self, table: Table[Any], key: bytes) -> Any:
        """The same of a kept table, where nothing waits under the key."""
        kept = self._kept.get(table)
        if kept is None:
            kept = self._kept[table] = {}
        elif key in kept:
            return kept[key]
        cursor = self._cursors[table]
        found = kept[key] = None if cursor is None else table.find(cursor, key)
        return found

    def keep(self, table: Table[Any], key: bytes, record: Any) -> None:
        """Keep what a payload that was found has decoded to."""
        if table.kept:
            self._kept[table][key] = record

    def put(self, table: Table[Any], key: bytes, value: Any) -> None:
        """Have an entry of a late table written."""
        waiting = self._waiting[table]
        waiting[key] = value
        if len(waiting) > LATE_MAX:
            self.write(table)

    def forget(self, table: Table[Any], key: bytes) -> bool:
        """Have an entry not written, and know nothing of it; whether there was one."""
        if table.kept and table in self._kept:
            self._kept[table].pop(key, None)
        waiting = self._waiting.get(table)
        return waiting is not None and waiting.pop(key, None) is not None

    def write(self, table: Table[Any]) -> None:
        """Write the entries of a table that wait."""
        waiting = self._waiting.pop(table, None)
        if not waiting:
            return
        if table.kept and table in self._kept:
            self._kept[table].update(waiting)
        table.put_all(self._cursors[table], sorted(waiting), waiting)

    def write_all(self) -> None:
        for table in list(self._waiting):
            self.write(table)

    def clear(self) -> None:
        """Keep nothing in mind that was read."""
        self._kept.clear()

    def drop(self, table: Table[Any]) -> None:
        """Write nothing to a table that was emptied, and keep nothing in mind that was read."""
        self._waiting.pop(table, None)
        self._kept.clear()


class Totals:
    """The sums of all tables as they are by now: each is read when it is asked for first."""

    __slots__ = ("_late", "_residents", "_stored", "by_now")

    def __init__(self, late: Late, residents: InMemory) -> None:
        self._late, self._residents = late, residents
        self._stored: dict[Sums, dict[bytes, int]] = {}
        self.by_now: dict[Sums, dict[bytes, int]] = {}

    def read(self, sums: Sums, key: bytes) -> int:
        """A sum that is not among those of by now, and from now on is."""
        stored = self._stored.setdefault(sums, {})
        total = stored.get(key)
        if total is None:
            held = self._residents[sums.table]
            found = self._late.find(sums.table, key) if held is None else held.entries.get(key)
            total = stored[key] = 0 if found is None else unpack_sum(found)
        self.by_now.setdefault(sums, {})[key] = total
        return total

    def take_changed(self) -> list[tuple[Sums, bytes, int]]:
        """Those that differ from what is stored, which is then what they are."""
        changed = []
        for sums, by_now in self.by_now.items():
            stored = self._stored[sums]
            changed += [(sums, key, total) for key, total in by_now.items() if total != stored[key]]
            stored.update(by_now)
        self.by_now.clear()
        return changed


def with_changed(
    stored: Iterable[tuple[bytes, bytes]], by_now: dict[bytes, int], prefix: bytes
) -> dict[bytes, int]:
    """Sums that are not zero and whose key begins with `prefix`, by key: `by_now` is the newer."""
    if prefix:
        by_now = {key: total for key, total in by_now.items() if key.startswith(prefix)}
    found = {key: unpack_sum(value) for key, value in stored} | by_now if stored else by_now
    return {key: found[key] for key in sorted(found) if found[key]}
