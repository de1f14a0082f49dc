"""One hash of an array on the device, which alone is what a profiler is to look at."""

from contextlib import closing

from gpu_parts.bench import Bench
from gpu_parts.record import Record


def run(bench: Bench, record: Record) -> None:
    with closing(bench.open(lanes=1)) as backend:
        array = bench.on_device(backend, bench.long)
        backend.hash_array(array)
        if bench.is_cuda:
            from cupy.cuda import runtime

            runtime.profilerStart()
            backend.hash_array(array)
            runtime.profilerStop()
    record.put("bytes", bench.long)
