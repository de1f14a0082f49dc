"""Memory as a place for files: what is tried there is the calls, and a sync costs nothing."""

import os

_DIRECTORY = "/dev/shm"


def shared_memory(room_bytes: int = 0) -> str | None:
    """Its directory; None where there is none that has room, or programs may not run from it."""
    if not os.access(_DIRECTORY, os.W_OK):
        return None
    found = os.statvfs(_DIRECTORY)
    fits = found.f_bavail * found.f_frsize >= room_bytes
    return _DIRECTORY if fits and not found.f_flag & os.ST_NOEXEC else None
