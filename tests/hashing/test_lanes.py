"""Lanes: one failure ends them all, and nobody waits for one that will not come."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from blake3 import blake3

from compute_market.hashing import pipeline
from compute_market.hashing.device import DeviceError
from compute_market.hashing.pipeline import DeviceBackend
from tests.support.cli import without
from tests.support.gpu.host import HostDriver
from tests.support.market import shared_directory


@pytest.fixture
def own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DeviceBackend]:
    """Two devices of this machine's that a test may spoil, with segments of one small tile."""
    if reason := without("g++"):
        pytest.skip(reason)
    monkeypatch.setattr(pipeline, "SEGMENT_BYTES", 8 * 1024)
    directory = shared_directory(tmp_path_factory, "kernels")
    backend = DeviceBackend(HostDriver(directory, devices=2), 1)
    backend.start()
    yield backend
    backend.close()


def test_a_device_that_failed_is_not_asked_again(own: DeviceBackend) -> None:
    assert isinstance(own.driver, HostDriver)
    data = bytes(9 * 8 * 1024)
    own.driver.failure = DeviceError("launch failed")
    # As often as there are lanes and more: whoever asks gets an answer and need not wait. The lane
    # that failed may still read its buffer, so the answer stays the same.
    for _ in range(5):
        with pytest.raises(DeviceError, match="launch failed"):
            own.hash_batch(data, [0], [len(data)])
        own.driver.failure = None


def test_nobody_reads_any_more_when_a_failure_is_told(
    own: DeviceBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The caller closes the file then; another one may get its number."""
    assert isinstance(own.driver, HostDriver)
    driver = own.driver
    begun, reading = Event(), Event()

    def read(descriptor: int, memory: Any, begin: int) -> int:
        if begin == 0:
            # The launch after this fails, while another thread is reading.
            begun.wait(20)
            driver.failure = DeviceError("launch failed")
        else:
            reading.set()
            begun.set()
            time.sleep(0.3)
            reading.clear()
        return fill_from(descriptor, memory, begin)

    fill_from = pipeline.fill_from
    monkeypatch.setattr(pipeline, "fill_from", read)
    path = tmp_path / "x.slice"
    path.write_bytes(bytes(2 * 8 * 1024))
    with open(path, "rb") as file:
        with pytest.raises(DeviceError, match="launch failed"):
            own.hash_opened(str(path), file.fileno(), 2 * 8 * 1024)
        assert begun.is_set()
        assert not reading.is_set()


def test_an_interrupt_in_the_middle_is_the_end_of_the_device(own: DeviceBackend) -> None:
    """What the interrupted lane was told to do may still be under way."""
    assert isinstance(own.driver, HostDriver)
    own.driver.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        own.hash_batch(b"abc", [0], [3])
    own.driver.failure = None
    with pytest.raises(DeviceError, match="broke off: KeyboardInterrupt"):
        own.hash_batch(b"abc", [0], [3])


def test_a_device_without_room_leaves_the_work_to_the_others(own: DeviceBackend) -> None:
    driver = HostDriver(own.driver._directory, devices=3)  # type: ignore[attr-defined]
    driver.full = {0, 2}
    backend = DeviceBackend(driver, 4)
    backend.start()
    data = bytes(9 * 8 * 1024)
    with ExitStack() as all_at_once:
        for _ in range(4):
            all_at_once.enter_context(backend._lanes.lane())
    assert backend.width == 4
    assert backend.hash_batch(data, [0], [len(data)]) == blake3(data).digest()
    assert set(driver.lanes) == {1}
    backend.close()
    driver.full = {0, 1, 2}
    with pytest.raises(DeviceError, match="no room on 2"):
        DeviceBackend(driver, 4).start()


def test_closing_waits_for_work_under_way(own: DeviceBackend) -> None:
    """Whoever is at work comes through, and nobody else begins."""

    def fill(memory: Any, offsets: list[int]) -> None:
        memory[:] = 7
        own.close()

    assert own.hash_filled([1024], fill) == blake3(bytes([7]) * 1024).digest()
    with pytest.raises(DeviceError, match="closed"):
        own.hash_filled([1024], fill)


def test_a_forked_process_has_no_device(own: DeviceBackend) -> None:
    child = os.fork()
    if not child:
        status = 1
        try:
            own.hash_batch(b"abc", [0], [3])
        except DeviceError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_lanes_are_opened_on_every_device(own: DeviceBackend) -> None:
    assert isinstance(own.driver, HostDriver)
    with own._lanes.lane(), own._lanes.lane():
        assert own.width == 2
        assert set(own.driver.lanes) == {0, 1}
