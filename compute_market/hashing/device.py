"""What a kind of device has to offer so that slices can be hashed on it, and how it says no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from compute_market.errors import UsageError

if TYPE_CHECKING:
    # These need NumPy, which only the extras bring. This module has to be imported without them,
    # to say that they are missing.
    from compute_market.hashing.launch import Compiled
    from compute_market.hashing.plan import Bytes, Plan

# Data goes to a device in segments of at most so many bytes: a power of two of chunks, so that each
# segment of a long slice but the last is a complete subtree.
SEGMENT_BYTES = 16_777_216
# The room a lane has for the values of one launch.
VALUES_BYTES = 2_097_152
LANES_PER_DEVICE = 6
# For rating a device: how many work-items a group has, and the two constants of their
# multiply-adds. With these the results change in every step, so that no step can be left out.
FMA_GROUP = 256
FMA_FACTOR = -1.0 + 2.0**-20
FMA_TERM = 0.5


class DeviceError(Exception):
    """The device cannot do it, for a reason in one line. The CPU can."""


class DeviceMissing(DeviceError):
    """There is no such device, or what it needs is not installed; `hint` says how to get it."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class Resident(NamedTuple):
    """Data on a device: what the driver calls its memory, and where in it the data lies (bytes)."""

    device: int
    memory: Any
    begin: int
    length: int


class Lane(Protocol):
    """One way to a device. Used by one thread at a time. What fails raises DeviceError."""

    staging: Bytes  # of the length that `open_lane` was given
    processors: int  # that run groups of work-items side by side
    tiles: tuple[int, int]  # the two tile sizes to choose from, chunks
    compiled: Compiled

    def hash(self, plan: Plan, length: int, source: Bytes | Resident | None = None) -> Bytes:
        """Run the plan and return its values.

        Over the first `length` bytes of the staging buffer, or of a pinned source, or over what is
        on the device. The plan's table goes into the staging buffer, behind the data.
        """

    def fold(self, plan: Plan, values: Bytes) -> Bytes:
        """Run a plan that only folds, over these values."""

    def copy(self, length: int) -> None:
        """Copy so much of the staging buffer to the device, and wait."""

    def multiply_add(self, groups: int, trips: int) -> None:
        """Run `fma_rate` in groups of FMA_GROUP, and wait."""

    def close(self) -> None:
        """Give the memory back."""


class Driver(Protocol):
    """What a kind of device has to offer. What fails raises DeviceError."""

    name: str
    devices: list[str]  # what they call themselves

    def open_lane(self, device: int, staging_bytes: int) -> Lane:
        """A lane to one of the devices."""

    def is_pinned(self, data: Bytes) -> bool:
        """Whether the device copies from this memory at full speed without staging."""

    def pinned(self, size: int) -> Bytes | None:
        """Such memory; None if there is no such difference."""

    def to_device(self, data: Bytes) -> Any:
        """An array with these bytes on the first device."""

    def resident(self, array: Any) -> Resident | None:
        """Where an array lies, once it has been written; None if it is not on these devices."""


def not_contiguous() -> UsageError:
    return UsageError("the array is not contiguous in C order", hint="hash a copy of it")


def first_line(error: BaseException) -> str:
    """An error of somebody else's in one line."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
