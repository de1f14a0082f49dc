"""Which part of the data each group of a kernel works on: the tables the kernels read.

A slice, or a part of one, that is longer than a chunk is cut into tiles of equal size; the values
of its tiles are folded to one. Slices of at most one chunk need neither. The tables of one launch
are one run of bytes, which travels to the device together with the data.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute_market.hashing.cpu import DIGEST_BYTES

CHUNK_BYTES = 1024
TABLE_ALIGN = 16

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


class Fold(NamedTuple):
    """One launch of the fold kernel."""

    parts: int
    at: int  # where its table begins, bytes


class Plan(NamedTuple):
    """One launch of the kernels over some data, and where their tables begin (bytes).

    The kernels give a value of 32 bytes for each input: first those that were cut into tiles, then
    the small ones. `order` has the input's number for each value.
    """

    tile: int  # chunks a tile
    align: int  # 16, 4 or 1: the offsets are multiples of it
    tiles: int
    folds: tuple[Fold, ...]
    small: int
    small_at: int
    table: Bytes
    order: Integers

    @property
    def values(self) -> int:
        """Values the kernels leave."""
        return self.small + (self.folds[-1].parts if self.folds else 0)

    def in_order(self, values: Bytes) -> bytes:
        """The values as the device left them, 32 bytes each, in the order of the inputs."""
        rows = values.reshape(-1, DIGEST_BYTES)
        ordered = np.empty_like(rows)
        ordered[self.order] = rows
        return ordered.tobytes()


def plan_slices(offsets: Integers, lengths: Integers, tile: int) -> Plan:
    """Hash whole slices of the data: one digest for each offset and length, both in bytes."""
    is_small = lengths <= CHUNK_BYTES
    cut, small = np.flatnonzero(~is_small), np.flatnonzero(is_small)
    table = _Table()
    tiles, small_at = 0, 0
    folds: tuple[Fold, ...] = ()
    if len(cut):
        ones = np.ones(len(cut), np.int64)
        tiles, fold = table.add_tiles(offsets[cut], lengths[cut], 0 * ones, ones, tile)
        folds = (fold,)
    if len(small):
        small_at = table.add(offsets[small].astype(np.uint64), lengths[small].astype(np.uint32))
    align = _align(int(np.bitwise_or.reduce(offsets)) if len(offsets) else 0)
    order = np.concatenate([cut, small])
    return Plan(tile, align, tiles, folds, len(small), small_at, table.joined(), order)


# Data on a device is mostly hashed again and again at one size. Making a plan takes longer.
@lru_cache(maxsize=16)
def plan_part(
    length: int, counter: int, tile: int, piece_bytes: int, *, whole: bool, begin: int = 0
) -> Plan:
    """Hash one run of data, from `begin` on: a slice, or a part of a longer one; at least a byte.

    `counter` is the number of the part's first chunk in its slice. With `whole` the value is the
    digest of a slice, else the chaining value of a subtree, for which every part but the last of a
    slice has to be of the same length, a power of two of chunks. The fold has two steps, the first
    by pieces of `piece_bytes`, a power of two of tiles, so that many groups share the work.
    """
    starts = np.arange(0, length, piece_bytes, dtype=np.int64)
    lengths = np.minimum(piece_bytes, length - starts)
    single = len(starts) == 1
    wholes = np.full(len(starts), whole and single, np.int64)
    table = _Table()
    counters = counter + starts // CHUNK_BYTES
    tiles, fold = table.add_tiles(begin + starts, lengths, counters, wholes, tile)
    folds = (fold,) if single else (fold, table.add_fold(len(starts), whole=whole))
    return Plan(tile, _align(begin), tiles, folds, 0, 0, table.joined(), np.zeros(1, np.int64))


def plan_fold(values: int, tile: int, *, whole: bool) -> Plan:
    """Fold values that lie where tiles leave theirs to one, which is a digest if `whole`."""
    table = _Table()
    fold = table.add_fold(values, whole=whole)
    return Plan(tile, 16, 0, (fold,), 0, 0, table.joined(), np.zeros(1, np.int64))


def tile_for(lengths: Integers, tiles: tuple[int, int], processors: int) -> int:
    """The smaller or the larger of two tile sizes, whichever keeps the device busier.

    Large tiles need fewer folds. Small ones are better for a batch that has not one large tile for
    each processor, or whose large tiles would be mostly empty.
    """
    small, large = tiles
    count = int((-(-lengths // (large * CHUNK_BYTES))).sum())
    full = int(lengths.sum()) // (large * CHUNK_BYTES)
    return large if count >= processors and full * 2 >= count else small


def aligned(length: int) -> int:
    """The length rounded up to where the next slice or table may begin."""
    return -(-length // TABLE_ALIGN) * TABLE_ALIGN


def _align(offset: int) -> int:
    return 16 if offset % 16 == 0 else 4 if offset % 4 == 0 else 1


class _Table:
    """The tables of one launch as they are put together."""

    def __init__(self) -> None:
        self._arrays: list[Bytes] = []
        self._length = 0

    def add(self, *arrays: NDArray[Any]) -> int:
        """Append a table of arrays, one behind the other; return where it begins."""
        begin = self._length
        for array in arrays:
            self._append(array.view(np.uint8))
        self._append(np.zeros(aligned(self._length) - self._length, np.uint8))
        return begin

    def add_tiles(
        self, offsets: Integers, lengths: Integers, counters: Integers, whole: Integers, tile: int
    ) -> tuple[int, Fold]:
        """Append the table of `b3_tiles`, which comes first, and that of its fold."""
        tile_bytes = tile * CHUNK_BYTES
        each = -(-lengths // tile_bytes)
        first = np.concatenate([[0], np.cumsum(each)])
        part = np.repeat(np.arange(len(each)), each)
        place = np.arange(len(part)) - first[part]
        start = place * tile_bytes
        self.add(
            (offsets[part] + start).astype(np.uint64),
            (counters[part] + place * tile).astype(np.uint64),
            np.minimum(tile_bytes, lengths[part] - start).astype(np.uint32),
            ((each[part] == 1) & (whole[part] == 1)).astype(np.uint32),
        )
        at = self.add(first.astype(np.uint32), whole.astype(np.uint32))
        return len(part), Fold(len(each), at)

    def add_fold(self, values: int, *, whole: bool) -> Fold:
        """Append the table of a fold of all values to one."""
        first = np.array([0, values], np.uint32)
        return Fold(1, self.add(first, np.array([whole], np.uint32)))

    def joined(self) -> Bytes:
        return np.concatenate(self._arrays) if self._arrays else np.zeros(0, np.uint8)

    def _append(self, array: Bytes) -> None:
        self._arrays.append(array)
        self._length += len(array)
