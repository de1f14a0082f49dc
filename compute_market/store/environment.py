"""The LMDB environment on disk: opened and checked.

Whoever only looks makes no file. LMDB needs its table of readers, `lock.mdb`, to keep a writer from
using pages that somebody reads. Where it cannot be used, as in a backup, a look shares the writers'
turnstile instead, so that nobody begins to write: one writer who was there already harms no
snapshot, since what it takes away in one transaction is only used again by the next.
"""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, Final, Literal, TypeVar

import lmdb
from msgspec import Struct

from compute_market.errors import (
    BusyError,
    IntegrityError,
    MarketError,
    NotFoundError,
    UsageError,
)
from compute_market.home import (
    FILE_MODE,
    check_no_link,
    data_file,
    file_at,
    give_to_owner,
    lock_file,
    make_directories,
    readers_file,
)
from compute_market.store.lock import Patience, Turnstile, WriteLock, nobody_writing
from compute_market.store.schema import META, SCHEMA_VERSION, TABLES, UNSEALED_SCHEMA, unpack_u64
from compute_market.store.table import Table, damaged
from compute_market.store.translation import RESTORE, translated

Environment = lmdb.Environment
T = TypeVar("T")

MAP_SIZE: Final = 64 * 2**30
MAX_TABLES: Final = 256
MAX_READERS: Final = 512
_EMPTY_BYTES: Final = 8192  # the two meta pages that LMDB begins with
# LMDB's lock file: 64 bytes for each reader, one of them the header.
_LOCK_FILE_BYTES: Final = 64 * (MAX_READERS + 2)


# What a store is opened for: a `try` runs a writer's transaction that is rolled back, and like a
# `look` it makes no file and changes no byte.
Purpose = Literal["look", "try", "write"]


class Creation(Struct, frozen=True, gc=False):
    """The genesis of a new market."""

    now_ms: int
    market_id: bytes  # 16 random bytes


def open_environment(
    path: str,
    *,
    creation: Creation | None,
    purpose: Purpose,
    map_size: int,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
    has_lock: Callable[[], bool],
) -> tuple[Environment, tuple[int, int] | None]:
    """Open the environment in the directory `path`; with it, what tells its data file from others.

    To `write`, it is created on first use if there is a `creation`. `has_lock` tells whether the
    write lock is held by a thread that waits until it is opened. See `Store.open`.
    """
    patience = partial(Patience, lock_timeout_ms, sleep)
    with translated(path):
        if os.path.exists(data_file(path)) and not os.access(path, os.W_OK):
            purpose = "look"
        write = purpose == "write"
        check_no_link(path)
        if creation is not None and write and not os.path.exists(lock_file(path)):
            make_directories(path)
            with Turnstile(path, lock_timeout_ms, sleep):
                _create(path, creation, map_size)
        _check_is_there(path)
        if write and not _is_allocated(path):
            # What is no market gets no lock file either.
            _opened(path, map_size, "look", patience, has_lock).close()
            _allocate_lock_file(path)
        identity = file_at(data_file(path))
        while True:
            env = _opened(path, map_size, purpose, patience, has_lock)
            before, identity = identity, file_at(data_file(path))
            if identity == before:
                return env, identity
            env.close()  # A compacted copy has come meanwhile: which of both it is cannot be told.


def look_alone(
    path: str,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
    *,
    is_seen: bool,
) -> AbstractContextManager[None]:
    """Keeps writers away during a look, unless LMDB's table of readers lets it be seen."""
    if is_seen:
        return nullcontext()
    return Turnstile(path, lock_timeout_ms, sleep, shared=True)


def write_alone(
    path: str,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
    *,
    is_seen: bool,
) -> AbstractContextManager[None]:
    """The write lock; without a table of readers, for a `try`, the turnstile before it."""
    lock = WriteLock if is_seen else Turnstile
    return lock(path, lock_timeout_ms, sleep)


def open_table(env: Environment, txn: Any, name: str, *, create: bool) -> Any:
    """The handle of a table, valid within `txn`; None for one that is not there."""
    try:
        return env.open_db(name.encode(), txn=txn, create=create)
    except lmdb.NotFoundError:
        return None


def kept_tables(
    path: str, env: Environment, sleep: Callable[[float], float | None]
) -> dict[Table[Any], Any]:
    """The handles of all tables, None for one that is not there, beyond any transaction.

    BusyError when that would have to wait for a writer.
    """
    if env.flags()["readonly"]:
        # LMDB opens it in a transaction that reads, and keeps it.
        return {table: open_table(env, None, table.name, create=False) for table in TABLES}
    with write_alone(path, 0, sleep, is_seen=bool(env.flags()["lock"])):
        txn = env.begin(write=True)
        try:
            return {table: open_table(env, txn, table.name, create=False) for table in TABLES}
        finally:
            txn.commit()  # Nothing but the handles.


def schema_of(env: Environment, txn: Any) -> int:
    """The number of the schema that a store was written with. Raises IntegrityError without one."""
    handle = open_table(env, txn, META.name, create=False)
    value = None if handle is None else txn.get(b"schema", db=handle)
    if value == bytes((UNSEALED_SCHEMA,)):
        return UNSEALED_SCHEMA
    if value is None:
        raise damaged(META, b"schema", "it is missing")
    return unpack_u64(META.opened(b"schema", value))


def check_schema(path: str, schema: int, *, readonly: bool) -> None:
    """Raise IntegrityError for a newer schema, UsageError for an older one that has to stay."""
    if schema > SCHEMA_VERSION:
        raise IntegrityError(
            f"{path} was written with schema {schema}, this release reads schemas "
            f"up to {SCHEMA_VERSION}",
            hint="use the tb-cli that wrote it, or a newer one",
        )
    if schema < SCHEMA_VERSION and readonly:
        raise UsageError(
            f"{path} was written with schema {schema}, and is read-only",
            hint=f"copy it to a place that can be written, where it is read as schema "
            f"{SCHEMA_VERSION}",
        )


def begin(env: Environment, patience: Callable[[], Patience], *, write: bool) -> Any:
    """Begin a transaction; a writer holds the write lock.

    None when a process with a larger map has outgrown the map of this one; see `begin_alone`.
    Raises BusyError as `_in_turn` does.
    """
    try:
        return _in_turn(lambda: env.begin(write=write), patience)
    except lmdb.MapResizedError:
        return None


def _in_turn(call: Callable[[], T], patience: Callable[[], Patience]) -> T:
    """What LMDB answers once no other process of this one's number reads.

    It tells readers apart by their process id, of which each PID namespace has its own. Raises
    BusyError when that lasts for longer than the `patience`.
    """
    left: Patience | None = None
    while True:
        try:
            return call()
        except lmdb.LockError as error:
            if getattr(error, "code", None) != errno.EAGAIN:
                raise
            left = left or patience()
            if left.is_over():
                raise BusyError(
                    f"process {os.getpid()} of another PID namespace has the store open",
                    hint="containers that share a home must share a PID namespace too",
                ) from error


def begin_alone(env: Environment, patience: Callable[[], Patience], *, write: bool) -> Any:
    """Begin the only transaction of this process, with a map as large as that of others."""
    txn = begin(env, patience, write=write)
    if txn is None:
        env.set_mapsize(0)  # It adopts their size.
        txn = env.begin(write=write)
    return txn


def _open(path: str, map_size: int, purpose: Purpose) -> lmdb.Environment:
    return lmdb.open(
        path,
        create=purpose == "write",
        lock=purpose == "write" or _has_table_of_readers(path),
        map_size=map_size,
        max_dbs=MAX_TABLES,
        max_readers=MAX_READERS,
        mode=0o700,
        readonly=purpose == "look",
        lib_version=0,
        metasync=True,
        sync=True,
    )


def _opened(
    path: str,
    map_size: int,
    purpose: Purpose,
    patience: Callable[[], Patience],
    has_lock: Callable[[], bool],
) -> Environment:
    env = _in_turn(partial(_open, path, map_size, purpose), patience)
    try:
        if env.flags()["lock"]:
            env.reader_check()
        if env.stat()["entries"] == 0:
            raise _nothing_in(path)
        _check_length(path, env, purpose == "write", patience(), has_lock)
    except BaseException:
        env.close()
        raise
    return env


def _create(path: str, creation: Creation, map_size: int) -> None:
    """Make the data file, then the lock file, which says that there was a market from now on.

    The caller holds the turnstile. A data file that is there is kept, as that of a backup, unless
    it holds nothing.
    """
    if os.path.exists(lock_file(path)):
        return  # Another process was faster.
    from compute_market.store.creation import make_data
    from compute_market.store.pages import holds_nothing

    if holds_nothing(data_file(path)):
        make_data(data_file(path), creation.market_id, creation.now_ms, map_size)
        for made in (path, data_file(path)):
            give_to_owner(made)
        flags = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(lock_file(path), flags, FILE_MODE))
        give_to_owner(lock_file(path))


def _has_table_of_readers(path: str) -> bool:
    """Whether there is one that can be used. Opening would make it otherwise, or lengthen one that
    a full disk has cut short."""
    name = readers_file(path)
    return os.access(name, os.W_OK) and os.stat(name).st_size >= _LOCK_FILE_BYTES


def _is_allocated(path: str) -> bool:
    """Whether LMDB's lock file has its blocks: on a full disk, mapping it without is fatal."""
    name = readers_file(path)
    return os.path.exists(name) and os.stat(name).st_blocks * 512 >= _LOCK_FILE_BYTES


def _allocate_lock_file(path: str) -> None:
    name = readers_file(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
    finally:
        os.close(descriptor)
    give_to_owner(name)


def _check_is_there(path: str) -> None:
    """A store may be longer than what LMDB begins with, and is never shorter."""
    data = data_file(path)
    if not os.path.exists(data) or os.stat(data).st_size <= _EMPTY_BYTES:
        raise _nothing_in(path)


def _nothing_in(path: str) -> MarketError:
    """Tell apart where no market ever was, where its data is gone, and where it is cut off."""
    from compute_market.store.pages import holds_nothing

    data = data_file(path)
    if not holds_nothing(data):
        length = os.stat(data).st_size
        return IntegrityError(
            f"{data} is damaged: it has {length} bytes, and there is no market in them",
            hint=RESTORE,
        )
    if os.path.exists(lock_file(path)):
        return IntegrityError(
            f"{data} is gone or empty, and there was a market in it",
            hint="restore the directory from a backup, or remove all of it to begin anew",
        )
    return NotFoundError(f"no market in {path}", hint="`tb-cli state init` makes one")


def _check_length(
    path: str, env: Environment, write: bool, patience: Patience, has_lock: Callable[[], bool]
) -> None:
    """Refuse a truncated data file: reading past its end would kill the process.

    A sound file may be shorter than its header says too, where a commit was cut off before
    `fill_up`. So only a full check tells, and a writer then fills a sound file up, so that the next
    command need not check again.
    """
    if not _is_short(path, env):
        return
    from compute_market.store.pages import check_whole

    alone = WriteLock if write else nobody_writing
    while _is_short(path, env):  # A writer may have been about to fill it up.
        if has_lock():  # That thread waits for this one: neither writes.
            check_whole(path, data_file(path), length_of(env))
            return
        try:
            with alone(path, 0, lambda _: None):
                if _is_short(path, env):
                    check_whole(path, data_file(path), length_of(env))
                    if write:
                        os.truncate(data_file(path), length_of(env))
                return
        except BusyError:
            if patience.is_over():
                raise


def _is_short(path: str, env: Environment) -> bool:
    return os.stat(data_file(path)).st_size < length_of(env)


def length_of(env: Environment) -> int:
    """Bytes of the data file by its header. It may have fewer; see `fill_up`."""
    return (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])


def fill_up(
    path: str, env: Environment, identity: tuple[int, int] | None, length_before: int
) -> None:
    """Make the data file as long as its header says, after a commit and within its write lock.

    The last pages that a transaction takes are not written if it gives them back. Another file that
    is at the path by now is left alone. One that was shorter than its header before the commit was
    cut: that is damage, and left to be found.
    """
    data, length = data_file(path), length_of(env)
    if not length_before <= os.stat(data).st_size < length:
        return
    descriptor = os.open(data, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if file_at(descriptor) == identity:
            os.ftruncate(descriptor, length)
    finally:
        os.close(descriptor)


def verify(path: str, lock_timeout_ms: int, sleep: Callable[[float], float | None]) -> list[str]:
    """Check the structure of the data file page by page; one line per problem."""
    from compute_market.store.pages import walked

    with translated(path):
        _check_is_there(path)
        with suppress(IntegrityError):
            if not walked(path):
                return []
        # Unless that was a writer at work.
        with nobody_writing(path, lock_timeout_ms, sleep):
            return walked(path)
