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
# Behind all that follows a prefix: no key is as long.
_BEHIND: Final = b"\xff" * 512


class Resident:
    """The entries of one table: payloads, or the records they are of.

    Their order is known from the first time on that somebody asks for it; most tables are never
    asked.
    """

    __slots__ = ("_keys", "changed", "entries", "has_records")

    def __init__(self, *, has_records: bool) -> None:
        self.has_records = has_records
        self.entries: dict[bytes, Any] = {}
        # Keys whose entries have changed since they were written last, and whether they are new.
        self.changed: dict[bytes, bool] = {}
        self._keys: list[bytes] | None = None  # in order

    def put(self, key: bytes, value: Any) -> None:
        if key not in self.entries:
            if self._keys is not None:
                insort(self._keys, key)
            if key not in self.changed:
                self.changed[key] = True
        elif key not in self.changed:
            self.changed[key] = False
        self.entries[key] = value

    def delete(self, key: bytes) -> bool:
        if self.entries.pop(key, None) is None:
            return False
        if self._keys is not None:
            del self._keys[bisect_left(self._keys, key)]
        if self.changed.get(key):
            del self.changed[key]  # It was never written.
        else:
            self.changed[key] = False
        return True

    def clear(self) -> None:
        self.changed.update(dict.fromkeys(self.entries, False))
        self.entries.clear()
        self._keys = None

    def payload(self, key: bytes) -> bytes | None:
        found = self.entries.get(key)
        return found if found is None or type(found) is bytes else encode(found)

    def first(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        keys = self._keys or self._in_order()
        at = bisect_left(keys, start) if start else 0
        if at == len(keys):
            return None
        key = keys[at]
        if prefix and not key.startswith(prefix):
            return None
        found = self.entries[key]
        return key, found if type(found) is bytes else encode(found)

    def collect(self, limit: int, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
        keys, entries = self._keys or self._in_order(), self.entries
        begin = bisect_left(keys, start) if start else 0
        end = bisect_left(keys, prefix + _BEHIND, begin) if prefix else len(keys)
        chosen = keys[begin : min(begin + limit, end)]
        if self.has_records:
            return [(key, self._bytes(key)) for key in chosen]
        return [(key, entries[key]) for key in chosen]

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
    found = Resident(has_records=table.has_records)
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
    written: list[tuple[bytes, bytes]] = []
    for key in sorted(held.changed):
        payload = held.payload(key)
        if payload is not None:
            written.append((key, payload))
        elif cursor.set_key(key):
            cursor.delete()
    table.put_all(cursor, written)
    held.changed.clear()
