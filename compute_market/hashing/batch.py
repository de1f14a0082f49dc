"""BLAKE3-256 on the CPU of many ranges of one buffer at once."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import index
from typing import TYPE_CHECKING

from blake3 import blake3

from compute_market.errors import UsageError
from compute_market.hashing.cpu import THREADED_BYTES, cores

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Shorter ranges are hashed in the calling thread: others would mostly wait for the interpreter
# lock, which is given up and taken back for each range.
SHARED_BYTES = 65_536
# With less than this for each of its threads, the hasher makes worse use of them than ranges do.
_BYTES_PER_THREAD = 4_194_304


def hash_batch(
    buffer: "ReadableBuffer",
    offsets: Sequence[int],
    lengths: Sequence[int],
    threads: int | None = None,
) -> bytes:
    """The 32-byte BLAKE3 digests of ranges of a buffer, one after another, in their order.

    Range i is the `lengths[i]` bytes from `offsets[i]` on; ranges may overlap and be empty.
    `buffer` is anything contiguous: bytes, a memoryview, an mmap. `threads` is the most that
    work at once, the calling one included; None takes one for every core. None are started where
    they would not pay. The buffer must not change meanwhile.

    Raises UsageError (`bad_range`) naming the first range that does not lie in the buffer, or
    both counts when there are not as many lengths as offsets.
    """
    if threads is None:
        threads = cores()
    elif threads < 1:
        raise UsageError(f"threads {threads}: at least 1 is needed")
    with memoryview(buffer) as given, given.cast("B") as view:
        ranges = checked_ranges(view.nbytes, offsets, lengths)
        digests: dict[int, bytes] = {}
        if threads > 1:
            _hash_long(view, ranges, threads, digests)
        # One hasher for all of them: making one costs as much as hashing 500 bytes.
        hasher = blake3()
        for number, (start, end) in enumerate(ranges):
            if number not in digests:
                hasher.reset()
                hasher.update(view[start:end])
                digests[number] = hasher.digest()
    return b"".join([digests[number] for number in range(len(ranges))])


def checked_ranges(
    size: int, offsets: Sequence[int], lengths: Sequence[int]
) -> list[tuple[int, int]]:
    """Start and end of each range, all of them within `size` bytes."""
    if len(offsets) != len(lengths):
        raise UsageError(
            f"{len(offsets)} offsets but {len(lengths)} lengths: each range needs both",
            reason="bad_range",
        )
    ranges = []
    pairs = zip(_integers(offsets), _integers(lengths), strict=True)
    for number, (offset, length) in enumerate(pairs):
        if offset < 0 or length < 0 or offset + length > size:
            raise UsageError(
                f"range {number} of {length} bytes from {offset} on is not within the buffer of"
                f" {size} bytes",
                reason="bad_range",
            )
        ranges.append((offset, offset + length))
    return ranges


def _integers(numbers: Sequence[int]) -> Sequence[int]:
    """Plain integers: the elements of an array are slow to count with, and may overflow."""
    return list(map(index, numbers.tolist() if hasattr(numbers, "tolist") else numbers))


def _hash_long(
    view: memoryview, ranges: list[tuple[int, int]], threads: int, digests: dict[int, bytes]
) -> None:
    """Add the digests of the ranges for which threads pay."""
    lengths = [end - start for start, end in ranges]
    numbers = [number for number, length in enumerate(lengths) if length >= SHARED_BYTES]
    # The longest first, so that no thread is left alone with one of them at the end.
    numbers.sort(key=lengths.__getitem__, reverse=True)
    left = sum(lengths[number] for number in numbers)
    # For any other number the hasher would start a pool each time.
    hasher_threads = blake3.AUTO if threads >= cores() else threads
    shared: deque[int] = deque()
    for number in numbers:
        length = lengths[number]
        if _is_worth_all_threads(length, left, threads):
            start, end = ranges[number]
            digests[number] = blake3(view[start:end], max_threads=hasher_threads).digest()
            left -= length
        else:
            shared.append(number)

    def work() -> None:
        with suppress(IndexError):  # Nothing is left.
            while True:
                number = shared.popleft()
                start, end = ranges[number]
                digests[number] = blake3(view[start:end]).digest()

    others = min(threads, len(shared)) - 1
    if others > 0 and left > THREADED_BYTES:
        _with_threads(others, work, shared)


def _is_worth_all_threads(length: int, left: int, threads: int) -> bool:
    """Whether the hasher's threads are better spent on one range than on the `left` bytes of all.

    They are on a range that is all there is, and on one so long that the others would not keep
    the other threads busy for as long as it takes one of them.
    """
    if length == left:
        return length >= THREADED_BYTES
    return length >= threads * _BYTES_PER_THREAD and 2 * threads * length > left


def _with_threads(others: int, work: Callable[[], None], shared: deque[int]) -> None:
    """Do the shared work here and in so many other threads, until none is left."""
    from threading import Thread

    pool = [Thread(target=work, daemon=True) for _ in range(others)]
    try:
        # Where no more threads are to be had, those there are do the work.
        with suppress(RuntimeError):
            for thread in pool:
                thread.start()
        work()
    finally:
        shared.clear()  # If this thread was interrupted, the others must not go on.
        for thread in pool:
            if thread.ident is not None:
                thread.join()
