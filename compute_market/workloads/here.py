"""What the calling thread does itself in a run, and what it keeps of what the others did."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from operator import length_hint
from typing import TYPE_CHECKING

from compute_market.errors import MarketError
from compute_market.hashing.cpu import hash_opened
from compute_market.hashing.files import FileIdentity, identity_of, open_slice
from compute_market.hashing.short import NO_LENGTH, Helpers, can_fork, hash_short
from compute_market.workloads.cache import ProofCache
from compute_market.workloads.tasks import Result, prove
from compute_market.workloads.workloads import Workload

if TYPE_CHECKING:
    from compute_market.hashing.hasher import Hasher

# Progress is reported in steps of at least this many bytes.
_REPORT_BYTES = 1_048_576
# So many short slices in a row promise enough more to fork helpers for, which takes a millisecond.
_FORK_AFTER = 256
# Of many paths it is known without counting them that there are enough.
_MANY = 1024
_FORK_AFTER_IF_MANY = 16


class Progress:
    """Counts the bytes that are done, and reports them in steps of at least `step` bytes."""

    def __init__(self, report: Callable[[int], None] | None, step: int) -> None:
        self._report = report
        self._step = step
        self._bytes_done = 0
        self._report_from = step

    def advance(self, count: int) -> None:
        self._bytes_done += count
        if self._bytes_done >= self._report_from:
            self.report()

    def report(self) -> None:
        if self._report is not None:
            self._report(self._bytes_done)
            self._report_from = self._bytes_done + self._step


class Here:
    """The calling thread's own work in one run, its cache and its progress.

    `settled_ns` is the time in Unix nanoseconds before which a file must have been changed last for
    its proof to be kept. With a `hasher`, slices of the built-in job may be worked by its device.
    """

    def __init__(
        self,
        workload: Workload,
        cache: ProofCache,
        settled_ns: int,
        report: Callable[[int], None] | None,
        hasher: "Hasher | None",
    ) -> None:
        self._workload = workload
        self._built_in = workload is hash_opened
        self._cache = cache
        self._settled_ns = settled_ns
        self._hasher = hasher
        self.progress = Progress(report, _REPORT_BYTES if self._built_in else 0)
        # Slices of a batch are mostly alike: the place of the last decides how the next is tried.
        self.expects_short = False

    def first_tries(self, paths: Iterable[str], helpers: int) -> Generator[str | Result]:
        """The result of each path that leads to a short slice; the other paths themselves.

        After a number of them, the rest go to so many forked `helpers`, if that is allowed by then.
        """
        fork_after = _FORK_AFTER_IF_MANY if length_hint(paths) >= _MANY else _FORK_AFTER
        remaining = iter(paths)
        for count, path in enumerate(remaining, start=1):
            proof = hash_short(path, self._settled_ns) if self.expects_short else None
            if proof is None:
                yield path
            else:
                self.progress.advance(proof[1])
                yield Result(path, *proof)
            if count == fork_after and self.expects_short and helpers and self._may_fork():
                break
        else:
            return
        with Helpers(helpers, self._settled_ns) as forked:
            for group in forked.hash(remaining):
                yield from self._tried(*group)

    def _tried(
        self, paths: list[str], digests: Sequence[bytes], lengths: Sequence[int]
    ) -> Sequence[str | Result]:
        """The result of each path of a group, or the path itself where there is no proof."""
        results = list(map(Result, paths, digests, lengths))
        if NO_LENGTH not in lengths:
            self.progress.advance(sum(lengths))
            return results
        self.progress.advance(sum(length for length in lengths if length != NO_LENGTH))
        return [result.path if result.length == NO_LENGTH else result for result in results]

    def _may_fork(self) -> bool:
        """Not once a device is open, whose driver does not survive it, threads or not."""
        return can_fork() and (self._hasher is None or not self._hasher.is_open)

    def result(self, path: str) -> Result:
        """The result of a slice in this thread, whatever its length."""
        try:
            descriptor, status = open_slice(path)
        except MarketError as error:
            return Result(path, b"", 0, error)
        try:
            identity = identity_of(status)
            return self.cached(path, identity) or self.proved(path, descriptor, identity)
        finally:
            os.close(descriptor)

    def cached(self, path: str, identity: FileIdentity) -> Result | None:
        """The result of a slice that was proved in this state before."""
        digest = self._cache.get(identity)
        if digest is None:
            return None
        self.progress.advance(identity[2])
        return Result(path, digest, identity[2])

    def proved(self, path: str, descriptor: int, identity: FileIdentity) -> Result:
        """The result of an open slice, which this thread works now."""
        result = prove(self._work, path, descriptor, identity)
        self.remember(result, identity)
        return result

    def _work(self, path: str, descriptor: int, length: int) -> bytes:
        if self._built_in:
            hash_here = hash_opened if self._hasher is None else self._hasher.hash_opened
            return hash_here(path, descriptor, length, advance=self.progress.advance)
        digest = self._workload(path, descriptor, length)
        self.progress.advance(length)
        return digest

    def remember(self, result: Result, identity: FileIdentity) -> None:
        """Keep a proof, unless the file could change again without another time stamp."""
        modified_ns, changed_ns = identity[3:]
        if result.error is None and max(modified_ns, changed_ns) <= self._settled_ns:
            self._cache.put(identity, result.digest)
