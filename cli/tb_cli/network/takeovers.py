"""What new offers take over: the jobs, once each offer is posted for good."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from msgspec.structs import replace

from compute_market.errors import MarketError
from compute_market.jobs import handovers, preempt
from compute_market.jobs.submit import Posted
from compute_market.store.txn import Txn
from tb_cli.frame.bulk import Outcome
from tb_cli.frame.guard import Terminated, whole
from tb_cli.frame.session import Session

T = TypeVar("T")

# What ends a command in the middle of a handoff: a signal, no memory or threads left, a bug.
_STOPS = (KeyboardInterrupt, Terminated, MemoryError, RuntimeError, ValueError)


class Takeovers:
    """Those of the offers of one command.

    Each job goes over on its own, after the offers of a chunk are committed. What goes wrong is
    told beside its offer, which stays posted; what stops the command waits until the outcomes of
    these are told.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._new: set[str] = set()  # offers of the present chunk that may take a job
        self._stopped: BaseException | None = None

    def tried(self, txn: Txn, posted: Posted, outcome: Outcome) -> Outcome:
        """The outcome of an offer that was posted in this transaction.

        A dry run hands its job over at once: it is rolled back with the offer.
        """
        if not posted.changed:
            return outcome
        takeover = preempt.proposed(txn, posted.offer)
        if takeover is None:
            return outcome
        if not self._session.dry_run:
            self._new.add(posted.offer.offer_id)
            return outcome
        before = takeover.job.placed.provider
        handovers.hand_over(txn, takeover.job, takeover.offer)
        return _with_job(outcome, takeover.job.job_id, before)

    def follow(self, outcomes: list[Outcome]) -> list[Outcome]:
        """What has become of offers that were committed."""
        found = []
        for outcome in outcomes:
            if outcome.name in self._new and outcome.error is None and not outcome.is_undone:
                found.append(self._stopped_or_tried(outcome))
            else:
                found.append(outcome)
        self._new.clear()
        return found

    def paced(self, items: Iterable[T]) -> Iterator[T]:
        """The items, until something has stopped what followed on those before."""
        for each in items:
            self.end()
            yield each

    def end(self) -> None:
        """Raise what stopped a handoff, now that all is told."""
        if self._stopped is not None:
            raise self._stopped

    def _stopped_or_tried(self, outcome: Outcome) -> Outcome:
        if self._stopped is not None:
            return outcome
        try:
            with whole.heard():
                return self._handed_over(outcome)
        except _STOPS as error:
            self._stopped = error  # `end` raises it.
            return outcome

    def _handed_over(self, outcome: Outcome) -> Outcome:
        from tb_cli.network import handoffs

        taken = handoffs.hand_over_best(self._session, outcome.name)
        if taken is None:
            return outcome
        job_id, ended = taken
        if not isinstance(ended, MarketError):
            return _with_job(outcome, ended.job.job_id, ended.present.provider)
        document = outcome.document | {"handoff_error": ended.document()}
        job = "a job" if job_id is None else f"job {job_id}"
        text = f"{outcome.text}, did not take over {job}: {ended.message}"
        return replace(outcome, text=text, document=document)


def _with_job(outcome: Outcome, job_id: str, before: str) -> Outcome:
    return replace(
        outcome,
        text=f"{outcome.text}, took over job {job_id} of {before}",
        document=outcome.document | {"took_over": job_id},
    )
