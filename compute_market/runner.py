"""The runner: works many slices at once and yields one result for each, in order.

Importing this module loads no pool and no plugin: a run imports what it turns out to need. What
the runner yields depends on the files alone; where each slice is worked is a matter of speed.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from operator import length_hint
from typing import TYPE_CHECKING, Any, NamedTuple

from compute_market.errors import IntegrityError, MarketError, UsageError
from compute_market.hashing.cpu import (
    DIGEST_BYTES,
    FileIdentity,
    changed,
    cores,
    fill_from,
    hash_opened,
    identity_of,
    open_slice,
    shown,
    unreadable,
)
from compute_market.hashing.short import (
    NO_LENGTH,
    SHORT_BYTES,
    Helpers,
    can_fork,
    hash_short,
)
from compute_market.workloads import Workload, resolve

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from compute_market.hashing.hasher import Hasher

# A longer slice than this is worked by every core. Shorter ones in a row take less time with a core
# for each, as starting on every one of them costs the cores a wait.
_LONG_BYTES = 33_554_432
# A task of the pool takes slices until their lengths add up to this, or until there are so many.
_TASK_BYTES = 1_048_576
_TASK_SLICES = 64
# The same for tasks of a device, which has room for so much at once.
_DEVICE_TASK_BYTES = 16_777_216
_DEVICE_TASK_SLICES = 256
_DEVICE_WORKERS = 6
# Slices read ahead of the result that is due; what bounds memory, however many slices there are.
_AHEAD_MAX = 1024
# Progress is reported in steps of at least this many bytes.
_REPORT_BYTES = 1_048_576
# So many short slices in a row promise enough more to fork helpers for, which takes a millisecond.
_FORK_AFTER = 256
# Of many paths it is known without counting them that there are enough.
_MANY = 1024
_FORK_AFTER_IF_MANY = 16
_HELPERS_MAX = 4
_CACHE_GENERATION = 8192
# The coarsest time stamps in use, those of FAT, count in steps of two seconds.
_TIMESTAMP_TICK_NS = 2_000_000_000


class Result(NamedTuple):
    """What became of one slice: its proof, or the error that stopped it.

    With an error, `digest` is empty and `length` is 0. `length` counts bytes.
    """

    path: str
    digest: bytes
    length: int
    error: MarketError | None = None


# A result, and which state of which file it belongs to if the file could be opened.
Outcome = tuple[Result, FileIdentity | None]


def run_slices(name: str, paths: list[str]) -> list[Outcome]:
    """One task of a pool: run the workload over the paths, one after another, in this thread.

    The workers of a cluster import it by name; they need the files and nothing of the market.
    """
    workload = resolve(name)
    return [_run_slice(workload, path) for path in paths]


def _run_slice(workload: Workload, path: str) -> Outcome:
    try:
        descriptor, status = open_slice(path)
    except MarketError as error:
        return Result(path, b"", 0, error), None
    try:
        identity = identity_of(status)
        if workload is hash_opened and status.st_size <= _LONG_BYTES:
            # The pool's threads share the cores already.
            workload = _hash_in_one_thread
        return _prove(workload, path, descriptor, identity), identity
    finally:
        os.close(descriptor)


def _hash_in_one_thread(path: str, descriptor: int, length: int) -> bytes:
    return hash_opened(path, descriptor, length, threads=1)


def _prove(workload: Workload, path: str, descriptor: int, identity: FileIdentity) -> Result:
    length = identity[2]
    try:
        digest = workload(path, descriptor, length)
        if identity_of(os.fstat(descriptor)) != identity:
            raise changed(path)
        if len(digest) != DIGEST_BYTES:
            raise IntegrityError(
                f"{shown(path)}: the workload returned {len(digest)} bytes, not {DIGEST_BYTES}",
                reason="broken_workload",
            )
    except MarketError as error:
        return Result(path, b"", 0, error)
    except OSError as error:
        return Result(path, b"", 0, unreadable(path, error))
    return Result(path, digest, length)


class _ProofCache:
    """Proofs of one workload by file identity, for the last 8 192 to 16 384 files.

    Two generations: once the younger is full it replaces the older. This forgets what was not
    asked for lately, and needs no record of the order in which it was.
    """

    def __init__(self) -> None:
        self._younger: dict[FileIdentity, bytes] = {}
        self._older: dict[FileIdentity, bytes] = {}

    def get(self, identity: FileIdentity) -> bytes | None:
        digest = self._younger.get(identity)
        if digest is None and (digest := self._older.get(identity)) is not None:
            self.put(identity, digest)
        return digest

    def put(self, identity: FileIdentity, digest: bytes) -> None:
        if len(self._younger) >= _CACHE_GENERATION:
            self._older, self._younger = self._younger, {}
        self._younger[identity] = digest


def prove_on_device(
    hasher: "Hasher", paths: list[str], identities: list[FileIdentity]
) -> list[Outcome]:
    """One task of a device: read the slices into its memory and hash them together.

    A file that is not what it was, and everything if the device fails, is left to the CPU.
    """
    errors: dict[int, MarketError] = {}
    replaced: list[int] = []

    def fill(memory: Any, offsets: list[int]) -> None:
        for index, (path, identity) in enumerate(zip(paths, identities, strict=True)):
            begin = offsets[index]
            try:
                if not _read_slice(path, identity, memory[begin : begin + identity[2]].data):
                    replaced.append(index)
            except MarketError as error:
                errors[index] = error

    digests = hasher.hash_filled([identity[2] for identity in identities], fill)
    if digests is None:
        return [_run_slice(hash_opened, path) for path in paths]
    outcomes: list[Outcome] = []
    for index, (path, identity) in enumerate(zip(paths, identities, strict=True)):
        digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        outcomes.append((Result(path, digest, identity[2]), identity))
    for index, error in errors.items():
        outcomes[index] = (Result(paths[index], b"", 0, error), identities[index])
    for index in replaced:
        outcomes[index] = _run_slice(hash_opened, paths[index])
    return outcomes


def _read_slice(path: str, identity: FileIdentity, memory: memoryview) -> bool:
    """Fill the memory with a file; False if the path leads to another state of a file by now.

    Raises what `open_slice` raises, and IntegrityError when reading fails or the file changes.
    """
    descriptor, status = open_slice(path)
    try:
        if identity_of(status) != identity:
            return False
        count = fill_from(descriptor, memory, 0)
        if count != len(memory) or identity_of(os.fstat(descriptor)) != identity:
            raise changed(path)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)
    return True


class _Task:
    """Slices in a row that go to a pool, or to the device, together."""

    def __init__(self, *, on_device: bool) -> None:
        self.on_device = on_device
        self.paths: list[str] = []
        self.identities: list[FileIdentity] = []
        self.length = 0
        self.future: Future[list[Outcome]] | None = None

    def add(self, path: str, identity: FileIdentity) -> None:
        self.paths.append(path)
        self.identities.append(identity)
        # In the memory of a device each begins at a multiple of 16.
        self.length += -(-identity[2] // 16) * 16

    def takes(self, identity: FileIdentity, *, on_device: bool, slices_max: int) -> bool:
        """Whether one more slice may join."""
        if self.on_device != on_device:
            return False
        if on_device:
            room = self.length + identity[2] <= _DEVICE_TASK_BYTES
            return room and len(self.paths) < _DEVICE_TASK_SLICES
        return self.length < _TASK_BYTES and len(self.paths) < slices_max


class Runner:
    """Runs workloads over slice files, many at once; results come in the order of the paths.

    Built-in workloads take each slice where it is fastest: very short ones in the calling thread,
    long ones there too but with every core hashing, those between in a fixed pool of `workers`
    threads (default: one a core). Other workloads always use the pool, one task a slice. With an
    `executor`, which stays the caller's to shut down, every slice goes there. A `hasher`, also the
    caller's, may take slices of the built-in workloads to a device. Where a slice runs never
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
        self._device_pool: Executor | None = None
        self._caches: dict[str, _ProofCache] = {}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the runner's own threads once they have finished the slices they are at."""
        for pool in (self._own_pool, self._device_pool):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        self._own_pool = self._device_pool = None

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
        read as results are taken, about two thousand ahead at most, so it may be endless.

        `now_ms` is the time of the call in Unix milliseconds, by the clock that stamps files; a
        time in the future is dangerous. A file last changed two seconds before it or earlier has
        a stamp that the next change cannot repeat: only then is its proof cached. `progress` is
        called in the calling thread with the bytes done so far, about once a MiB and at the end.

        Raises UsageError (`unknown_workload`, `broken_workload`) at once, before any path is read.
        """
        settled_ns = now_ms * 1_000_000 - _TIMESTAMP_TICK_NS
        return _Run(self, name, settled_ns, progress).results(paths)

    def _cache_of(self, name: str) -> _ProofCache:
        return self._caches.setdefault(name, _ProofCache())

    def _pool(self) -> "Executor":
        if self._executor is not None:
            return self._executor
        if self._own_pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._own_pool = ThreadPoolExecutor(self._workers)
        return self._own_pool

    def _submit(self, name: str, task: "_Task") -> None:
        if not task.on_device:
            task.future = self._pool().submit(run_slices, name, task.paths)
            return
        if self._device_pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._device_pool = ThreadPoolExecutor(_DEVICE_WORKERS)
        assert self._hasher is not None
        task.future = self._device_pool.submit(
            prove_on_device, self._hasher, task.paths, task.identities
        )


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
        self._report_from = _REPORT_BYTES
        # Only of the built-in job is it known that the cost of a slice follows from its length.
        self._places_by_length = self._workload is hash_opened and runner._executor is None
        self._task_slices = _TASK_SLICES if self._workload is hash_opened else 1
        self._hasher = runner._hasher if self._places_by_length else None
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
                    on_device = self._takes(outcome)
                    if task is not None and not (
                        task is pending[-1]
                        and task.takes(outcome, on_device=on_device, slices_max=self._task_slices)
                    ):
                        self._runner._submit(self._name, task)
                        task = None
                    if task is None:
                        task = _Task(on_device=on_device)
                        pending.append(task)
                    assert isinstance(tried, str)
                    task.add(tried, outcome)
                ahead += 1
                while pending and (ahead >= _AHEAD_MAX or _is_done(pending[0])):
                    entry = pending.popleft()
                    if entry is task:
                        task = None
                    settled = self._settle(entry)
                    ahead -= len(settled)
                    yield from settled
            if task is not None and task is not pending[0]:
                self._runner._submit(self._name, task)
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
            if not here and not self._stays_here(length):
                return identity
            result = _prove(self._run_here, path, descriptor, identity)
            self._remember(result, identity)
            return result
        finally:
            os.close(descriptor)

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

    def _stays_here(self, length: int) -> bool:
        """Whether this thread works a slice itself, with all cores or all of the device."""
        if not self._places_by_length:
            return False
        if length <= SHORT_BYTES:
            return not self._is_forced()
        return length > (_LONG_BYTES if self._hasher is None else _DEVICE_TASK_BYTES)

    def _takes(self, identity: FileIdentity) -> bool:
        """Whether a slice that does not stay here goes to the device."""
        return self._hasher is not None and self._hasher.takes_file(identity[2])

    def _settle(self, entry: Result | _Task) -> list[Result]:
        """The results of what comes next, after waiting for them if need be."""
        if isinstance(entry, Result):
            return [entry]
        if entry.future is None and self._runner._executor is None and not entry.on_device:
            attempts = [self._attempt(path, here=True) for path in entry.paths]
            return [result for result in attempts if isinstance(result, Result)]
        if entry.future is None:
            self._runner._submit(self._name, entry)
        assert entry.future is not None
        results = []
        for (result, identity), expected in zip(
            entry.future.result(), entry.identities, strict=True
        ):
            # A worker on another machine may know the file by other numbers, which here might
            # belong to another file. Then its proof is not worth remembering.
            if identity is not None and identity == expected:
                self._remember(result, identity)
            self._advance(result.length)
            results.append(result)
        return results

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
            self._report_from = self._bytes_done + _REPORT_BYTES


def _is_done(entry: Result | _Task) -> bool:
    if isinstance(entry, Result):
        return True
    return entry.future is not None and entry.future.done()
