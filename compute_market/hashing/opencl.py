"""OpenCL through pyopencl, for GPUs that CUDA does not serve.

pyopencl is imported when a device is asked for, not with this module.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
from compute_market.hashing.forms import PORTABLE, Form
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

_HINT = "install the OpenCL driver of the GPU; `clinfo -l` lists the devices"


def open_backend(
    *,
    any_device: bool = False,
    lanes: int = LANES_PER_DEVICE,
    form: Form = PORTABLE,
) -> DeviceBackend:
    """The backend over all OpenCL GPUs; with `any_device` over another device if there is none.

    A CPU that poses as an OpenCL device is an order of magnitude slower than the `blake3` package,
    so it is only good for tests. Raises DeviceError if there is no device or it does not work.
    """
    backend = DeviceBackend(OpenCl(form, any_device=any_device), lanes)
    backend.start()
    return backend


class OpenCl:
    """The driver."""

    name = "opencl"

    def __init__(self, form: Form = PORTABLE, *, any_device: bool) -> None:
        import threading

        with _guarded():
            import pyopencl as cl

            found = [device for platform in cl.get_platforms() for device in platform.get_devices()]
            gpus = [device for device in found if device.type & cl.device_type.GPU]
            self._devices = gpus or (found[:1] if any_device else [])
            if not self._devices:
                what = "no OpenCL device is a GPU" if found else "there is no OpenCL device"
                raise DeviceMissing(what, _HINT)
            self.devices = [device.name.strip() for device in self._devices]
            self._contexts = [cl.Context([device]) for device in self._devices]
        self.form = form
        self._programs: dict[tuple[int, str, str], Any] = {}
        self._lock = threading.Lock()

    def open_lane(self, device: int, staging_bytes: int) -> Lane:
        with _guarded():
            return OpenClLane(self, device, staging_bytes)

    def is_pinned(self, data: Bytes) -> bool:
        return False

    def pinned(self, size: int) -> Bytes | None:
        return None

    def to_device(self, data: Bytes) -> Any:
        with _guarded():
            import pyopencl as cl
            from pyopencl.array import to_device

            return to_device(cl.CommandQueue(self._contexts[0]), data)

    def resident(self, array: Any) -> Resident | None:
        """Takes `pyopencl.array.Array` in a context that `context` gave."""
        from pyopencl.array import Array

        if not isinstance(array, Array) or array.context not in self._contexts:
            return None
        if not array.flags.c_contiguous:
            raise not_contiguous()
        with _guarded():
            array.finish()
            device = self._contexts.index(array.context)
            return Resident(device, array.base_data, array.offset, array.nbytes)

    def context(self, device: int) -> Any:
        """The `pyopencl.Context` that memory of a device belongs to."""
        return self._contexts[device]

    def device(self, number: int) -> Any:
        return self._devices[number]

    def program(self, device: int, name: str, options: str) -> Any:
        """A kernel file compiled for a device, once for each set of options."""
        import pyopencl as cl

        key = (device, name, options)
        with self._lock:
            if key not in self._programs:
                program = cl.Program(self._contexts[device], source(name))
                with warnings.catch_warnings():
                    # pyopencl warns of drivers whose compilers say anything at all.
                    warnings.simplefilter("ignore")
                    self._programs[key] = program.build(options=options.split())
            return self._programs[key]


class OpenClLane:
    """A lane; see `device.Lane`."""

    def __init__(self, driver: OpenCl, device: int, staging_bytes: int) -> None:
        import pyopencl as cl

        self._driver = driver
        self._device = device
        context = driver.context(device)
        self._queue = cl.CommandQueue(context)
        info = driver.device(device)
        self.processors: int = info.max_compute_units
        small, large = driver.form.tiles
        if info.max_work_group_size < small:
            raise DeviceError(f"{info.name} runs groups of {info.max_work_group_size} at most")
        # A power of two, like the sizes it is chosen from.
        self.tiles = (small, min(large, 1 << info.max_work_group_size.bit_length() - 1))
        flags = cl.mem_flags
        # Host memory that the driver allocates is memory that the device can copy from by itself.
        self._host = [
            cl.Buffer(context, flags.READ_WRITE | flags.ALLOC_HOST_PTR, size)
            for size in (staging_bytes, VALUES_BYTES)
        ]
        self.staging, self._result = (self._mapped(buffer) for buffer in self._host)
        self._memory, self._values, self._out = (
            cl.Buffer(context, flags.READ_WRITE, size)
            for size in (staging_bytes, VALUES_BYTES, VALUES_BYTES)
        )
        self.compiled = Compiled(self._compile)
        self._fma: Any = None
        self.compiled.kernels(self.tiles[0], 16)

    def hash(self, plan: Plan, length: int, source: Bytes | Resident | None = None) -> Bytes:
        import pyopencl as cl

        with _guarded():
            kernels = self.compiled.kernels(plan.tile, plan.align)
            data, at = self._memory, aligned(length)
            if isinstance(source, Resident):
                data, at = source.memory, 0
            end = at + len(plan.table)
            self.staging[at:end] = plan.table
            copied = None
            if end:
                # When the event of a copy is freed, pyopencl waits for the copy and holds the
                # interpreter lock meanwhile, so it is kept until the work is done.
                copied = cl.enqueue_copy(
                    self._queue, self._memory, self.staging[:end], is_blocking=False
                )
            result = run_plan(plan, kernels, self._launch, self._buffers(), data=data, tables_at=at)
            fetched = self._fetched(result, plan.values)
            del copied
            return fetched

    def fold(self, plan: Plan, values: Bytes) -> Bytes:
        import pyopencl as cl

        with _guarded():
            cl.enqueue_copy(self._queue, self._values, values, is_blocking=True)
            kernels = self.compiled.kernels(plan.tile, plan.align)
            result = run_folds(plan, kernels, self._launch, self._buffers(), tables_at=0)
            return self._fetched(result, plan.values)

    def copy(self, length: int) -> None:
        import pyopencl as cl

        with _guarded():
            cl.enqueue_copy(self._queue, self._memory, self.staging[:length], is_blocking=True)

    def multiply_add(self, groups: int, trips: int) -> None:
        import pyopencl as cl

        with _guarded():
            if self._fma is None:
                program = self._driver.program(self._device, "fma", f"-DTILE={FMA_GROUP}")
                self._fma = cl.Kernel(program, "fma_rate")
            factors = (np.float32(FMA_FACTOR), np.float32(FMA_TERM))
            self._launch(self._fma, groups, FMA_GROUP, self._out, np.uint32(trips), *factors)
            self._queue.finish()

    def close(self) -> None:
        """Buffers are freed when nobody refers to them any more."""
        try:
            with _guarded():
                self._queue.finish()
        finally:
            for buffer in (*self._host, self._memory, self._values, self._out):
                buffer.release()

    def _buffers(self) -> Memory:
        return Memory(self._memory, self._values, self._out)

    def _launch(self, kernel: Any, groups: int, tile: int, *arguments: Any) -> None:
        kernel(self._queue, (groups * tile,), (tile,), *arguments)

    def _fetched(self, buffer: Any, values: int) -> Bytes:
        import pyopencl as cl

        result = self._result[: values * DIGEST_BYTES]
        cl.enqueue_copy(self._queue, result, buffer, is_blocking=True)
        return result.copy()

    def _compile(self, tile: int, align: int) -> Kernels:
        """Kernels of this lane's own: their arguments are set on them before they are started."""
        import pyopencl as cl

        options = " ".join(self._driver.form.options(tile, align))
        program = self._driver.program(self._device, "blake3", options)
        return Kernels(*[cl.Kernel(program, name) for name in KERNEL_NAMES])

    def _mapped(self, buffer: Any) -> Bytes:
        import pyopencl as cl

        flags = cl.map_flags.READ | cl.map_flags.WRITE
        array, _ = cl.enqueue_map_buffer(self._queue, buffer, flags, 0, (buffer.size,), np.uint8)
        mapped: Bytes = array
        return mapped


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn what OpenCL and pyopencl raise into a DeviceError of one line."""
    try:
        import pyopencl as cl
    except (ImportError, OSError) as error:
        what = f"pyopencl cannot be imported: {first_line(error)}"
        raise DeviceMissing(what, installing("opencl")) from error
    try:
        yield
    except cl.LogicError as error:
        if error.code == cl.status_code.PLATFORM_NOT_FOUND_KHR:
            raise DeviceMissing("there is no OpenCL driver", _HINT) from error
        raise DeviceError(first_line(error)) from error
    except (cl.Error, OSError, RuntimeError, MemoryError) as error:
        raise DeviceError(first_line(error)) from error
