"""BLAKE3-256 on the CPU: of bytes, of streams and of open slice files.

Files are read into buffers and never mapped: a mapped file that somebody truncates kills the
reader with SIGBUS, which cannot be turned into an error. The copy that reading costs is made by
threads of its own while the block before it is hashed, in buffers small enough to stay in the
cache, so one large warm file takes no longer than with the official `b3sum`, which maps it
(`benchmarks/hash_files.py`), and memory does not grow with the file.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import BinaryIO

from blake3 import blake3

from compute_market.hashing.files import changed, fill_from, unreadable

DIGEST_BYTES = 32
# Below about this length the hasher's own threads cost more than they bring.
THREADED_BYTES = 1_048_576

_READ_BYTES = 1_048_576
_BLOCK_BYTES = 4_194_304
_READERS_MAX = 4
_TRIAL_BYTES = 65_536  # enough for the hasher to share it among its threads

# Called with the number of bytes hashed since the last call.
Advance = Callable[[int], None]


def hash_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """The 32-byte BLAKE3 digest of `data`."""
    length = data.nbytes if isinstance(data, memoryview) else len(data)
    is_long = length >= THREADED_BYTES and has_threads()
    return blake3(data, max_threads=blake3.AUTO if is_long else 1).digest()


def hash_stream(stream: BinaryIO, advance: Advance | None = None) -> tuple[bytes, int]:
    """Hash a stream such as standard input to its end; return its digest and its length in bytes.

    Works through one buffer of 1 MiB, whatever the length. Raises IntegrityError (`unreadable`)
    when the stream breaks.
    """
    hasher = blake3(max_threads=blake3.AUTO if has_threads() else 1)
    buffer = memoryview(bytearray(_READ_BYTES))
    length = 0
    try:
        # `readinto` fills the buffer unless the stream ends, although a pipe gives 64 KiB a time.
        while count := stream.readinto(buffer):  # type: ignore[attr-defined]
            hasher.update(buffer[:count])
            length += count
            if advance is not None:
                advance(count)
    except OSError as error:
        raise unreadable("standard input", error) from error
    return hasher.digest(), length


def hash_opened(
    path: str,
    descriptor: int,
    length: int,
    threads: int | None = None,
    advance: Advance | None = None,
) -> bytes:
    """The digest of an open file that is `length` bytes long; the built-in workload.

    Reads from the file's start, and at most 4 MiB beyond `length`. Raises IntegrityError
    (`slice_changed`) when the file holds more or fewer bytes, OSError when reading fails. A change
    that keeps the length is for the caller to see, in the file's status before and after.
    """
    if threads is None:
        threads = _threads_for(length)
    if threads != 1 and has_threads():
        # Where the reading threads cannot be started, nothing was read.
        with suppress(RuntimeError):
            return _hash_while_reading(path, descriptor, length, threads, advance)
    if length < _READ_BYTES:
        # One byte more than announced shows a file that grew without another call to find its end.
        whole = os.read(descriptor, length + 1)
        if len(whole) == length:
            if advance is not None:
                advance(length)
            return blake3(whole).digest()
    hasher = blake3()
    # A buffer that is used again stays in the core's cache; new bytes for each block would not.
    buffer = memoryview(bytearray(_READ_BYTES))
    done = 0
    while done <= length and (count := fill_from(descriptor, buffer, done)):
        hasher.update(buffer[:count])
        if advance is not None:
            advance(count)
        done += count
    if done != length:
        raise changed(path)
    return hasher.digest()


def _hash_while_reading(
    path: str, descriptor: int, length: int, threads: int, advance: Advance | None
) -> bytes:
    """Hash block after block while reader threads, with one buffer each, fetch the next ones."""
    import threading
    from queue import SimpleQueue

    readers = max(2, min(_READERS_MAX, cores() // 2))
    buffers = [_page_aligned(_BLOCK_BYTES) for _ in range(readers)]
    # A reader may fill its buffer after True and ends after False.
    permits: list[SimpleQueue[bool]] = [SimpleQueue() for _ in range(readers)]
    arrivals: list[SimpleQueue[int | OSError]] = [SimpleQueue() for _ in range(readers)]

    def read(reader: int) -> None:
        for offset in range(reader * _BLOCK_BYTES, length, readers * _BLOCK_BYTES):
            if not permits[reader].get():
                return
            try:
                arrivals[reader].put(fill_from(descriptor, buffers[reader], offset))
            except OSError as error:
                arrivals[reader].put(error)
                return

    pool = [threading.Thread(target=read, args=(reader,), daemon=True) for reader in range(readers)]
    hasher = blake3(max_threads=threads)
    try:
        for reader, thread in enumerate(pool):
            permits[reader].put(True)
            thread.start()
        for block, offset in enumerate(range(0, length, _BLOCK_BYTES)):
            reader = block % readers
            count = arrivals[reader].get()
            if isinstance(count, OSError):
                raise count
            if count != min(_BLOCK_BYTES, length - offset):
                raise changed(path)
            hasher.update(buffers[reader][:count])
            permits[reader].put(True)
            if advance is not None:
                advance(count)
    finally:
        # The caller closes the descriptor next. A reader still at work would then read from
        # whatever file is given the same number, so all of them must have ended.
        for reader, thread in enumerate(pool):
            permits[reader].put(False)
            if thread.ident is not None:
                thread.join()
    if os.pread(descriptor, 1, length):
        raise changed(path)
    return hasher.digest()


def _page_aligned(length: int) -> memoryview:
    """A buffer that the kernel copies into a fifth faster than into a bytearray."""
    import mmap

    buffer = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel built without huge pages refuses, and the buffer is as good as it was.
        with suppress(OSError):
            buffer.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(buffer)


def cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def has_threads() -> bool:
    """Whether threads can be started: one of Python's, and those of the hasher, which stay.

    Where they cannot, the hasher would panic. It is asked once, when they are needed first.
    """
    import _thread

    done = _thread.allocate_lock()
    done.acquire()
    try:
        _thread.start_new_thread(done.release, ())
        done.acquire()
        blake3(bytes(_TRIAL_BYTES), max_threads=blake3.AUTO)
    except RuntimeError:
        return False
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # It is no Exception.
            raise
        return False
    return True


def _threads_for(length: int) -> int:
    return 1 if length <= THREADED_BYTES else blake3.AUTO
