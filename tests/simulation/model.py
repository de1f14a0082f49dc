"""The market as a person would keep it on paper: lists, dicts and fractions, and no index.

Written from the documents. Each action either raises Denied and has changed nothing that counts,
or changes the model and returns what the caller is told. `picture` is what it looks like from
outside, and `events` what the log has to tell.
"""

from collections import Counter
from copy import deepcopy
from fractions import Fraction
from math import ceil, floor
from types import SimpleNamespace as Record
from typing import Any

from tests.support.market import START_MS

MICRO = 1_000_000
CLASSES = ("high", "normal", "low")
STAGES = (
    "capability_mismatch",
    "reputation_failure",
    "price_mismatch",
    "no_capacity",
    "bond_unfunded",
)
GOVERNED = ("min_capacity", "fair_share_cap_ppm", "burst_refill_rate_micro")
_MODELS = ("gpu", "accelerator")
_ENDED = ("completed", "cancelled", "failed")


class Denied(Exception):
    """The action is refused and leaves nothing behind."""


def split(amount: int, pct: int) -> dict[str, int]:
    ct = ceil(Fraction(amount * pct, 100))
    return {"CT": ct, "IT": amount - ct}


def _as_told(value: Any) -> Any:
    """A multiplier is a decimal text."""
    return f"{float(value):g}" if isinstance(value, Fraction) else value


class Model:
    """One market: what every action does to it."""

    def __init__(self, mode: str, config: dict[str, int]) -> None:
        self.wall_ms = START_MS
        self.last_ms = 0  # market time of the last command
        self.ahead_ms = 0  # of a clock that was set back and accepted
        self.away = (0, 0)  # the last outage, from its first second to its last
        self.config = config
        self.mode = mode
        self.activate_at = 0
        self.height_by_hand = 0
        self.height_seen = 0
        self.height_drained = 0  # blocks up to it have taken what was theirs
        self.proposals: list[Record] = []
        self.activated: list[Record] = []  # in order, without what was rolled back
        self.wallets: dict[tuple[str, str], int] = Counter()
        self.issued: dict[str, int] = Counter()  # by the tap, per token
        self.burned = 0
        self.scores: dict[str, int] = {}
        self.seeds: dict[str, int] = {}  # what of them was advertised
        self.offers: dict[str, Record] = {}
        self.jobs: dict[str, Record] = {}
        self.bids: dict[int, Record] = {}  # by sequence number
        self.arrivals = 0
        self.samples: list[int] = []
        self.usage: dict[tuple[str, str], tuple[int, int, int]] = {}  # used, burst, at_ms
        self.cancels: list[tuple[str, int]] = []
        self.log = ""
        self.receipts: list[Record] = []
        self.events: list[tuple[Any, ...]] = []
        self.deferrable: list[tuple[Any, ...]] = []  # jobs that load kept out, since last followed
        self.counts: dict[tuple[str, ...], int] = Counter()
        self.outcomes: list[str] = []
        self.matches_on: dict[str, int] = Counter()  # by hardware
        self.effective_price: int | None = None
        self.priced = 0  # matches, which have prices
        self.board: dict[str, list[int]] = {"industrial": [], "consumer": []}
        self.is_saved = False  # it has a file
        self.unsaved = False  # what this process has priced, it has not saved yet
        self.priced_when_saved = 0  # how many prices it is of
        self.counted_saves = 0  # the same, of the last save that was counted
        self.loaded: str | None = "missing"  # how, if that was not counted yet
        self.multiplier = 100
        self.epoch_from = 0
        self.epochs: list[Record] = []
        self.work_log: list[tuple[int, int]] = []  # second, units proven
        self.epoch_units: dict[str, int] = Counter()
        self.pool: list[Record] = []  # consumer transactions
        self.sent = 0
        self.fees: list[int] = []

    def count(self, *series: str, by: int = 1) -> None:
        if by:
            self.counts[series] += by

    def tell(
        self,
        event: str,
        *,
        job: Record | None = None,
        offer: str | None = None,
        owner: str | None = None,
        **detail: Any,
    ) -> None:
        """Note an event; one of a job is about its buyer."""
        who = job.buyer if job is not None and owner is None else owner
        told = {name: value for name, value in detail.items() if value is not None}
        self.count_board()
        self.events.append((event, None if job is None else job.id, offer, who, told))

    # Time.

    def clock_ms(self) -> int:
        """What the clock makes the time; it catches up with what it was ahead by."""
        return self.wall_ms + (self.ahead_ms if self.wall_ms < self.last_ms else 0)

    def believed(self) -> bool:
        return self.last_ms - self.clock_ms() <= 1000 * self.config["clock_tolerance_secs"]

    @property
    def now_ms(self) -> int:
        """Market time never goes back, and stands still while the clock is not believed."""
        return max(self.last_ms, self.clock_ms()) if self.believed() else self.last_ms

    def come_back(self) -> None:
        """Notice whether the market was away since the last command.

        Jobs that fell into the time away before this one, and live, are not at fault either: both
        are one while there are any.
        """
        if self.last_ms and self.now_ms - self.last_ms > 1000 * self.config["outage_secs"]:
            first = min((job.deadline for job in self.live()), default=-1)
            begin = self.away[0] if self.was_away(first) else self.last_ms // 1000
            self.away = begin, self.now_ms // 1000
        if self.believed() and self.wall_ms >= self.last_ms:
            self.ahead_ms = 0
        self.last_ms = self.now_ms

    def was_away(self, second: int) -> bool:
        return bool(self.away[0] <= second <= self.away[1])

    def accept_clock(self) -> bool:
        if self.believed():
            return False
        self.ahead_ms = self.last_ms - self.wall_ms
        self.tell("clock_accepted", doubt="behind", from_ms=self.last_ms, to_ms=self.last_ms)
        return True

    def extend(self, by_secs: int) -> int:
        """Later deadlines for all, in the order of those before."""
        live = sorted(self.live(), key=lambda j: (j.deadline, j.id))
        for job in live:
            job.deadline += by_secs
            self.tell("deadline_extended", job=job, deadline=job.deadline, by_secs=by_secs)
        return len(live)

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
        self.tell("blocks_advanced", blocks=blocks, height=self.height_seen)
        return self.height_seen

    def turn(self, mode: str, *, at: int | None = None, reason: str | None = None) -> None:
        self.mode = mode
        self.count("settle_mode_change_total", mode)
        self.tell("mode_changed", to=mode, activate_at=at, reason=reason)

    def housekeeping(self, *, sweeps: bool = True) -> None:
        since_ms, known_height = self.last_ms, self.height_seen
        self.come_back()
        self.pool = self.pool_now()
        self.height_seen = self.height_drained = self.height()
        for proposal in self.fallen_due():
            was = [p for p in self.activated if p.key == proposal.key][-1:]
            self.activated.append(proposal)
            proposal.state = "active"
            before = was[0].text if was else None
            self.tell("params_activated", **self.about(proposal), was=before)
        self.end_epochs(since_ms, known_height)
        if self.believed() and self.mode == "armed" and self.height() >= self.activate_at:
            self.turn("real")
        if self.mode == "real":
            for receipt in self.receipts:
                if receipt.status == "pending":
                    self.pay(receipt)
                    due = {token.lower(): amount for token, amount in receipt.due.items()}
                    job = self.jobs[receipt.job]
                    self.tell("job_paid", job=job, provider=receipt.provider, **due)
        late = [j for j in self.live() if self.overdue(j)] if self.believed() and sweeps else []
        for job in sorted(late, key=lambda j: (j.deadline, j.id)):
            self.miss(job)
        if late:
            self.work()
        for bid in sorted(self.bids.values(), key=lambda b: (b.until, b.id)):
            if self.believed() and bid.state == "committed" and self.height() > bid.until:
                self.expire(bid)
        # Every job that waits is asked about every time: the market must not forget one.
        self.match_pending()

    # The subsidy.

    def epoch_end(self) -> int:
        blocks = self.config["epoch_blocks"]
        return (self.epoch_from // blocks + 1) * blocks

    def end_epochs(self, since_ms: int, known_height: int) -> None:
        """End those of which the end has come; what was known at an instant is as it was then."""
        while self.believed() and self.epoch_end() <= self.height():
            at_ms = since_ms
            if self.epoch_end() > known_height:  # Time has made it.
                at_ms = START_MS + 1000 * (self.epoch_end() - self.height_by_hand)
            self.end_epoch(min(max(at_ms, since_ms), self.now_ms) // 1000)

    def multiplier_now(self) -> int:
        """As the next command would find it: blocks that pass by hand may end an epoch."""
        if self.epoch_end() > self.height():
            return self.multiplier
        ahead = deepcopy(self)
        ahead.come_back()
        ahead.end_epochs(self.last_ms, self.height_seen)
        return ahead.multiplier

    def end_epoch(self, second: int) -> None:
        """As the market was at that second, though it may be noticed later."""
        running = [j for j in self.jobs.values() if j.state in ("queued", "active")]
        backlog = sum(j.units - units_proven(j) for j in running if j.deadline >= second)
        done = sum(units for at, units in self.work_log if second - 60 < at <= second)
        room = self.estimate() * 60
        pct = floor(Fraction(100 * done, room) + Fraction(1, 2)) if room else 0
        before = Fraction(self.multiplier)
        if not backlog:
            aim = Fraction(100)
        else:
            aim = before * (1 + Fraction(backlog, pct)) if pct else 2 * before
        aim = min(
            max(aim, before * Fraction(85, 100)), before * Fraction(115, 100), Fraction(10**4)
        )
        self.multiplier = floor(aim + Fraction(1, 2))
        units = sum(self.epoch_units.values())
        due = self.mode == "armed" and self.epoch_end() >= self.activate_at
        amount = floor(Fraction(units * self.multiplier, 100))
        epoch = Record(
            height=self.epoch_from,
            multiplier=self.multiplier,
            backlog=backlog,
            pct=pct,
            units=units,
            amount=amount,
            paid=amount > 0 and (due or self.mode == "real"),
        )
        self.epochs.append(epoch)
        about = {"epoch": epoch.height // self.config["epoch_blocks"], "height": epoch.height}
        if epoch.paid:
            self.subsidize(epoch, about)
        if epoch.multiplier != before:
            moved = {"from": int(before), "to": epoch.multiplier}
            sample = {"backlog": backlog, "utilization_pct": pct}
            self.tell("multiplier_changed", **about, **moved, **sample)
        self.epoch_units.clear()
        self.epoch_from = self.epoch_end()

    def subsidize(self, epoch: Record, about: dict[str, int]) -> None:
        """Share what an epoch pays: nobody gets a whole unit less than his part of the total."""
        proven = shared = 0
        for provider, units in sorted(self.epoch_units.items()):
            proven += units
            share = floor(Fraction(epoch.amount * proven, epoch.units)) - shared
            shared += share
            if share:
                self.wallets[provider, "IT"] += share
                self.issued["IT"] += share
                paid = {"multiplier": epoch.multiplier, "units": units, "it": share}
                self.tell("subsidy_paid", owner=provider, **about, **paid)

    def arm(self, delay: int) -> None:
        if self.mode != "dry_run":
            raise Denied("mode")
        self.activate_at = self.height() + delay
        self.turn("armed", at=self.activate_at)

    def cancel_arm(self) -> None:
        if self.mode != "armed":
            raise Denied("mode")
        self.turn("dry_run", reason="arming cancelled")

    def to_dry_run(self, reason: str) -> bool:
        changed = self.mode != "dry_run"
        if changed:
            self.turn("dry_run", reason=reason)
        return changed

    # Parameters.

    def fallen_due(self) -> list[Record]:
        """Approved proposals whose height has come, in the order in which they come into force."""
        waiting = [p for p in self.proposals if p.state == "approved"] if self.believed() else []
        found = [p for p in waiting if p.activates_at <= self.height()]
        return sorted(found, key=lambda p: (p.activates_at, p.approval))

    def in_force(self, field: str) -> int:
        """The value of a setting that proposals may change."""
        upon = [p.value for p in (*self.activated, *self.fallen_due()) if p.field == field]
        return upon[-1] if upon else self.config[field]

    def propose(self, key: str, field: str, text: str, value: int) -> int:
        number = len(self.proposals) + 1
        proposal = Record(
            number=number, key=key, field=field, text=text, value=value, state="proposed"
        )
        self.proposals.append(proposal)
        self.tell("params_proposed", **self.about(proposal))
        return number

    def approve(self, number: int) -> bool:
        proposal = self.proposals[number - 1]
        if proposal.state == "rolled_back":
            raise Denied("rolled_back")
        if proposal.state != "proposed":
            return False
        blocks = self.config["epoch_blocks"]
        proposal.state = "approved"
        proposal.activates_at = (self.height() // blocks + 2) * blocks
        proposal.approval = sum(p.state != "proposed" for p in self.proposals)
        told = self.about(proposal)
        self.tell("params_approved", **told, activates_at=proposal.activates_at)
        return True

    def roll_back(self) -> int:
        if not self.activated:
            raise Denied("nothing_active")
        proposal = self.activated.pop()
        proposal.state = "rolled_back"
        to = [p.text for p in self.activated if p.key == proposal.key]
        self.tell("params_rolled_back", **self.about(proposal), to=to[-1] if to else None)
        return int(proposal.number)

    @staticmethod
    def about(proposal: Record) -> dict[str, Any]:
        return {"proposal": proposal.number, "key": proposal.key, "value": proposal.text}

    # Money.

    def tap(self, owner: str, ct: int, it: int) -> None:
        """Negative amounts are taken out."""
        if self.wallets[owner, "CT"] + ct < 0 or self.wallets[owner, "IT"] + it < 0:
            raise Denied("insufficient_funds")
        for token, amount in (("CT", ct), ("IT", it)):
            self.wallets[owner, token] += amount
            self.issued[token] += amount
        event = "deposit" if min(ct, it) >= 0 else "withdraw"
        self.tell(event, owner=owner, ct=abs(ct), it=abs(it))

    def pay(self, receipt: Record) -> None:
        job = self.jobs[receipt.job]
        for token, amount in receipt.due.items():
            job.escrow[token] -= amount
            job.paid[token] += amount
            self.wallets[receipt.provider, token] += amount
            self.count("compute_market_fee_split", token.lower(), "paid", by=amount)
        receipt.status = "applied"
        self.count("settle_applied_total")

    def refund(self, job: Record, token: str, amount: int) -> None:
        job.escrow[token] -= amount
        job.refunded[token] += amount
        self.wallets[job.buyer, token] += amount
        self.count("compute_market_fee_split", token.lower(), "refunded", by=amount)

    def release_bond(self, job: Record, role: str, owner: str, burn: int = 0) -> None:
        released = job.bonds[role] - burn
        job.bonds[role] = 0
        self.wallets[owner, "CT"] += released
        self.burned += burn
        self.count("compute_market_fee_split", "ct", "refunded", by=released)
        self.count("compute_market_fee_split", "ct", "burned", by=burn)
        self.count("slashing_burn_ct_total", by=burn)
        self.count("bonds_burned_total", role, by=int(burn > 0))

    def balances(self) -> dict[str, int]:
        found: dict[str, int] = {
            f"wallet/{who} {token}": n for (who, token), n in self.wallets.items()
        }
        for job in self.jobs.values():
            for token, amount in job.escrow.items():
                found[f"escrow/{job.id} {token}"] = amount
            for role, amount in job.bonds.items():
                found[f"bond/{job.id}/{role} CT"] = amount
        for bid in self.bids.values():
            found[f"bid/{bid.sequence} CT"] = bid.bond if bid.state == "committed" else 0
        found["burned CT"] = self.burned
        for token, amount in self.issued.items():
            found[f"supply {token}"] = -amount
        return {account: amount for account, amount in found.items() if amount}

    def held_of(self, owner: str) -> tuple[int, int, int]:
        """Escrow in either token and bonds, as a wallet shows them."""
        bought = [job for job in self.jobs.values() if job.buyer == owner]
        escrow = [sum(job.escrow[token] for job in bought) for token in ("CT", "IT")]
        bonds = sum(job.bonds["buyer"] for job in bought)
        sealed = [b for b in self.bids.values() if b.owner == owner and b.state == "committed"]
        bonds += sum(bid.bond for bid in sealed)
        run = [job for job in self.jobs.values() if job.parts and job.parts[-1].provider == owner]
        return escrow[0], escrow[1], bonds + sum(job.bonds["provider"] for job in run)

    # Scores and offers.

    def change_score(self, provider: str, by: int) -> None:
        score = max(-1000, min(1000, self.scores[provider] + by))
        self.scores[provider] = score
        self.count("reputation_adjust_total", "success" if by > 0 else "failure")
        self.tell("score_changed", owner=provider, delta=by, score=score)

    def post(self, offer: Record, deferred: int = 0) -> list[str]:
        """Returns the pending jobs that found a match. A price of 0 is that of the market."""
        offer.market_priced = not offer.price
        offer.price = offer.price or self.market_price(deferred)
        self.offers[offer.id] = offer
        self.scores.setdefault(offer.provider, offer.reputation)
        self.seeds.setdefault(offer.provider, offer.reputation)
        self.tell(
            "offer_posted",
            offer=offer.id,
            owner=offer.provider,
            units=offer.left,
            price_per_unit=offer.price,
        )
        return self.match_pending(offer)

    def withdraw_offer(self, offer: Record) -> bool:
        if offer.withdrawn:
            return False
        offer.withdrawn = True
        self.tell("offer_withdrawn", offer=offer.id, owner=offer.provider)
        return True

    def change_offer(
        self, offer: Record, by: int, price: int, pct: int, multiplier: str
    ) -> dict[str, Any]:
        """Other terms, and more units or fewer; returns what was other before."""
        present = (0, offer.price, offer.pct, offer.multiplier)
        if offer.withdrawn and (by, price, pct, Fraction(multiplier)) != present:
            raise Denied("withdrawn")
        if by < -offer.left:
            raise Denied("units_not_left")
        units = offer.left + offer.reserved + offer.proven
        if units + by < 1:
            raise Denied("no_units_offered")
        was = {
            "price_per_unit": offer.price,
            "units": units,
            "fee_pct_ct": offer.pct,
            "reputation_multiplier": offer.multiplier,
            "market_priced": offer.market_priced,
        }
        now = {
            "price_per_unit": price,
            "units": units + by,
            "fee_pct_ct": pct,
            "reputation_multiplier": Fraction(multiplier),
            "market_priced": offer.market_priced and price == offer.price,
        }
        offer.price, offer.pct, offer.multiplier = price, pct, Fraction(multiplier)
        offer.left += by
        offer.market_priced = now["market_priced"]
        other = [name for name in was if was[name] != now[name]]
        if other:
            before = {f"was_{name}": _as_told(was[name]) for name in other}
            after = {name: _as_told(now[name]) for name in other}
            self.tell("offer_changed", offer=offer.id, owner=offer.provider, **before, **after)
        return {name: _as_told(was[name]) for name in other}

    def sells(self, offer: Record) -> bool:
        standing = self.scores[offer.provider] >= 0
        return standing and not offer.withdrawn and not offer.directed and offer.left > 0

    # Matching.

    def stage(self, job: Record, offer: Record, units: int | None = None) -> int:
        """How far an offer comes: the index into STAGES it fails at, or their number."""
        need, has = job.capability, offer.capability
        gpus = need.get("gpu") or has.get("gpu")
        capable = (
            not offer.withdrawn
            and offer.directed in (None, job.id)
            and offer.provider != job.buyer
            and (gpus is None or has.get("gpu") in ([gpus] if isinstance(gpus, str) else gpus))
            and need.get("accelerator") in (None, has.get("accelerator"))
            and all(need[n] <= has.get(n, 0) for n in need if n not in _MODELS)
        )
        if not capable:
            return 0
        if self.scores[offer.provider] < 0:
            return 1
        if offer.price > job.max_price or offer.consumer_bond > job.consumer_bond:
            return 2
        if offer.provider_bond < job.provider_bond_min:
            return 2
        if offer.left < (job.units if units is None else units):
            return 3
        if self.mode == "real" and self.wallets[offer.provider, "CT"] < offer.provider_bond:
            return 4
        return 5

    def choose(self, job: Record) -> Record | str:
        """The winning offer, or why there is none: the best price, then who came first."""
        reached = {offer.id: self.stage(job, offer) for offer in self.offers.values()}
        fitting = [self.offers[name] for name, stage in reached.items() if stage == 5]
        if not fitting:
            return STAGES[max(reached.values(), default=0)]
        return min(fitting, key=lambda o: (o.price * o.multiplier, o.seq))

    def record_match(self, job: Record, offer: Record | str) -> None:
        result = offer if isinstance(offer, str) else "success"
        self.outcomes.append(result)
        self.count("scheduler_match_total", result)
        if isinstance(offer, str):
            if offer == "capability_mismatch" and job.capability.get("accelerator"):
                self.count("scheduler_accelerator_miss_total")
            return
        self.effective_price = self.price_of(job, offer)
        has = offer.capability
        self.matches_on[has.get("gpu") or has.get("accelerator") or "cpu"] += 1

    @staticmethod
    def price_of(job: Record, offer: Record) -> int:
        premium = Fraction(6, 5) if job.capability.get("accelerator") else 1
        return floor(offer.price * offer.multiplier * premium + Fraction(1, 2))

    # The price board.

    def bands(self, lane: str) -> tuple[int, int, int, int] | None:
        found = sorted(self.on_board(lane))
        n = len(found)
        return (found[n // 4], found[n // 2], found[3 * n // 4], n) if found else None

    def on_board(self, lane: str) -> list[int]:
        return self.board[lane][-self.config["price_board_window"] :]

    def market_price(self, deferred: int) -> int:
        bands = self.bands("industrial")
        if bands is None:
            raise Denied("no_price_data")
        waiting = [j for j in (*self.waiting(), *self.pending()) if j.lane == "industrial"]
        backlog = Fraction(len(waiting) - deferred, self.config["price_board_window"])
        return max(1, ceil(bands[1] * (1 + backlog)))

    def count_board(self) -> None:
        """What happens first after the board was loaded counts that, and the save it found."""
        if self.loaded is not None:
            self.count("price_board_load_total", self.loaded)
            self.loaded = None
        if self.is_saved and self.counted_saves < self.priced_when_saved:
            self.count("price_board_save_total", "success")
            self.counted_saves = self.priced_when_saved

    def begin_process(self, end: str) -> None:
        """The process ends, or is killed, and another begins; the file may be `cleared` between."""
        if self.unsaved and end != "killed":
            self.is_saved, self.priced_when_saved = True, self.priced
        self.is_saved = self.is_saved and end != "cleared"
        self.unsaved = False
        if not self.is_saved:
            self.board = {lane: [] for lane in self.board}
        self.loaded = "success" if self.is_saved else "missing"

    # Admission.

    def estimate(self) -> int:
        samples = self.samples[-8:] or [self.config["initial_capacity"]]
        return sum(samples) // len(samples)

    def record_capacity(self, sample: int) -> int:
        self.samples = [*(self.samples or [self.config["initial_capacity"]]), sample]
        now = self.estimate()
        self.tell("capacity_recorded", units_per_second=sample, estimate=now)
        return now

    def party(self, role: str, who: str) -> tuple[int, int]:
        """What it has used and what its bucket holds, as of now."""
        quota = self.config["burst_quota_micro"]
        used, burst, at_ms = self.usage.get((role, who), (0, quota, self.now_ms))
        elapsed_ms = max(0, self.now_ms - at_ms)
        left = used * max(60_000 - elapsed_ms, 0) // 60_000
        return left, min(quota, burst + self.refill(elapsed_ms))

    def refill(self, ms: int) -> int:
        return self.in_force("burst_refill_rate_micro") * ms // 1000

    def headroom(self) -> int:
        return max(0, self.estimate() * 60 * MICRO - self.party("market", "")[0])

    def refusal(self, job: Record, offer: Record) -> str | None:
        """Why admission says no; on a yes both parties are charged."""
        estimate, demand = self.estimate(), job.units * MICRO
        if estimate < self.in_force("min_capacity") or demand > self.headroom():
            return "capacity"
        parties = {
            key: self.party(*key) for key in (("buyer", job.buyer), ("provider", offer.provider))
        }
        cap = Fraction(self.in_force("fair_share_cap_ppm"), MICRO) * estimate * 60 * MICRO
        within = all(used + demand <= cap for used, _ in parties.values())
        if not within and any(burst < demand for _, burst in parties.values()):
            hopeless = demand > self.config["burst_quota_micro"]
            return "fair_share" if hopeless else "burst_exhausted"
        if self.mode == "real":
            price = split(job.units * offer.price, offer.pct)
            if self.wallets[job.buyer, "CT"] < price["CT"] + job.consumer_bond:
                return "insufficient_funds"
            if self.wallets[job.buyer, "IT"] < price["IT"]:
                return "insufficient_funds"
        job.burst = 0 if within else demand
        for key, (used, burst) in parties.items():
            self.usage[key] = used + demand, burst - job.burst, self.now_ms
        used_by_all, burst = self.party("market", "")
        self.usage["market", ""] = used_by_all + demand, burst, self.now_ms
        self.count("industrial_admitted_total")
        return None

    def give_back(self, job: Record) -> None:
        """What a job was charged that never ran, as far as it still counts."""
        sides = {"market": "", "buyer": job.buyer, "provider": job.parts[-1].provider}
        for key in sides.items():
            used, burst, at_ms = self.usage[key]
            elapsed_ms = max(0, at_ms - job.queued_ms)
            used -= job.units * MICRO * max(60_000 - elapsed_ms, 0) // 60_000
            if key[0] != "market":
                burst += max(0, job.burst - self.refill(elapsed_ms))
            quota = self.config["burst_quota_micro"]
            self.usage[key] = max(0, used), min(quota, burst), at_ms

    # The consumer pool and the comfort guard.

    def pool_now(self) -> list[Record]:
        """The pool without what blocks take that come after the last command."""
        blocks = self.height() - self.height_drained
        ordered = sorted(self.pool, key=lambda t: (-t.rate, t.seq))
        return ordered[blocks * self.config["block_tx_capacity"] :]

    def send(self, sender: str, fee: int, size: int) -> str:
        """The id of a transaction, or the reason why it is not let in."""
        rate = Fraction(fee, size)
        told = {"owner": sender, "fee": fee, "bytes": size}
        if sum(t.sender == sender for t in self.pool) >= self.config["mempool_sender_limit"]:
            self.tell("tx_refused", reason="sender_limit", **told)
            return "sender_limit"
        if len(self.pool) >= self.config["mempool_lane_limit"]:
            last = min(self.pool, key=lambda t: (t.rate, -t.seq))
            if rate <= last.rate:
                self.tell("tx_refused", reason="pool_full", **told)
                return "pool_full"
            self.pool.remove(last)
            gone = {"fee": last.fee, "bytes": last.size}
            self.tell("tx_evicted", owner=last.sender, tx_id=f"t-{last.seq}", **gone)
        self.sent += 1
        self.fees.append(fee)
        self.pool.append(
            Record(seq=self.sent, sender=sender, fee=fee, size=size, rate=rate, at_ms=self.now_ms)
        )
        self.tell("tx_admitted", tx_id=f"t-{self.sent}", **told)
        return f"t-{self.sent}"

    def guard(self) -> str:
        fees = sorted(self.fees[-50:])
        ages = sorted(self.now_ms - t.at_ms for t in self.pool_now())
        fee = fees[len(fees) * 9 // 10] if fees else 0
        age = ages[floor((len(ages) - 1) * Fraction(19, 20) + Fraction(1, 2))] if ages else 0
        longest = self.config["comfort_max_age_p95_ms"]
        is_tight = fee > self.in_force("comfort_threshold_p90") or 0 < longest < age
        return "tight" if is_tight else "loose"

    def is_held(self, job: Record) -> bool:
        return bool(job.lane == "industrial" and self.guard() == "tight")

    # Jobs.

    def overdue(self, job: Record) -> bool:
        return bool(self.now_ms // 1000 > job.deadline)

    def live(self) -> list[Record]:
        return [j for j in self.jobs.values() if j.state in ("pending", "queued", "active")]

    def submit(self, job: Record, wait: bool) -> str:
        """The state of the job, or the reason why there is none."""
        if job.id in self.jobs:
            return self.jobs[job.id].state
        job.seq = len(self.jobs) + 1
        job.held = False
        job.deadline = self.now_ms // 1000 + job.deadline_secs
        if self.is_held(job):
            self.count("industrial_rejected_total", "comfort_guard")
            self.count("industrial_deferred_total")
            return self.refuse(job, "comfort_guard")
        offer = self.choose(job)
        self.record_match(job, offer)
        if isinstance(offer, str):
            if not wait:
                return self.refuse(job, offer)
            job.state = "pending"
            self.jobs[job.id] = job
            self.tell("job_pending", job=job, reason=offer, units=job.units, mode=self.guard())
            return job.state
        reason = self.refusal(job, offer)
        if reason is not None:
            if reason != "insufficient_funds":
                self.count("industrial_rejected_total", reason)
            if reason == "capacity":
                self.count("industrial_deferred_total")
            return self.refuse(job, reason)
        self.jobs[job.id] = job
        self.place(job, offer)
        self.work()
        return job.state

    def refuse(self, job: Record, reason: str) -> str:
        told = {"reason": reason, "units": job.units, "mode": self.guard(), "asked": asked_of(job)}
        self.tell("job_refused", job=job, **told)
        return reason

    # Sealed bids.

    def commit(self, bid: Record) -> int:
        """The last height at which it may be revealed."""
        bond = self.config["bid_bond_ct"] if self.mode == "real" else 0
        if self.wallets[bid.owner, "CT"] < bond:
            raise Denied("insufficient_funds")
        bid.state, bid.bond, bid.job_id, bid.refused = "committed", bond, None, None
        bid.since = self.height() + 2
        bid.until = self.height() + self.config["bid_reveal_window"]
        self.wallets[bid.owner, "CT"] -= bond
        self.bids[bid.sequence] = bid
        self.tell(
            "bid_committed",
            owner=bid.owner,
            bidder=bid.bidder,
            height=self.height(),
            sequence=bid.sequence,
            reveal_from=bid.since,
            reveal_until=bid.until,
            bond_ct=bond,
        )
        return int(bid.until)

    def reveal(self, bid: Record) -> str:
        """The state of its job, or the reason why there is none."""
        if bid.job_id is not None:
            return str(self.jobs[bid.job_id].state)
        if self.height() > bid.until:
            return "expired"
        if bid.state == "committed" and self.height() < bid.since:
            raise Denied("too_early")
        self.end_bond(bid, "refunded")
        self.wallets[bid.owner, "CT"] += bid.bond * (bid.state == "committed")
        # A bid spends the money of its owner alone.
        is_own = bid.job.buyer == bid.owner
        verdict = self.submit(bid.job, True) if is_own else "buyer_mismatch"
        bid.state = "revealed"
        got_in = bid.job.id in self.jobs
        bid.job_id, bid.refused = (bid.job.id, None) if got_in else (None, verdict)
        job = bid.job if got_in else None
        self.tell("bid_revealed", job=job, owner=bid.owner, refused=bid.refused)
        return verdict

    def expire(self, bid: Record) -> None:
        self.end_bond(bid, "burned")
        bid.state = "expired"
        self.burned += bid.bond
        self.count("slashing_burn_ct_total", by=bid.bond)
        self.count("bonds_burned_total", "bidder", by=int(bid.bond > 0))
        self.tell("bid_expired", owner=bid.owner, burned_ct=bid.bond)

    def end_bond(self, bid: Record, kind: str) -> None:
        if bid.state == "committed":
            self.count("compute_market_fee_split", "ct", kind, by=bid.bond)

    def place(self, job: Record, offer: Record) -> None:
        self.board[job.lane].append(self.price_of(job, offer))
        self.priced += 1
        self.unsaved = True
        self.arrivals += 1
        job.state, job.arrival, job.queued_ms = "queued", self.arrivals, self.now_ms
        job.funded = self.mode == "real"
        self.give(job, offer)
        if job.funded:
            job.bonds["buyer"] = job.consumer_bond
            self.wallets[job.buyer, "CT"] -= job.consumer_bond
        self.tell(
            "job_queued",
            job=job,
            offer=offer.id,
            provider=offer.provider,
            units=job.units,
            price_per_unit=offer.price,
            funded=job.funded,
            mode=self.guard(),
        )

    def needed(self, job: Record) -> dict[str, int]:
        """What its escrow has to hold: what providers are due, and what is left at its price."""
        *earlier, present = job.parts
        left = job.units - sum(part.units for part in earlier)
        sums = [split(left * present.price, present.pct), *map(self.due, earlier)]
        return {token: sum(each[token] for each in sums) for token in ("CT", "IT")}

    def due(self, part: Record) -> dict[str, int]:
        return split(part.units * part.price, part.pct)

    def give(self, job: Record, offer: Record) -> None:
        """Give a job, or what is left of it, to an offer."""
        part = Record(
            offer=offer.id, provider=offer.provider, price=offer.price, pct=offer.pct, units=0
        )
        job.parts.append(part)
        left = job.units - units_proven(job)
        offer.left -= left
        offer.reserved += left
        if job.funded:
            for token, amount in self.needed(job).items():
                more = amount - job.escrow[token]
                if more < 0:
                    self.refund(job, token, -more)
                else:
                    job.escrow[token] += more
                    self.wallets[job.buyer, token] -= more
            job.bonds["provider"] = offer.provider_bond
            self.wallets[offer.provider, "CT"] -= offer.provider_bond

    def hand_over(self, job: Record, offer: Record) -> str:
        """What was proven stays the old provider's, and it gets its bond back.

        Nobody may come to have two receipts at one price.
        """
        proven = [(part.provider, part.price) for part in job.parts if part.units]
        if (offer.provider, offer.price) in proven:
            raise Denied("key_collision")
        left = job.units - units_proven(job)
        present = job.parts[-1]
        if job.funded:
            part = Record(price=offer.price, pct=offer.pct)
            need = self.needed(Record(units=job.units, parts=[*job.parts, part]))
            if any(self.wallets[job.buyer, t] < need[t] - job.escrow[t] for t in need):
                raise Denied("insufficient_funds")
            if self.wallets[offer.provider, "CT"] < offer.provider_bond:
                raise Denied("insufficient_funds")
            self.release_bond(job, "provider", present.provider)
        before = self.offers[present.offer]
        before.reserved -= left
        before.left += left
        self.give(job, offer)
        self.count("scheduler_preempt_total", "success")
        self.log += f"{job.id} preempted\n"
        self.count("scheduler_cancel_total", "preempted")
        ends = {"from": present.provider, "to": offer.provider}
        earned = {f"{end}_score": self.earned(who) for end, who in ends.items()}
        told = {**ends, **earned, "units": left, "price_per_unit": offer.price}
        self.tell("job_handed_over", job=job, offer=offer.id, **told)
        return str(offer.provider)

    def earned(self, provider: str) -> int:
        return self.scores[provider] - self.seeds[provider]

    def pending(self) -> list[Record]:
        found = [j for j in self.jobs.values() if j.state == "pending" and not j.held]
        return sorted(found, key=lambda j: (CLASSES.index(j.priority), j.seq))

    def match_pending(self, only_for: Record | None = None) -> list[str]:
        matched = []
        for job in self.pending():
            if self.overdue(job) or (only_for is not None and self.stage(job, only_for) < 5):
                continue
            if self.is_held(job):
                self.may_defer(job, "comfort_guard")
                continue
            offer = self.choose(job)
            if isinstance(offer, str):
                continue
            reason = self.refusal(job, offer)
            if reason == "capacity":
                self.may_defer(job, reason)
            if reason is None:
                self.record_match(job, offer)
                self.place(job, offer)
                matched.append(job.id)
        self.work()
        return matched

    def may_defer(self, job: Record, reason: str) -> None:
        self.deferrable.append((job.id, reason, job.units, self.guard()))

    def follow(self, told: list[tuple[Any, ...]], seq: int) -> None:
        """Take over which of the jobs that wait the market says, from behind an event on, are kept
        out by the load alone: it tries a job only when something may have helped it."""
        for index, (event, job_id, offer, owner, detail) in enumerate(told, seq):
            if event == "job_deferred":
                said = (job_id, detail["reason"], detail["units"], detail["mode"])
                assert said in self.deferrable, (said, self.deferrable)
                assert (offer, owner) == (None, self.jobs[job_id].buyer)
                self.count_board()
                self.events.insert(index, told[index - seq])
                self.count("industrial_deferred_total")
        self.deferrable.clear()

    def hold(self, job: Record) -> bool:
        self.check_live(job)
        if job.held:
            return False
        if job.state == "active":
            raise Denied("not_waiting")
        job.held = True
        self.tell("job_held", job=job)
        return True

    def release(self, job: Record) -> bool:
        self.check_live(job)
        if not job.held:
            return False
        job.held = False
        self.tell("job_released", job=job)
        self.work()
        return True

    def change_job(self, job: Record, priority: str, secs: int) -> str:
        """Another priority, and a deadline so long from now."""
        self.check_live(job)
        deadline = self.now_ms // 1000 + secs
        if deadline < job.deadline:
            raise Denied("deadline")
        if deadline != job.deadline:
            by_secs, job.deadline = deadline - job.deadline, deadline
            self.tell("deadline_extended", job=job, deadline=deadline, by_secs=by_secs)
        if priority != job.priority:
            self.tell("job_changed", job=job, was_priority=job.priority, priority=priority)
            job.asked_priority = getattr(job, "asked_priority", job.priority)
            job.priority = priority
        self.work()
        return str(job.state)

    def check_live(self, job: Record) -> None:
        if job.state in _ENDED:
            raise Denied("already_done")

    def waiting(self, *, held: bool = False) -> list[Record]:
        """Queued jobs in the order they would start, caps aside; with `held` those on hold too.

        Of one class, who came first goes first; aging decides between the first of each class.
        """
        aging_ms = self.config["priority_aging_secs"] * 1000

        def order(job: Record) -> tuple[int, int]:
            waited_ms = max(0, self.now_ms - job.queued_ms)
            risen = waited_ms // aging_ms if aging_ms else 0
            return max(0, CLASSES.index(job.priority) - risen), job.arrival

        left = sorted(
            (j for j in self.jobs.values() if j.state == "queued" and (held or not j.held)),
            key=lambda j: j.arrival,
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
            share = Fraction(100 * low, self.config["slots"])
            held_back = bool(running) and share > self.config["low_priority_cap_pct"]
            able = [j for j in self.waiting() if j.priority != "low" or not held_back]
            if not able:
                return
            first = [j for j in able if not self.has_its_share(j, able)]
            job = (first or able)[0]
            if self.overdue(job):
                return  # A sweep comes first.
            job.state = "active"
            job.deadline = max(job.deadline, self.now_ms // 1000 + job.deadline_secs)
            waited_ms = self.now_ms - job.queued_ms
            if job.priority != "low" and waited_ms > 5000:
                self.count("scheduler_priority_miss_total")
            self.tell("job_started", job=job, waited_ms=max(0, waited_ms))

    def has_its_share(self, job: Record, able: list[Record]) -> bool:
        """Whether one of its parties has so many slots that jobs of others go first."""
        sides = (lambda j: j.buyer, lambda j: j.parts[-1].provider)
        for party in sides:
            held = sum(party(j) == party(job) for j in self.active())
            share = Fraction(100 * held, self.config["slots"])
            others = any(party(j) != party(job) for j in able)
            if others and share >= self.config["party_slots_pct"]:
                return True
        return False

    def prove(self, job: Record, proofs: list[tuple[int, bool]]) -> list[str]:
        """A verdict for each (slice, is right)."""
        accepted: set[int] = set()
        for index, is_right in proofs:
            if index in job.proven | accepted:
                if not is_right:
                    raise Denied("conflict")
            elif job.state in _ENDED:
                raise Denied("already_done")
            elif job.state != "active":
                raise Denied("not_active")
            elif self.overdue(job):
                raise Denied("deadline")
            elif is_right:
                accepted.add(index)
        verdicts = []
        for index, is_right in proofs:
            if not is_right:
                verdicts.append("invalid")
                provider = job.parts[-1].provider
                self.tell("proof_refused", job=job, owner=provider, slice=index)
                self.change_score(provider, -1)
            elif index in job.proven:
                verdicts.append("known")
            else:
                verdicts.append("proven")
                job.proven.add(index)
        if accepted:
            self.credit(job, accepted)
        if job.state == "active" and len(job.proven) == len(job.slice_units):
            self.end(job, "completed", "provider", "all_proven")
            self.change_score(job.parts[-1].provider, +1)
            self.work()
        return verdicts

    def credit(self, job: Record, accepted: set[int]) -> None:
        """Proven slices are credited to the provider that holds the job now."""
        part = job.parts[-1]
        if job.unreadable in accepted:
            job.unreadable = None
        units = sum(job.slice_units[index] for index in accepted)
        part.units += units
        offer = self.offers[part.offer]
        offer.reserved -= units
        offer.proven += units
        self.count("industrial_units_total", by=units)
        self.work_log.append((self.now_ms // 1000, units))
        self.epoch_units[part.provider] += units
        told = {"slices": len(accepted), "units": units, "provider": part.provider}
        self.tell("job_proved", job=job, **told)

    def find_fault(self, job: Record, fault: str, index: int) -> str:
        """A slice was run and has changed, or could not be read."""
        if job.state != "active":
            return str(job.state)
        if fault == "slice_changed":
            bond = job.bonds["buyer"]
            self.end(job, "failed", "client", fault, bond, "slice:slash", burn_of="buyer")
            self.work()
        elif job.unreadable != index:
            job.unreadable = index
            self.tell(fault, job=job, slice=index)
        return str(job.state)

    def cancel(self, job: Record, by: str) -> str:
        if job.state == "cancelled":
            return "already_cancelled"
        if job.state in ("completed", "failed"):
            return "already_done"
        burn = 0
        if by == "provider":
            if job.state == "pending":
                raise Denied("refused")
            provider = job.parts[-1].provider
            self.cancels.append((provider, self.now_ms))
            since_ms = self.now_ms - self.config["provider_cancel_window_secs"] * 1000
            recent = [who for who, at_ms in self.cancels if at_ms >= since_ms]
            if recent.count(provider) >= self.config["provider_cancel_penalty_after"]:
                burn = ceil(Fraction(job.bonds["provider"], 10))
        if job.state == "queued":
            self.give_back(job)
        self.end(job, "cancelled", by, f"cancelled_by_{by}", burn, "cancel:slash")
        if by == "provider":
            self.change_score(provider, -1)
        self.log += f"{job.id} {by}\n"
        self.count("scheduler_cancel_total", by)
        self.work()
        return "cancelled"

    def miss(self, job: Record) -> None:
        if self.was_away(job.deadline):
            self.end(job, "failed", "deadline", "outage")
            return
        if job.state != "active":
            self.end(job, "failed", "deadline", "never_started")
            return
        if job.unreadable is not None:
            self.end(job, "failed", "deadline", "slice_unreadable")
            return
        burn = job.bonds["provider"]
        self.end(job, "failed", "deadline", "deadline_missed", burn, "sla:slash")
        self.change_score(job.parts[-1].provider, -1)
        self.count("industrial_rejected_total", "SLA")

    def end(
        self,
        job: Record,
        state: str,
        by: str,
        cause: str,
        burn: int = 0,
        burn_for: str = "",
        burn_of: str = "provider",
    ) -> None:
        job.state, job.ended_by, job.cause = state, by, cause
        if job.parts:
            present = job.parts[-1]
            left = job.units - units_proven(job)
            self.offers[present.offer].reserved -= left
            self.offers[present.offer].left += left
            owed = self.issue_receipts(job)
            for token in ("CT", "IT"):
                self.refund(job, token, job.escrow[token] - owed[token])
            for role, owner in (("buyer", job.buyer), ("provider", present.provider)):
                burned = burn if role == burn_of else 0
                self.release_bond(job, role, owner, burned)
                if burned:
                    self.tell("bond_burned", job=job, owner=owner, ct=burned, cause=burn_for)
        money = {
            f"{kind}_{token.lower()}": amount
            for kind, sums in (("paid", job.paid), ("refunded", job.refunded))
            for token, amount in sums.items()
        }
        proven = units_proven(job)
        self.tell(f"job_{state}", job=job, by=by, cause=cause, units_proven=proven, **money)

    def issue_receipts(self, job: Record) -> dict[str, int]:
        """One for each provider that proved something; what is still owed then."""
        owed = {"CT": 0, "IT": 0}
        for part in job.parts:
            if not part.units:
                continue
            receipt = Record(
                job=job.id,
                provider=part.provider,
                price=part.price,
                units=part.units,
                status="pending" if job.funded else "recorded",
                due=self.due(part),
            )
            self.receipts.append(receipt)
            self.count("matches_total", "false" if job.funded else "true")
            if job.funded and self.mode == "real":
                self.pay(receipt)
            elif job.funded:
                owed = {token: owed[token] + receipt.due[token] for token in owed}
        return owed

    # What it looks like from outside.

    def told_since(self, seq: int) -> tuple[list[tuple[Any, ...]], dict[str, list[str]]]:
        """What happened from behind an event on, and the histories of the jobs it happened to.

        A job that is refused has no history.
        """
        found = self.events[seq:]
        about = {job_id for _, job_id, *_ in found if job_id in self.jobs}
        return found, {
            name: [
                event
                for event, job_id, *_ in self.events
                if job_id == name and event not in ("job_refused", "bid_revealed")
            ]
            for name in about
        }

    def picture(self) -> dict[str, Any]:
        running = [j for j in self.jobs.values() if j.state in ("queued", "active")]
        owners = sorted({owner for owner, _ in self.wallets})
        return {
            "balances": self.balances(),
            "held": {owner: self.held_of(owner) for owner in owners},
            "mode": self.mode,
            "height": self.height(),
            "parameters": {name: self.in_force(name) for name in GOVERNED},
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
                j.id: (j.state, j.funded, j.ended_by, j.cause, j.deadline, j.paid, j.refunded)
                for j in self.jobs.values()
            },
            "bids": {
                b.sequence: (b.state, b.bond, b.job_id, b.refused) for b in self.bids.values()
            },
            "placements": {
                j.id: [(p.offer, p.provider, p.price, p.pct, p.units) for p in j.parts]
                for j in self.jobs.values()
            },
            "proven": {j.id: sorted(j.proven) for j in self.jobs.values()},
            "backlog": sum(j.units - units_proven(j) for j in running),
            "pending": [j.id for j in self.pending()],
            "waiting": [j.id for j in self.waiting(held=True)],
            "lanes": {
                lane: tuple(
                    len([j for j in jobs if j.lane == lane])
                    for jobs in (self.waiting(), self.pending())
                )
                for lane in ("industrial", "consumer")
            },
            "active": {j.id for j in self.active()},
            "receipts": [
                (r.job, r.provider, r.price, r.units, r.status, r.due) for r in self.receipts
            ],
            "log": self.log,
            "counts": {key: number for key, number in self.counts.items() if number},
            "outcomes": {key: n for key, n in Counter(self.outcomes[-100:]).items() if n},
            "utilization": dict(self.matches_on),
            "effective_price": self.effective_price,
            "prices": {lane: (self.on_board(lane), self.bands(lane)) for lane in self.board},
            "pool": [t.seq for t in self.pool_now()],
            "guard": self.guard(),
            "estimate": self.estimate(),
            "headroom": self.headroom(),
            "multiplier": self.multiplier_now(),
            "epochs": [
                (e.height, e.multiplier, e.backlog, e.pct, e.units, e.amount, e.paid)
                for e in self.epochs
            ],
            "parties": {key: self.party(*key) for key in self.usage if key[0] != "market"},
        }


def units_proven(job: Record) -> int:
    """Units of a job that are proven, by whomever."""
    return sum(part.units for part in job.parts)


def asked_of(job: Record) -> dict[str, Any]:
    """What the log keeps of what a refused job asked for."""
    found = {name: value for name, value in job.capability.items() if value}
    if isinstance(found.get("gpu"), list):
        models = sorted(set(found["gpu"]))
        found["gpu"] = models if len(models) > 1 else models[0]
    return found | {
        "max_price_per_unit": job.max_price,
        "consumer_bond": job.consumer_bond,
        "provider_bond_min": job.provider_bond_min,
    }
