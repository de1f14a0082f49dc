"""The jobs that run and are selected, as what a command acts on."""

from collections.abc import Iterator
from typing import Any

from compute_market.jobs import pages
from compute_market.jobs.selection import Selection
from compute_market.scheduler import queue
from compute_market.store.schema import PENDING, QUEUE_PAIRS
from compute_market.store.txn import Txn
from compute_market.text import counted
from tb_cli.frame.bulk import Given, Place
from tb_cli.frame.confirmation import confirm, is_asked
from tb_cli.frame.render import note
from tb_cli.frame.session import Session


class ActiveJobs:
    """Jobs of a selection, those with the next deadline first.

    Those that are selected when the first is asked for; with `until_empty` also those that have
    come to it when they are through, again and again. None comes twice. Where somebody is asked
    first, those that have come after the question are not begun with.
    """

    def __init__(self, session: Session, asked: Selection, *, until_empty: bool) -> None:
        self._session = session
        self._asked = asked
        self._until_empty = until_empty
        self._seen: set[str] = set()
        self._confirmed: frozenset[str] | None = None
        self._chosen: list[str] | None = None  # by the last look
        self._next = 0  # of those, the first that is not dealt with

    @property
    def total(self) -> int | None:
        """Others may become active at any time."""
        return None

    def ask(self, *, yes: bool) -> None:
        """Ask whether they are meant, if somebody is there to be asked.

        Raises RefusedError if that is declined.
        """
        if is_asked(self._session, yes=yes):
            found = self._session.view(self._look)
            if found:
                self._tell(found)
                confirm(self._session, f"execute {counted(len(found), 'job')}?", yes=yes)
            self._confirmed = frozenset(found)

    def __iter__(self) -> Iterator[Given[str]]:
        found = self._begun_with()
        if found and (self._confirmed is None or len(found) != len(self._confirmed)):
            self._tell(found)
        while found:
            self._chosen, self._next = found, 0
            self._seen.update(found)
            for index, job_id in enumerate(found):
                yield Given(job_id, job_id, None, (index,))
            if not self._until_empty:
                return
            found = self._session.view(self._look)

    def again(self, given: Given[Any]) -> str:
        return given.name

    def forget(self, place: Place) -> None:
        """Everything up to that place of the last look was dealt with."""
        self._next = place[0] + 1

    def left(self) -> Iterator[str]:
        """Those that were not dealt with, and what would have come after them as it is now."""
        if self._chosen is None:
            yield from self._begun_with()
            return
        yield from self._chosen[self._next :]
        if self._until_empty:
            yield from self._session.view(self._look)

    @property
    def found(self) -> int:
        """How many have come."""
        return len(self._seen)

    def summary(self) -> str:
        """What is left when a command is through."""

        def counts(txn: Txn) -> tuple[int, int, int]:
            return queue.active_jobs(txn), txn.size(QUEUE_PAIRS), txn.size(PENDING)

        active, queued, pending = self._session.view(counts)
        return f"{len(self._seen)} tried; {active} active, {queued} queued, {pending} pending now"

    def _begun_with(self) -> list[str]:
        found = self._session.view(self._look)
        confirmed = self._confirmed
        return found if confirmed is None else [each for each in found if each in confirmed]

    def _tell(self, found: list[str]) -> None:
        note(f"{counted(len(found), 'job')} selected")

    def _look(self, txn: Txn) -> list[str]:
        found = [
            (job.deadline, job.job_id)
            for job in pages.every(txn, self._asked)
            if job.job_id not in self._seen
        ]
        return [job_id for _, job_id in sorted(found)]
