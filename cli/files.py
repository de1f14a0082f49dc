"""Reading what operators hand in: a file, or stdin as `-`."""

import os
import stat
import sys

from compute_market.errors import UsageError

SIZE_MAX = 64 * 2**20


def read(path: str) -> bytes:
    """The bytes of a file or of stdin. Raises UsageError naming it, also for one over 64 MiB."""
    try:
        data = sys.stdin.buffer.read(SIZE_MAX + 1) if path == "-" else _read_regular(path)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if len(data) > SIZE_MAX:
        raise UsageError(f"{path}: more than {SIZE_MAX} bytes")
    return data


def source_of(path: str) -> str:
    return "stdin" if path == "-" else path


def _read_regular(path: str) -> bytes:
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path}: is a directory")
        return file.read(SIZE_MAX + 1)
