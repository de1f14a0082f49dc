"""BLAKE3 on the CPU: the right digest of every length, and no digest of anything doubtful."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from compute_market.errors import IntegrityError
from compute_market.hashing.cpu import Advance, hash_bytes, hash_opened, hash_stream
from compute_market.hashing.files import open_slice
from tests.support.threads import begun_threads

FIXED_POINTS = [
    (b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    (
        b"sample transcode data\n",
        "1148b4a1dc7e934c527d66e48242e7edbed960582dbed1b41a7e2cd558e602e9",
    ),
    (
        b"sample inference data\n",
        "1dcbda02d1f14c2b1695b970ecced8cc6ab0f0630786e832d559ee7a9dc6699e",
    ),
]
EXAMPLES = Path(__file__).parents[2] / "examples" / "workloads"
MIB = 1_048_576
# Where BLAKE3 begins another block, chunk or subtree, and where the reader takes another way:
# one read, several, several threads with a buffer each.
LENGTHS = [1, 2, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 4097]
LENGTHS += [5120, 5121, 6144, 7168, 8192, 8193, 16384, 16385, 31744, 32768, 32769, 65537, 102400]
LENGTHS += [MIB - 1, MIB, MIB + 1, 2 * MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1]
LENGTHS += [8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 12 * MIB, 13 * MIB + 5]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], str]:
    def write_file(data: bytes) -> str:
        path = tmp_path / "x.slice"
        path.write_bytes(data)
        return str(path)

    return write_file


@pytest.fixture(autouse=True)
def _no_descriptor_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def hash_file(
    path: str, threads: int | None = None, advance: Advance | None = None
) -> tuple[bytes, int]:
    descriptor, status = open_slice(path)
    try:
        return hash_opened(path, descriptor, status.st_size, threads, advance), status.st_size
    finally:
        os.close(descriptor)


def pattern(length: int) -> bytes:
    """Input of the official test vectors: a count from 0 to 250, over and over."""
    return (bytes(range(251)) * (length // 251 + 1))[:length]


@pytest.mark.parametrize(("data", "digest"), FIXED_POINTS)
def test_hash_gives_the_fixed_points(
    data: bytes, digest: str, write: Callable[[bytes], str]
) -> None:
    assert hash_bytes(data).hex() == digest
    assert hash_file(write(data)) == (bytes.fromhex(digest), len(data))
    assert hash_stream(io.BytesIO(data)) == (bytes.fromhex(digest), len(data))


def test_hash_gives_the_fixed_points_for_the_example_slices() -> None:
    for name, (data, digest) in zip(("transcode", "inference"), FIXED_POINTS[1:], strict=True):
        path = EXAMPLES / f"{name}.slice"
        assert path.read_bytes() == data
        assert hash_file(str(path)) == (bytes.fromhex(digest), len(data))


@pytest.mark.parametrize("length", LENGTHS)
def test_hash_is_the_same_by_every_way(length: int, write: Callable[[bytes], str]) -> None:
    data = pattern(length)
    expected = blake3(data).digest()
    assert hash_bytes(data) == expected
    assert hash_bytes(memoryview(bytearray(data))) == expected
    assert hash_stream(io.BytesIO(data)) == (expected, length)
    path = write(data)
    for threads in (None, 1, 2):
        advanced: list[int] = []
        assert hash_file(path, threads, advanced.append) == (expected, length)
        assert sum(advanced) == length


def test_hash_stream_joins_the_short_reads_of_a_pipe() -> None:
    # 3 MB through a pipe that holds 64 KiB.
    command = [sys.executable, "-c", "import os; [os.write(1, bytes(997)) for _ in range(3009)]"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert hash_stream(process.stdout) == (blake3(bytes(997 * 3009)).digest(), 997 * 3009)


def test_hash_opened_needs_no_more_memory_for_a_longer_file(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from compute_market.hashing.cpu import hash_opened;"
        "from compute_market.hashing.files import open_slice;"
        "descriptor, status = open_slice(sys.argv[1]);"
        "hash_opened(sys.argv[1], descriptor, status.st_size);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks_kib = []
    for length in (16 * MIB, 128 * MIB):
        path = tmp_path / str(length)
        with open(path, "wb") as sparse:
            sparse.truncate(length)
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        )
        peaks_kib.append(int(done.stdout))
    assert peaks_kib[1] - peaks_kib[0] < 8 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that opens and fails to read")
def test_hash_stream_reports_a_read_that_fails() -> None:
    with (
        open("/proc/self/mem", "rb") as stream,
        pytest.raises(IntegrityError, match="standard input: reading failed"),
    ):
        hash_stream(stream)


def test_hash_opened_gives_no_digest_of_a_file_that_announces_another_length() -> None:
    with pytest.raises(IntegrityError, match="changed while it was read"):
        hash_file("/proc/self/status")


@pytest.mark.parametrize(
    ("length", "announced"),
    [(0, 1), (1, 0), (3, 4), (4, 3), (3 * MIB, 5 * MIB), (6 * MIB, 5 * MIB), (9 * MIB, 12 * MIB)],
)
@pytest.mark.parametrize("threads", [None, 1])
def test_hash_opened_gives_no_digest_of_a_file_of_another_length(
    length: int, announced: int, threads: int | None, write: Callable[[bytes], str]
) -> None:
    path = write(bytes(length))
    descriptor, _ = open_slice(path)
    try:
        with pytest.raises(IntegrityError, match="changed while it was read"):
            hash_opened(path, descriptor, announced, threads)
    finally:
        os.close(descriptor)


def test_hash_opened_leaves_no_reader_behind_when_interrupted(
    write: Callable[[bytes], str],
) -> None:
    path = write(bytes(20 * MIB))
    threads = begun_threads()

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hash_file(path, None, interrupt)
    assert threads() == 0
