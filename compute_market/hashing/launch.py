"""How a plan is run by the kernels, the same with CUDA and OpenCL.

Each driver compiles kernels and starts one in its own way. Which of them run over a plan, in what
order and with what arguments, is told here. What stands for memory on the device, a pointer or a
buffer, is the driver's own and only passed on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from compute_market.hashing.plan import Plan

# In the order of the fields of `Kernels`.
KERNEL_NAMES = ("b3_tiles", "b3_fold", "b3_small")
# The argument `one` of every kernel; see MULTIPLY_ADD in `kernels/blake3.cu`.
_ONE = np.uint32(1)

# Starts a kernel in a number of groups of so many work-items each, with the arguments behind them.
Launch = Callable[..., None]


class Kernels(NamedTuple):
    """The kernels of `kernels/blake3.cu` compiled for one tile size and alignment."""

    tiles: Any
    fold: Any
    small: Any


class Compiled:
    """The kernels of one lane, compiled once for each tile size and alignment that is asked for.

    `check`, once it is set, is called with a tile size and an alignment before those kernels are
    handed out, each time; it raises DeviceError if they must not be used.
    """

    def __init__(self, compiled: Callable[[int, int], Kernels]) -> None:
        self.check: Callable[[int, int], None] | None = None
        self._compile = compiled
        self._kernels: dict[tuple[int, int], Kernels] = {}

    def kernels(self, tile: int, align: int) -> Kernels:
        found = self._kernels.get((tile, align))
        if found is None:
            found = self._kernels[tile, align] = self._compile(tile, align)
        if self.check is not None:
            self.check(tile, align)
        return found


class Memory(NamedTuple):
    """The memory of a lane on its device, as its kernels are given it."""

    tables: Any  # behind the staged data
    values: Any
    out: Any


def run_plan(
    plan: Plan, kernels: Kernels, launch: Launch, memory: Memory, *, data: Any, tables_at: int
) -> Any:
    """Start the kernels of a plan over `data`; return the memory that will hold its values.

    The plan's table begins `tables_at` bytes into `memory.tables`, which may be the data's own.
    """
    inputs = (data, memory.tables)
    if plan.tiles:
        table = (np.uint64(tables_at), np.uint32(plan.tiles))
        begin, length, counter, whole = plan.run
        run = (np.uint64(begin), np.uint64(length), np.uint64(counter), np.uint32(whole))
        launch(kernels.tiles, plan.tiles, plan.tile, *inputs, *table, *run, memory.values, _ONE)
    result = run_folds(plan, kernels, launch, memory, tables_at=tables_at)
    if plan.small:
        table = (np.uint64(tables_at + plan.small_at), np.uint32(plan.small))
        skipped = np.uint32(plan.values - plan.small)
        groups = -(-plan.small // plan.tile)
        launch(kernels.small, groups, plan.tile, *inputs, *table, result, skipped, _ONE)
    return result


def run_folds(
    plan: Plan, kernels: Kernels, launch: Launch, memory: Memory, *, tables_at: int
) -> Any:
    """Start the folds, the first over `memory.values`; return the memory of the last one's values.

    Without folds that is the memory for the values of small slices.
    """
    values, out = memory.values, memory.out
    for fold in plan.folds:
        table = (memory.tables, np.uint64(tables_at + fold.at), np.uint32(fold.parts))
        pieces = (np.uint32(fold.values), np.uint32(fold.piece), np.uint32(fold.whole))
        launch(kernels.fold, fold.parts, plan.tile, values, *table, *pieces, out, _ONE)
        values, out = out, values
    return values if plan.folds else out
