"""Random histories against a plain model of the market (`model`).

The model predicts the outcome of every action and the state after it: which offer wins, which job
starts, who is paid what, what is counted, and what the log tells. After each step the store must
look exactly like the model, and the audit must find nothing.
"""

import pickle
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from compute_market import chain, clock, events, home
from compute_market.admission import capacity, comfort, mempool, shares
from compute_market.bids import bids, sealed_jobs, sealing
from compute_market.bids.sealing import Opening
from compute_market.clock import Reading
from compute_market.engine import SWEEP_LIMIT
from compute_market.errors import MarketError
from compute_market.events import Logged
from compute_market.governance import governance
from compute_market.jobs import cancellations, faults, handovers, holding, jobs, lanes, pages
from compute_market.jobs.cancel import cancel
from compute_market.jobs.extend import extend
from compute_market.jobs.prove import InvalidProof, prove
from compute_market.jobs.selection import Selection
from compute_market.jobs.submit import change_offer, post_offer, submit
from compute_market.jobs.waiting import match_pending
from compute_market.offers import board, offers
from compute_market.records import LIVE_STATES, Lane, Refused, Side, Slice, replace
from compute_market.reputation import reputation
from compute_market.requests import JobRequest, OfferChange
from compute_market.scheduler import outcomes, queue
from compute_market.scheduler.matching import judge
from compute_market.settlement import escrow, ledger, modes, settlement
from compute_market.store.schema import ACTIVE, BIDS, COUNTERS, EPOCHS, JOBS, MEMPOOL, RECEIPTS
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy
from tests.simulation.model import CLASSES, GOVERNED, MICRO, Denied, Model, units_proven
from tests.support.bids import ALICE, SALT
from tests.support.effort import effort
from tests.support.market import DIGEST, Market, job_request, offer_request, slice_of
from tests.support.memory import shared_memory

MIB = 1_048_576
WRONG = bytes(32)
LANES: tuple[Lane, Lane] = ("industrial", "consumer")
# After so many rules the laws are checked; what breaks one stays broken, as a rule. The store is
# compared with the model after each.
AUDITED_EVERY = effort(4, 1)

# What the machine sets at the start, so that shares, buckets and penalties come into play soon.
START_CONFIG = {
    "slots": 2,
    "low_priority_cap_pct": 50,
    "party_slots_pct": 50,
    "priority_aging_secs": 0,
    "deadline_min_secs": 0,
    "min_capacity": 2,
    "burst_refill_rate_micro": MICRO // 2,
    "epoch_blocks": 5,
    "burst_quota_micro": 20 * MICRO,
    "provider_cancel_penalty_after": 2,
    "provider_cancel_window_secs": 30,
    "clock_tolerance_secs": 20,
    "outage_secs": 120,
    "bid_reveal_window": 20,
    "bid_bond_ct": 5,
    "comfort_threshold_p90": 50,
    "comfort_max_age_p95_ms": 5_000,
    "block_tx_capacity": 1,
    "mempool_lane_limit": 5,
    "mempool_sender_limit": 3,
    "price_board_window": 5,
}


def picture(market: Market) -> dict[str, Any]:
    """What `Model.picture` tells, as the store has it."""

    def read(txn: Txn) -> dict[str, Any]:
        all_jobs = list(txn.records(JOBS))
        receipts = sorted(txn.records(RECEIPTS), key=lambda r: r.seq)
        settled = [settlement.of(txn, r.idempotency_key) for r in receipts]
        sealed = {bid.bid_id: bid for bid in txn.records(BIDS)}
        # The model knows bids by their sequence numbers.
        accounts = {ledger.bid_bond(bid.bid_id): f"bid/{bid.sequence}" for bid in sealed.values()}
        return {
            "balances": {
                f"{accounts.get(account, account)} {token}": amount
                for token in ledger.TOKENS
                for account, amount in ledger.balances(txn, token).items()
            },
            "held": {owner: held_of(txn, owner) for owner in OWNERS},
            "mode": modes.state(txn).mode,
            "height": chain.height(txn),
            "parameters": {name: getattr(txn.config, name) for name in GOVERNED},
            "scores": {provider: score.score for provider, score in reputation.entries(txn)},
            "offers": {
                o.offer_id: (o.state, o.units_left, o.units_reserved, o.units_proven)
                for o in offers.listed(txn)
            },
            "jobs": {
                j.job_id: (
                    j.state,
                    j.funded,
                    j.ended_by,
                    j.cause,
                    j.deadline,
                    {"CT": j.paid_ct, "IT": j.paid_it},
                    {"CT": j.refunded_ct, "IT": j.refunded_it},
                )
                for j in all_jobs
            },
            "bids": {
                b.sequence: (b.state, b.bond_ct, b.job_id, b.refused) for b in sealed.values()
            },
            "placements": {
                j.job_id: [
                    (p.offer_id, p.provider, p.price_per_unit, p.fee_pct_ct, p.units_proven)
                    for p in jobs.placements(txn, j)
                ]
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
            "backlog": jobs.backlog_units(txn),
            "pending": list(queue.pending_ids(txn)),
            "waiting": list(queue.in_order(txn)),
            "lanes": {
                lane: (lanes.queued_in(txn, lane), lanes.pending_in(txn, lane)) for lane in LANES
            },
            "active": {key.decode() for key, _ in txn.scan(ACTIVE)},
            "receipts": [
                (r.job_id, r.provider, r.quote_price, r.units, s.status, {"CT": s.ct, "IT": s.it})
                for r, s in zip(receipts, settled, strict=True)
                if s is not None
            ],
            "log": cancellations.text_from(txn, 0).decode(),
            "counts": {
                tuple(key.decode().split("\0")): number
                for key, number in txn.sums(COUNTERS).items()
            },
            "outcomes": {name: n for name, n in outcomes.last_outcomes(txn).items() if n},
            "utilization": outcomes.utilization(txn),
            "effective_price": outcomes.last_effective_price(txn),
            "prices": {lane: prices_of(txn, lane) for lane in LANES},
            "pool": pool_of(txn),
            "guard": comfort.mode(txn),
            "estimate": capacity.estimate(txn),
            "headroom": capacity.headroom_micro(txn),
            "multiplier": subsidy.multiplier(txn),
            "epochs": [
                (
                    height,
                    each.multiplier,
                    each.backlog,
                    each.utilization_pct,
                    each.units,
                    each.compute_it,
                    each.paid,
                )
                for each in txn.records(EPOCHS)
                for height in range(each.from_height, each.to_height, each.blocks)
            ],
            "parties": {
                (each.role, each.identity): (each.used_micro, each.burst_micro)
                for each in shares.recent(txn)
            },
        }

    return market.view(read)


def told_since(market: Market, seq: int) -> tuple[list[Any], dict[str, list[str]]]:
    """What the log tells from behind an event on, and the histories of the jobs it tells of."""

    def read(txn: Txn) -> tuple[list[Any], dict[str, list[str]]]:
        found = [told(logged) for logged in events.forward(txn, seq)]
        about = [jobs.find(txn, job_id) for _, job_id, *_ in found if job_id is not None]
        return found, {
            job.job_id: [logged.event.event for logged in events.history(txn, job)]
            for job in about
            if job is not None
        }

    return market.view(read)


def prices_of(txn: Txn, lane: Lane) -> tuple[list[int], tuple[int, ...] | None]:
    bands = board.bands(txn, lane)
    shown = None if bands is None else (bands.p25, bands.median, bands.p75, bands.samples)
    return board.window(txn, lane), shown


def deferred_in(txn: Txn) -> int:
    """Jobs of the lane industrial that the load alone keeps out."""
    waiting = lanes.queued_in(txn, "industrial") + lanes.pending_in(txn, "industrial")
    return waiting - lanes.waiting_in(txn, "industrial")


def pool_of(txn: Txn) -> list[int]:
    """The transactions that the next change will find: blocks take the first ones."""
    stored = [each.seq for each in txn.records(MEMPOOL)]
    return stored[len(stored) - mempool.present(txn).size :]


def held_of(txn: Txn, owner: str) -> tuple[int, int, int]:
    shown = escrow.balance_document(txn, owner)
    return shown["escrow"]["ct"], shown["escrow"]["it"], shown["bonds"]["ct"]


def told(logged: Logged) -> tuple[Any, ...]:
    """An event without what is told in words or as a guess, and ids of bids."""
    event = logged.event
    left_out = ("message", "retry_after_ms", "bid_id")
    detail = {k: v for k, v in event.detail.items() if k not in left_out}
    return event.event, event.job_id, event.offer_id, event.owner, detail


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
        {"cpu_cores": 4, "gpu": "y", "gpu_count": 1},
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
        {"gpu": ["y", "x"], "gpu_count": 1},
        {"gpu": ["z", "y"], "gpu_count": 1},
        {"accelerator": "t"},
        {"accelerator": "t", "accelerator_memory_mb": 8_001},
    )
)
OFFERS = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(PROVIDERS),
        "capability": OFFERED,
        "units": st.sampled_from((200, 200, 30, 3, 1)),
        "price": st.sampled_from((2, 2, 2, 4, 4, 5, 0)),  # 0 is the market price
        "multiplier": st.sampled_from(("1", "1", "0.5", "0.5", "0.999999")),
        "pct": st.sampled_from((0, 25, 37, 50, 100)),
        "provider_bond": st.sampled_from((1, 5, 5, 99)),
        "consumer_bond": st.sampled_from((1, 1, 3)),
        "reputation": st.sampled_from((9, 9, 8, 7, 0, -1)),
        "directed": st.sampled_from((False, False, False, True)),
    }
)


# What is proposed: key, the setting it changes, and the value as a text and as it is stored.
PROPOSALS = (
    ("min_capacity", "min_capacity", "1", 1),
    ("min_capacity", "min_capacity", "8", 8),
    ("fair_share_cap", "fair_share_cap_ppm", "0.05", 50_000),
    ("fair_share_cap", "fair_share_cap_ppm", "1.0", 1_000_000),
    ("burst_refill_rate", "burst_refill_rate_micro", "0.0", 0),
    ("burst_refill_rate", "burst_refill_rate_micro", "1.0", 1_000_000),
)


def rivals(offer: Record, providers: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Offers that could take a job over from another."""
    return st.fixed_dictionaries(
        {
            "provider": st.sampled_from(providers),
            "capability": st.just(offer.capability),
            "units": st.sampled_from((200, 30)),
            "price": st.sampled_from((offer.price, 2, 5)),
            "multiplier": st.just("1"),
            "pct": st.sampled_from((0, 25, 37, 50, 100)),
            "provider_bond": st.sampled_from((1, 5)),
            "consumer_bond": st.just(1),
            "reputation": st.just(9),
            "directed": st.just(False),
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
        "provider_bond_min": st.sampled_from((1, 1, 1, 5)),
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
        self.folder = Path(tempfile.mkdtemp(dir=shared_memory()))
        self.market = Market(self.folder / "market")
        self.told = 0  # events that have been compared
        self.openings: dict[int, Opening] = {}  # of bids, by their sequence numbers
        self.looks = 0

    def teardown(self) -> None:
        self.market.store.close()
        shutil.rmtree(self.folder)

    @initialize(
        mode=st.sampled_from(("real", "real", "dry_run")),
        limits=st.sampled_from(((10, 100_000), (10, 100_000), (3, 1_000_000))),
        funds=st.sampled_from((2000, 500, 60)),
        first=st.lists(OFFERS, min_size=3, max_size=6),
        requests=st.lists(REQUESTS, max_size=5),
        data=st.data(),
    )
    def begin(
        self,
        mode: str,
        limits: tuple[int, int],
        funds: int,
        first: list[dict[str, Any]],
        requests: list[dict[str, Any]],
        data: st.DataObject,
    ) -> None:
        initial_capacity, share_ppm = limits
        config = START_CONFIG | {
            "initial_capacity": initial_capacity,
            "fair_share_cap_ppm": share_ppm,
        }
        self.model = Model(mode, config)
        self.market.configure(settle_mode=mode, **config)
        for owner in OWNERS:
            self.move_money(owner, funds, funds)
        self.market.opened.prices.load()
        for offer in first:
            self.post(offer | {"price": offer["price"] or 2})
        self.order(requests, data)

    def act(
        self,
        expected: Callable[[], Any],
        action: Callable[[Txn], Any],
        *,
        rehearse: bool = False,
        sweep_limit: int = SWEEP_LIMIT,
    ) -> None:
        """One command: the model says what must come of it, then the store is asked."""
        before = pickle.dumps(self.model)
        self.model.housekeeping(sweeps=sweep_limit > 0)
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
        assert self.market.opened.engine.update(action, sweep_limit=sweep_limit) == wanted

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
            price_per_unit=terms["price"],
            reputation_multiplier=terms["multiplier"],
            fee_pct_ct=offer.pct,
            provider_bond=offer.provider_bond,
            consumer_bond=offer.consumer_bond,
            reputation=offer.reputation,
            job_id=target,
        )

        def action(txn: Txn) -> tuple[str, list[str], int]:
            posted = post_offer(txn, request)
            return posted.offer.offer_id, posted.matched, posted.offer.price_per_unit

        # Who was deferred depends on what was tried when.
        deferred = 0 if offer.price else self.market.update(deferred_in, dry_run=True)
        self.act(
            lambda: (offer.id, self.model.post(offer, deferred), offer.price),
            action,
        )

    @rule(data=st.data())
    def withdraw_offer(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.offers)))

        self.act(
            lambda: self.model.withdraw_offer(self.model.offers[name]),
            lambda txn: offers.withdraw(txn, name)[1],
        )

    @rule(
        data=st.data(),
        by=st.sampled_from((-5, -1, 0, 2)),
        price=st.sampled_from((1, 3, 6)),
        pct=st.sampled_from((0, 37, 100)),
        multiplier=st.sampled_from(("0.5", "0.75", "1")),
    )
    def change_offer(
        self, data: st.DataObject, by: int, price: int, pct: int, multiplier: str
    ) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.offers)))
        asked = OfferChange(
            name,
            units=f"{by:+d}",
            price_per_unit=price,
            fee_pct_ct=pct,
            reputation_multiplier=multiplier,
        )

        def action(txn: Txn) -> dict[str, Any]:
            return change_offer(txn, asked).before

        self.act(
            lambda: self.model.change_offer(self.model.offers[name], by, price, pct, multiplier),
            action,
        )

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
                "provider_bond_min": 1,
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
        job = self.job_of(self.next_job_id(), terms)
        self.act(
            lambda: self.model.submit(job, job.wait),
            self.submission(job, job.max_price, job.lane, job.wait),
            rehearse=rehearse,
        )

    @staticmethod
    def job_of(job_id: str, terms: dict[str, Any]) -> Record:
        slice_units = [ceil(Fraction(length, MIB)) for length in terms["lengths"]]
        return Record(
            id=job_id,
            slice_units=slice_units,
            units=sum(slice_units),
            proven=set(),
            unreadable=None,
            parts=[],
            funded=False,
            ended_by=None,
            cause=None,
            escrow={"CT": 0, "IT": 0},
            bonds={"buyer": 0, "provider": 0},
            paid={"CT": 0, "IT": 0},
            refunded={"CT": 0, "IT": 0},
            **terms,
        )

    def submission(
        self, job: Record, max_price: int, lane: str, wait: bool
    ) -> Callable[[Txn], str]:
        request, inputs = self.asked(job, max_price, lane)

        def action(txn: Txn) -> str:
            found = submit(txn, request, inputs, wait=wait)
            return found.reason if isinstance(found, Refused) else found.job.state

        return action

    @staticmethod
    def asked(job: Record, max_price: int, lane: str) -> tuple[JobRequest, list[Slice]]:
        inputs = [slice_of(length, f"/{n}") for n, length in enumerate(job.lengths)]
        request = job_request(
            job.id,
            inputs,
            buyer=job.buyer,
            capability=dict(job.capability),
            max_price_per_unit=max_price,
            consumer_bond=job.consumer_bond,
            provider_bond_min=job.provider_bond_min,
            deadline_secs=job.deadline_secs,
            priority=getattr(job, "asked_priority", job.priority),
            lane=lane,
        )
        return request, inputs

    @rule(terms=REQUESTS, other=st.sampled_from(("", "", "", *OWNERS)), rehearse=st.booleans())
    def commit(self, terms: dict[str, Any], other: str, rehearse: bool) -> None:
        """Mostly a bid of the job's buyer, whom alone the job is taken from."""
        sequence = len(self.model.bids) + 1
        job = self.job_of(f"s{sequence}", terms)
        owner = other or job.buyer
        state = sealed_jobs.state_of(*self.asked(job, job.max_price, job.lane))
        bid = Record(sequence=sequence, owner=owner, bidder=ALICE.key_id.hex(), job=job)

        def action(txn: Txn) -> int:
            terms = bids.next_terms(txn, ALICE.public_key, ALICE.key_id)
            sealed = sealing.blind_sign_cat(
                SALT,
                state,
                market_id=terms.market_id,
                key=ALICE,
                height=terms.height,
                sequence=terms.sequence,
            )
            self.openings[sequence] = sealed.opening
            return bids.take(txn, sealed.bid_tx, owner).bid.reveal_until

        self.act(lambda: self.model.commit(bid), action, rehearse=rehearse)
        if sequence in self.model.bids:
            # It decides between bids that expire at one height, and nobody can foresee it.
            self.model.bids[sequence].id = self.openings[sequence].bid_id

    @precondition(lambda self: self.model.bids)
    @rule(data=st.data(), ms=st.sampled_from((0, 2_000, 20_000)), rehearse=st.booleans())
    def reveal(self, data: st.DataObject, ms: int, rehearse: bool) -> None:
        """Mostly a bid that was not revealed yet."""
        sealed = [bid.sequence for bid in self.model.bids.values() if bid.state == "committed"]
        sequence = data.draw(st.sampled_from(sorted([*self.model.bids, *sealed * 5])))
        if ms:
            self.advance(ms)

        def action(txn: Txn) -> str:
            opened = sealing.sign_reveal(self.openings[sequence], ALICE)
            found = bids.reveal(txn, opened)
            if isinstance(found, Refused):
                return found.reason
            return found.job.state if found.job is not None else str(found.bid.refused)

        self.act(lambda: self.model.reveal(self.model.bids[sequence]), action, rehearse=rehearse)

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

    # Consumers.

    @rule(
        sender=st.sampled_from(("a", "x", "y", "z")),
        fees=st.lists(st.sampled_from((1, 2, 3, 60)), min_size=1, max_size=4),
        size=st.sampled_from((1, 2, 3)),
        rehearse=st.booleans(),
    )
    def send(self, sender: str, fees: list[int], size: int, rehearse: bool) -> None:
        for fee in fees:

            def action(txn: Txn, fee: int = fee) -> str:
                found = mempool.submit(txn, sender, fee, size)
                return found.reason if isinstance(found, Refused) else found.transaction.tx_id

            self.act(
                lambda fee=fee: self.model.send(sender, fee, size),  # type: ignore[misc]
                action,
                rehearse=rehearse,
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
                for v in prove(txn, name, given)
            ]

        self.act(lambda: self.model.prove(self.model.jobs[name], proofs), action, rehearse=rehearse)

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), by=st.sampled_from(("client", "provider")))
    def cancel(self, data: st.DataObject, by: Any) -> None:
        name = self.draw_job(data)
        self.act(
            lambda: self.model.cancel(self.model.jobs[name], by),
            lambda txn: cancel(txn, name, by).outcome,
        )

    @precondition(lambda self: self.model.live())
    @rule(
        owner=st.sampled_from(OWNERS),
        side=st.sampled_from(("buyer", "provider")),
        states=st.sampled_from((LIVE_STATES, ("queued",), ("active", "completed"))),
        rehearse=st.booleans(),
    )
    def cancel_selected(self, owner: str, side: Side, states: Any, rehearse: bool) -> None:
        def expected() -> list[tuple[str, str]]:
            chosen = [
                job
                for job in self.model.jobs.values()
                if job.state in states
                and owner
                == (job.buyer if side == "buyer" else job.parts and job.parts[-1].provider)
            ]
            return [(job.id, self.model.cancel(job, "client")) for job in chosen]

        def action(txn: Txn) -> list[tuple[str, str]]:
            asked = Selection(states=states, **{f"{side}s": (owner,)})
            chosen = [job.job_id for job in pages.every(txn, asked)]
            return [(job_id, cancel(txn, job_id, "client").outcome) for job_id in chosen]

        self.act(expected, action, rehearse=rehearse)

    @precondition(lambda self: self.model.live())
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        name = self.draw_job(data)
        self.act(
            lambda: self.model.hold(self.model.jobs[name]),
            lambda txn: holding.hold(txn, name)[1],
        )

    @precondition(lambda self: any(job.held for job in self.model.live()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = sorted(job.id for job in self.model.live() if job.held)
        name = data.draw(st.sampled_from(held))
        self.act(
            lambda: self.model.release(self.model.jobs[name]),
            lambda txn: holding.release(txn, name)[1],
        )

    @precondition(lambda self: self.model.live())
    @rule(
        data=st.data(),
        priority=st.sampled_from(("high", "normal", "low")),
        secs=st.sampled_from((60, 200, 90_000)),
    )
    def change_job(self, data: st.DataObject, priority: Any, secs: int) -> None:
        name = self.draw_job(data)

        def action(txn: Txn) -> str:
            return holding.change(txn, name, priority=priority, deadline_secs=secs)[1].state

        self.act(lambda: self.model.change_job(self.model.jobs[name], priority, secs), action)

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), fault=st.sampled_from(("slice_changed", *["slice_unreadable"] * 2)))
    def find_fault(self, data: st.DataObject, fault: Any) -> None:
        name = self.draw_job(data)
        index = data.draw(st.integers(0, len(self.model.jobs[name].slice_units) - 1))
        self.act(
            lambda: self.model.find_fault(self.model.jobs[name], fault, index),
            lambda txn: faults.tell(txn, name, fault, index).state,
        )

    @rule()
    def match(self) -> None:
        self.act(lambda: self.model.match_pending(), match_pending)

    @precondition(lambda self: self.model.active())
    @rule(data=st.data(), begun=st.booleans(), again=st.booleans(), rehearse=st.booleans())
    def hand_over(self, data: st.DataObject, begun: bool, again: bool, rehearse: bool) -> None:
        """Give what an active job has left to an offer that fits it, mostly of somebody new."""
        name = data.draw(st.sampled_from(sorted(job.id for job in self.model.active())))
        job = self.model.jobs[name]
        open_slices = sorted(set(range(len(job.slice_units))) - job.proven)
        if begun and len(open_slices) > 1:
            self.give(name, [(open_slices[0], True)], False)
            job = self.model.jobs[name]  # Whoever was refused something has a model of its own.
        held = set() if again else {part.provider for part in job.parts}
        others = sorted({*PROVIDERS} - held - {job.buyer})
        if not others:
            return
        self.post(data.draw(rivals(self.model.offers[job.parts[-1].offer], others)))
        job = self.model.jobs[name]
        left = [o for o in self.model.offers.values() if o.provider in others]
        able = sorted(o.id for o in left if self.takes_over(job, o))
        if job.state != "active" or not able:
            return
        offer_id = data.draw(st.sampled_from(able))

        def action(txn: Txn) -> str:
            job, offer = jobs.get(txn, name), offers.get(txn, offer_id)
            left = replace(job, units=job.units - job.units_proven)
            assert judge(txn, left, offer, real=modes.is_real(txn)) == []
            return handovers.hand_over(txn, job, offer).placed.provider

        self.act(
            lambda: self.model.hand_over(self.model.jobs[name], self.model.offers[offer_id]),
            action,
            rehearse=rehearse,
        )

    def takes_over(self, job: Record, offer: Record) -> bool:
        return self.model.stage(job, offer, job.units - units_proven(job)) == 5

    # The operator.

    @rule(ms=st.sampled_from((1, 999, 5_001, 10_000, 61_000, 121_000, -3_000, -30_000)))
    def advance(self, ms: int) -> None:
        """A jump ahead may be an outage, and one back a clock that is not believed."""
        self.model.wall_ms += ms
        self.market.now_ms += ms
        self.act(lambda: None, lambda txn: None)

    @precondition(lambda self: not self.model.believed())
    @rule()
    def accept_clock(self) -> None:
        self.act(
            lambda: self.model.accept_clock(),
            lambda txn: clock.accept(txn, Reading(self.market.now_ms)),
        )

    @rule(by_secs=st.sampled_from((1, 60, 200)), away_ms=st.sampled_from((0, 61_000, 121_000)))
    def extend(self, by_secs: int, away_ms: int) -> None:
        """Overdue jobs are not failed first."""
        self.model.wall_ms += away_ms
        self.market.now_ms += away_ms
        self.act(
            lambda: self.model.extend(by_secs), lambda txn: extend(txn, by_secs), sweep_limit=0
        )

    @rule(
        do=st.sampled_from(("arm", "arm", "stop", "stop", "cancel_arm")),
        delay=st.sampled_from((0, 0, 5)),
        blocks=st.sampled_from((0, 4, 5)),
    )
    def change_mode(self, do: str, delay: int, blocks: int) -> None:
        if do == "arm":
            self.act(
                lambda: self.model.arm(delay),
                lambda txn: modes.arm(txn, delay) and None,
            )
            self.act(
                lambda: self.model.advance_height(blocks),
                lambda txn: chain.advance(txn, blocks).height,
            )
        elif do == "cancel_arm":
            self.act(
                lambda: self.model.cancel_arm(),
                lambda txn: modes.cancel_arm(txn) and None,
            )
        else:
            self.act(
                lambda: self.model.to_dry_run("test"),
                lambda txn: modes.to_dry_run(txn, "test")[1],
            )

    @rule(
        do=st.sampled_from(("propose", "propose", "approve", "roll_back")),
        terms=st.sampled_from(PROPOSALS),
        blocks=st.sampled_from((0, 5, 10)),
        data=st.data(),
        rehearse=st.booleans(),
    )
    def govern(
        self, do: str, terms: tuple[Any, ...], blocks: int, data: st.DataObject, rehearse: bool
    ) -> None:
        key, _, _, value = terms
        if do == "propose":
            self.act(
                lambda: self.model.propose(*terms),
                lambda txn: governance.propose(txn, key, value).id,
                rehearse=rehearse,
            )
        if do == "roll_back":
            self.act(
                lambda: self.model.roll_back(),
                lambda txn: governance.roll_back(txn).proposal.id,
                rehearse=rehearse,
            )
        elif self.model.proposals:
            made = len(self.model.proposals)
            number = data.draw(st.just(made) | st.integers(1, made))
            self.act(
                lambda: self.model.approve(number),
                lambda txn: governance.approve(txn, number).changed,
                rehearse=rehearse,
            )
            self.act(
                lambda: self.model.advance_height(blocks),
                lambda txn: chain.advance(txn, blocks).height,
            )

    @rule(
        slots=st.integers(1, 4),
        party_pct=st.sampled_from((25, 50, 50, 100)),
        cap_pct=st.sampled_from((0, 34, 50, 100)),
        aging_secs=st.sampled_from((0, 2, 20)),
        share_ppm=st.sampled_from((100_000, 100_000, 1_000_000)),
        threshold=st.sampled_from((50, 10_000, 10_000)),
        sample=st.sampled_from((None, 0, 3, 3, 10, 50)),
        end=st.sampled_from(("ended", "ended", "killed", "cleared")),
    )
    def configure(
        self,
        slots: int,
        party_pct: int,
        cap_pct: int,
        aging_secs: int,
        share_ppm: int,
        threshold: int,
        sample: int | None,
        end: str,
    ) -> None:
        """Another process comes with other settings, and finds the price board as it was left."""
        changes = {
            "slots": slots,
            "party_slots_pct": party_pct,
            "low_priority_cap_pct": cap_pct,
            "priority_aging_secs": aging_secs,
            "fair_share_cap_ppm": share_ppm,
            "comfort_threshold_p90": threshold,
        }
        self.model.config |= changes
        self.market.configure(**changes)
        if sample is not None:
            self.act(
                lambda: self.model.record_capacity(sample),
                lambda txn: capacity.record(txn, sample),
            )
            self.store_looks_like_the_model()  # What it lets in is told by this process.
        self.model.begin_process(end)
        if end != "killed":
            self.market.opened.prices.save()
        if end == "cleared":
            (self.folder / home.PRICE_BOARD).unlink(missing_ok=True)
        self.market.reopen()
        self.market.opened.prices.load()

    @invariant()
    def store_looks_like_the_model(self) -> None:
        if hasattr(self, "model"):
            told = told_since(self.market, self.told)
            self.model.follow(told[0], self.told)
            found, wanted = picture(self.market), self.model.picture()
            for part in wanted:
                assert found[part] == wanted[part], part
            assert told == self.model.told_since(self.told)
            self.told = len(self.model.events)
            self.looks += 1
            if self.looks % AUDITED_EVERY == 0:
                assert self.market.violations() == []


MarketMachine.TestCase.settings = settings(
    max_examples=effort(20, 1000),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
# It takes seconds; but when it fails, finding the shortest history that does takes minutes.
TestMarket = pytest.mark.timeout(900)(MarketMachine.TestCase)
