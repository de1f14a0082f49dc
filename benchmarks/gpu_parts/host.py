"""Pinned memory, other memory and a warm file, with the copy and the staging beside them."""

import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from rounds import interleave

from gpu_parts.bench import Bench, address, as_array, random_bytes, size_name
from gpu_parts.copies import BLOCK, stage
from gpu_parts.digests import expect_long
from gpu_parts.record import Record


def run(bench: Bench, record: Record) -> None:
    bench.require()
    size = bench.long
    data = as_array(random_bytes(size))
    descriptor = os.memfd_create("warm file")
    try:
        os.pwrite(descriptor, data, 0)
        with closing(bench.open()) as backend, ThreadPoolExecutor(backend.width) as readers:
            record.put("device", " + ".join(backend.devices))
            measured(bench, backend, readers, data, descriptor, record)
    finally:
        os.close(descriptor)


def measured(
    bench: Bench,
    backend: Any,
    readers: ThreadPoolExecutor,
    data: Any,
    descriptor: int,
    record: Record,
) -> None:
    size = len(data)
    pinned = backend.driver.pinned(size)
    buffers = [memoryview(bytearray(min(BLOCK, size))) for _ in range(backend.width)]
    copy, copied = copying(bench, backend, pinned, size)
    actions: dict[str, Callable[[], object]] = {
        "copy": copy,
        "staging": stage(readers, buffers, descriptor, size),
        "memory": lambda: backend.hash_batch(data, [0], [size]),
        "file": lambda: backend.hash_opened("warm file", descriptor, size),
    }
    if pinned is not None:
        pinned[:] = data
        actions["pinned"] = lambda: backend.hash_batch(pinned, [0], [size])
        expect_long(backend.hash_batch(pinned, [0], [size]), data)
    expect_long(backend.hash_batch(data, [0], [size]), data)
    expect_long(backend.hash_opened("warm file", descriptor, size), data)
    times = interleave(actions, bench.rounds)
    sizes = dict.fromkeys(times, size) | {"copy": copied}
    rate = {name: sizes[name] / statistics.median(taken) for name, taken in times.items()}
    record.put("rates", rate)
    name = size_name(size)
    if pinned is not None:
        share = rate["pinned"] / rate["copy"]
        record.claim(f"pinned memory, {name}, by the copy alone", share, at_least=0.90)
    share = rate["file"] / min(rate["copy"], rate["staging"])
    record.claim(f"a warm file, {name}, by copy or staging", share, at_least=0.85)
    record.row(f"a warm file, {name}", "–", f"{rate['file'] / 1e9:.1f} GB/s")


def copying(bench: Bench, backend: Any, pinned: Any, size: int) -> tuple[Callable[[], object], int]:
    """The bound, and of how many bytes: all in one copy, or what a lane copies at once."""
    if not bench.is_cuda:
        lane = backend.first_lane
        return lambda: lane.copy(len(lane.staging)), len(lane.staging)
    from cupy.cuda import runtime

    target = bench.on_device(backend, size)

    def whole() -> None:
        runtime.memcpyAsync(address(target), pinned.ctypes.data, size, 1, 0)
        runtime.deviceSynchronize()

    return whole, size
