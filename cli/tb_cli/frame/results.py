"""Files of results: opened before anything is done, in place at once when all is done.

Readers see the old file or the new one, never half of it. What is there and is no regular file, a
device or a FIFO, is written to as it is.
"""

import errno
import os
import stat
from types import TracebackType

from compute_market import home
from compute_market.errors import MarketError, UsageError, file_error
from compute_market.text import quoted

PRIVATE = 0o600
PUBLIC = 0o644

_LINKS_MAX = 40
# Opening a FIFO must not wait for a reader, and a terminal must not become the controlling one.
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STDOUT, _STDERR = 1, 2


class Result:
    """A file of results on its way: `write` makes it, `discard` leaves what was there.

    A long one gets its parts by `add` before; `write` is the last of them.

    A link is followed to its end, and what is there is replaced, unless it is a link of another
    user. A file that is replaced passes on its mode and, if root writes, its owner; a new one has
    `mode`. A file that somebody names is `beside` the home in this directory, and no part of it or
    of that of another market; None is for what a home itself keeps. As a context it discards what
    was not written.

    Raises UsageError naming the file when it cannot be written, BusyError when there is no room or
    no descriptor for it, each as soon as it can be known.
    """

    def __init__(self, path: str, *, beside: str | None, mode: int = PRIVATE) -> None:
        if beside is not None:
            check_free(path, beside)
        self._path = path
        self._mode = mode
        self._owner: tuple[int, int] | None = None
        self._descriptor = -1
        self._directory = -1
        self._temporary = ""  # while there is one, the name of the file that is written
        try:
            self._open()
        except (OSError, ValueError) as error:
            self.discard()
            raise self._failed(error) from error

    def __enter__(self) -> "Result":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def add(self, part: bytes) -> None:
        """Write a part of it. Nothing is in the place of what was there yet, but in a stream."""
        try:
            self._put(part)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, text: str) -> None:
        """Put the text into the place of what was there. The last thing to be done with it."""
        try:
            self._put(text.encode())
            if self._temporary:
                self._replace()
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave the place as it was, unless it was written."""
        try:
            if self._temporary:
                os.unlink(self._temporary, dir_fd=self._directory)
        except OSError:
            pass  # Somebody else has tidied up, or the disk has failed: there is no more to do.
        self._temporary = ""
        for descriptor in (self._descriptor, self._directory):
            if descriptor != -1:
                os.close(descriptor)
        self._descriptor = self._directory = -1

    def _put(self, part: bytes) -> None:
        left = memoryview(part)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def _open(self) -> None:
        if not self._path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        target = _end_of(self._path)
        there = _status(self._path)
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if there is not None and (own := _own_stream(there)) is not None:
            self._descriptor = os.dup(own)
            return
        # What is there and is nowhere else leads to an open file: a link of /proc or /dev/fd.
        if there is not None and not (stat.S_ISREG(there.st_mode) and _is(target, there)):
            self._descriptor = os.open(self._path, os.O_WRONLY | _AT_ONCE)
            os.set_blocking(self._descriptor, True)
            return
        if there is not None:
            self._mode = stat.S_IMODE(there.st_mode)
            self._owner = there.st_uid, there.st_gid
        directory, self._name = os.path.split(target)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._directory = os.open(directory or ".", flags)
        # Whoever may write in this directory must not be able to put a file or a link in the way.
        temporary = f".tb-{os.urandom(8).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(temporary, flags, PRIVATE, dir_fd=self._directory)
        self._temporary = temporary

    def _replace(self) -> None:
        if self._owner is not None and os.geteuid() == 0:
            os.fchown(self._descriptor, *self._owner)
        os.fchmod(self._descriptor, self._mode)
        os.fsync(self._descriptor)
        directory = self._directory
        os.replace(self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        self._temporary = ""
        os.fsync(directory)

    def _failed(self, error: OSError | ValueError) -> MarketError:
        if not isinstance(error, OSError):
            return UsageError(f"{quoted(self._path)}: not a path: {error}")
        if error.errno == errno.ENXIO:
            return UsageError(f"{quoted(self._path)}: nobody reads it")
        return file_error(quoted(self._path), error)


def replace(path: str, text: str, *, beside: str | None) -> None:
    """Write a file of results that nothing else depends on; see `Result`."""
    Result(path, beside=beside).write(text)


def check_free(path: str, beside: str) -> None:
    """Raise UsageError for what is no place for results: stdout, and what belongs to the home in
    the directory `beside`, there or not yet, or to another market."""
    if path == "-":
        raise UsageError(
            "-: the results go to a file, not to stdout", hint="./- is a file of that name"
        )
    try:
        own = home.own_part(beside, path) or home.part_of_market(path)
    except (OSError, ValueError):
        return  # Whoever opens it says what is wrong.
    if own is not None:
        verb = "is" if os.path.realpath(path) == own else "leads into"
        raise UsageError(
            f"{quoted(path)} {verb} {quoted(own)}, which belongs to the market itself",
            hint="choose a place outside of the home",
        )


def _end_of(path: str) -> str:
    """Where a path leads when all its links at the end are followed.

    Raises OSError for a link of somebody else, which may lead to where only we may write.
    """
    for _ in range(_LINKS_MAX):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(status.st_mode):
            return path
        if status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, "is a link of another user")
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is(path: str, status: os.stat_result) -> bool:
    found = _status(path)
    return found is not None and os.path.samestat(found, status)


def _own_stream(status: os.stat_result) -> int | None:
    """The output of this process that leads to a regular file, if it is this one: replacing that
    would lose what is printed."""
    for descriptor in (_STDOUT, _STDERR):
        try:
            if stat.S_ISREG(status.st_mode) and os.path.samestat(os.fstat(descriptor), status):
                return descriptor
        except OSError:
            continue  # It is closed.
    return None
