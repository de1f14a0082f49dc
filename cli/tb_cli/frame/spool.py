"""Lines that are read twice, the second time from a copy that nobody else can change."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import BinaryIO


class Spooled:
    """Lines as they come the first time, and from then on as they were: to check, and then to use.

    Whoever may write a file could otherwise put another in its place between the two.
    """

    def __init__(self, lines: Iterable[bytes], copy: BinaryIO) -> None:
        self._lines: Iterable[bytes] | None = lines
        self._copy = copy

    def __iter__(self) -> Iterator[bytes]:
        if self._lines is None:
            self._copy.seek(0)
            yield from self._copy
            return
        lines, self._lines = self._lines, None
        for line in lines:
            self._copy.write(line)
            yield line


@contextmanager
def spooled(lines: Iterable[bytes]) -> Iterator[Spooled]:
    """The lines with an unnamed copy of them on the disk, in the directory for temporary files."""
    with TemporaryFile() as copy:
        yield Spooled(lines, copy)
