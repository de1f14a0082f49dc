"""The runner: works many slices at once and yields one result for each, in order.

Importing this module loads no pool and no plugin: a run imports what it turns out to need. What
the runner yields depends on the files alone; where each slice is worked is a matter of speed.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from operator import length_hint
from typing import TYPE_CHECKING

from compute_market.errors import MarketError, UsageError
from compute_market.hashing.cpu import FileIdentity, cores, hash_opened, identity_of, open_slice
from compute_market.hashing.short import NO_LENGTH, SHORT_BYTES, Helpers, can_fork, hash_short
from compute_market.workloads.errands import SENT_MAX_BYTES, Errand, Errands
from compute_market.workloads.tasks import (
    LONG_BYTES,
    Outcome,
    ProofCache,
    Result,
    prove,
    run_slices,
    run_slices_on_device,
)
from compute_market.workloads.workloads import resolve

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from compute_market.hashing.hasher import Hasher

# A task of the pool takes slices until their lengths add up to this, or until there are so many.
_TASK_BYTES = 1_048_576
_TASK_SLICES = 64
# A task of a device, which has room for so much at once, takes no more than this.
_DEVICE_TASK_BYTES = 16_777_216
_DEVICE_TASK_SLICES = 256
# A task for an executor of the caller's is worth a round trip of 10 ms through a network. With
# their bytes, slices go in smaller parts.
_ERRAND_BYTES = 67_108_864
_ERRAND_SENT_BYTES = 16_777_216
_ERRAND_SLICES = 1024
# Slices read ahead of the result that is due; what bounds memory, however many slices there are.
_AHEAD_MAX = 1024
_AHEAD_ERRANDS = 16
# Progress is reported in steps of at least this many bytes.
_REPORT_BYTES = 1_048_576
# So many short slices in a row promise enough more to fork helpers for, which takes a millisecond.
_FORK_AFTER = 256
# Of many paths it is known without counting them that there are enough.
_MANY = 1024
_FORK_AFTER_IF_MANY = 16
_HELPERS_MAX = 4

# The coarsest time stamps in use, those of FAT, count in steps of two seconds.
_TIMESTAMP_TICK_NS = 2_000_000_000


class _Task:
    """Slices in a row that go to a pool, or to the device, together."""

    def __init__(self, *, on_device: bool) -> None:
        self.on_device = on_device
        self.paths: list[str] = []
        self.identities: list[FileIdentity] = []
        self.length = 0
        self.future: Future[list[Outcome]] | Errand | None = None

    def add(self, path: str, identity: FileIdentity) -> None:
        self.paths.append(path)
        self.identities.append(identity)
        # In the memory of a device each begins at a multiple of 16.
        self.length += -(-identity[2] // 16) * 16


class Runner:
    """Runs workloads over slice files, many at once; results come in the order of the paths.

    Built-in workloads take each slice where it is fastest: very short ones in the calling thread,
    long ones there too but with every core hashing, those between in a fixed pool of `workers`
    threads (default: one a core). Other workloads always use the pool, one task a slice. With an
    `executor`, which stays the caller's to shut down, every slice goes there, be it to another
    machine: by its path if the worker sees the same file, else by its bytes (`remote`). A slice
    above 64 MiB that no worker sees runs in the calling thread. A `hasher`, also the caller's to
    close, may take slices of the built-in workloads to a device instead. Where a slice runs never
    changes its proof.

    With `may_fork`, batches of very short slices go to up to four forked processes, no more than
    `workers`, if this process has no second thread by then. The interpreter lock makes threads
    useless for them. Do not allow it where the host program minds children of its own.

    Proofs are cached for as long as the runner lives, by workload and by the file's device, inode,
    length and time stamps, never by name or number: other content under an old name is run anew.
    Very short slices are hashed again instead, which takes no longer than looking them up.

    One runner serves one thread at a time; use it in a `with` statement.
    """

    def __init__(
        self,
        workers: int | None = None,
        executor: "Executor | None" = None,
        *,
        hasher: "Hasher | None" = None,
        may_fork: bool = False,
    ) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"workers {workers}: at least 1 is needed")
        self._workers = workers or cores()
        self._helpers = min(_HELPERS_MAX, self._workers) if may_fork and self._workers > 1 else 0
        self._executor = executor
        self._hasher = hasher
        self._own_pool: Executor | None = None
        self._readers: Executor | None = None
        self._caches: dict[str, ProofCache] = {}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the runner's own threads once they have finished the slices they are at."""
        for pool in (self._own_pool, self._readers):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        self._own_pool = self._readers = None

    def run(
        self,
        name: str,
        paths: Iterable[str],
        *,
        now_ms: int,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Result]:
        """Run the workload `name` over `paths`; yield one result for each, in their order.

        A path that cannot be run yields a result with its error, and the others go on. `paths` is
        read as results are taken, about two thousand ahead at most, with an executor seventeen
        thousand, so it may be endless.

        `now_ms` is the time of the call in Unix milliseconds, by the clock that stamps files; a
        time in the future is dangerous. A file last changed two seconds before it or earlier has
        a stamp that the next change cannot repeat: only then is its proof cached. `progress` is
        called in the calling thread with the bytes done so far, about once a MiB and at the end; of
        workloads that are not built in, whose slices may be short and slow, after each slice.

        Raises UsageError (`unknown_workload`, `broken_workload`) at once, before any path is read.
        Taking results raises what the futures of an executor raise.
        """
        settled_ns = now_ms * 1_000_000 - _TIMESTAMP_TICK_NS
        return _Run(self, name, settled_ns, progress).results(paths)

    def _cache_of(self, name: str) -> ProofCache:
        return self._caches.setdefault(name, ProofCache())

    def _pool(self) -> "Executor":
        if self._own_pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._own_pool = ThreadPoolExecutor(self._workers)
        return self._own_pool

    def _device_pool(self, width: int) -> "Executor":
        """Threads that read slices into the memory of a device, which takes so many at once."""
        if self._readers is None:
            from concurrent.futures import ThreadPoolExecutor

            self._readers = ThreadPoolExecutor(width)
        return self._readers


class _Run:
    """One call of `Runner.run`: what holds for all of its slices, and its progress."""

    def __init__(
        self,
        runner: Runner,
        name: str,
        settled_ns: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._runner = runner
        self._name = name
        self._workload = resolve(name)
        self._cache = runner._cache_of(name)
        self._settled_ns = settled_ns
        self._progress = progress
        self._bytes_done = 0
        # Only of the built-in job is it known that the cost of a slice follows from its length.
        built_in = self._workload is hash_opened
        self._report_step = _REPORT_BYTES if built_in else 0
        self._report_from = self._report_step
        self._errands = Errands(runner._executor, name) if runner._executor is not None else None
        self._places_by_length = built_in and self._errands is None
        self._hasher = runner._hasher if self._places_by_length else None
        self._task_slices = 1 if not built_in else _ERRAND_SLICES if self._errands else _TASK_SLICES
        self._ahead_max = max(_AHEAD_MAX, self._task_slices * _AHEAD_ERRANDS)
        # Slices of a batch are mostly alike: what the last one was decides how the next is tried.
        self._expects_short = self._places_by_length and not self._is_forced()

    def results(self, paths: Iterable[str]) -> Iterator[Result]:
        tries = self._first_tries(paths)
        pending: deque[Result | _Task] = deque()
        # The youngest task. It is handed over when the next one begins: when none does, all there
        # is for the pool is this one, and starting threads for it would cost more than it does.
        task: _Task | None = None
        ahead = 0
        try:
            for tried in tries:
                outcome = self._attempt(tried) if isinstance(tried, str) else tried
                if isinstance(outcome, Result):
                    if not pending:
                        yield outcome
                        continue
                    pending.append(outcome)
                else:
                    length = outcome[2]
                    on_device = self._is_for_device(length)
                    if task is not None and not (
                        task is pending[-1] and self._fits(task, length, on_device=on_device)
                    ):
                        self._submit(task)
                        task = None
                    if task is None:
                        task = _Task(on_device=on_device)
                        pending.append(task)
                    assert isinstance(tried, str)
                    task.add(tried, outcome)
                ahead += 1
                while pending and (ahead >= self._ahead_max or _is_done(pending[0])):
                    entry = pending.popleft()
                    if entry is task:
                        task = None
                    settled = self._settle(entry)
                    ahead -= len(settled)
                    yield from settled
            if task is not None and task is not pending[0]:
                self._submit(task)
            while pending:
                yield from self._settle(pending.popleft())
            self._report()
        finally:
            tries.close()
            for entry in pending:
                if isinstance(entry, _Task) and entry.future is not None:
                    entry.future.cancel()

    def _first_tries(self, paths: Iterable[str]) -> Generator[str | Result]:
        """The result of each path that leads to a short slice; the other paths themselves."""
        helpers = self._runner._helpers
        fork_after = _FORK_AFTER_IF_MANY if length_hint(paths) >= _MANY else _FORK_AFTER
        remaining = iter(paths)
        for count, path in enumerate(remaining, start=1):
            proof = hash_short(path, self._settled_ns) if self._expects_short else None
            if proof is None:
                yield path
            else:
                self._advance(proof[1])
                yield Result(path, *proof)
            if count == fork_after and self._expects_short and helpers and self._may_fork():
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
            self._advance(sum(lengths))
            return results
        self._advance(sum(length for length in lengths if length != NO_LENGTH))
        return [result.path if result.length == NO_LENGTH else result for result in results]

    def _attempt(self, path: str, *, here: bool = False) -> Result | FileIdentity:
        """The result of a slice that is wrong, cached, or run `here`; else its file's identity."""
        try:
            descriptor, status = open_slice(path)
        except MarketError as error:
            return Result(path, b"", 0, error)
        try:
            identity = identity_of(status)
            length = status.st_size
            self._expects_short = (
                self._places_by_length and length <= SHORT_BYTES and not self._is_forced()
            )
            digest = self._cache.get(identity)
            if digest is not None:
                self._advance(length)
                return Result(path, digest, length)
            if not here and not self._belongs_here(length):
                return identity
            result = prove(self._run_here, path, descriptor, identity)
            self._remember(result, identity)
            return result
        finally:
            os.close(descriptor)

    def _belongs_here(self, length: int) -> bool:
        """Whether this thread works a slice itself, with all cores or all of the device."""
        if self._errands is not None:
            return self._errands.blind and length > SENT_MAX_BYTES
        if not self._places_by_length:
            return False
        if length <= SHORT_BYTES:
            return not self._is_forced()
        return length > (LONG_BYTES if self._hasher is None else _DEVICE_TASK_BYTES)

    def _run_here(self, path: str, descriptor: int, length: int) -> bytes:
        if self._workload is hash_opened:
            hash_here = hash_opened if self._hasher is None else self._hasher.hash_opened
            return hash_here(path, descriptor, length, advance=self._advance)
        digest = self._workload(path, descriptor, length)
        self._advance(length)
        return digest

    def _may_fork(self) -> bool:
        """Not once a device is open, whose driver does not survive it, threads or not."""
        return can_fork() and (self._hasher is None or not self._hasher.is_open)

    def _is_forced(self) -> bool:
        return self._hasher is not None and self._hasher.is_forced

    def _is_for_device(self, length: int) -> bool:
        if self._hasher is None:
            return False
        together, threads = files_in_a_task(length), self._runner._workers
        return self._hasher.takes_file(length, threads=threads, together=together)

    def _fits(self, task: _Task, length: int, *, on_device: bool) -> bool:
        """Whether one more slice, of that length, may join a task."""
        if task.on_device != on_device:
            return False
        if on_device:
            room = task.length + length <= _DEVICE_TASK_BYTES
            return room and len(task.paths) < _DEVICE_TASK_SLICES
        full = _TASK_BYTES
        if self._errands is not None:
            full = _ERRAND_SENT_BYTES if self._errands.blind else _ERRAND_BYTES
        return task.length < full and len(task.paths) < self._task_slices

    def _submit(self, task: _Task) -> None:
        if self._errands is not None:
            task.future = self._errands.begin(task.paths, task.identities)
        elif task.on_device:
            assert self._hasher is not None
            pool = self._runner._device_pool(self._hasher.width)
            task.future = pool.submit(
                run_slices_on_device, self._hasher, task.paths, task.identities
            )
        else:
            task.future = self._runner._pool().submit(run_slices, self._name, task.paths)

    def _settle(self, entry: Result | _Task) -> list[Result]:
        """The results of what comes next, after waiting for them if need be."""
        if isinstance(entry, Result):
            return [entry]
        if entry.future is None and self._errands is None and not entry.on_device:
            return [self._result_here(path) for path in entry.paths]
        if entry.future is None:
            self._submit(entry)
        assert entry.future is not None
        results = []
        outcomes = entry.future.result()
        for path, outcome, expected in zip(entry.paths, outcomes, entry.identities, strict=True):
            if outcome is None:
                results.append(self._result_here(path))
                continue
            result, identity = outcome
            # A worker on another machine may know the file by other numbers, which here might
            # belong to another file. Then its proof is not worth remembering.
            if identity is not None and identity == expected:
                self._remember(result, identity)
            self._advance(result.length)
            results.append(result)
        return results

    def _result_here(self, path: str) -> Result:
        result = self._attempt(path, here=True)
        assert isinstance(result, Result)
        return result

    def _remember(self, result: Result, identity: FileIdentity) -> None:
        modified_ns, changed_ns = identity[3:]
        if result.error is None and max(modified_ns, changed_ns) <= self._settled_ns:
            self._cache.put(identity, result.digest)

    def _advance(self, count: int) -> None:
        self._bytes_done += count
        if self._bytes_done >= self._report_from:
            self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._bytes_done)
            self._report_from = self._bytes_done + self._report_step


def files_in_a_task(length: int) -> int:
    """How many files of that length, in bytes, a device takes together."""
    return min(_DEVICE_TASK_SLICES, max(1, _DEVICE_TASK_BYTES // max(1, length)))


def _is_done(entry: Result | _Task) -> bool:
    if isinstance(entry, Result):
        return True
    return entry.future is not None and entry.future.done()
