"""Changes of a market that answers: one after another in a thread of their own.

Those that wait together are committed together, by one write to the disk. A command that waits for
the write lock has it after the group that is being written.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any, Final, Literal, TypeVar

from msgspec import Struct

from compute_market.errors import BusyError
from compute_market.store.group import Outcome
from compute_market.store.txn import Txn
from tb_cli.frame.session import Session

T = TypeVar("T")

# What is committed at once: so many changes at most, and none that would begin later than this.
GROUP_MAX: Final = 64
GROUP_S: Final = 0.02


class _Waiting(Struct, gc=False):
    """A change that somebody waits for."""

    change: Callable[[Txn], Any]
    answer: "asyncio.Future[Any]"
    state: Literal["waits", "begun", "given_up"] = "waits"


class Turns:
    """Those of one market, until the `end`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._thread = ThreadPoolExecutor(1)
        self._lock = Lock()
        self._waiting: deque[_Waiting] = deque()
        self._is_coming = False  # the turn of those that wait
        self._is_over = False

    def end(self) -> None:
        """Finish what is under way, and let nobody wait any longer."""
        with self._lock:
            self._is_over = True
        self._session.market.store.give_up_waiting()
        self._thread.shutdown(cancel_futures=True)

    def submit(self, fn: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Call something that is no change of the market alone, in its turn."""
        return self._thread.submit(fn, *arguments)

    async def take(self, fn: Callable[..., T], *arguments: Any) -> T:
        """The same, and wait for it."""
        return await asyncio.wrap_future(self.submit(fn, *arguments))

    async def change(self, fn: Callable[[Txn], T]) -> T:
        """Make a change as `Session.update` does; it is durable when this returns or raises.

        Who is cancelled has either not begun it, or is told first what became of it.
        """
        waiting = _Waiting(fn, asyncio.get_running_loop().create_future())
        with self._lock:
            if self._is_over:
                raise BusyError("the server ends")
            self._waiting.append(waiting)
            if not self._is_coming:
                self._is_coming = True
                self.submit(self._commit)
        while not waiting.answer.done():
            try:
                await asyncio.wait((waiting.answer,))
            except asyncio.CancelledError:
                with self._lock:
                    if waiting.state != "begun":
                        waiting.state = "given_up"
                        waiting.answer.cancel()
                        raise
        found: T = waiting.answer.result()
        return found

    def _commit(self) -> None:
        """Commit a group. What waits then comes after what else was submitted meanwhile."""
        taken: list[_Waiting] = []
        try:
            try:
                outcomes: Sequence[Outcome[Any]] = _update_each(self._session, self._group(taken))
            except BaseException as error:
                # It would not go better for who waits for as long already.
                while self._waiting:
                    taken.append(self._waiting.popleft())
                outcomes = [Outcome(error=error)] * len(taken)
                raise
            # Whatever becomes of that: the answers are those of the commit.
            self._session.follow(self._session.market, patience_ms=0)
        finally:
            _answer(taken, outcomes)
            with self._lock:
                self._is_coming = bool(self._waiting) and not self._is_over
                if self._is_coming:
                    self.submit(self._commit)

    def _group(self, taken: list[_Waiting]) -> Iterator[Callable[[Txn], Any]]:
        """The changes that are asked for within the write lock; they go to `taken` too."""
        ends = time.monotonic() + GROUP_S
        while self._waiting and len(taken) < GROUP_MAX and time.monotonic() < ends:
            waiting = self._waiting.popleft()
            with self._lock:
                if waiting.state == "given_up":
                    continue
                waiting.state = "begun"
            taken.append(waiting)
            yield waiting.change


def _update_each(
    session: Session, changes: Iterable[Callable[[Txn], Any]]
) -> Sequence[Outcome[Any]]:
    """Commit changes together as `Session.update` does each."""
    market = session.market
    market.asked = session.asked()
    try:
        outcomes = market.update_each(changes)
    finally:
        session.warn_of_clock()
    session.tell_of(market.due)
    return outcomes


def _answer(taken: list[_Waiting], outcomes: Sequence[Outcome[Any]]) -> None:
    """Let those that wait go on, all at once."""
    if not taken:
        return

    def answer() -> None:
        for waiting, outcome in zip(taken, outcomes, strict=True):
            if waiting.answer.done():
                continue  # Nobody waits any more.
            if outcome.error is None:
                waiting.answer.set_result(outcome.returned)
            else:
                waiting.answer.set_exception(outcome.error)

    with suppress(RuntimeError):  # The loop has ended, and with it who waited.
        taken[0].answer.get_loop().call_soon_threadsafe(answer)
