"""Long pieces of work side by side, each in a process of its own, which ends with it.

A child that is not wanted any more, because something was interrupted, is killed; one whose parent
is gone is so by the system, where that can do it (Linux), or stops by itself the next time it tells
how far it is.
"""

import os
import selectors
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from msgspec import msgpack

from compute_market.errors import BusyError, InternalError, file_error
from tb_cli.frame.apart import Answer, error_from

# Tells how much of the whole of a piece of work is done, in parts of `WHOLE`.
Tell = Callable[[int], None]
Work = Callable[[Tell], Any]

WHOLE = 1000
_LENGTH_BYTES = 8
_PR_SET_PDEATHSIG = 1


def side_by_side(works: Sequence[Work], workers: int, tell: Tell) -> list[Any]:
    """What each of the works returns, something MessagePack can hold, in their order.

    `tell` gets the sum of what all have done. Raises the first error that one of them raises, and
    BusyError where the system has no process for one or kills it. No thread may be running.
    """
    found: list[Any] = [None] * len(works)
    done = [0] * len(works)
    left = list(enumerate(works))[::-1]
    with _Children() as children:
        while left or children.running:
            while left and len(children.running) < workers:
                children.start(*left.pop())
            for number, message in children.messages():
                if "done" in message:
                    done[number] = message["done"]
                    tell(sum(done))
                elif "error" in message:
                    raise error_from(message["error"])
                else:
                    found[number] = message["found"]
                    done[number] = WHOLE
    return found


class _Children:
    """The processes that run; those that still do at the end are killed."""

    def __init__(self) -> None:
        self.running: dict[int, tuple[int, int]] = {}  # number → process, its answers
        self._ready = selectors.DefaultSelector()

    def __enter__(self) -> "_Children":
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self.running):
            self._end(number, kill=True)
        self._ready.close()

    def start(self, number: int, work: Work) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        try:
            read, write = os.pipe()
            child = os.fork()
        except OSError as error:
            raise file_error("a process of its own", error) from error
        if child == 0:
            os.close(read)
            _run(work, write, parent)
        os.close(write)
        self.running[number] = child, read
        self._ready.register(read, selectors.EVENT_READ, number)

    def messages(self) -> list[tuple[int, Any]]:
        """What the children have to say, once one has; who has said the last word is gone then."""
        found = []
        for key, _ in self._ready.select():
            number: int = key.data
            _, pipe = self.running[number]
            content = _read(pipe, int.from_bytes(_read(pipe, _LENGTH_BYTES), "big"))
            if not content:
                status = self._end(number)
                raise BusyError(f"a process that simulates was ended by signal {status & 127}")
            message = msgpack.decode(content)
            if "done" not in message:
                self._end(number)
            found.append((number, message))
        return found

    def _end(self, number: int, *, kill: bool = False) -> int:
        child, pipe = self.running.pop(number)
        self._ready.unregister(pipe)
        os.close(pipe)
        if kill:
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]


def _run(work: Work, pipe: int, parent: int) -> NoReturn:
    """Do a piece of work in a child, tell of it, and end the process."""
    told = 0

    def tell(part: int) -> None:
        nonlocal told
        if os.getppid() != parent:
            raise InternalError("the process that wanted this is gone")
        if part > told:
            told = part
            _send(pipe, {"done": part})

    with Answer(partial(_send, pipe)) as answer:
        # Ctrl-C, and a terminal that closes, reach the whole group: the parent alone answers them,
        # and kills this one.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _die_with_parent()
        tell(0)  # It may be gone already.
        answer.found = work(tell)
    raise AssertionError  # The answer has ended the process.


def _die_with_parent() -> None:
    """Ask the system to kill this process when its parent ends; see prctl(2)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _send(pipe: int, message: dict[str, Any]) -> None:
    content = msgpack.encode(message)
    left = memoryview(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
    while left:
        left = left[os.write(pipe, left) :]


def _read(pipe: int, length: int) -> bytes:
    """So many bytes, or none where the pipe ends before."""
    found = b""
    while len(found) < length:
        part = os.read(pipe, length - len(found))
        if not part:
            return b""
        found += part
    return found
