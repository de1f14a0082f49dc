"""`cancellations.log`: one line for each cancellation, in order, exactly once.

The table is the truth; the file is a copy of it, always a prefix of the text the table spells
out, because each entry knows the offset of its line. Whoever finds the file shorter than the table
appends what is missing, so a process that dies between its commit and its line loses nothing.
"""

import fcntl
import os

from compute_market.records import Cancellation
from compute_market.store.schema import decode, pack_u64
from compute_market.store.store import Store, Txn

_CHUNK_LINES = 10_000


def add(txn: Txn, job_id: str, reason: str) -> None:
    entry = Cancellation(job_id, reason, length(txn))
    txn.write("cancellations", pack_u64(txn.next_number("cancellation_seq")), entry)
    txn.set_number("cancellations_length", entry.offset + len(line(entry)))


def line(entry: Cancellation) -> bytes:
    return f"{entry.job_id} {entry.reason}\n".encode()


def length(txn: Txn) -> int:
    """Bytes of the complete log."""
    return txn.number("cancellations_length")


def text_from(txn: Txn, offset: int) -> bytes:
    """The text of the log from a byte offset on, at most 10 000 lines of it."""
    first = pack_u64(0)
    for key, value in txn.scan_back("cancellations"):
        entry: Cancellation = decode("cancellations", key, value)
        first = key
        if entry.offset <= offset:
            break
    entries = txn.collect("cancellations", _CHUNK_LINES, start=first)
    decoded = [decode("cancellations", key, value) for key, value in entries]
    if not decoded:
        return b""
    return b"".join(line(entry) for entry in decoded)[max(0, offset - decoded[0].offset) :]


def follow(store: Store, path: str, *, now_ms: int) -> None:
    """Append to the file at `path` what the table has and the file lacks.

    Runs after the commit and outside the write lock; writers of the file queue on its own lock.
    Raises OSError when the file cannot be written: the next command makes it whole.
    """
    total = store.view(length, now_ms=now_ms)
    if total == _size(path):
        return
    with open(path, "ab", opener=_private) as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        while text := store.view(
            lambda txn: text_from(txn, os.fstat(log.fileno()).st_size), now_ms=now_ms
        ):
            log.write(text)
            log.flush()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
