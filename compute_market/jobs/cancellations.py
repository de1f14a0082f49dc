"""`cancellations.log`: one line for each cancellation, in order, exactly once.

The table is the truth; the file is a copy of it, always a prefix of the text the table spells
out, because each entry knows the offset of its line. Whoever finds the file shorter than the table
appends what is missing, so a process that dies between its commit and its line loses nothing. The
only writer of both.
"""

import errno
import os
from collections.abc import Callable

from compute_market import home
from compute_market.records import Cancellation
from compute_market.store.lock import Patience, holder_of
from compute_market.store.schema import CANCELLATIONS, pack_u64
from compute_market.store.txn import Txn

CHUNK_LINES = 10_000


def add(txn: Txn, job_id: str, reason: str) -> None:
    entry = Cancellation(job_id, reason, length(txn))
    txn.write(CANCELLATIONS, pack_u64(txn.next_number("cancellation_seq")), entry)
    txn.set_number("cancellations_length", entry.offset + len(line(entry)))


def line(entry: Cancellation) -> bytes:
    return f"{entry.job_id} {entry.reason}\n".encode()


def length(txn: Txn) -> int:
    """Bytes of the complete log."""
    return txn.number("cancellations_length")


def text_from(txn: Txn, offset: int, lines_max: int = CHUNK_LINES) -> bytes:
    """The text of the log from a byte offset on, at most so many lines of it."""
    first = pack_u64(0)
    for key, payload in txn.scan_back(CANCELLATIONS):
        first = key
        if CANCELLATIONS.decode(key, payload).offset <= offset:
            break
    entries = [
        CANCELLATIONS.decode(key, payload)
        for key, payload in txn.collect(CANCELLATIONS, lines_max, start=first)
    ]
    if not entries:
        return b""
    return b"".join(map(line, entries))[max(0, offset - entries[0].offset) :]


def length_at(path: str) -> int:
    """Bytes of the file at `path`; 0 where there is none."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def append(path: str, missing: Callable[[int], bytes], patience: Patience) -> None:
    """Append to the file at `path` what is missing from its length on, until nothing is.

    Its writers queue on a lock of its own, each for as long as its `patience` lasts. Raises OSError
    when it cannot be written: a link, anything but a regular file and a lock not had in time too.
    """
    is_new = not os.path.lexists(path)
    log = home.open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        if is_new:
            home.give_to_owner(path)
        if not patience.has_lock(log):
            holder = holder_of(path)
            raise OSError(errno.EAGAIN, f"locked by {f'process {holder}' if holder else 'another'}")
        while text := missing(length := os.fstat(log).st_size):
            # One call and no buffer: what a failed one has written, none writes again.
            os.write(log, text)
            if os.fstat(log).st_size <= length:
                raise OSError(errno.EIO, "it does not grow")
    finally:
        os.close(log)


def read(path: str, length: Callable[[], int]) -> bytes:
    """The file at `path`, or as much of it as shows that it is longer than the table's text.

    `length` tells of how many bytes that is, and is asked once the file is open: what is there then
    was in the table before. Raises OSError when the file cannot be read.
    """
    log = home.open_regular(path, os.O_RDONLY)
    with open(log, "rb") as file:
        return file.read(min(os.fstat(log).st_size, length() + 1))
