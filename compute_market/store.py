"""The LMDB environment, its tables and its transactions. The only importer of `lmdb`.

The whole interface is `Store.update(fn)` and `Store.view(fn)`: `fn` gets a `Txn`; returning
commits, raising rolls back. Nobody outside this module begins or ends a transaction.

Writers queue on two advisory locks before LMDB's own, because a process that waits for LMDB's
writer mutex can neither time out nor be interrupted, and cannot say who it waits for. The first
lock is a turnstile: whoever waits for the write lock holds it, so a process that commits many
small transactions cannot take the write lock again before the one that was already waiting.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import lmdb
from msgspec import DecodeError, Struct
from msgspec.msgpack import Decoder, Encoder

from compute_market import records
from compute_market.errors import BusyError, IntegrityError, MarketError, UsageError

SCHEMA_VERSION: Final = 1
MAP_SIZE: Final = 64 * 2**30
MAX_TABLES: Final = 64
MAX_READERS: Final = 512
_POLL_MS: Final = 1

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
        readonly = os.path.exists(os.path.join(path, "data.mdb")) and not os.access(path, os.W_OK)
        with _translated(path):
            if not readonly:
                os.makedirs(path, mode=0o700, exist_ok=True)
            env = lmdb.open(
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
        store = cls(path, env, lock_timeout_ms, sleep)
        try:
            with _translated(path):
                env.reader_check()
                _check_length(path, env)
                if not store._is_created():
                    store._create(now_ms, market_id)
        except BaseException:
            env.close()
            raise
        return store

    def close(self) -> None:
        self._env.close()

    @property
    def readonly(self) -> bool:
        """Whether the directory cannot be written, so that only `view` works."""
        return bool(self._env.flags()["readonly"])

    def view(self, fn: Callable[[Txn], T], *, now_ms: int) -> T:
        """Run `fn` over one snapshot. It must not write, and the result must not hold the Txn."""
        with _translated(self.path), self._env.begin() as txn:
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
        with _translated(self.path), _WriteLock(self.path, timeout_ms, self._sleep):
            txn = self._env.begin(write=True)
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
        # A walk in pure Python that most commands have no use for.
        from lmdb.verify import verify

        with _translated(self.path):
            problems: list[Any] = verify(self.path)  # type: ignore[no-untyped-call]
            return [str(problem) for problem in problems]

    def backup(self, path: str) -> None:
        """Copy a consistent, compacted snapshot into the empty directory `path`."""
        with _translated(path):
            self._env.copy(path, compact=True)

    def _is_created(self) -> bool:
        """Whether the tables exist. Raises UsageError for a store of another schema."""
        with self._env.begin() as txn:
            try:
                meta = self._env.open_db(b"meta", txn=txn, create=False)
            except lmdb.NotFoundError:
                return False
            version = int.from_bytes(txn.get(b"schema", db=meta) or b"", "big")
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{self.path} was written with schema {version}, this version reads "
                f"{SCHEMA_VERSION}",
                hint="use the tb-cli that wrote it, or a newer one",
            )
        return True

    def _create(self, now_ms: int, market_id: bytes) -> None:
        with _WriteLock(self.path, self._lock_timeout_ms, self._sleep):
            if self._is_created():  # Another process was faster.
                return
            with self._env.begin(write=True) as txn:
                tables = {name: self._env.open_db(name.encode(), txn=txn) for name in TABLES}
                meta = tables["meta"]
                txn.put(b"schema", bytes([SCHEMA_VERSION]), db=meta)
                txn.put(b"market_id", market_id, db=meta)
                txn.put(b"genesis_ms", pack_u64(now_ms), db=meta)


class _WriteLock:
    """The turnstile and the write lock of a store, both released when the process dies.

    Kernel locks on two descriptors: the turnstile on the directory, the write lock on the file
    `write.lock`. LMDB locks neither.
    """

    def __init__(self, path: str, timeout_ms: int, sleep: Callable[[float], None]) -> None:
        self._path = path
        self._budget_ms = timeout_ms
        self._sleep = sleep
        self._descriptor = -1

    def __enter__(self) -> None:
        turnstile = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._take(turnstile)
            self._descriptor = os.open(
                os.path.join(self._path, "write.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                self._take(self._descriptor)
            except BaseException:
                os.close(self._descriptor)
                raise
        finally:
            os.close(turnstile)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _take(self, descriptor: int) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._budget_ms <= 0:
                    raise self._busy() from None
            self._sleep(_POLL_MS / 1000)
            self._budget_ms -= _POLL_MS

    def _busy(self) -> BusyError:
        holder = _holder(os.path.join(self._path, "write.lock"))
        return BusyError(
            f"the write lock of {self._path} is held by "
            + (f"process {holder}" if holder else "another process"),
            hint="try again, or wait longer with --lock-timeout",
            holder_pid=holder,
        )


def _holder(path: str) -> int | None:
    """The pid that holds the lock on the file at `path`, from the kernel's own table."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                # 1: FLOCK  ADVISORY  WRITE 1234 08:01:567 0 EOF
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                    return int(fields[4])
    except OSError:
        return None
    return None


def _check_length(path: str, env: lmdb.Environment) -> None:
    """Refuse a data file shorter than its own header says: reading past its end kills a process."""
    data = os.path.join(path, "data.mdb")
    needed = (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])
    length = os.stat(data).st_size
    if 0 < length < needed:
        raise IntegrityError(
            f"{data} is damaged: it has {length} bytes and should have at least {needed}",
            hint="restore the directory from a backup",
        )


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
        raise BusyError(f"{path}: {error}", hint="free some disk space and try again") from error
    except lmdb.Error as error:
        number = getattr(error, "code", None)
        if isinstance(number, int) and number > 0:
            raise _translate(path, OSError(number, os.strerror(number))) from error
        raise IntegrityError(
            f"{path}: {error}", hint="restore the directory from a backup"
        ) from error
    except OSError as error:
        raise _translate(path, error) from error


def _translate(path: str, error: OSError) -> MarketError:
    what = f"{error.filename or path}: {(error.strerror or str(error)).lower()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EMFILE):
        return BusyError(what, hint="free some disk space and try again")
    if error.errno == errno.EIO:
        return IntegrityError(what, hint="the disk failed; restore the directory from a backup")
    return UsageError(what, hint="choose another directory with --home or TB_HOME")
