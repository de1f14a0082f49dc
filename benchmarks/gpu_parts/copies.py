"""What all else is held against: copies, an empty launch, waiting, and staging by threads."""

import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

from rounds import interleave

from gpu_parts.bench import MIB, Bench, address, as_array, random_bytes, repeated
from gpu_parts.record import Record

BLOCK = 16 * MIB
_HOST_TO_DEVICE, _DEVICE_TO_DEVICE = 1, 3
NOTHING = 'extern "C" __global__ void nothing() {}'


def run(bench: Bench, record: Record) -> None:
    staged(bench, record)
    bench.require()
    with closing(bench.open()) as backend:
        record.put("device", " + ".join(backend.devices))
        lane = backend.first_lane
        if not bench.is_cuda:
            times = interleave({"copy": lambda: lane.copy(len(lane.staging))}, bench.rounds)
            record.put("copy", len(lane.staging) / statistics.median(times["copy"]))
            return
        copied(bench, backend, record)
        waited(bench, record)


def staged(bench: Bench, record: Record) -> None:
    """A warm file read into memory by some threads, block by block: no device is needed."""
    size = bench.long // 2
    descriptor = os.memfd_create("staged")
    rates = {}
    try:
        os.pwrite(descriptor, random_bytes(size), 0)
        for count in (1, 2, 4, 8, 16)[: 2 if bench.quick else 5]:
            buffers = [memoryview(bytearray(min(BLOCK, size))) for _ in range(count)]
            with ThreadPoolExecutor(count) as readers:
                act = stage(readers, buffers, descriptor, size)
                times = interleave({"staging": act}, 3)
            rates[count] = size / statistics.median(times["staging"])
    finally:
        os.close(descriptor)
    record.put("staging by threads", rates)


def stage(
    readers: ThreadPoolExecutor, buffers: list[memoryview], descriptor: int, size: int
) -> Callable[[], object]:
    length = len(buffers[0])

    def read(number: int) -> None:
        for offset in range(number * length, size, len(buffers) * length):
            os.preadv(descriptor, [buffers[number]], offset)

    return lambda: list(readers.map(read, range(len(buffers))))


def copied(bench: Bench, backend: Any, record: Record) -> None:
    """Rates from pageable and from pinned memory, and from the device to itself."""
    from cupy.cuda import runtime

    size = bench.long // 4
    data = as_array(random_bytes(size))
    target, source = (bench.on_device(backend, size) for _ in range(2))
    pinned = backend.driver.pinned(size)
    pinned[:] = data

    def straight() -> None:
        runtime.memcpyAsync(address(target), pinned.ctypes.data, size, _HOST_TO_DEVICE, 0)
        runtime.deviceSynchronize()

    def between() -> None:
        runtime.memcpy(address(target), address(source), size, _DEVICE_TO_DEVICE)
        runtime.deviceSynchronize()

    times = interleave(
        {
            "pageable": lambda: runtime.memcpy(
                address(target), data.ctypes.data, size, _HOST_TO_DEVICE
            ),
            "pinned": straight,
            "device": between,
        },
        bench.rounds,
    )
    rates = {name: size / statistics.median(taken) for name, taken in times.items()}
    record.put("copies", rates)
    record.row("copy from pinned memory", "–", f"{rates['pinned'] / 1e9:.1f} GB/s")


def waited(bench: Bench, record: Record) -> None:
    """Microseconds of a launch of nothing, waited for with an event that blocks or spins."""
    import cupy

    kernel = cupy.RawKernel(NOTHING, "nothing")
    stream = cupy.cuda.Stream(non_blocking=True)
    events = {
        "blocked": cupy.cuda.Event(block=True, disable_timing=True),
        "spinning": cupy.cuda.Event(block=False, disable_timing=True),
    }

    def launched(event: Any) -> None:
        with stream:
            kernel((1,), (32,), ())
        event.record(stream)
        event.synchronize()

    count = 10 if bench.quick else 200
    times = interleave(
        {name: repeated(partial(launched, event), count) for name, event in events.items()},
        bench.rounds,
    )
    record.put(
        "an empty launch and its wait",
        {name: statistics.median(taken) / count for name, taken in times.items()},
    )
