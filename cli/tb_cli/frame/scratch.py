"""A directory for what is thrown away: gone when this ends, or else when the next one begins.

Who holds one holds a lock on it, which the system takes back from the dead: what can be locked is
what a killed process has left. Children hold the lock of their parent with it.
"""

import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shutil import rmtree


@contextmanager
def scratch(prefix: str) -> Iterator[str]:
    """A new directory among the temporary files, whose name begins so.

    Others of that name that nobody holds any more are removed first. A closed terminal ends this as
    SIGTERM does, so that the directory is gone then, too. Raises OSError if there can be none.
    """
    _remove_left(prefix)
    with _ends_when_hung_up():
        path, held = _made(prefix)
        try:
            yield path
        finally:
            rmtree(path, ignore_errors=True)
            os.close(held)


def _made(prefix: str) -> tuple[str, int]:
    """A new directory and the descriptor that holds it."""
    while True:
        path = tempfile.mkdtemp(prefix=prefix)
        with suppress(FileNotFoundError):
            held = _opened(path)
            # A file system without locks has none that could be taken for left.
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
            if os.fstat(held).st_nlink:
                return path, held
            os.close(held)  # Somebody took it for left before it was held.


def _remove_left(prefix: str) -> None:
    place = tempfile.gettempdir()
    for entry in os.scandir(place):
        if not entry.name.startswith(prefix):
            continue
        # What is no directory of this user, or is held, stays.
        with suppress(OSError):
            found = _opened(entry.path)
            try:
                if os.fstat(found).st_uid == os.geteuid():
                    fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(found)


def _opened(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


@contextmanager
def _ends_when_hung_up() -> Iterator[None]:
    """SIGHUP does what SIGTERM does, unless it is ignored, as `nohup` has it."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
