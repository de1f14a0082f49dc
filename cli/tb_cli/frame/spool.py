"""Lines that are read twice, the second time from a copy that nobody else can change."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile, gettempdir
from typing import BinaryIO

from compute_market.errors import file_error


class Spooled:
    """Lines as they come the first time, and from then on as they were: to check, and then to use.

    Whoever may write a file could otherwise put another in its place between the two.
    """

    def __init__(self, lines: Iterable[bytes], copy: BinaryIO) -> None:
        self._lines: Iterable[bytes] | None = lines
        self._copy = copy

    def __iter__(self) -> Iterator[bytes]:
        if self._lines is None:
            with _named():
                self._copy.seek(0)  # This writes what is still buffered.
            yield from self._copy
            return
        lines, self._lines = self._lines, None
        for line in lines:
            with _named():
                self._copy.write(line)
            yield line


@contextmanager
def spooled(lines: Iterable[bytes]) -> Iterator[Spooled]:
    """The lines with an unnamed copy of them on the disk, in the directory for temporary files.

    Raises BusyError or UsageError, naming that directory, if the copy cannot be written.
    """
    with _named():
        copy = TemporaryFile()  # noqa: SIM115 - closing it may fail as well
    try:
        yield Spooled(lines, copy)
    finally:
        with suppress(OSError):  # What is still buffered is of no use.
            copy.close()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise file_error(f"a copy in {_directory()}", error) from error


def _directory() -> str:
    try:
        return gettempdir()
    except OSError:
        return "the directory for temporary files"
