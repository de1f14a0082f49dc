"""The home directory: what its files are called, and how they are made and read.

No link inside a home is followed: who may put one there could otherwise send what root writes, or
reads, elsewhere. What root makes in it belongs to whom the directory belongs.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from compute_market.errors import ConflictError, IntegrityError, UsageError, file_error
from compute_market.text import cause_of

STORE: Final = "market"  # the directory of the LMDB environment
# In it: the data, and the write lock, which is there once a market has been made.
DATA: Final = "data.mdb"
WRITE_LOCK: Final = "write.lock"
CONFIG: Final = "config.toml"
CANCELLATIONS_LOG: Final = "cancellations.log"
CALIBRATION: Final = "calibration.json"
LAST_BACKUP: Final = "last_backup"  # when the last backup was made, and where
KEYS: Final = "keys"  # the directory of the keys of one's own and of the public keys of others
BIDS: Final = "bids"  # the directory of what opens the sealed bids of one's own
SPOOL: Final = "spool"  # the directory of bundles that are to be forwarded
SPOOLING: Final = "new"  # in it, that of bundles that are being sent
STATE: Final = "state"  # the directory of the price board
PRICE_BOARD: Final = f"{STATE}/price_board.v2.bin"  # unless a setting names another file
OUTBOX: Final = "outbox"  # where they go unless a destination is given
SERVE_TOKEN: Final = "serve.token"  # who has it may change the market over the net
INBOX: Final = "inbox"  # the directory of bundles that other markets brought
REPUTATION: Final = "reputation.json"  # a snapshot of the scores
# What belongs to the home itself, where nothing else is put: bundles neither.
OWN: Final = frozenset(
    (
        *(STORE, CONFIG, CANCELLATIONS_LOG, CALIBRATION, LAST_BACKUP, KEYS, BIDS),
        *(SPOOL, INBOX, REPUTATION, STATE, SERVE_TOKEN),
    )
)

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700

# Opening a FIFO must not wait for its other end, and a terminal must not become the controlling
# one.
OPEN_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# No file that is read whole is longer than this, in bytes.
READ_MAX: Final = 2**20
LINK: Final = "is a link, and no link is followed here"


def open_regular(path: str, flags: int) -> int:
    """Open a file of a home and return its descriptor; one that is made is private.

    Raises OSError, also for a link and for anything but a regular file.
    """
    try:
        descriptor = os.open(path, flags | OPEN_FLAGS, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, LINK, path) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "not a regular file", path)


def read(path: str, size_max: int = READ_MAX) -> bytes:
    """The bytes of a file of a home.

    Raises OSError as `open_regular` does, and for more than `size_max` bytes.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    with open(descriptor, "rb") as file:
        content = file.read(size_max + 1)
    if len(content) > size_max:
        raise OSError(errno.EINVAL, f"more than {size_max} bytes", path)
    return content


def make_directories(path: str) -> None:
    """Make a directory and those above it that are missing, all private whatever the umask.

    Raises OSError where one cannot be made or something else is in the way.
    """
    path = os.path.abspath(path)
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for made in reversed(missing):
        try:
            os.mkdir(made, DIRECTORY_MODE)
        except FileExistsError:
            if not os.path.isdir(made):  # Else another process was faster.
                raise


def own_part(directory: str, path: str) -> str | None:
    """What of the home in a directory a path leads to, all links followed, that is the home's own.

    The home itself counts; None for what is elsewhere, or nobody's.
    """
    root = os.path.realpath(directory)
    found = os.path.realpath(path)
    if found == root:
        return root
    name = found[len(root) :].split("/")[1] if found.startswith(f"{root}/") else ""
    return os.path.join(root, name) if name in OWN else None


def part_of_market(path: str) -> str | None:
    """What of the home of any market a path leads to, all links followed, that is the home's own.

    None for what is in no home that has a market, and for the files that it leaves to others.
    """
    found = directory = os.path.realpath(path)
    while directory != os.path.dirname(directory):
        if os.path.lexists(data_file(os.path.join(directory, STORE))):
            own = own_part(directory, found)
            if own is not None:
                return own
        directory = os.path.dirname(directory)
    return None


def check_no_link_below(directory: str, path: str) -> None:
    """Raise OSError if a part of a path below the home in a directory is a link."""
    found = directory
    for name in os.path.relpath(path, directory).split("/"):
        found = os.path.join(found, name)
        if os.path.islink(found):
            raise OSError(errno.ELOOP, LINK, found)


def give_to_owner(path: str) -> None:
    """Give what root has made to whom the directory belongs that it is in, if it may."""
    if os.geteuid() == 0:
        with suppress(OSError):
            owner = os.stat(os.path.dirname(path))
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def data_file(store: str) -> str:
    """The data file of the store in a directory."""
    return os.path.join(store, DATA)


def lock_file(store: str) -> str:
    """Its write lock."""
    return os.path.join(store, WRITE_LOCK)


def readers_file(store: str) -> str:
    """LMDB's table of those who read it."""
    return os.path.join(store, "lock.mdb")


def check_no_link(store: str) -> None:
    """Raise UsageError for a link: LMDB would follow it, to where root may write and others not."""
    for name in (store, data_file(store), readers_file(store)):
        if os.path.islink(name):
            raise UsageError(f"{name}: {LINK}", hint="put what it leads to in its place")


def file_at(place: str | int) -> tuple[int, int] | None:
    """What tells the file at a path, or behind a descriptor, from any other; None without one."""
    try:
        found = os.lstat(place) if isinstance(place, str) else os.fstat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def moved(store: str) -> ConflictError:
    """The error of who has opened, or waited for, a store that is not the one at its path now."""
    return ConflictError(
        f"the market in {store} was moved away or replaced meanwhile",
        hint="run it again on what is there now",
    )


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turn errors of the file system into errors that name what could not be written or read."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            message = f"{what}: {cause_of(error)}"
            raise IntegrityError(message, hint="the disk failed") from error
        raise file_error(what, error) from error
