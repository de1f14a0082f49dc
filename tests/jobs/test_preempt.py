"""Preemption, case by case: who holds the job then, what everybody gets, what is counted."""

import contextlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from msgspec import json

from compute_market.courier import courier
from compute_market.courier.courier import Attempted, Bundle
from compute_market.errors import ConflictError, MarketError, NotFoundError, RefusedError
from compute_market.jobs import bill, handoff, preempt
from compute_market.jobs.bill import Bill
from compute_market.jobs.cancellations import text_from
from compute_market.offers import offers
from compute_market.records import Job
from compute_market.signatures import canonical
from tests.support.bundles import claim, record
from tests.support.effort import effort
from tests.support.market import DIGEST, Market
from tests.support.modes import to_dry_run
from tests.support.preempting import DELTA, earn, preempting, rival
from tests.support.state import balances, contents, receipts_of, withdraw


def take_over(market: Market, offer_id: str = "better") -> Job:
    return market.update(lambda txn: preempt.take_over(txn, "job", offer_id))


def bill_of(market: Market, offer_id: str = "better") -> Bill:
    return market.view(lambda txn: bill.proposed(txn, preempt.decide(txn, "job", offer_id)))


def done(market: Market, offer_id: str = "better", since: int = 0) -> Any:
    found = market.view(lambda txn: bill.done(txn, "job", offer_id, since))
    return None if found is None else bill.document(found)


def proposed(market: Market, offer_id: str = "better") -> str | None:
    found = market.view(lambda txn: preempt.proposed(txn, offers.get(txn, offer_id)))
    return None if found is None else found.job.job_id


def log(market: Market) -> bytes:
    return market.view(lambda txn: text_from(txn, 0))


class Case(NamedTuple):
    """A job of four units at 10 (half CT, bond 30) goes over to one at 8 (a quarter CT, bond 40).

    What the parties have more or less of than before, once the handoff is done and once the job
    has ended: (CT, IT).
    """

    proven: tuple[int, ...]
    prepare: Callable[[Market], Any]
    done: dict[str, tuple[int, int]]
    ended: dict[str, tuple[int, int]]


def leave_it(market: Market) -> None:
    pass


def withdraw_present(market: Market) -> None:
    market.update(lambda txn: offers.withdraw(txn, "present"))


def present_is_gone(market: Market) -> None:
    """It withdrew its offers and emptied its wallet, and has nothing here but the bond."""
    withdraw_present(market)
    withdraw(market, "prov", ct=market.balance("wallet/prov"))


CASES = {
    # 20 CT and 20 IT were held for the buyer; 8 CT and 24 IT are needed.
    "nothing proven": Case(
        (),
        leave_it,
        done={"buyer": (12, -4), "prov": (30, 0), "other": (-40, 0)},
        ended={"buyer": (12 + 20, -4), "prov": (30, 0), "other": (8, 24)},
    ),
    # 10 CT and 10 IT stay due to the first, 4 CT and 12 IT are held for the second.
    "half proven": Case(
        (0, 1),
        leave_it,
        done={"buyer": (6, -2), "prov": (30, 0), "other": (-40, 0)},
        ended={"buyer": (6 + 20, -2), "prov": (30 + 10, 10), "other": (4, 12)},
    ),
    "all but one proven": Case(
        (0, 1, 3),
        leave_it,
        # 15 and 15 due, 2 CT and 6 IT more.
        done={"buyer": (3, -1), "prov": (30, 0), "other": (-40, 0)},
        ended={"buyer": (3 + 20, -1), "prov": (30 + 15, 15), "other": (2, 6)},
    ),
    "present offer withdrawn": Case(
        (0, 1),
        withdraw_present,
        done={"buyer": (6, -2), "prov": (30, 0), "other": (-40, 0)},
        ended={"buyer": (6 + 20, -2), "prov": (30 + 10, 10), "other": (4, 12)},
    ),
    "present provider gone": Case(
        (0, 1),
        present_is_gone,
        done={"buyer": (6, -2), "prov": (30, 0), "other": (-40, 0)},
        ended={"buyer": (6 + 20, -2), "prov": (30 + 10, 10), "other": (4, 12)},
    ),
}


def begun(market: Market, case: Case, *, real: bool) -> Market:
    preempting(market, real=real, price_per_unit=10, fee_pct_ct=50, provider_bond=30)
    rival(market, price_per_unit=8, fee_pct_ct=25, provider_bond=40)
    if case.proven:
        market.prove("job", *case.proven)
    case.prepare(market)
    return market


def wallets(market: Market) -> dict[str, tuple[int, int]]:
    return {
        party: (market.balance(f"wallet/{party}"), market.balance(f"wallet/{party}", "IT"))
        for party in ("buyer", "prov", "other")
    }


def moved(market: Market, before: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {
        party: (ct - before[party][0], it - before[party][1])
        for party, (ct, it) in wallets(market).items()
    }


@pytest.mark.parametrize("name", CASES)
def test_takeover_in_real_pays_exactly(market: Market, name: str) -> None:
    case = CASES[name]
    begun(market, case, real=True)
    before = wallets(market)
    job = take_over(market)
    assert moved(market, before) == case.done
    assert (job.state, job.placed.offer_id, job.units_proven) == (
        "active",
        "better",
        len(case.proven),
    )
    left = 4 - len(case.proven)
    assert market.offer("better").units_reserved == left
    present = market.offer("present")
    # A withdrawn offer does not sell its units again.
    assert (present.units_reserved, present.units_proven) == (0, len(case.proven))
    assert market.violations() == []
    market.prove("job", *({0, 1, 2, 3} - {*case.proven}))
    assert market.job().state == "completed"
    assert moved(market, before) == case.ended
    assert [(r.provider, r.units, r.quote_price) for r in receipts_of(market)] == [
        *([("prov", len(case.proven), 10)] if case.proven else []),
        ("other", left, 8),
    ]
    assert market.balance("burned") == 0


@pytest.mark.parametrize("name", CASES)
def test_takeover_of_an_unfunded_job_moves_no_money(market: Market, name: str) -> None:
    case = CASES[name]
    begun(market, case, real=False)
    before = balances(market)
    take_over(market)
    market.prove("job", *({0, 1, 2, 3} - {*case.proven}))
    assert market.job().state == "completed"
    assert balances(market) == before
    assert {r.provider: r.units for r in receipts_of(market)} == {
        **({"prov": len(case.proven)} if case.proven else {}),
        "other": 4 - len(case.proven),
    }
    assert all(receipt.dry_run for receipt in receipts_of(market))


def test_takeover_while_receipts_wait_pays_both_when_real_returns(market: Market) -> None:
    begun(market, CASES["half proven"], real=True)
    before = wallets(market)
    to_dry_run(market)
    take_over(market)
    assert moved(market, before) == CASES["half proven"].done


def test_takeover_is_told(market: Market) -> None:
    begun(market, CASES["half proven"], real=True)
    take_over(market)
    (logged,) = market.events("job_handed_over")
    assert logged.event.job_id == "job"
    assert logged.event.detail == {
        "from": "prov",
        "to": "other",
        "from_score": 0,
        "to_score": DELTA,
        "units": 2,
        "price_per_unit": 8,
    }
    assert log(market) == b"job preempted\n"
    assert market.counter("scheduler_preempt_total", "success") == 1
    assert market.counter("scheduler_cancel_total", "preempted") == 1
    assert market.counter("scheduler_cancel_total", "client") == 0
    assert (market.score("prov"), market.score("other")) == (0, DELTA)


def test_job_that_goes_over_twice_and_is_cancelled_has_three_lines(market: Market) -> None:
    preempting(market, real=True)
    rival(market)
    take_over(market)
    earn(market, "third", 2 * DELTA)
    market.deposit("third", ct=10)
    market.post("third", offer_id="best")
    take_over(market, "best")
    market.cancel()
    assert log(market) == b"job preempted\njob preempted\njob client\n"


def test_takeover_again_changes_nothing(market: Market) -> None:
    preempting(market)
    rival(market)
    take_over(market)
    before = contents(market)
    take_over(market)
    assert contents(market) == before
    assert market.view(lambda txn: preempt.is_with(txn, "job", "better"))


# What comes between the decision and the act.


def another_takes_it(market: Market) -> None:
    earn(market, "third", 5)
    market.deposit("third", ct=10)
    market.post("third", offer_id="also")
    market.configure(preempt_min_delta=5)
    take_over(market, "also")
    market.configure(preempt_min_delta=DELTA)


def offer_is_taken(market: Market) -> None:
    market.submit("large", lengths=(1,) * 2, max_price_per_unit=4)
    assert market.offer("better").units_left == 3


BETWEEN: dict[str, tuple[Callable[[Market], Any], str]] = {
    "cancelled": (lambda market: market.cancel(), "not_active"),
    "completed": (lambda market: market.prove("job", 0, 1, 2, 3), "not_active"),
    "failed": (lambda market: market.advance(86_401), "not_active"),
    "offer withdrawn": (
        lambda market: market.update(lambda txn: offers.withdraw(txn, "better")),
        "capability_mismatch",
    ),
    "offer taken": (offer_is_taken, "no_capacity"),
    "score lost": (lambda market: earn(market, "other", -1), "score_difference"),
    "score of the present one rose": (lambda market: earn(market, "prov", 1), "score_difference"),
    "another took it": (another_takes_it, "score_difference"),
    "switched off": (lambda market: market.configure(enable_preempt=False), "preempt_disabled"),
    "bond spent": (
        lambda market: withdraw(market, "other", ct=market.balance("wallet/other")),
        "bond_unfunded",
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_takeover_is_decided_again_where_it_acts(market: Market, name: str) -> None:
    act, reason = BETWEEN[name]
    preempting(market, real=True)
    rival(market, units=5, price_per_unit=4)
    assert proposed(market) == "job"
    act(market)
    market.update(lambda txn: None)
    before = contents(market)
    with pytest.raises(RefusedError) as caught:
        take_over(market)
    assert caught.value.reason == reason
    assert contents(market) == before
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 0


@pytest.mark.parametrize("ids", [("nobody's", "better"), ("job", "nobody's")])
def test_takeover_of_what_is_not_there_is_not_found(market: Market, ids: tuple[str, str]) -> None:
    preempting(market)
    rival(market)
    with pytest.raises(NotFoundError):
        market.update(lambda txn: preempt.take_over(txn, *ids))


# Which job a new offer is given.


def test_proposed_is_the_next_best_where_the_best_cannot_be_handed_over(market: Market) -> None:
    """The best job needs more of a token than its buyer has; the next one has enough."""
    preempting(market, real=True, price_per_unit=10, fee_pct_ct=50)
    withdraw(market, "buyer", it=market.balance("wallet/buyer", "IT"))
    market.deposit("rich", ct=100, it=100)
    market.submit("second", buyer="rich", lengths=(1,))
    rival(market, price_per_unit=10, fee_pct_ct=0)
    assert proposed(market) == "second"
    with pytest.raises(RefusedError) as caught:
        take_over(market)
    assert caught.value.reason == "insufficient_funds"
    market.deposit("buyer", it=20)
    assert proposed(market) == "job"


def test_provider_that_has_proven_some_at_the_price_does_not_get_it_again(market: Market) -> None:
    preempting(market)
    market.prove("job", 0)
    rival(market)
    take_over(market)
    earn(market, "prov", 3 * DELTA)
    market.post("prov", offer_id="again")
    assert proposed(market, "again") is None
    with pytest.raises(ConflictError) as caught:
        take_over(market, "again")
    assert caught.value.reason == "key_collision"
    market.post("prov", offer_id="cheaper", price_per_unit=4)
    assert proposed(market, "cheaper") == "job"


@pytest.mark.parametrize("seed", range(effort(10, 300)))
def test_proposed_is_what_a_search_through_all_jobs_finds(market: Market, seed: int) -> None:
    draw = random.Random(seed)
    market.configure(enable_preempt=True, preempt_min_delta=2, slots=8)
    providers = [f"p{number}" for number in range(5)]
    for provider in providers:
        market.post(provider, offer_id=f"of-{provider}", reputation=50, price_per_unit=9)
        earn(market, provider, draw.choice((-3, -1, 1, 3, 6)))
    for number in range(10):
        provider = draw.choice(providers)
        price = draw.randint(1, 8)
        job_id = f"j{number}"
        market.post(provider, offer_id=f"o{number}", job_id=job_id, price_per_unit=price, units=9)
        market.submit(
            job_id, lengths=(1,) * draw.randint(1, 4), priority=draw.choice(["low", "high"])
        )
        if market.job(job_id).state == "active" and draw.random() < 0.5:
            market.prove(job_id, 0)
    for number in range(6):
        terms = {"price_per_unit": draw.randint(1, 3), "units": draw.randint(2, 4)}
        directed = draw.choice((None, None, f"j{draw.randrange(10)}"))
        offer_id = f"new-{number}"
        market.post(draw.choice(providers), offer_id=offer_id, job_id=directed, **terms)
        able = []
        for job_id in (f"j{each}" for each in range(10)):
            with contextlib.suppress(RefusedError, ConflictError):
                found = market.view(lambda txn: preempt.decide(txn, job_id, offer_id))  # noqa: B023 - at once
                able.append((-found.difference, found.job.seq, job_id))
        assert proposed(market, offer_id) == (min(able)[2] if able else None)
        if able:
            market.update(lambda txn: preempt.take_over(txn, min(able)[2], offer_id))  # noqa: B023 - at once


# The bill.


def test_bill_names_who_gains_and_who_loses(market: Market) -> None:
    begun(market, CASES["half proven"], real=True)
    assert bill.document(bill_of(market)) == {
        "job_id": "job",
        "offer_id": "better",
        "units": 2,
        "units_proven": 2,
        "funded": True,
        "from": {
            "provider": "prov",
            "offer_id": "present",
            "score": 0,
            "price_per_unit": 10,
            "kept": {"ct": 10, "it": 10},
            "lost": {"ct": 10, "it": 10},
            "bond_released_ct": 30,
        },
        "to": {
            "provider": "other",
            "offer_id": "better",
            "score": DELTA,
            "price_per_unit": 8,
            "offered": {"ct": 4, "it": 12},
            "bond_locked_ct": 40,
        },
        "buyer": {
            "buyer": "buyer",
            "refunded": {"ct": 6, "it": 0},
            "locked": {"ct": 0, "it": 2},
        },
    }


@pytest.mark.parametrize("seed", range(effort(12, 200)))
def test_bill_is_what_moves(market: Market, seed: int) -> None:
    """Of any prices, splits, bonds and proofs, after any number of handoffs before."""
    draw = random.Random(seed)
    price = draw.randint(3, 12)
    preempting(
        market,
        *[draw.choice((1, 1_048_577)) for _ in range(6)],
        real=True,
        price_per_unit=price,
        fee_pct_ct=draw.randint(0, 100),
        provider_bond=draw.randint(1, 50),
    )
    left = list(range(6))
    draw.shuffle(left)
    for number in range(2):
        for _ in range(draw.randint(0, 2)):
            market.prove("job", left.pop())
        price = draw.randint(1, price)
        terms = {"price_per_unit": price, "fee_pct_ct": draw.randint(0, 100)}
        provider = ("other", "third")[number]
        market.deposit(provider, ct=100)
        earn(market, provider, (number + 1) * DELTA)
        market.post(provider, offer_id=provider, provider_bond=draw.randint(1, 50), **terms)
        found = bill_of(market, provider)
        before, held = balances(market), market.job().placed.provider
        take_over(market, provider)
        expected = {
            ("buyer", "CT"): found.refunded["CT"] - found.locked["CT"],
            ("buyer", "IT"): found.refunded["IT"] - found.locked["IT"],
            (held, "CT"): found.present.provider_bond,
            (provider, "CT"): -found.following.provider_bond,
        }
        for (party, token), by in expected.items():
            account = f"wallet/{party} {token}"
            assert balances(market).get(account, 0) - before.get(account, 0) == by
        assert done(market, provider, number) == bill.document(found)
    before = balances(market)
    market.prove("job", *left)
    for party, earned in ((held, found.kept), (provider, found.offered)):
        for token, amount in earned.items():
            bond = found.following.provider_bond if (party, token) == (provider, "CT") else 0
            account = f"wallet/{party} {token}"
            assert balances(market).get(account, 0) - before.get(account, 0) == amount + bond


def test_bill_of_what_is_done_stays_what_it_was(market: Market) -> None:
    begun(market, CASES["half proven"], real=True)
    expected = bill.document(bill_of(market))
    assert done(market) is None
    take_over(market)
    earn(market, "other", 3)
    market.prove("job", 2, 3)
    assert done(market) == expected
    assert done(market, since=1) is None
    assert done(market, "present") is None


# The bundle.


def test_bundle_tells_what_is_left_and_no_reference(market: Market) -> None:
    preempting(market)
    market.prove("job", 1)
    rival(market)
    text = market.view(lambda txn: handoff.bundle(txn, preempt.decide(txn, "job", "better")))
    assert json.decode(text) == {
        "format": "tb-handoff",
        "version": 1,
        "market_id": "00" * 16,
        "job_id": "job",
        "buyer": "buyer",
        "workload": "transcode",
        "capability": {},
        "lane": "industrial",
        "priority": "normal",
        "deadline": 1_800_086_400,
        "from_provider": "prov",
        "units_proven": 1,
        "to_provider": "other",
        "offer_id": "better",
        "price_per_unit": 5,
        "units": 3,
        "slices": [{"index": index, "path": "/slices/a", "bytes": 1} for index in (0, 2, 3)],
    }
    assert DIGEST.hex() not in text.decode()
    again = canonical.parsed(text, handoff.Handoff, "a handoff")
    assert canonical.line(again) == text
    assert (
        market.view(lambda txn: handoff.bundle(txn, preempt.decide(txn, "job", "better"))) == text
    )


# With the courier in between.


def send(market: Market, offer_id: str = "better", number: int = 1) -> int:
    told = preempt.progress(market.job())
    bundle = Bundle(bytes(32), 5, "prov", "dir:outbox", "handoff", "job", offer_id, told)
    return market.update(lambda txn: courier.send(txn, bundle, iter([number]))).receipt_id


def deliver(market: Market, receipt_id: int, error: str | None = None) -> None:
    """One flush that forwards what is due, to a far end that takes it or not."""
    holder = b"flush 01"
    claimed = market.update(lambda txn: courier.claim(txn, holder, None, 100, only=receipt_id))
    attempted = [
        Attempted(each.seq, "failed", 5, 5, error)
        if error is not None
        else Attempted(each.seq, "acknowledged", 1, 0)
        for each in claimed.receipts
    ]
    market.update(lambda txn: courier.record(txn, attempted, holder))


def test_handoff_that_fails_leaves_everything_as_it_was(market: Market) -> None:
    preempting(market, real=True)
    rival(market)
    job, money = market.job(), balances(market)
    deliver(market, send(market), "no route")
    assert (market.job(), balances(market)) == (job, money)
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 1
    assert market.counter("scheduler_preempt_total", "success") == 0
    assert log(market) == b""


def test_of_two_handoffs_of_one_job_the_second_is_measured_by_the_first(market: Market) -> None:
    preempting(market)
    rival(market)
    earn(market, "third", DELTA + 5)
    market.post("third", offer_id="rival-too")
    first, second = send(market), send(market, "rival-too", 2)
    deliver(market, first)
    deliver(market, second)
    assert market.job().placed.provider == "other"
    assert market.counter("scheduler_preempt_total", "success") == 1
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 1


# What makes untrue what a bundle tells of a job.
OUTDATING: dict[str, Callable[[Market], Any]] = {
    "proven": lambda market: market.prove("job", 0),
    "gone over to another": lambda market: go_elsewhere(market),
    "gone over to it, and proven before": lambda market: (
        market.prove("job", 0),
        take_over(market),
    ),
}


def go_elsewhere(market: Market) -> None:
    """Let the job go to a third provider, from whom `other` has earned enough to take it again."""
    market.deposit("third", ct=10)
    market.post("third", offer_id="elsewhere")
    earn(market, "third", DELTA)
    take_over(market, "elsewhere")
    earn(market, "other", DELTA)


@pytest.mark.parametrize("name", OUTDATING)
@pytest.mark.parametrize("when", ["before it is forwarded", "while it is forwarded"])
def test_handoff_that_tells_what_is_no_more_moves_nothing(
    market: Market, name: str, when: str
) -> None:
    preempting(market, real=True)
    rival(market)
    sent = send(market)
    is_under_way = when == "while it is forwarded"
    claimed = claim(market).receipts if is_under_way else []
    OUTDATING[name](market)
    job, money = market.job(), balances(market)
    record(market, "acknowledged", claimed)
    deliver(market, sent)
    assert (market.job(), balances(market)) == (job, money)
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 1
    assert [each.event.detail["reason"] for each in market.events("handoff_failed")] == ["outdated"]
    receipt = market.view(lambda txn: courier.get(txn, sent))
    assert receipt.state == ("acknowledged" if is_under_way else "refused")
    assert receipt.last_error


def test_handoff_of_what_another_one_has_done_is_no_failure(market: Market) -> None:
    """Two tell the same; a proof comes once the first has arrived."""
    preempting(market, real=True)
    rival(market)
    first, second = send(market), send(market, number=2)
    deliver(market, first)
    market.prove("job", 0)
    deliver(market, second)
    assert market.job().placements_before == 1
    assert market.view(lambda txn: courier.get(txn, second)).state == "acknowledged"
    assert market.counter("scheduler_preempt_total", "handoff_failed") == 0


@pytest.mark.parametrize("error", [None, "no route"])
def test_handoff_that_has_ended_is_never_sent_again(market: Market, error: str | None) -> None:
    """It would move a job that came to somebody else by now, and who has earned more since."""
    preempting(market, real=True)
    rival(market)
    sent = send(market)
    deliver(market, sent, error)
    market.post("third", offer_id="best")
    market.deposit("third", ct=10)
    earn(market, "third", 2 * DELTA)
    take_over(market, "best")
    earn(market, "other", 300)
    before = contents(market)
    with pytest.raises(RefusedError, match="is never sent again") as caught:
        market.update(lambda txn: courier.resend(txn, sent))
    assert caught.value.reason == "handoff_ended"
    assert contents(market) == before


def test_why_not_is_silent_of_what_may_go_over_and_of_what_has(market: Market) -> None:
    def reason(offer_id: str = "better") -> str | None:
        found: MarketError | None = market.view(lambda txn: preempt.why_not(txn, "job", offer_id))
        return None if found is None else found.reason or found.token

    preempting(market)
    rival(market)
    assert reason() is None
    assert reason("nobody's") == "not_found"
    take_over(market)
    assert reason() is None
    assert reason("present") == "score_difference"
    market.cancel()
    assert reason() == "not_active"
