"""Digests of many ranges of one buffer: those of the bytes, wherever they are hashed."""

import mmap
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from compute_market.errors import UsageError
from compute_market.hashing import batch
from compute_market.hashing.batch import hash_batch

KIB = 1024
MIB = 1024 * KIB
# A period that fits no block or chunk, so that no two ranges are alike by accident.
DATA = bytes(i * 7 % 251 for i in range(251)) * (20 * MIB // 251 + 1)

BOUNDARIES = [0, 1, 63, 64, 65, 1023, 1024, 1025, 4096, 65_535, 65_536, 65_537]
LONG = [MIB - 1, MIB, MIB + 1, 3 * MIB, 8 * MIB, 16 * MIB + 1]


def expected(ranges: list[tuple[int, int]]) -> bytes:
    return b"".join(blake3(DATA[start : start + length]).digest() for start, length in ranges)


def columns(ranges: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [offset for offset, _ in ranges], [length for _, length in ranges]


CASES = {
    "none": [],
    "one empty": [(0, 0)],
    "one short": [(5, 100)],
    "one of middling length": [(5, 100 * KIB)],
    "one long": [(5, 16 * MIB)],
    "boundary lengths": [(7 * n, length) for n, length in enumerate(BOUNDARIES)],
    "long ones": [(3 * n, length) for n, length in enumerate(LONG)],
    "all lengths": [(n, length) for n, length in enumerate([*LONG, *BOUNDARIES, *LONG])],
    "the end": [(len(DATA), 0), (len(DATA) - 1, 1), (len(DATA) - 2 * MIB, 2 * MIB)],
    "overlapping": [(n * 10_000, 300 * KIB) for n in range(40)],
    "the same again": [(9, 2 * MIB)] * 5 + [(9, 10)] * 5,
    "one much longer": [(0, 70 * KIB), (1, 18 * MIB), (2, 70 * KIB), (3, 70 * KIB)],
    "many short": [(n, 100) for n in range(3000)],
    "backwards": [((40 - n) * 70_000, 70_000 + n) for n in range(40)],
}


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
@pytest.mark.parametrize("case", CASES)
def test_hash_batch_gives_the_digest_of_every_range(case: str, threads: int | None) -> None:
    offsets, lengths = columns(CASES[case])
    assert hash_batch(DATA, offsets, lengths, threads) == expected(CASES[case])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_hash_batch_takes_any_buffer(kind: Callable[[bytes], Any]) -> None:
    buffer = kind(DATA[: 2 * MIB])
    ranges = [(0, 100), (MIB, MIB), (10, 700 * KIB), (2 * MIB, 0)]
    assert hash_batch(buffer, *columns(ranges)) == expected(ranges)


def test_hash_batch_takes_a_mapped_file_and_lets_go_of_it(tmp_path: Path) -> None:
    path = tmp_path / "slices"
    path.write_bytes(DATA[: 3 * MIB])
    ranges = [(1, 2 * MIB), (5, 9), (0, 3 * MIB)]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert hash_batch(mapped, *columns(ranges)) == expected(ranges)
        with pytest.raises(UsageError):
            hash_batch(mapped, [0], [3 * MIB + 1])
    # Closing it would have failed with a view still there.


def test_hash_batch_counts_bytes_whatever_the_items_of_the_buffer() -> None:
    assert (
        hash_batch(array("I", [1, 2, 3]), [4], [8]) == blake3(array("I", [2, 3]).tobytes()).digest()
    )


class Numbers:
    """As much of a numpy array as matters: it has elements that overflow, and `tolist`."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def tolist(self) -> list[int]:
        return self.numbers


@pytest.mark.parametrize("kind", [list, tuple, Numbers, lambda numbers: array("q", numbers)])
def test_hash_batch_takes_any_sequence_of_integers(kind: Callable[[list[int]], Any]) -> None:
    ranges = [(0, 10), (5, MIB), (7, 0)]
    offsets, lengths = columns(ranges)
    assert hash_batch(DATA, kind(offsets), kind(lengths)) == expected(ranges)


@pytest.mark.parametrize(
    ("offsets", "lengths", "message"),
    [
        ([0, 0, 5], [10, 11, 20], "range 1 of 11 bytes from 0 on"),
        ([0, 10], [10, 1], "range 1 of 1 bytes from 10 on"),
        ([11], [0], "range 0 of 0 bytes from 11 on"),
        ([-1], [1], "range 0 of 1 bytes from -1 on"),
        ([5], [-5], "range 0 of -5 bytes from 5 on"),
        ([2**63 - 1], [2**63 - 1], f"range 0 of {2**63 - 1} bytes from {2**63 - 1} on"),
        ([2**64], [1], f"range 0 of 1 bytes from {2**64} on"),
    ],
)
def test_hash_batch_names_the_first_range_that_is_not_in_the_buffer(
    offsets: list[int], lengths: list[int], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        hash_batch(bytes(10), offsets, lengths)
    assert caught.value.message == f"{message} is not within the buffer of 10 bytes"
    assert caught.value.reason == "bad_range"


def test_hash_batch_refuses_unequal_counts_and_no_threads() -> None:
    with pytest.raises(UsageError, match=r"^2 offsets but 1 lengths: each range needs both$"):
        hash_batch(b"abc", [0, 1], [1])
    with pytest.raises(UsageError, match=r"^threads 0: at least 1 is needed$"):
        hash_batch(b"abc", [0], [1], threads=0)
    with pytest.raises(TypeError):
        hash_batch(b"abc", [0.0], [1])  # type: ignore[list-item]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that a test starts."""
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def noted(self: threading.Thread) -> None:
        threads.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return threads


@pytest.mark.parametrize(
    ("case", "count"),
    [
        ("none", 0),
        ("one of middling length", 0),
        ("one long", 0),  # The hasher has its own.
        ("many short", 0),
        ("overlapping", 2),
        ("one much longer", 0),
        ("the same again", 2),
    ],
)
def test_hash_batch_starts_threads_only_where_they_pay(
    case: str, count: int, started: list[threading.Thread]
) -> None:
    hash_batch(DATA, *columns(CASES[case]), threads=3)
    assert len(started) == count
    assert not any(thread.is_alive() for thread in started)


def test_hash_batch_does_without_threads_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ranges = CASES["overlapping"]
    assert hash_batch(DATA, *columns(ranges), threads=4) == expected(ranges)


def test_interrupted_hash_batch_leaves_no_thread_at_work(
    monkeypatch: pytest.MonkeyPatch, started: list[threading.Thread]
) -> None:
    caller = threading.get_ident()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        return blake3(*arguments, **options)

    interrupted.AUTO = blake3.AUTO  # type: ignore[attr-defined]
    monkeypatch.setattr(batch, "blake3", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hash_batch(DATA, *columns(CASES["overlapping"]), threads=2)
    assert len(started) == 1
    assert not started[0].is_alive()


def test_importing_hash_batch_loads_neither_threads_nor_numpy() -> None:
    script = (
        "import sys; from compute_market.hashing.batch import hash_batch;"
        "hash_batch(bytes(3000), [0] * 10, [3000] * 10);"
        "print({'threading', 'numpy', 'concurrent.futures'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
