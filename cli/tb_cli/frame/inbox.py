"""The inbox: bundles that other markets brought, each under its hash, whole and on the disk.

One that is being written has a name of its own that nobody can guess, and is locked by who writes
it; what a killed command left is taken away by `remove_left`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from blake3 import blake3

from compute_market import home as files
from compute_market.errors import BusyError, IntegrityError
from compute_market.store.creation import sync
from compute_market.store.translation import translated
from tb_cli.frame import private_files
from tb_cli.frame.home import Home

# What is left free on the disk, where the market itself needs room.
RESERVE_BYTES = 64 * 2**20
_PART = ".part"  # what the name of an unfinished one ends in


class Incoming:
    """A bundle of a known length and hash that is being written; `keep` gives it its name."""

    def __init__(self, directory: str, descriptor: int, part: str, size: int, hash: bytes) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._part = part
        self._size = size
        self._hash = hash
        self._hasher = blake3()
        self.left = size  # bytes that are still to come

    def write(self, data: bytes) -> None:
        """Its next bytes. Raises IntegrityError (`wrong_length`) for more than it has."""
        if len(data) > self.left:
            raise IntegrityError(
                f"the bundle has more than the {self._size} bytes that were announced",
                reason="wrong_length",
            )
        self._hasher.update(data)
        self.left -= len(data)
        with translated(self._directory):
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def finish(self) -> None:
        """Bring it to the disk. Raises IntegrityError unless it is what was announced."""
        if self.left:
            raise IntegrityError(
                f"the bundle has {self._size - self.left} bytes, not the {self._size} that were "
                "announced",
                reason="wrong_length",
            )
        if (found := self._hasher.digest()) != self._hash:
            raise IntegrityError(
                f"the bundle has the hash {found.hex()}, not {self._hash.hex()}",
                reason="wrong_hash",
            )
        with translated(self._directory):
            os.fsync(self._descriptor)

    def keep(self) -> None:
        """Give it its name, in the place of one of the same hash."""
        with translated(self._directory):
            os.replace(self._part, os.path.join(self._directory, self._hash.hex()))
            sync(self._directory)


def path_of(home: Home, bundle_hash: bytes) -> str:
    """Where a bundle is kept."""
    return os.path.join(home.inbox, bundle_hash.hex())


@contextmanager
def incoming(
    home: Home, bundle_hash: bytes, size: int, under_way: set[Incoming] | None = None
) -> Iterator[Incoming]:
    """A bundle to be written, which is gone afterwards unless it was kept.

    What others `under_way` still bring has its room already; this one is among them meanwhile.
    Raises BusyError when it would not leave enough room on the disk, NotFoundError where the home
    has gone, and what making files in a home raises.
    """
    home.check_market()
    private_files.make_directory(home.inbox)
    others = set() if under_way is None else under_way
    check_room(home, size, reserved=sum(each.left for each in others))
    part = os.path.join(home.inbox, f".{os.urandom(16).hex()}{_PART}")
    with translated(home.inbox):
        descriptor = _locked(part)
    found = Incoming(home.inbox, descriptor, part, size, bundle_hash)
    others.add(found)
    try:
        yield found
    finally:
        others.discard(found)
        with suppress(FileNotFoundError):  # It has its name.
            os.unlink(part)
        os.close(descriptor)


def check_room(home: Home, size: int, *, reserved: int) -> None:
    """Raise BusyError when so many bytes more would leave too little room on the disk."""
    with translated(home.inbox):
        disk = os.statvfs(home.inbox if os.path.exists(home.inbox) else home.path)
    free = disk.f_bavail * disk.f_frsize
    if size > free - reserved - RESERVE_BYTES:
        raise BusyError(
            f"{home.inbox}: a bundle of {size} bytes does not fit: {free} are free, {reserved} of "
            f"them for what is under way, and {RESERVE_BYTES} are left so",
            hint="make room on the disk; the bundle may be brought again then",
            reason="no_room",
        )


def remove_left(home: Home) -> None:
    """Take away what nobody writes any more. Raises UsageError where others may put files."""
    private_files.check_directory(home.inbox)
    try:
        left = [name for name in os.listdir(home.inbox) if name.endswith(_PART)]
    except FileNotFoundError:
        return
    for name in left:
        path = os.path.join(home.inbox, name)
        with suppress(OSError):  # Somebody writes it, or was faster.
            descriptor = files.open_regular(path, os.O_WRONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(descriptor)


def _locked(part: str) -> int:
    """A new file that no other process takes for one that was left."""
    while True:
        descriptor = files.open_regular(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if files.file_at(part) == files.file_at(descriptor):
            files.give_to_owner(part)
            return descriptor
        os.close(descriptor)  # It was taken away between the two.
