"""Files that operators name and those of the home."""

import os
import stat

from compute_market.errors import UsageError
from compute_market.text import cause_of, legible

SIZE_MAX = 64 * 2**20
# What a path names, rather than where it is, is all that such a directory says.
_STREAMS = ("/dev", "/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")


def check_readable(path: str) -> None:
    """Raise UsageError unless there is something to read, by the look of it; `-` is stdin."""
    if path == "-":
        return
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UsageError(f"{path}: {cause_of(error)}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a directory")


def check_text(text: str, what: str) -> str:
    """The text. Raises UsageError unless it is UTF-8, as all must be that the market keeps."""
    if legible(text) != text:
        raise UsageError(f"{what} {text} is not UTF-8")
    return text


def directory_of(path: str) -> str:
    """What the paths in a file are relative to: its directory; for a stream the present one."""
    directory = os.path.dirname(path)
    return "" if path == "-" or directory in _STREAMS else directory
