"""Tables that a store keeps in memory: those of a market that nobody needs afterwards.

A search in memory takes a fraction of what LMDB takes for one, nothing is encoded before it has to
be written, and no checksum guards what no disk has. Whatever becomes too long goes to LMDB for good
(`RESIDENT_MAX`), so that memory has a bound.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Final

from compute_market.store.late import Cursors
from compute_market.store.table import Table, encode

# Entries of a table that are kept in memory, at most.
RESIDENT_MAX: Final = 20_000


class Resident:
    """The entries of one table: payloads, or the records they are of.

    Their order is known from the first time on that somebody asks for it; most tables are never
    asked.
    """

    __slots__ = ("_keys", "changed", "entries")

    def __init__(self) -> None:
        self.entries: dict[bytes, Any] = {}
        self.changed: set[bytes] = set()  # keys since they were written last
        self._keys: list[bytes] | None = None  # in order

    def put(self, key: bytes, value: Any) -> None:
        if self._keys is not None and key not in self.entries:
            insort(self._keys, key)
        self.entries[key] = value
        self.changed.add(key)

    def delete(self, key: bytes) -> bool:
        if self.entries.pop(key, None) is None:
            return False
        if self._keys is not None:
            del self._keys[bisect_left(self._keys, key)]
        self.changed.add(key)
        return True

    def clear(self) -> None:
        self.changed.update(self.entries)
        self.entries.clear()
        self._keys = None

    def payload(self, key: bytes) -> bytes | None:
        found = self.entries.get(key)
        return found if found is None or type(found) is bytes else encode(found)

    def first(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        keys = self._keys or self._in_order()
        at = bisect_left(keys, start) if start else 0
        if at < len(keys) and (key := keys[at]).startswith(prefix):
            return key, self._bytes(key)
        return None

    def collect(self, limit: int, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
        keys, entries = self._keys or self._in_order(), self.entries
        begin = bisect_left(keys, start) if start else 0
        found: list[tuple[bytes, bytes]] = []
        for at in range(begin, min(begin + limit, len(keys))):
            key = keys[at]
            if not key.startswith(prefix):
                break
            value = entries[key]
            found.append((key, value if type(value) is bytes else encode(value)))
        return found

    def scan(self, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys or self._in_order()
        at = bisect_left(keys, start)
        while at < len(keys) and (key := keys[at]).startswith(prefix):
            yield key, self._bytes(key)
            at += 1

    def scan_back(self, before: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys or self._in_order()
        for at in range((len(keys) if before is None else bisect_left(keys, before)) - 1, -1, -1):
            yield keys[at], self._bytes(keys[at])

    def beside(self, key: bytes) -> tuple[bytes | None, bytes | None]:
        keys = self._keys or self._in_order()
        at = bisect_left(keys, key)
        return keys[at - 1] if at else None, keys[at] if at < len(keys) else None

    def _in_order(self) -> list[bytes]:
        if self._keys is None:
            self._keys = sorted(self.entries)
        return self._keys

    def _bytes(self, key: bytes) -> bytes:
        found = self.entries[key]
        return found if type(found) is bytes else encode(found)


# The tables that are kept in memory, and no others.
Residents = dict[Table[Any], Resident]


def loaded(table: Table[Any], cursor: Any) -> Resident:
    """A table as LMDB has it."""
    found = Resident()
    for key, value in cursor.iternext():
        found.entries[key] = table.opened(key, value)
    return found


def write_all(residents: Residents, cursors: Cursors) -> None:
    """Write what has changed since it was written last; what is too long is kept no longer."""
    for table in list(residents):
        if len(residents[table].entries) > RESIDENT_MAX:
            evict(residents, table, cursors)
        else:
            _write(table, residents[table], cursors[table])


def evict(residents: Residents, table: Table[Any], cursors: Cursors) -> None:
    """Let a table be found in LMDB from now on."""
    _write(table, residents.pop(table), cursors[table])


def _write(table: Table[Any], held: Resident, cursor: Any) -> None:
    for key in sorted(held.changed):
        payload = held.payload(key)
        if payload is not None:
            cursor.put(key, table.sealed(key, payload))
        elif cursor.set_key(key):
            cursor.delete()
    held.changed.clear()
