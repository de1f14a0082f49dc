"""Measuring a machine: plausible whole numbers, in bounded time, by any stopwatch."""

import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from compute_market.hashing import cuda
from compute_market.hashing import measure as measure_module
from compute_market.hashing.calibration import Calibration, decode, encode, machine
from compute_market.hashing.device import DeviceError
from compute_market.hashing.measure import Stopwatch, measure
from tests.support.gpu.fake_gpus import LAUNCH_FAILED, LOST, OUT_OF_MEMORY, Gpus

pytest_plugins = ("tests.support.gpu.fake_cupy",)

NOW = 1_800_000_000


def steady(step_ns: int) -> Stopwatch:
    """One that shows so much more each time it is looked at."""
    return itertools.count(0, step_ns).__next__


def erratic() -> Stopwatch:
    rng = random.Random(4)
    now_ns = 0

    def look() -> int:
        nonlocal now_ns
        now_ns += rng.choice([0, 1, 10, 10**6, 10**9])
        return now_ns

    return look


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small part of the data, and a rating that is over soon."""
    mib = 32_768
    for name, value in {
        "MIB": mib,
        "_LONG_BYTES": 36 * mib,
        "_RESIDENT_BYTES": 36 * mib,
        "_SLICES": 500,
        "_RUNS_MAX": 2,
        "_BUDGET_NS": 5_000_000,
        "_FMA_TRIPS_MAX": 8,
        "_GROUPS_PER_PROCESSOR": 1,
    }.items():
        monkeypatch.setattr(measure_module, name, value)


def check(found: Calibration) -> None:
    """Whole numbers that a file can hold: rates of at least 1, times of at least 0."""
    assert (found.machine, found.measured_at) == (machine(), NOW)
    assert decode(encode(found), "file", machine()) == found
    for part in (found.cpu, found.device):
        for name in part.__struct_fields__ if part is not None else ():
            value = getattr(part, name)
            if name not in ("backend", "devices"):
                assert type(value) is int
                assert value >= (0 if name.endswith("_ns") else 1)


STOPWATCHES: list[Callable[[], Stopwatch]] = [
    lambda: time.perf_counter_ns,
    lambda: steady(0),
    lambda: steady(1),
    lambda: steady(1_000_000),
    lambda: steady(10**10),
    erratic,
]


@pytest.mark.parametrize("stopwatch", STOPWATCHES)
def test_measure_without_a_device_measures_the_cpu(stopwatch: Callable[[], Stopwatch]) -> None:
    for arguments in ({}, {"open_device": lambda: None}):
        found = measure(stopwatch(), measured_at=NOW, **arguments)  # type: ignore[arg-type]
        check(found)
        assert found.device is None


@pytest.mark.parametrize("stopwatch", [lambda: steady(0), lambda: steady(10**10), erratic])
def test_measure_measures_and_closes_the_device(
    stopwatch: Callable[[], Stopwatch], gpus: Gpus, small_segments: None
) -> None:
    found = measure(stopwatch(), measured_at=NOW, open_device=cuda.open_backend)
    check(found)
    assert found.device is not None
    assert (found.device.backend, found.device.devices) == ("cuda", ["Fake GPU 0"])
    assert found.device.pinned_bytes_per_s is not None
    assert {"b3_tiles", "b3_fold", "b3_small", "fma_rate"} == gpus.kernels.keys()
    # The fixture sees to it that no memory is left.


def test_measure_with_a_real_stopwatch_is_plausible(gpus: Gpus, small_segments: None) -> None:
    found = measure(time.perf_counter_ns, measured_at=NOW, open_device=cuda.open_backend)
    assert found.device is not None
    assert 10**7 < found.cpu.one_thread_bytes_per_s < 10**12
    assert 10**4 < found.device.staged_bytes_per_s < found.cpu.one_thread_bytes_per_s
    assert 10**3 < found.device.launch_ns < 10**9
    assert 0 < found.device.start_ns < 10**11


@pytest.mark.parametrize(
    ("point", "status"),
    [
        ("getDeviceCount", LOST),
        ("launch", LAUNCH_FAILED),
        ("asarray", OUT_OF_MEMORY),
        ("PinnedMemory", OUT_OF_MEMORY),
    ],
)
def test_measure_of_a_device_that_fails_is_an_error_and_keeps_nothing(
    point: str, status: int, gpus: Gpus, small_segments: None
) -> None:
    gpus.fail(point, status, 2 if point == "PinnedMemory" else 0)
    with pytest.raises(DeviceError, match="cudaError"):
        measure(steady(1000), measured_at=NOW, open_device=cuda.open_backend)


def test_measure_closes_the_device_when_it_is_interrupted(
    gpus: Gpus, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure_module, "_cpu_rates", interrupt)
    opened = cuda.open_backend()
    with pytest.raises(KeyboardInterrupt):
        measure(steady(1000), measured_at=NOW, open_device=lambda: opened)
    assert gpus.pinned_bytes == 0


@pytest.mark.parametrize("run_ns", [1, 1000, 700_000, 4_999_999, 5_000_000, 10**9])
def test_each_figure_takes_no_longer_than_its_budget_and_one_run(
    run_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "_RUNS_MAX", 7)
    runs = 0
    now_ns = 0

    def run() -> None:
        nonlocal runs, now_ns
        runs += 1
        now_ns += run_ns

    assert measure_module._median_ns(run, lambda: now_ns) == run_ns
    # The first run warms up and does not count.
    assert (runs - 2) * run_ns <= measure_module._BUDGET_NS
    assert 2 <= runs <= 8


def test_median_is_that_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "_RUNS_MAX", 7)
    times = iter([100, 5, 1, 9, 3, 7, 2, 8])
    now_ns = 0

    def run() -> None:
        nonlocal now_ns
        now_ns += next(times)

    assert measure_module._median_ns(run, lambda: now_ns) == 5
