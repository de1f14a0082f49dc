"""GPUs that are not there: their memory, streams, kernels and arrays, and what they fail at.

A device's memory is memory of this process that is nobody else's, poisoned when it is allocated.
The kernels are the real ones, compiled by g++. Copies and kernels wait in their stream until
somebody waits for them, so results that are read too early and buffers that are filled too soon
give wrong digests.
"""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute_market.hashing.forms import Form
from tests.support.gpu import host

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
        self.waits: list[str] = []  # of events, whether blocked or spinning
        self.cupy_calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}  # the last of each
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

    def noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose arguments are remembered whenever it is called as CuPy's `name`."""

        def called(*arguments: Any, **named: Any) -> Any:
            self.cupy_calls[name] = (arguments, named)
            return function(*arguments, **named)

        return called

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
                    form=Form(
                        (0, 0),
                        multiply_add=values.get("MULTIPLY_ADD") == "1",
                        read_ahead=values.get("READ_AHEAD") == "1",
                    ),
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
        return Array(self, region, content.shape, content.dtype.str, strides, 0, handle)


class Array:
    """An array on a device, with the attributes of CuPy's."""

    def __init__(
        self,
        gpus: Gpus,
        region: Region,
        shape: tuple[int, ...],
        typestr: str,
        strides: tuple[int, ...],
        begin: int,
        stream: int | None,
    ) -> None:
        self._gpus = gpus
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
        return Array(self._gpus, self._region, shape, self.dtype.str, strides, begin, self._stream)

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

    def synchronize(self) -> None:
        self.run()

    def enqueue(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._work.append(work)
            self.enqueued += 1

    def run(self, until: int | None = None) -> None:
        with self._lock:
            while self.done < (self.enqueued if until is None else until):
                self._work.popleft()()
                self.done += 1
