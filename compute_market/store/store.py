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
from typing import TYPE_CHECKING, Any, TypeVar

from compute_market.config.settings import DEFAULTS, Config
from compute_market.errors import ConflictError, IntegrityError, MarketError, UsageError
from compute_market.home import data_file, file_at, moved
from compute_market.store.environment import (
    MAP_SIZE,
    Creation,
    Environment,
    Purpose,
    begin,
    begin_alone,
    fill_up,
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
from compute_market.store.translation import translated
from compute_market.store.txn import Txn

if TYPE_CHECKING:
    from compute_market.store.usage import Usage

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


class Store:
    """One market on disk, in the directory `path`.

    A process opens a store at most once at a time and closes it before it forks.
    """

    def __init__(
        self,
        path: str,
        *,
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
        self._has_looked = False
        self._is_broken = False  # it has to be opened anew before it is used again
        self._env = self._opened("look" if creation is None else "write")
        try:
            with self._look() as (txn, _):
                self._schema = schema_of(self._env, txn)
            self._check_schema(self._schema)
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
        return cls(
            path,
            creation=creation,
            sleep=sleep,
            lock_timeout_ms=lock_timeout_ms,
            map_size=map_size,
            upgrade=upgrade,
        )

    def close(self) -> None:
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
        return self._is_here() or self._follow()

    def _is_here(self) -> bool:
        return file_at(data_file(self.path)) == self._identity

    def view(self, fn: Callable[[Txn], T], *, now_ms: int = 0, config: Config = DEFAULTS) -> T:
        """Run `fn` over one snapshot. It must not write, and the result must not hold the Txn.

        A market finds the time in the transaction, since it depends on what is stored (`clock`).
        A store of an older schema is brought up to date in a transaction that is rolled back.
        """
        if self._schema < SCHEMA_VERSION:
            return self.update(fn, now_ms=now_ms, config=config, dry_run=True)
        if self._has_looked:  # The first look comes with opening it.
            self._follow()
        self._has_looked = True
        with self._look() as (txn, handles):
            return fn(Txn(txn, handles, now_ms, config, None))

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
            except ConflictError:
                if not self._follow():
                    raise

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
            if not self._is_here():
                raise moved(self.path)
            raise UsageError(
                f"{self.path} is read-only", hint="give another --home, or mount it writable"
            )
        timeout_ms = self._lock_timeout_ms if lock_timeout_ms is None else lock_timeout_ms
        self._open_for("try" if dry_run else "write")
        with (
            translated(self.path),
            write_alone(self.path, self._usable(), timeout_ms, self._sleep),
            self._begun(write=True) as (txn, handles),
        ):
            try:
                if not self._is_here():
                    raise moved(self.path)
                length_before = length_of(self._env)
                bound = Txn(txn, handles, now_ms, config, stopwatch)
                # Somebody else may have done it while this process waited for the lock.
                schema = schema_of(self._env, txn)
                self._check_schema(schema)
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
                self._schema = schema
            else:
                try:
                    txn.commit()
                except BaseException:
                    self._is_broken = True
                    raise
                self._handles = handles
                self._schema = SCHEMA_VERSION
                with suppress(OSError):  # It is done; who opens the file next fills it up.
                    fill_up(self.path, self._env, self._identity, length_before)
            return result

    def compact(self, token: bytes) -> tuple[int, int]:
        """Rewrite the data file without what is free in it; its bytes before and after.

        See `compaction`, whose `token` are 16 random bytes. Raises what `update` raises.
        """
        from compute_market.store.compaction import exchange

        self._open_for("write")
        self._follow()
        data = data_file(self.path)
        with (
            translated(self.path),
            write_alone(self.path, self._usable(), self._lock_timeout_ms, self._sleep),
            self._threads.alone(),
        ):
            if not self._is_here():
                raise moved(self.path)
            before = os.stat(data).st_size
            try:
                exchange(self._env, data, token)
            finally:
                self._reopen("write")
            return before, os.stat(data).st_size

    def remap(self) -> None:
        """Unmap the file and map it anew: pages read so far no longer count as this process's."""
        with self._threads.alone():
            self._reopen(self._purpose)

    def backup(self, path: str) -> None:
        """Copy a consistent, compacted snapshot into the empty directory `path`, synced."""
        from compute_market.store.creation import sync

        with self._look(), translated(path):
            self._env.copy(path, compact=True)
            os.chmod(data_file(path), 0o600)
            sync(data_file(path))

    def usage(self) -> "Usage":
        """How much of the data file and of the map is used."""
        from compute_market.store.usage import usage_of  # Few commands tell of it.

        with self._look() as (txn, handles):
            return usage_of(self.path, self._schema, self._env, txn, handles)

    def _follow(self) -> bool:
        """Open a compacted copy that is at the path by now; False when it is none."""
        if self._is_here():
            return False
        with translated(self.path), self._threads.alone():
            from compute_market.store.compaction import is_continued  # It hardly ever happens.

            if self._is_here() or not is_continued(self._env, data_file(self.path)):
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
        )
        return env

    def _open_for(self, purpose: Purpose) -> None:
        """Open what was only looked at so far for what comes now; a writer needs more files."""
        if self._purpose not in (purpose, "write"):
            with self._threads.alone():
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

    def _usable(self) -> Environment:
        """The environment. LMDB takes none that failed to commit, nor is one there that could not
        be opened anew; what failed may work by now."""
        if self._is_broken:
            with self._threads.alone():
                self._reopen(self._purpose)
        return self._env

    def _check_schema(self, schema: int) -> None:
        if schema > SCHEMA_VERSION:
            raise IntegrityError(
                f"{self.path} was written with schema {schema}, this release reads schemas "
                f"up to {SCHEMA_VERSION}",
                hint="use the tb-cli that wrote it, or a newer one",
            )
        if schema < SCHEMA_VERSION and self.readonly:
            raise UsageError(
                f"{self.path} was written with schema {schema}, and is read-only",
                hint="copy it to a place that can be written, where it is read as schema "
                f"{SCHEMA_VERSION}",
            )

    def _bring_up_to_date(self, txn: Txn, schema: int) -> None:
        assert self._upgrade is not None, "a store of an older schema needs its steps"
        self._upgrade(txn, schema)
        txn.put(META, b"schema", bytes((SCHEMA_VERSION,)))

    @contextmanager
    def _look(self) -> Iterator[tuple[Any, Handles]]:
        """A transaction that only reads, and the handles of its tables."""
        with (
            translated(self.path),
            look_alone(self.path, self._usable(), self._lock_timeout_ms, self._sleep),
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
                if self._handles is not None:
                    txn = begin(self._env, self.patience, write=write)
                if txn is not None:
                    yield txn, self._handles
                    return
        with self._threads.alone():
            txn = begin_alone(self._env, self.patience, write=write)
            yield txn, self._handles or _Handles(self._env, txn, create=write)
