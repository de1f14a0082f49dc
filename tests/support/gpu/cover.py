"""Work that reaches every path of the kernels, small enough for tools that run them slowly.

As a program it does the work once, in a process of its own for such a tool to watch:

    python -m tests.support.gpu.cover \\
        '{"backend": "host", "directory": "…", "tile": 8, "align": 16}'
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from compute_market.hashing import opencl
from compute_market.hashing.device import Lane
from compute_market.hashing.forms import Form
from compute_market.hashing.kernels import source
from compute_market.hashing.plan import Bytes, Integers, plan_fold, plan_part, plan_slices
from tests.support.gpu import reference
from tests.support.gpu.host import KERNELS, HostDriver

# Straddles the number whose lower half is 0.
COUNTER = 2**32 - 8


def slices(tile: int, align: int) -> tuple[Bytes, Integers, Integers]:
    """Data, and offsets and lengths of slices in it that need every path of `b3_tiles` and
    `b3_small`: the offsets are multiples of `align` and of nothing more, the last slice ends where
    the data does."""
    small = [0, 1, 64, 100, 1023, 1024, 3, 1000, 65]
    tiles = [1025, 3 * 1024, 5 * 1024 - 1, (tile - 1) * 1024, tile * 1024, tile * 1024 + 1]
    lengths = np.array([*small, *tiles, (2 * tile + 3) * 1024 + 77], np.int64)
    steps = -(-lengths // 16) * 16
    offsets = np.cumsum(steps) - steps + align % 16
    data = np.frombuffer(os.urandom(int(offsets[-1] + lengths[-1])), np.uint8)
    return data, offsets, lengths


def cover(lane: Lane, tile: int, align: int) -> None:
    """Do the work on a lane, and check what comes out."""
    data, offsets, lengths = slices(tile, align)
    plan = plan_slices(offsets, lengths, tile)
    assert plan.align == align
    lane.staging[: len(data)] = data
    found = plan.in_order(lane.hash(plan, len(data))).tobytes()
    for index, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        digest = blake3(data[offset : offset + length].tobytes()).digest()
        assert found[32 * index : 32 * index + 32] == digest, f"wrong digest, length {length}"
    # Few values, then more than a stripe has pairs, an even and an odd number. Not the other way
    # round: after a short write to a buffer, Oclgrind 21.10 forgets that a longer one filled it.
    for count in (1, 2, 3, 4 * tile + 2, 4 * tile + 3):
        values = np.frombuffer(os.urandom(32 * count), np.uint8)
        for whole in (False, True):
            if count > 1 or not whole:
                folded = lane.fold(plan_fold(count, tile, whole=whole), values).tobytes()
                assert folded == _folded(values.tobytes(), whole), f"wrong fold of {count} values"
    # A part of a long slice and a whole one, in two folds, in one and in none.
    for length in (3 * tile * 1024 - 5, tile * 1024, 1000):
        part = data[:length]
        lane.staging[:length] = part
        for counter, root in ((COUNTER, 0), (0, reference.ROOT)):
            plan = plan_part(length, counter, tile, tile * 1024, whole=root > 0)
            value = lane.hash(plan, length).tobytes()
            expected = reference.subtree_value(part.tobytes(), counter, root)
            assert value == expected, f"wrong value of a part, length {length}"


def _folded(values: bytes, whole: bool) -> bytes:
    """Values level by level, as the kernels fold them."""
    level = [values[at : at + 32] for at in range(0, len(values), 32)]
    while len(level) > 1:
        root = reference.ROOT if whole and len(level) == 2 else 0
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[len(level) // 2 * 2 :]
        level = [reference.parent_value(left, right, root) for left, right in pairs] + odd
    return level[0]


def _lane(job: dict[str, Any]) -> Lane:
    tile = job["tile"]
    if job["backend"] == "host":
        driver = HostDriver(
            Path(job["directory"]),
            tiles=(tile, tile),
            form=Form((tile, tile), read_ahead=job.get("read_ahead", False)),
            flags=job["flags"],
            sources=Path(job.get("sources", KERNELS)),
        )
        return driver.open_lane(0, 2**20)
    if "sources" in job:
        source._read = lambda name: (Path(job["sources"]) / name).read_text()
    form = Form((tile, tile), read_ahead=job.get("read_ahead", False))
    return opencl.OpenCl(form, any_device=True).open_lane(0, 2**20)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    cover(_lane(given), given["tile"], given["align"])
    print("covered")
