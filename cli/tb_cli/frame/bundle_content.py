"""The bytes of a bundle, piece by piece: read, hashed, and written where there is none yet.

A sparse file stays sparse, and memory stays flat however long it is.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from blake3 import blake3
from msgspec import Struct

from compute_market.errors import IntegrityError
from compute_market.hashing.cpu import THREADED_BYTES, has_threads
from compute_market.hashing.files import fill_from, identity_of, open_slice, unreadable
from compute_market.text import quoted
from tb_cli.frame import lines

_PIECE_BYTES = 2**20
_ZEROS = bytes(_PIECE_BYTES)

# Bytes, or the length of a hole, which reads as zeros.
Piece = bytes | memoryview | int
Advance = Callable[[int], None]


class Content(Struct, frozen=True, gc=False):
    """What a bundle is known by."""

    bundle_hash: bytes  # BLAKE3-256
    size: int


class OpenFile:
    """A regular file whose bytes are taken once, in a `with` block.

    Raises UsageError for anything else. `stored` is how many of its bytes are no holes, about.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor, self._status = open_slice(path)
        self.size = self._status.st_size
        self.stored = min(self.size, self._status.st_blocks * 512)

    def __enter__(self) -> "OpenFile":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def pieces(self) -> Iterator[Piece]:
        """Its bytes, in order.

        Raises IntegrityError when it cannot be read (`unreadable`), or has changed by the end
        (`bundle_changed`).
        """
        descriptor = self._descriptor
        buffer = memoryview(bytearray(min(_PIECE_BYTES, max(1, self.size))))
        done = 0
        try:
            while done < self.size:
                start = self._next(os.SEEK_DATA, done)
                end = self._next(os.SEEK_HOLE, start) if start < self.size else start
                if start > done:
                    yield start - done
                    done = start
                while done < end and (count := fill_from(descriptor, buffer[: end - done], done)):
                    yield buffer[:count]
                    done += count
                if done < end:
                    break  # It became shorter.
            found = os.fstat(self._descriptor)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if done != self.size or identity_of(found) != identity_of(self._status):
            raise IntegrityError(
                f"{quoted(self.path)}: changed while it was read",
                reason="bundle_changed",
                hint="let the program that writes it finish, then run this again",
            )

    def _next(self, what: int, offset: int) -> int:
        """Where the next hole begins, or what is none; the end of the file if there is none."""
        try:
            return min(os.lseek(self._descriptor, offset, what), self.size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self.size
            if error.errno == errno.EINVAL:  # The file system does not tell.
                return offset if what == os.SEEK_DATA else self.size
            raise


def stream_pieces() -> Iterator[Piece]:
    """What standard input holds. Raises IntegrityError (`unreadable`) when it breaks."""
    stream = lines.standard_input()
    try:
        while piece := stream.read(_PIECE_BYTES):
            yield piece
    except OSError as error:
        raise unreadable("standard input", error) from error


def written(
    pieces: Iterable[Piece], descriptor: int | None = None, advance: Advance | None = None
) -> Content:
    """Hash a bundle, and write it to an open file, which is empty, if one is given.

    Raises what `pieces` raise, and OSError when writing fails.
    """
    hasher: blake3 | None = None
    size = 0
    for piece in pieces:
        hasher = hasher or _hasher(piece)
        if isinstance(piece, int):
            _hash_zeros(hasher, piece, size, advance)
            size += piece
        else:
            hasher.update(piece)
            if descriptor is not None:
                _write(descriptor, memoryview(piece), size)
            size += len(piece)
        if advance is not None:
            advance(size)
    if descriptor is not None and os.fstat(descriptor).st_size != size:
        os.ftruncate(descriptor, size)  # It ends in a hole.
    return Content((hasher or blake3()).digest(), size)


def hash_of(stream: BinaryIO) -> bytes:
    """The hash of what is left of an open file. Raises OSError."""
    # The audit runs in a forked process, where the hasher's threads are gone and waited for.
    hasher = blake3(max_threads=1)
    while piece := stream.read(_PIECE_BYTES):
        hasher.update(piece)
    return hasher.digest()


def _hasher(first: Piece) -> blake3:
    """That of a bundle with such a first piece; a short one is hashed before threads are there."""
    length = first if isinstance(first, int) else len(first)
    is_long = length >= THREADED_BYTES and has_threads()
    return blake3(max_threads=blake3.AUTO if is_long else 1)


def _hash_zeros(hasher: "blake3", length: int, done: int, advance: Advance | None) -> None:
    while length:
        count = min(length, _PIECE_BYTES)
        hasher.update(_ZEROS[:count])
        length -= count
        done += count
        if advance is not None:
            advance(done)


def _write(descriptor: int, piece: memoryview, offset: int) -> None:
    while piece:
        count = os.pwrite(descriptor, piece, offset)
        piece, offset = piece[count:], offset + count
