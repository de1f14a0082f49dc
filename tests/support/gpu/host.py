"""The kernels compiled by g++ for this machine, where sanitizers can watch them.

`build` and `load` give a library of one variant. `HostDriver` is a driver like those of CUDA and
OpenCL, with this machine as its devices: everything above the kernels runs as it does on a GPU.
"""

import ctypes
import subprocess
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compute_market.hashing.cpu import DIGEST_BYTES
from compute_market.hashing.device import (
    FMA_FACTOR,
    FMA_GROUP,
    FMA_TERM,
    VALUES_BYTES,
    DeviceError,
    Lane,
    Resident,
)
from compute_market.hashing.forms import PORTABLE, Form
from compute_market.hashing.launch import KERNEL_NAMES, Compiled, Kernels
from compute_market.hashing.plan import Bytes, Plan, aligned

HOST = Path(__file__).with_name("host.cpp")
KERNELS = Path(__file__).parents[3] / "compute_market" / "hashing" / "kernels"
# What memory holds before a kernel writes it.
POISON = 0xA5
_TABLE_AT = 16  # not 0: the kernels have to mind where tables begin

_ADDRESS, _U64, _U32, _FLOAT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_float
# The first argument is the number of groups; the others are the kernel's own.
_ARGUMENTS = {
    "b3_tiles": (
        *(_U64, _ADDRESS, _ADDRESS, _U64, _U32),
        *(_U64, _U64, _U64, _U32, _ADDRESS, _U32),
    ),
    "b3_fold": (_U64, _ADDRESS, _ADDRESS, _U64, _U32, _U32, _U32, _U32, _ADDRESS, _U32),
    "b3_small": (_U64, _ADDRESS, _ADDRESS, _U64, _U32, _ADDRESS, _U32, _U32),
    "fma_rate": (_U64, _ADDRESS, _U32, _FLOAT, _FLOAT),
}


def build(
    directory: Path,
    *,
    tile: int = 8,
    align: int = 16,
    form: Form = PORTABLE,
    flags: Sequence[str] = ("-O1", "-DFIBERS"),
    sources: Path = KERNELS,
) -> Path:
    """Compile one variant into `directory`, unless it is there; return the library's path.

    Without -DFIBERS among the flags the work-items are threads, which tools for races want.
    Processes and threads may share the directory. `sources` is where the kernels' files are.
    """
    options = (*form.options(tile, align), f"-I{sources}", *flags)
    library = directory / f"kernels-{zlib.crc32(' '.join(options).encode()):08x}.so"
    if not library.exists():
        unfinished = library.with_suffix(f".{threading.get_native_id()}")
        common = ("-std=c++20", "-fPIC", "-shared", "-pthread", "-g1")
        command = ["g++", *common, *options, str(HOST), "-o", str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        unfinished.rename(library)
    return library


def load(library: Path) -> dict[str, Any]:
    """The kernels by name. Each takes the number of groups, then its own arguments as integers.

    Kernels of one library run one at a time, whatever thread starts them.
    """
    loaded = ctypes.CDLL(str(library))
    kernels = {}
    for name, arguments in _ARGUMENTS.items():
        kernel = getattr(loaded, f"host_{name}")
        kernel.argtypes, kernel.restype = arguments, None
        kernels[name] = kernel
    return kernels


class HostArray(NamedTuple):
    """An array on a pretended device: a part of memory that begins at a multiple of 16."""

    device: int
    memory: Bytes
    begin: int
    length: int


class HostDriver:
    """The driver; see `device.Driver`. Lanes may be told to fail through `failure`."""

    name = "host"

    def __init__(
        self,
        directory: Path,
        *,
        devices: int = 1,
        tiles: tuple[int, int] = (8, 16),
        form: Form = PORTABLE,
        flags: Sequence[str] = ("-O1", "-DFIBERS"),
        sources: Path = KERNELS,
    ) -> None:
        self.devices = [f"host {number}" for number in range(devices)]
        self.tiles = tiles
        self.failure: BaseException | None = None
        self.full: set[int] = set()  # devices with no room for a lane
        self.lanes: list[int] = []  # the device of each lane that was opened
        self._directory = directory
        self._form = form
        self._flags = flags
        self._sources = sources
        self._pinned: list[Bytes] = []
        self._kernels: dict[tuple[int, int], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def open_lane(self, device: int, staging_bytes: int) -> Lane:
        if device in self.full:
            raise DeviceError(f"no room on {device}")
        self.lanes.append(device)
        return HostLane(self, device, staging_bytes)

    def is_pinned(self, data: Bytes) -> bool:
        return any(np.may_share_memory(data, memory) for memory in self._pinned)

    def pinned(self, size: int) -> Bytes:
        self._pinned.append(poisoned(size))
        return self._pinned[-1]

    def to_device(self, data: Bytes) -> HostArray:
        memory = poisoned(len(data))
        memory[:] = data
        return HostArray(0, memory, 0, len(data))

    def resident(self, array: Any) -> Resident | None:
        return Resident(*array) if isinstance(array, HostArray) else None

    def kernels(self, tile: int, align: int) -> dict[str, Any]:
        with self._lock:
            if (tile, align) not in self._kernels:
                library = build(
                    self._directory,
                    tile=tile,
                    align=align,
                    form=self._form,
                    flags=self._flags,
                    sources=self._sources,
                )
                self._kernels[tile, align] = load(library)
            return self._kernels[tile, align]


class HostLane:
    """A lane; see `device.Lane`.

    What a kernel reads and writes lies in memory of exactly that size, for sanitizers to see what
    goes beyond, and is poisoned before it is written.
    """

    processors = 4

    def __init__(self, driver: HostDriver, device: int, staging_bytes: int) -> None:
        self._driver = driver
        self._device = device
        self.tiles = driver.tiles
        self.staging = poisoned(staging_bytes)
        self.compiled = Compiled(self._compile)

    def hash(self, plan: Plan, length: int, source: Bytes | Resident | None = None) -> Bytes:
        kernels = self._kernels(plan)
        data: Bytes
        if isinstance(source, Resident):
            assert source.device == self._device
            data, at = source.memory, 0
        else:
            assert source is None or len(source) == length
            data, at = _copied(self.staging[:length] if source is None else source), aligned(length)
        assert at + len(plan.table) <= len(self.staging)
        assert max(plan.tiles, plan.values) * DIGEST_BYTES <= VALUES_BYTES
        table = _table(plan)
        inputs = (data.ctypes.data, table.ctypes.data)
        values = poisoned(plan.tiles * DIGEST_BYTES)
        if plan.tiles:
            values_at = values.ctypes.data
            kernels.tiles(plan.tiles, *inputs, _TABLE_AT, plan.tiles, *plan.run, values_at, 1)
        result = _folded(kernels, plan, table, values)
        if plan.small:
            groups = -(-plan.small // plan.tile)
            at = _TABLE_AT + plan.small_at
            skipped = plan.values - plan.small
            kernels.small(groups, *inputs, at, plan.small, result.ctypes.data, skipped, 1)
        return result

    def fold(self, plan: Plan, values: Bytes) -> Bytes:
        assert len(values) <= VALUES_BYTES
        return _folded(self._kernels(plan), plan, _table(plan), _copied(values))

    def copy(self, length: int) -> None:
        _copied(self.staging[:length])

    def multiply_add(self, groups: int, trips: int) -> None:
        out = poisoned(4 * groups)
        kernels = self._driver.kernels(FMA_GROUP, 16)
        kernels["fma_rate"](groups, out.ctypes.data, trips, FMA_FACTOR, FMA_TERM)

    def close(self) -> None:
        del self.staging

    def _kernels(self, plan: Plan) -> Kernels:
        if self._driver.failure is not None:
            raise self._driver.failure
        return self.compiled.kernels(plan.tile, plan.align)

    def _compile(self, tile: int, align: int) -> Kernels:
        kernels = self._driver.kernels(tile, align)
        return Kernels(*[kernels[name] for name in KERNEL_NAMES])


def poisoned(size: int) -> Bytes:
    """Memory that begins at a multiple of 16, as a device's does, and holds no zeros."""
    memory = np.full(size, POISON, np.uint8)
    assert memory.ctypes.data % 16 == 0
    return memory


def _copied(data: Bytes) -> Bytes:
    memory = poisoned(len(data))
    memory[:] = data
    return memory


def _table(plan: Plan) -> Bytes:
    table = poisoned(_TABLE_AT + len(plan.table))
    table[_TABLE_AT:] = plan.table
    return table


def _folded(kernels: Kernels, plan: Plan, table: Bytes, values: Bytes) -> Bytes:
    """Run the folds one after another; return memory for all values of the plan, which begins with
    those of the last fold."""
    for number, fold in enumerate(plan.folds):
        is_last = number == len(plan.folds) - 1
        out = poisoned((plan.values if is_last else fold.parts) * DIGEST_BYTES)
        inputs = (values.ctypes.data, table.ctypes.data, _TABLE_AT + fold.at)
        pieces = (fold.values, fold.piece, fold.whole)
        kernels.fold(fold.parts, *inputs, fold.parts, *pieces, out.ctypes.data, 1)
        values = out
    return values if plan.folds else poisoned(plan.values * DIGEST_BYTES)
