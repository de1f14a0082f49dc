"""Lines of a file, or of standard input as `-`, as they are taken: any number in flat memory."""

import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from io import UnsupportedOperation
from itertools import islice
from typing import BinaryIO

from compute_market.errors import MarketError, UsageError, file_error

WORDS_MAX = 64 * 1024  # bytes of a line that holds an id or a command
# Of one that is longer than it may be, so much is passed over to find the next.
SKIPPED_MAX = 64 * 2**20


class Lines:
    """The lines of a file or of stdin, with their line breaks.

    Of a line of more than `length_max` bytes there are the first `length_max + 1`, and the rest is
    passed over. With `keep`, lines are kept from when they are read until `forget` is told of them,
    so that what was not dealt with is known however a command ends. Raises UsageError for a file
    that cannot be read.
    """

    def __init__(self, path: str, length_max: int, *, keep: bool = False) -> None:
        self.path = path
        self.source = source_of(path)
        self._length_max = length_max
        self._keep = keep
        self._file: BinaryIO | None = None
        self._numbered: Iterator[tuple[int, bytes]] | None = None
        self._kept: deque[tuple[int, bytes]] = deque()

    def __iter__(self) -> Iterator[bytes]:
        for _, line in self.numbered():
            yield line

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """The lines with their numbers, from 1."""
        while found := self._next():
            yield found

    def kept(self, first: int, last: int) -> bytes:
        """Lines that are still kept, from one number to another, both included."""
        return b"".join(line for number, line in self._kept if first <= number <= last)

    def forget(self, number: int) -> None:
        """Let go of the lines up to this number."""
        while self._kept and self._kept[0][0] <= number:
            self._kept.popleft()

    def left(self) -> Iterator[bytes]:
        """The lines that are kept, and then those that were not read yet.

        A terminal is not read on: nobody may be there to end it.
        """
        while self._kept:
            yield self._kept.popleft()[1]
        if self.path == "-" and sys.stdin.isatty():
            return
        while found := self._next():
            self._kept.clear()
            yield found[1]

    def _next(self) -> tuple[int, bytes] | None:
        """The number of the next line and the line; None at the end."""
        try:
            if self._numbered is None:
                self._file = _opened(self.path)
                read: Callable[[], bytes] = partial(self._file.readline, self._length_max + 1)
                self._numbered = enumerate(iter(read, b""), 1)
            found = self._kept_next(self._numbered) if self._keep else next(self._numbered, None)
            if found is not None:
                number, line = found
                if len(line) > self._length_max and not line.endswith(b"\n"):
                    self._skip(number)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return found

    def _kept_next(self, numbered: Iterator[tuple[int, bytes]]) -> tuple[int, bytes] | None:
        """The next one, in one step: a signal finds a line either not read or kept."""
        before = len(self._kept)
        self._kept.extend(islice(numbered, 1))
        return self._kept[-1] if len(self._kept) > before else None

    def _skip(self, number: int) -> None:
        """Read to the end of the line."""
        assert self._file is not None
        skipped = 0
        while (part := self._file.readline(WORDS_MAX)) and not part.endswith(b"\n"):
            skipped += len(part)
            if skipped > SKIPPED_MAX:
                raise UsageError(f"{self.source} line {number} does not end")


def bounded(path: str, length_max: int) -> Iterator[bytes]:
    """The lines of a file or of stdin for who stops at the first that is too long.

    There are `length_max + 1` bytes of that one, and what follows them is no line. Raises
    UsageError for a file that cannot be read.
    """
    try:
        with _opened(path) as file:
            yield from iter(partial(file.readline, length_max + 1), b"")
    except OSError as error:
        raise _unreadable(path, error) from error


def text_of(line: bytes, what: str, length_max: int) -> str:
    """A line as text. Raises UsageError, naming `what`, if it is none or is too long."""
    line = line.rstrip(b"\r\n")
    if len(line) > length_max:
        raise UsageError(f"{what} has more than {length_max} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8") from error


def source_of(path: str) -> str:
    """A file as errors name it."""
    return "stdin" if path == "-" else path


def start_of(path: str, size_max: int) -> bytes:
    """What is in a file of one line; of any other as much as shows that it is none."""
    return b"".join(islice(Lines(path, size_max), 2))


def standard_input() -> BinaryIO:
    """The bytes of stdin. Raises UsageError if the process was started without it, or cannot read
    what it was given.
    """
    # What stands in for it then (`tb_cli.entry`).
    if getattr(sys.stdin, "name", None) == os.devnull:
        raise UsageError("standard input is closed")
    stream = sys.stdin.buffer
    try:
        descriptor = stream.fileno()
    except UnsupportedOperation:
        return stream  # In a batch it is no file.
    try:
        os.read(descriptor, 0)
    except OSError as error:
        raise file_error("standard input cannot be read", error) from error
    return stream


def _unreadable(path: str, error: OSError) -> MarketError:
    return file_error("standard input cannot be read" if path == "-" else path, error)


def _opened(path: str) -> BinaryIO:
    if path == "-":
        return standard_input()
    # Opening a FIFO must not wait for a writer, and a terminal must not become the controlling one.
    # Reading waits for a writer that is there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    file = open(descriptor, "rb")  # noqa: SIM115 - it is read as its lines are taken
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        file.close()
        raise UsageError(f"{path}: is a directory")
    os.set_blocking(descriptor, True)
    return file
