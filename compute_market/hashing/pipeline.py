"""BLAKE3 on devices with memory of their own, the same for CUDA and OpenCL.

Data goes through lanes. A lane has a staging buffer that the device copies from at full speed,
memory on one device, and a queue of its own; while one lane is being filled, another copies and a
third computes. All data is cut into segments that fit a lane, so memory is bounded whatever the
length: many slices in one segment, or one slice in many whose values are folded at the end.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from compute_market.hashing.batch import checked_ranges
from compute_market.hashing.checked import CHECK_BYTES, check_kernels
from compute_market.hashing.cpu import Advance, changed, fill_from, unreadable
from compute_market.hashing.device import DeviceError, Driver, Lane, Resident
from compute_market.hashing.plan import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    Bytes,
    Integers,
    plan_fold,
    plan_part,
    plan_slices,
    tile_for,
)

T = TypeVar("T")

# A power of two of chunks, so that each segment of a long slice but the last is a complete subtree.
SEGMENT_BYTES = 16_777_216
# More slices than these do not share a segment; it bounds the tables and the values.
SEGMENT_SLICES = 32_768
TABLE_BYTES = 2_097_152
STAGING_BYTES = SEGMENT_BYTES + TABLE_BYTES
# Values folded in one step: a power of two that fits.
FOLD_VALUES = 32_768
# What one launch hashes of data that is on the device already: powers of two for which there is
# room for the tables.
RESIDENT_BYTES = 2**32
RESIDENT_TILES = 16_384


class DeviceBackend:
    """Hashes batches, files and arrays on all devices of one driver.

    Every method gives the standard digests or raises DeviceError; a file that changes while it is
    read raises what the CPU raises for it. Methods may be called from several threads. After the
    first DeviceError nothing is tried any more. A process that was forked cannot use a device its
    parent opened: it gets a DeviceError.
    """

    def __init__(self, driver: Driver, lanes_per_device: int) -> None:
        import threading
        from queue import SimpleQueue

        self.name = driver.name
        self.devices = driver.devices
        self.driver = driver
        self._process = os.getpid()
        self._failure: str | None = None
        # Lanes are opened as they are needed, on each device in turn.
        self._unopened = deque(list(range(len(driver.devices))) * lanes_per_device)
        self.width = len(self._unopened)
        self._opened: list[Lane] = []
        self._free: SimpleQueue[Lane] = SimpleQueue()
        self._resident_lanes: dict[int, Lane] = {}
        self._lock = threading.Lock()
        self._checked: set[tuple[int, int, int]] = set()
        self._checking = threading.Lock()

    def start(self) -> None:
        """Open the first lane and hash a little: this finds out whether the device works at all."""
        self.hash_batch(b"", [0], [0])

    @property
    def first_lane(self) -> Lane:
        """For measuring, while nothing else is going on."""
        return self._opened[0]

    def close(self) -> None:
        """Give all memory back, also of lanes that fail to say that they are done."""
        self._failure = self._failure or "the backend was closed"
        with ExitStack() as every_one:
            for lane in (*self._opened, *self._resident_lanes.values()):
                every_one.callback(lane.close)
            self._opened.clear()
            self._resident_lanes.clear()

    def hash_batch(self, buffer: Any, offsets: Sequence[int], lengths: Sequence[int]) -> bytes:
        """The digests of ranges of a buffer, 32 bytes each, one after another in their order.

        Offsets and lengths are in bytes; arrays of integers are taken as they are. Ranges may
        overlap and repeat. Raises UsageError for a range that is not in the buffer.
        """
        view = memoryview(buffer)
        data: Bytes = np.frombuffer(view, np.uint8) if view.nbytes else np.zeros(0, np.uint8)
        starts, counts = _as_integers(len(data), offsets, lengths)
        digests = np.empty((len(starts), DIGEST_BYTES), np.uint8)
        is_long = counts > SEGMENT_BYTES
        for index in np.flatnonzero(is_long):
            begin, length = int(starts[index]), int(counts[index])
            digest = self._stream_memory(data[begin : begin + length])
            digests[index] = np.frombuffer(digest, np.uint8)
        short = np.flatnonzero(~is_long)
        jobs = self._batch_jobs(data, short, starts[short], counts[short])
        with closing(self._each(jobs)) as results:
            for indexes, values in results:
                digests[indexes] = values
        return digests.tobytes()

    def hash_filled(
        self, lengths: Sequence[int], fill: Callable[[Bytes, list[int]], None]
    ) -> bytes:
        """The digests of slices that `fill` puts into memory, in their order.

        It is called once, in this thread, with the memory and the offset of each slice. All of them
        together, each rounded up to 16 bytes, must be at most `SEGMENT_BYTES` long.
        """
        counts = np.asarray(lengths, np.int64)
        offsets, used = _packed(counts)
        with self._lane() as lane:
            fill(lane.staging[:used], offsets.tolist())
            return _slices_on(lane, offsets, counts, used).tobytes()

    def hash_opened(
        self, path: str, descriptor: int, length: int, advance: Advance | None = None
    ) -> bytes:
        """The digest of an open file that is `length` bytes long, read in segments side by side.

        Raises IntegrityError (`slice_changed`) when the file holds more or fewer bytes and
        (`unreadable`) when reading fails; a change that keeps the length is for the caller to see.
        """

        def read(staging: Bytes, begin: int) -> None:
            try:
                count = fill_from(descriptor, memoryview(staging.data), begin)
            except OSError as error:
                raise unreadable(path, error) from error
            if count != len(staging):
                raise changed(path)

        digest = self._stream(length, read, advance=advance)
        if os.pread(descriptor, 1, length):
            raise changed(path)
        return digest

    def hash_array(self, array: Any) -> bytes | None:
        """The digest of the bytes of an array that is on one of the devices, else None.

        The array must be contiguous in C order (UsageError otherwise).
        """
        with self._watched():
            where = self.driver.resident(array)
        if where is None:
            return None
        with self._watched(), self._lock:
            lane = self._resident_lanes.get(where.device)
            if lane is None:
                lane = self._open_lane(where.device, TABLE_BYTES)
                self._resident_lanes[where.device] = lane
            return self._hash_resident(lane, where)

    def _hash_resident(self, lane: Lane, where: Resident) -> bytes:
        if where.length <= CHUNK_BYTES:
            at = np.array([where.begin], np.int64)
            plan = plan_slices(at, np.array([where.length], np.int64), lane.tiles[0])
            return plan.in_order(lane.hash(plan, where.length, where))
        launch_bytes = min(RESIDENT_BYTES, lane.tiles[1] * CHUNK_BYTES * RESIDENT_TILES)
        launches = range(0, where.length, launch_bytes)
        values = []
        for start in launches:
            length = min(launch_bytes, where.length - start)
            tile = tile_for(np.array([length]), lane.tiles, lane.processors)
            plan = plan_part(
                length,
                start // CHUNK_BYTES,
                tile,
                tile * tile * CHUNK_BYTES,
                whole=len(launches) == 1,
                begin=where.begin + start,
            )
            values.append(lane.hash(plan, length, where))
        return _folded_on(lane, np.concatenate(values)) if len(values) > 1 else values[0].tobytes()

    def _stream_memory(self, data: Bytes) -> bytes:
        def read(staging: Bytes, begin: int) -> None:
            np.copyto(staging, data[begin : begin + len(staging)])

        pinned = data if self.driver.is_pinned(data) else None
        return self._stream(len(data), read, pinned=pinned)

    def _stream(
        self,
        length: int,
        read: Callable[[Bytes, int], None],
        *,
        pinned: Bytes | None = None,
        advance: Advance | None = None,
    ) -> bytes:
        """The digest of one slice, segment by segment, read into memory or pinned as it is."""
        whole = length <= SEGMENT_BYTES

        def run(lane: Lane, begin: int) -> tuple[int, Bytes]:
            count = min(SEGMENT_BYTES, length - begin)
            source = None
            if pinned is not None:
                source = pinned[begin : begin + count]
            else:
                read(lane.staging[:count], begin)
            if length <= CHUNK_BYTES:
                zero = np.zeros(1, np.int64)
                return count, _slices_on(lane, zero, zero + count, count, source)
            tile = tile_for(np.array([count]), lane.tiles, lane.processors)
            plan = plan_part(count, begin // CHUNK_BYTES, tile, SEGMENT_BYTES, whole=whole)
            return count, lane.hash(plan, count, source)

        jobs = (partial(run, begin=begin) for begin in range(0, max(1, length), SEGMENT_BYTES))
        values = []
        with closing(self._each(jobs)) as results:
            for count, value in results:
                values.append(value.reshape(-1))
                if advance is not None:
                    advance(count)
        if whole:
            return values[0].tobytes()
        with self._lane() as lane:
            return _folded_on(lane, np.concatenate(values))

    def _batch_jobs(
        self, data: Bytes, indexes: Integers, offsets: Integers, lengths: Integers
    ) -> Iterator[Callable[[Lane], tuple[Integers, Bytes]]]:
        """Jobs of slices that share a segment; each gives the numbers of its slices and digests."""
        if not len(indexes):
            return
        order = np.argsort(offsets, kind="stable")
        indexes, offsets, lengths = indexes[order], offsets[order], lengths[order]
        ends = np.maximum.accumulate(offsets + lengths)
        # Slices that lie close together are copied as they lie.
        dense = int(ends[-1] - offsets[0]) <= 2 * int(lengths.sum())
        pinned = dense and self.driver.is_pinned(data)
        # Ranges that overlap may be longer together than the memory they lie in: tables and values
        # have room for as much as a segment holds.
        sizes = np.cumsum(lengths if dense else -(-lengths // 16) * 16)
        start = 0
        while start < len(indexes):
            done = int(sizes[start - 1]) if start else 0
            stop = int(np.searchsorted(sizes, done + SEGMENT_BYTES, "right"))
            if dense:
                # The same remainder as in the buffer keeps what is aligned aligned.
                base = int(offsets[start]) // 16 * 16
                stop = min(stop, int(np.searchsorted(ends, base + SEGMENT_BYTES, "right")))
            stop = min(max(stop, start + 1), start + SEGMENT_SLICES)
            span = slice(start, stop)
            if dense:
                memory = data[base : int(ends[stop - 1])]
                yield _span_job(memory, pinned, indexes[span], offsets[span] - base, lengths[span])
            else:
                yield _gather_job(data, indexes[span], offsets[span], lengths[span])
            start = stop

    def _each(self, jobs: Iterable[Callable[[Lane], T]]) -> Generator[T]:
        """What the jobs return, in their order; as many at once as there are lanes."""
        remaining = iter(jobs)
        first, second = next(remaining, None), next(remaining, None)
        if first is None:
            return
        if second is None:
            # Threads would cost more than they bring.
            yield self._run(first)
            return
        from concurrent.futures import Future, ThreadPoolExecutor
        from itertools import chain

        pool = ThreadPoolExecutor(self.width)
        pending: deque[Future[T]] = deque()
        try:
            for job in chain((first, second), remaining):
                if len(pending) > self.width:
                    yield pending.popleft().result()
                pending.append(pool.submit(self._run, job))
            while pending:
                yield pending.popleft().result()
        finally:
            # The caller may close the file next: nobody may read from it then.
            pool.shutdown(cancel_futures=True)

    def _run(self, job: Callable[[Lane], T]) -> T:
        with self._lane() as lane:
            return job(lane)

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        """A lane for this thread alone, once there is one."""
        with self._watched():
            lane = self._take()
        try:
            with self._watched():
                yield lane
        finally:
            self._free.put(lane)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note a failure: a lane whose work broke off may still read the buffers it was given."""
        if self._failure is not None:
            raise DeviceError(self._failure)
        if os.getpid() != self._process:
            raise DeviceError("the device was opened before this process was forked")
        try:
            yield
        except DeviceError as error:
            self._failure = self._failure or str(error)
            raise

    def _open_lane(self, device: int, staging_bytes: int) -> Lane:
        lane = self.driver.open_lane(device, staging_bytes)
        lane.check = partial(self._check, device)
        return lane

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
                    lane.close()
                self._checked.add(form)

    def _take(self) -> Lane:
        with self._lock:
            if self._free.empty() and self._unopened:
                try:
                    lane = self._open_lane(self._unopened[0], STAGING_BYTES)
                except DeviceError:
                    # Somebody else may have the memory. With fewer lanes it takes longer.
                    if not self._opened:
                        raise
                    self._unopened.clear()
                else:
                    self._unopened.popleft()
                    self._opened.append(lane)
                    return lane
        return self._free.get()


def _as_integers(
    available: int, offsets: Sequence[int], lengths: Sequence[int]
) -> tuple[Integers, Integers]:
    """Offsets and lengths as arrays. Raises UsageError unless every range lies in the buffer."""
    try:
        starts, counts = np.asarray(offsets, np.int64), np.asarray(lengths, np.int64)
        whole = all(np.asarray(given).dtype.kind in "iu" for given in (offsets, lengths))
        right = (
            (whole or not len(starts))
            and len(starts) == len(counts)
            and not ((starts < 0) | (counts < 0) | (counts > available - starts)).any()
        )
    except OverflowError:
        right = False
    if not right:
        checked_ranges(available, offsets, lengths)  # It looks at one after the other and says.
    return starts, counts


def _span_job(
    memory: Bytes, pinned: bool, indexes: Integers, offsets: Integers, lengths: Integers
) -> Callable[[Lane], tuple[Integers, Bytes]]:
    def run(lane: Lane) -> tuple[Integers, Bytes]:
        if not pinned:
            np.copyto(lane.staging[: len(memory)], memory)
        source = memory if pinned else None
        return indexes, _slices_on(lane, offsets, lengths, len(memory), source)

    return run


def _gather_job(
    data: Bytes, indexes: Integers, offsets: Integers, lengths: Integers
) -> Callable[[Lane], tuple[Integers, Bytes]]:
    def run(lane: Lane) -> tuple[Integers, Bytes]:
        places, used = _packed(lengths)
        copies = zip(places.tolist(), offsets.tolist(), lengths.tolist(), strict=True)
        for place, offset, length in copies:
            lane.staging[place : place + length] = data[offset : offset + length]
        return indexes, _slices_on(lane, places, lengths, used)

    return run


def _packed(lengths: Integers) -> tuple[Integers, int]:
    """Where slices lie one behind the other, each at a multiple of 16, and where the last ends."""
    sizes = -(-lengths // 16) * 16
    ends = np.cumsum(sizes)
    return ends - sizes, int(ends[-1]) if len(ends) else 0


def _slices_on(
    lane: Lane, offsets: Integers, lengths: Integers, used: int, source: Bytes | None = None
) -> Bytes:
    """The digests of slices in a lane's staging buffer, a row each."""
    plan = plan_slices(offsets, lengths, tile_for(lengths, lane.tiles, lane.processors))
    values = lane.hash(plan, used, source) if plan.values else np.zeros(0, np.uint8)
    return np.frombuffer(plan.in_order(values), np.uint8).reshape(-1, DIGEST_BYTES)


def _folded_on(lane: Lane, values: Bytes) -> bytes:
    """The digest of a slice from the values of its parts."""
    step = FOLD_VALUES * DIGEST_BYTES
    while len(values) > step:
        folded = []
        for start in range(0, len(values), step):
            group = values[start : start + step]
            plan = plan_fold(len(group) // DIGEST_BYTES, lane.tiles[1], whole=False)
            folded.append(lane.fold(plan, group))
        values = np.concatenate(folded)
    plan = plan_fold(len(values) // DIGEST_BYTES, lane.tiles[1], whole=True)
    return lane.fold(plan, values).tobytes()
