"""The write lock: taken with a time-out, interruptible, fair, and free when its holder dies.

A process that waits for LMDB's own writer mutex can neither time out nor be interrupted, and cannot
say who it waits for, so writers queue here first. There are two kernel locks. The first, on the
directory, is a turnstile: whoever waits for the second holds it, so a process that commits many
small transactions cannot have the write lock again before the one that was already waiting. The
second, on the file `write.lock`, is the write lock. LMDB locks neither.

`Threads` is for those of one process, whose transactions share an environment.
"""

import fcntl
import os
from _thread import allocate_lock, get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from compute_market.errors import BusyError, InternalError
from compute_market.home import WRITE_LOCK, file_at, give_to_owner, lock_file, moved

_POLL_MS: Final = 1


class Patience:
    """What is left of the time that may be spent on waiting: `timeout_ms` in all.

    `sleep` is called with seconds, and may return how many it really took.
    """

    def __init__(self, timeout_ms: int, sleep: Callable[[float], float | None]) -> None:
        self._left_ms: float = timeout_ms
        self._sleep = sleep

    def is_over(self) -> bool:
        """True once no time is left; else wait a moment."""
        if self._left_ms <= 0:
            return True
        slept = self._sleep(_POLL_MS / 1000)
        self._left_ms -= _POLL_MS if slept is None else 1000 * slept
        return False

    def has_lock(self, descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
        """Wait for the lock on an open file; False if it was not to be had in time."""
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if self.is_over():
                    return False


class Turnstile:
    """Holds the turnstile for the length of a `with` block; alone, it guards the creation.

    Several may hold it `shared`, and no writer passes them. BusyError when there is no getting in
    within `timeout_ms`; see `Patience`. Each object is used once.
    """

    def __init__(
        self,
        path: str,
        timeout_ms: int,
        sleep: Callable[[float], float | None],
        *,
        shared: bool = False,
    ) -> None:
        self._path = path
        self._patience = Patience(timeout_ms, sleep)
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self.descriptor = -1  # of the directory

    def __enter__(self) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(self._path, flags)
        try:
            self.take(self.descriptor, self._kind)
        except BaseException:
            os.close(self.descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def take(self, descriptor: int, kind: int = fcntl.LOCK_EX) -> None:
        """Wait for the lock on an open file, within what is left of the time-out."""
        if not self._patience.has_lock(descriptor, kind):
            raise self._busy()

    def _busy(self) -> BusyError:
        lock = f"the write lock of {self._path}"
        holder = holder_of(lock_file(self._path))
        message = f"{lock} is held by " + (f"process {holder}" if holder else "another process")
        if holder is None and (holder := holder_of(self._path)) is not None:
            # Nobody has it. Who is next, or reads without a table of readers, lets nobody pass.
            message = f"process {holder} keeps others from {lock}"
        hint = "try again, or wait longer with --lock-timeout"
        if holder is not None and _is_stopped(holder):
            message += " and is stopped"
            hint = f"`kill -CONT {holder}` lets it go on, `kill -KILL {holder}` ends it"
        return BusyError(message, hint=hint, holder_pid=holder)


class WriteLock:
    """Holds the write lock of the store in a directory, for the length of a `with` block.

    Passes the turnstile first. Parameters are those of `Turnstile`. Raises BusyError naming the
    holder's pid, and ConflictError if the lock is not, or no longer, the one at the path.
    """

    def __init__(self, path: str, timeout_ms: int, sleep: Callable[[float], float | None]) -> None:
        self._turnstile = Turnstile(path, timeout_ms, sleep)
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        with self._turnstile:
            self._descriptor = self._opened()
            try:
                self._turnstile.take(self._descriptor)
                if file_at(self._descriptor) != file_at(lock_file(self._path)):
                    raise moved(self._path)
            except BaseException:
                os.close(self._descriptor)
                raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _opened(self) -> int:
        """The file in the directory of the turnstile, wherever that has been moved meanwhile."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = self._turnstile.descriptor
        try:
            return os.open(WRITE_LOCK, flags, dir_fd=directory)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(WRITE_LOCK, flags | os.O_CREAT, 0o600, dir_fd=directory)
        except FileNotFoundError as error:
            raise moved(self._path) from error  # The directory has been deleted.
        give_to_owner(lock_file(self._path))
        return descriptor


def holder_of(path: str) -> int | None:
    """The pid that holds a lock on the file at `path`, from the kernel's own table."""
    try:
        status = os.stat(path)
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                # 1: FLOCK  ADVISORY  WRITE 1234 08:01:567 0 EOF
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5] == f"{device}:{status.st_ino}":
                    return int(fields[4]) or None  # 0 stands for a process we cannot see.
    except OSError:
        return None
    return None


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name, in parentheses, may hold anything.
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


@contextmanager
def nobody_writing(
    path: str, lock_timeout_ms: int, sleep: Callable[[float], float | None]
) -> Iterator[None]:
    """For who reads page by page, to whom a writer at work looks like damage. Makes no file."""
    if os.access(path, os.W_OK) and os.path.exists(lock_file(path)):
        with WriteLock(path, lock_timeout_ms, sleep):
            yield
    else:
        with Turnstile(path, lock_timeout_ms, sleep, shared=True):
            yield


class Threads:
    """A readers–writer lock: any number of threads at once, or one alone.

    Whoever waits to be alone lets nobody in any more, and so waits for those inside at most.
    """

    def __init__(self) -> None:
        self._gate = allocate_lock()  # held by who is, or wants to be, alone
        self._counting = allocate_lock()
        self._room = allocate_lock()  # held by who is alone, or by the others together
        self._inside = 0
        self._alone: int | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        self._refuse_nesting()
        with self._gate, self._counting:
            if not self._inside:
                self._room.acquire()
            self._inside += 1
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> bool:
        """Enter as `shared` does if that waits for nobody, until one leaves."""
        if not self._gate.acquire(blocking=False):
            return False
        try:
            if not self._counting.acquire(blocking=False):
                return False
            try:
                if not self._inside and not self._room.acquire(blocking=False):
                    return False
                self._inside += 1
                return True
            finally:
                self._counting.release()
        finally:
            self._gate.release()

    def leave(self) -> None:
        with self._counting:
            self._inside -= 1
            if not self._inside:
                self._room.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        self._refuse_nesting()
        with self._gate, self._room:
            self._alone = get_ident()
            try:
                yield
            finally:
                self._alone = None

    def _refuse_nesting(self) -> None:
        if self._alone == get_ident():
            raise InternalError("a transaction within another one")
