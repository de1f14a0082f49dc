"""Digests of very short slices, where the system calls for a file cost more than its hash.

Threads do not help there: each call gives up the interpreter lock and takes it back, and the
threads spend their time waiting for each other. Forked helpers do.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from struct import pack, unpack_from

from blake3 import blake3

from compute_market.hashing.cpu import DIGEST_BYTES
from compute_market.hashing.files import OPEN_FLAGS, is_regular

SHORT_BYTES = 32_768

_GROUP_PATHS = 128
_LENGTH_BYTES = 8
# The length where there is no proof.
NO_LENGTH = -1
_NO_PROOF = (bytes(DIGEST_BYTES), NO_LENGTH)

# Digest and length in bytes; None where the slice has to be opened and looked at by `open_slice`.
ShortProof = tuple[bytes, int] | None
# Paths, and the digest and length of each. Without a proof the length is NO_LENGTH.
Group = tuple[list[str], Sequence[bytes], Sequence[int]]


def hash_short(path: str | bytes, settled_ns: int, hasher: blake3 | None = None) -> ShortProof:
    """The digest and length of a regular file of at most `SHORT_BYTES` unchanged since then.

    Returns None for anything else, wrong paths included. `settled_ns` is a time in Unix
    nanoseconds before the call, by more than one tick of the file system's clock: a file last
    changed before it did not change while it was read, which saves asking for its status twice.
    A `hasher` that is lent is reset and used, which saves making one for every file.

    Reads before it knows the file's type. `pread` takes nothing out of a FIFO, a socket or a
    terminal; it fails on them.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except (OSError, ValueError):
        return None
    try:
        data = os.pread(descriptor, SHORT_BYTES + 1, 0)
        status = os.fstat(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    length = len(data)
    if (
        length > SHORT_BYTES
        or length != status.st_size
        or status.st_ctime_ns > settled_ns
        or status.st_mtime_ns > settled_ns
        or not is_regular(status.st_mode)
    ):
        return None
    if hasher is None:
        return blake3(data).digest(), length
    hasher.reset()
    hasher.update(data)
    return hasher.digest(), length


def can_fork() -> bool:
    """Whether this process has one thread only.

    A fork copies no other threads, but the locks they hold at that instant, held for ever.
    """
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


class Helpers:
    """Forked processes that hash groups of paths in turn, while this one deals with the results.

    A helper ends when its pipe closes, and so with this process, however that ends. What a killed
    helper leaves undone is done here.
    """

    def __init__(self, count: int, settled_ns: int) -> None:
        self._settled_ns = settled_ns
        self._helpers: list[_Helper] = []
        # Where no more processes or descriptors are to be had, those there are do the work.
        with suppress(OSError):
            for _ in range(count):
                self._helpers.append(_Helper(settled_ns))

    def __enter__(self) -> "Helpers":
        return self

    def __exit__(self, *_: object) -> None:
        # Each helper holds copies of the pipes of those before it, so the last one ends first.
        for helper in self._helpers:
            helper.hang_up()
        for helper in self._helpers:
            helper.wait()

    def hash(self, paths: Iterable[str]) -> Iterator[Group]:
        """What `hash_short` makes of the paths, group by group, in order."""
        remaining = iter(paths)
        at_work: deque[tuple[_Helper, list[str]]] = deque()

        def hand_out(helper: _Helper) -> None:
            group = list(islice(remaining, _GROUP_PATHS))
            if group:
                helper.give(group)
                at_work.append((helper, group))

        for helper in self._helpers:
            hand_out(helper)
        while at_work:
            helper, group = at_work.popleft()
            reply = helper.collect(len(group))
            # The helper goes on while the caller deals with these results.
            hand_out(helper)
            yield group, *_columns(len(group), reply or self._answer(group))
        while group := list(islice(remaining, _GROUP_PATHS)):
            yield group, *_columns(len(group), self._answer(group))

    def _answer(self, group: list[str]) -> bytes:
        return _answer(group, self._settled_ns)


class _Helper:
    """One forked process. It is given a group only when it has answered for the one before.

    So it is reading when this process writes, and a full pipe can never make both wait.
    """

    def __init__(self, settled_ns: int) -> None:
        import signal

        request_end, self._requests = os.pipe()
        self._replies, reply_end = os.pipe()
        # Ctrl-C reaches every process of the terminal. This one decides what becomes of it; a
        # helper, where both signals stay blocked, sees its pipe close.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self._process = os.fork()
            if self._process == 0:
                # Whatever happens, this copy of the program must not go on as if it were the
                # program: nothing may be flushed, rolled back or reported twice.
                try:
                    self.hang_up()
                    _serve(request_end, reply_end, settled_ns)
                finally:
                    os._exit(0)
        except OSError:
            self.hang_up()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(request_end)
            os.close(reply_end)
        self._is_busy = False

    def give(self, paths: list[str]) -> None:
        """Have it hash the paths, if it is still there and they are paths it can be told."""
        try:
            request = os.fsencode("\0".join(paths))
            # A path with a zero byte in it would count as two.
            if request.count(b"\0") == len(paths) - 1:
                _write(self._requests, len(request).to_bytes(_LENGTH_BYTES, "little") + request)
                self._is_busy = True
        except (OSError, UnicodeEncodeError):
            pass

    def collect(self, count: int) -> bytes | None:
        """The answer for the paths given last; None if it was not given them, or is gone."""
        if not self._is_busy:
            return None
        self._is_busy = False
        return _read(self._replies, count * (_LENGTH_BYTES + DIGEST_BYTES))

    def hang_up(self) -> None:
        os.close(self._requests)
        os.close(self._replies)

    def wait(self) -> None:
        # The host program may have collected every child of its own by now.
        with suppress(ChildProcessError):
            os.waitpid(self._process, 0)


def _serve(requests: int, replies: int, settled_ns: int) -> None:
    while header := _read(requests, _LENGTH_BYTES):
        request = _read(requests, int.from_bytes(header, "little"))
        if request is None:
            return
        _write(replies, _answer(request.split(b"\0"), settled_ns))


def _answer(paths: Sequence[str | bytes], settled_ns: int) -> bytes:
    """The lengths of all the slices, then all their digests."""
    hasher = blake3()
    proofs = [hash_short(path, settled_ns, hasher) or _NO_PROOF for path in paths]
    lengths = pack(f"={len(proofs)}q", *[length for _, length in proofs])
    return lengths + b"".join([digest for digest, _ in proofs])


def _columns(count: int, answer: bytes) -> tuple[Sequence[bytes], Sequence[int]]:
    lengths = unpack_from(f"={count}q", answer)
    digests = unpack_from(f"{DIGEST_BYTES}s" * count, answer, count * _LENGTH_BYTES)
    return digests, lengths


def _read(descriptor: int, count: int) -> bytes | None:
    """Exactly `count` bytes from a pipe; None when it ends before."""
    data = b""
    while len(data) < count:
        block = os.read(descriptor, count - len(data))
        if not block:
            return None
        data += block
    return data


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
