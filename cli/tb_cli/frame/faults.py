"""What ends a command and is no error of the market: as one that an operator can act on.

Only a command that fails imports this.
"""

import errno
import os

from compute_market.errors import BusyError, InternalError, MarketError, UsageError
from compute_market.text import cause_of

# What may be had another time. All else that a system call says is about what was named.
_FOR_NOW = {
    errno.ENOSPC: "free some disk space and try again",
    errno.EDQUOT: "free some disk space and try again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`) and try again",
    errno.ENFILE: "the machine has too many open files; try again later",
    errno.EFBIG: "raise the limit of the size of files (`ulimit -f`) and try again",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`), or try again later",
    errno.ENOMEM: "try again when there is more memory",
    errno.EIO: "look at the disk and its log",
}


def answer_to(error: BaseException) -> MarketError:
    """The error that an operator is told of, with its exit code."""
    message = str(error)
    kind = type(error).__name__
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError):
        return BusyError("out of memory", hint=_FOR_NOW[errno.ENOMEM])
    if isinstance(error, RecursionError):
        return UsageError("the input is nested too deep")
    if isinstance(error, ValueError) and message.startswith("embedded null"):
        return UsageError("a name holds a NUL character", hint="no file has such a name")
    if isinstance(error, UnicodeEncodeError):
        return UsageError(
            f"{error.object!a} cannot be written in the encoding {error.encoding}",
            hint="set a locale of UTF-8, such as LC_ALL=C.UTF-8",
        )
    if isinstance(error, OverflowError):
        return UsageError(f"a number or the clock is out of range: {message}")
    # The hasher's threads are started by its own runtime, which panics.
    if (isinstance(error, RuntimeError) and "start new thread" in message) or (
        kind == "PanicException" and "hread" in message
    ):
        return BusyError("no more threads can be started", hint=_FOR_NOW[errno.EAGAIN])
    return InternalError(f"{kind}: {error}", hint="a bug; --debug shows where")


def _of_system(error: OSError) -> MarketError:
    name = error.filename
    path = os.fsdecode(name) if isinstance(name, str | bytes) else _lost_directory()
    text = cause_of(error) if path is None else f"{path}: {cause_of(error)}"
    if error.errno in _FOR_NOW:
        return BusyError(text, hint=_FOR_NOW[error.errno])
    if path is None:
        return InternalError(f"{type(error).__name__}: {error}", hint="a bug; --debug shows where")
    return UsageError(text)


def _lost_directory() -> str | None:
    """What to call the directory that relative names begin in, if it was deleted."""
    try:
        os.getcwd()
    except OSError:
        return "the current directory"
    return None
