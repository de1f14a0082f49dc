"""The jobs of a simulated world that are under way: who works on them, and when they are proven."""

from functools import partial
from itertools import accumulate
from typing import Final

from compute_market.amounts import units_of
from compute_market.jobs.cancel import cancel
from compute_market.jobs.prove import prove
from compute_market.records import Event, EventName
from compute_market.simulation.arrivals import DIGEST, WRONG, Arrival
from compute_market.simulation.providers import Provider
from compute_market.simulation.stage import Stage
from compute_market.store.txn import Txn

# The events that anybody does something after.
FOLLOWED: Final[frozenset[EventName]] = frozenset(
    (
        "job_queued",
        "job_started",
        "job_handed_over",
        "job_completed",
        "job_cancelled",
        "job_failed",
    )
)


class Task:
    """One job from its submission to its end."""

    __slots__ = (
        "duration_ms",
        "left_ms",
        "lengths",
        "offer_id",
        "plan",
        "proven",
        "provider",
        "since_ms",
        "slice_ms",
        "will_fail",
    )

    def __init__(self, arrival: Arrival) -> None:
        self.lengths = [entry.length for entry in arrival.slices]
        self.duration_ms = arrival.duration_ms
        self.provider: Provider | None = None
        self.offer_id = ""
        self.proven = 0  # slices
        self.plan = 0  # grows with every change of plan: what was planned before is void
        self.slice_ms: list[int] = []  # that each slice takes with its present provider
        self.since_ms = 0  # when the present slice was begun, or gone on with
        self.left_ms = 0  # of the present slice by then
        self.will_fail = False


class Work:
    """Everything that is under way. It follows the events of the market."""

    def __init__(self, stage: Stage, providers: dict[str, Provider]) -> None:
        self._stage = stage
        self._providers = providers
        self._tasks: dict[str, Task] = {}
        # Name of a provider → the active jobs it holds, in order.
        self._held: dict[str, dict[str, None]] = {name: {} for name in providers}

    def expect(self, arrival: Arrival) -> None:
        """Know of a job that is being submitted."""
        self._tasks[arrival.request.job_id] = Task(arrival)

    def forget(self, job_id: str) -> None:
        """Know no more of a job that was not let in."""
        del self._tasks[job_id]

    def is_alive(self, job_id: str) -> bool:
        return job_id in self._tasks

    def follow(self, txn: Txn, event: Event) -> None:
        """Do what an event of the market, one of `FOLLOWED`, makes everybody do."""
        task = self._tasks.get(event.job_id or "")
        if task is None or event.job_id is None:
            return
        job_id = event.job_id
        if event.event == "job_queued":
            self._give(task, event.detail["provider"], event.offer_id or "")
            self._restock(txn, task)
        elif event.event == "job_started":
            self._begin(txn.now_ms, job_id, task)
        elif event.event == "job_handed_over":
            self._drop(job_id, task)
            self._give(task, event.detail["to"], event.offer_id or "")
            self._restock(txn, task)
            self._begin(txn.now_ms, job_id, task)
        else:
            self._drop(job_id, task)
            del self._tasks[job_id]

    def pause(self, now_ms: int, provider: Provider) -> None:
        """Let the jobs of a provider that has gone lie."""
        for job_id in self._held[provider.name]:
            task = self._tasks[job_id]
            task.plan += 1
            task.left_ms = max(0, task.left_ms - (now_ms - task.since_ms))

    def resume(self, now_ms: int, provider: Provider) -> None:
        """Go on with what was left lying."""
        if provider.group.leaving != "pauses":
            return
        for job_id in self._held[provider.name]:
            self._go_on(now_ms, job_id, self._tasks[job_id])

    def cancel_all(self, txn: Txn, provider: Provider) -> None:
        """Have a provider cancel what it holds."""
        for job_id in list(self._held[provider.name]):
            self._cancel(txn, job_id)

    def _give(self, task: Task, provider: str, offer_id: str) -> None:
        task.provider = self._providers.get(provider)
        task.offer_id = offer_id

    def _restock(self, txn: Txn, task: Task) -> None:
        if task.provider is not None:
            task.provider.restock(txn, task.offer_id)

    def _drop(self, job_id: str, task: Task) -> None:
        task.plan += 1
        if task.provider is not None:
            self._held[task.provider.name].pop(job_id, None)

    def _begin(self, now_ms: int, job_id: str, task: Task) -> None:
        """Have its provider begin with what is left of a job that was started."""
        provider = task.provider
        if provider is None:
            return  # Nobody that the scenario knows: it is never done.
        self._held[provider.name][job_id] = None
        task.will_fail = not provider.does_job()
        unit_ms = provider.unit_ms()
        task.slice_ms = _slice_ms(task, unit_ms)
        task.left_ms = task.slice_ms[task.proven]
        if provider.is_there or provider.group.leaving != "pauses":
            self._go_on(now_ms, job_id, task)

    def _go_on(self, now_ms: int, job_id: str, task: Task) -> None:
        """Plan the end of the present slice."""
        task.since_ms = now_ms
        task.plan += 1
        provider = task.provider
        assert provider is not None
        if task.will_fail and (provider.group.failure == "silent" or not provider.group.serves):
            return
        self._stage.plan(now_ms + task.left_ms, partial(self._end_slice, job_id, task, task.plan))

    def _end_slice(self, job_id: str, task: Task, plan: int, txn: Txn) -> None:
        """Have a provider do what it does at the end of a slice."""
        if plan != task.plan:
            return
        provider = task.provider
        assert provider is not None
        if task.will_fail and provider.group.failure == "cancels":
            self._cancel(txn, job_id)
            return
        if task.will_fail:
            # Once; then it does the slice again.
            task.will_fail = False
            self._prove(txn, job_id, task.proven, WRONG)
            task.left_ms = task.slice_ms[task.proven]
        else:
            self._prove(txn, job_id, task.proven, DIGEST)
            task.proven += 1
            if task.proven == len(task.lengths):
                return
            task.left_ms = task.slice_ms[task.proven]
        self._go_on(txn.now_ms, job_id, task)

    def _prove(self, txn: Txn, job_id: str, index: int, digest: bytes) -> None:
        self._stage.attempt("prove", job_id, lambda: prove(txn, job_id, [(index, digest)]))

    def _cancel(self, txn: Txn, job_id: str) -> None:
        self._stage.attempt("cancel", job_id, lambda: cancel(txn, job_id, "provider"))


def _slice_ms(task: Task, unit_ms: int) -> list[int]:
    """How long each slice of a job takes: so much for a unit, or its part of the whole job."""
    if task.duration_ms is not None and len(task.lengths) == 1:
        return [task.duration_ms]
    units = [units_of(length) for length in task.lengths]
    if task.duration_ms is None:
        return [each * unit_ms for each in units]
    whole = sum(units)
    ends = [task.duration_ms * done // whole for done in accumulate(units)]
    return [end - begun for begun, end in zip([0, *ends], ends, strict=False)]
