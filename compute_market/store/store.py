"""The store: transactions over its tables.

The whole interface is `Store.update(fn)` and `Store.view(fn)`: `fn` gets a `Txn`; returning
commits, raising rolls back. Nobody outside this module begins or ends a transaction.

Writers queue on a lock of their own before LMDB's (`lock`).
"""

import os
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from compute_market.errors import UsageError
from compute_market.store.environment import (
    MAP_SIZE,
    Environment,
    begin,
    data_file,
    open_environment,
    translated,
    verify_file,
)
from compute_market.store.lock import WriteLock
from compute_market.store.schema import TABLES, decode, encode

T = TypeVar("T")


class _Tables(dict[str, Any]):
    """Handles of tables, each opened in one transaction when it is first used there.

    Opening them without a transaction would wait for LMDB's writer, even in a command that only
    reads. A handle ends with its transaction unless that writes and commits.
    """

    def __init__(self, env: Environment, txn: Any) -> None:
        super().__init__()
        self._env = env
        self._txn = txn

    def __missing__(self, table: str) -> Any:
        handle = self._env.open_db(table.encode(), txn=self._txn, create=False)
        self[table] = handle
        return handle


class Txn:
    """One transaction at one instant.

    `now_ms` is the only time an action knows. `stopwatch` returns nanoseconds of a monotonic clock
    for latency histograms, or is None when nothing is to be measured. `writes` grows with every
    change, so that a caller can tell whether an action that failed had already written.
    """

    __slots__ = ("_counts", "_dbs", "_txn", "now_ms", "stopwatch", "writes")

    def __init__(
        self,
        txn: Any,  # The stubs of lmdb allow for its `buffers` mode, which is never used here.
        dbs: dict[str, Any],
        now_ms: int,
        stopwatch: Callable[[], int] | None,
    ) -> None:
        self._txn = txn
        self._dbs = dbs
        self._counts: dict[bytes, int] = {}
        self.now_ms = now_ms
        self.stopwatch = stopwatch
        self.writes = 0

    @property
    def now(self) -> int:
        """The instant in unix seconds."""
        return self.now_ms // 1000

    # Bytes.

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._dbs[table])
        return value

    def put(self, table: str, key: bytes, value: bytes = b"") -> None:
        self.writes += 1
        self._txn.put(key, value, db=self._dbs[table])

    def delete(self, table: str, key: bytes) -> bool:
        self.writes += 1
        deleted: bool = self._txn.delete(key, db=self._dbs[table])
        return deleted

    def size(self, table: str) -> int:
        """Number of entries, read from the table's root: no walk."""
        return int(self._txn.stat(self._dbs[table])["entries"])

    def scan(
        self, table: str, prefix: bytes = b"", start: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key begins with `prefix`, in key order, from `start` on.

        The caller must not change the table while it holds the iterator; see `collect`.
        """
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            if not cursor.set_range(start or prefix):
                return
            for key, value in cursor.iternext():
                if not key.startswith(prefix):
                    return
                yield key, value

    def scan_back(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """All entries, last key first."""
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            if cursor.last():
                yield from cursor.iterprev()

    def first(
        self, table: str, prefix: bytes = b"", start: bytes | None = None
    ) -> tuple[bytes, bytes] | None:
        """The first entry of `scan`, or None."""
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            if cursor.set_range(start or prefix) and cursor.key().startswith(prefix):
                item: tuple[bytes, bytes] = cursor.item()
                return item
        return None

    def collect(
        self, table: str, limit: int, prefix: bytes = b"", start: bytes | None = None
    ) -> list[tuple[bytes, bytes]]:
        """At most `limit` entries of `scan`, free to be changed by the caller."""
        found: list[tuple[bytes, bytes]] = []
        length = len(prefix)
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            if limit and cursor.set_range(start or prefix):
                for item in cursor.iternext():
                    if item[0][:length] != prefix:
                        break
                    found.append(item)
                    if len(found) == limit:
                        break
        return found

    # Records.

    def read(self, table: str, key: bytes) -> Any:
        """The record under `key`, or None. Raises IntegrityError when it does not decode."""
        value = self._txn.get(key, db=self._dbs[table])
        return None if value is None else decode(table, key, value)

    def write(self, table: str, key: bytes, record: Struct) -> None:
        self.writes += 1
        self._txn.put(key, encode(record), db=self._dbs[table])

    def records(self, table: str, prefix: bytes = b"", start: bytes | None = None) -> Iterator[Any]:
        """Decoded values of `scan`."""
        for key, value in self.scan(table, prefix, start):
            yield decode(table, key, value)

    # Numbers.

    def number(self, name: str) -> int:
        """A small named integer of the `meta` table, 0 when it was never set."""
        value = self.get("meta", name.encode())
        return 0 if value is None else int.from_bytes(value, "big")

    def set_number(self, name: str, number: int) -> None:
        self.put(
            "meta", name.encode(), number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
        )

    def next_number(self, name: str) -> int:
        """Increment a named sequence and return it: 1, 2, 3, …"""
        number = self.number(name) + 1
        self.set_number(name, number)
        return number

    # Counters are kept aside until the commit: a bulk action counts a thousand events with one put.

    def count(self, key: bytes, by: int = 1) -> None:
        self.writes += 1
        self._counts[key] = self._counts.get(key, 0) + by

    def counter(self, key: bytes) -> int:
        return int.from_bytes(self.get("counters", key) or b"", "big") + self._counts.get(key, 0)

    def counters(self, prefix: bytes) -> dict[bytes, int]:
        found = {key: int.from_bytes(value, "big") for key, value in self.scan("counters", prefix)}
        for key, by in self._counts.items():
            if key.startswith(prefix):
                found[key] = found.get(key, 0) + by
        return found

    def flush_counts(self) -> None:
        """Write the counts kept aside. `Store.update` calls this last."""
        for key in sorted(self._counts):
            self.put("counters", key, self.counter(key).to_bytes(16, "big"))
            del self._counts[key]


class Store:
    """One market on disk, in the directory `path`.

    A process opens a store at most once at a time and closes it before it forks.
    """

    def __init__(
        self,
        path: str,
        open_: Callable[[], Environment],
        lock_timeout_ms: int,
        sleep: Callable[[float], float | None],
    ) -> None:
        self.path = path
        self._open = open_
        self._env = open_()
        self._lock_timeout_ms = lock_timeout_ms
        self._sleep = sleep
        self._dbs: dict[str, Any] | None = None  # handles that a commit has kept
        self._opening = allocate_lock()

    @classmethod
    def open(
        cls,
        path: str,
        *,
        now_ms: int,
        market_id: bytes,
        sleep: Callable[[float], float | None],
        lock_timeout_ms: int = 30_000,
        map_size: int = MAP_SIZE,
    ) -> "Store":
        """Open the store, creating it when the directory is missing or empty.

        `now_ms` and `market_id` (16 random bytes) become the genesis of a new store and are not
        used otherwise. `sleep` is called with seconds while waiting for the write lock, at most
        `lock_timeout_ms` in all; it may return how many it really took.

        Raises UsageError when `path` cannot hold a store or holds one of a newer schema, BusyError
        when the disk is full or the write lock is not had in time, IntegrityError when the data
        file is damaged.
        """
        open_ = partial(
            open_environment,
            path,
            now_ms=now_ms,
            market_id=market_id,
            map_size=map_size,
            lock_timeout_ms=lock_timeout_ms,
            sleep=sleep,
        )
        return cls(path, open_, lock_timeout_ms, sleep)

    def close(self) -> None:
        self._env.close()

    @property
    def readonly(self) -> bool:
        """Whether the directory cannot be written, so that only `view` works."""
        return bool(self._env.flags()["readonly"])

    def view(self, fn: Callable[[Txn], T], *, now_ms: int) -> T:
        """Run `fn` over one snapshot. It must not write, and the result must not hold the Txn."""
        with translated(self.path), self._alone_at_first(), begin(self._env, write=False) as txn:
            return fn(Txn(txn, self._dbs or _Tables(self._env, txn), now_ms, None))

    def update(
        self,
        fn: Callable[[Txn], T],
        *,
        now_ms: int,
        dry_run: bool = False,
        stopwatch: Callable[[], int] | None = None,
        lock_timeout_ms: int | None = None,
    ) -> T:
        """Run `fn` in one durable write transaction: returning commits, raising rolls back.

        With `dry_run` the same code runs and is always rolled back. Raises BusyError when the
        write lock is not had in time (`lock_timeout_ms`, else that of the store), or the disk or
        the map is full; nothing is written then.
        """
        if self.readonly:
            raise UsageError(
                f"{self.path} is read-only", hint="give another --home, or mount it writable"
            )
        timeout_ms = self._lock_timeout_ms if lock_timeout_ms is None else lock_timeout_ms
        with (
            translated(self.path),
            WriteLock(self.path, timeout_ms, self._sleep),
            self._alone_at_first(),
        ):
            txn = begin(self._env, write=True)
            try:
                dbs = self._dbs or _Tables(self._env, txn)
                bound = Txn(txn, dbs, now_ms, stopwatch)
                result = fn(bound)
                bound.flush_counts()
                if self._dbs is None and not dry_run:
                    dbs = {table: dbs[table] for table in TABLES}
            except BaseException:
                txn.abort()
                raise
            if dry_run:
                txn.abort()
            else:
                txn.commit()
                self._dbs = dbs
            return result

    def let_go(self) -> None:
        """Unmap the file and map it anew: pages read so far no longer count as this process's."""
        with translated(self.path):
            self._env.close()
            self._dbs = None
            self._env = self._open()

    def verify(self) -> list[str]:
        """Check the structure of the data file page by page; one line per problem."""
        with translated(self.path):
            problems = verify_file(self.path)
            if problems and not self.readonly:
                # A writer at work looks like damage to somebody who reads page by page.
                with WriteLock(self.path, self._lock_timeout_ms, self._sleep):
                    problems = verify_file(self.path)
            return problems

    def backup(self, path: str) -> None:
        """Copy a consistent, compacted snapshot into the empty directory `path`."""
        with translated(path):
            self._env.copy(path, compact=True)
            os.chmod(data_file(path), 0o600)

    @contextmanager
    def _alone_at_first(self) -> Iterator[None]:
        """One transaction at a time until the handles of the tables are kept, then any number.

        Handles are numbers: two transactions of one process that open tables at the same time can
        be given the same number for different tables.
        """
        if self._dbs is not None:
            yield
        else:
            with self._opening:
                yield
