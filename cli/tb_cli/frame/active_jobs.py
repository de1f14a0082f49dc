"""The jobs that run and are selected, as what a command acts on."""

from collections.abc import Iterator
from typing import Any

from compute_market.jobs import pages
from compute_market.jobs.selection import Selection
from compute_market.scheduler import queue
from compute_market.store.schema import PENDING, QUEUE_PAIRS
from compute_market.store.txn import Txn
from tb_cli.frame.bulk import Given, Place
from tb_cli.frame.render import note
from tb_cli.frame.session import Session


class ActiveJobs:
    """Jobs of a selection, those with the next deadline first.

    Those that are selected when the first is asked for; with `until_empty` also those that have
    come to it when they are through, again and again. None comes twice.
    """

    def __init__(self, session: Session, asked: Selection, *, until_empty: bool) -> None:
        self._session = session
        self._asked = asked
        self._until_empty = until_empty
        self._seen: set[str] = set()

    @property
    def total(self) -> int | None:
        """Others may become active at any time."""
        return None

    def __iter__(self) -> Iterator[Given[str]]:
        while found := self._session.view(self._look):
            if not self._seen:
                note(f"{len(found)} job{'' if len(found) == 1 else 's'} selected")
            for job_id in found:
                self._seen.add(job_id)
                yield Given(job_id, job_id)
            if not self._until_empty:
                return

    def again(self, given: Given[Any]) -> str:
        return given.name

    def forget(self, place: Place) -> None:
        """They are not kept."""

    def left(self) -> Iterator[str]:
        """Those that were not dealt with are still active: the same selection has them."""
        return iter(())

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

    def _look(self, txn: Txn) -> list[str]:
        found = [
            (job.deadline, job.job_id)
            for job in pages.every(txn, self._asked)
            if job.job_id not in self._seen
        ]
        return [job_id for _, job_id in sorted(found)]
