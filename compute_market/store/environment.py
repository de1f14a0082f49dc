"""The LMDB environment on disk: created, opened, checked. The only importer of `lmdb`."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import lmdb

from compute_market.errors import (
    BusyError,
    IntegrityError,
    InternalError,
    MarketError,
    UsageError,
)
from compute_market.store.lock import LOCK_NAME, Turnstile, WriteLock
from compute_market.store.schema import SCHEMA_VERSION, TABLES, pack_u64

Environment = lmdb.Environment

MAP_SIZE: Final = 64 * 2**30
MAX_TABLES: Final = 64
MAX_READERS: Final = 512
# A data file of two header pages holds nothing.
_EMPTY_BYTES: Final = 8192
_MAGIC: Final = 0xBEEFC0DE.to_bytes(4, "little")
# LMDB's lock file: 64 bytes for each reader, one of them the header.
_LOCK_FILE_BYTES: Final = 64 * (MAX_READERS + 2)
# Less free space than this is a full disk.
_FULL_BYTES: Final = 2**20


def open_environment(
    path: str,
    *,
    now_ms: int,
    market_id: bytes,
    map_size: int,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
) -> Environment:
    """Open the environment in the directory `path`, creating it on first use. See `Store.open`."""
    with translated(path):
        readonly = os.path.exists(data_file(path)) and not os.access(path, os.W_OK)
        if not readonly and not os.path.exists(os.path.join(path, LOCK_NAME)):
            os.makedirs(path, mode=0o700, exist_ok=True)
            with Turnstile(path, lock_timeout_ms, sleep):
                _create(path, now_ms, market_id, map_size)
        _check_not_lost(path)
        if not readonly:
            _allocate_lock_file(path)
        env = _open(path, map_size, readonly=readonly)
        try:
            env.reader_check()
            _check_length(path, env, readonly, lock_timeout_ms, sleep)
            _check_schema(path, env)
        except BaseException:
            env.close()
            raise
    return env


def begin(env: Environment, *, write: bool) -> Any:
    """Begin a transaction; a writer holds the write lock."""
    try:
        return env.begin(write=write)
    except lmdb.MapResizedError:
        # A process with a larger map has outgrown ours; zero adopts its size.
        env.set_mapsize(0)
        return env.begin(write=write)


def data_file(path: str) -> str:
    return os.path.join(path, "data.mdb")


def _open(path: str, map_size: int, *, readonly: bool = False) -> lmdb.Environment:
    return lmdb.open(
        path,
        map_size=map_size,
        max_dbs=MAX_TABLES,
        max_readers=MAX_READERS,
        mode=0o700,
        readonly=readonly,
        lib_version=0,
        metasync=True,
        sync=True,
    )


def _create(path: str, now_ms: int, market_id: bytes, map_size: int) -> None:
    """Make the tables, then the lock file, which says that the store is complete.

    The caller holds the turnstile. What a creation that failed left behind is too short to
    hold anything and is replaced; a store whose lock file alone was removed is kept.
    """
    if os.path.exists(os.path.join(path, LOCK_NAME)):
        return  # Another process was faster.
    if _is_unfinished(path):
        os.remove(data_file(path))
    _allocate_lock_file(path)
    env = _open(path, map_size)
    try:
        with env.begin(write=True) as txn:
            if env.stat()["entries"] == 0:
                tables = {name: env.open_db(name.encode(), txn=txn) for name in TABLES}
                meta = tables["meta"]
                txn.put(b"schema", bytes([SCHEMA_VERSION]), db=meta)
                txn.put(b"market_id", market_id, db=meta)
                txn.put(b"genesis_ms", pack_u64(now_ms), db=meta)
    finally:
        env.close()
    os.close(os.open(os.path.join(path, LOCK_NAME), os.O_CREAT | os.O_CLOEXEC, 0o600))


def _is_unfinished(path: str) -> bool:
    """Whether the data file is what LMDB leaves when it cannot finish its two header pages."""
    try:
        with open(data_file(path), "rb") as data:
            header = data.read(_EMPTY_BYTES + 1)
    except FileNotFoundError:
        return False
    return not header or (len(header) <= _EMPTY_BYTES and header[16:20] == _MAGIC)


def _allocate_lock_file(path: str) -> None:
    """Give LMDB's lock file its blocks: on a full disk, mapping it without them is fatal."""
    name = os.path.join(path, "lock.mdb")
    if not os.path.exists(name) or os.stat(name).st_blocks * 512 < _LOCK_FILE_BYTES:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
        finally:
            os.close(descriptor)


def _check_schema(path: str, env: lmdb.Environment) -> None:
    with env.begin() as txn:
        meta = env.open_db(b"meta", txn=txn, create=False)
        version = int.from_bytes(txn.get(b"schema", db=meta) or b"", "big")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} was written with schema {version}, this version reads {SCHEMA_VERSION}",
            hint="use the tb-cli that wrote it, or a newer one",
        )


def _check_not_lost(path: str) -> None:
    """Refuse to begin a new market where the data file of an old one is gone or empty."""
    if not os.path.exists(os.path.join(path, LOCK_NAME)):
        return
    if not os.path.exists(data_file(path)) or os.stat(data_file(path)).st_size <= _EMPTY_BYTES:
        raise IntegrityError(
            f"{data_file(path)} is gone or empty, and there was a market in it",
            hint="restore the directory from a backup, or remove all of it to begin anew",
        )


def _check_length(
    path: str,
    env: lmdb.Environment,
    readonly: bool,
    lock_timeout_ms: int,
    sleep: Callable[[float], float | None],
) -> None:
    """Refuse a truncated data file: reading past its end would kill the process.

    A sound file may be shorter than its header says too, when the last pages it took were given
    back unwritten. So only a full check tells, and a sound file is then filled up, so that the
    next command need not check again.
    """
    if os.stat(data_file(path)).st_size >= _needed(env):
        return
    with nullcontext() if readonly else WriteLock(path, lock_timeout_ms, sleep):
        problems = verify_file(path)
        if problems:
            length = os.stat(data_file(path)).st_size
            raise IntegrityError(
                f"{data_file(path)} is damaged: it has {length} bytes, not {_needed(env)}: "
                f"{problems[0]}",
                hint="restore the directory from a backup",
            )
        if not readonly and os.stat(data_file(path)).st_size < _needed(env):
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
        raise BusyError(f"{path}: {error}", hint=_FREE_SPACE) from error
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
    what = f"{error.filename or path}: {(error.strerror or str(error)).lower()}"
    # LMDB reports a write that the disk cut short as an input/output error.
    if error.errno in _NO_ROOM or (error.errno == errno.EIO and _is_full(path)):
        return BusyError(what, hint=_FREE_SPACE)
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


_FREE_SPACE = "free some disk space and try again"
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
