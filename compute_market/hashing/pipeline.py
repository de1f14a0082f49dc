"""BLAKE3 on devices with memory of their own, the same for CUDA and OpenCL.

Data goes through lanes. A lane has a staging buffer that the device copies from at full speed,
memory on one device, and a queue of its own; while one lane is being filled, another copies and a
third computes. All data is cut into segments that fit a lane, so memory is bounded whatever the
length: many slices in one segment, or one slice in many whose values are folded at the end.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from compute_market.hashing.batch import checked_ranges
from compute_market.hashing.cpu import DIGEST_BYTES, Advance, hash_bytes
from compute_market.hashing.device import SEGMENT_BYTES, Driver, Lane, Resident
from compute_market.hashing.files import changed, fill_from, unreadable
from compute_market.hashing.lanes import Lanes
from compute_market.hashing.plan import (
    CHUNK_BYTES,
    Bytes,
    Integers,
    Plan,
    plan_fold,
    plan_part,
    plan_slices,
    tile_for,
)

# More slices than these do not share a segment; it bounds the tables and the values.
SEGMENT_SLICES = 32_768
TABLE_BYTES = 2_097_152
STAGING_BYTES = SEGMENT_BYTES + TABLE_BYTES
# Values folded in one step: a power of two that fits.
FOLD_VALUES = 32_768
# What one launch hashes of data that is on the device already: powers of two for which there is
# room for the values. It needs no tables, so next to nothing is staged.
RESIDENT_BYTES = 2**34
RESIDENT_TILES = 65_536
RESIDENT_STAGING_BYTES = 4096

# Where digests of a batch go: rows in a row, or rows anywhere.
Places = slice | Integers


class DeviceBackend:
    """Hashes batches, files and arrays on all devices of one driver.

    Every method gives the standard digests or raises DeviceError; a file that changes while it is
    read raises what the CPU raises for it. Methods may be called from several threads. After the
    first DeviceError nothing is tried any more. A process that was forked cannot use a device its
    parent opened: it gets a DeviceError.
    """

    def __init__(self, driver: Driver, lanes_per_device: int) -> None:
        self.name = driver.name
        self.devices = driver.devices
        self.driver = driver
        self._lanes = Lanes(
            driver,
            lanes_per_device,
            staging_bytes=STAGING_BYTES,
            resident_bytes=RESIDENT_STAGING_BYTES,
        )

    def start(self) -> None:
        """Open the first lane and hash a little: this finds out whether the device works at all."""
        self.hash_batch(b"", [0], [0])

    @property
    def width(self) -> int:
        """How many calls work at once."""
        return self._lanes.width

    @property
    def first_lane(self) -> Lane:
        """For measuring, while nothing else is going on."""
        return self._lanes.opened[0]

    def close(self) -> None:
        """Give all memory back, once nobody uses it."""
        self._lanes.close()

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
        short = None
        if is_long.any():
            for index in np.flatnonzero(is_long):
                begin, length = int(starts[index]), int(counts[index])
                digest = self._stream_memory(data[begin : begin + length])
                digests[index] = np.frombuffer(digest, np.uint8)
            short = np.flatnonzero(~is_long)
            starts, counts = starts[short], counts[short]
        jobs = self._batch_jobs(data, short, starts, counts)
        with closing(self._lanes.each(jobs)) as results:
            for places, values in results:
                digests[places] = values
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
        with self._lanes.lane() as lane:
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
        with self._lanes.watched():
            where = self.driver.resident(array)
        if where is None:
            return None
        if where.length == 0:
            return hash_bytes(b"")
        with self._lanes.lane(resident_on=where.device) as lane:
            return self._hash_resident(lane, where)

    def resident_plans(self, lane: Lane, where: Resident) -> Iterator[tuple[Plan, int]]:
        """The launches that hash data on a device, and how many bytes each of them covers."""
        launch_bytes = min(RESIDENT_BYTES, lane.tiles[1] * CHUNK_BYTES * RESIDENT_TILES)
        for start in range(0, where.length, launch_bytes):
            length = min(launch_bytes, where.length - start)
            tile = tile_for(length, lane.tiles, lane.processors)
            plan = plan_part(
                length,
                start // CHUNK_BYTES,
                tile,
                tile * tile * CHUNK_BYTES,
                whole=where.length <= launch_bytes,
                begin=where.begin + start,
            )
            yield plan, length

    def _hash_resident(self, lane: Lane, where: Resident) -> bytes:
        plans = self.resident_plans(lane, where)
        values = [lane.hash(plan, length, where) for plan, length in plans]
        return _folded_on(lane, np.concatenate(values)) if len(values) > 1 else values[0].tobytes()

    def _stream_memory(self, data: Bytes) -> bytes:
        def read(staging: Bytes, begin: int) -> None:
            np.copyto(staging, data[begin : begin + len(staging)])

        pinned = data if self._is_pinned(data) else None
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
            tile = tile_for(count, lane.tiles, lane.processors)
            plan = plan_part(count, begin // CHUNK_BYTES, tile, SEGMENT_BYTES, whole=whole)
            return count, lane.hash(plan, count, source)

        jobs = (partial(run, begin=begin) for begin in range(0, max(1, length), SEGMENT_BYTES))
        values = []
        with closing(self._lanes.each(jobs)) as results:
            for count, value in results:
                values.append(value.reshape(-1))
                if advance is not None:
                    advance(count)
        if whole:
            return values[0].tobytes()
        with self._lanes.lane() as lane:
            return _folded_on(lane, np.concatenate(values))

    def _batch_jobs(
        self, data: Bytes, indexes: Integers | None, offsets: Integers, lengths: Integers
    ) -> Iterator[Callable[[Lane], tuple[Places, Bytes]]]:
        """Jobs of slices that share a segment; each gives the places of its slices and digests.

        `indexes` are the places of the slices; None if they are all there are, in their order.
        """
        if not len(offsets):
            return
        if (offsets[1:] < offsets[:-1]).any():
            order = np.argsort(offsets, kind="stable")
            indexes = order if indexes is None else indexes[order]
            offsets, lengths = offsets[order], lengths[order]
        ends = np.maximum.accumulate(offsets + lengths)
        # Slices that lie close together are copied as they lie.
        dense = int(ends[-1] - offsets[0]) <= 2 * int(lengths.sum())
        pinned = dense and self._is_pinned(data)
        # Ranges that overlap may be longer together than the memory they lie in: tables and values
        # have room for as much as a segment holds.
        sizes = np.cumsum(lengths if dense else -(-lengths // 16) * 16)
        start = 0
        while start < len(offsets):
            done = int(sizes[start - 1]) if start else 0
            stop = int(np.searchsorted(sizes, done + SEGMENT_BYTES, "right"))
            if dense:
                # Beginning at a multiple of 16 keeps the alignment that offsets have in the buffer.
                base = int(offsets[start]) // 16 * 16
                stop = min(stop, int(np.searchsorted(ends, base + SEGMENT_BYTES, "right")))
            stop = min(max(stop, start + 1), start + SEGMENT_SLICES)
            span = slice(start, stop)
            places = span if indexes is None else indexes[span]
            if dense:
                memory = data[base : int(ends[stop - 1])]
                yield _span_job(memory, pinned, places, offsets[span] - base, lengths[span])
            else:
                yield _gather_job(data, places, offsets[span], lengths[span])
            start = stop

    def _is_pinned(self, data: Bytes) -> bool:
        if not len(data):
            return False
        with self._lanes.watched():
            return self.driver.is_pinned(data)


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
        checked_ranges(available, offsets, lengths)  # Raises, and names the first that is wrong.
    return starts, counts


def _span_job(
    memory: Bytes, pinned: bool, places: Places, offsets: Integers, lengths: Integers
) -> Callable[[Lane], tuple[Places, Bytes]]:
    def run(lane: Lane) -> tuple[Places, Bytes]:
        if not pinned:
            np.copyto(lane.staging[: len(memory)], memory)
        source = memory if pinned else None
        return places, _slices_on(lane, offsets, lengths, len(memory), source)

    return run


def _gather_job(
    data: Bytes, places: Places, offsets: Integers, lengths: Integers
) -> Callable[[Lane], tuple[Places, Bytes]]:
    def run(lane: Lane) -> tuple[Places, Bytes]:
        packed, used = _packed(lengths)
        copies = zip(packed.tolist(), offsets.tolist(), lengths.tolist(), strict=True)
        for at, offset, length in copies:
            lane.staging[at : at + length] = data[offset : offset + length]
        return places, _slices_on(lane, packed, lengths, used)

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
    if not plan.values:
        return np.zeros((0, DIGEST_BYTES), np.uint8)
    return plan.in_order(lane.hash(plan, used, source))


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
