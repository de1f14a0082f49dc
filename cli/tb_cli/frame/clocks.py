"""The clocks of this machine."""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compute_market.clock import Clock, Reading
    from compute_market.store.environment import Creation

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def system_clock() -> "Callable[[], Reading]":
    """What reads the clocks of this machine; the boot it runs in is looked up once."""
    from compute_market.clock import Reading  # Most of what asks for the time needs no more.

    boot_id = _boot_id()
    if boot_id is None:
        return lambda: Reading(now_ms())
    return lambda: Reading(
        now_ms(), boot_id, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    )


def genesis(clock: "Clock") -> "Creation":
    """That of a market made now. Raises BusyError under a clock that was never set."""
    from compute_market.clock import read
    from compute_market.store.environment import Creation

    return Creation(read(clock).wall_ms, os.urandom(16))


def _boot_id() -> str | None:
    """The name of this boot, None on a system that gives it none."""
    try:
        descriptor = os.open(_BOOT_ID, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 64).decode().strip()
    finally:
        os.close(descriptor)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sleep(seconds: float) -> float:
    """Sleep, and return how long it really took: on a busy machine that is longer."""
    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began
