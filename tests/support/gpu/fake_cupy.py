"""CuPy over `fake_gpus`: all that `compute_market.hashing.cuda` uses of it.

What a real device would not survive or would do slowly is an AssertionError: memory or a stream of
another device than the current one, copies from memory that is not pinned, arguments of the wrong
type.

A test module asks for the fixtures with `pytest_plugins = ("tests.support.gpu.fake_cupy",)`.
"""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from compute_market.hashing import forms
from compute_market.hashing.kernels.source import source
from tests.support.cli import without
from tests.support.gpu import fake_arrays
from tests.support.gpu.fake_gpus import Array, CUDARuntimeError, Gpus, Launch, Stream
from tests.support.market import shared_directory

TILES = (8, 16)


def small_form(capability: int) -> forms.Form:
    """The form that GPUs of a compute capability get, with tiles that fit small tests."""
    return forms.form_for(capability)._replace(tiles=TILES)


class CompileException(Exception):
    """Not a RuntimeError; its text is the compiler's, of many lines."""


class OutOfMemoryError(MemoryError):
    pass


class DynamicLibNotFoundError(RuntimeError):
    """Of `cuda.pathfinder`, which CuPy asks for NVRTC."""


def install(gpus: Gpus, modules: dict[str, Any]) -> None:
    """Make `import cupy` give these devices, and libcuda.so.1 see them."""
    parts: Any = (ModuleType("cupy"), ModuleType("cupy.cuda"), ModuleType("cupy.cuda.compiler"))
    cupy, cuda, compiler = parts
    cupy.fake_gpus, cupy.cuda = gpus, cuda
    cupy.RawModule = gpus.noted("RawModule", _raw_module(gpus))
    cupy.asarray = gpus.noted("asarray", _asarray(gpus))
    cuda.compiler, cuda.runtime = compiler, _runtime(gpus)
    for name, make in (
        ("Device", _device),
        ("Stream", _new_stream),
        ("Event", _event),
        ("Memory", _memory),
        ("PinnedMemory", _pinned_memory),
    ):
        setattr(cuda, name, gpus.noted(f"cuda.{name}", make(gpus)))
    cuda.PinnedMemoryPointer = _pinned_memory_pointer
    compiler.CompileException = CompileException
    modules |= {module.__name__: module for module in (cupy, cuda, compiler)}
    modules |= fake_arrays.modules()


def _runtime(gpus: Gpus) -> ModuleType:
    """`cupy.cuda.runtime`: counting devices, copying and waiting."""
    runtime = ModuleType("cupy.cuda.runtime")
    runtime.__dict__.update(CUDARuntimeError=CUDARuntimeError)

    def runtime_function(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        setattr(runtime, name, gpus.noted(f"cuda.runtime.{name}", function))
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
    def deviceGetAttribute(attrib: int, device: int) -> int:
        gpus.reach("deviceGetAttribute")
        assert attrib == 16, "not the number of multiprocessors"
        assert 0 <= device < len(gpus.names)
        return gpus.processors

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

    return runtime


def _device(gpus: Gpus) -> type:
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

    return Device


def _new_stream(gpus: Gpus) -> Callable[..., Stream]:
    def new_stream(null: bool = False, non_blocking: bool = False) -> Stream:
        gpus.reach("Stream")
        assert not null
        assert non_blocking, "it would wait for the default stream"
        return Stream(gpus, gpus.device)

    return new_stream


def _event(gpus: Gpus) -> type:
    class Event:
        def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
            gpus.reach("Event")
            self.recorded_s = None if disable_timing else 0.0
            self._spins = not block
            self._device = gpus.device
            self._recorded: tuple[Stream, int] | None = None

        def record(self, stream: Stream) -> None:
            gpus.reach("record")
            assert stream.device == self._device == gpus.device, "a stream of another device"
            self._recorded = (stream, stream.enqueued)
            if self.recorded_s is not None:
                self.recorded_s = time.perf_counter()

        def synchronize(self) -> None:
            gpus.reach("synchronize")
            gpus.waits.append("spinning" if self._spins else "blocked")
            if self._recorded is not None:
                stream, until = self._recorded
                stream.run(until)

    return Event


def _memory(gpus: Gpus) -> type:
    class Memory:
        def __init__(self, size: int) -> None:
            gpus.reach("Memory")
            self._region = gpus.allocate(size, gpus.device)
            self.ptr, self.size = self._region.begin, size

        def __del__(self) -> None:
            if hasattr(self, "_region"):
                gpus.free(self._region)

    return Memory


def _pinned_memory(gpus: Gpus) -> type:
    class PinnedMemory:
        def __init__(self, size: int, flags: int = 0) -> None:
            gpus.reach("PinnedMemory")
            self.region = gpus.allocate(size, None)

        def __del__(self) -> None:
            if hasattr(self, "region"):
                gpus.free(self.region)

    return PinnedMemory


def _pinned_memory_pointer(memory: Any, offset: int) -> Any:
    region = memory.region
    # NumPy takes its buffer, and keeps it while there are arrays over it.
    kind = type("PinnedMemoryPointer", (ctypes.c_uint8 * (len(region.memory) - offset),), {})
    pointer: Any = kind.from_address(region.begin + offset)
    pointer.memory = memory
    return pointer


def _raw_module(gpus: Gpus) -> type:
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
                gpus.cupy_calls[name] = ((grid, block, args), {})
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

    return RawModule


def _asarray(gpus: Gpus) -> Callable[[NDArray[Any]], Array]:
    def asarray(data: NDArray[Any]) -> Array:
        gpus.reach("asarray")
        return gpus.array(data, gpus.device)

    return asarray


_SIGNATURES = {
    "b3_tiles": (
        *(np.uint64, np.uint64, np.uint64, np.uint32),
        *(np.uint64, np.uint64, np.uint64, np.uint32, np.uint64, np.uint32),
    ),
    "b3_fold": (
        *(np.uint64, np.uint64, np.uint64, np.uint32),
        *(np.uint32, np.uint32, np.uint32, np.uint64, np.uint32),
    ),
    "b3_small": (np.uint64, np.uint64, np.uint64, np.uint32, np.uint64, np.uint32, np.uint32),
    "fma_rate": (np.uint64, np.uint32, np.float32, np.float32),
}
_POINTERS = {"b3_tiles": (1, 8), "b3_fold": (0, 1, 7), "b3_small": (1, 4), "fma_rate": (0,)}


def _check_arguments(gpus: Gpus, name: str, arguments: tuple[Any, ...]) -> None:
    assert tuple(map(type, arguments)) == _SIGNATURES[name]
    for index in _POINTERS[name]:
        gpus.bytes_at(int(arguments[index]), 1, gpus.device)
    if name in ("b3_tiles", "b3_small"):
        data = int(arguments[0])
        assert data % 16 == 0, "what is loaded 16 bytes at once is not at a multiple of 16"
        if data:  # An empty array has no address.
            # The data may begin up to 15 bytes behind it.
            region = gpus.region(data) or gpus.region(data + 15)
            assert region is not None
            assert region.device == gpus.device


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

    cuda.form_for = small_form  # type: ignore[attr-defined]
    return gpus


@pytest.fixture(scope="session")
def kernel_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels are, for all workers of this run."""
    if reason := without("g++"):
        pytest.skip(reason)
    # Whoever runs the tests many times with the same kernels names a place for them.
    if kept := os.environ.get("TB_KERNELS"):
        return Path(kept)
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
        monkeypatch.setattr("compute_market.hashing.cuda.form_for", small_form)
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
