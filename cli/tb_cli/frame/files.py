"""Reading what operators hand in: a file, or stdin as `-`."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from compute_market.errors import BusyError, UsageError
from compute_market.text import cause_of, legible

SIZE_MAX = 64 * 2**20
# Opening a FIFO must not wait for a writer, and a terminal must not become the controlling one.
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY


def lines(path: str) -> Iterator[bytes]:
    """The lines of a file or of stdin, as they are taken; any number of them.

    Raises UsageError naming the file, also for a line over 64 MiB.
    """
    try:
        if path == "-":
            yield from _lines_of(sys.stdin.buffer, path)
        else:
            with _opened(path) as file:
                yield from _lines_of(file, path)
    except OSError as error:
        raise UsageError(f"{path}: {cause_of(error)}") from error


def _lines_of(file: BinaryIO, path: str) -> Iterator[bytes]:
    while line := file.readline(SIZE_MAX + 1):
        if len(line) > SIZE_MAX:
            raise UsageError(f"{path}: a line of more than {SIZE_MAX} bytes")
        yield line


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


def replace(path: str, text: str) -> None:
    """Write a file of results at once: readers see the old one or the new one, never half of it.

    Raises BusyError on a full disk, else UsageError naming the file.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        message = f"{path}: {cause_of(error)}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BusyError(message, hint="free some disk space and try again") from error
        raise UsageError(message) from error


def check_text(text: str, what: str) -> str:
    """The text. Raises UsageError unless it is UTF-8, as all must be that the market keeps."""
    if legible(text) != text:
        raise UsageError(f"{what} {text} is not UTF-8")
    return text


def source_of(path: str) -> str:
    return "stdin" if path == "-" else path


def _opened(path: str) -> BinaryIO:
    # O_NONBLOCK: opening a FIFO must not wait for a writer. Reading waits for one that is there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = open(descriptor, "rb")  # noqa: SIM115 - its caller closes it
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        file.close()
        raise UsageError(f"{path}: is a directory")
    os.set_blocking(descriptor, True)
    return file
