"""Reading what operators hand in: a file, or stdin as `-`."""

import os
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO

from compute_market.errors import UsageError
from compute_market.text import cause_of, legible

SIZE_MAX = 64 * 2**20
# What a path names, rather than where it is, is all that such a directory says.
_STREAMS = ("/dev", "/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")


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


def check_text(text: str, what: str) -> str:
    """The text. Raises UsageError unless it is UTF-8, as all must be that the market keeps."""
    if legible(text) != text:
        raise UsageError(f"{what} {text} is not UTF-8")
    return text


def directory_of(path: str) -> str:
    """What the paths in a file are relative to: its directory; for a stream the present one."""
    directory = os.path.dirname(path)
    return "" if path == "-" or directory in _STREAMS else directory


def source_of(path: str) -> str:
    return "stdin" if path == "-" else path


def _opened(path: str) -> BinaryIO:
    # Opening a FIFO must not wait for a writer, and a terminal must not become the controlling one.
    # Reading waits for a writer that is there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    file = open(descriptor, "rb")  # noqa: SIM115 - its caller closes it
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        file.close()
        raise UsageError(f"{path}: is a directory")
    os.set_blocking(descriptor, True)
    return file
