"""Work that damage may end, in a child process that answers through a pipe.

LMDB maps its file: what a damaged page leads to can kill who reads it. A signal is no answer, so
who looks for damage sends a child, and tells what became of it.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from msgspec import msgpack

from compute_market.errors import BusyError, IntegrityError, InternalError, MarketError

# What ends a process that reads what is not there, or that finds itself confused.
_DAMAGE = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


def apart(call: Callable[[], Any]) -> Any:
    """What `call` returns, something MessagePack can hold, or the MarketError that it raises.

    The store must be closed. Raises IntegrityError when a signal ends the child that damage brings
    about, BusyError for another one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with Answer(partial(_send, write)) as answer:
            answer.found = call()
    os.close(write)
    try:
        with open(read, "rb") as pipe:
            content = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise _killed(signal.Signals(os.WTERMSIG(status)))
    if not content:
        raise KeyboardInterrupt  # The child alone was told to stop.
    answered = msgpack.decode(content)
    if "error" in answered:
        raise error_from(answered["error"])
    return answered["found"]


class Answer:
    """The child's end: sends what was found, or the error that came instead, and ends it."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self.found: Any = None

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if isinstance(error, MarketError):
                self._send({"error": error.document()})
            elif isinstance(error, Exception):
                bug = InternalError(f"{type(error).__name__}: {error}", hint="a bug")
                self._send({"error": bug.document()})
            elif error is None:
                self._send({"found": self.found})
        finally:
            os._exit(0)  # Nothing that the parent has begun is to be ended here.


def _send(pipe: int, answer: dict[str, Any]) -> None:
    with open(pipe, "wb") as file:
        file.write(msgpack.encode(answer))


def _killed(by: signal.Signals) -> MarketError:
    if by in _DAMAGE:
        return IntegrityError(
            f"the data file is damaged: reading it ended the process ({by.name})",
            hint="restore the directory from a backup",
        )
    return BusyError(f"the process that was reading was ended by {by.name}", hint="try again")


def error_from(document: dict[str, Any]) -> MarketError:
    """An error from its JSON form."""
    kinds: dict[str, type[MarketError]] = {
        kind.token: kind
        for kind in MarketError.__subclasses__()
        if kind.__module__ == MarketError.__module__  # Others wrap one of these.
    }
    kind, message = kinds[document.pop("error")], document.pop("message")
    retryable = document.pop("retryable")
    error = kind(message, **document)
    error.retryable = retryable
    return error
