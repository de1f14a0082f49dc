"""CuPy over GPUs that are not there: all that `compute_market.hashing.cuda` uses of it.

A device's memory is memory of this process that is nobody else's, poisoned when it is allocated.
The kernels are the real ones, compiled by g++. Copies and kernels wait in their stream until
somebody waits for them, so results that are read too early and buffers that are filled too soon
give wrong digests. What a real device would not survive or would do slowly is an AssertionError:
memory or a stream of another device than the current one, copies from memory that is not pinned,
arguments of the wrong type.

A test module asks for the fixtures with `pytest_plugins = ("tests.support.gpu.fake_cupy",)`.
"""

import ctypes
import gc
import sys
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from compute_market.hashing.kernels.source import source
from tests.support.cli import without
from tests.support.gpu import host
from tests.support.market import shared_directory

TILES = (8, 16)
POISON = 0xA5
_GUARD_BYTES = 65_536

_ERRORS = {
    2: "cudaErrorMemoryAllocation: out of memory",
    3: "cudaErrorInitializationError: initialization error",
    35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    100: "cudaErrorNoDevice: no CUDA-capable device is detected",
    214: "cudaErrorECCUncorrectable: uncorrectable ECC error encountered",
    719: "cudaErrorLaunchFailure: unspecified launch failure",
}
OUT_OF_MEMORY, NO_DRIVER, NO_DEVICE, LOST, LAUNCH_FAILED = 2, 35, 100, 214, 719


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(_ERRORS[status])


class CompileException(Exception):
    """Not a RuntimeError; its text is the compiler's, of many lines."""


class OutOfMemoryError(MemoryError):
    pass


class DynamicLibNotFoundError(RuntimeError):
    """Of `cuda.pathfinder`, which CuPy asks for NVRTC."""


class Launch(NamedTuple):
    kernel: str
    device: int
    groups: int
    options: tuple[str, ...]


class Region(NamedTuple):
    """An allocation; `device` is None for pinned memory, `guard` is what nobody may write."""

    memory: NDArray[np.uint8]
    device: int | None
    guard: NDArray[np.uint8]

    @property
    def begin(self) -> int:
        return self.memory.ctypes.data


class Gpus:
    """The devices of one machine, what was done with them, and what they are to fail at."""

    def __init__(self, directory: Path, count: int = 1, capability: str = "61") -> None:
        self.names = [f"Fake GPU {number}" for number in range(count)]
        self.capability = capability
        self.processors = 4
        self.pinned_bytes, self.pinned_bytes_max = 0, 0
        self.device_bytes, self.device_bytes_max = [0] * count, [0] * count
        self.is_damaged = False  # something was written behind the end of an allocation
        self.is_lost = False  # it does not even say when it is done
        self.complaints = 0  # of what cannot be freed, which CuPy prints
        self.launches: list[Launch] = []
        self.uploads: list[tuple[int, int]] = []  # host address, bytes
        self.calls: Counter[str] = Counter()
        self.streams: dict[int, Stream] = {}
        self.legacy_streams = [Stream(self, device) for device in range(count)]
        self.regions: dict[int, Region] = {}
        self.lock = threading.RLock()
        self.directory = directory
        self._libraries: dict[tuple[str, ...], dict[str, Any]] = {}
        self._failures: dict[str, tuple[int, Callable[[], BaseException]]] = {}
        self._local = threading.local()

    def fail(self, point: str, error: Callable[[], BaseException] | int, after: int = 0) -> None:
        """Fail whenever `point` (`*`: anything) is reached, after that many times from now on."""
        make = (lambda: CUDARuntimeError(error)) if isinstance(error, int) else error
        self._failures[point] = (self._count(point) + after, make)

    def reach(self, point: str) -> None:
        with self.lock:
            error = self.error_at(point)
            if error is not None:
                raise error
            self.calls[point] += 1

    def error_at(self, point: str) -> BaseException | None:
        """What reaching `point` now would raise."""
        for failing in {point, "*"} & self._failures.keys():
            begin, make = self._failures[failing]
            if self._count(failing) >= begin:
                return make()
        return None

    def _count(self, point: str) -> int:
        return self.calls.total() if point == "*" else self.calls[point]

    @property
    def kernels(self) -> Counter[str]:
        """How often each kernel was launched."""
        return Counter(launch.kernel for launch in self.launches)

    # What is current in this thread.

    @property
    def devices(self) -> list[int]:
        if not hasattr(self._local, "devices"):
            self._local.devices = [0]
        found: list[int] = self._local.devices
        return found

    @property
    def device(self) -> int:
        return self.devices[-1]

    @property
    def current_streams(self) -> dict[int, list["Stream"]]:
        if not hasattr(self._local, "streams"):
            self._local.streams = defaultdict(list)
        found: dict[int, list[Stream]] = self._local.streams
        return found

    @property
    def stream(self) -> "Stream":
        entered = self.current_streams[self.device]
        return entered[-1] if entered else self.legacy_streams[self.device]

    def stream_of(self, handle: int) -> "Stream":
        return self.legacy_streams[self.device] if handle < 3 else self.streams[handle]

    # Memory.

    def allocate(self, size: int, device: int | None, *, is_array: bool = False) -> Region:
        """Memory of a device, or pinned. Arrays are their makers' and count for nothing."""
        with self.lock:
            whole = np.full(256 + size + _GUARD_BYTES, POISON, np.uint8)
            begin = -whole.ctypes.data % 256
            guard = whole[begin + size :]
            region = Region(whole[begin : begin + size], device, guard)
            self.regions[region.begin] = region
            if is_array:
                return region
            if device is None:
                self.pinned_bytes += size
                self.pinned_bytes_max = max(self.pinned_bytes_max, self.pinned_bytes)
            else:
                self.device_bytes[device] += size
                most = max(self.device_bytes_max[device], self.device_bytes[device])
                self.device_bytes_max[device] = most
            return region

    def free(self, region: Region) -> None:
        with self.lock:
            if self.error_at("free") is not None:
                self.complaints += 1
                return
            del self.regions[region.begin]
            self.is_damaged |= bool((region.guard != POISON).any())
            if region.device is None:
                self.pinned_bytes -= len(region.memory)
            else:
                self.device_bytes[region.device] -= len(region.memory)

    def region(self, address: int, size: int = 1) -> Region | None:
        """The allocation that holds all of these bytes."""
        with self.lock:
            for begin, region in self.regions.items():
                if begin <= address and address + size <= begin + len(region.memory):
                    return region
        return None

    def bytes_at(self, address: int, size: int, device: int | None) -> NDArray[np.uint8]:
        region = self.region(address, size)
        assert region is not None, f"{size} bytes at {address:#x} are not in one allocation"
        assert region.device == device, f"memory of {region.device} where {device} is current"
        begin = address - region.begin
        return region.memory[begin : begin + size]

    # Kernels.

    def library(self, options: tuple[str, ...]) -> dict[str, Any]:
        with self.lock:
            if options not in self._libraries:
                values = dict(option.removeprefix("-D").split("=") for option in options)
                library = host.build(
                    self.directory,
                    tile=int(values["TILE"]),
                    align=int(values.get("ALIGN", "16")),
                    multiply_add=values.get("MULTIPLY_ADD") == "1",
                    flags=("-O1", "-DFIBERS"),
                )
                self._libraries[options] = host.load(library)
            return self._libraries[options]

    # Arrays.

    def array(
        self, data: bytes | NDArray[Any], device: int = 0, stream: "Stream | None" = None
    ) -> "Array":
        """An array with this content; with a stream, once that has been waited for."""
        content = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        flat = np.ascontiguousarray(content).view(np.uint8).reshape(-1)
        region = self.allocate(max(1, len(flat)), device, is_array=True)

        def write() -> None:
            region.memory[: len(flat)] = flat

        if stream is None:
            write()
        else:
            stream.enqueue(write)
        strides = tuple(content.strides)
        handle = None if stream is None else stream.ptr
        return Array(region, content.shape, content.dtype.str, strides, 0, handle)


class Array:
    """An array on a device, with the attributes of CuPy's."""

    def __init__(
        self,
        region: Region,
        shape: tuple[int, ...],
        typestr: str,
        strides: tuple[int, ...],
        begin: int,
        stream: int | None,
    ) -> None:
        self._gpus = _installed()
        self._region = region
        self._begin = begin
        self.shape, self.strides, self.dtype = shape, strides, np.dtype(typestr)
        self._stream = stream

    def __getitem__(self, key: slice) -> "Array":
        """A view of a one-dimensional array."""
        (count,), (stride,) = self.shape, self.strides
        taken = range(count)[key]
        shape, strides = (len(taken),), (stride * taken.step,)
        begin = self._begin + taken.start * stride
        return Array(self._region, shape, self.dtype.str, strides, begin, self._stream)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        address = self._region.begin + self._begin if self.nbytes else 0
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (address, False),
            "version": 3,
            "strides": self.strides,
            "stream": self._stream,
        }

    def get(self) -> NDArray[Any]:
        self._gpus.reach("get")
        if self._stream is not None:
            self._gpus.stream_of(self._stream).run()
        memory = self._region.memory[self._begin :]
        strided = np.lib.stride_tricks.as_strided(
            memory[: memory.size // self.dtype.itemsize * self.dtype.itemsize].view(self.dtype),
            self.shape,
            self.strides,
        )
        return np.array(strided, order="C")


class NumbaArray:
    """An array on a device, with the attributes of Numba's."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.nbytes = array.nbytes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._array.__cuda_array_interface__

    def copy_to_host(self) -> NDArray[Any]:
        try:
            return self._array.get()
        except CUDARuntimeError as error:
            raise CudaAPIError(str(error)) from error


class CudaAPIError(Exception):
    """Numba's."""


class TorchArray:
    """An array on a device, with the attributes of PyTorch's.

    With gradients, and of a type that NumPy has not, it does not say where it lies.
    """

    is_cuda = True

    def __init__(self, array: Array, *, is_plain: bool = False) -> None:
        self._array = array
        self._is_plain = is_plain
        self.nbytes = array.nbytes

    def is_contiguous(self) -> bool:
        (stride,) = self._array.strides
        return stride == self._array.dtype.itemsize

    def detach(self) -> "TorchArray":
        return TorchArray(self._array)

    def reshape(self, *shape: int) -> "TorchArray":
        assert shape == (-1,)
        return self

    def view(self, kind: str) -> "TorchArray":
        assert kind == "uint8"
        return TorchArray(self._array, is_plain=True)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not self._is_plain:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")
        return self._array.__cuda_array_interface__ | {"version": 2}

    def cpu(self) -> "TorchArray":
        return self

    def numpy(self) -> NDArray[Any]:
        assert self._is_plain, "Got unsupported ScalarType BFloat16"
        return self._array.get()


class Stream:
    """Work that waits for somebody to wait for it."""

    def __init__(self, gpus: Gpus, device: int) -> None:
        self._gpus = gpus
        self.device = device
        self.ptr = id(self)
        self.enqueued, self.done = 0, 0
        self._work: deque[Callable[[], None]] = deque()
        self._lock = threading.RLock()
        gpus.streams[self.ptr] = self

    def __enter__(self) -> "Stream":
        assert self.device == self._gpus.device, "a stream of another device"
        self._gpus.current_streams[self.device].append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._gpus.current_streams[self.device].pop() is self

    def enqueue(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._work.append(work)
            self.enqueued += 1

    def run(self, until: int | None = None) -> None:
        with self._lock:
            while self.done < (self.enqueued if until is None else until):
                self._work.popleft()()
                self.done += 1


def install(gpus: Gpus, modules: dict[str, Any]) -> None:
    """Make `import cupy` give these devices, and libcuda.so.1 see them."""
    cupy, cuda = ModuleType("cupy"), ModuleType("cupy.cuda")
    compiler, runtime = ModuleType("cupy.cuda.compiler"), ModuleType("cupy.cuda.runtime")
    parts: Any = (cupy, cuda, compiler, runtime)
    cupy_, cuda_, compiler_, runtime_ = parts
    cupy_.cuda, cuda_.compiler, cuda_.runtime = cuda, compiler, runtime
    cupy_.fake_gpus = gpus
    compiler_.CompileException = CompileException
    runtime_.CUDARuntimeError = CUDARuntimeError

    def runtime_function(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(runtime, function.__name__, function)
        return function

    @runtime_function
    def getDeviceCount() -> int:
        gpus.reach("getDeviceCount")
        return len(gpus.names)

    @runtime_function
    def getDeviceProperties(device: int) -> dict[str, Any]:
        gpus.reach("getDeviceProperties")
        return {"name": f"{gpus.names[device]} ".encode()}

    @runtime_function
    def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
        gpus.reach("memcpyAsync")
        queue = gpus.stream_of(stream)
        assert queue.device == gpus.device, "a stream of another device"
        places = {1: (gpus.device, None), 2: (None, gpus.device)}
        into, out_of = places[kind]
        target, origin = gpus.bytes_at(dst, size, into), gpus.bytes_at(src, size, out_of)
        if kind == 1:
            gpus.uploads.append((src, size))
        queue.enqueue(lambda: np.copyto(target, origin))

    @runtime_function
    def pointerGetAttributes(ptr: int) -> Any:
        gpus.reach("pointerGetAttributes")
        region = gpus.region(ptr)

        class PointerAttributes(NamedTuple):
            device: int
            type: int

        if region is None:
            return PointerAttributes(-2, 0)
        if region.device is None:
            return PointerAttributes(gpus.device, 1)
        return PointerAttributes(region.device, 2)

    @runtime_function
    def deviceSynchronize() -> None:
        gpus.is_lost |= gpus.error_at("deviceSynchronize") is not None
        gpus.reach("deviceSynchronize")
        for stream in (gpus.legacy_streams[gpus.device], *list(gpus.streams.values())):
            if stream.device == gpus.device:
                stream.run()

    @runtime_function
    def streamSynchronize(stream: int) -> None:
        gpus.reach("streamSynchronize")
        gpus.stream_of(stream).run()

    class Device:
        def __init__(self, device: int) -> None:
            assert 0 <= device < len(gpus.names)
            self.id = device

        def __enter__(self) -> "Device":
            gpus.devices.append(self.id)
            return self

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            gpus.devices.pop()

        @property
        def compute_capability(self) -> str:
            return gpus.capability

        @property
        def attributes(self) -> dict[str, int]:
            return {"MultiProcessorCount": gpus.processors}

    def new_stream(null: bool = False, non_blocking: bool = False) -> Stream:
        gpus.reach("Stream")
        assert not null
        assert non_blocking, "it would wait for the default stream"
        return Stream(gpus, gpus.device)

    class Event:
        def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
            gpus.reach("Event")
            assert block, "waiting would spin"
            assert disable_timing
            self._device = gpus.device
            self._recorded: tuple[Stream, int] | None = None

        def record(self, stream: Stream) -> None:
            gpus.reach("record")
            assert stream.device == self._device == gpus.device, "a stream of another device"
            self._recorded = (stream, stream.enqueued)

        def synchronize(self) -> None:
            gpus.reach("synchronize")
            if self._recorded is not None:
                stream, until = self._recorded
                stream.run(until)

    class Memory:
        def __init__(self, size: int) -> None:
            gpus.reach("Memory")
            self._region = gpus.allocate(size, gpus.device)
            self.ptr, self.size = self._region.begin, size

        def __del__(self) -> None:
            if hasattr(self, "_region"):
                gpus.free(self._region)

    class PinnedMemory:
        def __init__(self, size: int, flags: int = 0) -> None:
            gpus.reach("PinnedMemory")
            self.region = gpus.allocate(size, None)

        def __del__(self) -> None:
            if hasattr(self, "region"):
                gpus.free(self.region)

    def pinned_memory_pointer(memory: PinnedMemory, offset: int) -> Any:
        region = memory.region
        # NumPy takes its buffer, and keeps it while there are arrays over it.
        kind = type("PinnedMemoryPointer", (ctypes.c_uint8 * (len(region.memory) - offset),), {})
        pointer: Any = kind.from_address(region.begin + offset)
        pointer.memory = memory
        return pointer

    cuda_.Device, cuda_.Stream, cuda_.Event = Device, new_stream, Event
    cuda_.Memory, cuda_.PinnedMemory = Memory, PinnedMemory
    cuda_.PinnedMemoryPointer = pinned_memory_pointer

    class RawModule:
        def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
            assert code in (source("blake3"), source("fma"))
            assert all(isinstance(option, str) for option in options)
            self._options = options

        def get_function(self, name: str) -> Callable[..., None]:
            gpus.reach("compile")
            options, compiled_for = self._options, gpus.device
            function = gpus.library(options)[name]
            tile = int(options[0].removeprefix("-DTILE="))

            def launch(
                grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
            ) -> None:
                gpus.reach("launch")
                device = gpus.device
                assert device == compiled_for, "a kernel of another device"
                assert block == (tile,)
                (groups,) = grid
                assert groups > 0
                _check_arguments(gpus, name, args)
                numbers = [argument.item() for argument in args]
                gpus.launches.append(Launch(name, device, groups, options))
                gpus.stream.enqueue(lambda: function(groups, *numbers))

            return launch

    def asarray(data: NDArray[Any]) -> Array:
        gpus.reach("asarray")
        return gpus.array(data, gpus.device)

    cupy_.RawModule, cupy_.asarray = RawModule, asarray
    modules |= {module.__name__: module for module in (cupy, cuda, compiler)}
    torch, numba = ModuleType("torch"), ModuleType("numba.cuda.cudadrv.driver")
    torch.__dict__.update(Tensor=TorchArray, uint8="uint8")
    numba.__dict__.update(CudaAPIError=CudaAPIError)
    modules |= {module.__name__: module for module in (torch, numba)}


_SIGNATURES = {
    "b3_tiles": (np.uint64, np.uint64, np.uint64, np.uint32, np.uint64, np.uint32),
    "b3_fold": (np.uint64, np.uint64, np.uint64, np.uint32, np.uint64, np.uint32),
    "b3_small": (np.uint64, np.uint64, np.uint64, np.uint32, np.uint64, np.uint32, np.uint32),
    "fma_rate": (np.uint64, np.uint32, np.float32, np.float32),
}
_POINTERS = {"b3_tiles": (1, 4), "b3_fold": (0, 1, 4), "b3_small": (1, 4), "fma_rate": (0,)}


def _check_arguments(gpus: Gpus, name: str, arguments: tuple[Any, ...]) -> None:
    assert tuple(map(type, arguments)) == _SIGNATURES[name]
    for index in _POINTERS[name]:
        gpus.bytes_at(int(arguments[index]), 1, gpus.device)
    if name in ("b3_tiles", "b3_small"):
        data = int(arguments[0])
        if data:  # An empty array has no address.
            # The data may begin up to 15 bytes behind it.
            region = gpus.region(data) or gpus.region(data + 15)
            assert region is not None
            assert region.device == gpus.device


def _installed() -> Gpus:
    gpus: Gpus = sys.modules["cupy"].fake_gpus  # type: ignore[attr-defined]
    return gpus


class Driver:
    """libcuda.so.1, as far as the probe asks it."""

    def __init__(self, status: int = 0, count: int = 1) -> None:
        self._status, self._count = status, count

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self._status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self._count
        return 0


def loader(driver: Driver | None) -> Callable[[str], Any]:
    """`ctypes.CDLL` on a machine with that driver, or with none."""
    load = ctypes.CDLL

    def find(name: str, *arguments: Any) -> Any:
        if name != "libcuda.so.1":
            return load(name, *arguments)
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")
        return driver

    return find


def serve(directory: str) -> Gpus:
    """Give a process of its own one GPU for as long as it lives."""
    gpus = Gpus(Path(directory))
    install(gpus, sys.modules)
    ctypes.CDLL = loader(Driver())  # type: ignore
    from compute_market.hashing import cuda

    cuda.TILES = TILES
    return gpus


@pytest.fixture(scope="session")
def kernel_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels are, for all workers of this run."""
    if reason := without("g++"):
        pytest.skip(reason)
    return shared_directory(tmp_path_factory, "kernels")


@pytest.fixture
def make_gpus(
    kernel_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Gpus]]:
    """Give this process CuPy and GPUs; afterwards their memory must have been given back."""
    made: list[Gpus] = []

    def make(count: int = 1, capability: str = "61") -> Gpus:
        gpus = Gpus(kernel_directory, count, capability)
        modules: dict[str, Any] = {}
        install(gpus, modules)
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(ctypes, "CDLL", loader(Driver(count=count)))
        monkeypatch.setattr("compute_market.hashing.cuda.TILES", TILES)
        made.append(gpus)
        return gpus

    # What is collected afterwards is what the test left, not all that the run has in memory.
    gc.freeze()
    yield make
    gc.collect()
    gc.unfreeze()
    for gpus in made:
        assert not gpus.is_damaged
        assert gpus.complaints == 0
        assert gpus.is_lost or (gpus.pinned_bytes, sum(gpus.device_bytes)) == (0, 0)


@pytest.fixture
def gpus(make_gpus: Callable[..., Gpus]) -> Gpus:
    """One GPU."""
    return make_gpus()


@pytest.fixture
def unchecked_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count launches or bytes: none are for checking the kernels."""
    monkeypatch.setattr("compute_market.hashing.lanes.check_kernels", lambda *form: None)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a few hundred KiB are many segments."""
    for name, value in SMALL.items():
        monkeypatch.setattr(f"compute_market.hashing.pipeline.{name}", value)
    monkeypatch.setattr("compute_market.hashing.cuda.VALUES_BYTES", 4096)


SMALL = {
    "SEGMENT_BYTES": 65_536,
    "SEGMENT_SLICES": 64,
    "STAGING_BYTES": 65_536 + 16_384,
    "TABLE_BYTES": 16_384,
    "FOLD_VALUES": 4,
    "RESIDENT_BYTES": 131_072,
}
