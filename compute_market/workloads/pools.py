"""Tasks of slices in a row, and the threads of a runner that work them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from compute_market.hashing.files import FileIdentity
from compute_market.workloads.places import TaskPlace
from compute_market.workloads.tasks import Outcome

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

P = ParamSpec("P")
T = TypeVar("T")


class Answer(Protocol):
    """The pending outcomes of a task: a future of a pool, or a remote task."""

    def done(self) -> bool:
        """Whether the outcomes are there."""

    def cancel(self) -> object:
        """Begin it no more if it has not begun."""

    def result(self) -> Sequence[Outcome | None]:
        """Wait for the outcome of each slice; None where it has to be run in this thread."""


class Task:
    """Slices in a row that are worked together in one place.

    `answer` is None until the task is handed over to its place.
    """

    def __init__(self, place: TaskPlace) -> None:
        self.place = place
        self.paths: list[str] = []
        self.identities: list[FileIdentity] = []
        self.answer: Answer | None = None
        self._length = 0

    def takes(self, length: int, bytes_max: int, slices_max: int) -> bool:
        """Whether one more slice of that length in bytes may join the others.

        Slices join until there are `bytes_max`; on a device, where there is no more room than that,
        as long as they fit.
        """
        joined = self._length + (length if self.place == "device" else 1)
        return joined <= bytes_max and len(self.paths) < slices_max

    def add(self, path: str, identity: FileIdentity) -> None:
        self.paths.append(path)
        self.identities.append(identity)
        # In the memory of a device each begins at a multiple of 16.
        self._length += -(-identity[2] // 16) * 16

    def is_done(self) -> bool:
        return self.answer is not None and self.answer.done()

    def cancel(self) -> None:
        if self.answer is not None:
            self.answer.cancel()


class Pools:
    """Threads for slices, started when the first task needs them."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._workers_pool: Executor | None = None
        self._device_pool: Executor | None = None

    def work(self, function: Callable[P, T], *given: P.args, **named: P.kwargs) -> "Future[T]":
        """Have a thread call the function; the calling one where no more can be started."""
        from concurrent.futures import Future, ThreadPoolExecutor

        if self._workers_pool is None:
            self._workers_pool = ThreadPoolExecutor(self._workers)
        try:
            return self._workers_pool.submit(function, *given, **named)
        except RuntimeError as error:
            if "start new thread" not in str(error):
                raise
        # It is in the queue as well: a thread that is there may do the same again, for nothing.
        done: Future[T] = Future()
        done.set_result(function(*given, **named))
        return done

    def device(self, width: int) -> "Executor":
        """Threads that read slices into the memory of a device, which takes so many at once."""
        if self._device_pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._device_pool = ThreadPoolExecutor(width)
        return self._device_pool

    def close(self) -> None:
        """End the threads once they have finished the slices they are at."""
        for pool in (self._workers_pool, self._device_pool):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        self._workers_pool = self._device_pool = None
