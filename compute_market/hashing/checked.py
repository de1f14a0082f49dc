"""Kernels are tried on slices whose digests are known before anything is believed of them.

A compiler may get one form of a kernel wrong and the others right, so each form is tried, on each
device, before it is first used.
"""

import numpy as np
from blake3 import blake3

from compute_market.hashing.cpu import DIGEST_BYTES
from compute_market.hashing.device import DeviceError, Lane
from compute_market.hashing.plan import CHUNK_BYTES, plan_fold, plan_part, plan_slices

# The staging memory that `check_kernels` needs for tiles of up to 256 chunks.
CHECK_BYTES = 4_194_304


def check_kernels(lane: Lane, tile: int, align: int) -> None:
    """Hash slices of every kind with tiles of that size at offsets of that alignment.

    Slices of up to one chunk, one tile and several, and one in two parts with a two-step fold; each
    begins at no better an alignment. Raises DeviceError if a digest is wrong.
    """
    tile_bytes = tile * CHUNK_BYTES
    lengths = np.array([0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, tile_bytes, 3 * tile_bytes + 77])
    sizes = -(-lengths // 16) * 16
    offsets = np.cumsum(sizes) - sizes + align % 16
    used = int(offsets[-1] + lengths[-1])
    data = blake3(b"check of the kernels").digest(length=used)
    memory = np.frombuffer(data, np.uint8)
    lane.staging[:used] = memory
    plan = plan_slices(offsets, lengths, tile)
    found = plan.in_order(lane.hash(plan, used)).tobytes()

    begin, length = int(offsets[-1]), int(lengths[-1])
    first = 2 * tile_bytes
    parts = []
    for start, count in ((0, first), (first, length - first)):
        lane.staging[:used] = memory
        part = plan_part(
            count, start // CHUNK_BYTES, tile, tile_bytes, whole=False, begin=begin + start
        )
        parts.append(lane.hash(part, used).reshape(-1))
    assert parts[0].size == DIGEST_BYTES
    found += lane.fold(plan_fold(2, tile, whole=True), np.concatenate(parts)).tobytes()

    slices = [
        data[offset : offset + length]
        for offset, length in zip(offsets.tolist(), lengths.tolist(), strict=True)
    ]
    if found != b"".join(blake3(content).digest() for content in [*slices, slices[-1]]):
        raise DeviceError(f"wrong digests by kernels with tiles of {tile} and alignment {align}")
