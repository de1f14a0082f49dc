"""Which part of the data each group of a kernel works on: the tables the kernels read.

A slice, or a part of one, that is longer than a chunk is cut into tiles of equal size; the values
of its tiles are folded to one. Slices of at most one chunk need neither. The tables of one launch
are one run of bytes, which travels to the device together with the data. One run of data needs no
table: where its tiles are, each group works out by itself.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute_market.hashing.cpu import DIGEST_BYTES

CHUNK_BYTES = 1024
TABLE_ALIGN = 16

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


class Run(NamedTuple):
    """One run of data that is cut into tiles without a table."""

    begin: int  # bytes
    length: int  # bytes, at least 1; 0 says that there is a table
    counter: int  # the number of its first chunk in its slice
    whole: bool  # a slice, not a part of one


BY_TABLE = Run(0, 0, 0, False)


class Fold(NamedTuple):
    """One launch of the fold kernel: by the table at `at` (bytes), or over pieces of values."""

    parts: int
    at: int = 0
    values: int = 0
    piece: int = 0  # values; 0 says that there is a table
    whole: bool = False


class Plan(NamedTuple):
    """One launch of the kernels over some data, and where their tables begin (bytes).

    The kernels give a value of 32 bytes for each input: first those that were cut into tiles, then
    the small ones. `order` has the input's number for each value, None if they are in order.
    """

    tile: int  # chunks a tile
    align: int  # 16, 4 or 1: the offsets are multiples of it
    tiles: int
    folds: tuple[Fold, ...]
    small: int
    small_at: int
    table: Bytes
    order: Integers | None = None
    run: Run = BY_TABLE

    @property
    def values(self) -> int:
        """Values the kernels leave."""
        return self.small + (self.folds[-1].parts if self.folds else 0)

    def in_order(self, values: Bytes) -> Bytes:
        """The values as the device left them, a row each, in the order of the inputs."""
        rows = values.reshape(-1, DIGEST_BYTES)
        if self.order is None:
            return rows
        ordered = np.empty_like(rows)
        ordered[self.order] = rows
        return ordered


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
    order = np.concatenate([cut, small]) if len(cut) and len(small) else None
    return Plan(tile, align, tiles, folds, len(small), small_at, table.joined(), order)


_NO_TABLE: Bytes = np.zeros(0, np.uint8)


def plan_part(
    length: int, counter: int, tile: int, piece_bytes: int, *, whole: bool, begin: int = 0
) -> Plan:
    """Hash one run of data, from `begin` on: a slice, or a part of a longer one; at least a byte.

    `counter` is the number of the part's first chunk in its slice. With `whole` the value is the
    digest of a slice, else the chaining value of a subtree, for which every part but the last of a
    slice has to be of the same length, a power of two of chunks. The fold has two steps, the first
    by pieces of `piece_bytes`, a power of two of tiles, so that many groups share the work.
    """
    tile_bytes = tile * CHUNK_BYTES
    tiles, pieces = -(-length // tile_bytes), -(-length // piece_bytes)
    run = Run(begin, length, counter, whole)
    if pieces == 1:
        folds: tuple[Fold, ...] = (_fold_of_all(tiles, whole=whole),)
    else:
        first = Fold(pieces, values=tiles, piece=piece_bytes // tile_bytes)
        folds = (first, _fold_of_all(pieces, whole=whole))
    return Plan(tile, _align(begin), tiles, folds, 0, 0, _NO_TABLE, run=run)


def plan_fold(values: int, tile: int, *, whole: bool) -> Plan:
    """Fold values that lie where tiles leave theirs to one, which is a digest if `whole`."""
    return Plan(tile, 16, 0, (_fold_of_all(values, whole=whole),), 0, 0, _NO_TABLE)


def tile_for(lengths: Integers | int, tiles: tuple[int, int], processors: int) -> int:
    """The smaller or the larger of two tile sizes, whichever keeps the device busier.

    Of one slice the length will do.

    Large tiles need fewer folds. Small ones are better for a batch that has not one large tile for
    each processor, or whose large tiles would be mostly empty.
    """
    small, large = tiles
    tile_bytes = large * CHUNK_BYTES
    if isinstance(lengths, int):
        count, full = -(-lengths // tile_bytes), lengths // tile_bytes
    else:
        count = int((-(-lengths // tile_bytes)).sum())
        full = int(lengths.sum()) // tile_bytes
    return large if count >= processors and full * 2 >= count else small


def aligned(length: int) -> int:
    """The length rounded up to where the next slice or table may begin."""
    return -(-length // TABLE_ALIGN) * TABLE_ALIGN


def _fold_of_all(values: int, *, whole: bool) -> Fold:
    return Fold(1, values=values, piece=values, whole=whole)


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

    def joined(self) -> Bytes:
        return np.concatenate(self._arrays) if self._arrays else np.zeros(0, np.uint8)

    def _append(self, array: Bytes) -> None:
        self._arrays.append(array)
        self._length += len(array)
