"""What is held of whom: the sums are those a walk over the jobs computes, whatever happens."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from compute_market.errors import MarketError, NotFoundError
from compute_market.jobs import jobs
from compute_market.offers import offers
from compute_market.records import LIVE_STATES, Job
from compute_market.settlement import escrow, ledger, modes
from compute_market.store.schema import BACKLOG, HOLDINGS, JOBS, POSTINGS
from compute_market.store.txn import Txn
from tests.support.laws import hand_over
from tests.support.market import Market
from tests.support.modes import to_dry_run
from tests.support.state import command


def balance(market: Market, owner: str) -> dict[str, Any]:
    return market.view(lambda txn: escrow.balance_document(txn, owner))


def test_balance_shows_what_jobs_hold_of_each_side(real: Market) -> None:
    real.post(price_per_unit=10, fee_pct_ct=40, provider_bond=30)
    real.submit("a", lengths=(1, 1), consumer_bond=20)
    real.submit("b", consumer_bond=5)
    assert balance(real, "buyer") == {
        "owner": "buyer",
        "ct": 10_000 - 8 - 20 - 4 - 5,
        "it": 10_000 - 12 - 6,
        "escrow": {"ct": 12, "it": 18},
        "bonds": {"ct": 25},
    }
    assert balance(real, "prov") == {
        "owner": "prov",
        "ct": 940,
        "it": 0,
        "escrow": {"ct": 0, "it": 0},
        "bonds": {"ct": 60},
    }


def test_balance_holds_what_a_receipt_waits_for_and_nothing_once_it_is_paid(real: Market) -> None:
    real.post(price_per_unit=10, fee_pct_ct=40)
    real.submit(lengths=(1, 1))
    to_dry_run(real)
    real.prove("job", 0)
    real.cancel()
    assert balance(real, "buyer")["escrow"] == {"ct": 4, "it": 6}
    assert balance(real, "buyer")["bonds"] == balance(real, "prov")["bonds"] == {"ct": 0}
    real.update(lambda txn: modes.arm(txn, 0))
    real.update(lambda txn: None)
    assert balance(real, "buyer")["escrow"] == {"ct": 0, "it": 0}
    assert real.view(lambda txn: txn.sums(HOLDINGS)) == {}


def test_balance_of_a_stranger_is_nothing(market: Market) -> None:
    assert balance(market, "nobody") == {
        "owner": "nobody",
        "ct": 0,
        "it": 0,
        "escrow": {"ct": 0, "it": 0},
        "bonds": {"ct": 0},
    }


def test_burned_bonds_tell_of_which_job_and_why(real: Market) -> None:
    real.configure(provider_cancel_penalty_after=1)
    real.post(provider_bond=20, reputation=9)
    real.submit("late", deadline_secs=60)
    real.submit("left")
    real.cancel("left", by="provider")
    real.advance(61)
    command(real)
    postings = real.view(lambda txn: list(txn.records(POSTINGS)))
    burned = [posting for posting in postings if posting.credit == "burned"]
    assert [(p.token, p.amount, p.debit, p.event, p.ref) for p in burned] == [
        ("CT", 2, "bond/left/provider", "cancel:slash", "left"),
        ("CT", 20, "bond/late/provider", "sla:slash", "late"),
    ]


def test_history_of_the_provider_of_a_job_adds_up(real: Market) -> None:
    real.post(provider_bond=30, fee_pct_ct=25, price_per_unit=4)
    real.submit()
    real.prove()
    _, *rows = real.view(lambda txn: ledger.history(txn, "prov", 0, 99))
    assert [(p.event, p.token, p.amount, p.debit, p.credit, p.ref) for p in rows] == [
        ("bond:lock", "CT", 30, "wallet/prov", "bond/job/provider", "job"),
        ("settle", "CT", 1, "escrow/job", "wallet/prov", "job"),
        ("settle", "IT", 3, "escrow/job", "wallet/prov", "job"),
        ("bond:release", "CT", 30, "bond/job/provider", "wallet/prov", "job"),
    ]


# Sums that are kept against a walk.


def walked(txn: Txn) -> tuple[dict[bytes, int], int]:
    """What jobs hold of each owner, and the backlog, from accounts and job records alone."""
    owners = {job.job_id: job for job in txn.records(JOBS)}
    held: Counter[bytes] = Counter()
    for token in ledger.TOKENS:
        for account, amount in ledger.balances(txn, token).items():
            kind, _, rest = account.partition("/")
            if kind == "escrow":
                held[f"{owners[rest].buyer}\0escrow_{token.lower()}".encode()] += amount
            if kind == "bond":
                job_id, _, role = rest.rpartition("/")
                job = owners[job_id]
                owner = job.buyer if role == "buyer" else job.placed.provider
                held[f"{owner}\0bonds_ct".encode()] += amount
    left = [job.units - job.units_proven for job in owners.values() if job.state in RUNNING]
    return {key: amount for key, amount in held.items() if amount}, sum(left)


RUNNING = ("queued", "active")
OWNERS = ("a", "b", "c")


def some_job(market: Market, random: Random, *states: str) -> Job:
    """A job in one of these states. Raises NotFoundError without one."""
    found = market.view(lambda txn: [job for job in txn.records(JOBS) if job.state in states])
    if not found:
        raise NotFoundError("no such job")
    return random.choice(found)


def act(market: Market, random: Random, number: int) -> None:
    """One random action; most of what can go wrong does at some time."""
    owner = random.choice(OWNERS)
    match random.randrange(15):
        case 0:
            market.deposit(owner, ct=random.randrange(200), it=random.randrange(200))
        case 1 | 2:
            market.post(
                owner,
                units=random.randrange(1, 9),
                price_per_unit=random.randrange(1, 9),
                fee_pct_ct=random.choice((0, 33, 100)),
                provider_bond=random.randrange(1, 40),
                reputation=9,
            )
        case 3 | 4 | 5:
            lengths = (1,) * random.randrange(1, 5)
            wait, secs = random.random() < 0.5, random.choice((5, 500))
            priority = random.choice(("high", "normal", "low"))
            fields: dict[str, Any] = {"priority": priority, "deadline_secs": secs}
            market.submit(f"job-{number}", buyer=owner, lengths=lengths, wait=wait, **fields)
        case 6 | 7 | 8 | 9:
            job = some_job(market, random, "active")
            digest = {} if random.random() < 0.9 else {"digest": bytes(32)}
            market.prove(job.job_id, *range(random.randrange(job.slices) + 1), **digest)
        case 10:
            job = some_job(market, random, *LIVE_STATES)
            market.cancel(job.job_id, by=random.choice(("client", "provider")))
        case 11 | 12 | 13:
            job = some_job(market, random, "active")
            taken = [
                offer
                for offer in market.view(lambda txn: list(offers.listed(txn)))
                if offer.units_left >= job.units and offer.provider != job.buyer
            ]
            if taken:
                hand_over(market, job.job_id, random.choice(taken).offer_id)
        case _:
            market.advance(random.randrange(20))
            market.update(
                lambda txn: (
                    modes.to_dry_run(txn, "test") if modes.is_real(txn) else modes.arm(txn, 3)
                )
            )


@pytest.mark.parametrize("seed", range(6))
def test_holdings_and_backlog_are_what_a_walk_computes(market: Market, seed: int) -> None:
    random = Random(seed)
    market.configure(
        settle_mode="real", slots=2, provider_cancel_penalty_after=1, deadline_min_secs=0
    )
    for owner in OWNERS:
        market.deposit(owner, ct=300, it=300)
    done = 0
    for number in range(150):
        try:
            act(market, random, number)
            done += 1
        except MarketError:
            pass
        held, backlog = market.view(walked)
        assert market.view(lambda txn: txn.sums(HOLDINGS)) == held
        assert market.view(jobs.backlog_units) == backlog
        if number % 10 == 0:
            assert market.violations() == []
    assert done > 60
    assert market.view(lambda txn: {job.state for job in txn.records(JOBS)}) >= {
        "completed",
        "cancelled",
        "failed",
    }
    assert market.counter("scheduler_preempt_total", "success") > 0


def test_backlog_of_an_empty_market_is_no_entry(market: Market) -> None:
    market.post()
    market.submit()
    assert market.view(lambda txn: txn.size(BACKLOG.table)) == 1
    market.prove()
    assert market.view(lambda txn: txn.size(BACKLOG.table)) == 0
