"""Claim: a GPU hashes what it holds near the bound of its arithmetic, and what it is sent near that
of the way there; and `auto` is never far from the better of CPU and GPU.

First compares digests with the `blake3` package, over every form of the kernels, and stops if one
is wrong. Then prints rates side by side with their bounds: the arithmetic of the machine code at
the clock measured under load, the copy from pinned memory, the staging threads, one CPU thread. The
last lines are rows for the table in README.md. Takes up to eight minutes.

`--backend opencl` runs the same on an OpenCL device, where no bound of arithmetic is known. With
PoCL and `--quick` that tries the script itself on a machine without a GPU.
"""

import contextlib
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import measure
from blake3 import blake3

from compute_market.errors import MarketError
from compute_market.hashing import probe
from compute_market.hashing.batch import hash_batch
from compute_market.hashing.calibration import Calibration
from compute_market.hashing.hasher import Hasher
from compute_market.records import replace

KIB, MIB, GIB = 2**10, 2**20, 2**30
BLOCK = 16 * MIB
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

Row = tuple[str, str, str, str]


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--backend", choices=("cuda", "opencl"), default="cuda")
    parser.add_argument("--check", action="store_true", help="compare some digests, and no more")
    parser.add_argument("--profile", action="store_true", help="one launch over 1 GiB, for ncu")
    given = parser.parse_args()
    missing = probe.cuda_missing() if given.backend == "cuda" else probe.opencl_missing()
    if missing is not None:
        # Without the hardware there is nothing to claim, and nothing has failed.
        print(f"skip: backend {given.backend}: {missing.what} ({missing.hint})")
        return
    bench = Bench(given.backend, quick=given.quick)
    if given.check:
        check_digests(bench, bench.open(), 300 * KIB)
        return
    if given.profile and bench.backend == "cuda":
        profile(bench)
        return
    calibration = facts(bench)
    check_every_form(bench)
    rows = [
        *resident(bench),
        *from_the_host(bench),
        *small_slices(bench),
        *automatic(bench, calibration),
    ]
    rows += first_digest(bench)
    tools(bench)
    print(f"\n{bench.name}, {datetime.date.today()}")
    for row in rows:
        print("| {} | {} | {} | `gpu.py`, {} |".format(*row))
    measure.finish()


class Bench:
    """The device under test and how much of it to ask for."""

    def __init__(self, backend: str, *, quick: bool) -> None:
        self.backend = backend
        self.quick = quick
        self.rounds = 3 if quick else 9
        first = self.open()
        self.name = " + ".join(first.devices)
        self.processors = first.first_lane.processors
        first.close()
        # A pretended device would take hours for a gigabyte.
        self.long = 16 * MIB if quick else GIB

    def open(self, **form: Any) -> Any:
        if self.backend == "cuda":
            from compute_market.hashing import cuda

            return cuda.open_backend(**form)
        from compute_market.hashing import opencl

        form.pop("multiply_add", None)
        return opencl.open_backend(any_device=True, **form)

    def forms(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The forms of the kernels: additions and tiles."""
        for tiles in ((32, 256), (32, 128)):
            for multiply_add in (False, True) if self.backend == "cuda" else (False,):
                additions = "multiply-add" if multiply_add else "plain"
                yield (
                    f"{additions}, tiles of {tiles[1]}",
                    {
                        "tiles": tiles,
                        "multiply_add": multiply_add,
                    },
                )


def facts(bench: Bench) -> Calibration:
    print(f"# {bench.name}: {bench.processors} processors")
    if bench.backend == "cuda" and shutil.which("nvidia-smi"):
        subprocess.run(["nvidia-smi", "-q", "-d", "CLOCK,POWER"], check=False)
    from compute_market.hashing.measure import measure as measure_machine

    began = time.perf_counter()
    measured = measure_machine(
        time.perf_counter_ns, measured_at=int(time.time()), open_device=bench.open
    )
    taken = time.perf_counter() - began
    from tb_cli.calibrate import rows

    for row in rows(measured):
        print("\t".join(row))
    measure.claim("calibrate", taken, 5.0, "s")
    return measured


def check_every_form(bench: Bench) -> None:
    """Stop at the first wrong digest: a rate of wrong digests is worth nothing."""
    for name, form in bench.forms():
        backend = bench.open(**form)
        check_digests(bench, backend, bench.long // 8)
        print(f"digests are right: {name}")
        backend.close()
    if bench.quick:
        return
    backend = bench.open()
    long = random_bytes(4 * GIB + 5000)
    for begin, length in ((0, len(long)), (4 * GIB + 1, 4000), (GIB, 3 * GIB + 77)):
        expect(backend.hash_batch(long, [begin], [length]), [memoryview(long)[begin:][:length]])
    expect(backend.hash_array(backend.driver.to_device(as_array(long))), [long])
    print("digests are right: beyond 4 GiB")
    backend.close()


def check_digests(bench: Bench, backend: Any, most: int) -> None:
    seed = os.urandom(8).hex()
    print(f"seed {seed}")
    tile = 256 * KIB
    lengths = [0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2047, 2048, 2049]
    lengths += [3071, 3072, 3073, 5120, 5121, 8191, 8192, 8193, 16384, 31744, 31745]
    lengths += [KIB * chunks for chunks in range(1, 71)]
    lengths += [
        tile * count + d for count in (1, 2, 3, 5, 7) for d in (-1024, -1, 0, 1, 1023, 1024)
    ]
    lengths = [length for length in lengths if length <= most]
    data = blake3(seed.encode()).digest(length=sum(lengths) + 4096)
    for misplaced in (0, 16, 4, 1, 7):
        begin, offsets = misplaced, []
        for length in lengths:
            offsets.append(begin)
            # With 16 every slice begins at such a multiple.
            begin += -(-length // 16) * 16 if misplaced in (0, 16) else length
        if begin > len(data):
            data = blake3(seed.encode()).digest(length=begin)
        ranges = [data[at : at + length] for at, length in zip(offsets, lengths, strict=True)]
        expect(backend.hash_batch(data, offsets, lengths), ranges)
    for length in (1, 1024, 1025, most):
        content = random_bytes(length)
        array = backend.driver.to_device(as_array(content))
        expect(backend.hash_array(array), [content])


def expect(digests: bytes, slices: list[Any]) -> None:
    for number, content in enumerate(slices):
        if digests[32 * number : 32 * number + 32] != blake3(content).digest():
            sys.exit(f"WRONG DIGEST of a slice of {len(content)} bytes; nothing was measured")


def resident(bench: Bench) -> Iterator[Row]:
    """Data on the device, by size and form; and the bound of the arithmetic."""
    from compute_market.hashing.device import DeviceError

    backends = {name: bench.open(**form) for name, form in bench.forms()}
    size, most = 64 * KIB, bench.long if bench.quick else 16 * bench.long
    print(f"\n{'data on the device, GB/s':>26}" + "".join(f"{name:>26}" for name in backends))
    rates: dict[str, float] = {}
    while size <= most:
        arrays = {}
        try:
            for name, backend in backends.items():
                # One array for all of one driver would do, but OpenCL's belong to their contexts.
                shared = bench.backend == "cuda" and arrays
                arrays[name] = next(iter(arrays.values())) if shared else on_device(backend, size)
        except (DeviceError, MemoryError) as error:
            print(f"{size // MIB} MiB: {type(error).__name__}, so that is all")
            break
        actions: dict[str, measure.Action] = {
            name: hashing(backend, arrays[name]) for name, backend in backends.items()
        }
        times = measure.interleave(actions, bench.rounds)
        found = {name: size / statistics.median(taken) for name, taken in times.items()}
        print(f"{size // KIB:>22} KiB" + "".join(f"{rate / 1e9:>26.1f}" for rate in found.values()))
        if size == bench.long:
            rates = found
        size *= 4
    for backend in backends.values():
        backend.close()
    if not rates:
        print("there is no room for the size that the claims are about")
        return
    best = max(rates, key=lambda name: rates[name])
    yield "data on the device, 1 GiB", "–", f"{rates[best] / 1e9:.0f} GB/s ({best})", bench.backend
    if bench.backend != "cuda":
        return
    plain, added = rates["plain, tiles of 256"], rates["multiply-add, tiles of 256"]
    measure.claim_at_least("multiply-add by plain additions", added / plain, 1.12, "×")
    yield "multiply-add by plain additions", "1.12 ×", f"{added / plain:.2f} ×", bench.backend
    clock = clock_hz(bench)
    is_added = added > plain
    bound = BYTES_PER_CLOCK * bench.processors * clock
    bound /= ALU_INSTRUCTIONS[is_added] * TREE_SHARE
    share = max(plain, added) / bound
    print(f"clock under load {clock / 1e9:.3f} GHz, bound of the arithmetic {bound / 1e9:.0f} GB/s")
    measure.claim_at_least("data on the device by its bound", share, 0.80, "×")
    yield "the same by the bound of the arithmetic", "0.80 ×", f"{share:.2f} ×", bench.backend


def from_the_host(bench: Bench) -> Iterator[Row]:
    """Pinned memory, other memory and a warm file, with the copy and the staging beside them."""
    backend = bench.open()
    lane = backend.first_lane
    size = bench.long
    data = as_array(random_bytes(size))
    pinned = backend.driver.pinned(size)
    segment = len(lane.staging)
    repeats = max(1, size // segment)
    target = backend.driver.to_device(data)
    buffers = [memoryview(bytearray(BLOCK)) for _ in range(backend.width)]

    def copy() -> None:
        """The bound: all of it in one copy where memory is pinned, else segment by segment."""
        if pinned is not None and bench.backend == "cuda":
            copy_pinned(target, pinned)
            return
        for _ in range(repeats):
            lane.copy(segment)

    with (
        measure.scratch(on_disk=False, gib=3) as directory,
        ThreadPoolExecutor(backend.width) as readers,
    ):
        path = directory / "long"
        data.tofile(path)
        with open(path, "rb") as file:
            descriptor = file.fileno()
            actions: dict[str, measure.Action] = {
                "copy": copy,
                "staging": lambda: stage(readers, buffers, descriptor, size),
                "memory": lambda: backend.hash_batch(data, [0], [size]),
                "file": lambda: backend.hash_opened("long", descriptor, size),
            }
            if pinned is not None:
                pinned[:] = data
                actions["pinned"] = lambda: backend.hash_batch(pinned, [0], [size])
            expect(backend.hash_opened("long", descriptor, size), [data])
            times = measure.interleave(actions, bench.rounds)
    backend.close()
    whole = pinned is not None and bench.backend == "cuda"
    sizes = dict.fromkeys(times, size) | {"copy": size if whole else repeats * segment}
    rate = {name: sizes[name] / statistics.median(taken) for name, taken in times.items()}
    print("\nfrom the host, GB/s: " + ", ".join(f"{k} {v / 1e9:.1f}" for k, v in rate.items()))
    if pinned is not None:
        share = rate["pinned"] / rate["copy"]
        measure.claim_at_least("pinned memory by the copy alone", share, 0.90, "×")
        yield "pinned memory, by the copy alone", "0.90 ×", f"{share:.2f} ×", bench.backend
    share = rate["file"] / min(rate["copy"], rate["staging"])
    measure.claim_at_least("a warm file by copy or staging", share, 0.85, "×")
    yield "a warm file, by copy or staging", "0.85 ×", f"{share:.2f} ×", bench.backend
    yield "copy from pinned memory", "–", f"{rate['copy'] / 1e9:.1f} GB/s", bench.backend
    yield "a warm file", "–", f"{rate['file'] / 1e9:.1f} GB/s", bench.backend


def small_slices(bench: Bench) -> Iterator[Row]:
    """Many slices of 1000 bytes in one buffer, end to end."""
    import numpy as np

    count = 10_000 if bench.quick else 100_000
    data = random_bytes(1000 * count)
    offsets, lengths = np.arange(count) * 1000, np.full(count, 1000)
    backend = bench.open()
    assert backend.hash_batch(data, offsets, lengths) == hash_batch(data, offsets, lengths)
    view = memoryview(data)

    def one_thread() -> None:
        for start in range(0, len(data), 1000):
            blake3(view[start : start + 1000]).digest()

    times = measure.interleave(
        {"device": lambda: backend.hash_batch(data, offsets, lengths), "one thread": one_thread},
        bench.rounds,
    )
    backend.close()
    faster = measure.ratio(times["one thread"], times["device"])
    print()
    measure.claim_at_least(f"{count} × 1000 B by one CPU thread", faster, 20.0, "×")
    yield (
        f"{count} slices of 1000 bytes, by one CPU thread",
        "20 ×",
        f"{faster:.1f} ×",
        bench.backend,
    )


def automatic(bench: Bench, calibration: Calibration) -> Iterator[Row]:
    """`auto` by the better of both backends, from 1 KiB to 1 GiB."""
    data = random_bytes(bench.long)
    worst = 0.0
    warnings: list[str] = []
    assert calibration.device is not None
    # What opening the device costs is not what this is about.
    calibration = replace(calibration, device=replace(calibration.device, start_ns=0))
    with (
        contextlib.closing(bench.open()) as backend,
        Hasher("auto", calibration=calibration, warn=warnings.append) as auto,
    ):
        size = KIB
        while size <= bench.long:
            repeats = max(1, min(200, 4 * MIB // size))

            def each(act: Callable[[], object], repeats: int = repeats) -> measure.Action:
                def action() -> None:
                    for _ in range(repeats):
                        act()

                return action

            length = [size]
            times = measure.interleave(
                {
                    "cpu": each(lambda length=length: hash_batch(data, [0], length)),
                    "device": each(lambda length=length: backend.hash_batch(data, [0], length)),
                    "auto": each(lambda length=length: auto.hash_batch(data, [0], length)),
                },
                bench.rounds,
            )
            medians = {name: statistics.median(taken) for name, taken in times.items()}
            share = medians["auto"] / min(medians["cpu"], medians["device"])
            worst = max(worst, share)
            print(f"auto, {size // KIB:>8} KiB: {share:.2f} × the better of both")
            size *= 4
    assert not warnings, warnings
    measure.claim("auto by the better of both, at worst", worst, 1.10, "×")
    yield (
        "`auto`, by the better of CPU and GPU, at worst",
        "1.10 ×",
        f"{worst:.2f} ×",
        bench.backend,
    )


def first_digest(bench: Bench) -> Iterator[Row]:
    """A process of its own, from its start to the digest of a short file; kernels are cached."""
    with measure.scratch(on_disk=False) as directory:
        path = directory / "short"
        path.write_bytes(b"x")
        words = (sys.executable, "-m", "tb_cli.entry", "compute", "run", path, "--backend")
        env = measure.environment(directory / "home")
        env["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        times = measure.interleave(
            {"run": lambda: measure.command([*words, bench.backend], env)}, bench.rounds
        )
    taken = statistics.median(times["run"])
    measure.claim("a process with one digest", taken, 1.5, "s")
    yield "a process that computes one digest", "1.5 s", f"{taken:.2f} s", bench.backend


def tools(bench: Bench) -> None:
    """NVIDIA's own checkers and its profiler, where they are installed."""
    if bench.backend != "cuda":
        return
    check = (sys.executable, __file__, "--check")
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        if shutil.which("compute-sanitizer") is None:
            print("skip compute-sanitizer: it is not installed")
            break
        words = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *check)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        print(done.stdout[-2000:])
        measure.claim(f"compute-sanitizer {tool}, exit code", abs(done.returncode), 0, "")
    if shutil.which("ncu") is None:
        print("skip ncu: it is not installed")
        return
    metrics = (
        "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active,"
        "sm__inst_executed_pipe_fmaheavy.avg.pct_of_peak_sustained_active,"
        "dram__bytes_read.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed"
    )
    words = ("ncu", "--clock-control", "none", "--profile-from-start", "off", "--metrics", metrics)
    subprocess.run([*words, sys.executable, __file__, "--profile"], check=False)


def profile(bench: Bench) -> None:
    """One hash of 1 GiB on the device, which alone is what a profiler is to look at."""
    from cupy.cuda import runtime

    backend = bench.open()
    array = on_device(backend, bench.long)
    backend.hash_array(array)
    runtime.profilerStart()
    backend.hash_array(array)
    runtime.profilerStop()
    backend.close()


def clock_hz(bench: Bench) -> float:
    """The clock of a multiprocessor while all of them hash: a card lowers it to save power."""
    import cupy

    kernel = cupy.RawKernel(SPIN, "spin")
    elapsed = cupy.zeros(3, cupy.int64)
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    backend = bench.open()
    array = on_device(backend, bench.long)
    is_over = threading.Event()

    def hash_on() -> None:
        while not is_over.is_set():
            backend.hash_array(array)

    found = []
    with ThreadPoolExecutor(1) as load:
        at_work = load.submit(hash_on)
        try:
            time.sleep(1)
            for _ in range(5):
                with stream:
                    # A single warp, beside those that hash.
                    kernel((1,), (32,), (elapsed, cupy.uint32(1_000_000)))
                    clocks, elapsed_ns, _ = elapsed.get().tolist()
                found.append(clocks / (elapsed_ns / 1e9))
        finally:
            is_over.set()
        at_work.result()
    backend.close()
    return statistics.median(found)


def hashing(backend: Any, array: Any) -> measure.Action:
    return lambda: backend.hash_array(array)


def on_device(backend: Any, size: int) -> Any:
    return backend.driver.to_device(as_array(random_bytes(size)))


def copy_pinned(target: Any, pinned: Any) -> None:
    """Copy pinned memory to a CuPy array as a whole, and wait."""
    from cupy.cuda import runtime

    runtime.memcpyAsync(target.data.ptr, pinned.ctypes.data, len(pinned), 1, 0)
    runtime.deviceSynchronize()


def stage(
    readers: ThreadPoolExecutor, buffers: list[memoryview], descriptor: int, size: int
) -> None:
    """Read a warm file into memory with some threads, block by block."""

    def read(number: int) -> None:
        for offset in range(number * BLOCK, size, len(buffers) * BLOCK):
            os.preadv(descriptor, [buffers[number]], offset)

    list(readers.map(read, range(len(buffers))))


def random_bytes(size: int) -> bytes:
    """Not zeros, which draw less power; a pattern of 16 MiB is long enough."""
    block = os.urandom(min(size, 16 * MIB))
    return (block * -(-size // max(1, len(block))))[:size]


def as_array(data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, np.uint8)


if __name__ == "__main__":
    try:
        main()
    except MarketError as error:
        sys.exit(error.message)
