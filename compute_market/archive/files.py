"""The file of an archive while it grows: made with its head, and synced piece by piece."""

import errno
import fcntl
import os
import shlex
from typing import Any

from blake3 import blake3

from compute_market.archive.lines import END_MAX, HEAD_MAX
from compute_market.errors import BusyError, IntegrityError, UsageError
from compute_market.home import FILE_MODE, failing, open_regular
from compute_market.store.creation import sync

_PIECE_BYTES = 2**20
_LOST = "what is in it is no longer in the market: look for a copy of the file"
_ELSEWHERE = "it is another copy of the archive, which lies in {}"


class ArchiveFile:
    """A file that is written by one process at a time; as a context it is closed.

    `length` bytes of it count, and `hasher` has seen them; what is behind them was never finished.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.length = 0
        self.hasher: Any = blake3()

    @classmethod
    def make(cls, path: str, head: bytes, name: str) -> "ArchiveFile":
        """A new file that has its head; until then it has a name made of this `name`.

        Raises UsageError when there is one, or none can be made, and BusyError when the disk is
        full.
        """
        directory = os.path.dirname(path) or os.curdir
        temporary = os.path.join(directory, f".tb-{name}.tmp")
        with failing(path):
            made = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE
            )
            try:
                with open(made, "wb") as file:
                    file.write(head)
                    file.flush()
                    os.fsync(made)
                os.link(temporary, path)
            finally:
                os.unlink(temporary)
            sync(directory)
        found = cls.open(path)
        found.check(len(head))
        return found

    @classmethod
    def open(cls, path: str) -> "ArchiveFile":
        """A file that is there. Raises UsageError for what is no regular file or cannot be written,
        BusyError while another process writes it."""
        with failing(path):
            descriptor = open_regular(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(f"another process writes {path}", hint="try again later") from None
        return cls(path, descriptor)

    def __enter__(self) -> "ArchiveFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def size(self) -> int:
        """Bytes of the file, those included that do not count."""
        return os.fstat(self._descriptor).st_size

    @property
    def digest(self) -> bytes:
        """BLAKE3 of the bytes that count."""
        found: bytes = self.hasher.digest()
        return found

    def start(self) -> bytes:
        """What it begins with."""
        with failing(self.path):
            return os.pread(self._descriptor, HEAD_MAX, 0)

    def check(self, length: int, digest: bytes | None = None, elsewhere: str | None = None) -> None:
        """Read so many bytes, which count from here on.

        Raises IntegrityError when it is shorter, or has others than those of the digest; it tells
        where the archive lies if that is `elsewhere`.
        """
        with failing(self.path):
            while self.length < length <= self.size:
                part = os.pread(
                    self._descriptor, min(_PIECE_BYTES, length - self.length), self.length
                )
                if not part:
                    break
                self._count(part)
        if self.length < length or digest not in (None, self.digest):
            problem = f"it has not the {length} bytes that were written to it"
            raise damaged(self.path, problem, elsewhere)

    def rest(self) -> bytes:
        """What is behind the bytes that count, as far as a last line may be long."""
        with failing(self.path):
            return os.pread(self._descriptor, END_MAX + 1, self.length)

    def cut(self) -> None:
        """Take away what does not count."""
        with failing(self.path):
            os.ftruncate(self._descriptor, self.length)

    def add(self, piece: bytes) -> None:
        """Add a piece, on the disk once this returns. It does not count before `keep`."""
        with failing(self.path):
            left, at = memoryview(piece), self.length
            while left:
                written = os.pwrite(self._descriptor, left, at)
                if not written:
                    raise OSError(errno.EIO, "it does not grow")
                left, at = left[written:], at + written
            os.fsync(self._descriptor)

    def keep(self, piece: bytes) -> None:
        """Let a piece count that was added last."""
        self._count(piece)

    def digest_with(self, piece: bytes) -> bytes:
        """What the digest will be once a piece counts."""
        hasher = self.hasher.copy()
        hasher.update(piece)
        found: bytes = hasher.digest()
        return found

    def _count(self, part: bytes) -> None:
        self.hasher.update(part)
        self.length += len(part)


def damaged(path: str, problem: str, elsewhere: str | None = None) -> IntegrityError:
    """The error of a file that has not what the market let go of to an archive, maybe elsewhere."""
    hint = _LOST if elsewhere is None else _ELSEWHERE.format(elsewhere)
    return IntegrityError(f"{path} is damaged: {problem}", hint=hint)


def open_or_none(path: str) -> ArchiveFile | None:
    """The file at a path; None where there is nothing.

    Raises UsageError for a link, a directory, and whatever else is no file of an archive.
    """
    if not path:
        raise UsageError("the name of the file is empty")
    if os.path.lexists(path):
        return ArchiveFile.open(path)
    directory = os.path.dirname(path) or os.curdir
    if not os.path.lexists(directory):
        raise UsageError(
            f"{path}: there is no directory {directory}", hint=f"mkdir -p {shlex.quote(directory)}"
        )
    if not os.path.isdir(directory):
        raise UsageError(f"{path}: {directory} is not a directory")
    if not os.access(directory, os.W_OK):
        raise UsageError(f"{path}: its directory cannot be written")
    return None
