"""Workloads by name, and the runner that works many slices at once.

Importing this module loads no pool, no plugin and no third package but `blake3`; what a run needs
beyond that is imported when it needs it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from compute_market.errors import IntegrityError, MarketError, UsageError
from compute_market.hashing.cpu import (
    DIGEST_BYTES,
    Advance,
    FileIdentity,
    changed,
    cores,
    hash_opened,
    identity_of,
    open_slice,
    unreadable,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

ENTRY_POINT_GROUP = "compute_market.workloads"

# Called with the path (for error texts only), a descriptor at the start of the open file, and its
# length in bytes; returns the 32-byte proof. It may raise MarketError or OSError. It must be a pure
# function of the bytes: a slice may be run more than once, on any thread or machine.
Workload = Callable[[str, int, int], bytes]

# The reference job of each is the BLAKE3-256 of the slice. One name of one function: the runner
# knows by it that the cost of a slice follows from its length.
BUILT_IN: dict[str, Workload] = dict.fromkeys(("transcode", "inference", "gpu_hash"), hash_opened)

# Handing a slice to another thread and back takes about as long as hashing this many bytes.
_INLINE_BYTES = 65_536
# A slice longer than this keeps every core busy on its own, read-ahead included.
_ALONE_BYTES = 8_388_608
# What one task of the pool is given at most: slices until their lengths add up to this, ...
_TASK_BYTES = 1_048_576
# ... or this many of them.
_TASK_SLICES = 64
# Slices in flight or finished out of turn; what bounds memory, however many slices there are.
_IN_FLIGHT_MAX = 1024
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


def resolve(name: str) -> Workload:
    """The workload of that name: a built-in one, else one from an installed package.

    Packages register theirs as entry points of the group `compute_market.workloads`; a built-in
    name cannot be taken over. Raises UsageError (`unknown_workload`) listing the known names, or
    (`broken_workload`) when the package that claims the name cannot be loaded.
    """
    workload = BUILT_IN.get(name)
    if workload is not None:
        return workload
    # Looking for entry points reads the metadata of every installed package, so it comes last.
    from importlib.metadata import entry_points

    registered = entry_points(group=ENTRY_POINT_GROUP)
    for entry_point in registered:
        if entry_point.name == name:
            try:
                loaded = entry_point.load()
            except (ImportError, AttributeError) as error:
                raise UsageError(
                    f"workload {name} of {entry_point.value} cannot be loaded: {error}",
                    reason="broken_workload",
                ) from error
            if not callable(loaded):
                raise UsageError(
                    f"workload {name} of {entry_point.value} cannot be called",
                    reason="broken_workload",
                )
            return loaded  # type: ignore[no-any-return]
    known = sorted(BUILT_IN.keys() | registered.names)
    raise UsageError(
        f"unknown workload {name!r}: known are {', '.join(known)}", reason="unknown_workload"
    )


def run_slices(name: str, paths: list[str]) -> list[tuple[Result, FileIdentity | None]]:
    """One task of a pool: run the workload over each path, here, one after another.

    A cluster's workers import this function by name. They need the paths, not the store. Beside
    each result stands the identity of the file it was computed from, None where it has none.
    """
    workload = resolve(name)
    outcomes: list[tuple[Result, FileIdentity | None]] = []
    for path in paths:
        try:
            descriptor, status = open_slice(path)
        except MarketError as error:
            outcomes.append((Result(path, b"", 0, error), None))
            continue
        try:
            identity = identity_of(status)
            alone = workload is not hash_opened or status.st_size > _ALONE_BYTES
            prove = workload if alone else _hash_in_one_thread
            outcomes.append((_prove(prove, path, descriptor, identity), identity))
        finally:
            os.close(descriptor)
    return outcomes


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
                f"{path}: the workload returned {len(digest)} bytes, not {DIGEST_BYTES}",
                reason="broken_workload",
            )
    except MarketError as error:
        return Result(path, b"", 0, error)
    except OSError as error:
        return Result(path, b"", 0, unreadable(path, error))
    return Result(path, digest, length)


class _ProofCache:
    """Proofs of one workload by file identity, of the last 8 192 to 16 384 files.

    Two generations: when the younger is full it replaces the older. That forgets the proofs not
    asked for lately without keeping the order in which they were.
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


class _Task:
    """Slices in a row that go to the pool together."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.identities: list[FileIdentity] = []
        self.length = 0
        self.future: Future[list[tuple[Result, FileIdentity | None]]] | None = None

    def is_full(self) -> bool:
        return self.length >= _TASK_BYTES or len(self.paths) >= _TASK_SLICES


class Runner:
    """Runs workloads over slice files, many at once; results come in the order of the paths.

    Slices of middling length go to a fixed pool: `workers` threads (default: one a core), or
    `executor` if one is given, which stays the caller's to shut down. Long ones are hashed one at
    a time by every core, very short ones by the calling thread; both would be slower in a pool.
    Only a given executor gets every slice. Where a slice runs never changes its proof.

    Proofs are cached for as long as the runner lives, by workload and by the file's device, inode,
    length and time stamps, never by name or number: other content under an old name is run anew.

    One runner serves one thread at a time; use it in a `with` statement.
    """

    def __init__(self, workers: int | None = None, executor: "Executor | None" = None) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"workers {workers}: at least 1 is needed")
        self._workers = workers or cores()
        self._executor = executor
        self._own_pool: Executor | None = None
        self._caches: dict[str, _ProofCache] = {}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the runner's own threads, once they have finished what they are at."""
        if self._own_pool is not None:
            self._own_pool.shutdown(cancel_futures=True)
            self._own_pool = None

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
        read as results are taken, about a thousand ahead at most, so it may be endless.

        `now_ms` is the time of the call in Unix milliseconds. Proofs of files changed later than
        two seconds before it are not cached: such a file may change again without a new time
        stamp. `progress` is called in the calling thread with the bytes done so far.

        Raises UsageError (`unknown_workload`, `broken_workload`) at once, before any path is read.
        """
        workload = resolve(name)
        settled_ns = now_ms * 1_000_000 - _TIMESTAMP_TICK_NS
        cache = self._caches.setdefault(name, _ProofCache())
        return self._results(name, workload, paths, cache, settled_ns, _advance(progress))

    def _results(
        self,
        name: str,
        workload: Workload,
        paths: Iterable[str],
        cache: _ProofCache,
        settled_ns: int,
        advance: Advance | None,
    ) -> Iterator[Result]:
        pending: deque[Result | _Task] = deque()
        # The task that still takes slices; always the last of `pending`.
        task: _Task | None = None
        held = 0
        try:
            for path in paths:
                outcome = self._attempt(workload, path, cache, settled_ns, advance)
                if isinstance(outcome, Result):
                    if not pending:
                        yield outcome
                        continue
                    if task is not None:
                        self._submit(name, task)
                        task = None
                    pending.append(outcome)
                else:
                    if task is not None and task.is_full():
                        self._submit(name, task)
                        task = None
                    if task is None:
                        task = _Task()
                        pending.append(task)
                    task.add(path, outcome)
                held += 1
                while pending and (held >= _IN_FLIGHT_MAX or _is_done(pending[0])):
                    settled = _settle(pending.popleft(), cache, settled_ns, advance)
                    held -= len(settled)
                    yield from settled
            if task is not None:
                if len(pending) == 1 and self._executor is None:
                    # All there is for the pool is this one task: not worth starting threads for.
                    pending.clear()
                    for path in task.paths:
                        yield self._run_here(workload, path, cache, settled_ns, advance)
                else:
                    self._submit(name, task)
            while pending:
                yield from _settle(pending.popleft(), cache, settled_ns, advance)
        finally:
            for left in pending:
                if isinstance(left, _Task) and left.future is not None:
                    left.future.cancel()
