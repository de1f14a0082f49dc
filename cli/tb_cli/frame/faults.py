"""What ends a command and is no error of the market: as one that an operator can act on.

Only a command that fails imports this.
"""

import errno
import os

from compute_market.errors import BusyError, InternalError, MarketError, UsageError, way_out
from compute_market.text import cause_of


def answer_to(error: BaseException) -> MarketError:
    """The error that an operator is told of, with its exit code."""
    message = str(error)
    kind = type(error).__name__
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError):
        return BusyError("out of memory", hint=way_out(errno.ENOMEM))
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
        return BusyError("no more threads can be started", hint=way_out(errno.EAGAIN))
    return InternalError(f"{kind}: {error}", hint="a bug; --debug shows where")


def _of_system(error: OSError) -> MarketError:
    name = error.filename
    path = os.fsdecode(name) if isinstance(name, str | bytes) else _lost_directory()
    text = cause_of(error) if path is None else f"{path}: {cause_of(error)}"
    hint = way_out(error.errno)
    if hint is not None or error.errno == errno.EIO:
        return BusyError(text, hint=hint)
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
