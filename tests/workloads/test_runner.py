"""The runner: every path gets its result, in order, from its present content."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from compute_market.errors import IntegrityError, UsageError
from compute_market.workloads.runner import Runner
from compute_market.workloads.tasks import Result
from tests.support.market import expected

KIB = 1024
# Later than the last change of any file here by more than any file system's tick.
LATER_MS = 4_000_000_000_000
# Every place where a slice may be worked, and the lengths where that changes.
LENGTHS = [0, 1, 4096, 32 * KIB, 32 * KIB + 1, 200 * KIB, 900 * KIB, 1, 3000 * KIB, 5, 32769 * KIB]


@pytest.fixture
def slices(tmp_path: Path) -> list[str]:
    """One file of each length, over and over, each with content of its own."""
    paths = []
    for index, length in enumerate(LENGTHS * 2):
        path = tmp_path / f"{index}.slice"
        path.write_bytes((f"{index} ".encode() * (length // 2 + 1))[:length])
        paths.append(str(path))
    return paths


def run(paths: list[str], name: str = "transcode", **arguments: bool) -> list[Result]:
    with Runner(2, **arguments) as runner:
        return list(runner.run(name, paths, now_ms=LATER_MS))


@pytest.mark.parametrize("name", ["transcode", "inference", "gpu_hash"])
def test_run_gives_the_blake3_digest_of_every_slice_in_order(name: str, slices: list[str]) -> None:
    assert run(slices, name) == expected(slices)


@pytest.mark.parametrize("order", [sorted, lambda paths: paths[::-1], lambda paths: paths[5:6]])
@pytest.mark.parametrize("now_ms", [0, LATER_MS])
def test_run_gives_the_same_whatever_the_order_and_the_hour(
    order: Callable[[list[str]], list[str]], now_ms: int, slices: list[str]
) -> None:
    paths = order(slices)
    with Runner() as runner:
        for _ in range(2):
            assert list(runner.run("transcode", paths, now_ms=now_ms)) == expected(paths)


def test_run_gives_the_same_on_an_executor_of_the_callers(slices: list[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        with Runner(executor=pool) as runner:
            for _ in range(2):
                results = list(runner.run("transcode", iter(slices), now_ms=LATER_MS))
                assert results == expected(slices)
        # The runner has ended and the pool has not.
        assert pool.submit(int, "7").result() == 7


def test_run_brings_results_and_errors_back_from_other_processes(slices: list[str]) -> None:
    gone = slices[7]
    spawned = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with spawned as pool, Runner(executor=pool) as runner:
        results = runner.run("transcode", slices[:5], now_ms=LATER_MS)
        assert next(results) == expected(slices[:1])[0]
        assert [result.path for result in results] == slices[1:5]

        # Found by the runner, lost before the worker came to it.
        results = runner.run("transcode", disappearing(gone), now_ms=LATER_MS)
        (result,) = results
    assert result.error is not None
    assert isinstance(result.error, UsageError)
    assert (result.error.message, result.error.reason) == (f"{gone}: no such file", "missing")


def disappearing(path: str) -> Iterator[str]:
    yield path
    os.unlink(path)


@pytest.mark.parametrize("pooled", [False, True])
def test_run_goes_on_past_paths_that_cannot_be_run(
    pooled: bool, slices: list[str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    bad = {1: str(tmp_path / "missing"), 4: str(tmp_path), 9: str(tmp_path / "fifo"), 10: "\ud800"}
    paths = [bad.get(index, path) for index, path in enumerate(slices)]
    good = [path for path in paths if path not in bad.values()]
    with ThreadPoolExecutor(2) as pool, Runner(executor=pool if pooled else None) as runner:
        results = list(runner.run("transcode", paths, now_ms=LATER_MS))
    assert [result.path for result in results] == paths
    assert [result for result in results if result.error is None] == expected(good)
    for index, path in bad.items():
        path_, digest, length, error = results[index]
        assert (path_, digest, length) == (path, b"", 0)
        assert isinstance(error, UsageError)
        assert error.message.startswith((f"{path}: ", f"{path!r}: "))


def test_run_yields_nothing_for_no_paths() -> None:
    assert run([]) == []


def test_run_keeps_the_order_however_long_a_slice_for_the_pool_has_to_wait(
    slices: list[str],
) -> None:
    short, middle = slices[1], slices[6]
    for gap in (1, 1022, 1023, 1024, 1025, 3000):
        paths = [middle, *[short] * gap, middle, *[short] * gap, middle, middle]
        assert [result.path for result in run(paths)] == paths


@pytest.mark.parametrize("length", [10, 100 * KIB])
@pytest.mark.parametrize("pooled", [False, True])
def test_run_reads_a_million_paths_no_faster_than_results_are_taken(
    length: int, pooled: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.slice"
    path.write_bytes(bytes(length))
    taken = 0

    def paths() -> Iterator[str]:
        nonlocal taken
        while taken < 1_000_000:
            taken += 1
            yield str(path)

    with ThreadPoolExecutor(2) as pool, Runner(executor=pool if pooled else None) as runner:
        results = runner.run("transcode", paths(), now_ms=0)
        assert taken == 0
        for count, result in enumerate(itertools.islice(results, 2500), start=1):
            assert result.length == length
            assert taken - count < (18_000 if pooled else 2000)
        results.close()  # type: ignore[attr-defined]


def test_run_reports_the_bytes_done(slices: list[str]) -> None:
    def run_and_note(runner: Runner) -> list[int]:
        reports: list[int] = []
        thread = threading.get_ident()

        def note(bytes_done: int) -> None:
            assert threading.get_ident() == thread
            reports.append(bytes_done)

        list(runner.run("transcode", slices, now_ms=LATER_MS, progress=note))
        return reports

    total = sum(LENGTHS) * 2
    with Runner(2) as runner:
        # The second time most come from the cache, and count all the same.
        for _ in range(2):
            reports = run_and_note(runner)
            assert reports == sorted(reports)
            assert len(reports) > 5
            assert reports[-1] == total


def test_run_reports_bytes_from_within_a_long_slice(tmp_path: Path) -> None:
    path = tmp_path / "long.slice"
    with open(path, "wb") as sparse:
        sparse.truncate(36_000 * KIB)
    reports: list[int] = []
    with Runner() as runner:
        list(runner.run("transcode", [str(path)], now_ms=0, progress=reports.append))
    steps = [4096 * KIB * block for block in range(1, 9)]
    assert reports == [*steps, 36_000 * KIB, 36_000 * KIB]


def test_runner_refuses_to_do_without_workers() -> None:
    with pytest.raises(UsageError, match="workers 0: at least 1"):
        Runner(0)


# What follows runs workloads of the package of the `plugin` fixture.


def test_run_takes_workloads_of_packages(plugin: ModuleType, slices: list[str]) -> None:
    results = run(slices, "count")
    assert [(result.path, result.error) for result in results] == [(path, None) for path in slices]
    assert results[1].digest == b"1".rjust(32)
    assert sorted(plugin.calls) == sorted(slices)


def test_run_refuses_an_unknown_name_before_it_is_iterated() -> None:
    with Runner() as runner, pytest.raises(UsageError, match="gpu_hash, inference, transcode"):
        runner.run("", [], now_ms=0)


@pytest.mark.parametrize(
    ("name", "reason"), [("short_proof", "broken_workload"), ("meddle", "slice_changed")]
)
def test_run_gives_no_proof_that_a_workload_got_wrong(
    name: str, reason: str, plugin: ModuleType, slices: list[str]
) -> None:
    result = run(slices[:1], name)[0]
    assert isinstance(result.error, IntegrityError)
    assert (result.digest, result.error.reason) == (b"", reason)


def test_run_works_slices_of_a_package_at_the_same_time(
    plugin: ModuleType, slices: list[str]
) -> None:
    # Each waits for another.
    assert [result.error for result in run(slices[:4], "meet")] == [None] * 4


def test_run_reports_after_every_slice_of_a_package_s_workload(
    plugin: ModuleType, slices: list[str]
) -> None:
    reports: list[int] = []
    with Runner(2) as runner:
        results = runner.run("zeros", slices, now_ms=LATER_MS, progress=reports.append)
        for count, _ in enumerate(results, start=1):
            assert len(reports) >= count
    assert reports == sorted(reports)
    assert reports[-1] == sum(LENGTHS) * 2


def test_run_takes_what_has_not_changed_from_the_cache(plugin: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.slice"
    path.write_bytes(b"old")
    with Runner() as runner:

        def proof(path: Path, now_ms: int = LATER_MS, name: str = "count") -> bytes:
            (result,) = runner.run(name, [str(path)], now_ms=now_ms)
            return result.digest.strip()

        def runs() -> int:
            count = len(plugin.calls)
            plugin.calls.clear()
            return count

        assert (proof(path), runs()) == (b"old", 1)
        assert (proof(path), runs()) == (b"old", 0)
        # The same file under another name is the same slice.
        os.link(path, tmp_path / "link")
        assert (proof(path), runs()) == (b"old", 1)  # A link changes the time of change.
        assert (proof(tmp_path / "link"), runs()) == (b"old", 0)

        # Other content of the same length under the same name, with its time forged back.
        before = path.stat()
        time.sleep(0.02)
        path.write_bytes(b"new")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (proof(path), runs()) == (b"new", 1)
        assert (proof(path), runs()) == (b"new", 0)

        # Another file moved to the same name.
        (tmp_path / "b.slice").write_bytes(b"xyz")
        os.replace(tmp_path / "b.slice", path)
        assert (proof(path), runs()) == (b"xyz", 1)

        # Another workload has another proof.
        assert proof(path, name="zeros") == bytes(32)
        assert (proof(path), runs()) == (b"xyz", 0)


@pytest.mark.parametrize(("age_ms", "cached"), [(0, False), (1999, False), (2001, True)])
def test_run_caches_no_file_that_may_change_again_without_a_new_time_stamp(
    age_ms: int, cached: bool, plugin: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "a.slice"
    path.write_bytes(b"x")
    now_ms = path.stat().st_ctime_ns // 1_000_000 + age_ms
    with Runner() as runner:
        for _ in range(2):
            list(runner.run("count", [str(path)], now_ms=now_ms))
    assert len(plugin.calls) == (1 if cached else 2)


# In processes of their own, which begin with one thread and nothing imported.


def python(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_importing_the_runner_stays_cheap() -> None:
    heavy = "concurrent.futures importlib.metadata pathlib msgspec logging threading lmdb mmap"
    script = "import sys; import compute_market.workloads.runner; print(*sys.modules, sep='\\n')"
    loaded = python(script).split()
    assert "blake3" in loaded
    assert set(heavy.split()).isdisjoint(loaded)


def test_run_starts_no_threads_for_a_single_slice_of_middling_length(tmp_path: Path) -> None:
    path = tmp_path / "a.slice"
    path.write_bytes(bytes(100 * KIB))
    script = (
        "import sys; from compute_market.workloads.runner import Runner;"
        "print(*[r.length for r in Runner().run('transcode', sys.argv[1:], now_ms=0)]);"
        "print('concurrent.futures' in sys.modules)"
    )
    assert python(script, str(path)) == "102400\nFalse\n"
    assert python(script, *[str(path)] * 20) == f"{' '.join(['102400'] * 20)}\nTrue\n"


COUNT_FORKS = """
import os, sys
from compute_market.workloads.runner import Runner
directory = sys.argv[1]
paths = [f"{directory}/{i}" for i in range(1001)]
forks = 0
fork = os.fork
def counted():
    global forks
    forks += 1
    return fork()
os.fork = counted
def show_children():
    try:
        print(forks, "still there", os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print(forks, "and gone")
"""


def test_run_with_forks_gives_the_same(tmp_path: Path) -> None:
    script = """
done = []
for may_fork in (True, False):
    reports = []
    with Runner(3, may_fork=may_fork) as runner:
        results = runner.run("transcode", paths, now_ms=4 * 10**12, progress=reports.append)
        done.append([(r.path, r.digest, r.length, str(r.error)) for r in results])
    show_children()
    print(reports[-1] == sum(r[2] for r in done[0]))
print(done[0] == done[1], len(done[0]), sum(r[3] != "None" for r in done[0]))
"""
    for index in range(1000):
        (tmp_path / str(index)).write_text(str(index) * (20_000 if index % 400 == 399 else 1))
    assert python(COUNT_FORKS + script, str(tmp_path)) == (
        "3 and gone\nTrue\n3 and gone\nTrue\nTrue 1001 1\n"
    )


def test_run_leaves_no_fork_behind_when_it_ends_early(tmp_path: Path) -> None:
    script = """
with Runner(3, may_fork=True) as runner:
    results = runner.run("transcode", paths, now_ms=4 * 10**12)
    for _ in range(500):
        next(results)
    results.close()
    show_children()

    def interrupt(bytes_done):
        raise KeyboardInterrupt

    paths[600] = f"{directory}/long"
    try:
        list(runner.run("transcode", paths, now_ms=4 * 10**12, progress=interrupt))
    except KeyboardInterrupt as error:
        show_children()
"""
    for index in range(1000):
        (tmp_path / str(index)).write_text(str(index))
    with open(tmp_path / "long", "wb") as sparse:
        sparse.truncate(33_000 * KIB)
    assert python(COUNT_FORKS + script, str(tmp_path)) == "3 and gone\n6 and gone\n"
