"""The store: one market on disk, and the two ways into it.

`Store.update(fn)` and `Store.view(fn)`: `fn` gets a `Txn`; returning commits, raising rolls back.
Nobody outside this module begins or ends a transaction, and nobody but `compute_market.engine`
calls it.

Writers queue on a lock of their own before LMDB's (`lock`). Looking changes nothing: a store that
is only viewed gets no file, no byte and no lock of its own.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from compute_market.config.settings import DEFAULTS, Config
from compute_market.errors import BusyError, MarketError, UsageError
from compute_market.home import data_file, file_at, moved
from compute_market.store.environment import (
    MAP_SIZE,
    Creation,
    Environment,
    Purpose,
    begin,
    begin_alone,
    check_schema,
    fill_up,
    kept_tables,
    length_of,
    look_alone,
    open_environment,
    open_table,
    schema_of,
    write_alone,
)
from compute_market.store.late import Handles
from compute_market.store.lock import Patience, Threads
from compute_market.store.schema import META, SCHEMA_VERSION, TABLES
from compute_market.store.table import Table
from compute_market.store.translation import NOT_AT_ONCE, translated
from compute_market.store.txn import Txn

T = TypeVar("T")

# Brings what an older schema stored up to date, in the transaction of the first writer.
Upgrade = Callable[[Txn, int], None]


class _Handles(Handles):
    """Handles of tables, each opened in one transaction when it is first used there.

    Opening them without a transaction would wait for LMDB's writer, even in a command that only
    reads. A handle ends with its transaction unless that writes and commits. A writer makes the
    tables that an older release has not; for a reader they are empty.
    """

    def __init__(self, env: Environment, txn: Any, *, create: bool) -> None:
        super().__init__()
        self._env = env
        self._txn = txn
        self._create = create

    def __missing__(self, table: Table[Any]) -> Any:
        handle = open_table(self._env, self._txn, table.name, create=self._create)
        self[table] = handle
        return handle


class _Exchanged(Exception):
    """Another file is in the place of the one that was opened."""


class Store:
    """One market on disk, in the directory `path`.

    A process opens a store at most once at a time and closes it before it forks.
    """

    def __init__(
        self,
        path: str,
        creation: Creation | None,
        sleep: Callable[[float], float | None],
        lock_timeout_ms: int,
        map_size: int,
        upgrade: Upgrade | None,
    ) -> None:
        self.path = path
        self._creation = creation
        self._slept = sleep
        self._waits = True
        self._lock_timeout_ms = lock_timeout_ms
        self._map_size = map_size
        self._upgrade = upgrade
        self._handles: Handles | None = None  # handles that a commit has kept
        self._threads = Threads()
        self._has_lock = False  # one of its threads has the write lock
        self._has_looked = False
        self._is_broken = False  # it has to be opened anew before it is used again
        self._env = self._opened("look" if creation is None else "write")
        try:
            with self._look() as (txn, _):
                self.schema = schema_of(self._env, txn)
            check_schema(path, self.schema, readonly=self.readonly)
        except BaseException:
            self._env.close()
            raise

    @classmethod
    def open(
        cls,
        path: str,
        *,
        sleep: Callable[[float], float | None],
        creation: Creation | None = None,
        lock_timeout_ms: int = 30_000,
        map_size: int = MAP_SIZE,
        upgrade: Upgrade | None = None,
    ) -> "Store":
        """Open the store; with a `creation`, make it when the directory is missing or empty.

        `sleep` is called with seconds while waiting for the write lock, at most `lock_timeout_ms`
        in all; it may return how many it really took. `upgrade` is what the first writer does with
        what an older schema stored.

        Raises NotFoundError when there is no store and none is to be made, UsageError when `path`
        cannot hold one, BusyError when the disk is full or the write lock is not had in time,
        IntegrityError when the data file is damaged or of a newer schema.
        """
        return cls(path, creation, sleep, lock_timeout_ms, map_size, upgrade)

    def close(self) -> None:
        """Close it once no thread is in a transaction: LMDB unmaps what they would read."""
        with self._threads.alone():
            self._env.close()

    @property
    def readonly(self) -> bool:
        """Whether the directory cannot be written, so that only `view` works."""
        return not os.access(self.path, os.W_OK)

    def give_up_waiting(self) -> None:
        """Let no thread wait any longer for a lock, now or later: it raises BusyError instead."""
        self._waits = False

    def patience(self, most_ms: int | None = None) -> Patience:
        """The time that one who waits for another process has, that of the write lock at most."""
        timeout_ms = self._lock_timeout_ms
        return Patience(timeout_ms if most_ms is None else min(most_ms, timeout_ms), self._sleep)

    def is_here(self) -> bool:
        """Whether the data file at the path is the one that was opened, or a compacted copy of it,
        which is opened then."""
        return self._follow()

    def check_is_here(self) -> None:
        """Raise ConflictError where `is_here` is False."""
        if not self._follow():
            raise moved(self.path)

    def _is_here(self) -> bool:
        return file_at(data_file(self.path)) == self._identity

    def view(self, fn: Callable[[Txn], T], *, now_ms: int = 0, config: Config = DEFAULTS) -> T:
        """Run `fn` over one snapshot. It must not write, and the result must not hold the Txn.

        A market finds the time in the transaction, since it depends on what is stored (`clock`).
        A store of an older schema is brought up to date in a transaction that is rolled back.
        """
        if self.schema < SCHEMA_VERSION:
            return self.update(fn, now_ms=now_ms, config=config, dry_run=True)
        if self._has_looked:  # The first look comes with opening it.
            self._follow()
        self._has_looked = True
        with self._look() as (txn, handles):
            return fn(Txn(txn, handles, now_ms, config, None))

    def view_at_once(self, fn: Callable[[Txn], T], *, config: Config = DEFAULTS) -> T:
        """The same for who must not wait for another thread or process.

        Raises BusyError where `view` would; `keep_tables` helps against that.
        """
        if self.schema < SCHEMA_VERSION or not self._threads.enter():
            raise self._not_at_once()
        try:
            if self._is_broken or self._handles is None or not self._is_seen:
                raise self._not_at_once()
            with translated(self.path):
                try:
                    txn = self._env.begin()
                except NOT_AT_ONCE as error:
                    raise self._not_at_once() from error
                with txn:
                    return fn(Txn(txn, self._handles, 0, config, None))
        finally:
            self._threads.leave()

    def _not_at_once(self) -> BusyError:
        return BusyError(f"{self.path} cannot be looked at at once")

    def keep_tables(self) -> None:
        """Have the tables opened for all looks to come, if they are there and nobody is writing."""
        if self._handles is not None:
            return
        with translated(self.path), suppress(BusyError), self._threads.alone():
            if self._is_broken:
                return
            found = kept_tables(self.path, self._env, self._sleep)
            if None not in found.values():
                self._handles = found

    def update(
        self,
        fn: Callable[[Txn], T],
        *,
        now_ms: int = 0,
        config: Config = DEFAULTS,
        dry_run: bool = False,
        stopwatch: Callable[[], int] | None = None,
        lock_timeout_ms: int | None = None,
    ) -> T:
        """Run `fn` in one durable write transaction: returning commits, raising rolls back.

        With `dry_run` the same code runs and is always rolled back. Raises BusyError when the
        write lock is not had in time (`lock_timeout_ms`, else that of the store), or the disk or
        the map is full, and ConflictError when another market has taken the place of this one;
        nothing is written then. A file that was compacted meanwhile is the same market.
        """
        while True:
            try:
                return self._update(fn, now_ms, config, dry_run, stopwatch, lock_timeout_ms)
            except _Exchanged:
                self.check_is_here()

    def _update(
        self,
        fn: Callable[[Txn], T],
        now_ms: int,
        config: Config,
        dry_run: bool,
        stopwatch: Callable[[], int] | None,
        lock_timeout_ms: int | None,
    ) -> T:
        if self.readonly:
            self.check_is_here()
            raise UsageError(
                f"{self.path} is read-only", hint="give another --home, or mount it writable"
            )
        timeout_ms = self._lock_timeout_ms if lock_timeout_ms is None else lock_timeout_ms
        self._open_for("try" if dry_run else "write")
        with (
            translated(self.path),
            self._writing_alone(timeout_ms),
            self._begun(write=True) as (txn, handles),
        ):
            try:
                if not self._is_here():
                    raise _Exchanged
                length_before = length_of(self._env)
                bound = Txn(txn, handles, now_ms, config, stopwatch)
                # Somebody else may have done it while this process waited for the lock.
                schema = schema_of(self._env, txn)
                check_schema(self.path, schema, readonly=self.readonly)
                if schema < SCHEMA_VERSION:
                    self._bring_up_to_date(bound, schema)
                result = fn(bound)
                bound.flush()
                if self._handles is None and not dry_run:
                    handles = {table: handles[table] for table in TABLES}
            except BaseException:
                txn.abort()
                raise
            if dry_run:
                txn.abort()
                self.schema = schema
            else:
                try:
                    txn.commit()
                except BaseException:
                    self._is_broken = True
                    raise
                self._handles = handles
                self.schema = SCHEMA_VERSION
                with suppress(OSError):  # It is done; who opens the file next fills it up.
                    fill_up(self.path, self._env, self._identity, length_before)
            return result

    def remap(self) -> None:
        """Unmap the file and map it anew: pages read so far no longer count as this process's."""
        with self._threads.alone():
            self._reopen(self._purpose)

    def _follow(self) -> bool:
        """Open a compacted copy that is at the path by now; False when it is none."""
        if self._is_here():
            return True
        with translated(self.path), self._threads.alone():
            from compute_market.store.compaction import is_continued  # It hardly ever happens.

            # Another thread may have followed, and another copy may have come meanwhile.
            while not self._is_here():
                if self._is_broken or not is_continued(self._env, data_file(self.path)):
                    return False
                self._reopen(self._purpose)
            return True

    def _sleep(self, seconds: float) -> float | None:
        return self._slept(seconds) if self._waits else float("inf")

    def _opened(self, purpose: Purpose) -> Environment:
        self._purpose = purpose
        env, self._identity = open_environment(
            self.path,
            creation=self._creation,
            purpose=purpose,
            map_size=self._map_size,
            lock_timeout_ms=self._lock_timeout_ms,
            sleep=self._sleep,
            has_lock=lambda: self._has_lock,
        )
        self._is_seen = bool(env.flags()["lock"])
        return env

    def _open_for(self, purpose: Purpose) -> None:
        """Open what was only looked at so far for what comes now; a writer needs more files."""
        if self._purpose not in (purpose, "write"):
            with self._threads.alone():
                if self._purpose not in (purpose, "write"):
                    self._reopen(purpose)

    def _reopen(self, purpose: Purpose) -> None:
        before = self._purpose
        self._env.close()
        self._handles = None
        self._is_broken = True
        try:
            self._env = self._opened(purpose)
        except MarketError:
            self._env = self._opened(before)
            self._is_broken = False
            raise
        self._is_broken = False

    def _mend(self) -> None:
        """Open it anew if it is broken: LMDB takes no environment that failed to commit, nor is one
        there that could not be opened anew; what failed may work by now."""
        if self._is_broken:
            with self._threads.alone():
                if self._is_broken:
                    self._reopen(self._purpose)

    @contextmanager
    def _writing_alone(self, timeout_ms: int) -> Iterator[None]:
        self._mend()
        with write_alone(self.path, timeout_ms, self._sleep, is_seen=self._is_seen):
            self._has_lock = self._is_seen  # The turnstile alone keeps no writer from going on.
            try:
                yield
            finally:
                self._has_lock = False

    def _bring_up_to_date(self, txn: Txn, schema: int) -> None:
        assert self._upgrade is not None, "a store of an older schema needs its steps"
        self._upgrade(txn, schema)
        txn.put(META, b"schema", bytes((SCHEMA_VERSION,)))

    @contextmanager
    def _look(self) -> Iterator[tuple[Any, Handles]]:
        """A transaction that only reads, and the handles of its tables."""
        self._mend()
        with (
            translated(self.path),
            look_alone(self.path, self._lock_timeout_ms, self._sleep, is_seen=self._is_seen),
            self._begun(write=False) as (txn, handles),
            txn,
        ):
            yield txn, handles

    @contextmanager
    def _begun(self, *, write: bool) -> Iterator[tuple[Any, Handles]]:
        """A transaction, and the handles of its tables: one at a time until those are kept.

        Handles are numbers: two transactions of one process that open tables at the same time can
        be given the same number for different tables.
        """
        if self._handles is not None:
            with self._threads.shared():
                # None when another thread has let go of the handles, or another process has
                # outgrown the map: what others are reading is not to be unmapped.
                txn = None
                if self._handles is not None and not self._is_broken:
                    txn = begin(self._env, self.patience, write=write)
                if txn is not None:
                    yield txn, self._handles
                    return
        with self._threads.alone():
            if self._is_broken:
                self._reopen(self._purpose)
            txn = begin_alone(self._env, self.patience, write=write)
            yield txn, self._handles or _Handles(self._env, txn, create=write)
