"""A transaction as the rooms of the library see it: records, bytes, numbers and sums by table."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from compute_market.config.settings import Config
from compute_market.records import Event
from compute_market.store.late import NOT_IN_MEMORY, Cursors, Handles, Late, Totals, with_changed
from compute_market.store.schema import META, pack_number, pack_sum, unpack_u64
from compute_market.store.table import Sums, Table, damaged, encode

if TYPE_CHECKING:
    from compute_market.price_records import Board
    from compute_market.store.resident import Residents

R = TypeVar("R")
S = TypeVar("S", bound=Struct)


class Txn:
    """One transaction at one instant, under the settings in force.

    `now_ms` is the only time an action knows, and `timely` whether what time alone causes may
    happen (`clock` says when not). `config` is the only settings. `stopwatch` returns nanoseconds
    of a monotonic clock for latency histograms, or is None when nothing is to be measured. `writes`
    grows with every change, so that a caller can tell whether one that failed had written.

    What it reads of a few tables it keeps in mind, what it writes to many it keeps as records until
    the end (`late`), numbers and sums too (`flush`). Events become an entry of the log (`events`),
    and offers of the owners in `touched` change their shelf where a wallet crossed their bond
    (`offers.standing`). What may let a job in that waits sets `helped`: units, money, standing or
    capacity that came to somebody. What only changes which offer is the best sets `stirred`.

    `board` is the price board, None where nobody has loaded it, and `priced_after` the seq of the
    last price before its first one, None where it has matched nothing. `firsts` is for `book`.
    """

    __slots__ = (
        *("_before", "_cursors", "_handles", "_late", "_numbers", "_residents", "_set", "_sums"),
        *("_totals", "_txn"),
        *("bands", "board", "config", "firsts", "helped", "issued", "noted", "noted_after", "now"),
        *("now_ms", "pool", "priced_after", "stirred", "stopwatch", "timely", "touched", "writes"),
    )

    def __init__(
        self,
        txn: Any,  # The stubs of lmdb allow for its `buffers` mode, which is never used here.
        handles: Handles,
        now_ms: int,
        config: Config,
        stopwatch: Callable[[], int] | None,
        residents: "Residents | None" = None,
    ) -> None:
        self._txn, self._handles = txn, handles
        self._residents: Residents = NOT_IN_MEMORY if residents is None else residents
        self._cursors = Cursors(txn, handles)  # for what is done at once
        self._late = Late(self._cursors)
        self._numbers: dict[str, int] = {}  # as they are by now, those that were asked for
        self._set: dict[str, None] = {}  # the names of those that are to be written
        self._totals = Totals(self._late, self._residents)
        self._sums = self._totals.by_now
        # What walks through the index of offers came to first, since it was changed last.
        self.firsts: dict[tuple[Any, ...], tuple[bytes, bytes] | None] = {}
        self.begin(now_ms, config, stopwatch)

    def begin(self, now_ms: int, config: Config, stopwatch: Callable[[], int] | None) -> None:
        """Begin the next change: it sees what those before it in the same transaction have done."""
        self._before: dict[str, int] = {}  # some numbers as they were when the change began
        self.now_ms, self.now = now_ms, now_ms // 1000  # in unix seconds
        self.timely = True
        self.config, self.stopwatch = config, stopwatch
        self.writes = self.issued = 0  # issued are receipts
        self.noted: list[Event] = []
        self.noted_after: int | None = None  # seq of the last event that is stored
        # Owner → the least and the most CT in the wallet since it was asked last.
        self.touched: dict[str, list[int]] = {}
        self.helped = self.stirred = False
        self.board: Board | None = None
        # The seq of the last price, and the bands of those lanes that were asked for at it.
        self.bands: tuple[int, dict[str, Any]] | None = None
        self.priced_after: int | None = None
        self.pool: tuple[int, Any] | None = None  # a height, and the consumer pool at it

    # Bytes.

    def get(self, table: Table[Any], key: bytes) -> bytes | None:
        """The value under a key, or None. Raises IntegrityError when it is damaged."""
        held = self._residents[table]
        found = self._late.find(table, key) if held is None else held.entries.get(key)
        return found if found is None or type(found) is bytes else encode(found)

    def stored(self, table: Table[Any], key: bytes) -> bytes:
        """The bytes under a key as they are stored, damaged or not; empty when there are none."""
        held = self._residents[table]
        found = self._late.waiting(table, key) if held is None else held.entries.get(key)
        if found is not None:
            return table.sealed(key, found if type(found) is bytes else encode(found))
        handle = self._handles[table] if held is None else None
        return b"" if handle is None else self._txn.get(key, default=b"", db=handle)

    def put(self, table: Table[Any], key: bytes, value: bytes = b"") -> None:
        self.writes += 1
        held = self._residents[table]
        if held is None:
            if table.late:
                self._late.put(table, key, value)
            else:
                self._cursors[table].put(key, table.sealed(key, value))
        elif held.keys is None:
            held.entries[key] = value
        else:
            held.put(key, value)

    def delete(self, table: Table[Any], key: bytes) -> bool:
        self.writes += 1
        held = self._residents[table]
        if held is not None:
            return held.delete(key)
        deleted: bool = self._txn.delete(key, b"", self._handles[table])
        if table.late:
            deleted = self._late.forget(table, key) or deleted
        return deleted

    def remove(self, table: Table[Any], key: bytes) -> None:
        """Delete an entry that must be there. Raises IntegrityError when it is missing."""
        self.writes += 1
        held = self._residents[table]
        if held is not None and held.keys is None:
            removed = held.entries.pop(key, None) is not None
        else:
            removed = self.delete(table, key) if held is None else held.delete(key)
        if not removed:
            raise damaged(table, key, "it is missing")

    def size(self, table: Table[Any]) -> int:
        """Number of entries, read from the table's root: no walk."""
        held = self._residents[table]
        if held is not None:
            return len(held.entries)
        handle = self._whole(table)
        return 0 if handle is None else int(self._txn.stat(handle)["entries"])

    def is_empty(self, table: Table[Any]) -> bool:
        """Whether there is no entry: takes a fraction of what `size` does."""
        held = self._residents[table]
        if held is not None:
            return not held.entries
        cursor = self._ordered(table)
        return cursor is None or not cursor.first()

    def scan(
        self, table: Table[Any], prefix: bytes = b"", start: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key begins with `prefix`, in key order, from `start` on.

        The caller must not change the table while it holds the iterator; see `collect`.
        """
        held = self._residents[table]
        if held is not None:
            return held.scan(prefix, start or prefix)
        if prefix or start:
            return self._walked(table, lambda cursor: table.part(cursor, prefix, start or prefix))
        return self._walked(table, lambda cursor: table.whole(cursor, lambda: self.size(table)))

    def scan_back(
        self, table: Table[Any], before: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """All entries, last key first; only those whose key is below `before`, if given."""
        held = self._residents[table]
        if held is not None:
            return held.scan_back(before)
        return self._walked(table, lambda cursor: table.back(cursor, before))

    def first(
        self, table: Table[Any], prefix: bytes = b"", start: bytes | None = None
    ) -> tuple[bytes, bytes] | None:
        """The first entry of `scan`, or None."""
        held = self._residents[table]
        if held is not None:
            return held.first(prefix, start or prefix)
        cursor = self._ordered(table)
        return None if cursor is None else table.first(cursor, prefix, start or prefix)

    def first_key(self, table: Table[Any]) -> bytes | None:
        """The first key of all, or None."""
        held = self._residents[table]
        if held is not None:
            return held.first_key()
        found = self.first(table)
        return None if found is None else found[0]

    def collect(
        self, table: Table[Any], limit: int, prefix: bytes = b"", start: bytes | None = None
    ) -> list[tuple[bytes, bytes]]:
        """At most `limit` entries of `scan`, free to be changed by the caller."""
        held = self._residents[table]
        if held is not None:
            return held.collect(limit, prefix, start or prefix)
        cursor = self._ordered(table)
        if cursor is None or not limit or not cursor.set_range(start or prefix):
            return []
        return table.taken(cursor, prefix, limit)

    # Records.

    def read(self, table: Table[R], key: bytes) -> R | None:
        """The record under a key, or None. Raises IntegrityError when it is damaged."""
        held = self._residents[table]
        found: Any = self._late.find(table, key) if held is None else held.entries.get(key)
        if type(found) is bytes:
            found = table.decode(key, found)
            if held is None:
                self._late.keep(table, key, found)
            else:
                held.entries[key] = found
        record: R | None = found
        return record

    def read_alone(self, table: Table[R], key: bytes) -> R | None:
        """The same, whatever is wrong with what stands beside it."""
        if self._residents[table] is not None:
            return self.read(table, key)  # No disk has it.
        found = self._late.find_alone(table, key, self._txn, self._handles[table])
        record: R | None = table.decode(key, found) if type(found) is bytes else found
        return record

    def must_read(self, table: Table[R], key: bytes) -> R:
        """The record under a key that another record names. Raises IntegrityError without it."""
        record = self.read(table, key)
        if record is None:
            raise damaged(table, key, "it is missing")
        return record

    def must_read_each(self, table: Table[R], keys: list[bytes]) -> Iterator[R]:
        """The same of many keys, in their order. What is wrong with one is told once it is reached:
        who stops before it has not met it."""
        found: list[tuple[bytes, bytes]] = []
        if self._residents[table] is None and (cursor := self._ordered(table)) is not None:
            found = cursor.getmulti(keys)
        if len(found) != len(keys):
            yield from (self.must_read(table, key) for key in keys)
            return
        for key, value in found:
            yield table.decode(key, table.opened(key, value))

    def write(self, table: Table[S], key: bytes, record: S) -> None:
        self.writes += 1
        held = self._residents[table]
        if held is None:
            if table.late:
                self._late.put(table, key, record)
            else:
                self._cursors[table].put(key, table.sealed(key, encode(record)))
        elif held.keys is None:
            held.entries[key] = record
        else:
            held.put(key, record)

    def records(
        self, table: Table[R], prefix: bytes = b"", start: bytes | None = None
    ) -> Iterator[R]:
        """Decoded values of `scan`."""
        for key, payload in self.scan(table, prefix, start):
            yield table.decode(key, payload)

    def page(
        self, table: Table[R], after: bytes | None, limit: int, prefix: bytes = b""
    ) -> tuple[list[tuple[bytes, R]], bytes | None]:
        """At most `limit` keys and records from behind the key `after` on, and the last key.

        The key is None when the table ends: a listing of any length runs in short transactions.
        """
        start = prefix if after is None else after + b"\0"
        held = self._residents[table]
        if held is not None:
            found = held.records(table, limit, prefix, start)
        else:
            entries = self.collect(table, limit, prefix, start)
            found = [(key, table.decode(key, payload)) for key, payload in entries]
        return found, found[-1][0] if len(found) == limit else None

    # Numbers and sums. Both are kept aside and written once, at the end.

    def number(self, name: str) -> int:
        """A small named integer of the `meta` table, 0 when it was never set."""
        try:
            return self._numbers[name]
        except KeyError:
            number = self._numbers[name] = unpack_u64(self.get(META, name.encode()) or b"")
            return number

    def number_before(self, name: str) -> int:
        """The same as it was when the change began, where it is set with `advance_number`."""
        return self._before[name] if name in self._before else self.number(name)

    def set_number(self, name: str, number: int) -> None:
        self.writes += 1
        self._numbers[name] = number
        self._set[name] = None

    def advance_number(self, name: str, before: int, number: int) -> None:
        """The same, of a number of which it is asked what it was before."""
        self.writes += 1
        self._before.setdefault(name, before)
        self._numbers[name] = number
        self._set[name] = None

    def next_number(self, name: str) -> int:
        """Increment a named sequence and return it: 1, 2, 3, …"""
        self.set_number(name, number := self.number(name) + 1)
        return number

    def add(self, sums: Sums, key: bytes, by: int) -> int:
        """Add to one sum and return it."""
        self.writes += 1
        try:
            by_now = self._sums[sums]
            total = by_now[key] = by_now[key] + by
        except KeyError:
            total = self._sums[sums][key] = self._totals.read(sums, key) + by
        return total

    def sum(self, sums: Sums, key: bytes) -> int:
        try:
            return self._sums[sums][key]
        except KeyError:
            return self._totals.read(sums, key)

    def sums(self, sums: Sums, prefix: bytes = b"") -> dict[bytes, int]:
        """All sums that are not zero and whose key begins with `prefix`, by key."""
        stored: Iterable[tuple[bytes, bytes]]
        held = self._residents[sums.table]
        if held is not None and not prefix:
            stored = held.entries.items()
        else:
            stored = () if self.is_empty(sums.table) else self.scan(sums.table, prefix)
        by_now = self._sums.get(sums, {})
        return with_changed(stored, by_now, prefix) if by_now or stored else {}

    def flush(self) -> None:
        """Write what was kept aside. The end of a transaction calls this last."""
        for name in self._set:
            self.put(META, name.encode(), pack_number(self._numbers[name]))
        for sums, key, total in self._totals.take_changed():
            if total:
                self.put(sums.table, key, pack_sum(total))
            else:
                self.delete(sums.table, key)
        self._set.clear()
        self._before.clear()
        self._late.write_all()

    def beside(self, table: Table[Any], key: bytes) -> tuple[bytes | None, bytes | None]:
        """The last key below a key, and the first that is not; None where there is none."""
        held = self._residents[table]
        return table.beside(self._ordered(table), key) if held is None else held.beside(key)

    def clear(self, table: Table[Any]) -> None:
        """Remove every entry of a table."""
        held = self._residents[table]
        if held is None:
            self._forget(table)
            self._txn.drop(self._handles[table], delete=False)
        else:
            held.clear()

    def _walked(self, table: Table[Any], walk: Callable[[Any], Iterator[R]]) -> Iterator[R]:
        """What a walk finds with a cursor of its own, made when it is first asked."""
        if (handle := self._whole(table)) is not None:
            with self._txn.cursor(db=handle) as cursor:
                yield from walk(cursor)

    def _whole(self, table: Table[Any]) -> Any:
        """The handle of a table in which all stands that was written."""
        held = self._residents[table]
        if held is not None:
            from compute_market.store import resident

            resident.evict(self._residents, table, held, self._cursors)
        if table.late:
            self._late.write(table)
        return self._handles[table]

    def _ordered(self, table: Table[Any]) -> Any:
        """The cursor of such a table."""
        if table.late:
            self._late.write(table)
        return self._cursors[table]

    def _forget(self, table: Table[Any]) -> None:
        self._cursors.pop(table, None)
        self._late.drop(table)
        for name in self._numbers.keys() - self._set.keys() if table is META else ():
            del self._numbers[name]
