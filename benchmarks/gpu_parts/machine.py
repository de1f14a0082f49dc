"""What the figures were measured on: the processor first, which is there in any case."""

import os
import platform
import shutil
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from blake3 import blake3
from rounds import interleave

from gpu_parts.bench import MIB, Bench, random_bytes
from gpu_parts.record import Record

_PACKAGES = (
    *("blake3", "numpy", "lmdb", "msgspec", "typer", "pyopencl"),
    *("cupy-cuda12x", "cupy-cuda13x", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"),
)
_ASKED = (
    "name,driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,"
    "temperature.gpu,clocks_event_reasons.active,pcie.link.gen.current,pcie.link.width.current"
)


def run(bench: Bench, record: Record) -> None:
    record.put("python", sys.version)
    record.put("system", platform.platform())
    record.put("cores", len(os.sched_getaffinity(0)))
    record.put("processor", _processor())
    record.put("packages", _versions())
    _rates(bench, record)
    if shutil.which("nvidia-smi"):
        record.put("asked of nvidia-smi", _asked(f"--query-gpu={_ASKED}", "--format=csv"))
        record.put("clocks and power", _asked("-q", "-d", "CLOCK,POWER,PERFORMANCE"))
        record.put("links", _asked("topo", "-m"))
    bench.require()
    backend = bench.open()
    try:
        record.put("device", " + ".join(backend.devices))
        record.put("processors", backend.first_lane.processors)
        record.put("form", str(bench.chosen(backend)))
    finally:
        backend.close()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _rates(bench: Bench, record: Record) -> None:
    """What the CPU hashes: one thread, all of them, and short slices."""
    data = random_bytes(8 * MIB if bench.quick else 256 * MIB)
    view = memoryview(data)[: 1000 * 2000]

    def slices() -> None:
        for at in range(0, len(view), 1000):
            blake3(view[at : at + 1000]).digest()

    times = interleave(
        {
            "one thread": lambda: blake3(data).digest(),
            "all threads": lambda: blake3(data, max_threads=blake3.AUTO).digest(),
            "slices of 1000 bytes, one thread": slices,
        },
        3,
    )
    rates = {name: len(data) / statistics.median(taken) for name, taken in times.items()}
    rates["slices of 1000 bytes, one thread"] *= len(view) / len(data)
    record.put("cpu", rates)


def _asked(*words: str) -> str:
    try:
        done = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout + done.stderr
