"""Threads that a test began, apart from those that were there and may end meanwhile."""

import threading
from collections.abc import Callable


def begun_threads() -> Callable[[], int]:
    """Returns what counts the threads that run and did not when this was called."""
    before = frozenset(threading.enumerate())
    return lambda: len(frozenset(threading.enumerate()) - before)
