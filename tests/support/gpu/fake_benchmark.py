"""What the benchmark of GPUs uses of CuPy beside the backend: arrays, times and a clock."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.gpu.fake_gpus import Array, Gpus

# Of `cudaLimitMaxL2FetchGranularity`.
GRANULARITY = 5
CLOCK_HZ = 1_500_000_000


def extend(gpus: Gpus, cupy: Any) -> None:
    """Give the made-up CuPy what the benchmark asks it for."""
    limits = {GRANULARITY: 64}
    profiled: list[str] = []

    def empty(size: int, kind: Any) -> Array:
        return gpus.array(np.full(size, 1, kind), gpus.device)

    def zeros(size: int, kind: Any) -> Array:
        return gpus.array(np.zeros(size, kind), gpus.device)

    def memcpy(dst: int, src: int, size: int, kind: int) -> None:
        target = gpus.bytes_at(dst, size, gpus.device)
        if kind == 3:
            np.copyto(target, gpus.bytes_at(src, size, gpus.device))
        else:
            assert kind == 1
            source = (ctypes.c_uint8 * size).from_address(src)
            np.copyto(target, np.frombuffer(source, np.uint8))

    def elapsed_ms(begin: Any, end: Any) -> float:
        assert None not in (begin.recorded_s, end.recorded_s), "events without times"
        return max(0.001, 1000 * (end.recorded_s - begin.recorded_s))

    def raw_kernel(code: str, name: str) -> Any:
        assert f"void {name}(" in code

        def launch(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            if name == "spin":
                elapsed, trips = args
                assert isinstance(trips, np.uint32)
                # A microsecond.
                clocks = np.array([CLOCK_HZ // 1_000_000, 1000, 0], np.int64)
                memory = elapsed._region.memory[: clocks.nbytes]
                gpus.stream.enqueue(lambda: np.copyto(memory, clocks.view(np.uint8)))

        return launch

    runtime = cupy.cuda.runtime
    cupy.empty, cupy.zeros, cupy.RawKernel = empty, zeros, raw_kernel
    cupy.uint8, cupy.uint32, cupy.int64 = np.uint8, np.uint32, np.int64
    cupy.cuda.get_elapsed_time = elapsed_ms
    runtime.memcpy = memcpy
    runtime.deviceGetLimit, runtime.deviceSetLimit = limits.__getitem__, limits.__setitem__
    runtime.profilerStart = lambda: profiled.append("start")
    runtime.profilerStop = lambda: profiled.append("stop")
    cupy.for_benchmark = SimpleNamespace(limits=limits, profiled=profiled)
