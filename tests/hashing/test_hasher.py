"""The choice between backends: what it is made by, and that a failing device changes no digest."""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from compute_market.errors import IntegrityError, UsageError
from compute_market.hashing import hasher as hasher_module
from compute_market.hashing.calibration import Calibration, CpuRates, DeviceRates
from compute_market.hashing.hasher import Hasher
from tests.support.gpu import fake_cupy
from tests.support.gpu.fake_arrays import NumbaArray, TorchArray
from tests.support.gpu.fake_cupy import Driver, DynamicLibNotFoundError, loader
from tests.support.gpu.fake_gpus import LAUNCH_FAILED, LOST, NO_DEVICE, OUT_OF_MEMORY, Gpus

pytest_plugins = ("tests.support.gpu.fake_cupy",)

ROOT = Path(__file__).parents[2]
KIB, MIB, GIB = 2**10, 2**20, 2**30
GB = 10**9
DATA = random.Random(1).randbytes(MIB)


def machine(cpu: tuple[int, ...], device: tuple[int, ...] | None) -> Calibration:
    """A calibration from rates in GB/s tenths and times in ns, in the order of the fields."""
    threads, one, every, file, slice_ns = cpu
    tenth = GB // 10
    rates = CpuRates(threads, one * tenth, every * tenth, file * tenth, slice_ns)
    if device is None:
        return Calibration(1, "a machine", 0, rates)
    resident, resident_ns, copy, first, staged, device_file, launch_ns, each_ns, start_ns = device
    of_device = DeviceRates(
        backend="cuda",
        devices=["Fake GPU 0"],
        gflops=1000,
        resident_bytes_per_s=resident * tenth,
        resident_ns=resident_ns,
        copy_bytes_per_s=copy * tenth,
        pinned_bytes_per_s=None,
        staged_first_bytes_per_s=first * tenth,
        staged_bytes_per_s=staged * tenth,
        file_first_bytes_per_s=first * tenth,
        file_bytes_per_s=device_file * tenth,
        launch_ns=launch_ns,
        slice_ns=each_ns,
        start_ns=start_ns,
    )
    return Calibration(1, "a machine", 0, rates, of_device)


SERVER = machine(
    (16, 79, 900, 600, 400), (17_000, 30_000, 550, 140, 300, 350, 80_000, 8, 400_000_000)
)
WEAK_HOST = machine((2, 15, 28, 26, 900), (2000, 25_000, 120, 70, 90, 80, 90_000, 30, 600_000_000))
SLOW_GPU = machine((8, 40, 280, 220, 500), (30, 60_000, 120, 10, 10, 10, 200_000, 700, 900_000_000))
NO_GPU = machine((4, 50, 150, 120, 500), None)
MACHINES = {"server": SERVER, "weak host": WEAK_HOST, "slow GPU": SLOW_GPU, "no GPU": NO_GPU}
# On this one everything goes to the device, which is opened at once.
EAGER = machine((1, 1, 1, 1, 10_000), (17_000, 1, 1, 300, 300, 350, 1, 1, 0))

SIZES = [KIB * 2**power * quarter // 4 for power in range(21) for quarter in (4, 5, 6, 7)][:-3]


class Opened:
    """Stands in for a device where it only matters whether it is opened and used."""

    name, devices = "cuda", ["Fake GPU 0"]

    def __init__(self) -> None:
        self.used: list[str] = []

    def hash_batch(self, buffer: bytes, offsets: list[int], lengths: list[int]) -> bytes:
        self.used.append("batch")
        return b"device"

    def hash_array(self, array: Any) -> bytes:
        self.used.append("array")
        return b"device"

    def hash_opened(self, path: str, descriptor: int, length: int, advance: Any) -> bytes:
        self.used.append("file")
        return b"device"

    def close(self) -> None:
        self.used.append("close")


@pytest.fixture
def opened(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """The devices that were opened, on a machine that has one."""
    devices: list[Opened] = []

    def open_device(backend: str, *, any_device: bool = False) -> Opened:
        assert backend == "cuda"
        devices.append(Opened())
        return devices[-1]

    monkeypatch.setattr(hasher_module, "open_device", open_device)
    return devices


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[str, int, int]]:
    """Path, descriptor and length of a file that holds DATA."""
    path = tmp_path / "a.slice"
    path.write_bytes(DATA)
    descriptor = os.open(path, os.O_RDONLY)
    yield str(path), descriptor, len(DATA)
    os.close(descriptor)


def digests(*slices: bytes) -> bytes:
    return b"".join([blake3(content).digest() for content in slices])


# How `auto` decides.


@pytest.mark.parametrize(
    ("count", "length", "on_device"),
    [
        (1, 64 * MIB, False),
        (999, 1024, False),
        (1000, 1024, False),
        (1024, 1023, False),
        (1024, 1024, True),
        (2000, 4095, True),
        (2000, 4096, False),
        (1, 1024, False),
    ],
)
def test_auto_without_a_calibration_takes_the_device_for_many_short_slices(
    count: int, length: int, on_device: bool, opened: list[Opened]
) -> None:
    with Hasher() as hasher:
        buffer = bytes(length)
        hasher.hash_batch(buffer, [0] * count, [length] * count)
        assert [device.used for device in opened] == ([["batch"]] if on_device else [])
        assert hasher.name == ("cuda" if on_device else "cpu")


def test_auto_without_a_calibration_hashes_arrays_where_they_are_from_a_mib_on(
    opened: list[Opened], gpus: Gpus
) -> None:
    with Hasher() as hasher:
        short = gpus.array(DATA[:-1])
        for array in (short, NumbaArray(short), TorchArray(short), np.frombuffer(DATA, np.uint8)):
            assert hasher.hash_array(array) == digests(DATA[: array.nbytes])
        assert opened == []
        for array in (gpus.array(DATA), TorchArray(gpus.array(DATA))):
            assert hasher.hash_array(array) == b"device"
    assert [device.used for device in opened] == [["array", "array", "close"]]


def test_auto_without_a_calibration_leaves_files_to_the_cpu(
    opened: list[Opened], file: tuple[str, int, int]
) -> None:
    with Hasher() as hasher:
        assert hasher.hash_opened(*file) == digests(DATA)
        assert not any(takes(hasher, size) for size in SIZES)
    assert opened == []


def takes(hasher: Hasher, size: int) -> bool:
    """Whether a single file goes to the device."""
    return hasher._device_for_file(size) is not None


@pytest.mark.parametrize("name", sorted(MACHINES.keys() - {"no GPU"}))
def test_auto_is_never_much_slower_than_the_better_backend(name: str, opened: list[Opened]) -> None:
    """By the model, once the device is open, at every size from 1 KiB to 1 GiB."""
    calibration = MACHINES[name]
    hasher = Hasher(calibration=calibration)
    hasher._device = hasher_module.open_device("cuda")
    for size in SIZES:
        of_cpu, of_device = calibration.cpu_file_ns(size), calibration.device_file_ns(size)
        chosen = of_device if takes(hasher, size) else of_cpu
        assert 10 * chosen <= 11 * min(of_cpu, of_device), size
        for threads, together in itertools.product((1, 2, 16), (1, 16, 256)):
            of_cpu = calibration.cpu_each_file_ns(size, threads)
            of_device = calibration.device_each_file_ns(size, together)
            on_device = hasher.takes_file(size, threads=threads, together=together)
            chosen = of_device if on_device else of_cpu
            assert 10 * chosen <= 11 * min(of_cpu, of_device), (size, threads, together)
        for count in (1, 2, 100, 10_000, 100_000):
            each = size // count
            if not each:
                continue
            lengths = [each] * count
            before = len(opened[0].used)
            # The CPU only refuses: the buffer is empty.
            try:
                hasher.hash_batch(b"", [0] * count, lengths)
            except UsageError:
                assert len(opened[0].used) == before
            on_device = len(opened[0].used) > before
            of_cpu = calibration.cpu_batch_ns(count, each * count)
            of_device = calibration.device_batch_ns(count, each * count)
            chosen = of_device if on_device else of_cpu
            assert 10 * chosen <= 11 * min(of_cpu, of_device), (size, count)


def device_sizes(takes: Callable[[int], bool]) -> tuple[int, int] | None:
    """The least and the greatest size that the device takes, if it takes all between."""
    taken = [size for size in SIZES if takes(size)]
    if not taken:
        return None
    assert taken == [size for size in SIZES if taken[0] <= size <= taken[-1]]
    return taken[0], taken[-1]


def test_auto_gives_each_machine_what_it_is_good_at(opened: list[Opened]) -> None:
    def choices(calibration: Calibration) -> list[tuple[int, int] | None]:
        hasher = Hasher(calibration=calibration)
        hasher._device = hasher_module.open_device("cuda")
        return [
            device_sizes(lambda size: takes(hasher, size)),
            device_sizes(lambda size: bool(hasher._device_for_batch(size // 1000 or 1, size))),
            device_sizes(lambda size: bool(hasher._device_for_resident(size))),
        ]

    files, batches, arrays = choices(SERVER)
    # Up to a MiB the CPU hashes with one thread.
    assert files is None or files[1] <= MIB
    assert batches is not None
    assert batches[0] < 512 * KIB
    assert batches[1] == GIB
    assert arrays == (KIB, GIB)
    files, batches, arrays = choices(WEAK_HOST)
    assert files is not None
    assert 128 * KIB < files[0] < MIB
    assert files[1] == GIB
    assert batches is not None
    assert batches[0] < 128 * KIB
    assert arrays == (KIB, GIB)
    files, batches, arrays = choices(SLOW_GPU)
    assert (files, batches) == (None, None)
    # Fetching data is cheap there, but not for nothing.
    assert arrays is not None
    assert arrays[1] < 16 * MIB
    assert choices(NO_GPU)[:2] == [None, None]


def test_auto_opens_a_device_once_it_would_have_saved_what_that_costs(
    opened: list[Opened],
) -> None:
    hasher = Hasher(calibration=WEAK_HOST)
    device = WEAK_HOST.device
    assert device is not None
    size = 64 * MIB
    saved_ns = WEAK_HOST.cpu_file_ns(size) - WEAK_HOST.device_file_ns(size)
    files = 0
    while not takes(hasher, size):
        # What the device would not do faster counts for nothing.
        assert not takes(hasher, KIB)
        assert hasher.name == "cpu"
        files += 1
    assert (files + 1) * saved_ns >= device.start_ns > files * saved_ns
    assert len(opened) == 1
    assert not takes(hasher, KIB)
    hasher.close()
    assert not takes(hasher, GIB)
    assert opened[0].used == ["close"]


def test_auto_says_when_the_devices_are_not_the_calibrated_ones(
    opened: list[Opened], warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Opened, "devices", ["Another GPU"])
    hasher = Hasher(calibration=EAGER, warn=warned.append)
    assert takes(hasher, MIB)
    assert takes(hasher, MIB)
    assert warned == ["the devices are not those that were calibrated; calibrate again"]


@pytest.mark.parametrize("driver", [None, Driver(100), Driver(count=0)])
def test_auto_says_nothing_where_there_is_no_gpu(
    driver: Driver | None, warned: list[str], gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", loader(driver))
    monkeypatch.setattr("compute_market.hashing.probe._OPENCL_VENDORS", "/nowhere")
    with Hasher(warn=warned.append) as hasher:
        for _ in range(2):
            assert hasher.hash_batch(DATA, [0] * 2000, [1000] * 2000) == digests(DATA[:1000]) * 2000
        assert hasher.name == "cpu"
    assert (warned, gpus.calls.total()) == ([], 0)


def test_cpu_asks_for_no_device(opened: list[Opened], gpus: Gpus) -> None:
    with Hasher("cpu", calibration=EAGER) as hasher:
        assert hasher.hash_batch(DATA, [0] * 2000, [1000] * 2000) == digests(DATA[:1000]) * 2000
        assert hasher.hash_array(gpus.array(DATA)) == digests(DATA)
        assert not takes(hasher, GIB)
        assert (hasher.name, hasher.is_forced) == ("cpu", False)
    assert opened == []


def test_hasher_refuses_an_unknown_backend() -> None:
    with pytest.raises(UsageError, match="backend 'gpu' is none of auto, cpu, cuda, opencl"):
        Hasher("gpu")  # type: ignore[arg-type]


# A backend that was asked for by name.


def no_library() -> BaseException:
    return DynamicLibNotFoundError('Failure finding "libnvrtc.so"')


@pytest.mark.parametrize(
    ("driver", "point", "error", "what", "hint"),
    [
        (None, "", 0, "no NVIDIA driver: libcuda.so.1 cannot be loaded", "install the driver"),
        (Driver(999), "", 0, "the NVIDIA driver does not start: cuInit returns 999", "nvidia-smi"),
        (Driver(count=0), "", 0, "the NVIDIA driver sees no GPU", "CUDA_VISIBLE_DEVICES"),
        (Driver(), "getDeviceCount", NO_DEVICE, "no CUDA-capable device", "nvidia-smi"),
        (Driver(), "compile", no_library, "libnvrtc.so", "pip install '.[gpu]'"),
    ],
)
def test_forced_backend_that_is_missing_is_an_error(
    driver: Driver | None,
    point: str,
    error: Any,
    what: str,
    hint: str,
    gpus: Gpus,
    warned: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ctypes.CDLL", loader(driver))
    if point:
        gpus.fail(point, error)
    with pytest.raises(UsageError) as found:
        Hasher("cuda", warn=warned.append)
    assert found.value.reason == "backend_missing"
    assert found.value.message.startswith("backend cuda: ")
    assert what in found.value.message
    assert "\n" not in found.value.message
    assert hint in (found.value.hint or "")
    assert warned == []


@pytest.mark.parametrize(("backend", "package"), [("cuda", "cupy"), ("opencl", "pyopencl")])
def test_forced_backend_without_its_package_is_an_error(
    backend: Any, package: str, gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UsageError, match=r"backend (cuda: CuPy|opencl: pyopencl) is not installed"
    ) as found:
        Hasher(backend)
    assert found.value.reason == "backend_missing"
    assert (found.value.hint or "").startswith("pip install '.[")


# A device that fails.

OFFSETS, LENGTHS = [1000 * number for number in range(1024)], [1024] * 1024


def work(gpus: Gpus, file: tuple[str, int, int]) -> dict[str, Callable[[Hasher], bool]]:
    """All that a hasher does, each with whether the digests are right."""
    array = gpus.array(DATA)
    ranges = [DATA[offset : offset + 1024] for offset in OFFSETS[:1000]]
    return {
        "batch": lambda hasher: (
            hasher.hash_batch(DATA, OFFSETS[:1000] * 2, LENGTHS[:1000] * 2) == digests(*ranges * 2)
        ),
        "file": lambda hasher: (
            os.lseek(file[1], 0, os.SEEK_SET) == 0 and hasher.hash_opened(*file) == digests(DATA)
        ),
        "array": lambda hasher: hasher.hash_array(array) == digests(DATA),
    }


def hasher_of(kind: str, warned: list[str]) -> Hasher:
    if kind == "forced":
        return Hasher("cuda", warn=warned.append)
    return Hasher("auto", calibration=EAGER, warn=warned.append)


@pytest.mark.parametrize("kind", ["forced", "auto"])
def test_device_gives_the_digests_of_the_cpu(
    kind: str, gpus: Gpus, small_segments: None, file: tuple[str, int, int], warned: list[str]
) -> None:
    with hasher_of(kind, warned) as hasher:
        for run in work(gpus, file).values():
            gpus.launches.clear()
            assert run(hasher)
            assert gpus.launches
        assert hasher.name == "cuda"
    assert warned == []


@pytest.mark.parametrize("kind", ["forced", "auto"])
@pytest.mark.parametrize(
    ("point", "error", "what"),
    [
        ("PinnedMemory", OUT_OF_MEMORY, "out of memory"),
        ("Memory", fake_cupy.OutOfMemoryError, "OutOfMemoryError"),
        ("compile", lambda: fake_cupy.CompileException("error: ;\nmore"), "do not compile"),
        ("launch", LAUNCH_FAILED, "launch failure"),
        ("*", LOST, "uncorrectable ECC error"),
    ],
)
def test_device_that_cannot_be_opened_leaves_everything_to_the_cpu(
    kind: str,
    point: str,
    error: Any,
    what: str,
    gpus: Gpus,
    small_segments: None,
    file: tuple[str, int, int],
    warned: list[str],
) -> None:
    gpus.fail(point, error)
    runs = work(gpus, file)
    if point == "*":
        del runs["array"]  # It cannot be fetched either.
    with hasher_of(kind, warned) as hasher:
        for run in runs.values():
            assert run(hasher)
            calls = gpus.calls.total() - gpus.calls["get"]
            assert run(hasher)
            # The device is not asked again.
            assert gpus.calls.total() - gpus.calls["get"] == calls
        assert (hasher.name, hasher.is_forced) == ("cpu", False)
    (text,) = warned
    assert what in text
    assert text.endswith("; hashing goes on on the CPU")
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["forced", "auto"])
@pytest.mark.parametrize("name", ["batch", "file", "array"])
@pytest.mark.parametrize(
    ("point", "after"), [("launch", 0), ("launch", 3), ("synchronize", 1), ("memcpyAsync", 7)]
)
def test_device_that_fails_in_the_middle_changes_no_digest(
    point: str,
    after: int,
    name: str,
    kind: str,
    gpus: Gpus,
    small_segments: None,
    file: tuple[str, int, int],
    warned: list[str],
) -> None:
    runs = work(gpus, file)
    with hasher_of(kind, warned) as hasher:
        hasher.hash_array(gpus.array(DATA))  # Opens it.
        assert hasher.name == "cuda"
        gpus.fail(point, LAUNCH_FAILED, after)
        assert runs[name](hasher)
        assert len(warned) == 1
        calls = gpus.calls.total() - gpus.calls["get"]
        for run in runs.values():
            assert run(hasher)
        assert gpus.calls.total() - gpus.calls["get"] == calls
        assert (hasher.name, hasher.is_forced) == ("cpu", False)
    assert warned == [
        "cuda: CUDARuntimeError: cudaErrorLaunchFailure: unspecified launch failure;"
        " hashing goes on on the CPU"
    ]


@pytest.mark.parametrize("after", [0, 1, 6, 13])
def test_bytes_are_reported_once_although_the_cpu_begins_anew(
    after: int, gpus: Gpus, small_segments: None, file: tuple[str, int, int], warned: list[str]
) -> None:
    reports: list[int] = []
    with Hasher("cuda", warn=warned.append) as hasher:
        gpus.fail("synchronize", LOST, after)
        assert hasher.hash_opened(*file, reports.append) == digests(DATA)
    assert sum(reports) == len(DATA)
    assert all(count > 0 for count in reports)
    assert len(warned) == 1


@pytest.mark.parametrize("made", [lambda array: array, NumbaArray, TorchArray])
def test_array_on_a_lost_device_is_an_error_and_no_digest(
    made: Callable[[Any], Any], gpus: Gpus, small_segments: None, warned: list[str]
) -> None:
    with Hasher("cuda", warn=warned.append) as hasher:
        array = made(gpus.array(DATA))
        gpus.fail("*", LOST)
        for _ in range(2):
            with pytest.raises(IntegrityError) as found:
                hasher.hash_array(array)
            assert found.value.reason == "unreadable"
    assert len(warned) == 1


@pytest.mark.parametrize("backend", ["auto", "cpu", "cuda"])
def test_array_that_is_not_contiguous_is_refused_wherever_it_would_be_hashed(
    backend: Any, gpus: Gpus, small_segments: None
) -> None:
    with Hasher(backend) as hasher:
        for data in (DATA[:1000], DATA * 2):
            array = gpus.array(data)[::2]
            for given in (
                array,
                NumbaArray(array),
                TorchArray(array),
                np.frombuffer(data, np.uint8)[::2],
            ):
                with pytest.raises(UsageError, match="not contiguous in C order"):
                    hasher.hash_array(given)


def test_file_that_changes_while_the_device_reads_it_is_an_error(
    gpus: Gpus, small_segments: None, file: tuple[str, int, int], warned: list[str]
) -> None:
    path, descriptor, length = file
    with Hasher("cuda", warn=warned.append) as hasher:
        for wrong in (length - 1, length + 1):
            with pytest.raises(IntegrityError, match="changed while it was read"):
                hasher.hash_opened(path, descriptor, wrong)
        assert hasher.hash_opened(*file) == digests(DATA)
        assert hasher.name == "cuda"
    assert warned == []


# In a process of its own, which begins with nothing imported.

LAZY = """
import sys
from compute_market.hashing.hasher import Hasher
with Hasher("auto") as hasher:
    hasher.hash_batch(bytes(5000), [0, 100], [100, 4900])
    hasher.takes_file(2**30, threads=2, together=1)
    with open(sys.argv[1], "rb") as file:
        hasher.hash_opened(sys.argv[1], file.fileno(), 2**20)
    hasher.hash_array(bytes(100))
print({"cupy", "pyopencl", "numpy", "msgspec", "ctypes"} & sys.modules.keys())
"""

PROBE = """
import sys, time
from compute_market.hashing import probe
times = []
for _ in range(20):
    began = time.perf_counter()
    probe.cuda_missing()
    probe.opencl_missing(registered=True)
    times.append(time.perf_counter() - began)
print({"cupy", "pyopencl", "numpy"} & sys.modules.keys(), min(times) <= 0.005)
"""


@pytest.mark.parametrize(("script", "output"), [(LAZY, "set()\n"), (PROBE, "set() True\n")])
def test_nothing_heavy_is_imported_before_it_is_used(
    script: str, output: str, file: tuple[str, int, int]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script, file[0]],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.stdout, done.stderr) == (output, "")
