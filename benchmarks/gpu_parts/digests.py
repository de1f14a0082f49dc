"""Digests by every form and every way, compared with the CPU."""

import os
import tempfile
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any

from blake3 import blake3

from gpu_parts.bench import GIB, KIB, Bench, as_array, random_bytes
from gpu_parts.record import Record

REFERENCE = Path(__file__).resolve().parents[2] / "tests" / "support" / "gpu" / "reference.py"
# Chunks counted in more than 32 bits: the second straddles the number whose lower half is 0.
COUNTERS = (2**22, 2**32 - 8, 2**32, 2**40, 2**54)


def run(bench: Bench, record: Record) -> None:
    bench.require()
    with closing(bench.open()) as backend:
        chosen = bench.chosen(backend)
        record.put("device", " + ".join(backend.devices))
        compare(backend, (64 if bench.quick else 8 * 1024) * KIB)
        ways(bench, backend)
        counters(backend)
        record.put("right by every way", str(chosen))
        if bench.is_cuda:
            record.put("right in arrays of", others(bench))
        if not bench.quick:
            beyond_4_gib(bench, backend)
            record.put("right beyond 4 GiB", True)
    right = []
    for name, form in bench.forms(chosen).items():
        with closing(bench.open(form, lanes=1)) as backend:
            compare(backend, (16 if bench.quick else 1024) * KIB)
        right.append(name)
        record.put("right forms", right)


def expect(digests: bytes, slices: list[Any], way: str) -> None:
    for number, content in enumerate(slices):
        if digests[32 * number : 32 * number + 32] != blake3(content).digest():
            raise AssertionError(f"WRONG DIGEST of {len(content)} bytes, {way}")


def compare(backend: Any, most: int) -> None:
    """Slices around every boundary, at every alignment, together; and arrays on the device."""
    seed = os.urandom(8).hex()
    print(f"seed {seed}", flush=True)
    tile = backend.first_lane.tiles[1] * KIB
    lengths = [0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2047, 2048, 2049]
    lengths += [3071, 3072, 3073, 5120, 5121, 8191, 8192, 8193, 16384, 31744, 31745]
    lengths += [KIB * chunks for chunks in range(1, 71)]
    lengths += [
        tile * count + d for count in (1, 2, 3, 5, 7) for d in (-1024, -1, 0, 1, 1023, 1024)
    ]
    lengths = [length for length in lengths if length <= most]
    data = blake3(seed.encode()).digest(length=sum(lengths) + 16 * len(lengths) + 16)
    for misplaced in (0, 16, 4, 1, 7):
        begin, offsets = misplaced, []
        for length in lengths:
            offsets.append(begin)
            # With 16 every slice begins at such a multiple.
            begin += -(-length // 16) * 16 if misplaced in (0, 16) else length
        ranges = [data[at : at + length] for at, length in zip(offsets, lengths, strict=True)]
        expect(backend.hash_batch(data, offsets, lengths), ranges, f"misplaced by {misplaced}")
    for length in (1, 1024, 1025, most):
        content = random_bytes(length)
        array = backend.driver.to_device(as_array(content))
        expect(backend.hash_array(array), [content], "on the device")


def ways(bench: Bench, backend: Any) -> None:
    """Arrays at every alignment, pinned memory, files, and memory that is filled."""
    content = random_bytes(400 * KIB + 77)
    array = backend.driver.to_device(as_array(content))
    for begin in (0, 1, 2, 3, 4, 8, 15, 16, 1023):
        for length in (5, 1024, 1025, len(content) - begin):
            part = content[begin : begin + length]
            found = backend.hash_array(array[begin : begin + length])
            expect(found, [part], f"on the device, from byte {begin} on")
    if (pinned := backend.driver.pinned(len(content))) is not None:
        pinned[:] = as_array(content)
        for begin in (0, 5):
            found = backend.hash_batch(pinned, [begin], [len(content) - begin])
            expect(found, [content[begin:]], "pinned")
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        found = backend.hash_opened("content", file.fileno(), len(content))
        expect(found, [content], "file")
    slices = [content[:length] for length in (0, 1, 1000, 1025, 30_000)]

    def fill(memory: Any, offsets: list[int]) -> None:
        for offset, each in zip(offsets, slices, strict=True):
            memory[offset : offset + len(each)] = as_array(each)

    expect(backend.hash_filled(list(map(len, slices)), fill), slices, "filled")


def counters(backend: Any) -> None:
    """Parts that begin at chunks beyond 2³², against BLAKE3 in plain Python."""
    from compute_market.hashing.plan import plan_part

    # By its path: the package of the tests imports what only they need.
    subtree_value = run_path(str(REFERENCE))["subtree_value"]
    lane = backend.first_lane
    content = random_bytes(19 * KIB + 5)
    lane.staging[: len(content)] = as_array(content)
    for counter in COUNTERS:
        tile = lane.tiles[0]
        plan = plan_part(len(content), counter, tile, tile * KIB * 32, whole=False)
        if lane.hash(plan, len(content)).tobytes() != subtree_value(content, counter):
            raise AssertionError(f"WRONG VALUE of a part from chunk {counter} on")


def others(bench: Bench) -> list[str]:
    """The libraries whose arrays were hashed, of those that are installed."""
    from compute_market.hashing.hasher import Hasher

    content = random_bytes(2**21 + 5)
    made: dict[str, Any] = {}
    if find_spec("torch"):
        import torch

        made["torch"] = torch.frombuffer(bytearray(content), dtype=torch.uint8).cuda()
    if find_spec("numba"):
        from numba import cuda

        made["numba"] = cuda.to_device(as_array(content))
    with Hasher("cuda") as hasher:
        for name, array in made.items():
            expect(hasher.hash_array(array), [content], f"array of {name}")
    return list(made)


def beyond_4_gib(bench: Bench, backend: Any) -> None:
    long = random_bytes(4 * GIB + 5000)
    for begin, length in ((0, len(long)), (4 * GIB + 1, 4000), (GIB, 3 * GIB + 77)):
        content = memoryview(long)[begin:][:length]
        expect_long(backend.hash_batch(long, [begin], [length]), content)
    expect_long(backend.hash_array(backend.driver.to_device(as_array(long))), long)


def expect_long(digest: bytes, content: Any) -> None:
    if digest != blake3(content, max_threads=blake3.AUTO).digest():
        raise AssertionError(f"WRONG DIGEST of {len(content)} bytes")
