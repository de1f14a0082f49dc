"""What is measured while a simulation runs.

`Measures` is told what happens as it happens, and looks at the market now and then. It keeps sums,
counts and a bounded series, so its memory does not grow with the number of jobs: only with that of
the jobs that wait just now, and of the parties.
"""

from itertools import islice

from msgspec import Struct

from compute_market import metrics
from compute_market.admission import capacity, comfort, mempool, shares
from compute_market.amounts import MICRO, PPM, half_up
from compute_market.jobs import jobs
from compute_market.offers import board
from compute_market.records import LANES, PRIORITIES, Event, Lane, Priority
from compute_market.reputation import reputation
from compute_market.scheduler import queue
from compute_market.simulation.scenario import Scenario
from compute_market.simulation.world import Step
from compute_market.store.schema import DEADLINES, PENDING
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy

# Samples of a series. Once there are twice as many, every other one is dropped.
SAMPLES_MIN = 240
# Parties of each role that a sample and the report name; and providers whose score it tells.
PARTIES_MAX = 10
SCORES_MAX = 1000
# Significant bits of a wait: within 0.1 % of it.
_WAIT_BITS = 11
# Outcomes of a job that ended, by the event that tells of it.
_ENDED = {"job_completed": "completed", "job_cancelled": "cancelled", "job_failed": "failed"}
_TRANSACTIONS = {"tx_admitted": "admitted", "tx_refused": "refused", "tx_evicted": "evicted"}


class Waits:
    """Waits in milliseconds: their number, the longest, and quantiles.

    They are counted by their first 11 significant bits: a quantile is too low by less than 0.1 %,
    and exact below 2048 ms. The room that takes is bounded.
    """

    __slots__ = ("_counts", "count", "max_ms")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.max_ms = 0

    def add(self, wait_ms: int) -> None:
        dropped = max(0, wait_ms.bit_length() - _WAIT_BITS)
        kept = wait_ms >> dropped << dropped
        self._counts[kept] = self._counts.get(kept, 0) + 1
        self.count += 1
        self.max_ms = max(self.max_ms, wait_ms)

    def take(self, other: "Waits") -> None:
        """Count those of another as well."""
        for kept, count in other._counts.items():
            self._counts[kept] = self._counts.get(kept, 0) + count
        self.count += other.count
        self.max_ms = max(self.max_ms, other.max_ms)

    def quantile(self, percent: int) -> int:
        """The wait in place half-up((n - 1) · percent / 100) of the ascending ones; 0 of none."""
        place = half_up((self.count - 1) * percent, 100) if self.count else 0
        for wait_ms in sorted(self._counts):
            place -= self._counts[wait_ms]
            if place < 0:
                return wait_ms
        return 0

    def document(self) -> dict[str, int]:
        return {"p50": self.quantile(50), "p95": self.quantile(95), "max": self.max_ms}


def fairness_ppm(shares_taken: list[int]) -> int:
    """Jain's fairness index, (Σx)² / (n · Σx²), in ppm.

    1 000 000 when all have the same, 1 000 000 / n when one has everything; all is fair where
    nobody has anything. Source: R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and
    Discrimination for Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984.
    """
    squares = sum(each * each for each in shares_taken)
    if not squares:
        return PPM
    return half_up(sum(shares_taken) ** 2 * PPM, len(shares_taken) * squares)


class Sample(Struct, frozen=True, gc=False):
    """The market at one instant; what is counted is counted since the beginning."""

    at_ms: int  # since the beginning
    submitted: int
    admitted: int
    refused: int
    completed: int
    pending: int  # jobs that wait for an offer
    queued: dict[str, int]  # jobs that wait for a slot, by priority
    active: int
    backlog: int  # unproven units of queued and active jobs
    utilization_ppm: int  # of the capacity since the sample before
    mode: str
    fee_p90: int
    multiplier: int
    prices: dict[str, tuple[int, int, int] | None]  # p25, median, p75 by lane
    # Usage of the last minute as a part of the capacity of a minute, of the largest parties.
    buyers_ppm: dict[str, int]
    providers_ppm: dict[str, int]


class Totals(Struct, frozen=True, gc=False):
    """What the market itself counted by the end."""

    deferred: int
    money: dict[str, dict[str, int]]  # paid, refunded, burned → token → amount
    preemptions: dict[str, int]
    scores: dict[str, int]
    left: int  # jobs that have not ended


class Party:
    """What one party came to."""

    __slots__ = ("peak_ppm", "submitted", "units")

    def __init__(self) -> None:
        self.submitted = 0  # jobs of a buyer
        self.units = 0  # proven for a buyer, by a provider
        self.peak_ppm = 0  # the largest share of the capacity of a minute


class Measures:
    """The observer of one run, which is called at the end of each step; see `world.Observer`."""

    def __init__(self, scenario: Scenario) -> None:
        self.started_ms = scenario.start_ms
        self.ends_ms = scenario.end_ms
        self.submitted = 0
        self.admitted = 0
        self.refused: dict[str, int] = {}
        # What else the market did not take: action → reason → how often.
        self.failures: dict[str, dict[str, int]] = {}
        self.ended = dict.fromkeys(_ENDED.values(), 0)
        self.units_proven = 0
        self.capacity_units_ms = 0  # the estimate over time
        self.subsidies_it = 0
        self.tight_ms = 0  # of the comfort guard, to a sample
        self.transactions = dict.fromkeys(_TRANSACTIONS.values(), 0)  # of consumers
        self.waits: dict[Priority, Waits] = {priority: Waits() for priority in PRIORITIES}
        self.buyers: dict[str, Party] = {}
        self.providers: dict[str, Party] = {}
        self.samples: list[Sample] = []
        self.totals: Totals | None = None
        self._charged: set[tuple[shares.Role, str]] = set()  # parties, in the present step
        self._waiting: dict[str, int] = {}  # when the jobs that have not started came
        self._every = 1  # one sample of so many is kept
        self._skipped = 0
        self._sampled_ms = scenario.start_ms
        self._units_sampled = 0

    def __call__(self, txn: Txn, step: Step) -> None:
        for event in step.events:
            self._event(txn, event)
        self._note_peaks(txn)
        for failed in step.failed:
            if failed.action == "submit":
                self._refuse(failed.reason)
            else:
                reasons = self.failures.setdefault(failed.action, {})
                reasons[failed.reason] = reasons.get(failed.reason, 0) + 1
        if step.is_sample:
            self._sample(txn)
        if step.at_ms == self.ends_ms:
            self.totals = _totals(txn)

    # What happens.

    def _event(self, txn: Txn, event: Event) -> None:
        job_id, name = event.job_id, event.event
        if name == "subsidy_paid":
            self.subsidies_it += int(event.detail.get("it", 0))
        if name in _TRANSACTIONS:
            self.transactions[_TRANSACTIONS[name]] += 1
        if job_id is None:
            return
        if name == "job_proved":
            self._prove(event)
        elif name == "job_pending":
            self._submit(txn, job_id, event)
        elif name == "job_queued":
            self.admitted += 1
            self._charged.add(("buyer", event.owner or ""))
            self._charged.add(("provider", event.detail["provider"]))
            if job_id not in self._waiting:
                self._submit(txn, job_id, event)
        elif name == "job_started":
            self._start(txn, job_id)
        elif name == "job_refused":
            self._of_buyer(event).submitted += 1
            self._refuse(str(event.detail["reason"]))
        elif name in _ENDED:
            self.ended[_ENDED[name]] += 1
            self._waiting.pop(job_id, None)

    def _submit(self, txn: Txn, job_id: str, event: Event) -> None:
        self.submitted += 1
        self._waiting[job_id] = txn.now_ms
        self._of_buyer(event).submitted += 1

    def _refuse(self, reason: str) -> None:
        self.submitted += 1
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _start(self, txn: Txn, job_id: str) -> None:
        submitted_ms = self._waiting.pop(job_id)
        self.waits[jobs.get(txn, job_id).priority].add(txn.now_ms - submitted_ms)

    def _prove(self, event: Event) -> None:
        units = event.detail["units"]
        self.units_proven += units
        self._of_buyer(event).units += units
        _of(self.providers, event.detail["provider"]).units += units

    def _of_buyer(self, event: Event) -> Party:
        return _of(self.buyers, event.owner or "")

    # How the market stands.

    def _sample(self, txn: Txn) -> None:
        elapsed_ms = txn.now_ms - self._sampled_ms
        capacity_units_ms = capacity.estimate(txn) * elapsed_ms
        units = self.units_proven - self._units_sampled
        self.capacity_units_ms += capacity_units_ms
        self._sampled_ms, self._units_sampled = txn.now_ms, self.units_proven
        mode = comfort.mode(txn)
        self.tight_ms += elapsed_ms if mode == "tight" else 0
        buyers_ppm, providers_ppm = self._shares(txn)
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        self.samples.append(
            Sample(
                txn.now_ms - self.started_ms,
                self.submitted,
                self.admitted,
                sum(self.refused.values()),
                self.ended["completed"],
                txn.size(PENDING),
                {priority: queue.depth(txn, priority) for priority in PRIORITIES},
                queue.active_jobs(txn),
                jobs.backlog_units(txn),
                half_up(units * 1000 * PPM, capacity_units_ms) if capacity_units_ms else 0,
                mode,
                mempool.present(txn).fee_p90,
                subsidy.multiplier(txn),
                {lane: _bands(txn, lane) for lane in LANES},
                buyers_ppm,
                providers_ppm,
            )
        )
        if len(self.samples) >= 2 * SAMPLES_MIN:
            del self.samples[::2]
            self._every *= 2

    def _shares(self, txn: Txn) -> tuple[dict[str, int], dict[str, int]]:
        """The largest shares of the capacity now, by role."""
        minute_micro = _minute_micro(txn)
        found: dict[str, dict[str, int]] = {"buyer": {}, "provider": {}}
        for each in shares.recent(txn):
            if not each.used_micro:
                break  # Older ones have used nothing of this minute either.
            found[each.role][each.identity] = _share_ppm(each, minute_micro)
        return _largest(found["buyer"]), _largest(found["provider"])

    def _note_peaks(self, txn: Txn) -> None:
        """Look at the parties that this step has charged: a usage is largest when it grows."""
        if not self._charged:
            return
        minute_micro = _minute_micro(txn)
        for role, identity in self._charged:
            party = _of(self.buyers if role == "buyer" else self.providers, identity)
            share_ppm = _share_ppm(shares.party(txn, role, identity), minute_micro)
            party.peak_ppm = max(party.peak_ppm, share_ppm)
        self._charged.clear()


def _minute_micro(txn: Txn) -> int:
    """What the market can do in one minute, in micro-units."""
    return capacity.estimate(txn) * shares.WINDOW_SECS * MICRO


def _share_ppm(party: shares.Party, minute_micro: int) -> int:
    return half_up(party.used_micro * PPM, minute_micro) if minute_micro else 0


def _totals(txn: Txn) -> Totals:
    split, taken_over = "compute_market_fee_split", "scheduler_preempt_total"
    kinds, tokens = ("paid", "refunded", "burned"), ("ct", "it")
    return Totals(
        metrics.value(txn, "industrial_deferred_total"),
        {kind: {t: metrics.value(txn, split, t, kind) for t in tokens} for kind in kinds},
        {r: metrics.value(txn, taken_over, r) for r in ("success", "handoff_failed")},
        dict(sorted(islice(reputation.recent(txn), SCORES_MAX))),
        txn.size(DEADLINES),
    )


def _bands(txn: Txn, lane: Lane) -> tuple[int, int, int] | None:
    found = board.bands(txn, lane)
    return None if found is None else (found.p25, found.median, found.p75)


def _of(parties: dict[str, Party], identity: str) -> Party:
    found = parties.get(identity)
    if found is None:
        found = parties[identity] = Party()
    return found


def _largest(shares_ppm: dict[str, int]) -> dict[str, int]:
    ranked = sorted(shares_ppm.items(), key=lambda each: (-each[1], each[0]))
    return dict(ranked[:PARTIES_MAX])
