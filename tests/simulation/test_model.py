"""Random histories against a plain model of the market.

The model is written from the documents, with sorted lists, dicts and fractions where the library
has indexes and integers, and predicts the outcome of every action and the state after it: which
offer wins, which job starts, who is paid what, what is counted. After each step the store must
look exactly like the model, and the audit must find nothing.
"""

import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from compute_market import chain
from compute_market.admission import admission
from compute_market.errors import MarketError
from compute_market.jobs import cancellations, jobs, lifecycle
from compute_market.jobs.lifecycle import InvalidProof
from compute_market.offers import offers
from compute_market.records import Refused
from compute_market.scheduler import matching as scheduler
from compute_market.scheduler import queue
from compute_market.settlement import ledger, settlement
from compute_market.store.store import Txn
from tests.support.market import DIGEST, START_MS, Market, job_request, offer_request, slice_of

MIB = 1_048_576
MICRO = 1_000_000
CLASSES = ("high", "normal", "low")
STAGES = (
    "capability_mismatch",
    "reputation_failure",
    "price_mismatch",
    "no_capacity",
    "bond_unfunded",
)
WRONG = bytes(32)

# What the machine sets at the start, so that shares, buckets and penalties come into play soon.
START_CONFIG = {
    "slots": 2,
    "fair_share_cap_ppm": 10_000,
    "burst_quota_micro": 20 * MICRO,
    "provider_cancel_penalty_after": 2,
    "provider_cancel_window_secs": 30,
}


class Denied(Exception):
    """The action is refused and leaves nothing behind."""


def split(amount: int, pct: int) -> tuple[int, int]:
    ct = ceil(Fraction(amount * pct, 100))
    return ct, amount - ct


class Model:
    """The market as a person would keep it on paper."""

    def __init__(self, mode: str) -> None:
        self.now_ms = START_MS
        self.config: dict[str, int] = {
            "low_priority_cap_pct": 50,
            "priority_aging_secs": 0,
            **START_CONFIG,
        }
        self.mode = mode
        self.activate_at = 0
        self.height_by_hand = 0
        self.height_seen = 0
        self.wallets: dict[tuple[str, str], int] = Counter()
        self.issued: dict[str, int] = Counter()  # by the tap, per token
        self.burned = 0
        self.scores: dict[str, int] = {}
        self.offers: dict[str, Record] = {}
        self.jobs: dict[str, Record] = {}
        self.arrivals = 0
        self.samples: list[int] = []
        self.usage: dict[tuple[str, str], tuple[int, int, int]] = {}  # used, burst, at_ms
        self.cancels: list[tuple[str, int]] = []
        self.log = ""
        self.receipts: list[Record] = []
        self.decisions: list[tuple[str, str, str]] = []
        self.counts: dict[tuple[str, ...], int] = Counter()
        self.effective_price: int | None = None

    def count(self, *series: str, by: int = 1) -> None:
        if by:
            self.counts[series] += by

    # Heights and the settlement mode.

    def elapsed_secs(self) -> int:
        return max(0, self.now_ms - START_MS) // 1000

    def height(self) -> int:
        """It never goes back, not even when the clock does."""
        return max(self.height_seen, self.elapsed_secs() + self.height_by_hand)

    def advance_height(self, blocks: int) -> int:
        """Always by that many blocks from where it is."""
        self.height_seen = self.height() + blocks
        self.height_by_hand = self.height_seen - self.elapsed_secs()
        return self.height_seen

    def turn(self, mode: str) -> None:
        self.mode = mode
        self.count("settle_mode_change_total", mode)

    def housekeeping(self) -> None:
        self.height_seen = self.height()
        if self.mode == "armed" and self.height() >= self.activate_at:
            self.turn("real")
        if self.mode == "real":
            for receipt in self.receipts:
                if receipt.status == "pending":
                    self.pay(receipt)
        late = [j for j in self.live() if self.now_ms // 1000 > j.deadline]
        for job in sorted(late, key=lambda j: (j.deadline, j.id)):
            self.miss(job)
        self.work()

    def arm(self, delay: int) -> None:
        if self.mode != "dry_run":
            raise Denied("mode")
        self.turn("armed")
        self.activate_at = self.height() + delay

    def cancel_arm(self) -> None:
        if self.mode != "armed":
            raise Denied("mode")
        self.turn("dry_run")

    def to_dry_run(self) -> bool:
        changed = self.mode != "dry_run"
        if changed:
            self.turn("dry_run")
        return changed

    # Money.

    def tap(self, owner: str, ct: int, it: int) -> None:
        """Negative amounts are taken out."""
        if self.wallets[owner, "CT"] + ct < 0 or self.wallets[owner, "IT"] + it < 0:
            raise Denied("insufficient_funds")
        for token, amount in (("CT", ct), ("IT", it)):
            self.wallets[owner, token] += amount
            self.issued[token] += amount

    def pay(self, receipt: Record) -> None:
        job = self.jobs[receipt.job]
        for token in ("CT", "IT"):
            amount = receipt.due[token]
            job.escrow[token] -= amount
            job.paid[token] += amount
            self.wallets[receipt.provider, token] += amount
            self.count("compute_market_fee_split", token.lower(), "paid", by=amount)
        receipt.status = "applied"
        self.count("settle_applied_total")

    def balances(self) -> dict[str, int]:
        found: dict[str, int] = {
            f"wallet/{who} {token}": n for (who, token), n in self.wallets.items()
        }
        for job in self.jobs.values():
            for token, amount in job.escrow.items():
                found[f"escrow/{job.id} {token}"] = amount
            for role, amount in job.bonds.items():
                found[f"bond/{job.id}/{role} CT"] = amount
        found["burned CT"] = self.burned
        for token, amount in self.issued.items():
            found[f"supply {token}"] = -amount
        return {account: amount for account, amount in found.items() if amount}

    # Scores and offers.

    def change_score(self, provider: str, by: int) -> None:
        self.scores[provider] = max(-1000, min(1000, self.scores[provider] + by))
        self.count("reputation_adjust_total", "success" if by > 0 else "failure")

    def post(self, offer: Record) -> list[str]:
        """Returns the pending jobs that found a match."""
        self.offers[offer.id] = offer
        self.scores.setdefault(offer.provider, offer.reputation)
        return self.match_pending(offer)

    def sells(self, offer: Record) -> bool:
        standing = self.scores[offer.provider] >= 0
        return standing and not offer.withdrawn and not offer.directed and offer.left > 0

    # Matching.

    def stage(self, job: Record, offer: Record) -> int:
        """How far an offer comes: the index into STAGES it fails at, or their number."""
        need, has = job.capability, offer.capability
        capable = (
            not offer.withdrawn
            and offer.directed in (None, job.id)
            and offer.provider != job.buyer
            and all(not need.get(m) or need[m] == has.get(m) for m in ("gpu", "accelerator"))
            and all(
                need.get(n, 0) <= has.get(n, 0) for n in need if n not in ("gpu", "accelerator")
            )
        )
        if not capable:
            return 0
        if self.scores[offer.provider] < 0:
            return 1
        if offer.price > job.max_price or offer.consumer_bond > job.consumer_bond:
            return 2
        if offer.left < job.units:
            return 3
        if self.mode == "real" and self.wallets[offer.provider, "CT"] < offer.provider_bond:
            return 4
        return 5

    def choose(self, job: Record) -> Record | str:
        """The winning offer, or why there is none."""
        reached = {offer.id: self.stage(job, offer) for offer in self.offers.values()}
        fitting = [self.offers[name] for name, stage in reached.items() if stage == 5]
        if not fitting:
            return STAGES[max(reached.values(), default=0)]
        return min(
            fitting,
            key=lambda o: (o.price * o.multiplier, -self.scores[o.provider], o.seq),
        )

    def record_match(self, job: Record, offer: Record | str) -> None:
        if isinstance(offer, str):
            self.count("scheduler_match_total", offer)
            if offer == "capability_mismatch" and job.capability.get("accelerator"):
                self.count("scheduler_accelerator_miss_total")
        else:
            self.count("scheduler_match_total", "success")
            premium = Fraction(6, 5) if job.capability.get("accelerator") else 1
            self.effective_price = floor(offer.price * offer.multiplier * premium + Fraction(1, 2))

    # Admission.

    def estimate(self) -> int:
        samples = self.samples[-8:] or [100]
        return sum(samples) // len(samples)

    def record_capacity(self, sample: int) -> int:
        self.samples = [*(self.samples or [100]), sample]
        return self.estimate()

    def party(self, role: str, who: str) -> tuple[int, int]:
        """What it has used and what its bucket holds, as of now."""
        quota = self.config["burst_quota_micro"]
        used, burst, at_ms = self.usage.get((role, who), (0, quota, self.now_ms))
        elapsed_ms = max(0, self.now_ms - at_ms)
        left = used * max(60_000 - elapsed_ms, 0) // 60_000
        return left, min(quota, burst + elapsed_ms * 500)

    def refusal(self, job: Record, offer: Record) -> str | None:
        """Why admission says no; on a yes both parties are charged."""
        estimate, demand = self.estimate(), job.units * MICRO
        if estimate < 10 or job.units > estimate:
            return "capacity"
        parties = {
            key: self.party(*key) for key in (("buyer", job.buyer), ("provider", offer.provider))
        }
        cap = Fraction(self.config["fair_share_cap_ppm"], MICRO) * estimate * 60 * MICRO
        within = all(used + demand <= cap for used, _ in parties.values())
        if not within and any(burst < demand for _, burst in parties.values()):
            hopeless = demand > self.config["burst_quota_micro"]
            return "fair_share" if hopeless else "burst_exhausted"
        if self.mode == "real":
            ct, it = split(job.units * offer.price, offer.pct)
            if self.wallets[job.buyer, "CT"] < ct + job.consumer_bond:
                return "insufficient_funds"
            if self.wallets[job.buyer, "IT"] < it:
                return "insufficient_funds"
        for key, (used, burst) in parties.items():
            self.usage[key] = used + demand, burst - (0 if within else demand), self.now_ms
        self.count("industrial_admitted_total")
        return None

    # Jobs.

    def live(self) -> list[Record]:
        return [j for j in self.jobs.values() if j.state in ("pending", "queued", "active")]

    def submit(self, job: Record, wait: bool) -> str:
        """The state of the job, or the reason why there is none."""
        if job.id in self.jobs:
            return self.jobs[job.id].state
        job.seq = len(self.jobs) + 1
        job.deadline = self.now_ms // 1000 + job.deadline_secs
        offer = self.choose(job)
        self.record_match(job, offer)
        if isinstance(offer, str):
            if wait:
                job.state = "pending"
                self.jobs[job.id] = job
            self.decisions.append((job.id, "pending" if wait else "refused", offer))
            return job.state if wait else offer
        reason = self.refusal(job, offer)
        if reason is not None:
            self.decisions.append((job.id, "refused", reason))
            if reason != "insufficient_funds":
                self.count("industrial_rejected_total", reason)
            if reason == "capacity":
                self.count("industrial_deferred_total")
            return reason
        self.jobs[job.id] = job
        self.place(job, offer)
        self.work()
        return job.state

    def place(self, job: Record, offer: Record) -> None:
        self.decisions.append((job.id, "admitted", "admitted"))
        self.arrivals += 1
        job.state, job.arrival, job.queued_ms = "queued", self.arrivals, self.now_ms
        job.offer, job.provider = offer.id, offer.provider
        job.price, job.pct = offer.price, offer.pct
        offer.left -= job.units
        offer.reserved += job.units
        job.funded = self.mode == "real"
        if job.funded:
            ct, it = split(job.units * offer.price, offer.pct)
            job.escrow = {"CT": ct, "IT": it}
            job.bonds = {"buyer": job.consumer_bond, "provider": offer.provider_bond}
            self.wallets[job.buyer, "CT"] -= ct + job.consumer_bond
            self.wallets[job.buyer, "IT"] -= it
            self.wallets[offer.provider, "CT"] -= offer.provider_bond

    def pending(self) -> list[Record]:
        found = [j for j in self.jobs.values() if j.state == "pending"]
        return sorted(found, key=lambda j: (CLASSES.index(j.priority), j.seq))

    def match_pending(self, only_for: Record | None = None) -> list[str]:
        matched = []
        for job in self.pending():
            if only_for is not None and self.stage(job, only_for) < 5:
                continue
            offer = self.choose(job)
            if not isinstance(offer, str) and self.refusal(job, offer) is None:
                self.record_match(job, offer)
                self.place(job, offer)
                matched.append(job.id)
        self.work()
        return matched

    def waiting(self) -> list[Record]:
        """Queued jobs in the order they would start, caps aside.

        Of one class, who came first goes first; aging decides between the first of each class.
        """
        aging_ms = self.config["priority_aging_secs"] * 1000

        def order(job: Record) -> tuple[int, int]:
            waited_ms = max(0, self.now_ms - job.queued_ms)
            risen = waited_ms // aging_ms if aging_ms else 0
            return max(0, CLASSES.index(job.priority) - risen), job.arrival

        left = sorted(
            (j for j in self.jobs.values() if j.state == "queued"), key=lambda j: j.arrival
        )
        found = []
        while left:
            firsts = {job.priority: job for job in reversed(left)}
            found.append(min(firsts.values(), key=order))
            left.remove(found[-1])
        return found

    def active(self) -> list[Record]:
        return [j for j in self.jobs.values() if j.state == "active"]

    def work(self) -> None:
        while (running := self.active()) is not None and len(running) < self.config["slots"]:
            low = 1 + sum(j.priority == "low" for j in running)
            share = Fraction(100 * low, len(running) + 1)
            held_back = bool(running) and share > self.config["low_priority_cap_pct"]
            able = [j for j in self.waiting() if j.priority != "low" or not held_back]
            if not able:
                return
            able[0].state = "active"
            if able[0].priority != "low" and self.now_ms - able[0].queued_ms > 5000:
                self.count("scheduler_priority_miss_total")

    def prove(self, job: Record, proofs: list[tuple[int, bool]]) -> list[str]:
        """A verdict for each (slice, is right)."""
        accepted: set[int] = set()
        for index, is_right in proofs:
            if index in job.proven | accepted:
                if not is_right:
                    raise Denied("conflict")
            elif job.state in ("completed", "cancelled", "failed"):
                raise Denied("already_done")
            elif job.state != "active":
                raise Denied("not_active")
            elif is_right:
                accepted.add(index)
        verdicts = []
        for index, is_right in proofs:
            if not is_right:
                verdicts.append("invalid")
                self.change_score(job.provider, -1)
            elif index in job.proven:
                verdicts.append("known")
            else:
                verdicts.append("proven")
                job.proven.add(index)
                units = job.slice_units[index]
                offer = self.offers[job.offer]
                offer.reserved -= units
                offer.proven += units
                self.count("industrial_units_total", by=units)
        if job.state == "active" and len(job.proven) == len(job.slice_units):
            self.end(job, "completed", "provider")
            self.change_score(job.provider, +1)
            self.work()
        return verdicts

    def cancel(self, job: Record, by: str) -> str:
        if job.state == "cancelled":
            return "already_cancelled"
        if job.state in ("completed", "failed"):
            return "already_done"
        burn = 0
        if by == "provider":
            if job.state == "pending":
                raise Denied("refused")
            self.cancels.append((job.provider, self.now_ms))
            since_ms = self.now_ms - self.config["provider_cancel_window_secs"] * 1000
            recent = [who for who, at_ms in self.cancels if at_ms >= since_ms]
            if recent.count(job.provider) >= self.config["provider_cancel_penalty_after"]:
                burn = ceil(Fraction(job.bonds["provider"], 10))
        self.end(job, "cancelled", by, burn)
        if by == "provider":
            self.change_score(job.provider, -1)
        self.log += f"{job.id} {by}\n"
        self.count("scheduler_cancel_total", by)
        self.work()
        return "cancelled"

    def miss(self, job: Record) -> None:
        was_active = job.state == "active"
        self.end(job, "failed", "deadline", job.bonds["provider"] if was_active else 0)
        if was_active:
            self.change_score(job.provider, -1)
            self.count("industrial_rejected_total", "SLA")

    def end(self, job: Record, state: str, by: str, burn: int = 0) -> None:
        job.state, job.ended_by = state, by
        if job.offer is None:
            return
        units = sum(job.slice_units[index] for index in job.proven)
        offer = self.offers[job.offer]
        offer.reserved -= job.units - units
        offer.left += job.units - units
        owed = {"CT": 0, "IT": 0}
        if units:
            ct, it = split(units * job.price, job.pct)
            status = "pending" if job.funded else "recorded"
            due = {"CT": ct, "IT": it}
            receipt = Record(job=job.id, provider=job.provider, units=units, status=status, due=due)
            self.receipts.append(receipt)
            self.count("matches_total", "false" if job.funded else "true")
            if job.funded and self.mode == "real":
                self.pay(receipt)
            elif job.funded:
                owed = due
        for token in ("CT", "IT"):
            refund = job.escrow[token] - owed[token]
            job.refunded[token] = refund
            job.escrow[token] = owed[token]
            self.wallets[job.buyer, token] += refund
            self.count("compute_market_fee_split", token.lower(), "refunded", by=refund)
        released = job.bonds["provider"] - burn
        self.wallets[job.buyer, "CT"] += job.bonds["buyer"]
        self.wallets[job.provider, "CT"] += released
        self.burned += burn
        refunded = job.bonds["buyer"] + released
        self.count("compute_market_fee_split", "ct", "refunded", by=refunded)
        self.count("compute_market_fee_split", "ct", "burned", by=burn)
        self.count("slashing_burn_ct_total", by=burn)
        job.bonds = {"buyer": 0, "provider": 0}

    # What it looks like from outside.

    def picture(self) -> dict[str, Any]:
        return {
            "balances": self.balances(),
            "mode": self.mode,
            "height": self.height(),
            "scores": self.scores,
            "offers": {
                o.id: (
                    "withdrawn" if o.withdrawn else "open" if o.left else "exhausted",
                    o.left,
                    o.reserved,
                    o.proven,
                )
                for o in self.offers.values()
            },
            "jobs": {
                j.id: (j.state, j.offer, j.provider, j.funded, j.ended_by, j.paid, j.refunded)
                for j in self.jobs.values()
            },
            "proven": {j.id: sorted(j.proven) for j in self.jobs.values()},
            "pending": [j.id for j in self.pending()],
            "waiting": [j.id for j in self.waiting()],
            "active": {j.id for j in self.active()},
            "receipts": [(r.job, r.provider, r.units, r.status, r.due) for r in self.receipts],
            "log": self.log,
            "decision": self.decisions[-1:],
            "counts": {key: number for key, number in self.counts.items() if number},
            "effective_price": self.effective_price,
            "estimate": self.estimate(),
            "burst": {key: self.party(*key)[1] for key in self.usage},
        }


def picture(market: Market) -> dict[str, Any]:
    """The same, as the store has it."""

    def read(txn: Txn) -> dict[str, Any]:
        all_jobs = list(txn.records("jobs"))
        receipts = sorted(txn.records("receipts"), key=lambda r: r.seq)
        settled = [settlement.of(txn, r.idempotency_key) for r in receipts]
        return {
            "balances": {
                f"{account} {token}": amount
                for token in ledger.TOKENS
                for account, amount in ledger.balances(txn, token)
            },
            "mode": settlement.state(txn, market.config).mode,
            "height": chain.height(txn, market.config),
            "scores": {
                key.decode(): score.score
                for (key, _), score in zip(
                    txn.scan("reputation"), txn.records("reputation"), strict=True
                )
            },
            "offers": {
                o.offer_id: (o.state, o.units_left, o.units_reserved, o.units_proven)
                for o in offers.listed(txn)
            },
            "jobs": {
                j.job_id: (
                    j.state,
                    j.offer_id,
                    j.provider,
                    j.funded,
                    j.ended_by,
                    {"CT": j.paid_ct, "IT": j.paid_it},
                    {"CT": j.refunded_ct, "IT": j.refunded_it},
                )
                for j in all_jobs
            },
            "proven": {
                j.job_id: [
                    index
                    for index, entry in enumerate(jobs.slices(txn, j.job_id))
                    if entry.proven_ms is not None
                ]
                for j in all_jobs
            },
            "pending": jobs.pending_ids(txn),
            "waiting": list(queue.in_order(txn, market.config)),
            "active": {key.decode() for key, _ in txn.scan("active")},
            "receipts": [
                (r.job_id, r.provider, r.units, s.status, {"CT": s.ct, "IT": s.it})
                for r, s in zip(receipts, settled, strict=True)
                if s is not None
            ],
            "log": cancellations.text_from(txn, 0).decode(),
            "decision": [(d.job_id, d.verdict, d.reason) for d in txn.records("decisions")][-1:],
            "counts": {
                tuple(key.decode().split("\0")): number for key, number in txn.counters(b"").items()
            },
            "effective_price": scheduler.last_effective_price(txn),
            "estimate": admission.estimate(txn, market.config),
            "burst": {
                (role, who): admission.burst_left(txn, market.config, role, who)
                for _, role, who in admission.known_parties(txn)
            },
        }

    return market.view(read)


PROVIDERS = ("p", "q", "both")
BUYERS = ("a", "b", "both")
OWNERS = ("a", "b", "both", "p", "q")
PLAIN: dict[str, Any] = {}
ABLE = {
    "cpu_cores": 8,
    "gpu": "x",
    "gpu_count": 2,
    "gpu_memory_mb": 16_000,
    "accelerator": "t",
    "accelerator_memory_mb": 8_000,
}
OFFERED = st.sampled_from(
    (
        ABLE,
        ABLE,
        PLAIN,
        {"cpu_cores": 4},
        {"gpu": "x", "gpu_count": 1, "gpu_memory_mb": 24_000},
        {"cpu_cores": 4, "accelerator": "t"},
    )
)
ASKED = st.sampled_from(
    (
        PLAIN,
        PLAIN,
        PLAIN,
        {"cpu_cores": 3},
        {"gpu_memory_mb": 17_000},
        {"gpu": "x", "gpu_count": 1},
        {"accelerator": "t"},
        {"accelerator": "t", "accelerator_memory_mb": 8_001},
    )
)
OFFERS = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(PROVIDERS),
        "capability": OFFERED,
        "units": st.sampled_from((200, 200, 30, 3, 1)),
        "price": st.sampled_from((2, 2, 2, 4, 4, 5)),
        "multiplier": st.sampled_from(("1", "1", "0.5", "0.5", "0.999999")),
        "pct": st.sampled_from((0, 25, 37, 50, 100)),
        "provider_bond": st.sampled_from((1, 5, 5, 99)),
        "consumer_bond": st.sampled_from((1, 1, 3)),
        "reputation": st.sampled_from((9, 9, 8, 7, 0, -1)),
        "directed": st.sampled_from((False, False, False, True)),
    }
)
REQUESTS = st.fixed_dictionaries(
    {
        "buyer": st.sampled_from(BUYERS),
        "lengths": st.lists(
            st.sampled_from((1, MIB, MIB + 1, 5 * MIB, 20 * MIB)), min_size=1, max_size=3
        ),
        "capability": ASKED,
        "max_price": st.sampled_from((5, 5, 5, 2, 1)),
        "consumer_bond": st.sampled_from((3, 3, 1)),
        "deadline_secs": st.sampled_from((100_000, 100_000, 60, 5, 0)),
        "priority": st.sampled_from(CLASSES),
        "lane": st.sampled_from(("industrial", "consumer")),
        "wait": st.booleans(),
    }
)


class MarketMachine(RuleBasedStateMachine):
    """Each rule runs one command on the store and the same one on the model."""

    def __init__(self) -> None:
        super().__init__()
        shared_memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=shared_memory if shared_memory.is_dir() else None))
        self.market = Market(self.folder / "market")

    def teardown(self) -> None:
        self.market.store.close()
        shutil.rmtree(self.folder)

    @initialize(
        mode=st.sampled_from(("real", "real", "dry_run")),
        funds=st.sampled_from((2000, 500, 60)),
        first=st.lists(OFFERS, min_size=3, max_size=6),
        requests=st.lists(REQUESTS, max_size=5),
        data=st.data(),
    )
    def begin(
        self,
        mode: str,
        funds: int,
        first: list[dict[str, Any]],
        requests: list[dict[str, Any]],
        data: st.DataObject,
    ) -> None:
        self.model = Model(mode)
        self.market.configure(settle_mode=mode, **START_CONFIG)
        for owner in OWNERS:
            self.move_money(owner, funds, funds)
        for offer in first:
            self.post(offer)
        self.order(requests, data)

    def act(
        self, expected: Callable[[], Any], action: Callable[[Txn], Any], *, rehearse: bool = False
    ) -> None:
        """One command: the model says what must come of it, then the store is asked."""
        before = pickle.dumps(self.model)
        self.model.housekeeping()
        try:
            wanted = expected()
        except Denied as denied:
            self.model = pickle.loads(before)
            self.refuse(action, str(denied))
            return
        if rehearse:
            left = picture(self.market)
            assert self.market.update(action, dry_run=True) == wanted
            assert picture(self.market) == left
        assert self.market.update(action) == wanted

    def refuse(self, action: Callable[[Txn], Any], reason: str) -> None:
        with pytest.raises(MarketError) as caught:
            self.market.update(action)
        assert (caught.value.reason or caught.value.token) == reason

    @staticmethod
    def tap(txn: Txn, event: Any, owner: str, ct: int, it: int) -> None:
        ledger.tap(txn, event, owner, {"CT": ct, "IT": it}, None)

    # Providers.

    @rule(terms=OFFERS)
    def post(self, terms: dict[str, Any]) -> None:
        seq = len(self.model.offers) + 1
        waits = [job.id for job in self.model.pending()]
        target = (waits[-1] if waits else self.next_job_id()) if terms["directed"] else None
        offer = Record(
            id=f"o-{seq}",
            seq=seq,
            left=terms["units"],
            reserved=0,
            proven=0,
            withdrawn=False,
            **{**terms, "multiplier": Fraction(terms["multiplier"]), "directed": target},
        )
        request = offer_request(
            offer.provider,
            capability=dict(offer.capability),
            units=offer.left,
            price_per_unit=offer.price,
            reputation_multiplier=terms["multiplier"],
            fee_pct_ct=offer.pct,
            provider_bond=offer.provider_bond,
            consumer_bond=offer.consumer_bond,
            reputation=offer.reputation,
            job_id=target,
        )

        def action(txn: Txn) -> tuple[str, list[str]]:
            posted = lifecycle.post_offer(txn, self.market.config, request)
            return posted.offer.offer_id, posted.matched

        self.act(lambda: (offer.id, self.model.post(offer)), action)

    @rule(data=st.data())
    def withdraw_offer(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.offers)))

        def expected() -> bool:
            offer = self.model.offers[name]
            changed, offer.withdrawn = not offer.withdrawn, True
            return changed

        self.act(expected, lambda txn: offers.withdraw(txn, name)[1])

    # Buyers.

    def next_job_id(self) -> str:
        return f"j{len(self.model.jobs) + 1}"

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4), data=st.data())
    def order(self, requests: list[dict[str, Any]], data: st.DataObject) -> None:
        """Submit jobs that fit some offer, so that most get in."""
        for request in requests:
            able = sorted(o.id for o in self.model.offers.values() if self.model.sells(o))
            if not able:
                return
            offer = self.model.offers[data.draw(st.sampled_from(able))]
            others = [buyer for buyer in BUYERS if buyer != offer.provider]
            fitting = {
                "buyer": data.draw(st.sampled_from(others)),
                "capability": offer.capability,
                "max_price": 5,
                "consumer_bond": 3,
                "lengths": request["lengths"] if offer.left >= 60 else [MIB],
            }
            self.submit(request | fitting, False)

    @rule(requests=st.lists(REQUESTS, min_size=2, max_size=5), data=st.data())
    def trade(self, requests: list[dict[str, Any]], data: st.DataObject) -> None:
        """Finish a job, and order some more."""
        if self.model.active():
            self.complete(data)
        self.order(requests, data)

    @rule(terms=REQUESTS, rehearse=st.booleans())
    def submit(self, terms: dict[str, Any], rehearse: bool) -> None:
        slice_units = [ceil(Fraction(length, MIB)) for length in terms["lengths"]]
        job = Record(
            id=self.next_job_id(),
            slice_units=slice_units,
            units=sum(slice_units),
            proven=set(),
            offer=None,
            provider=None,
            funded=False,
            ended_by=None,
            escrow={"CT": 0, "IT": 0},
            bonds={"buyer": 0, "provider": 0},
            paid={"CT": 0, "IT": 0},
            refunded={"CT": 0, "IT": 0},
            **terms,
        )
        self.act(
            lambda: self.model.submit(job, job.wait),
            self.submission(job, job.max_price, job.lane, job.wait),
            rehearse=rehearse,
        )

    def submission(
        self, job: Record, max_price: int, lane: str, wait: bool
    ) -> Callable[[Txn], str]:
        inputs = [slice_of(length, f"/{n}") for n, length in enumerate(job.lengths)]
        request = job_request(
            job.id,
            inputs,
            buyer=job.buyer,
            capability=dict(job.capability),
            max_price_per_unit=max_price,
            consumer_bond=job.consumer_bond,
            deadline_secs=job.deadline_secs,
            priority=job.priority,
            lane=lane,
        )

        def action(txn: Txn) -> str:
            found = lifecycle.submit(txn, self.market.config, request, inputs, wait=wait)
            return found.reason if isinstance(found, Refused) else found.job.state

        return action

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), changed=st.sampled_from(("", "", "max_price_per_unit", "lane")))
    def submit_again(self, data: st.DataObject, changed: str) -> None:
        job = self.model.jobs[data.draw(st.sampled_from(sorted(self.model.jobs)))]
        max_price = job.max_price + (changed == "max_price_per_unit")
        other_lane = {"industrial": "consumer", "consumer": "industrial"}[job.lane]
        lane = other_lane if changed == "lane" else job.lane

        def expected() -> str:
            if changed:
                raise Denied("conflict")
            return self.model.submit(self.model.jobs[job.id], False)

        self.act(expected, self.submission(job, max_price, lane, False))

    @rule(
        owner=st.sampled_from(OWNERS),
        ct=st.integers(-60, 200),
        it=st.integers(0, 200),
    )
    def move_money(self, owner: str, ct: int, it: int) -> None:
        event, sign = ("deposit", 1) if ct >= 0 else ("withdraw", -1)
        self.act(
            lambda: self.model.tap(owner, ct, sign * it),
            lambda txn: self.tap(txn, event, owner, abs(ct), it),
        )

    # The life of jobs.

    def draw_job(self, data: st.DataObject) -> str:
        """Any job, but mostly an active one."""
        running = [job.id for job in self.model.active()]
        return data.draw(st.sampled_from(sorted([*self.model.jobs, *running * 5])))

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), rehearse=st.booleans())
    def prove(self, data: st.DataObject, rehearse: bool) -> None:
        name = self.draw_job(data)
        count = len(self.model.jobs[name].slice_units)
        proof = st.tuples(st.integers(0, count - 1), st.sampled_from((True, True, True, False)))
        self.give(name, data.draw(st.lists(proof, min_size=1, max_size=3)), rehearse)

    @precondition(lambda self: self.model.active())
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(job.id for job in self.model.active())))
        indexes = data.draw(st.permutations(range(len(self.model.jobs[name].slice_units))))
        self.give(name, [(index, True) for index in indexes], False)

    def give(self, name: str, proofs: list[tuple[int, bool]], rehearse: bool) -> None:
        given = [(index, DIGEST if is_right else WRONG) for index, is_right in proofs]

        def action(txn: Txn) -> list[str]:
            return [
                "invalid" if isinstance(v, InvalidProof) else "proven" if v.changed else "known"
                for v in lifecycle.prove(txn, self.market.config, name, given)
            ]

        self.act(lambda: self.model.prove(self.model.jobs[name], proofs), action, rehearse=rehearse)

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), by=st.sampled_from(("client", "provider")))
    def cancel(self, data: st.DataObject, by: Any) -> None:
        name = self.draw_job(data)
        self.act(
            lambda: self.model.cancel(self.model.jobs[name], by),
            lambda txn: lifecycle.cancel(txn, self.market.config, name, by).outcome,
        )

    @rule()
    def match(self) -> None:
        self.act(
            lambda: self.model.match_pending(),
            lambda txn: lifecycle.match_pending(txn, self.market.config),
        )

    # The operator.

    @rule(ms=st.sampled_from((1, 999, 5_001, 10_000, 61_000, -3_000)))
    def advance(self, ms: int) -> None:
        self.model.now_ms += ms
        self.market.now_ms += ms
        self.act(lambda: None, lambda txn: None)

    @rule(
        do=st.sampled_from(("arm", "arm", "stop", "stop", "cancel_arm")),
        delay=st.sampled_from((0, 0, 5)),
        blocks=st.sampled_from((0, 4, 5)),
    )
    def change_mode(self, do: str, delay: int, blocks: int) -> None:
        config = self.market.config
        if do == "arm":
            self.act(
                lambda: self.model.arm(delay),
                lambda txn: settlement.arm(txn, config, delay) and None,
            )
            self.act(
                lambda: self.model.advance_height(blocks),
                lambda txn: chain.advance(txn, config, blocks).height,
            )
        elif do == "cancel_arm":
            self.act(
                lambda: self.model.cancel_arm(),
                lambda txn: settlement.cancel_arm(txn, config) and None,
            )
        else:
            self.act(
                lambda: self.model.to_dry_run(),
                lambda txn: settlement.to_dry_run(txn, config, "test")[1],
            )

    @rule(
        slots=st.integers(1, 4),
        cap_pct=st.sampled_from((0, 34, 50, 100)),
        aging_secs=st.sampled_from((0, 2, 20)),
        sample=st.sampled_from((None, 0, 30, 100, 500)),
    )
    def configure(self, slots: int, cap_pct: int, aging_secs: int, sample: int | None) -> None:
        changes = {
            "slots": slots,
            "low_priority_cap_pct": cap_pct,
            "priority_aging_secs": aging_secs,
        }
        self.model.config |= changes
        self.market.configure(**changes)
        if sample is not None:
            self.act(
                lambda: self.model.record_capacity(sample),
                lambda txn: admission.record_capacity(txn, self.market.config, sample),
            )
        self.market.reopen()

    @invariant()
    def store_looks_like_the_model(self) -> None:
        if hasattr(self, "model"):
            found, wanted = picture(self.market), self.model.picture()
            for part in wanted:
                assert found[part] == wanted[part], part
            assert self.market.violations() == []


MarketMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
# It takes seconds; but when it fails, finding the shortest history that does takes minutes.
TestMarket = pytest.mark.timeout(900)(MarketMachine.TestCase)
