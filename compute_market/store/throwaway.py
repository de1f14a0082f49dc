"""A store that nobody needs afterwards: many changes in one transaction, none of them durable.

It has what a market asks of its store, `update`, `view` and `close`, and keeps the same bytes under
the same keys. A simulation makes hundreds of thousands of changes; for each to be a transaction of
LMDB with its pages written would take longer than the change itself.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import lmdb

from compute_market.config.settings import Config
from compute_market.errors import InternalError, UsageError
from compute_market.home import data_file
from compute_market.store.creation import make_data
from compute_market.store.environment import MAP_SIZE, MAX_TABLES
from compute_market.store.late import Cursors, Handles
from compute_market.store.resident import Residents, loaded, shorten, write_all
from compute_market.store.schema import EVENTS, TABLES
from compute_market.store.translation import translated
from compute_market.store.txn import Txn

T = TypeVar("T")

# Changes that one transaction of LMDB holds. What it has written is kept in memory until its end.
CHANGES_MAX: Final = 2_000


class ThrowAwayStore:
    """A new market in an empty directory, of one process and one thread.

    Raises UsageError for a directory that has one, and BusyError when the disk is full.
    """

    readonly = False

    def __init__(self, directory: str, market_id: bytes, now_ms: int) -> None:
        self.path = directory
        self._data = data_file(directory)
        with translated(directory):
            if os.path.lexists(self._data):
                raise UsageError(f"{self._data} is there: a market that somebody may need")
            make_data(self._data, market_id, now_ms, MAP_SIZE)
            self._env = lmdb.open(
                self._data,
                subdir=False,
                lock=False,
                sync=False,
                metasync=False,
                map_size=MAP_SIZE,
                max_dbs=MAX_TABLES,
                lib_version=0,
            )
            with self._env.begin(write=True) as txn:
                self._handles: Handles = {
                    table: self._env.open_db(table.name.encode(), txn=txn) for table in TABLES
                }
                cursors = Cursors(txn, self._handles)
                # All but the log, which is long before anything of it goes, and which nobody asks.
                self._residents: Residents = {
                    table: None if table is EVENTS else loaded(table, cursors[table])
                    for table in TABLES
                }
        self._txn: Any = None
        self._last: Txn | None = None  # the last change in it
        self._changes = 0
        self._is_broken = False

    def update(
        self,
        fn: Callable[[Txn], T],
        *,
        config: Config,
        dry_run: bool = False,
        stopwatch: Callable[[], int] | None = None,
        lock_timeout_ms: int | None = None,
    ) -> T:
        """Run `fn` as the next change; with `dry_run` it is rolled back.

        One that raises takes those before it along, back to where the last transaction ended: the
        store takes no other. `lock_timeout_ms` is for stores that somebody else may have locked.
        """
        if self._is_broken:
            raise InternalError("a throw-away store takes no change after one that failed")
        if dry_run:
            return self._tried(fn, config, stopwatch)
        try:
            txn = self._last
            if txn is None:
                self._txn = self._env.begin(write=True)
                txn = Txn(self._txn, self._handles, 0, config, stopwatch, self._residents)
            else:
                txn.begin(0, config, stopwatch)
            result = fn(txn)
            self._last = txn
            self._changes += 1
            if self._changes == CHANGES_MAX:
                self._commit()
        except lmdb.Error:
            self._give_up()
            with translated(self.path):
                raise
        except BaseException:
            self._give_up()
            raise
        return result

    def view(self, fn: Callable[[Txn], T], *, now_ms: int = 0, config: Config) -> T:
        """Run `fn` over what there is by now. It must not write."""
        with self._begun(write=False) as txn:
            return fn(Txn(txn, self._handles, now_ms, config, None))

    def close(self) -> None:
        """Let go of the file; what is in the present transaction is gone."""
        self._give_up()
        self._env.close()

    def _give_up(self) -> None:
        self._is_broken = True
        if self._txn is not None:
            self._txn.abort()
        self._txn = self._last = None
        self._residents.clear()

    def _tried(
        self, fn: Callable[[Txn], T], config: Config, stopwatch: Callable[[], int] | None
    ) -> T:
        with self._begun(write=True) as txn:
            change = Txn(txn, self._handles, 0, config, stopwatch)
            result = fn(change)
            change.flush()
            return result

    @contextmanager
    def _begun(self, *, write: bool) -> Iterator[Any]:
        """A transaction beside those that change something, never committed."""
        with translated(self.path):
            self._commit()
            with self._env.begin(write=True) as written:
                write_all(self._residents, Cursors(written, self._handles))
            txn = self._env.begin(write=write)
            try:
                yield txn
            finally:
                txn.abort()

    def _commit(self) -> None:
        if self._last is not None:
            self._last.flush()
            shorten(self._residents, Cursors(self._txn, self._handles))
            self._txn.commit()
        self._txn = self._last = None
        self._changes = 0
