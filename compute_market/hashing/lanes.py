"""The lanes to the devices of one driver: opened as they are needed, and closed when one fails.

A lane is used by one thread at a time. What a broken-off piece of work left in its queue may still
read and write its buffers, so after a failure no lane is used again.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from compute_market.errors import MarketError
from compute_market.hashing.checked import CHECK_BYTES, check_kernels
from compute_market.hashing.device import DeviceError, Driver, Lane, first_line

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")


class Lanes:
    """So many lanes to each device for data that is staged, and one for data that is there.

    After the first failure every method raises DeviceError, and all memory is given back once
    nobody uses it. So it does in a process that was forked, which cannot use its parent's devices.
    """

    def __init__(
        self, driver: Driver, per_device: int, *, staging_bytes: int, resident_bytes: int
    ) -> None:
        import threading

        self.driver = driver
        self.opened: list[Lane] = []  # those for data that is staged
        self._process = os.getpid()
        self._failure: str | None = None
        devices = list(range(len(driver.devices)))
        # By the device whose data the lane is for, or None for data that is staged, on any device:
        # the devices of lanes that are still to be opened, each in turn, and the lanes at rest.
        self._unopened: dict[int | None, deque[int]] = {None: deque(devices * per_device)}
        self._unopened |= {device: deque([device]) for device in devices}
        self._resting: dict[int | None, deque[Lane]] = {key: deque() for key in self._unopened}
        self._bytes = dict.fromkeys(self._unopened, resident_bytes) | {None: staging_bytes}
        # Kept from one call to the next: drivers greet each new thread, which takes them a while.
        self._pool: ThreadPoolExecutor | None = None
        self._changed = threading.Condition()
        self._checked: set[tuple[int, int, int]] = set()
        self._checking = threading.Lock()

    @property
    def width(self) -> int:
        """How many lanes there are for data that is staged; 1 if there are none any more."""
        return max(1, len(self.opened) + len(self._unopened[None]))

    def close(self) -> None:
        """Give all memory back, also of lanes that fail to say that they are done.

        Lanes in use are closed as soon as they are not.
        """
        with ExitStack() as every_one:
            for lane in self._stop("the backend was closed"):
                every_one.callback(lane.close)

    @contextmanager
    def lane(self, resident_on: int | None = None) -> Iterator[Lane]:
        """A lane for this thread alone, once there is one: to that device, or to any."""
        lane = None
        try:
            with self.watched():
                lane = self._take(resident_on)
                yield lane
        finally:
            if lane is not None:
                self._release(lane, resident_on)

    def each(self, jobs: Iterable[Callable[[Lane], T]]) -> Generator[T]:
        """What the jobs return, in their order; as many at once as there are lanes."""
        remaining = iter(jobs)
        first, second = next(remaining, None), next(remaining, None)
        if first is None:
            return
        if second is None:
            # Threads would cost more than they bring.
            yield self._run(first)
            return
        from concurrent.futures import wait
        from itertools import chain

        width = self.width
        pending: deque[Future[T]] = deque()
        try:
            for job in chain((first, second), remaining):
                if len(pending) > width:
                    # It stays among those that are waited for until its result is there.
                    result = pending[0].result()
                    pending.popleft()
                    yield result
                pending.append(self._submitted(job))
            while pending:
                result = pending[0].result()
                pending.popleft()
                yield result
        finally:
            # The caller may close the file next: nobody may read from it then.
            wait([future for future in pending if not future.cancel()])

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Stop all lanes if the work within fails, be it by an interrupt.

        A MarketError is about a slice, is raised before the device is given any of it, and stops
        nothing.
        """
        self._require_usable()
        try:
            yield
        except MarketError:
            raise
        except BaseException as error:
            is_told = isinstance(error, DeviceError)
            failure = str(error) if is_told else f"work on it broke off: {first_line(error)}"
            for lane in self._stop(failure):
                with suppress(DeviceError):
                    lane.close()
            raise

    def _submitted(self, job: Callable[[Lane], T]) -> "Future[T]":
        """Have a thread do a job, one of as many as there were lanes when the first was done."""
        from concurrent.futures import ThreadPoolExecutor

        with self._changed:
            # In a forked process the pool has no thread any more.
            self._require_usable()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.width)
            return self._pool.submit(self._run, job)

    def _run(self, job: Callable[[Lane], T]) -> T:
        with self.lane() as lane:
            return job(lane)

    def _require_usable(self) -> None:
        if os.getpid() != self._process:
            raise DeviceError("the device was opened before this process was forked")
        if self._failure is not None:
            raise DeviceError(self._failure)

    def _take(self, key: int | None) -> Lane:
        with self._changed:
            while True:
                self._require_usable()
                if self._resting[key]:
                    # The one that has rested longest: each device gets its share.
                    return self._resting[key].popleft()
                if not self._unopened[key]:
                    self._changed.wait()
                elif lane := self._opened(key):
                    return lane

    def _opened(self, key: int | None) -> Lane | None:
        """The next lane; None if its device has no room for one, but there are others."""
        device = self._unopened[key].popleft()
        try:
            lane = self.driver.open_lane(device, self._bytes[key])
        except DeviceError:
            # Another program may hold its memory. With fewer lanes the work takes longer.
            self._unopened[key] = deque(left for left in self._unopened[key] if left != device)
            if self._unopened[key] or (key is None and self.opened):
                return None
            raise
        lane.compiled.check = partial(self._check, device)
        if key is None:
            self.opened.append(lane)
        return lane

    def _release(self, lane: Lane, key: int | None) -> None:
        with self._changed:
            if self._failure is None:
                self._resting[key].append(lane)
                # All are woken: the one that is woken first may need a lane of another device.
                self._changed.notify_all()
                return
        with suppress(DeviceError):
            lane.close()

    def _stop(self, failure: str) -> list[Lane]:
        """Let nobody take a lane any more; returns those at rest, which are the caller's now."""
        with self._changed:
            self._failure = self._failure or failure
            resting = [lane for lanes in self._resting.values() for lane in lanes]
            for key in self._unopened:
                self._resting[key].clear()
                self._unopened[key].clear()
            self.opened.clear()
            if self._pool is not None:
                # Not waited for: the failure may be one of its own threads'.
                self._pool.shutdown(wait=False)
            self._changed.notify_all()
            return resting

    def _check(self, device: int, tile: int, align: int) -> None:
        """Check the kernels of one form on a device, unless that was done; DeviceError if wrong."""
        form = device, tile, align
        if form in self._checked:
            return
        with self._checking:
            if form not in self._checked:
                lane = self.driver.open_lane(device, CHECK_BYTES)
                try:
                    check_kernels(lane, tile, align)
                finally:
                    # An error about a digest matters more than one about closing.
                    with suppress(DeviceError):
                        lane.close()
                self._checked.add(form)
