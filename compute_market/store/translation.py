"""Errors of LMDB and of the file system, put into words an operator can act on."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import lmdb

from compute_market.errors import (
    BusyError,
    IntegrityError,
    InternalError,
    MarketError,
    UsageError,
    way_out,
)
from compute_market.text import cause_of

_SHOWN_BYTES: Final = 64
# Less free space than this is a full disk.
_FULL_BYTES: Final = 2**20
RESTORE: Final = "restore the directory from a backup"
# The file has grown beyond its map, or another process holds the table of readers: not now, in this
# way.
NOT_AT_ONCE: Final = (lmdb.MapResizedError, lmdb.LockError)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
_DAMAGE = (
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.NotFoundError,
    lmdb.IncompatibleError,
    lmdb.PanicError,
    lmdb.BadDbiError,  # of a table whose root record is damaged
    lmdb.CursorFullError,  # a tree that is too deep
    lmdb.PageFullError,  # a page whose header says another length
    lmdb.ProblemError,
    lmdb.BadTxnError,  # after a step that met damage and did not say so
)


def lmdb_version() -> str:
    """The version of LMDB that is in use: `0.9.36`."""
    return ".".join(map(str, lmdb.version()))


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn errors of LMDB and the file system into errors an operator can act on."""
    try:
        yield
    except (lmdb.ReadersFullError, lmdb.TlsFullError) as error:
        raise BusyError(_what(path, error), hint="let some commands end first") from error
    except (lmdb.MapFullError, lmdb.TxnFullError) as error:
        raise BusyError(
            _what(path, error), hint="give the store more room with a larger map_size_gib"
        ) from error
    except lmdb.DiskError as error:
        raise BusyError(_what(path, error), hint=way_out(errno.ENOSPC)) from error
    except _DAMAGE as error:
        raise IntegrityError(_what(path, error), hint=RESTORE) from error
    except UnicodeDecodeError as error:
        # The keys and plain values of the tables are all that a transaction decodes.
        raise IntegrityError(
            f"{path}: the stored text {error.object[:_SHOWN_BYTES]!r} is not UTF-8", hint=RESTORE
        ) from error
    except lmdb.Error as error:
        number = getattr(error, "code", None)
        if isinstance(error, lmdb.ReadonlyError) and os.access(path, os.W_OK):
            number = None  # Not the directory, but the transaction cannot write.
        if not isinstance(number, int) or number <= 0:
            raise InternalError(_what(path, error)) from error
        raise _translate(path, OSError(number, os.strerror(number))) from error
    except OSError as error:
        raise _translate(path, error) from error


def _what(path: str, error: lmdb.Error) -> str:
    """The path, once, and what LMDB says."""
    return f"{path}: {str(error).removeprefix(f'{path}: ')}"


def _translate(path: str, error: OSError) -> MarketError:
    what = f"{error.filename or path}: {cause_of(error)}"
    # LMDB reports a write that the disk cut short as an input/output error.
    if error.errno in _NO_ROOM:
        return BusyError(what, hint=way_out(error.errno))
    if error.errno == errno.EIO and _is_full(path):
        return BusyError(what, hint=way_out(errno.ENOSPC))
    if error.errno == errno.EIO:
        return IntegrityError(what, hint="the disk failed; restore the directory from a backup")
    if error.errno == errno.ENOMEM:
        return BusyError(what, hint="allow more address space, or set a smaller map_size_gib")
    if error.errno == errno.EINVAL:
        return InternalError(what)
    return UsageError(what, hint="choose another directory with --home or TB_HOME")


def _is_full(path: str) -> bool:
    while not os.path.exists(path):  # It could not be made.
        path = os.path.dirname(path)
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize < _FULL_BYTES
