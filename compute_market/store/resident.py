"""Tables that a store keeps in memory: those of a market that nobody needs afterwards.

A search in memory takes a fraction of what LMDB takes for one, nothing is encoded before it has to
be written, and no checksum guards what no disk has. Whatever becomes too long goes to LMDB for good
(`RESIDENT_MAX`), so that memory has a bound.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from compute_market.store.late import Cursors
from compute_market.store.table import Table, encode

R = TypeVar("R")

# Entries of a table that are kept in memory, at most.
RESIDENT_MAX: Final = 10_000
# Changes in a row that nobody asked for the order after: that many are followed one by one, and one
# for each so many keys.
_UNASKED_MAX: Final = 64
# Behind all that follows a prefix: no key is as long.
_BEHIND: Final = b"\xff" * 512


class Resident:
    """The entries of one table: payloads, or the records they are of.

    Their order is known from when somebody asks for it until many entries in a row have come and
    gone unasked: to keep a long list in order takes longer than to make it anew then.
    """

    __slots__ = ("_unasked", "entries", "has_records", "keys", "written")

    def __init__(self, *, has_records: bool) -> None:
        self.has_records = has_records
        self.entries: dict[bytes, Any] = {}
        self.written: dict[bytes, Any] = {}  # what LMDB has of it
        self.keys: list[bytes] | None = None  # in order; None while nobody asks for that
        self._unasked = 0  # keys that came or went since somebody asked for the order

    def put(self, key: bytes, value: Any) -> None:
        keys = self.keys
        if keys is not None and key not in self.entries:
            if not keys or keys[-1] < key:
                keys.append(key)
            elif self._is_worth_it(keys):
                insort(keys, key)
        self.entries[key] = value

    def delete(self, key: bytes) -> bool:
        if self.entries.pop(key, None) is None:
            return False
        keys = self.keys
        if keys is not None and self._is_worth_it(keys):
            del keys[bisect_left(keys, key)]
        return True

    def delete_each(self, keys: list[bytes]) -> list[bytes]:
        """Delete many, and forget the order; returns those that are missing."""
        self.keys = None
        pop = self.entries.pop
        return [key for key in keys if pop(key, None) is None]

    def _is_worth_it(self, keys: list[bytes]) -> bool:
        """Whether to keep the keys in order through one more change; else they are forgotten."""
        self._unasked += 1
        if self._unasked <= _UNASKED_MAX or self._unasked * _UNASKED_MAX <= len(keys):
            return True
        self.keys = None
        return False

    def clear(self) -> None:
        self.entries.clear()
        self.keys = None

    def first(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        keys = self.keys or self._in_order()
        self._unasked = 0
        at = bisect_left(keys, start) if start else 0
        if at == len(keys):
            return None
        key = keys[at]
        if prefix and not key.startswith(prefix):
            return None
        found = self.entries[key]
        return key, found if type(found) is bytes else encode(found)

    def first_key(self) -> bytes | None:
        keys = self.keys or self._in_order()
        self._unasked = 0
        return keys[0] if keys else None

    def collect(self, limit: int, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
        chosen, entries = self._chosen(limit, prefix, start), self.entries
        if self.has_records:
            return [(key, self._bytes(key)) for key in chosen]
        return [(key, entries[key]) for key in chosen]

    def records(
        self, table: Table[R], limit: int, prefix: bytes, start: bytes
    ) -> list[tuple[bytes, R]]:
        """The same, decoded."""
        entries = self.entries
        chosen = self._chosen(limit, prefix, start)
        for key in chosen:
            if type(entries[key]) is bytes:
                entries[key] = table.decode(key, entries[key])
        return [(key, entries[key]) for key in chosen]

    def _chosen(self, limit: int, prefix: bytes, start: bytes) -> list[bytes]:
        keys = self.keys or self._in_order()
        self._unasked = 0
        begin = bisect_left(keys, start) if start else 0
        end = begin + limit
        if prefix:
            end = min(end, bisect_left(keys, prefix + _BEHIND, begin))
        return keys[begin:end]

    def scan(self, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = self.keys or self._in_order()
        at = bisect_left(keys, start)
        while at < len(keys) and (key := keys[at]).startswith(prefix):
            yield key, self._bytes(key)
            at += 1

    def scan_back(self, before: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        keys = self.keys or self._in_order()
        for at in range((len(keys) if before is None else bisect_left(keys, before)) - 1, -1, -1):
            yield keys[at], self._bytes(keys[at])

    def beside(self, key: bytes) -> tuple[bytes | None, bytes | None]:
        keys = self.keys or self._in_order()
        self._unasked = 0
        at = bisect_left(keys, key)
        return keys[at - 1] if at else None, keys[at] if at < len(keys) else None

    def _in_order(self) -> list[bytes]:
        if self.keys is None:
            self.keys = sorted(self.entries)
            self._unasked = 0
        return self.keys

    def _bytes(self, key: bytes) -> bytes:
        found = self.entries[key]
        return found if type(found) is bytes else encode(found)


# The tables that are kept in memory; None for every other.
Residents = dict[Table[Any], Resident | None]


def loaded(table: Table[Any], cursor: Any) -> Resident:
    """A table as LMDB has it."""
    found = Resident(has_records=table.has_records)
    for key, value in cursor.iternext():
        found.entries[key] = table.opened(key, value)
    found.written = found.entries.copy()
    return found


def write_all(residents: Residents, cursors: Cursors) -> None:
    """Write what has changed since it was written last."""
    for table, held in residents.items():
        if held is not None and (held.written or held.entries):
            _write(table, held, cursors[table])
            held.written = held.entries.copy()


def shorten(residents: Residents, cursors: Cursors) -> None:
    """Keep no longer what has become too long."""
    for table, held in residents.items():
        if held is not None and len(held.entries) > RESIDENT_MAX:
            evict(residents, table, held, cursors)


def evict(residents: Residents, table: Table[Any], held: Resident, cursors: Cursors) -> None:
    """Let a table be found in LMDB from now on."""
    _write(table, held, cursors[table])
    residents[table] = None


def _write(table: Table[Any], held: Resident, cursor: Any) -> None:
    entries, written = held.entries, held.written
    for key in written.keys() - entries.keys():
        if cursor.set_key(key):
            cursor.delete()
    changed = sorted([key for key, value in entries.items() if written.get(key) is not value])
    table.put_all(cursor, changed, entries)
