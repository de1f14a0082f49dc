"""The CUDA backend over GPUs that are not there: right digests, bounded memory, every failure."""

import ast
import importlib.util
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from compute_market.errors import IntegrityError, UsageError
from compute_market.hashing import cuda, launch, probe
from compute_market.hashing.device import LANES_PER_DEVICE, DeviceError, DeviceMissing
from compute_market.hashing.forms import Form
from compute_market.hashing.pipeline import DeviceBackend
from tests.support.gpu import fake_cupy, fake_gpus
from tests.support.gpu.fake_cupy import DynamicLibNotFoundError
from tests.support.gpu.fake_gpus import (
    LAUNCH_FAILED,
    LOST,
    NO_DEVICE,
    NO_DRIVER,
    OUT_OF_MEMORY,
    Gpus,
)

pytest_plugins = ("tests.support.gpu.fake_cupy",)

KIB = 1024
MIB = 1_048_576
# Around blocks, chunks, tiles and (with small segments) segments and launches.
LENGTHS = [
    *(0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 3073, 8191, 8192, 8193, 16_384, 16_385, 50_000),
    *(64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB + 1, 192 * KIB, 700_001),
]
DATA = random.Random(1).randbytes(MIB)


def digests(*slices: bytes) -> bytes:
    return b"".join([blake3(content).digest() for content in slices])


def ranges(data: bytes, offsets: list[int], lengths: list[int]) -> bytes:
    return digests(*[data[o : o + n] for o, n in zip(offsets, lengths, strict=True)])


@pytest.fixture
def backend(gpus: Gpus, small_segments: None) -> Iterator[DeviceBackend]:
    """One GPU, at which a few hundred KiB are many segments."""
    opened = cuda.open_backend()
    yield opened
    with suppress(DeviceError):
        opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[str, int, int]]]:
    """Path, descriptor and length of a new file with some content."""
    descriptors: list[int] = []

    def make(content: bytes) -> tuple[str, int, int]:
        path = tmp_path / f"{len(descriptors)}.slice"
        path.write_bytes(content)
        descriptors.append(os.open(path, os.O_RDONLY))
        return str(path), descriptors[-1], len(content)

    yield make
    for descriptor in descriptors:
        os.close(descriptor)


# Right digests.


def test_hash_batch_gives_the_digest_of_every_range(backend: DeviceBackend) -> None:
    rng = random.Random(2)
    packed = np.cumsum([0, *LENGTHS[:-1]]).tolist()
    scattered = [rng.randrange(len(DATA) - length) for length in LENGTHS]
    far = [0, 600_000, 1, 1_000_000], [10, 2000, 0, 5]
    for offsets, lengths in ((packed, LENGTHS), (scattered, LENGTHS), far, ([], []), ([7], [0])):
        data = DATA * 2
        assert backend.hash_batch(data, offsets, lengths) == ranges(data, offsets, lengths)
    assert backend.hash_batch(b"", [0, 0], [0, 0]) == digests(b"", b"")


def test_hash_batch_takes_any_alignment_and_any_buffer(backend: DeviceBackend) -> None:
    offsets = [*range(17), len(DATA) - 3000]
    for length in (1, 1000, 3000):
        lengths = [length] * len(offsets)
        for buffer in (DATA, memoryview(DATA), np.frombuffer(DATA, np.uint32)):
            assert backend.hash_batch(buffer, offsets, lengths) == ranges(DATA, offsets, lengths)
        expected = ranges(DATA[3:], offsets[:-1], lengths[:-1])
        assert backend.hash_batch(memoryview(DATA)[3:], offsets[:-1], lengths[:-1]) == expected


@pytest.mark.usefixtures("unchecked_kernels")
def test_hash_batch_of_many_slices_takes_few_launches(backend: DeviceBackend, gpus: Gpus) -> None:
    offsets, lengths = [100 * number for number in range(2000)], [100] * 2000
    gpus.launches.clear()
    assert backend.hash_batch(DATA, offsets, lengths) == ranges(DATA, offsets, lengths)
    assert gpus.kernels == {"b3_small": -(-2000 // 64)}


def test_hash_batch_bounds_what_overlapping_ranges_come_to(
    backend: DeviceBackend, gpus: Gpus
) -> None:
    """Their tables and values have to fit, however often the same bytes are asked for."""
    for count, length in ((64, 64 * KIB), (200, 33_000), (1000, 9000)):
        offsets, lengths = [number % 3 for number in range(count)], [length] * count
        assert backend.hash_batch(DATA, offsets, lengths) == ranges(DATA, offsets, lengths)


@pytest.mark.parametrize(
    ("offsets", "lengths"),
    [([0, MIB], [1, 1]), ([-1], [1]), ([0], [-1]), ([2**63], [1]), ([0], [])],
)
def test_hash_batch_refuses_ranges_outside_of_the_buffer(
    offsets: list[int], lengths: list[int], backend: DeviceBackend
) -> None:
    with pytest.raises(UsageError):
        backend.hash_batch(DATA, offsets, lengths)


@pytest.mark.parametrize("length", LENGTHS)
def test_hash_opened_gives_the_digest_and_reports_every_byte_once(
    length: int,
    backend: DeviceBackend,
    file: Callable[[bytes], tuple[str, int, int]],
) -> None:
    reports: list[int] = []
    content = DATA[:length]
    digest = backend.hash_opened(*file(content), advance=reports.append)
    assert digest == digests(content)
    assert sum(reports) == length
    assert len(reports) == max(1, -(-length // (64 * KIB)))


def test_hash_opened_notices_a_file_of_another_length(
    backend: DeviceBackend, file: Callable[[bytes], tuple[str, int, int]]
) -> None:
    path, descriptor, length = file(DATA[:200_000])
    for wrong in (length - 1, length + 1, length + 100_000):
        with pytest.raises(IntegrityError) as error:
            backend.hash_opened(path, descriptor, wrong)
        assert error.value.reason == "slice_changed"
    # A descriptor that cannot be read from.
    with open(path, "wb") as written, pytest.raises(IntegrityError) as error:
        backend.hash_opened(path, written.fileno(), length)
    assert error.value.reason == "unreadable"


def test_hash_filled_gives_the_digests_of_what_is_filled_in(backend: DeviceBackend) -> None:
    contents = [DATA[:length] for length in (0, 1, 5000, 16, 17, 20_000, 1024)]

    def fill(memory: Any, offsets: list[int]) -> None:
        assert all(offset % 16 == 0 for offset in offsets)
        for offset, content in zip(offsets, contents, strict=True):
            memory[offset : offset + len(content)] = np.frombuffer(content, np.uint8)

    for _ in range(2):
        assert backend.hash_filled(list(map(len, contents)), fill) == digests(*contents)
    assert backend.hash_filled([], lambda memory, offsets: None) == b""


def test_backend_serves_several_threads_at_once(backend: DeviceBackend) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(5):
            length = rng.choice(LENGTHS)
            offset = rng.randrange(len(DATA) - length)
            if backend.hash_batch(DATA, [offset], [length]) != ranges(DATA, [offset], [length]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Arrays on a device.


@pytest.mark.usefixtures("unchecked_kernels")
@pytest.mark.parametrize("length", LENGTHS)
def test_hash_array_gives_the_digest_of_its_bytes(
    length: int, backend: DeviceBackend, gpus: Gpus
) -> None:
    gpus.uploads.clear()
    array = gpus.array(DATA[:length])
    gpus.calls.clear()
    assert backend.hash_array(array) == digests(DATA[:length])
    # No table goes up, only the values of several launches; and of nothing the driver is asked
    # nothing.
    launches = -(-length // fake_cupy.SMALL["RESIDENT_BYTES"])
    assert sum(size for _, size in gpus.uploads) <= (64 * launches if launches > 1 else 0)
    assert gpus.calls.total() == 0 or length


@pytest.mark.parametrize("length", [1, 1000, 5000, 200_000])
@pytest.mark.parametrize("begin", [1, 4, 15, 16, 1000])
def test_hash_array_takes_unaligned_views(
    begin: int, length: int, backend: DeviceBackend, gpus: Gpus
) -> None:
    array = gpus.array(DATA)
    assert backend.hash_array(array[begin : begin + length]) == digests(
        DATA[begin : begin + length]
    )


def test_hash_array_takes_any_shape_and_type_in_c_order(backend: DeviceBackend, gpus: Gpus) -> None:
    numbers = np.frombuffer(DATA[:240_000], np.float32).reshape(3, 100, 200)
    assert backend.hash_array(gpus.array(numbers)) == digests(numbers.tobytes())
    one = gpus.array(numbers[:1])
    one.strides = (7, *one.strides[1:])  # Of a single row it does not matter where the next is.
    assert backend.hash_array(one) == digests(numbers[:1].tobytes())
    assert backend.hash_array(gpus.array(b"")) == digests(b"")
    assert backend.hash_array(gpus.array(np.zeros((3, 0)))) == digests(b"")
    assert backend.hash_array(gpus.array(np.array(1.5))) == digests(np.array(1.5).tobytes())


def test_hash_array_refuses_what_is_not_in_c_order(backend: DeviceBackend, gpus: Gpus) -> None:
    array = gpus.array(DATA[:1000])
    turned = gpus.array(np.zeros((3, 5)))
    turned.shape, turned.strides = turned.shape[::-1], turned.strides[::-1]
    for strided in (array[::2], array[999:0:-1], turned):
        with pytest.raises(UsageError, match="not contiguous in C order"):
            backend.hash_array(strided)


def test_hash_array_leaves_arrays_in_memory_to_others(backend: DeviceBackend) -> None:
    assert backend.hash_array(np.zeros(5)) is None


def test_hash_array_waits_for_the_stream_that_writes_it(
    make_gpus: Callable[..., Gpus], small_segments: None
) -> None:
    gpus = make_gpus(2)
    backend = cuda.open_backend()
    for device in (0, 1):
        # A stream of its own, and the default stream of its device, which is not the current one.
        for stream in (fake_gpus.Stream(gpus, device), gpus.legacy_streams[device]):
            array = gpus.array(DATA, device, stream)
            if stream is gpus.legacy_streams[device]:
                array._stream = 1
            assert backend.hash_array(array) == digests(DATA)
            # PyTorch and Numba do not say which stream that is.
            array = gpus.array(DATA, device, stream)
            array._stream = None
            assert backend.hash_array(array) == digests(DATA)
    backend.close()


# What goes where.


@pytest.mark.usefixtures("unchecked_kernels")
def test_pinned_memory_goes_up_without_staging(backend: DeviceBackend, gpus: Gpus) -> None:
    pinned = backend.driver.pinned(300_000)
    assert pinned is not None
    pinned[:] = np.frombuffer(DATA[:300_000], np.uint8)
    begin = pinned.ctypes.data
    for offsets, lengths in (
        ([0], [300_000]),
        ([5], [200_000]),
        ([16, 5016, 10_023], [5000, 5000, 1000]),
    ):
        gpus.uploads.clear()
        assert backend.hash_batch(pinned, offsets, lengths) == ranges(DATA, offsets, lengths)
        straight = sum(size for at, size in gpus.uploads if begin <= at < begin + 300_000)
        assert straight == max(o + n for o, n in zip(offsets, lengths, strict=True)) - (
            offsets[0] // 16 * 16 if len(offsets) > 1 else offsets[0]
        )
        assert sum(size for _, size in gpus.uploads) - straight < 2048
    # The backend keeps it for nobody.
    del pinned


def test_work_is_split_over_all_devices(
    make_gpus: Callable[..., Gpus],
    small_segments: None,
    file: Callable[[bytes], tuple[str, int, int]],
) -> None:
    gpus = make_gpus(3)
    backend = cuda.open_backend()
    assert backend.devices == ["Fake GPU 0", "Fake GPU 1", "Fake GPU 2"]
    offsets, lengths = [10_000 * number for number in range(100)], [10_000] * 100
    for run in (
        lambda: backend.hash_batch(DATA, offsets, lengths) == ranges(DATA, offsets, lengths),
        lambda: backend.hash_batch(DATA, [0], [MIB]) == digests(DATA),
        lambda: backend.hash_opened(*file(DATA)) == digests(DATA),
    ):
        gpus.launches.clear()
        assert run()
        assert {launch.device for launch in gpus.launches} == {0, 1, 2}
    gpus.launches.clear()
    assert backend.hash_array(gpus.array(DATA, 2)) == digests(DATA)
    assert {launch.device for launch in gpus.launches} == {2}
    backend.close()


@pytest.mark.usefixtures("unchecked_kernels")
def test_waiting_spins_only_for_what_is_on_the_device(backend: DeviceBackend, gpus: Gpus) -> None:
    """Waking up costs more than a short hash; but a host that reads needs its cores."""
    array = gpus.array(DATA[:5000])
    for run, waits in (
        (lambda: backend.hash_array(array), {"spinning"}),
        (lambda: backend.hash_batch(DATA, [0], [5000]), {"blocked"}),
        (lambda: backend.hash_batch(DATA, [0], [900_000]), {"blocked"}),
    ):
        gpus.waits.clear()
        run()
        assert set(gpus.waits) == waits


@pytest.mark.usefixtures("unchecked_kernels")
def test_batch_of_nothing_asks_the_driver_nothing_about_memory(
    backend: DeviceBackend, gpus: Gpus
) -> None:
    gpus.calls.clear()
    assert backend.hash_batch(b"", [0], [0]) == digests(b"")
    assert gpus.calls["pointerGetAttributes"] == 0


def test_lane_rates_its_device(backend: DeviceBackend, gpus: Gpus) -> None:
    backend.first_lane.multiply_add(2, 3)
    backend.first_lane.copy(1000)
    assert gpus.kernels["fma_rate"] == 1


@pytest.mark.usefixtures("unchecked_kernels")
def test_threads_are_kept_from_one_call_to_the_next(backend: DeviceBackend) -> None:
    def threads() -> set[int | None]:
        return {each.ident for each in threading.enumerate() if "ThreadPool" in each.name}

    backend.hash_batch(DATA, [0], [900_000])
    kept = threads()
    assert kept
    backend.hash_batch(DATA, [0], [900_000])
    assert kept <= threads()
    backend.close()
    assert_no_threads()


def assert_no_threads() -> None:
    """Those of a pool that was shut down end soon."""
    for thread in threading.enumerate():
        if "ThreadPool" in thread.name:
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("capability", "multiply_add", "read_ahead"),
    [
        *(("61", 0, 0), ("70", 1, 1), ("75", 1, 1), ("90", 1, 1), ("100", 1, 1), ("110", 1, 1)),
        *(("120", 0, 0), ("121", 0, 0)),
    ],
)
def test_kernels_take_the_form_that_suits_the_device(
    capability: str,
    multiply_add: int,
    read_ahead: int,
    make_gpus: Callable[..., Gpus],
    small_segments: None,
) -> None:
    gpus = make_gpus(capability=capability)
    forms = [None, Form(fake_cupy.TILES, multiply_add=False, read_ahead=True)]
    for form, expected in zip(forms, [(multiply_add, read_ahead), (0, 1)], strict=True):
        gpus.launches.clear()
        cuda.open_backend(form=form).close()
        assert {launch.options[2:4] for launch in gpus.launches} == {
            (f"-DMULTIPLY_ADD={expected[0]}", f"-DREAD_AHEAD={expected[1]}")
        }


def test_memory_is_bounded_and_given_back(
    gpus: Gpus, file: Callable[[bytes], tuple[str, int, int]]
) -> None:
    """At the real sizes, with as many segments as are under way at most."""
    content = DATA * 40
    backend = cuda.open_backend()
    assert backend.hash_opened(*file(content)) == digests(content)
    assert backend.hash_array(gpus.array(DATA)) == digests(DATA)
    # Every lane that there may be.
    with ExitStack() as all_at_once:
        lanes = [all_at_once.enter_context(backend._lanes.lane()) for _ in range(backend.width)]
    assert len(backend._lanes.opened) == LANES_PER_DEVICE
    assert 100 * MIB < gpus.pinned_bytes_max <= 128 * MIB
    # Beside the memory for the data there is that for the values.
    values = 2 * cuda.VALUES_BYTES * (len(lanes) + 1)
    assert gpus.device_bytes_max[0] - values <= 128 * MIB
    backend.close()
    del lanes
    assert (gpus.pinned_bytes, gpus.device_bytes) == (0, [0])


# What is missing.


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcublas.so.12: cannot open shared object file\nand more"),
        OSError("no file"),
        RuntimeError("CuPy is not correctly installed.\n"),
        ValueError("numpy.dtype size changed, may indicate binary incompatibility"),
        AttributeError("module 'numpy' has no attribute 'bool'"),
    ],
)
def test_open_says_that_cupy_cannot_be_imported(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cupy"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {type(error).__name__}({str(error)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceMissing, match="CuPy cannot be imported") as found:
        cuda.open_backend()
    assert "\n" not in str(found.value)
    assert found.value.hint == probe.installing("gpu")


def dynamic_library_missing() -> BaseException:
    return DynamicLibNotFoundError('Failure finding "libnvrtc.so": No such file\nand more')


def headers_missing() -> BaseException:
    return RuntimeError(
        "Failed to find CUDA headers. Please install CUDA toolkit, or use pip\nand more"
    )


def compile_error() -> BaseException:
    return fake_cupy.CompileException("kernel.cu(12): error: expected a ';'\nand more")


def no_driver_call() -> BaseException:
    return RuntimeError("CuPy failed to load libcuda.so.1: OSError: no file")


@pytest.mark.parametrize(
    ("point", "error", "what"),
    [
        ("getDeviceCount", NO_DRIVER, "driver version is insufficient"),
        ("getDeviceCount", NO_DEVICE, "no CUDA-capable device"),
        ("compile", dynamic_library_missing, "libnvrtc.so"),
        ("compile", headers_missing, "Failed to find CUDA headers"),
    ],
)
def test_open_says_what_is_missing(
    point: str, error: Any, what: str, gpus: Gpus, small_segments: None
) -> None:
    gpus.fail(point, error)
    with pytest.raises(DeviceMissing, match=what) as found:
        cuda.open_backend()
    assert "\n" not in str(found.value)
    assert found.value.hint
    if point == "compile":
        assert probe.installing("gpu") in found.value.hint


@pytest.mark.parametrize("error", [dynamic_library_missing, headers_missing])
def test_hint_goes_with_the_cupy_that_is_there(
    error: Any, gpus: Gpus, small_segments: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two builds of CuPy would lie in one directory."""
    installed = tmp_path / "cupy_cuda13x-14.2.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: cupy-cuda13x\nVersion: 14\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    gpus.fail("compile", error)
    with pytest.raises(DeviceMissing) as found:
        cuda.open_backend()
    assert probe.installing("gpu-cuda13") in found.value.hint


def test_open_does_not_wait_for_a_device_where_there_is_none(
    make_gpus: Callable[..., Gpus],
) -> None:
    make_gpus(0)
    with pytest.raises(DeviceMissing, match="no GPU"):
        cuda.open_backend()


# What fails.


@pytest.mark.parametrize(
    ("point", "error", "what"),
    [
        ("getDeviceProperties", LOST, "ECC"),
        ("Stream", no_driver_call, "failed to load"),
        ("Event", OUT_OF_MEMORY, "out of memory"),
        ("PinnedMemory", OUT_OF_MEMORY, "out of memory"),
        ("Memory", OUT_OF_MEMORY, "out of memory"),
        ("Memory", fake_cupy.OutOfMemoryError, "OutOfMemoryError"),
        ("compile", compile_error, "do not compile: .*expected a ';'"),
        ("memcpyAsync", LOST, "ECC"),
        ("launch", LAUNCH_FAILED, "unspecified launch failure"),
        ("record", LOST, "ECC"),
        ("synchronize", LAUNCH_FAILED, "unspecified launch failure"),
    ],
)
def test_open_fails_in_one_line_and_keeps_nothing(
    point: str, error: Any, what: str, gpus: Gpus, small_segments: None
) -> None:
    for after in (0, 1, 2):
        gpus.calls.clear()
        gpus.fail(point, error, after)
        found = failure_of(lambda: cuda.open_backend().close())
        if found is None:
            assert after > 0, "a failure that nobody noticed"
            continue
        assert type(found) is DeviceError
        assert re.search(what, str(found))
        # Of an error in several lines, the first.
        assert "\n" not in str(found)
        assert "and more" not in str(found)


def failure_of(run: Callable[[], object]) -> DeviceError | None:
    try:
        run()
    except DeviceError as error:
        return error.with_traceback(None)
    return None


def test_open_refuses_a_device_that_computes_wrongly(
    gpus: Gpus, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_ONE", np.uint32(3))
    backend = cuda.Cuda(Form(fake_cupy.TILES, multiply_add=True))
    with pytest.raises(DeviceError, match="wrong digests"):
        DeviceBackend(backend, 1).start()


@pytest.mark.parametrize("point", ["launch", "synchronize", "memcpyAsync", "*"])
@pytest.mark.parametrize("after", [0, 1, 5, 8])
def test_device_that_fails_in_the_middle_gives_an_error_and_no_digest(
    point: str,
    after: int,
    backend: DeviceBackend,
    gpus: Gpus,
    file: Callable[[bytes], tuple[str, int, int]],
) -> None:
    opened = file(DATA[:900_000])
    array = gpus.array(DATA[:900_000])
    offsets, lengths = [9000 * number for number in range(100)], [9000] * 100
    for run in (
        lambda: backend.hash_batch(DATA, offsets, lengths),
        lambda: backend.hash_batch(DATA, [0], [900_000]),
        lambda: backend.hash_opened(*opened),
        lambda: backend.hash_array(array),
    ):
        gpus.fail(point, LOST, after)
        with pytest.raises(DeviceError, match="cudaErrorECCUncorrectable"):
            run()
    # No thread of the backend is left reading the file.
    assert_no_threads()


def test_memory_that_runs_out_in_the_middle_is_an_error(backend: DeviceBackend, gpus: Gpus) -> None:
    for point in ("Memory", "PinnedMemory"):
        gpus.fail(point, OUT_OF_MEMORY)
        with pytest.raises(DeviceError, match="out of memory"):
            backend.hash_batch(DATA, [0], [900_000])
        with pytest.raises(DeviceError, match="out of memory"):
            backend.hash_array(gpus.array(DATA))


def test_device_that_has_failed_is_not_tried_again(backend: DeviceBackend, gpus: Gpus) -> None:
    """What a lane was told before the failure may still be under way."""
    gpus.fail("launch", LAUNCH_FAILED)
    with pytest.raises(DeviceError, match="LaunchFailure"):
        backend.hash_batch(DATA, [0], [5000])
    array = gpus.array(b"")
    gpus.calls.clear()
    for run in (
        lambda: backend.hash_batch(b"", [0], [0]),
        lambda: backend.hash_filled([5], lambda memory, offsets: None),
        lambda: backend.hash_array(array),
    ):
        with pytest.raises(DeviceError, match="LaunchFailure"):
            run()
    assert not gpus.calls


def test_close_of_a_lost_device_frees_what_it_can(gpus: Gpus, small_segments: None) -> None:
    backend = cuda.open_backend()
    backend.hash_batch(DATA, [0], [900_000])
    backend.hash_array(gpus.array(DATA))
    gpus.fail("*", LOST)
    with pytest.raises(DeviceError, match="ECC"):
        backend.close()


# Other processes.

FORK = """
import os, sys
from tests.support.gpu import fake_cupy
gpus = fake_cupy.serve(sys.argv[1])
from compute_market.hashing import cuda
from compute_market.hashing.device import DeviceError
from compute_market.hashing.hasher import Hasher
with Hasher("cuda", warn=lambda text: print("warned:", text, flush=True)) as hasher:
    backend = hasher._device
    print(hasher.hash_batch(b"slice", [0], [5]).hex(), flush=True)
    child = os.fork()
    if not child:
        for run in (
            lambda: backend.hash_batch(b"slice", [0], [5]),
            lambda: backend.hash_array(gpus.array(b"slice")),
        ):
            try:
                run()
            except DeviceError as error:
                print(error)
        print(hasher.hash_batch(b"slice", [0], [5]).hex())
        print(hasher.hash_batch(b"slice", [0], [5]).hex(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(hasher.hash_batch(b"slice", [0], [5]).hex(), hasher.name)
"""


def test_forked_process_cannot_use_the_device_of_its_parent(kernel_directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(kernel_directory)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.stderr == ""
    digest = digests(b"slice").hex()
    why = "the device was opened before this process was forked"
    assert done.stdout.splitlines() == [
        *(digest, why, why, f"warned: cuda: {why}; hashing goes on on the CPU"),
        *(digest, digest, f"{digest} cuda"),
    ]


def hash_in_a_worker(directory: str) -> tuple[str, bytes]:
    gpus = fake_cupy.serve(directory)
    from compute_market.hashing.hasher import Hasher

    with Hasher("cuda") as hasher:
        digest = hasher.hash_batch(DATA, [0], [MIB])
        assert gpus.kernels["b3_tiles"]
        return hasher.name, digest


def test_spawned_process_opens_a_device_of_its_own(backend: DeviceBackend) -> None:
    directory = str(sys.modules["cupy"].fake_gpus.directory)  # type: ignore[attr-defined]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(hash_in_a_worker, directory).result()
    assert found == ("cuda", digests(DATA))


# The real thing.


def names_of(path: str) -> set[str]:
    """All that a module takes from CuPy, in dots."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cupy"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if "(" not in dotted and dotted.startswith(("cupy.", "self._cuda.")):
                found.add(dotted.replace("self._cuda.", "cupy.cuda."))
    return found


def find(module: ModuleType, dotted: str) -> Any:
    found: Any = module
    for part in dotted.split(".")[1:]:
        found = getattr(found, part)
    return found


def test_fake_has_every_name_that_the_backend_takes_from_cupy(gpus: Gpus) -> None:
    names = names_of(cuda.__file__)
    assert len(names) > 15
    for name in names:
        assert find(sys.modules["cupy"], name) is not None


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_has_every_name_that_the_backend_takes_from_it() -> None:
    import cupy

    for name in names_of(cuda.__file__):
        assert find(cupy, name) is not None
    parts = {
        cupy.cuda.Device: "__enter__ __exit__ compute_capability",
        cupy.cuda.Stream: "__enter__ __exit__ synchronize",
        cupy.cuda.Event: "record synchronize",
        cupy.cuda.Memory: "ptr",
        cupy.cuda.runtime.PointerAttributes: "device type",
        cupy.RawModule: "get_function",
    }
    for kind, attributes in parts.items():
        assert set(attributes.split()) <= set(dir(kind))
    errors = cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.memory.OutOfMemoryError
    assert issubclass(errors[0], RuntimeError)
    assert issubclass(errors[1], MemoryError)
    for status in (OUT_OF_MEMORY, NO_DRIVER, NO_DEVICE, LOST, LAUNCH_FAILED):
        assert errors[0](status).status == status
        assert str(errors[0](status)) == str(fake_gpus.CUDARuntimeError(status))
    # What a machine without a GPU shows.
    if cupy.cuda.runtime.driverGetVersion() == 0:
        with pytest.raises(DeviceMissing, match="cudaErrorInsufficientDriver"):
            cuda.open_backend()
