"""What all in a simulated world share: what is to happen when, and what was refused."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TypeVar

from msgspec import Struct

from compute_market.errors import AlreadyDoneError, ConflictError, NotFoundError, RefusedError
from compute_market.store.txn import Txn

T = TypeVar("T")

Act = Callable[[Txn], None]
Miss = Callable[[], None]


class Failed(Struct, frozen=True, gc=False):
    """An action the market did not take: an error, which the log does not keep."""

    action: str  # submit, prove, cancel, post, withdraw, …
    about: str  # id of the job or offer, or who acted
    reason: str
    message: str


class Stage:
    """What is to happen, in order of time; among what happens at once the first planned first."""

    def __init__(self) -> None:
        self._planned: list[tuple[int, int, Act, Miss | None]] = []
        self._number = 0
        self.failed: list[Failed] = []  # since somebody took them

    def plan(self, at_ms: int, act: Act, miss: Miss | None = None) -> None:
        """Have something done at an instant.

        If nobody can do anything then, `miss` happens instead, or it is done later without one.
        """
        self._number += 1
        heappush(self._planned, (at_ms, self._number, act, miss))

    def next_ms(self) -> int | None:
        """When the next thing is to happen; None when nothing is."""
        return self._planned[0][0] if self._planned else None

    def take(self, at_ms: int) -> Act | None:
        """The next that is to happen at an instant; None when nothing more is."""
        if self._planned and self._planned[0][0] == at_ms:
            return heappop(self._planned)[2]
        return None

    def put_off(self, at_ms: int, until_ms: int) -> None:
        """Let what is to happen at an instant be missed, or happen later than that."""
        while self._planned and self._planned[0][0] == at_ms:
            _, _, act, miss = heappop(self._planned)
            if miss is None:
                self.plan(until_ms, act)
            else:
                miss()

    def attempt(self, action: str, about: str, fn: Callable[[], T]) -> T | None:
        """Do something that the market may refuse by an error; None, and it is kept, if it does.

        Such an error comes before anything is written, so that the step goes on.
        """
        try:
            return fn()
        except (RefusedError, ConflictError, NotFoundError, AlreadyDoneError) as error:
            reason = error.reason or error.token
            self.failed.append(Failed(action, about, reason, error.message))
            return None
