"""Where a slice is worked, decided from its length and a few facts about the run.

Nothing here opens a file, starts a thread or asks a device. Where a slice is worked changes how
long it takes and never its proof.
"""

from typing import Literal, NamedTuple

from compute_market.hashing.short import SHORT_BYTES
from compute_market.workloads.tasks import LONG_BYTES

# Sending a longer slice would take longer than hashing it here.
SENT_MAX_BYTES = 67_108_864

# short     the calling thread, in a single read, or a process forked for many such slices
# here      the calling thread, with every core hashing, or all of the device
# pool      a thread of the pool, with one core, in a task with the slices before and after it
# device    the device, in one launch with the slices before and after it, if `Hasher.takes_file`
#           says that it takes the slice; else the pool
# executor  the executor of the caller's
OwnPlace = Literal["short", "here"]
TaskPlace = Literal["pool", "device", "executor"]
Place = Literal[OwnPlace, TaskPlace]


class Facts(NamedTuple):
    """What is known of a run when a slice of it is placed."""

    # Only of the built-in job is it known that the cost of a slice follows from its length.
    built_in: bool
    # auto: takes what it is faster at. forced: takes everything for as long as it works.
    device: Literal["none", "auto", "forced"] = "none"
    # blind: a worker of it was found not to see the files of this machine.
    executor: Literal["none", "sighted", "blind"] = "none"


class Limits(NamedTuple):
    """How much a task takes, and how much is begun before its result is due."""

    # The pool: slices until their lengths add up to this, or until there are so many.
    pool_bytes: int = 1_048_576
    pool_slices: int = 64
    # The device has room for so much at once.
    device_bytes: int = 16_777_216
    device_slices: int = 256
    # A task of an executor is worth a round trip of 10 ms through a network. With their bytes,
    # slices go in smaller parts.
    executor_bytes: int = 67_108_864
    executor_sent_bytes: int = 16_777_216
    executor_slices: int = 1024
    # Bytes sent to an executor whose results were not taken yet. They take up memory on this side
    # and on that of the workers.
    under_way_bytes: int = 134_217_728
    # Slices read ahead of the result that is due: they bound memory, however many there are.
    ahead_slices: int = 1024
    ahead_executor_tasks: int = 16


USUAL = Limits()


def choose(length: int, facts: Facts, limits: Limits = USUAL) -> Place:
    """The place for a slice of that length in bytes."""
    if facts.executor != "none":
        is_too_long = facts.executor == "blind" and length > SENT_MAX_BYTES
        return "here" if is_too_long else "executor"
    if not facts.built_in:
        return "pool"
    if length <= SHORT_BYTES and facts.device != "forced":
        return "short"
    if facts.device == "none":
        return "here" if length > LONG_BYTES else "pool"
    return "here" if length > limits.device_bytes else "device"


def room(place: TaskPlace, facts: Facts, limits: Limits = USUAL) -> tuple[int, int]:
    """How many bytes, and how many slices, go to a place in one task."""
    # Of another workload a slice may take long, so that each is a task of its own.
    if place == "pool":
        return limits.pool_bytes, limits.pool_slices if facts.built_in else 1
    if place == "device":
        return limits.device_bytes, limits.device_slices
    is_blind = facts.executor == "blind"
    most = limits.executor_sent_bytes if is_blind else limits.executor_bytes
    return most, limits.executor_slices if facts.built_in else 1


def ahead_max(facts: Facts, limits: Limits = USUAL) -> int:
    """How many slices may be begun before the result that is due was taken."""
    if facts.executor == "none" or not facts.built_in:
        return limits.ahead_slices
    return max(limits.ahead_slices, limits.executor_slices * limits.ahead_executor_tasks)


def files_together(length: int, limits: Limits = USUAL) -> int:
    """How many files of that length in bytes a device takes in one launch."""
    return min(limits.device_slices, max(1, limits.device_bytes // max(1, length)))
