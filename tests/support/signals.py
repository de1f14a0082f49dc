"""Signals, whose handlers belong to a process and not to a command that is called in it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_signals() -> Iterator[None]:
    """What a command makes of signals is over with it, as with a process of its own."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {each: signal.getsignal(each) for each in numbers}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
