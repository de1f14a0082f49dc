"""The runner: works many slices at once and yields one result for each, in order.

Importing this module loads no pool and no plugin: a run imports what it turns out to need. What
the runner yields depends on the files alone; `places` says where each slice is worked.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from compute_market.errors import MarketError, UsageError
from compute_market.hashing.cpu import cores, hash_opened
from compute_market.hashing.files import FileIdentity, identity_of, open_slice
from compute_market.workloads import places
from compute_market.workloads.cache import ProofCache
from compute_market.workloads.here import Here
from compute_market.workloads.places import Facts, Limits, TaskPlace
from compute_market.workloads.pools import Answer, Pools, Task
from compute_market.workloads.tasks import Result, run_slices, run_slices_on_device
from compute_market.workloads.workloads import Workload, resolve

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from compute_market.hashing.hasher import Hasher
    from compute_market.workloads.remote_tasks import RemoteTasks

_HELPERS_MAX = 4  # processes forked for short slices
# The coarsest time stamps in use, those of FAT, count in steps of two seconds.
_TIMESTAMP_TICK_NS = 2_000_000_000


class Runner:
    """Runs workloads over slice files, many at once; results come in the order of the paths.

    Built-in workloads take each slice where it is fastest: very short ones in the calling thread,
    long ones there too but with every core hashing, those between in a fixed pool of `workers`
    threads (default: one a core). Other workloads always use the pool, one task a slice. With an
    `executor`, which stays the caller's to shut down, every slice goes there, be it to another
    machine: by its path if the worker sees the same file, else by its bytes. A slice above 64 MiB
    that no worker sees runs in the calling thread. A `hasher`, also the caller's to close, may take
    slices of the built-in workloads to a device instead. Where a slice runs never changes its
    proof. `limits` bound the memory that all of this takes.

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
        limits: Limits = places.USUAL,
    ) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"workers {workers}: at least 1 is needed")
        workers = workers or cores()
        helpers = min(_HELPERS_MAX, workers) if may_fork and workers > 1 else 0
        self._resources = _Resources(workers, helpers, executor, hasher, limits)
        self._caches: dict[str, ProofCache] = {}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the runner's own threads once they have finished the slices they are at."""
        self._resources.pools.close()

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
        workload = resolve(name)
        cache = self._caches.setdefault(name, ProofCache())
        settled_ns = now_ms * 1_000_000 - _TIMESTAMP_TICK_NS
        return _Run(self._resources, name, workload, cache, settled_ns, progress).results(paths)


class _Resources:
    """What a runner has to work slices with."""

    def __init__(
        self,
        workers: int,
        helpers: int,
        executor: "Executor | None",
        hasher: "Hasher | None",
        limits: Limits,
    ) -> None:
        self.workers = workers
        self.helpers = helpers  # processes that it may fork
        self.executor = executor
        self.hasher = hasher
        self.limits = limits
        self.pools = Pools(workers)


# A slice that waits for its place in a task.
_Placed = tuple[str, FileIdentity, TaskPlace]


class _Run:
    """One call of `Runner.run`: places slices, and brings their results into order."""

    def __init__(
        self,
        resources: _Resources,
        name: str,
        workload: Workload,
        cache: ProofCache,
        settled_ns: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._resources = resources
        self._built_in = workload is hash_opened
        self._hasher = resources.hasher if self._built_in and resources.executor is None else None
        self._here = Here(workload, cache, settled_ns, progress, self._hasher)
        self._remote: RemoteTasks | None = None
        # How a task is handed over to its place.
        self._hand_over: dict[TaskPlace, Callable[[Task], Answer]] = {
            "pool": lambda task: resources.pools.work(run_slices, name, task.paths)
        }
        if resources.executor is not None:
            self._remote = remote = _remote_tasks(resources.executor, name, resources.limits)
            self._hand_over["executor"] = lambda task: remote.begin(task.paths, task.identities)
        if self._hasher is not None:
            self._hand_over["device"] = partial(_on_device, resources.pools, self._hasher)
        # Without a device and an executor they stay the same, and are not made for every slice.
        self._facts_of_cpu = Facts(self._built_in)
        self._here.expects_short = places.choose(0, self._facts(), resources.limits) == "short"

    def results(self, paths: Iterable[str]) -> Iterator[Result]:
        tries = self._here.first_tries(paths, self._resources.helpers)
        ahead_max = places.ahead_max(self._facts(), self._resources.limits)
        pending: deque[Result | Task] = deque()
        # The youngest task. It is handed over when the next one begins: when none does, all there
        # is for the pool is this one, and starting threads for it would cost more than it does.
        task: Task | None = None
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
                    path, identity, place = outcome
                    if task is None or not (
                        task is pending[-1] and self._takes(task, place, identity[2])
                    ):
                        if task is not None:
                            self._answer_to(task)
                        task = Task(place)
                        pending.append(task)
                    task.add(path, identity)
                ahead += 1
                while pending and (ahead >= ahead_max or _is_done(pending[0])):
                    entry = pending.popleft()
                    if entry is task:
                        task = None
                    settled = self._settled(entry)
                    ahead -= len(settled)
                    yield from settled
            if task is not None and task is not pending[0]:
                self._answer_to(task)
            while pending:
                yield from self._settled(pending.popleft())
            self._here.progress.report()
        finally:
            tries.close()
            for entry in pending:
                if isinstance(entry, Task):
                    entry.cancel()

    def _facts(self) -> Facts:
        hasher, remote = self._hasher, self._remote
        if hasher is None and remote is None:
            return self._facts_of_cpu
        return Facts(
            self._built_in,
            "none" if hasher is None else "forced" if hasher.is_forced else "auto",
            "none" if remote is None else "blind" if remote.blind else "sighted",
        )

    def _attempt(self, path: str) -> Result | _Placed:
        """The result of a slice that is wrong, cached or worked here; else where it goes."""
        try:
            descriptor, status = open_slice(path)
        except MarketError as error:
            return Result(path, b"", 0, error)
        try:
            identity = identity_of(status)
            place = places.choose(status.st_size, self._facts(), self._resources.limits)
            self._here.expects_short = place == "short"
            cached = self._here.cached(path, identity)
            if cached is not None:
                return cached
            if place == "short" or place == "here":
                return self._here.proved(path, descriptor, identity)
            if place == "device" and not self._device_takes(status.st_size):
                place = "pool"
            return path, identity, place
        finally:
            os.close(descriptor)

    def _device_takes(self, length: int) -> bool:
        """Whether the device takes a slice; opens it if that pays by now."""
        if self._hasher is None:
            return False
        together = places.files_together(length, self._resources.limits)
        return self._hasher.takes_file(length, threads=self._resources.workers, together=together)

    def _takes(self, task: Task, place: TaskPlace, length: int) -> bool:
        """Whether a task takes one more slice, for that place and of that length."""
        if place != task.place:
            return False
        return task.takes(length, *places.room(place, self._facts(), self._resources.limits))

    def _answer_to(self, task: Task) -> Answer:
        """The pending outcomes of a task, which is handed over now unless it was before."""
        if task.answer is None:
            task.answer = self._hand_over[task.place](task)
        return task.answer

    def _settled(self, entry: Result | Task) -> list[Result]:
        """The results of what comes next, after waiting for them if need be."""
        if isinstance(entry, Result):
            return [entry]
        if entry.answer is None and entry.place == "pool":
            return [self._here.result(path) for path in entry.paths]
        results = []
        outcomes = self._answer_to(entry).result()
        for path, outcome, expected in zip(entry.paths, outcomes, entry.identities, strict=True):
            if outcome is None:
                results.append(self._here.result(path))
                continue
            result, identity = outcome
            # A worker on another machine may know the file by other numbers, which here might
            # belong to another file. Then its proof is not worth remembering.
            if identity is not None and identity == expected:
                self._here.remember(result, identity)
            self._here.progress.advance(result.length)
            results.append(result)
        return results


def _remote_tasks(executor: "Executor", name: str, limits: Limits) -> "RemoteTasks":
    from compute_market.workloads.remote_tasks import RemoteTasks

    return RemoteTasks(executor, name, under_way_bytes_max=limits.under_way_bytes)


def _on_device(pools: Pools, hasher: "Hasher", task: Task) -> Answer:
    pool = pools.device(hasher.width)
    return pool.submit(run_slices_on_device, hasher, task.paths, task.identities)


def _is_done(entry: Result | Task) -> bool:
    return isinstance(entry, Result) or entry.is_done()
