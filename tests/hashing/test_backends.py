"""Every backend gives the standard digests, of anything and by every way, or an error.

One body for all: the `blake3` package itself, the kernels on this machine through g++ and through
PoCL, and CUDA where there is a GPU.
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from blake3 import blake3

from compute_market.errors import IntegrityError, UsageError
from compute_market.hashing import batch, cpu, cuda, device, opencl, pipeline
from compute_market.hashing.device import DeviceError, DeviceMissing
from compute_market.hashing.pipeline import DeviceBackend
from compute_market.hashing.probe import cuda_missing
from tests.support.cli import missing, without
from tests.support.effort import effort
from tests.support.gpu.host import POISON, HostArray, HostDriver
from tests.support.market import shared_directory

VECTORS = Path(__file__).parents[1] / "support" / "gpu" / "vectors.json"
CUDA_MISSING = cuda_missing()
CUDA = [] if CUDA_MISSING else ["cuda"]
DEVICES = ["host", "opencl", *CUDA]
BACKENDS = ["cpu", *DEVICES]
MIB = 1_048_576

# Where BLAKE3 begins another word, block, chunk or subtree.
LENGTHS = [0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2047, 2048, 2049, 3071]
LENGTHS += [3072, 3073, 4096, 5120, 5121, 6144, 7168, 8191, 8192, 8193, 16384, 31744, 31745]
# Lengths in segments of one slice: their number, and bytes more.
SEGMENTS = [(0, 0), (0, 1), (0, 1023), (0, 1024), (0, 1025), (1, -1), (1, 0), (1, 1), (2, 0)]
SEGMENTS += [(3, 5), (4, 0), (9, 1023), (40, 1025)]


class Cpu:
    """The package itself, with the methods of a device."""

    def __init__(self) -> None:
        self.tiles = (32, 256)
        self.hash_batch = batch.hash_batch

    def hash_opened(self, path: str, descriptor: int, length: int, advance: Any = None) -> bytes:
        return cpu.hash_opened(path, descriptor, length, advance=advance)


class Subject(NamedTuple):
    """A backend under test."""

    name: str
    backend: Any
    tiles: tuple[int, int]

    def hash_batch(self, buffer: Any, offsets: Any, lengths: Any) -> bytes:
        """As the backend does, with all of its memory for values poisoned first."""
        if isinstance(self.backend, DeviceBackend):
            for lane in self.backend._lanes.opened:
                _poison(self.name, lane)
        found: bytes = self.backend.hash_batch(buffer, offsets, lengths)
        return found

    def hash_file(self, path: Path, length: int, advance: Callable[[int], None]) -> bytes:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            found: bytes = self.backend.hash_opened(str(path), descriptor, length, advance)
            return found
        finally:
            os.close(descriptor)


def _poison(name: str, lane: Any) -> None:
    """The lanes of `host` have fresh, poisoned memory each time."""
    if name == "opencl":
        import pyopencl as cl

        for buffer in (lane._values, lane._out):
            cl.enqueue_fill_buffer(lane._queue, buffer, bytes([POISON]), 0, buffer.size).wait()
        lane._result[:] = POISON
    elif name == "cuda":
        import cupy

        for memory in (lane._values, lane._out):
            cupy.cuda.runtime.memset(memory.ptr, POISON, device.VALUES_BYTES)
        lane._result[:] = POISON


@pytest.fixture(scope="module", params=BACKENDS)
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    name: str = request.param
    if name == "cpu":
        yield Subject(name, Cpu(), (32, 256))
        return
    backend = _opened(name, tmp_path_factory)
    # All lanes, so that there is memory to poison.
    with ExitStack() as all_at_once:
        for _ in range(backend.width):
            all_at_once.enter_context(backend._lanes.lane())
    yield Subject(name, backend, backend.first_lane.tiles)
    backend.close()


def _opened(name: str, tmp_path_factory: pytest.TempPathFactory) -> DeviceBackend:
    if name == "host":
        if reason := without("g++"):
            pytest.skip(reason)
        directory = shared_directory(tmp_path_factory, "kernels")
        return DeviceBackend(HostDriver(directory, devices=2), 1)
    try:
        if name == "cuda":
            return cuda.open_backend(lanes=2)
        return opencl.open_backend(any_device=True, lanes=2)
    except DeviceMissing as error:
        pytest.skip(missing({"opencl": "pocl"}.get(name, name), str(error)))
    except DeviceError as error:
        # PoCL's compiler may be older than the CPU.
        if "unknown target CPU" not in str(error.__cause__):
            raise
        pytest.skip("PoCL's compiler does not know this CPU (unknown target CPU)")


@pytest.fixture
def rng() -> random.Random:
    """Fresh random numbers; pytest shows the seed of a test that fails."""
    seed = random.SystemRandom().getrandbits(64)
    print(f"random.Random({seed})")
    return random.Random(seed)


@pytest.fixture
def segment_bytes(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], int]:
    """Make segments of a number of the smaller tiles; returns their length."""

    def change(tiles: int) -> int:
        length = tiles * subject.tiles[0] * 1024
        monkeypatch.setattr(pipeline, "SEGMENT_BYTES", length)
        return length

    return change


@pytest.fixture(params=["small_tiles", "large_tiles"])
def tile(request: pytest.FixtureRequest, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> int:
    """All work is done with one of the two tile sizes, whichever would be faster."""
    size = subject.tiles[request.param == "large_tiles"]
    monkeypatch.setattr(pipeline, "tile_for", lambda lengths, tiles, processors: size)
    return size


def test_cuda_is_among_the_backends() -> None:
    if CUDA_MISSING:
        pytest.skip(missing("cuda", f"nothing is tested on CUDA: {CUDA_MISSING.what}"))


def expected(buffer: bytes, offsets: list[int], lengths: list[int]) -> bytes:
    ranges = zip(offsets, lengths, strict=True)
    return b"".join(blake3(buffer[at : at + length]).digest() for at, length in ranges)


def assert_batch(subject: Subject, buffer: bytes, offsets: list[int], lengths: list[int]) -> None:
    found = subject.hash_batch(buffer, offsets, lengths)
    wanted = expected(buffer, offsets, lengths)
    if found != wanted:
        assert len(found) == len(wanted)
        ranges = list(zip(offsets, lengths, strict=True))
        rows = range(0, len(wanted), 32)
        wrong = [ranges[at // 32] for at in rows if found[at : at + 32] != wanted[at : at + 32]]
        raise AssertionError(f"wrong digests of (offset, length) {wrong[:10]}")


def assert_each_and_all(subject: Subject, data: bytes, lengths: list[int]) -> None:
    """The beginnings of the data of these lengths, first one by one, then together."""
    for length in lengths:
        assert_batch(subject, data, [0], [length])
    assert_batch(subject, data, [0] * len(lengths), lengths)


def in_a_row(lengths: list[int]) -> list[int]:
    """Offsets of slices that lie one behind the other."""
    ends = np.cumsum(lengths)
    return (ends - lengths).tolist() if len(lengths) else []


def test_hash_batch_gives_the_official_vectors(subject: Subject, tile: int) -> None:
    cases = json.loads(VECTORS.read_text())["cases"]
    assert len(cases) == 35
    pattern = bytes(range(251)) * 408
    lengths = [case["input_len"] for case in cases]
    for case in cases:
        digest = subject.hash_batch(pattern, [0], [case["input_len"]])
        assert digest.hex() == case["hash"], case["input_len"]
    found = subject.hash_batch(pattern, [0] * len(lengths), lengths)
    assert found.hex() == "".join(case["hash"] for case in cases)


def test_hash_batch_gives_the_digests_of_boundary_lengths(
    subject: Subject, tile: int, rng: random.Random
) -> None:
    tiles = [
        tile * 1024 * count + more
        for count in (1, 2, 3, 5, 7)
        for more in (-1024, -1023, -1, 0, 1, 1023, 1024)
    ]
    data = rng.randbytes(max(tiles))
    assert_each_and_all(subject, data, LENGTHS + tiles)


def test_hash_batch_gives_the_digest_of_every_number_of_chunks(
    subject: Subject, tile: int, rng: random.Random
) -> None:
    data = rng.randbytes(70 * 1024)
    for rest in (1024, rng.randrange(1, 1024)):
        lengths = [chunks * 1024 + rest for chunks in range(70)]
        assert_each_and_all(subject, data, lengths)


def test_hash_batch_gives_the_digests_of_random_lengths(
    subject: Subject, rng: random.Random
) -> None:
    data = rng.randbytes(MIB)
    for _ in range(effort(8, 300)):
        # As many below as above a kilobyte.
        length = int(2 ** rng.uniform(0, 20))
        assert_batch(subject, data, [rng.randint(0, MIB - length)], [length])


def test_hash_batch_gives_the_digests_of_batches(subject: Subject, rng: random.Random) -> None:
    for count, length_max in ((1, 5000), (2000, 5000), (60, 400_000), (5000, 0)):
        lengths = [rng.randint(0, length_max) for _ in range(count)]
        offsets = in_a_row(lengths)
        data = rng.randbytes(sum(lengths))
        assert_batch(subject, data, offsets, lengths)
        # Another order than that in memory.
        order = rng.sample(range(count), count)
        assert_batch(subject, data, [offsets[i] for i in order], [lengths[i] for i in order])


def test_hash_batch_gives_no_digest_of_an_empty_batch(subject: Subject) -> None:
    assert subject.hash_batch(b"", [], []) == b""
    assert subject.hash_batch(b"abc", [], []) == b""


def test_hash_batch_gives_the_digests_of_empty_slices(subject: Subject) -> None:
    for buffer, offset in ((b"", 0), (b"abc", 0), (b"abc", 3)):
        found = subject.hash_batch(buffer, [offset] * 300, [0] * 300)
        assert found == blake3(b"").digest() * 300


def test_hash_batch_gives_the_digests_of_one_huge_and_many_tiny_slices(
    subject: Subject, rng: random.Random, segment_bytes: Callable[[int], int]
) -> None:
    huge = 5 * segment_bytes(4) + 77
    lengths = [rng.randrange(3000) for _ in range(200)]
    lengths.insert(100, huge)
    data = rng.randbytes(sum(lengths))
    assert_batch(subject, data, in_a_row(lengths), lengths)


def test_hash_batch_gives_the_digests_of_ranges_that_repeat_and_overlap(
    subject: Subject, rng: random.Random, segment_bytes: Callable[[int], int]
) -> None:
    data = rng.randbytes(3 * segment_bytes(4))
    lengths = [rng.choice((rng.randrange(2000), rng.randrange(len(data)))) for _ in range(60)]
    offsets = [rng.randrange(len(data) - length) for length in lengths]
    assert_batch(subject, data, offsets * 2, lengths * 2)


def test_hash_batch_gives_the_digests_of_ranges_far_apart(
    subject: Subject, rng: random.Random, segment_bytes: Callable[[int], int]
) -> None:
    segment = segment_bytes(1)
    data = rng.randbytes(40 * segment)
    offsets = [at * segment + rng.randrange(100) for at in range(40)]
    lengths = [rng.randrange(segment // 4) for _ in offsets]
    assert_batch(subject, data, offsets, lengths)


def test_hash_batch_gives_the_digests_at_every_alignment(
    subject: Subject, tile: int, rng: random.Random
) -> None:
    lengths = [5, 64, 65, 1023, 1025, 3000, 2 * 1024, tile * 1024, tile * 1024 + 1, tile * 3000]
    steps = [-(-length // 16) * 16 for length in lengths]
    offsets = np.cumsum([0, *steps[:-1]])
    for begin in range(16):
        # The last slice ends where the buffer does.
        data = rng.randbytes(begin + int(offsets[-1]) + lengths[-1])
        assert_batch(subject, data, (offsets + begin).tolist(), lengths)
        at = len(data) - lengths[5]
        assert_batch(subject, data, [at], [lengths[5]])


def test_hash_batch_takes_any_buffer_and_any_integers(subject: Subject, rng: random.Random) -> None:
    data = rng.randbytes(9000)
    wanted = blake3(data[5:8005]).digest()
    for buffer in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert subject.hash_batch(buffer, [5], [8000]) == wanted
    integers = np.array([5], np.int64), np.array([8000], np.int32)
    assert subject.hash_batch(data, *integers) == wanted


def test_hash_batch_refuses_what_is_not_in_the_buffer(subject: Subject) -> None:
    for offset, length in ((0, 11), (10, 1), (11, 0), (-1, 1), (0, -1), (2**62, 2**62)):
        with pytest.raises(UsageError):
            subject.hash_batch(bytes(10), [0, offset], [1, length])


@pytest.mark.parametrize("tiles", [1, 4])
def test_hash_opened_gives_the_digest_segment_by_segment(
    tiles: int,
    subject: Subject,
    rng: random.Random,
    segment_bytes: Callable[[int], int],
    tmp_path: Path,
) -> None:
    segment = segment_bytes(tiles)
    path = tmp_path / "x.slice"
    for count, more in SEGMENTS:
        data = rng.randbytes(count * segment + more)
        path.write_bytes(data)
        advanced: list[int] = []
        found = subject.hash_file(path, len(data), advanced.append)
        assert found == blake3(data).digest(), len(data)
        assert sum(advanced) == len(data)
        assert_batch(subject, data, [0], [len(data)])
        assert_batch(subject, data, [len(data) // 3], [len(data) // 2])


def test_hash_opened_folds_more_values_than_one_step_takes(
    subject: Subject,
    rng: random.Random,
    segment_bytes: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    segment = segment_bytes(1)
    data = rng.randbytes(37 * segment + 1)
    path = tmp_path / "x.slice"
    path.write_bytes(data)
    for values in (2, 4, 32, 64):
        monkeypatch.setattr(pipeline, "FOLD_VALUES", values)
        found = subject.hash_file(path, len(data), lambda count: None)
        assert found == blake3(data).digest(), values


@pytest.mark.parametrize("announced", [-1, 1, -1024, 1024, -40_000, 40_000])
def test_hash_opened_gives_no_digest_of_a_file_of_another_length(
    announced: int, subject: Subject, segment_bytes: Callable[[int], int], tmp_path: Path
) -> None:
    segment_bytes(1)
    path = tmp_path / "x.slice"
    path.write_bytes(bytes(80_000))
    with pytest.raises(IntegrityError, match="changed while it was read") as error:
        subject.hash_file(path, 80_000 + announced, lambda count: None)
    assert error.value.reason == "slice_changed"


@pytest.mark.parametrize("length", [10, 200_000])
def test_hash_opened_gives_no_digest_of_a_file_that_changes_its_length_meanwhile(
    length: int, subject: Subject, segment_bytes: Callable[[int], int], tmp_path: Path
) -> None:
    # Long enough that there is something left to read when the first segment is done.
    segments = 64 if subject.name != "cpu" else 13 * MIB // segment_bytes(1)
    before = segments * segment_bytes(1)
    after = before + length if length == 10 else before - length
    path = tmp_path / "x.slice"
    path.write_bytes(bytes(before))
    with pytest.raises(IntegrityError, match="changed while it was read"):
        subject.hash_file(path, before, lambda count: os.truncate(path, after))


def test_hash_opened_reports_a_read_that_fails(
    subject: Subject, segment_bytes: Callable[[int], int], tmp_path: Path
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    raised = OSError if subject.name == "cpu" else IntegrityError
    try:
        with pytest.raises(raised, match="Is a directory"):
            subject.backend.hash_opened("x", descriptor, 10 * segment_bytes(1))
    finally:
        os.close(descriptor)


# What only devices do.


devices = pytest.mark.parametrize("subject", DEVICES, indirect=True)


@pytest.fixture
def on_device(subject: Subject) -> DeviceBackend:
    assert isinstance(subject.backend, DeviceBackend)
    return subject.backend


@devices
def test_hash_batch_keeps_to_the_memory_of_a_lane(
    on_device: DeviceBackend,
    subject: Subject,
    rng: random.Random,
    segment_bytes: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segment = segment_bytes(4)
    used: list[tuple[int, int]] = []

    def spied(lane: Any, offsets: Any, lengths: Any, *rest: Any) -> Any:
        used.append((len(lengths), int(lengths.sum())))
        return slices_on(lane, offsets, lengths, *rest)

    slices_on = pipeline._slices_on
    monkeypatch.setattr(pipeline, "_slices_on", spied)
    monkeypatch.setattr(pipeline, "SEGMENT_SLICES", 40)
    data = rng.randbytes(2 * segment)
    tiny = [rng.randrange(16) for _ in range(300)]
    assert_batch(subject, data, [rng.randrange(segment) for _ in tiny], tiny)
    # Many ranges over the same bytes: together they are much longer than those.
    assert_batch(subject, data, [0] * 100, [segment - 1] * 100)
    assert max(count for count, _ in used) == 40
    assert max(length for _, length in used) <= segment


@pytest.mark.parametrize("subject", ["host", *CUDA], indirect=True)
def test_hash_batch_gives_the_digests_of_pinned_memory(
    on_device: DeviceBackend, rng: random.Random, segment_bytes: Callable[[int], int]
) -> None:
    segment = segment_bytes(4)
    memory = on_device.driver.pinned(10 * segment)
    assert memory is not None
    memory[:] = np.frombuffer(rng.randbytes(len(memory)), np.uint8)
    data = memory.tobytes()
    lengths = [1, 1000, segment // 2, 2000, 3 * segment + 1, 0, 3 * segment, 17]
    offsets = in_a_row(lengths)
    assert on_device.hash_batch(memory, offsets, lengths) == expected(data, offsets, lengths)
    assert on_device.hash_batch(memory[4:], [0], [8 * segment]) == expected(
        data, [4], [8 * segment]
    )


@devices
def test_hash_filled_gives_the_digests_of_what_is_put_into_memory(
    on_device: DeviceBackend, rng: random.Random
) -> None:
    slices = [rng.randbytes(length) for length in (0, 1, 17, 1024, 1025, 40_000, 0)]

    def fill(memory: Any, offsets: list[int]) -> None:
        memory[:] = POISON
        for offset, content in zip(offsets, slices, strict=True):
            memory[offset : offset + len(content)] = np.frombuffer(content, np.uint8)

    found = on_device.hash_filled([len(content) for content in slices], fill)
    assert found == b"".join(blake3(content).digest() for content in slices)
    assert on_device.hash_filled([], lambda memory, offsets: None) == b""


@devices
def test_hash_array_gives_the_digest_of_what_is_on_the_device(
    on_device: DeviceBackend, tile: int, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pieces of the first fold are as many tiles as a tile has chunks.
    piece = tile * tile * 1024
    for length in (0, 1, 1024, 1025, tile * 1024, 2 * piece + 1025, piece, piece + 1):
        data = rng.randbytes(length)
        array = on_device.driver.to_device(np.frombuffer(data, np.uint8))
        assert on_device.hash_array(array) == blake3(data).digest(), length
    # More launches than one.
    monkeypatch.setattr(pipeline, "RESIDENT_BYTES", piece // 4)
    assert on_device.hash_array(array) == blake3(data).digest()
    assert on_device.hash_array(np.zeros(1)) is None


@devices
def test_hash_array_gives_the_digest_of_a_part_of_an_array(
    on_device: DeviceBackend, subject: Subject, rng: random.Random
) -> None:
    data = rng.randbytes(50_000)
    array = on_device.driver.to_device(np.frombuffer(data, np.uint8))
    for begin in (0, 1, 2, 4, 15, 16, 1023):
        for length in (1000, 1024, 40_001):
            if subject.name == "host":
                part = HostArray(begin % 2, array.memory, begin, length)
            else:
                part = array[begin : begin + length]
            wanted = blake3(data[begin : begin + length]).digest()
            assert on_device.hash_array(part) == wanted, (begin, length)


@pytest.mark.parametrize("subject", ["opencl", *CUDA], indirect=True)
def test_hash_array_refuses_what_is_not_contiguous(
    on_device: DeviceBackend,
) -> None:
    array = on_device.driver.to_device(np.zeros((40, 40), np.uint8))
    for part in (array.T, array[::2], array[:, :20]):
        with pytest.raises(UsageError, match="not contiguous in C order"):
            on_device.hash_array(part)
    assert on_device.hash_array(array[3:]) == blake3(bytes(37 * 40)).digest()


@devices
def test_hash_batch_serves_several_threads(
    on_device: DeviceBackend, rng: random.Random, segment_bytes: Callable[[int], int]
) -> None:
    segment_bytes(1)
    batches = [[rng.randbytes(rng.randrange(30_000)) for _ in range(9)] for _ in range(8)]

    def digests(slices: list[bytes]) -> bytes:
        lengths = [len(content) for content in slices]
        return on_device.hash_batch(b"".join(slices), in_a_row(lengths), lengths)

    with ThreadPoolExecutor(4) as pool:
        for slices, found in zip(batches, pool.map(digests, batches), strict=True):
            assert found == b"".join(blake3(content).digest() for content in slices)


@devices
def test_a_lane_rates_its_device(on_device: DeviceBackend) -> None:
    on_device.first_lane.multiply_add(2, 3)
    on_device.first_lane.copy(1000)
