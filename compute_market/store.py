"""The LMDB environment, its tables and its transactions. The only importer of `lmdb`.

The whole interface is `Store.update(fn)` and `Store.view(fn)`: `fn` gets a `Txn`; returning
commits, raising rolls back. Nobody outside this module begins or ends a transaction.

Writers queue on a lock of their own before LMDB's (`lock`).
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeVar

import lmdb
from msgspec import DecodeError, Struct
from msgspec.msgpack import Decoder, Encoder

from compute_market import records
from compute_market.errors import BusyError, IntegrityError, InternalError, MarketError, UsageError
from compute_market.lock import LOCK_NAME, Turnstile, WriteLock

SCHEMA_VERSION: Final = 1
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

# Table → the record its values decode to; None for tables of plain bytes (indexes and numbers).
TABLES: Final[dict[str, type[Struct] | None]] = {
    "meta": None,
    "counters": None,
    "accounts": None,
    "postings": records.Posting,
    "wallet_postings": None,
    "taps": records.Tap,
    "reputation": records.Score,
    "standing": None,
    "offers": records.Offer,
    "book": None,
    "heads": None,
    "provider_prices": None,
    "usage": records.Usage,
    "throughput": None,
    "jobs": records.Job,
    "slices": records.Slice,
    "deadlines": None,
    "pending": None,
    "queue_high": None,
    "queue_normal": None,
    "queue_low": None,
    "active": None,
    "active_low": None,
    "provider_cancels": None,
    "utilization": None,
    "effective_prices": None,
    "receipt_claims": None,
    "receipts": records.Receipt,
    "receipt_chain": records.Link,
    "settlements": records.Settlement,
    "unsettled": None,
    "settle_state": records.SettleState,
    "quarantine": None,
    "cancellations": records.Cancellation,
    "decisions": records.Decision,
}

_encode = Encoder().encode
_decoders = {name: Decoder(kind).decode for name, kind in TABLES.items() if kind is not None}

T = TypeVar("T")


def pack_u64(number: int) -> bytes:
    """Eight bytes that sort like the number."""
    return number.to_bytes(8, "big")


class _Tables(dict[str, Any]):
    """Handles of tables, each opened in this transaction when it is first used.

    A handle that a reading transaction opened ends with it. Opening without a transaction would
    wait for LMDB's writer, even in a command that only reads.
    """

    def __init__(self, env: lmdb.Environment, txn: Any) -> None:
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
        env: lmdb.Environment,
        txn: Any,  # The stubs of lmdb allow for its `buffers` mode, which is never used here.
        now_ms: int,
        stopwatch: Callable[[], int] | None,
    ) -> None:
        self._txn = txn
        self._dbs = _Tables(env, txn)
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
        for item in self.scan(table, prefix, start):
            if len(found) == limit:
                break
            found.append(item)
        return found

    # Records.

    def read(self, table: str, key: bytes) -> Any:
        """The record under `key`, or None. Raises IntegrityError when it does not decode."""
        value = self._txn.get(key, db=self._dbs[table])
        return None if value is None else decode(table, key, value)

    def write(self, table: str, key: bytes, record: Struct) -> None:
        self.writes += 1
        self._txn.put(key, _encode(record), db=self._dbs[table])

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


def decode(table: str, key: bytes, value: bytes) -> Any:
    """Decode a stored value. Raises IntegrityError naming table and key when it is damaged."""
    try:
        return _decoders[table](value)
    except (DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"table {table}, key {key!r}: the stored record is damaged ({error})",
            hint="run `tb-cli compute-market audit`; restore from a backup",
        ) from error


class Store:
    """One market on disk, in the directory `path`.

    A process opens a store at most once at a time and closes it before it forks.
    """

    def __init__(
        self, path: str, env: lmdb.Environment, lock_timeout_ms: int, sleep: Callable[[float], None]
    ) -> None:
        self.path = path
        self._env = env
        self._lock_timeout_ms = lock_timeout_ms
        self._sleep = sleep

    @classmethod
    def open(
        cls,
        path: str,
        *,
        now_ms: int,
        market_id: bytes,
        sleep: Callable[[float], None],
        lock_timeout_ms: int = 30_000,
        map_size: int = MAP_SIZE,
    ) -> "Store":
        """Open the store, creating it when the directory is missing or empty.

        `now_ms` and `market_id` (16 random bytes) become the genesis of a new store and are not
        used otherwise. `sleep` is called with seconds while waiting for the write lock, at most
        `lock_timeout_ms` in all.

        Raises UsageError when `path` cannot hold a store or holds one of a newer schema, BusyError
        when the disk is full or the write lock is not had in time, IntegrityError when the data
        file is damaged.
        """
        with _translated(path):
            readonly = os.path.exists(_data(path)) and not os.access(path, os.W_OK)
            if not readonly and not os.path.exists(os.path.join(path, LOCK_NAME)):
                os.makedirs(path, mode=0o700, exist_ok=True)
                with Turnstile(path, lock_timeout_ms, sleep):
                    _create(path, now_ms, market_id, map_size)
            _check_not_lost(path)
            if not readonly:
                _allocate_lock_file(path)
            env = _open_environment(path, map_size, readonly=readonly)
            try:
                env.reader_check()
                _check_length(path, env, readonly, lock_timeout_ms, sleep)
                _check_schema(path, env)
            except BaseException:
                env.close()
                raise
        return cls(path, env, lock_timeout_ms, sleep)

    def close(self) -> None:
        self._env.close()

    @property
    def readonly(self) -> bool:
        """Whether the directory cannot be written, so that only `view` works."""
        return bool(self._env.flags()["readonly"])

    def view(self, fn: Callable[[Txn], T], *, now_ms: int) -> T:
        """Run `fn` over one snapshot. It must not write, and the result must not hold the Txn."""
        with _translated(self.path), self._begin(write=False) as txn:
            return fn(Txn(self._env, txn, now_ms, None))

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
        with _translated(self.path), WriteLock(self.path, timeout_ms, self._sleep):
            txn = self._begin(write=True)
            try:
                bound = Txn(self._env, txn, now_ms, stopwatch)
                result = fn(bound)
                bound.flush_counts()
            except BaseException:
                txn.abort()
                raise
            if dry_run:
                txn.abort()
            else:
                txn.commit()
            return result

    def verify(self) -> list[str]:
        """Check the structure of the data file page by page; one line per problem."""
        with _translated(self.path):
            problems = _verify(self.path)
            if problems and not self.readonly:
                # A writer at work looks like damage to somebody who reads page by page.
                with WriteLock(self.path, self._lock_timeout_ms, self._sleep):
                    problems = _verify(self.path)
            return problems

    def backup(self, path: str) -> None:
        """Copy a consistent, compacted snapshot into the empty directory `path`."""
        with _translated(path):
            self._env.copy(path, compact=True)
            os.chmod(_data(path), 0o600)

    def _begin(self, *, write: bool) -> Any:
        try:
            return self._env.begin(write=write)
        except lmdb.MapResizedError:
            # A process with a larger map has outgrown ours; zero adopts its size.
            self._env.set_mapsize(0)
            return self._env.begin(write=write)


def _data(path: str) -> str:
    return os.path.join(path, "data.mdb")


def _open_environment(path: str, map_size: int, *, readonly: bool = False) -> lmdb.Environment:
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
        os.remove(_data(path))
    _allocate_lock_file(path)
    env = _open_environment(path, map_size)
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
        with open(_data(path), "rb") as data:
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
    if not os.path.exists(_data(path)) or os.stat(_data(path)).st_size <= _EMPTY_BYTES:
        raise IntegrityError(
            f"{_data(path)} is gone or empty, and there was a market in it",
            hint="restore the directory from a backup, or remove all of it to begin anew",
        )


def _check_length(
    path: str,
    env: lmdb.Environment,
    readonly: bool,
    lock_timeout_ms: int,
    sleep: Callable[[float], None],
) -> None:
    """Refuse a truncated data file: reading past its end would kill the process.

    A sound file may be shorter than its header says too, when the last pages it took were given
    back unwritten. So only a full check tells, and a sound file is then filled up, so that the
    next command need not check again.
    """
    if os.stat(_data(path)).st_size >= _needed(env):
        return
    with nullcontext() if readonly else WriteLock(path, lock_timeout_ms, sleep):
        problems = _verify(path)
        if problems:
            raise IntegrityError(
                f"{_data(path)} is damaged: it has {os.stat(_data(path)).st_size} bytes and should "
                f"have {_needed(env)}: {problems[0]}",
                hint="restore the directory from a backup",
            )
        if not readonly and os.stat(_data(path)).st_size < _needed(env):
            os.truncate(_data(path), _needed(env))


def _needed(env: lmdb.Environment) -> int:
    return (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])


def _verify(path: str) -> list[str]:
    # A walk in pure Python that most commands have no use for.
    from lmdb.verify import VerifyError, verify

    try:
        problems: list[Any] = verify(path)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        return [str(error)]
    return [str(problem) for problem in problems]


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn errors of LMDB and the file system into errors an operator can act on."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.ReadersFullError, lmdb.TxnFullError) as error:
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
