"""The LMDB environment on disk: created, opened, checked. The only importer of `lmdb`.

Whoever only looks makes no file. LMDB needs its table of readers, `lock.mdb`, to keep a writer from
using pages that somebody reads. Where it cannot be used, as in a backup, a look shares the writers'
turnstile instead, so that nobody begins to write: one writer who was there already harms no
snapshot, since what it takes away in one transaction is only used again by the next.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Literal

import lmdb
from msgspec import Struct

from compute_market.errors import (
    BusyError,
    ConflictError,
    IntegrityError,
    InternalError,
    MarketError,
    NotFoundError,
    UsageError,
    way_out,
)
from compute_market.home import DATA, WRITE_LOCK
from compute_market.store.lock import Turnstile, WriteLock, nobody_writing
from compute_market.store.schema import (
    META,
    SCHEMA_VERSION,
    TABLES,
    UNSEALED_SCHEMA,
    damaged,
    pack_u64,
    unpack_u64,
)
from compute_market.text import cause_of

Environment = lmdb.Environment

MAP_SIZE: Final = 64 * 2**30
MAX_TABLES: Final = 256
MAX_READERS: Final = 512
# A data file of two header pages holds nothing.
_EMPTY_BYTES: Final = 8192
_MAGIC: Final = 0xBEEFC0DE.to_bytes(4, "little")
# LMDB's lock file: 64 bytes for each reader, one of them the header.
_LOCK_FILE_BYTES: Final = 64 * (MAX_READERS + 2)
# Less free space than this is a full disk.
_FULL_BYTES: Final = 2**20


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
) -> Environment:
    """Open the environment in the directory `path`. See `Store.open`.

    To `write`, it is created on first use if there is a `creation`.
    """
    with translated(path):
        if os.path.exists(data_file(path)) and not os.access(path, os.W_OK):
            purpose = "look"
        write = purpose == "write"
        if creation is not None and write and not os.path.exists(_lock_of(path)):
            os.makedirs(path, mode=0o700, exist_ok=True)
            with Turnstile(path, lock_timeout_ms, sleep):
                _create(path, creation, map_size)
        _check_is_there(path)
        if write:
            _allocate_lock_file(path)
        env = _open(path, map_size, purpose)
        try:
            if env.flags()["lock"]:
                env.reader_check()
            if env.stat()["entries"] == 0:
                raise _missing(path)  # It has pages, but whoever began to make it did not finish.
            _check_length(path, env, write, lock_timeout_ms, sleep)
        except BaseException:
            env.close()
            raise
    return env


def look_alone(
    path: str,
    env: Environment,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
) -> AbstractContextManager[None]:
    """Keeps writers away for as long as a look takes that LMDB's table of readers does not show."""
    if env.flags()["lock"]:
        return nullcontext()
    return Turnstile(path, lock_timeout_ms, sleep, shared=True)


def write_alone(
    path: str,
    env: Environment,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
) -> AbstractContextManager[None]:
    """The write lock; without a lock file, for a `try`, the turnstile before it."""
    lock = WriteLock if env.flags()["lock"] else Turnstile
    return lock(path, lock_timeout_ms, sleep)


def open_table(env: Environment, txn: Any, name: str, *, create: bool) -> Any:
    """The handle of a table, valid within `txn`; None for one that is not there."""
    try:
        return env.open_db(name.encode(), txn=txn, create=create)
    except lmdb.NotFoundError:
        return None


def schema_of(env: Environment, txn: Any) -> int:
    """The number of the schema that a store was written with. Raises IntegrityError without one."""
    handle = open_table(env, txn, META.name, create=False)
    value = None if handle is None else txn.get(b"schema", db=handle)
    if value == bytes((UNSEALED_SCHEMA,)):
        return UNSEALED_SCHEMA
    if value is None:
        raise damaged(META, b"schema", "it is missing")
    return unpack_u64(META.opened(b"schema", value))


def copy_snapshot(env: Environment, path: str) -> None:
    """Write a consistent, compacted copy into the empty directory `path`."""
    env.copy(path, compact=True)
    os.chmod(data_file(path), 0o600)


def begin(env: Environment, *, write: bool) -> Any:
    """Begin a transaction; a writer holds the write lock.

    None when a process with a larger map has outgrown the map of this one; see `begin_alone`.
    """
    try:
        return env.begin(write=write)
    except lmdb.MapResizedError:
        return None


def begin_alone(env: Environment, *, write: bool) -> Any:
    """Begin the only transaction of this process, with a map as large as that of others."""
    txn = begin(env, write=write)
    if txn is None:
        env.set_mapsize(0)  # It adopts their size.
        txn = env.begin(write=write)
    return txn


def identity_of(path: str) -> tuple[int, int] | None:
    """What tells the data file at `path` from one that takes its place; None without one."""
    try:
        found = os.stat(data_file(path))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_identity(path: str, identity: tuple[int, int] | None) -> None:
    """Raises ConflictError when the data file is not the one that was opened."""
    if identity_of(path) != identity:
        raise ConflictError(
            f"the market in {path} was moved away or replaced meanwhile",
            hint="run it again on what is there now",
        )


def data_file(path: str) -> str:
    return os.path.join(path, DATA)


def _lock_of(path: str) -> str:
    return os.path.join(path, WRITE_LOCK)


def _readers_of(path: str) -> str:
    return os.path.join(path, "lock.mdb")


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


def _create(path: str, creation: Creation, map_size: int) -> None:
    """Make the tables, then the lock file, which says that the store is complete.

    The caller holds the turnstile. What a creation that failed left behind is too short to
    hold anything and is replaced; a store whose lock file alone was removed is kept.
    """
    if os.path.exists(_lock_of(path)):
        return  # Another process was faster.
    if _is_unfinished(path):
        os.remove(data_file(path))
    _allocate_lock_file(path)
    env = _open(path, map_size, "write")
    try:
        with env.begin(write=True) as txn:
            if env.stat()["entries"] == 0:
                for table in TABLES:
                    handle = env.open_db(table.name.encode(), txn=txn)
                    if table is META:
                        meta = handle
                for key, value in (
                    (b"schema", bytes((SCHEMA_VERSION,))),
                    (b"market_id", creation.market_id),
                    (b"genesis_ms", pack_u64(creation.now_ms)),
                ):
                    txn.put(key, META.sealed(key, value), db=meta)
    finally:
        env.close()
    os.close(os.open(_lock_of(path), os.O_CREAT | os.O_CLOEXEC, 0o600))


def _is_unfinished(path: str) -> bool:
    """Whether the data file is what LMDB leaves when it cannot finish its two header pages."""
    try:
        with open(data_file(path), "rb") as data:
            header = data.read(_EMPTY_BYTES + 1)
    except FileNotFoundError:
        return False
    return not header or (len(header) <= _EMPTY_BYTES and header[16:20] == _MAGIC)


def _has_table_of_readers(path: str) -> bool:
    """Whether there is one that can be used. Opening would make it otherwise, or lengthen one that
    a full disk has cut short."""
    name = _readers_of(path)
    return os.access(name, os.W_OK) and os.stat(name).st_size >= _LOCK_FILE_BYTES


def _allocate_lock_file(path: str) -> None:
    """Give LMDB's lock file its blocks: on a full disk, mapping it without them is fatal."""
    name = _readers_of(path)
    if not os.path.exists(name) or os.stat(name).st_blocks * 512 < _LOCK_FILE_BYTES:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
        finally:
            os.close(descriptor)


def _check_is_there(path: str) -> None:
    """Tell apart a place where no market ever was, and one whose data file is gone or empty."""
    if not os.path.exists(data_file(path)) or os.stat(data_file(path)).st_size <= _EMPTY_BYTES:
        raise _missing(path)


def _missing(path: str) -> MarketError:
    if os.path.exists(_lock_of(path)):
        return IntegrityError(
            f"{data_file(path)} is gone or empty, and there was a market in it",
            hint="restore the directory from a backup, or remove all of it to begin anew",
        )
    return NotFoundError(f"no market in {path}", hint="`tb-cli state init` makes one")


def _check_length(
    path: str,
    env: lmdb.Environment,
    write: bool,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
) -> None:
    """Refuse a truncated data file: reading past its end would kill the process.

    A sound file may be shorter than its header says too, when the last pages it took were given
    back unwritten. So only a full check tells, and a writer then fills a sound file up, so that
    the next command need not check again.
    """
    if os.stat(data_file(path)).st_size >= _needed(env):
        return
    alone = WriteLock if write else nobody_writing
    with alone(path, lock_timeout_ms, sleep):
        problems = verify_file(path)
        if problems:
            length = os.stat(data_file(path)).st_size
            raise IntegrityError(
                f"{data_file(path)} is damaged: it has {length} bytes, not {_needed(env)}: "
                f"{problems[0]}",
                hint="restore the directory from a backup",
            )
        if write and os.stat(data_file(path)).st_size < _needed(env):
            os.truncate(data_file(path), _needed(env))


def _needed(env: lmdb.Environment) -> int:
    return (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])


def verify_file(path: str) -> list[str]:
    # A walk in pure Python that most commands have no use for.
    from lmdb.verify import VerifyError, verify

    try:
        problems: list[Any] = verify(path)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        return [str(error)]
    return [str(problem) for problem in problems]


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn errors of LMDB and the file system into errors an operator can act on."""
    try:
        yield
    except (lmdb.ReadersFullError, lmdb.TlsFullError) as error:
        raise BusyError(f"{path}: {error}", hint="let some commands end first") from error
    except (lmdb.MapFullError, lmdb.TxnFullError) as error:
        raise BusyError(
            f"{path}: {error}", hint="give the store more room with a larger map_size_gib"
        ) from error
    except lmdb.DiskError as error:
        raise BusyError(f"{path}: {error}", hint=way_out(errno.ENOSPC)) from error
    except _DAMAGE as error:
        raise IntegrityError(
            f"{path}: {error}", hint="restore the directory from a backup"
        ) from error
    except lmdb.Error as error:
        number = getattr(error, "code", None)
        if isinstance(error, lmdb.ReadonlyError) and os.access(path, os.W_OK):
            number = None  # Not the directory, but the transaction cannot write.
        if not isinstance(number, int) or number <= 0:
            raise InternalError(f"{path}: {error}") from error
        raise _translate(path, OSError(number, os.strerror(number))) from error
    except OSError as error:
        raise _translate(path, error) from error


def _translate(path: str, error: OSError) -> MarketError:
    what = f"{error.filename or path}: {cause_of(error)}"
    # LMDB reports a write that the disk cut short as an input/output error.
    if error.errno in _NO_ROOM:
        return BusyError(what, hint=way_out(error.errno))
    if error.errno == errno.EIO and _is_full(path):
        return BusyError(what, hint=way_out(errno.ENOSPC))
    if error.errno == errno.EIO:
        return IntegrityError(what, hint="the disk failed; restore the directory from a backup")
    if error.errno == errno.ENOMEM:
        return BusyError(what, hint="allow more address space, or set a smaller map_size_gib")
    if error.errno == errno.EINVAL:
        return InternalError(what)
    return UsageError(what, hint="choose another directory with --home or TB_HOME")


def _is_full(path: str) -> bool:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize < _FULL_BYTES


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
_DAMAGE = (
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.NotFoundError,
    lmdb.IncompatibleError,
    lmdb.PanicError,
)
