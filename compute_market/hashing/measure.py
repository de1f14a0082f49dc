"""Measures what hashing costs on this machine, in a few seconds.

Everything is measured the way it is used: through the functions that hash. Each figure is a median
of runs that together take a fraction of a second; what is not certain after that is not worth
waiting for. Times come from a stopwatch that the caller brings.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from blake3 import blake3

from compute_market.hashing import cpu
from compute_market.hashing.batch import hash_batch
from compute_market.hashing.calibration import (
    VERSION,
    Calibration,
    CpuRates,
    DeviceRates,
    machine,
)
from compute_market.hashing.device import FMA_GROUP, SEGMENT_BYTES, Lane

if TYPE_CHECKING:
    from compute_market.hashing.pipeline import DeviceBackend

# Nanoseconds since some instant.
Stopwatch = Callable[[], int]

MIB = 1_048_576
_NS = 1_000_000_000
_LONG_BYTES = 64 * MIB
_RESIDENT_BYTES = 256 * MIB
_SLICE_BYTES = 1000
_SLICES = 10_000
_RUNS_MAX = 7
# For each figure, after a first run that is not counted.
_BUDGET_NS = 100_000_000
_FMA_TRIPS_MAX = 2**21
_FMA_RUN_NS = 20_000_000
_FLOPS_PER_TRIP = 2 * 16 * 16
_GROUPS_PER_PROCESSOR = 8


def measure(
    stopwatch: Stopwatch,
    *,
    measured_at: int,
    open_device: "Callable[[], DeviceBackend | None]" = lambda: None,
) -> Calibration:
    """Measure the CPU, and the devices that `open_device` opens and this function closes.

    `measured_at` is the present Unix second. Raises DeviceError when the device fails.
    """
    began = stopwatch()
    backend = open_device()
    start_ns = stopwatch() - began
    try:
        data = _random_bytes(_LONG_BYTES)
        rates = _cpu_rates(data, stopwatch)
        device = None
        if backend is not None:
            device = _device_rates(backend, data, start_ns, stopwatch)
    finally:
        if backend is not None:
            backend.close()
    return Calibration(VERSION, machine(), measured_at, rates, device)


def _cpu_rates(data: bytes, stopwatch: Stopwatch) -> CpuRates:
    one_ns = _median_ns(lambda: blake3(data).digest(), stopwatch)
    all_ns = _median_ns(lambda: cpu.hash_bytes(data), stopwatch)
    file_ns = _file_ns(data, cpu.hash_opened, stopwatch)
    batch_ns = _median_ns(lambda: hash_batch(data, *_slices()), stopwatch)
    one_rate = _rate(len(data), one_ns)
    bytes_ns = _SLICES * _SLICE_BYTES * _NS // one_rate
    return CpuRates(
        threads=cpu.cores(),
        one_thread_bytes_per_s=one_rate,
        all_threads_bytes_per_s=_rate(len(data), all_ns),
        file_bytes_per_s=_rate(len(data), file_ns),
        slice_ns=max(0, batch_ns - bytes_ns) // _SLICES,
    )


def _device_rates(
    backend: "DeviceBackend", data: bytes, start_ns: int, stopwatch: Stopwatch
) -> DeviceRates:
    driver = backend.driver
    lane = backend.first_lane

    def batch_ns(length: int) -> int:
        return _median_ns(lambda: backend.hash_batch(data, [0], [length]), stopwatch)

    def file_ns(length: int) -> int:
        return _file_ns(data[:length], backend.hash_opened, stopwatch)

    copied = len(lane.staging)
    copy_ns = _median_ns(lambda: lane.copy(copied), stopwatch) - _median_ns(
        lambda: lane.copy(1), stopwatch
    )
    copy_rate = _rate(copied, copy_ns)
    launch_ns = batch_ns(1)
    # A device that is slow gets less to do.
    slow = batch_ns(4 * MIB) > 4_000_000  # below 1 GB/s
    length = 8 * MIB if slow else _LONG_BYTES
    # Nothing comes from the host faster than by copies to all devices at once.
    bound = copy_rate * len(backend.devices)
    staged_first_rate, staged_rate = _segment_rates(batch_ns, length, launch_ns, bound)
    file_first_rate, file_rate = _segment_rates(file_ns, length, launch_ns, bound)
    slices_ns = _median_ns(lambda: backend.hash_batch(data, *_slices()), stopwatch)
    slice_bytes_ns = _SLICES * _SLICE_BYTES * _NS // staged_first_rate
    import numpy as np

    memory = np.frombuffer(data, np.uint8)[:length]
    small = driver.to_device(memory[:1])
    resident_ns = _median_ns(lambda: backend.hash_array(small), stopwatch)
    resident = driver.to_device(memory if slow else np.tile(memory, _RESIDENT_BYTES // length))
    resident_bytes = int(resident.nbytes)
    resident_all_ns = _median_ns(lambda: backend.hash_array(resident), stopwatch)
    pinned_rate = None
    if (pinned := driver.pinned(length)) is not None:
        np.copyto(pinned, memory)
        pinned_ns = _median_ns(lambda: backend.hash_batch(pinned, [0], [length]), stopwatch)
        pinned_rate = _rate(length, pinned_ns - launch_ns)
    return DeviceRates(
        backend=backend.name,
        devices=backend.devices,
        gflops=_gflops(lane, stopwatch),
        resident_bytes_per_s=_rate(resident_bytes, resident_all_ns - resident_ns),
        resident_ns=resident_ns,
        copy_bytes_per_s=copy_rate,
        pinned_bytes_per_s=pinned_rate,
        staged_first_bytes_per_s=staged_first_rate,
        staged_bytes_per_s=staged_rate,
        file_first_bytes_per_s=file_first_rate,
        file_bytes_per_s=file_rate,
        launch_ns=launch_ns,
        slice_ns=max(0, slices_ns - launch_ns - slice_bytes_ns) // _SLICES,
        start_ns=start_ns,
    )


def _segment_rates(
    time_ns: Callable[[int], int], length: int, launch_ns: int, bound: int
) -> tuple[int, int]:
    """The rates of a first segment and of what follows it, up to that length altogether."""
    first = min(length, SEGMENT_BYTES)
    first_ns = time_ns(first)
    first_rate = _rate(first, first_ns - launch_ns)
    if first == length:
        return first_rate, first_rate
    return first_rate, min(bound, _rate(length - first, time_ns(length) - first_ns))


def _gflops(lane: Lane, stopwatch: Stopwatch) -> int:
    """Single-precision operations per nanosecond, a multiply-add counted as two."""
    groups = lane.processors * _GROUPS_PER_PROCESSOR
    trips = 1
    elapsed_ns = 0
    while elapsed_ns < _FMA_RUN_NS and trips < _FMA_TRIPS_MAX:
        trips *= 8
        elapsed_ns = _median_ns(partial(lane.multiply_add, groups, trips), stopwatch)
    return max(1, _FLOPS_PER_TRIP * trips * groups * FMA_GROUP // elapsed_ns)


def _file_ns(
    data: bytes, hash_opened: Callable[[str, int, int], bytes], stopwatch: Stopwatch
) -> int:
    """The time a warm file takes; the file has no name and is in memory only."""
    descriptor = os.memfd_create("calibration")
    try:
        os.posix_fallocate(descriptor, 0, len(data))
        os.pwrite(descriptor, data, 0)
        return _median_ns(lambda: hash_opened("calibration", descriptor, len(data)), stopwatch)
    finally:
        os.close(descriptor)


def _slices() -> tuple[list[int], list[int]]:
    return [_SLICE_BYTES * number for number in range(_SLICES)], [_SLICE_BYTES] * _SLICES


def _median_ns(run: Callable[[], object], stopwatch: Stopwatch) -> int:
    """The median time of some runs, one nanosecond at least."""
    run()
    times: list[int] = []
    while len(times) < _RUNS_MAX and sum(times) < _BUDGET_NS:
        began = stopwatch()
        run()
        times.append(stopwatch() - began)
    return max(1, sorted(times)[len(times) // 2])


def _rate(length: int, elapsed_ns: int) -> int:
    """Bytes per second; a time below one nanosecond is noise."""
    return max(1, length * _NS // max(1, elapsed_ns))


def _random_bytes(length: int) -> bytes:
    """The same bytes each time, without a pattern: zeros draw less power and rate too high."""
    return blake3(b"calibration").digest(length=MIB) * (length // MIB)
