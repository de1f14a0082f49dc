"""`auto` by the better of both backends, from 1 KiB to 1 GiB; both times behind each ratio."""

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from msgspec import to_builtins
from rounds import interleave

from gpu_parts.bench import KIB, MIB, Bench, random_bytes, repeated, size_name
from gpu_parts.record import Record


def run(bench: Bench, record: Record) -> None:
    from compute_market.hashing.batch import hash_batch
    from compute_market.hashing.hasher import Hasher

    bench.require()
    calibration = calibrated(bench, record)
    data = random_bytes(bench.long)
    warnings: list[str] = []
    found: dict[str, Any] = {}
    with (
        closing(bench.open()) as backend,
        Hasher("auto", calibration=calibration, warn=warnings.append) as auto,
    ):
        record.put("device", " + ".join(backend.devices))
        size = KIB
        while size <= bench.long:
            lengths = [size]

            def each(hash_with: Callable[..., object], lengths: list[int] = lengths) -> Any:
                repeats = max(1, min(2 if bench.quick else 200, 4 * MIB // lengths[0]))
                return repeated(lambda: hash_with(data, [0], lengths), repeats)

            times = interleave(
                {
                    "cpu": each(hash_batch),
                    "device": each(backend.hash_batch),
                    "auto": each(auto.hash_batch),
                },
                bench.rounds,
            )
            median = {name: statistics.median(taken) for name, taken in times.items()}
            share = median["auto"] / min(median["cpu"], median["device"])
            found[size_name(size)] = median | {"share": share}
            record.put("by size", found)
            size *= 4
    if warnings:
        raise RuntimeError(warnings[0])
    worst = max(each["share"] for each in found.values())
    record.claim("`auto`, by the better of CPU and GPU, at worst", worst, at_most=1.10)


def calibrated(bench: Bench, record: Record) -> Any:
    """This machine, as it is just now; what opening the device costs is not what this is about."""
    from compute_market.hashing.measure import measure
    from compute_market.records import replace

    # The first time on a machine the kernels are compiled as well.
    bench.open().close()
    began = time.perf_counter()
    found = measure(time.perf_counter_ns, measured_at=int(time.time()), open_device=bench.open)
    taken = time.perf_counter() - began
    record.put("calibration", to_builtins(found))
    record.claim("`compute calibrate`", taken, at_most=5, unit="s")
    assert found.device is not None
    return replace(found, device=replace(found.device, start_ns=0))
