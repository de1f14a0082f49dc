"""The proof of a slice, and the tasks that make one: what runs in a thread or on another machine.

A worker of a cluster imports this module by name. It is told what to run and returns digests; it
needs nothing of the market.
"""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from compute_market.errors import IntegrityError, MarketError, UsageError
from compute_market.hashing.cpu import DIGEST_BYTES, hash_bytes, hash_opened
from compute_market.hashing.files import (
    FileIdentity,
    changed,
    fill_from,
    identity_of,
    open_slice,
    unreadable,
    untold,
)
from compute_market.workloads.workloads import Workload, resolve

if TYPE_CHECKING:
    from compute_market.hashing.hasher import Hasher

# A longer slice than this is worked by every core. Shorter ones in a row take less time with a core
# for each, as starting on every one of them costs the cores a wait.
LONG_BYTES = 33_554_432


class Result(NamedTuple):
    """What became of one slice: its proof, or the error that stopped it.

    With an error, `digest` is empty and `length` is 0. `length` counts bytes.
    """

    path: str
    digest: bytes
    length: int
    error: MarketError | None = None


# A result, and which state of which file it belongs to if the file could be opened.
Outcome = tuple[Result, FileIdentity | None]


class SharedSlice(NamedTuple):
    """A slice that a worker may be able to see as well."""

    path: str  # for error texts
    absolute_path: str
    identity: FileIdentity


def run_slices(name: str, paths: list[str]) -> list[Outcome]:
    """One task of a pool: run the workload over the paths, one after another, in this thread."""
    workload = resolve(name)
    return [_run_slice(workload, path) for path in paths]


def run_slices_on_device(
    hasher: "Hasher", paths: list[str], identities: list[FileIdentity]
) -> list[Outcome]:
    """One task of a device: read the slices into its memory and hash them together.

    A file that is not what it was, and everything if the device fails, is left to the CPU.
    """
    errors: dict[int, MarketError] = {}
    replaced: list[int] = []

    def fill(memory: Any, offsets: list[int]) -> None:
        for index, (path, identity) in enumerate(zip(paths, identities, strict=True)):
            begin = offsets[index]
            try:
                if not _read_slice(path, identity, memory[begin : begin + identity[2]].data):
                    replaced.append(index)
            except MarketError as error:
                errors[index] = error

    digests = hasher.hash_filled([identity[2] for identity in identities], fill)
    if digests is None:
        return [_run_slice(hash_opened, path) for path in paths]
    outcomes: list[Outcome] = []
    for index, (path, identity) in enumerate(zip(paths, identities, strict=True)):
        digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        outcomes.append((Result(path, digest, identity[2]), identity))
    for index, error in errors.items():
        outcomes[index] = (Result(paths[index], b"", 0, error), identities[index])
    for index in replaced:
        outcomes[index] = _run_slice(hash_opened, paths[index])
    return outcomes


def run_shared(name: str, slices: list[SharedSlice]) -> list[Outcome | None]:
    """One task of a worker that may share the caller's files; None stands for a slice it does not.

    The worker does not share a slice when it cannot open the path, or finds another file or another
    state of it there: another inode, length or time of modification. The numbers of devices differ
    between machines, and times of change need not be the same on both sides of a network.
    Raises UsageError (`unknown_workload`, `broken_workload`).
    """
    workload = _resolved_by_worker(name)
    return [_run_shared(workload, entry) for entry in slices]


def run_sent(name: str, slices: list[tuple[str, bytes]]) -> list[Result]:
    """One task of a worker that gets a path for error texts, and the bytes of each slice.

    Raises UsageError (`unknown_workload`, `broken_workload`).
    """
    workload = _resolved_by_worker(name)
    return [_run_sent(workload, path, content) for path, content in slices]


def prove(workload: Workload, path: str, descriptor: int, identity: FileIdentity) -> Result:
    """Run a workload over an open file that is in the state `identity` and has to stay in it."""
    length = identity[2]
    try:
        try:
            digest = workload(path, descriptor, length)
        except IntegrityError as error:
            if error.reason == "slice_changed" and identity_of(os.fstat(descriptor)) == identity:
                raise untold(path) from None
            raise
        if identity_of(os.fstat(descriptor)) != identity:
            raise changed(path)
    except MarketError as error:
        return Result(path, b"", 0, error)
    except OSError as error:
        return Result(path, b"", 0, unreadable(path, error))
    return Result(path, digest, length)


def _run_slice(workload: Workload, path: str) -> Outcome:
    try:
        descriptor, status = open_slice(path)
    except MarketError as error:
        return Result(path, b"", 0, error), None
    try:
        identity = identity_of(status)
        return prove(_among_others(workload, status.st_size), path, descriptor, identity), identity
    finally:
        os.close(descriptor)


def _read_slice(path: str, identity: FileIdentity, memory: memoryview) -> bool:
    """Fill the memory with a file; False if the path leads to another state of a file by now.

    Raises what `open_slice` raises, and IntegrityError when reading fails or the file changes.
    """
    descriptor, status = open_slice(path)
    try:
        if identity_of(status) != identity:
            return False
        count = fill_from(descriptor, memory, 0)
        if count != len(memory) or identity_of(os.fstat(descriptor)) != identity:
            raise changed(path)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)
    return True


def _run_shared(workload: Workload, entry: SharedSlice) -> Outcome | None:
    try:
        descriptor, status = open_slice(entry.absolute_path)
    except MarketError:
        return None
    try:
        identity = identity_of(status)
        if _seen_anywhere(identity) != _seen_anywhere(entry.identity):
            return None
        workload = _among_others(workload, status.st_size)
        return prove(workload, entry.path, descriptor, identity), identity
    finally:
        os.close(descriptor)


def _run_sent(workload: Workload, path: str, content: bytes) -> Result:
    if workload is hash_opened:
        return Result(path, hash_bytes(content), len(content))
    # Other workloads take a descriptor: that of a file in memory, which ends with it.
    try:
        descriptor = os.memfd_create("slice")
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.lseek(descriptor, 0, os.SEEK_SET)
            return prove(workload, path, descriptor, identity_of(os.fstat(descriptor)))
        finally:
            os.close(descriptor)
    except OSError as error:
        return Result(path, b"", 0, unreadable(path, error))


def _among_others(workload: Workload, length: int) -> Workload:
    """The workload as it runs beside others: threads of one pool share the cores already."""
    return _hash_in_one_thread if workload is hash_opened and length <= LONG_BYTES else workload


def _hash_in_one_thread(path: str, descriptor: int, length: int) -> bytes:
    return hash_opened(path, descriptor, length, threads=1)


def _seen_anywhere(identity: FileIdentity) -> tuple[int, int, int]:
    """Of a file's identity, what each machine that shares it sees alike."""
    _, inode, length, modified_ns, _ = identity
    return inode, length, modified_ns


def _resolved_by_worker(name: str) -> Workload:
    try:
        return resolve(name)
    except UsageError as error:
        # The caller knows the name, or the task would not have come here.
        raise UsageError(
            f"on a worker: {error.message}",
            hint="install the same packages on every worker",
            reason=error.reason,
        ) from None
