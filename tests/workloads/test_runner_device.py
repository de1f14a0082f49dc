"""The runner with a hasher: the same results wherever a slice is worked and whatever fails."""

import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from compute_market.hashing.calibration import Calibration, CpuRates, DeviceRates
from compute_market.hashing.hasher import Hasher
from compute_market.workloads.places import Limits
from compute_market.workloads.runner import Result, Runner
from tests.support.gpu.fake_gpus import LAUNCH_FAILED, LOST, Gpus
from tests.support.market import expected

pytest_plugins = ("tests.support.gpu.fake_cupy",)

KIB = 1024
LATER_MS = 4_000_000_000_000
# With segments of 64 KiB: together in one, each alone, and in many.
LENGTHS = [0, 1, 1024, 1025, 5000, 20_000, 33_000, 65_536, 65_537, 200_000, 3, 500_000, 0]
# Tasks of the device that are as small as its segments.
SMALL = Limits(device_bytes=65_536, device_slices=64)
CPU = CpuRates(2, 10**9, 10**9, 10**9, 10_000)


def eager(launch_ns: int) -> Calibration:
    """A machine on which every file that is not very short is hashed faster by the device."""
    fast = 10**12
    device = DeviceRates(
        *("cuda", ["Fake GPU 0"], 1, fast, 1, fast, None, *[fast] * 4, launch_ns, 1, 0)
    )
    return Calibration(1, "here", 0, CPU, device)


@pytest.fixture
def small(gpus: Gpus, small_segments: None) -> Gpus:
    """A GPU with small segments; see `SMALL`."""
    return gpus


@pytest.fixture
def slices(tmp_path: Path) -> list[str]:
    rng = random.Random(3)
    paths = []
    for index, length in enumerate(LENGTHS * 2):
        path = tmp_path / f"{index}.slice"
        path.write_bytes(rng.randbytes(length))
        paths.append(str(path))
    return paths


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture(params=["forced", "auto"])
def hasher(request: pytest.FixtureRequest, small: Gpus, warned: list[str]) -> Iterator[Hasher]:
    """One that sends files to the device: all of them, or where it is faster."""
    if request.param == "forced":
        made = Hasher("cuda", warn=warned.append)
    else:
        made = Hasher("auto", calibration=eager(1), warn=warned.append)
    with made:
        yield made


def run(hasher: Hasher, paths: list[str], **arguments: Any) -> list[Result]:
    with Runner(2, hasher=hasher, limits=SMALL) as runner:
        return list(runner.run("transcode", paths, now_ms=LATER_MS, **arguments))


@pytest.mark.parametrize("order", [list, sorted, lambda paths: paths[::-1], lambda paths: []])
def test_run_gives_the_results_of_the_cpu_in_order(
    order: Callable[[list[str]], list[str]],
    hasher: Hasher,
    slices: list[str],
    gpus: Gpus,
    warned: list[str],
) -> None:
    paths = order(slices)
    assert run(hasher, paths) == expected(paths)
    if paths:
        assert gpus.launches
        assert hasher.name == "cuda"
    assert warned == []


@pytest.mark.usefixtures("unchecked_kernels")
def test_run_streams_long_slices_through_the_device(
    hasher: Hasher, slices: list[str], gpus: Gpus
) -> None:
    long = slices[11]
    assert run(hasher, slices[6:7]) == expected(slices[6:7])
    gpus.launches.clear()
    assert run(hasher, [long]) == expected([long])
    assert gpus.kernels["b3_tiles"] == -(-500_000 // 65_536)


def test_run_works_many_short_slices_in_few_launches(
    small: Gpus, tmp_path: Path, warned: list[str]
) -> None:
    paths = []
    for index in range(400):
        path = tmp_path / f"{index}"
        path.write_bytes(f"{index}".encode() * 100)
        paths.append(str(path))
    with Hasher("cuda", warn=warned.append) as hasher:
        small.launches.clear()
        assert run(hasher, paths) == expected(paths)
    assert sum(small.kernels.values()) == -(-400 // SMALL.device_slices)


def test_run_takes_results_from_the_cache(hasher: Hasher, slices: list[str], gpus: Gpus) -> None:
    long = [path for path in slices if os.path.getsize(path) > 32 * KIB]
    with Runner(2, hasher=hasher, limits=SMALL) as runner:
        for _ in range(2):
            assert list(runner.run("transcode", long, now_ms=LATER_MS)) == expected(long)
            launches = len(gpus.launches)
        assert list(runner.run("gpu_hash", long, now_ms=LATER_MS)) == expected(long)
        assert len(gpus.launches) > launches
        again = len(gpus.launches)
        assert list(runner.run("gpu_hash", long, now_ms=LATER_MS)) == expected(long)
        assert len(gpus.launches) == again


def test_run_goes_on_past_paths_that_cannot_be_run(
    hasher: Hasher, slices: list[str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    bad = {1: str(tmp_path / "missing"), 4: str(tmp_path), 9: str(tmp_path / "fifo"), 12: "\ud800"}
    paths = [bad.get(index, path) for index, path in enumerate(slices)]
    results = run(hasher, paths)
    with Runner(2) as runner:
        on_cpu = list(runner.run("transcode", paths, now_ms=LATER_MS))
    assert [result[:3] for result in results] == [result[:3] for result in on_cpu]
    assert [str(result.error) for result in results] == [str(result.error) for result in on_cpu]
    assert [type(result.error) for result in results] == [type(result.error) for result in on_cpu]
    assert all(results[index].error is not None for index in bad)


def changing(path: str, change: Callable[[], None]) -> Iterator[str]:
    """The path; the change happens once the runner has looked at the file."""
    yield path
    change()


def replace(path: str, content: bytes) -> None:
    Path(f"{path}.new").write_bytes(content)
    os.replace(f"{path}.new", path)


@pytest.mark.parametrize("content", [b"short", bytes(40_000), b"x" * 300_000])
def test_run_works_what_a_path_leads_to_by_now(
    content: bytes, hasher: Hasher, slices: list[str]
) -> None:
    path = slices[6]
    assert os.path.getsize(path) == 33_000
    with Runner(2, hasher=hasher, limits=SMALL) as runner:
        found = runner.run(
            "transcode", changing(path, lambda: replace(path, content)), now_ms=LATER_MS
        )
        assert list(found) == [Result(path, blake3(content).digest(), len(content))]
        # What was replaced is not remembered as what it was replaced by.
        assert list(runner.run("transcode", [path], now_ms=LATER_MS)) == expected([path])


def test_run_tells_of_a_file_that_is_gone_by_now(hasher: Hasher, slices: list[str]) -> None:
    path = slices[6]
    with Runner(2, hasher=hasher, limits=SMALL) as runner:
        (result,) = runner.run(
            "transcode", changing(path, lambda: os.unlink(path)), now_ms=LATER_MS
        )
    assert result.error is not None
    assert (result.error.message, result.error.reason) == (f"{path}: no such file", "missing")


@pytest.mark.parametrize("index", [6, 9, 11])
def test_run_gives_no_proof_of_a_file_that_changes_while_it_is_read(
    index: int, hasher: Hasher, slices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slices[index]
    inode = os.stat(path).st_ino

    def meddle(descriptor: int, buffer: Any, offset: int) -> int:
        count = os.preadv(descriptor, [buffer], offset)
        if os.fstat(descriptor).st_ino == inode:
            with open(path, "r+b") as file:
                file.write(b"other")
            os.utime(path, ns=(0, 0))
        return count

    monkeypatch.setattr("compute_market.workloads.tasks.fill_from", meddle)
    monkeypatch.setattr("compute_market.hashing.pipeline.fill_from", meddle)
    first, last = slices[5], slices[4]
    results = run(hasher, [first, path, last])
    assert results[::2] == expected([first, last])
    error = results[1].error
    assert (results[1].digest, results[1].length) == (b"", 0)
    assert error is not None
    assert error.reason == "slice_changed"
    assert hasher.name == "cuda"


@pytest.mark.parametrize("point", ["launch", "synchronize", "memcpyAsync", "*"])
@pytest.mark.parametrize("after", [0, 1, 4, 20])
def test_run_gives_the_same_when_the_device_fails_in_the_middle(
    point: str, after: int, hasher: Hasher, slices: list[str], small: Gpus, warned: list[str]
) -> None:
    reports: list[int] = []
    paths = slices * 3
    assert run(hasher, slices[4:7]) == expected(slices[4:7])
    small.fail(point, LOST if point == "*" else LAUNCH_FAILED, after)
    assert run(hasher, paths, progress=reports.append) == expected(paths)
    assert hasher.name == "cpu"
    (text,) = warned
    assert text.endswith("; hashing goes on on the CPU")
    assert reports == sorted(reports)
    assert reports[-1] == sum(LENGTHS) * 6
    # And goes on without it.
    calls = small.calls.total()
    assert run(hasher, slices) == expected(slices)
    assert (small.calls.total(), len(warned)) == (calls, 1)


def test_run_reports_every_byte(hasher: Hasher, slices: list[str]) -> None:
    thread = threading.get_ident()
    reports: list[int] = []

    def note(bytes_done: int) -> None:
        assert threading.get_ident() == thread
        reports.append(bytes_done)

    assert run(hasher, slices, progress=note) == expected(slices)
    assert reports == sorted(reports)
    assert reports[-1] == sum(LENGTHS) * 2


def test_run_reads_no_further_ahead_than_without_a_device(
    hasher: Hasher, slices: list[str]
) -> None:
    limits = SMALL._replace(ahead_slices=64, pool_slices=4)
    taken = 0

    def paths() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield slices[6]

    with Runner(2, hasher=hasher, limits=limits) as runner:
        results = runner.run("transcode", paths(), now_ms=0)
        for count, _ in enumerate(itertools.islice(results, 150), start=1):
            assert taken - count < 130
        results.close()  # type: ignore[attr-defined]


def test_run_leaves_workloads_of_packages_to_the_cpu(
    hasher: Hasher, slices: list[str], gpus: Gpus, plugin: Any
) -> None:
    gpus.launches.clear()
    with Runner(2, hasher=hasher, limits=SMALL) as runner:
        results = list(runner.run("count", slices, now_ms=LATER_MS))
    assert [result.path for result in results] == slices
    assert gpus.launches == []


FORKS = """
import os, sys, time
from tests.support.gpu import fake_cupy
fake_cupy.serve(sys.argv[1])
from compute_market.hashing.hasher import Hasher
from compute_market.workloads.runner import Runner
from tests.workloads.test_runner_device import eager
directory = sys.argv[2]
short = [f"{directory}/{i}" for i in range(2000)]
forks = 0
fork = os.fork
def counted():
    global forks
    forks += 1
    return fork()
os.fork = counted
for backend in ("cuda", "auto"):
    while len(os.listdir("/proc/self/task")) > 1:
        time.sleep(0.001)  # A thread that was joined may not have left yet.
    with Hasher(backend, calibration=eager(100_000)) as hasher:
        with Runner(3, hasher=hasher, may_fork=True) as runner:
            for paths in (short, [f"{directory}/long"], short):
                results = list(runner.run("transcode", paths, now_ms=4 * 10**12))
                print(backend, hasher.name, forks, {r.error for r in results})
"""


def test_run_never_forks_once_a_device_is_open(tmp_path: Path, kernel_directory: Path) -> None:
    for index in range(2000):
        (tmp_path / str(index)).write_text(str(index))
    (tmp_path / "long").write_bytes(bytes(400_000))
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(kernel_directory), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        # NumPy's threads would be reason enough not to fork.
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        *["cuda cuda 0 {None}"] * 3,
        # Before the device is open there is nothing against it.
        *["auto cpu 3 {None}", "auto cuda 3 {None}", "auto cuda 3 {None}"],
    ]
