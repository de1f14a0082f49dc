"""`cancellations.log`: one line for each cancellation, in order, exactly once.

The table is the truth; the file is a copy of it, always a prefix of the text the table spells
out, because each entry knows the offset of its line. Whoever finds the file shorter than the table
appends what is missing (`market`), so a process that dies between its commit and its line loses
nothing. The only writer of its table.
"""

from compute_market.records import Cancellation
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
