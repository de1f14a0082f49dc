"""Files of a home that hold secrets: nobody else may read them, and a name means one content."""

import errno
import os
import stat
from contextlib import suppress

from compute_market import home as names
from compute_market.errors import IntegrityError, UsageError
from compute_market.store.creation import sync
from compute_market.store.translation import translated
from compute_market.text import cause_of

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO
_SIZE_MAX = 2**16


def make_directory(path: str) -> None:
    """Make a directory of a home, private, unless it is there; see `check_directory`."""
    with translated(path):
        if not os.path.lexists(path):
            names.make_directories(path)
            names.give_to_owner(path)
            sync(os.path.dirname(path))
    check_directory(path)


def check_directory(path: str) -> None:
    """Raise UsageError for a directory into which others may put files, or a link to one."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path}: {cause_of(error)}") from error
    if stat.S_ISLNK(found.st_mode):
        raise UsageError(f"{path}: {names.LINK}", hint="put what it leads to in its place")
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is not a directory", hint="move it out of the way")
    _check_owner(path, found)
    if found.st_mode & _OTHERS_MAY_WRITE:
        raise UsageError(
            f"{path} may be written by others", hint=f"`chmod 700 {path}` after a look at its files"
        )


def read(path: str, *, secret: bool) -> bytes | None:
    """The content of a file; None where there is none.

    Raises UsageError for one that others may change, and for a `secret` one that they may read.
    """
    try:
        descriptor = names.open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: {cause_of(error)}") from error
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        _check_owner(path, found)
        if found.st_mode & (_OTHERS_MAY if secret else _OTHERS_MAY_WRITE):
            may = "read or changed" if secret else "changed"
            raise UsageError(f"{path} may be {may} by others", hint=f"chmod 600 {path}")
        try:
            content = file.read(_SIZE_MAX + 1)
        except OSError as error:
            raise IntegrityError(f"{path}: {cause_of(error)}", hint="the disk failed") from error
    if len(content) > _SIZE_MAX:
        raise IntegrityError(f"{path} has more than {_SIZE_MAX} bytes", reason="malformed")
    return content


def write_new(path: str, content: bytes) -> None:
    """Make a private file that is not there, and bring it to the disk; its name is not there yet.

    Raises what making a store raises, and leaves nothing then.
    """
    with translated(path):
        descriptor = names.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            names.give_to_owner(path)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise


def give_name(path: str, name: str) -> bool:
    """Give a file in a directory one more name there, on the disk; False if that one is taken."""
    with translated(name):
        try:
            os.link(path, name)
        except OSError as error:
            if error.errno == errno.EEXIST:
                return False
            raise
        sync(os.path.dirname(name))
    return True


def _check_owner(path: str, found: os.stat_result) -> None:
    """Raise UsageError for what belongs neither to us nor to whom the home belongs: root may act
    in the home of another."""
    home = os.path.dirname(path if stat.S_ISDIR(found.st_mode) else os.path.dirname(path))
    if found.st_uid not in (os.geteuid(), os.stat(home).st_uid):
        raise UsageError(
            f"{path} belongs to another user", hint="move it away, or make it yours with chown"
        )
