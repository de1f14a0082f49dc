"""Files that operators name and those of the home."""

import errno
import os
import stat
from contextlib import suppress

from compute_market.errors import BusyError, MarketError, UsageError
from compute_market.text import cause_of, legible

SIZE_MAX = 64 * 2**20
# Opening a FIFO must not wait for a writer, and a terminal must not become the controlling one.
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY


def check_readable(path: str) -> None:
    """Raise UsageError unless there is something to read, by the look of it; `-` is stdin."""
    if path == "-":
        return
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UsageError(f"{path}: {cause_of(error)}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a directory")


def read_kept(path: str) -> bytes:
    """The bytes of a file of the home.

    Raises OSError, also for anything but a regular file: a FIFO is not waited for.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()


class Result:
    """A file of results, written at once: readers see the old one or the new one, never half of it.

    It is opened before it is known what it will hold. Raises BusyError on a full disk, else
    UsageError naming the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._temporary = f"{path}.{os.getpid()}.tmp"
        try:
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._file = open(self._temporary, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise self._failure(error) from error

    def write(self, text: str) -> None:
        """Put the text in its place."""
        try:
            with self._file as file:
                file.write(text)
            os.replace(self._temporary, self._path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(self._temporary)
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> MarketError:
        message = f"{self._path}: {cause_of(error)}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return BusyError(message, hint="free some disk space and try again")
        return UsageError(message)


def replace(path: str, text: str) -> None:
    """Write a file of results at once, as `Result` does."""
    Result(path).write(text)


def check_text(text: str, what: str) -> str:
    """The text. Raises UsageError unless it is UTF-8, as all must be that the market keeps."""
    if legible(text) != text:
        raise UsageError(f"{what} {text} is not UTF-8")
    return text
