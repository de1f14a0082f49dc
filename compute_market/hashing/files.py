"""Slice files: opened without waiting, told apart, and read into memory that is given.

A slice is a regular file. The caller compares the identity a file had when it was opened with the
one it has after reading: if they differ, the digest belongs to no state of the file.
"""

import errno
import os
from collections.abc import Callable
from operator import attrgetter

from compute_market.errors import BusyError, IntegrityError, MarketError, RefusedError, UsageError
from compute_market.text import quoted

# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come; on a regular file the
# flag changes nothing. A terminal opened by mistake must not become the controlling one.
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_FILE_TYPE_MASK = 0o170000
_REGULAR_FILE = 0o100000
_OTHER_FILE_TYPES = {
    0o010000: "a FIFO",
    0o020000: "a character device",
    0o040000: "a directory",
    0o060000: "a block device",
    0o140000: "a socket",
}

# One state of one file, as far as a file system tells states apart. It misses a change that leaves
# the length alone and falls into the same tick of the file system's clock as the one before it.
FileIdentity = tuple[int, int, int, int, int]
identity_of: Callable[[os.stat_result], FileIdentity] = attrgetter(
    "st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"
)


def open_slice(path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; return its descriptor, which the caller closes, and status.

    Never waits for the other end of a FIFO. Raises UsageError for a path that does not lead to a
    readable regular file, BusyError when there is no descriptor left or another process holds a
    lease on the file.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except FileNotFoundError as error:
        raise UsageError(f"{quoted(path)}: no such file", reason="missing") from error
    except OSError as error:
        raise _not_opened(path, error) from error
    except ValueError as error:
        raise UsageError(f"{quoted(path)}: not a path: {error}", reason="missing") from error
    status = os.fstat(descriptor)
    if is_regular(status.st_mode):
        return descriptor, status
    os.close(descriptor)
    raise _not_regular(path, status.st_mode)


def check_inside(path: str, root: str) -> None:
    """Raise RefusedError unless a slice is in a directory, all links followed; an empty `root` is
    no limit."""
    if not root:
        return
    directory = os.path.join(os.path.realpath(root), "")
    try:
        found = os.path.realpath(path)
    except OSError:
        found = ""  # It is gone while we look.
    except ValueError:
        return  # It is no path, and opening it will tell.
    if not found.startswith(directory):
        raise RefusedError(
            f"{quoted(path)} is not in {quoted(root)}, the slice_root",
            hint="put the slice there, or change the setting slice_root",
            reason="outside_slice_root",
        )


def is_regular(mode: int) -> bool:
    """Whether a file status's mode is that of a regular file."""
    return mode & _FILE_TYPE_MASK == _REGULAR_FILE


def fill_from(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read from `offset` on until the buffer is full or the file ends; return the bytes read."""
    count = os.preadv(descriptor, [buffer], offset)
    while 0 < count < len(buffer):
        more = os.preadv(descriptor, [buffer[count:]], offset + count)
        if not more:
            break
        count += more
    return count


def changed(path: str) -> IntegrityError:
    return IntegrityError(
        f"{quoted(path)}: changed while it was read",
        reason="slice_changed",
        hint="let the program that writes it finish, then run this again",
    )


def untold(path: str) -> UsageError:
    """The error for a file of the kernel's that holds more or less than its status tells."""
    return UsageError(
        f"{quoted(path)}: does not tell its length",
        reason="not_a_file",
        hint="copy it to a file, or pipe it in: `tb-cli compute run - < FILE`",
    )


def unreadable(path: str, error: OSError) -> IntegrityError:
    return IntegrityError(f"{quoted(path)}: reading failed: {error.strerror}", reason="unreadable")


def _not_opened(path: str, error: OSError) -> MarketError:
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):
        return BusyError(f"{quoted(path)}: {error.strerror}")
    if error.errno == errno.ENXIO:
        return UsageError(f"{quoted(path)}: not a regular file but a socket", reason="not_a_file")
    return UsageError(f"{quoted(path)}: cannot be opened: {error.strerror}", reason="unreadable")


def _not_regular(path: str, mode: int) -> UsageError:
    kind = _OTHER_FILE_TYPES.get(mode & _FILE_TYPE_MASK, "something else")
    return UsageError(f"{quoted(path)}: not a regular file but {kind}", reason="not_a_file")
