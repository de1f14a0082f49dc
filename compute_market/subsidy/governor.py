"""The governor: what it sees of the market at the end of an epoch, and what it makes of that.

The multiplier follows the formula of the specification's chapter on demand and subsidy: it rises
with the backlog, the more so the less is being done, and comes back to 100 once there is none.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from compute_market.admission import capacity
from compute_market.admission.shares import WINDOW_SECS
from compute_market.amounts import half_up
from compute_market.jobs import demand, jobs
from compute_market.jobs.expire import next_deadline
from compute_market.store.schema import DEADLINES, unpack_u64
from compute_market.store.txn import Txn

# Percent. A market that nobody works for is at the upper end after 33 epochs. More would bring
# nobody who a hundredfold does not bring, and what the supply pays has to have an end.
MULTIPLIER_START: Final = 100
MULTIPLIER_MAX: Final = 10_000
STEP_PCT: Final = 15
# Jobs whose deadlines are looked at to tell what the backlog was at ends of epochs gone by.
LOOK_BACK_JOBS: Final = 10_000


def retuned(multiplier: int, backlog: int, utilization_pct: int) -> int:
    """The multiplier after a sample: exact, half up, no step of more than 15 %, 100…10 000."""
    if multiplier == (MULTIPLIER_MAX if backlog else MULTIPLIER_START):
        return multiplier  # Most often: it is at the end that it goes to.
    if backlog == 0:
        aim = MULTIPLIER_START
    elif utilization_pct == 0:
        aim = 2 * multiplier
    else:
        aim = half_up(multiplier * (utilization_pct + backlog), utilization_pct)
    least = half_up(multiplier * (100 - STEP_PCT), 100)
    most = half_up(multiplier * (100 + STEP_PCT), 100)
    return min(max(aim, least), most, MULTIPLIER_MAX)


def unchanged(txn: Txn, since: int, until: int) -> tuple[int, int] | None:
    """The sample of all seconds from one to another since the last change, which no change has
    `since`, if it is the same: backlog in units, and no utilization. Else None; see `Past`."""
    deadline = next_deadline(txn)
    if (deadline is not None and deadline < until) or _recent(txn, since):
        return None
    return jobs.backlog_units(txn), 0


def _recent(txn: Txn, since: int) -> list[tuple[int, int]]:
    """Seconds and what was proven in each, if all of it together makes a percent: else no minute of
    it does."""
    found = demand.throughput(txn, since)
    proven = 0
    for _, units in found:
        proven += units
    return found if proven and demand.percent(proven, capacity.estimate(txn)) else []


class Past:
    """What the market looked like at one second after another, since the last change of it.

    Nothing but time has changed it: work has become older than a minute, and deadlines have passed.
    A job whose deadline has passed is no backlog, although no change has failed it yet. No second
    before `since` is asked for.
    """

    def __init__(self, txn: Txn, since: int) -> None:
        self._txn = txn
        self._throughput = _recent(txn, since)
        if self._throughput:
            self._estimate = capacity.estimate(txn)
        self._backlog = jobs.backlog_units(txn)
        # Most often no deadline has passed, and a walk takes longer than to look at the first.
        first = txn.first(DEADLINES)
        self._next = None if first is None else _split(first[0])
        self._later: Iterator[tuple[int, bytes]] | None = None

    def sample(self, second: int) -> tuple[int, int]:
        """Backlog in units, and utilization in percent. Seconds must not go back."""
        while self._next is not None and self._next[0] < second:
            job = jobs.named(self._txn, self._next[1])
            if job.state != "pending":
                self._backlog -= job.units - job.units_proven
            if self._later is None:
                self._later = islice(self._walked(), 1, None)
            self._next = next(self._later, None)
        if not self._throughput:
            return self._backlog, 0
        return self._backlog, demand.percent_at(self._throughput, second, self._estimate)

    def changes_after(self, second: int) -> int | None:
        """The first second after the one that was sampled last at which the sample may be another;
        None when it stays."""
        if not self._throughput:  # Most often.
            return None if self._next is None else self._next[0] + 1
        changes = [
            change
            for proven, _ in self._throughput
            for change in (proven, proven + WINDOW_SECS)
            if change > second
        ]
        if self._next is not None:
            changes.append(self._next[0] + 1)
        return min(changes, default=None)

    def _walked(self) -> Iterator[tuple[int, bytes]]:
        """Deadlines and the ids of their jobs, the nearest first."""
        for key, _ in islice(self._txn.scan(DEADLINES), LOOK_BACK_JOBS):
            yield _split(key)


def _split(key: bytes) -> tuple[int, bytes]:
    return unpack_u64(key[:8]), key[8:]
