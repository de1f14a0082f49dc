"""Slices on workers that do not see the caller's files."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from compute_market.errors import BusyError, IntegrityError, UsageError
from compute_market.workloads.places import SENT_MAX_BYTES, Limits
from compute_market.workloads.runner import Runner
from compute_market.workloads.tasks import Result, run_sent, run_shared
from tests.support.market import expected

MIB = 1_048_576
LATER_MS = 4_000_000_000_000


class Elsewhere(ThreadPoolExecutor):
    """Workers that see files where `sees` is true, and what they were given to do.

    After so many tasks as `lasts`, they fail.
    """

    def __init__(
        self, sees: Callable[[str], bool] = lambda path: False, lasts: int = 1_000_000
    ) -> None:
        super().__init__(2)
        self.sees = sees
        self.lasts = lasts
        self.by_path: list[list[str]] = []
        self.by_bytes: list[list[str]] = []
        self.bytes_under_way = 0  # Those whose results were taken are subtracted by the test.
        self.most_under_way = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        assert not kwargs
        name, slices = args
        if len(self.by_path) + len(self.by_bytes) == self.lasts:
            failed: Future[Any] = Future()
            failed.set_exception(BusyError("gone"))
            return failed
        if fn is run_shared:
            self.by_path.append([entry.path for entry in slices])
            assert all(os.path.isabs(entry.absolute_path) for entry in slices)
            slices = [
                entry if self.sees(entry.path) else entry._replace(absolute_path="/nowhere")
                for entry in slices
            ]
        else:
            assert fn is run_sent
            self.by_bytes.append([path for path, _ in slices])
            self.bytes_under_way += sum(len(content) for _, content in slices)
            self.most_under_way = max(self.most_under_way, self.bytes_under_way)
        return super().submit(fn, name, slices)


def slices_of(directory: Path, *lengths: int) -> list[str]:
    paths = []
    for number, length in enumerate(lengths):
        path = directory / f"{number}.slice"
        with open(path, "wb") as file:
            file.write(f"{number}".encode()[:length])
            file.truncate(length)
        paths.append(str(path))
    return paths


def run(pool: Any, paths: Any, name: str = "transcode", **arguments: Any) -> list[Result]:
    with Runner(executor=pool, **arguments) as running:
        return list(running.run(name, paths, now_ms=LATER_MS))


def test_workers_that_see_the_files_get_paths_only(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, *[100] * 2500, 70 * MIB)
    with Elsewhere(lambda path: True) as pool:
        assert run(pool, paths) == expected(paths)
    assert [len(task) for task in pool.by_path] == [1024, 1024, 453]
    assert pool.by_bytes == []


def test_relative_paths_are_made_absolute_for_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices_of(tmp_path, 100)
    monkeypatch.chdir(tmp_path)
    with Elsewhere(lambda path: True) as pool:
        assert run(pool, ["0.slice"]) == expected(["0.slice"])
    assert (pool.by_path, pool.by_bytes) == ([["0.slice"]], [])


def test_workers_get_the_bytes_of_what_they_do_not_see(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, 0, 1, SENT_MAX_BYTES, SENT_MAX_BYTES + 1, 3000)
    with Elsewhere() as pool:
        assert run(pool, paths) == expected(paths)
    assert [path for task in pool.by_bytes for path in task] == [*paths[:3], paths[4]]


def test_a_few_files_that_workers_do_not_see_are_sent_from_among_the_others(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, *range(100, 120))
    hidden = paths[3:5]
    with Elsewhere(lambda path: path not in hidden) as pool:
        assert run(pool, paths) == expected(paths)
    assert (pool.by_path, pool.by_bytes) == ([paths], [hidden])


def test_paths_are_not_tried_any_more_once_a_worker_did_not_see_one(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, *[100] * 4000)
    with Elsewhere() as pool:
        assert run(pool, paths, limits=Limits(executor_slices=64)) == expected(paths)
    assert len(pool.by_path) < 20
    assert [path for task in pool.by_bytes for path in task] == paths


def test_long_slices_that_no_worker_sees_run_here_without_asking_again(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, *[SENT_MAX_BYTES + 1] * 3)
    with Elsewhere() as pool, Runner(executor=pool) as running:
        results = running.run("transcode", iter(paths), now_ms=0)
        assert list(results) == expected(paths)
    assert pool.by_bytes == []


def test_no_more_bytes_are_under_way_than_memory_is_to_be_had(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, *[4 * MIB] * 100)
    limits = Limits(under_way_bytes=64 * MIB)
    with Elsewhere() as pool, Runner(executor=pool, limits=limits) as running:
        for result in running.run("transcode", paths, now_ms=0):
            assert result.error is None
            pool.bytes_under_way -= result.length
    assert pool.bytes_under_way == 0
    # What may be under way, one parcel more, and what was first tried by path.
    assert 64 * MIB <= pool.most_under_way <= (64 + 16 + 64) * MIB


def test_a_file_lost_on_the_way_says_nothing_about_workers(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, *[100] * 3000)

    def disappearing() -> Iterator[str]:
        yield paths[0]
        os.unlink(paths[0])
        yield from paths[1:]

    with Elsewhere(lambda path: True) as pool:
        first, *others = run(pool, disappearing())
    assert isinstance(first.error, UsageError)
    assert first.error.reason == "missing"
    assert others == expected(paths[1:])
    assert pool.by_bytes == []


def test_no_proof_is_given_of_bytes_that_changed_while_they_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = slices_of(tmp_path, 100, 100, 100)
    read = os.read

    def read_and_meddle(descriptor: int, count: int) -> bytes:
        block = read(descriptor, count)
        if threading.current_thread() is threading.main_thread() and block.startswith(b"1"):
            with open(paths[1], "ab") as file:
                file.write(b"more")
        return block

    with Elsewhere() as pool:
        monkeypatch.setattr(os, "read", read_and_meddle)
        results = run(pool, paths)
    assert [result.error is None for result in results] == [True, False, True]
    assert isinstance(results[1].error, IntegrityError)
    assert (results[1].digest, results[1].error.reason) == (b"", "slice_changed")


def test_workloads_of_packages_take_what_workers_do_not_see(
    tmp_path: Path, plugin: ModuleType
) -> None:
    paths = slices_of(tmp_path, 1, 2, 3)
    with Elsewhere() as pool:
        results = run(pool, paths, "count")
    assert [result.error for result in results] == [None] * 3
    assert [result.digest.strip(b" \0") for result in results] == [b"0", b"1", b"2"]
    assert sorted(plugin.calls) == paths


def test_results_before_a_failure_are_had(tmp_path: Path) -> None:
    paths = slices_of(tmp_path, *[100] * 3000)
    with Elsewhere(lambda path: True, lasts=1) as pool, Runner(executor=pool) as running:
        results = running.run("transcode", paths, now_ms=0)
        assert [next(results) for _ in range(1024)] == expected(paths[:1024])
        with pytest.raises(BusyError, match="gone"):
            next(results)
