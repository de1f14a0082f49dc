"""Data on the device, by the bound of the arithmetic at the clock measured under load."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

from rounds import interleave

from gpu_parts.bench import GIB, KIB, MIB, Bench, size_name
from gpu_parts.record import Record

# Instructions of one compression in the pipe that bounds it, counted in the machine code of
# `b3_tiles` for sm_90: with plain additions, and with those of the multiplier.
ALU_INSTRUCTIONS = {False: 576, True: 464}
# With tiles of 256 chunks: parents beside chunks, partly filled warps counted whole.
TREE_SHARE = 1.094
# One warp instruction takes a pipe of 16 lanes two clocks; 32 lanes of 64 bytes each.
BYTES_PER_CLOCK = 4 * 32 * 64 / 2

# Clocks of a multiprocessor, and nanoseconds.
SPIN = """
__device__ long long nanoseconds() {
    long long now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}
extern "C" __global__ void spin(long long *elapsed, unsigned trips) {
    long long began_ns = nanoseconds(), began = clock64();
    unsigned x = threadIdx.x;
    for (unsigned i = 0; i < trips; i++) x = __funnelshift_r(x ^ i, x + i, 7);
    if (threadIdx.x == 0) elapsed[0] = clock64() - began, elapsed[1] = nanoseconds() - began_ns;
    if (x == 0x12345678u) elapsed[2] = x;
}
"""


def run(bench: Bench, record: Record) -> None:
    bench.require()
    with closing(bench.open(lanes=1)) as backend:
        record.put("device", " + ".join(backend.devices))
        rates = by_size(bench, backend, record)
        whole = rates.get(bench.long)
        if whole is None:
            raise RuntimeError("there is no room for the size that the claims are about")
        name = size_name(bench.long)
        record.row(f"data on the device, {name}", "–", f"{whole / 1e9:.0f} GB/s")
        if bench.is_cuda:
            bounded(bench, backend, rates, record)


def by_size(bench: Bench, backend: Any, record: Record) -> dict[int, float]:
    """Bytes per second of whole calls, up to what there is room for."""
    from compute_market.hashing.device import DeviceError

    sizes = [KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB, 4 * GIB, 16 * GIB]
    if bench.quick:
        sizes = [KIB, 64 * KIB, bench.long]
    rates: dict[int, float] = {}
    for size in sizes:
        try:
            array = bench.on_device(backend, size)
        except (DeviceError, MemoryError, RuntimeError) as error:
            record.put(f"no {size_name(size)}", f"{type(error).__name__}: {error}")
            break
        times = interleave({"call": partial(backend.hash_array, array)}, bench.rounds)
        rates[size] = size / statistics.median(times["call"])
        record.put("calls", {size_name(size): rate for size, rate in rates.items()})
        del array
    return rates


def bounded(bench: Bench, backend: Any, rates: dict[int, float], record: Record) -> None:
    from gpu_parts.kernels import kernel_seconds

    array = bench.on_device(backend, bench.long)
    clock = clock_hz(backend, array)
    form = bench.chosen(backend)
    bound = BYTES_PER_CLOCK * backend.first_lane.processors * clock
    bound /= ALU_INSTRUCTIONS[form.multiply_add] * TREE_SHARE
    record.put("clock under load", clock)
    record.put("bound of the arithmetic", bound)
    name = size_name(bench.long)
    record.claim(
        f"a call, {name} on the device, by the bound", rates[bench.long] / bound, at_least=0.80
    )
    longest = 4 * bench.long
    if longest in rates and not bench.quick:
        array = bench.on_device(backend, longest)
    taken = [kernel_seconds(backend, array) for _ in range(bench.rounds)]
    rate = array.nbytes / statistics.median(taken)
    record.put("kernels, by events", rate)
    record.claim(
        f"the kernels, {size_name(array.nbytes)}, by the bound", rate / bound, at_least=0.92
    )


def clock_hz(backend: Any, array: Any) -> float:
    """The clock of a multiprocessor while all of them hash: a card lowers it to save power."""
    import cupy

    kernel = cupy.RawKernel(SPIN, "spin")
    elapsed = cupy.zeros(3, cupy.int64)
    cupy.cuda.runtime.deviceSynchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    is_over = threading.Event()

    def hash_on() -> None:
        while not is_over.is_set():
            backend.hash_array(array)

    found = []
    with ThreadPoolExecutor(1) as load:
        at_work = load.submit(hash_on)
        try:
            time.sleep(0.5)
            for _ in range(5):
                with stream:
                    # A single warp, beside those that hash.
                    kernel((1,), (32,), (elapsed, cupy.uint32(1_000_000)))
                stream.synchronize()
                clocks, elapsed_ns, _ = elapsed.get().tolist()
                found.append(clocks / (elapsed_ns / 1e9))
        finally:
            is_over.set()
        at_work.result()
    return statistics.median(found)
