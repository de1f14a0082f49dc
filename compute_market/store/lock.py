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
from compute_market.home import WRITE_LOCK

_POLL_MS: Final = 1


class Turnstile:
    """Holds the turnstile for the length of a `with` block; alone, it guards the creation.

    Several may hold it `shared`, and no writer passes them. `sleep` is called with seconds while
    waiting, and may return how many it really took; after `timeout_ms` in all, BusyError. Each
    object is used once.
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
        self._budget_ms: float = timeout_ms
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._sleep = sleep
        self._turnstile = -1

    def __enter__(self) -> None:
        self._turnstile = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.take(self._turnstile, self._kind)
        except BaseException:
            os.close(self._turnstile)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._turnstile)

    def take(self, descriptor: int, kind: int = fcntl.LOCK_EX) -> None:
        """Wait for the lock on an open file, within what is left of the time-out."""
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._budget_ms <= 0:
                    raise self._busy() from None
            slept = self._sleep(_POLL_MS / 1000)
            self._budget_ms -= _POLL_MS if slept is None else 1000 * slept

    def _busy(self) -> BusyError:
        holder = _holder(os.path.join(self._path, WRITE_LOCK))
        return BusyError(
            f"the write lock of {self._path} is held by "
            + (f"process {holder}" if holder else "another process"),
            hint="try again, or wait longer with --lock-timeout",
            holder_pid=holder,
        )


class WriteLock:
    """Holds the write lock of the store in a directory, for the length of a `with` block.

    Passes the turnstile first. Parameters and errors are those of `Turnstile`; BusyError names
    the holder's pid.
    """

    def __init__(self, path: str, timeout_ms: int, sleep: Callable[[float], float | None]) -> None:
        self._turnstile = Turnstile(path, timeout_ms, sleep)
        self._file = os.path.join(path, WRITE_LOCK)
        self._descriptor = -1

    def __enter__(self) -> None:
        with self._turnstile:
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._turnstile.take(self._descriptor)
            except BaseException:
                os.close(self._descriptor)
                raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _holder(path: str) -> int | None:
    """The pid that holds the lock on the file at `path`, from the kernel's own table."""
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


@contextmanager
def nobody_writing(
    path: str, lock_timeout_ms: int, sleep: Callable[[float], float | None]
) -> Iterator[None]:
    """For who reads page by page, to whom a writer at work looks like damage. Makes no file."""
    if os.access(path, os.W_OK) and os.path.exists(os.path.join(path, WRITE_LOCK)):
        with WriteLock(path, lock_timeout_ms, sleep):
            yield
    else:
        with Turnstile(path, lock_timeout_ms, sleep, shared=True):
            yield


class Threads:
    """A readers–writer lock: any number of threads at once, or one alone."""

    def __init__(self) -> None:
        self._counting = allocate_lock()
        self._room = allocate_lock()  # held by who is alone, or by the others together
        self._inside = 0
        self._alone: int | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        self._refuse_nesting()
        with self._counting:
            if not self._inside:
                self._room.acquire()
            self._inside += 1
        try:
            yield
        finally:
            with self._counting:
                self._inside -= 1
                if not self._inside:
                    self._room.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        self._refuse_nesting()
        with self._room:
            self._alone = get_ident()
            try:
                yield
            finally:
                self._alone = None

    def _refuse_nesting(self) -> None:
        if self._alone == get_ident():
            raise InternalError("a transaction within another one")
