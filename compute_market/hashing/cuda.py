"""CUDA through CuPy raw kernels.

CuPy is imported when a device is asked for, not with this module: that takes a fifth of a second,
and starting the driver longer. Whatever it raises becomes a DeviceError.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

import numpy as np

from compute_market.hashing.cpu import DIGEST_BYTES
from compute_market.hashing.device import (
    FMA_FACTOR,
    FMA_GROUP,
    FMA_TERM,
    LANES_PER_DEVICE,
    VALUES_BYTES,
    DeviceError,
    DeviceMissing,
    Lane,
    Resident,
    first_line,
    not_contiguous,
)
from compute_market.hashing.forms import Form, form_for
from compute_market.hashing.kernels.source import source
from compute_market.hashing.launch import (
    KERNEL_NAMES,
    Compiled,
    Kernels,
    Memory,
    run_folds,
    run_plan,
)
from compute_market.hashing.pipeline import DeviceBackend
from compute_market.hashing.plan import Bytes, Plan, aligned
from compute_market.hashing.probe import installing

# The attributes of a lane that hold something of its device.
_HELD = ("_memory", "_values", "_out", "_stream", "_done", "_soon", "staging", "_result")
# As the CUDA runtime numbers them.
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_PINNED = 1
_PROCESSORS = 16  # cudaDevAttrMultiProcessorCount
_ON_DEVICE = (2, 3)  # its own memory, and what it shares with the host
_NO_DEVICE = (35, 100)  # no driver that is new enough, no device
_HINT = "nvidia-smi shows whether the driver sees a GPU"
_NO_LIBRARY = "DynamicLibNotFoundError"
_NO_HEADERS = "CUDA headers"


def open_backend(*, lanes: int = LANES_PER_DEVICE, form: Form | None = None) -> DeviceBackend:
    """The backend over all GPUs that the NVIDIA driver shows to this process.

    `form` is that of the kernels, None takes what suits each device. Raises DeviceMissing if CuPy,
    NVRTC, CUDA's headers or a device are not there, DeviceError if it does not work.
    """
    backend = DeviceBackend(Cuda(form), lanes)
    backend.start()
    return backend


class Cuda:
    """The driver."""

    name = "cuda"

    def __init__(self, form: Form | None = None) -> None:
        with _guarded():
            import cupy

            count = cupy.cuda.runtime.getDeviceCount()
            properties = map(cupy.cuda.runtime.getDeviceProperties, range(count))
            self.devices = [found["name"].decode().strip() for found in properties]
        if not self.devices:
            raise DeviceMissing("there is no GPU", _HINT)
        self._form = form

    def open_lane(self, device: int, staging_bytes: int) -> Lane:
        with _guarded():
            return CudaLane(device, staging_bytes, self._form)

    def is_pinned(self, data: Bytes) -> bool:
        with _guarded():
            import cupy

            attributes = cupy.cuda.runtime.pointerGetAttributes(data.ctypes.data)
            return bool(attributes.type == _PINNED)

    def pinned(self, size: int) -> Bytes:
        with _guarded():
            import cupy

            return _pinned(cupy, size)

    def to_device(self, data: Bytes) -> Any:
        with _guarded():
            import cupy

            return cupy.asarray(data)

    def resident(self, array: Any) -> Resident | None:
        """Takes what has a CUDA array interface: arrays of CuPy, PyTorch, Numba and others."""
        interface = getattr(array, "__cuda_array_interface__", None)
        if interface is None:
            return None
        if not is_contiguous(interface):
            raise not_contiguous()
        address, _ = interface["data"]
        length = prod(interface["shape"]) * _item_bytes(interface)
        if length == 0:
            return Resident(0, 0, 0, 0)
        with _guarded():
            import cupy

            attributes = cupy.cuda.runtime.pointerGetAttributes(address)
            if attributes.type not in _ON_DEVICE:
                return None
            device = attributes.device
            # Work that still writes the array is waited for. The numbers of default streams mean
            # those of the current device. An array without a stream may be written on any of them:
            # PyTorch never names one, and Numba does not name the default one.
            stream = interface.get("stream")
            with cupy.cuda.Device(device):
                if stream is None:
                    cupy.cuda.runtime.deviceSynchronize()
                else:
                    cupy.cuda.runtime.streamSynchronize(stream)
        return Resident(device, address, address % 16, length)


class CudaLane:
    """A lane; see `device.Lane`."""

    def __init__(self, device: int, staging_bytes: int, form: Form | None) -> None:
        import cupy

        self._cuda = cupy.cuda
        self._device = cupy.cuda.Device(device)
        self._form = form or form_for(int(self._device.compute_capability))
        # All attributes at once would be a hundred questions, some of which a driver refuses.
        self.processors: int = cupy.cuda.runtime.deviceGetAttribute(_PROCESSORS, device)
        self.tiles = self._form.tiles
        self.compiled = Compiled(self._compile)
        self._fma: Any = None
        try:
            with self._device:
                # Memory before the stream: running out of it is a plain error, while a stream that
                # cannot be made complains on stderr as well.
                self._memory = cupy.cuda.Memory(staging_bytes)
                self._values = cupy.cuda.Memory(VALUES_BYTES)
                self._out = cupy.cuda.Memory(VALUES_BYTES)
                self._stream = cupy.cuda.Stream(non_blocking=True)
                # A host with few cores needs them for reading: waiting must not spin. For what is
                # on the device already there is nothing to read, and waking up takes longer than
                # many a hash.
                self._done = cupy.cuda.Event(block=True, disable_timing=True)
                self._soon = cupy.cuda.Event(block=False, disable_timing=True)
                self.staging = _pinned(cupy, staging_bytes)
                self._result = _pinned(cupy, VALUES_BYTES)
                self.compiled.kernels(self.tiles[0], 16)
        except BaseException:
            with suppress(DeviceError):
                self.close()
            raise

    def hash(self, plan: Plan, length: int, source: Bytes | Resident | None = None) -> Bytes:
        with _guarded(), self._device, self._stream:
            data, at = self._memory.ptr, aligned(length)
            event = self._done
            if isinstance(source, Resident):
                # Offsets in the plan begin at a multiple of 16.
                data, at = source.memory - source.begin, 0
                event = self._soon
            end = at + len(plan.table)
            self.staging[at:end] = plan.table
            if source is None:
                self._upload(self._memory, 0, self.staging[:end])
            else:
                if not isinstance(source, Resident):
                    self._upload(self._memory, 0, source)
                self._upload(self._memory, at, self.staging[at:end])
            kernels = self.compiled.kernels(plan.tile, plan.align)
            pointer = run_plan(
                plan, kernels, _launch, self._pointers(), data=np.uint64(data), tables_at=at
            )
            return self._fetched(pointer, plan.values, event)

    def fold(self, plan: Plan, values: Bytes) -> Bytes:
        with _guarded(), self._device, self._stream:
            # By way of pinned memory: from any other the copy would not be queued in the stream.
            self._result[: len(values)] = values
            self._upload(self._values, 0, self._result[: len(values)])
            kernels = self.compiled.kernels(plan.tile, plan.align)
            pointer = run_folds(plan, kernels, _launch, self._pointers(), tables_at=0)
            return self._fetched(pointer, plan.values, self._done)

    def copy(self, length: int) -> None:
        with _guarded(), self._device, self._stream:
            self._upload(self._memory, 0, self.staging[:length])
            self._wait(self._done)

    def multiply_add(self, groups: int, trips: int) -> None:
        with _guarded(), self._device, self._stream:
            import cupy

            if self._fma is None:
                module = cupy.RawModule(code=source("fma"), options=(f"-DTILE={FMA_GROUP}",))
                self._fma = module.get_function("fma_rate")
            factors = (np.float32(FMA_FACTOR), np.float32(FMA_TERM))
            arguments = (np.uint64(self._out.ptr), np.uint32(trips), *factors)
            _launch(self._fma, groups, FMA_GROUP, *arguments)
            self._wait(self._done)

    def close(self) -> None:
        """Memory is freed with the last reference to it.

        A device that is lost has nothing to free, and CuPy's objects would each complain of that
        on stderr. So they are never let go of.
        """
        held = [self.__dict__.pop(name) for name in _HELD if name in self.__dict__]
        try:
            with _guarded(), self._device:
                self._cuda.runtime.deviceSynchronize()
        except DeviceError:
            for each in held:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
            raise

    def _pointers(self) -> Memory:
        memories = (self._memory, self._values, self._out)
        return Memory(*[np.uint64(memory.ptr) for memory in memories])

    def _upload(self, memory: Any, at: int, data: Bytes) -> None:
        if len(data):
            self._cuda.runtime.memcpyAsync(
                memory.ptr + at, data.ctypes.data, len(data), _HOST_TO_DEVICE, self._stream.ptr
            )

    def _fetched(self, pointer: np.uint64, values: int, event: Any) -> Bytes:
        size = values * DIGEST_BYTES
        self._cuda.runtime.memcpyAsync(
            self._result.ctypes.data, int(pointer), size, _DEVICE_TO_HOST, self._stream.ptr
        )
        self._wait(event)
        return self._result[:size].copy()

    def _wait(self, event: Any) -> None:
        event.record(self._stream)
        event.synchronize()

    def _compile(self, tile: int, align: int) -> Kernels:
        import cupy

        module = cupy.RawModule(code=source("blake3"), options=self._form.options(tile, align))
        return Kernels(*map(module.get_function, KERNEL_NAMES))


def _launch(kernel: Any, groups: int, tile: int, *arguments: Any) -> None:
    kernel((groups,), (tile,), arguments)


def _pinned(cupy: Any, size: int) -> Bytes:
    """Host memory that the device copies from and to by itself."""
    memory = cupy.cuda.PinnedMemoryPointer(cupy.cuda.PinnedMemory(size), 0)
    return np.frombuffer(memory, np.uint8, size)


def is_contiguous(interface: dict[str, Any]) -> bool:
    """Whether an array with this CUDA array interface is contiguous in C order."""
    shape, strides = interface["shape"], interface.get("strides")
    if strides is None or 0 in shape:
        return True
    expected = _item_bytes(interface)
    for count, stride in zip(reversed(shape), reversed(strides), strict=True):
        if count > 1 and stride != expected:
            return False
        expected *= count
    return True


def _item_bytes(interface: dict[str, Any]) -> int:
    return int(interface["typestr"][2:])


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn what CuPy and the driver raise into a DeviceError of one line."""
    try:
        import cupy
        from cupy.cuda.compiler import CompileException
    except (ImportError, OSError, RuntimeError, ValueError, AttributeError) as error:
        # ValueError and AttributeError come of a NumPy that CuPy was not built for.
        hint = installing(_extra())
        if isinstance(error, OSError) and error.filename is not None:
            hint = "set CUPY_CACHE_DIR to a directory that can be written"
        raise DeviceMissing(f"CuPy cannot be imported: {first_line(error)}", hint) from error
    try:
        yield
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status in _NO_DEVICE:
            raise DeviceMissing(first_line(error), _HINT) from error
        raise DeviceError(first_line(error)) from error
    except CompileException as error:
        raise DeviceError(f"the kernels do not compile: {first_line(error)}") from error
    except (OSError, RuntimeError, MemoryError, ImportError) as error:
        lacking = "NVRTC" if type(error).__name__ == _NO_LIBRARY else ""
        # CuPy wants CUDA's headers for anything it compiles, be it without an include.
        if isinstance(error, RuntimeError) and _NO_HEADERS in str(error):
            lacking = "them"
        if lacking:
            hint = f"{installing(_extra())} brings {lacking}"
            raise DeviceMissing(first_line(error), hint) from error
        raise DeviceError(first_line(error)) from error


def _extra() -> str:
    """The extra that goes with the CuPy that is installed: two would lie in one directory."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("cupy-cuda13x")
    except PackageNotFoundError:
        return "gpu"
    return "gpu-cuda13"
