"""Kernel times by CUDA events beside whole calls, for every form; one twice, for noise."""

import statistics
import time
from contextlib import ExitStack, closing
from typing import Any

from gpu_parts.bench import MIB, Bench, size_name
from gpu_parts.record import Record, Skip

# `cudaLimitMaxL2FetchGranularity`, of the device and not of the kernels.
_L2_GRANULARITY = 5


def run(bench: Bench, record: Record) -> None:
    bench.require()
    if not bench.is_cuda:
        raise Skip("only CUDA has events")
    sizes = [4 * MIB] if bench.quick else [MIB, 16 * MIB, bench.long, 4 * bench.long]
    with ExitStack() as opened:
        first = opened.enter_context(closing(bench.open(lanes=1)))
        chosen = bench.chosen(first)
        record.put("device", " + ".join(first.devices))
        backends = {"chosen": first, "chosen again": first}
        for name, form in bench.forms(chosen).items():
            backends[name] = opened.enter_context(closing(bench.open(form, lanes=1)))
        for size in sizes:
            array = bench.on_device(first, size)
            times = timed(backends, array, bench.rounds)
            record.put(size_name(size), {name: _told(size, *each) for name, each in times.items()})
        best = {name: statistics.median(kernel) for name, (kernel, _) in times.items()}
        noise = best["chosen again"] / best["chosen"]
        record.row("the same kernels twice, for noise", "–", f"{noise:.3f} ×")
        faster = best["plain"] / best["multiply-add"]
        if chosen.multiply_add:
            record.claim("multiply-add by plain additions", faster, at_least=1.12)
        fastest = min(best, key=lambda name: best[name])
        record.row(
            "the fastest form, by the chosen one",
            "–",
            f"{best['chosen'] / best[fastest]:.3f} × ({fastest})",
        )
        granularity(first, array, bench.rounds, record)


def timed(
    backends: dict[str, Any], array: Any, rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of the kernels and of the whole call, by the name of the form, round by round."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in backends}
    for number in range(rounds + 1):
        for name, backend in backends.items():
            kernel_s = kernel_seconds(backend, array)
            began = time.perf_counter()
            backend.hash_array(array)
            call_s = time.perf_counter() - began
            if number:
                found[name][0].append(kernel_s)
                found[name][1].append(call_s)
    return found


def kernel_seconds(backend: Any, array: Any) -> float:
    """What the kernels of one hash take on the device, from their first to their last."""
    import cupy
    import numpy as np

    from compute_market.hashing.cuda import _launch
    from compute_market.hashing.launch import run_plan

    where = backend.driver.resident(array)
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    with backend._lanes.lane(resident_on=where.device) as lane, lane._device, lane._stream:
        plans = [plan for plan, _ in backend.resident_plans(lane, where)]
        data = np.uint64(where.memory - where.begin)
        kernels = [lane.compiled.kernels(plan.tile, plan.align) for plan in plans]
        begin.record(lane._stream)
        for plan, compiled in zip(plans, kernels, strict=True):
            run_plan(plan, compiled, _launch, lane._pointers(), data=data, tables_at=0)
        end.record(lane._stream)
        end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) / 1000


def granularity(backend: Any, array: Any, rounds: int, record: Record) -> None:
    """The same kernels with other sizes of what the second cache fetches."""
    from cupy.cuda import runtime

    before = runtime.deviceGetLimit(_L2_GRANULARITY)
    found = {"as it was": before}
    try:
        for size in (32, 64, 128):
            runtime.deviceSetLimit(_L2_GRANULARITY, size)
            taken = [kernel_seconds(backend, array) for _ in range(rounds)]
            found[f"{size} B"] = array.nbytes / statistics.median(taken)
    finally:
        runtime.deviceSetLimit(_L2_GRANULARITY, before)
    record.put("L2 fetch granularity", found)


def _told(size: int, kernel: list[float], call: list[float]) -> dict[str, float]:
    kernel_s, call_s = statistics.median(kernel), statistics.median(call)
    return {
        "kernel_s": kernel_s,
        "kernel_bytes_per_s": size / kernel_s,
        "call_s": call_s,
        "call_bytes_per_s": size / call_s,
        "kernel_spread": max(kernel) / min(kernel),
    }
