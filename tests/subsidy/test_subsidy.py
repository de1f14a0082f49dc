"""Epochs: when they end, what is sampled then, and what they pay to whom."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_market import chain
from compute_market.amounts import AMOUNT_MAX, PPM
from compute_market.clock import TIME_HELD
from compute_market.errors import NotFoundError
from compute_market.records import Posting
from compute_market.settlement import ledger, modes
from compute_market.store.schema import EPOCH_UNITS, EPOCHS, META, POSTINGS
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy
from compute_market.subsidy.governor import MULTIPLIER_MAX
from compute_market.subsidy_records import Epochs, Payouts
from tests.support.effort import effort
from tests.support.market import START_MS, Market
from tests.support.memory import shared_memory
from tests.support.state import command, contents, record_capacity

YEAR_SECS = 365 * 86_400


def epochs(market: Market) -> list[Epochs]:
    """All that are closed."""
    return market.view(lambda txn: list(txn.records(EPOCHS)))


def multiplier(market: Market) -> int:
    return market.view(subsidy.multiplier)


def shown(market: Market, height: int | None = None) -> dict[str, Any]:
    return market.view(lambda txn: subsidy.document(txn, height))


NOT_DUE = {"due": False}


def payouts(market: Market, height: int) -> Payouts | None:
    return market.view(lambda txn: subsidy.industrial_subsidies(txn, height))


def paid(market: Market) -> list[tuple[str, str, int, str]]:
    """What was posted as a subsidy: token, wallet, amount, reference."""
    found: list[Posting] = market.view(lambda txn: list(txn.records(POSTINGS)))
    return [(p.token, p.credit, p.amount, p.ref) for p in found if p.event == "subsidy"]


def by_hand(market: Market, blocks: int) -> None:
    market.update(lambda txn: chain.advance(txn, blocks))


@contextmanager
def temporary() -> Iterator[Market]:
    """A market for one example of a property; its laws are checked at the end."""
    folder = Path(tempfile.mkdtemp(dir=shared_memory()))
    market = Market(folder / "market")
    try:
        yield market
        assert market.violations() == []
    finally:
        market.store.close()
        shutil.rmtree(folder)


# When an epoch ends, and what it is like then.


def test_epoch_ends_with_the_height_and_is_closed_by_the_next_change(market: Market) -> None:
    market.advance(59.999)
    command(market)
    assert epochs(market) == []
    market.advance(0.001)
    command(market)
    assert epochs(market) == [Epochs(0, 59, 60, 100, 0, 0)]
    assert multiplier(market) == 100


def test_backlog_without_work_raises_the_multiplier_and_its_end_lowers_it(market: Market) -> None:
    market.post()
    market.submit(lengths=(1,) * 12)
    market.advance(60)
    command(market)
    assert epochs(market) == [Epochs(0, 59, 60, 115, 12, 0)]
    market.cancel()
    market.advance(60)
    command(market)
    assert epochs(market)[1:] == [Epochs(60, 119, 60, 100, 0, 0)]


@pytest.mark.parametrize(
    ("done", "left", "capacity", "pct", "expected"),
    [(60, 10, 1, 100, 110), (249, 12, 5, 83, 114)],
)
def test_work_of_the_last_minute_tempers_the_rise(
    market: Market, done: int, left: int, capacity: int, pct: int, expected: int
) -> None:
    market.configure(min_capacity=1, fair_share_cap_ppm=PPM)
    market.post()
    market.submit(lengths=(1,) * (done + left))
    record_capacity(market, capacity)
    market.advance(30)
    market.prove("job", *range(done))
    market.advance(30)
    command(market)
    assert epochs(market) == [
        Epochs(0, 59, 60, expected, left, pct, done, PPM, done * expected // 100, "mode")
    ]


def test_work_of_more_than_a_minute_ago_is_no_utilization(market: Market) -> None:
    market.configure(initial_capacity=10, epoch_blocks=70)
    market.post()
    market.submit(lengths=(1,) * 130)
    market.prove("job", *range(60))
    market.advance(10)
    market.prove("job", *range(60, 120))
    market.advance(60)
    command(market)
    (found,) = epochs(market)
    assert (found.backlog, found.utilization_pct, found.units) == (10, 0, 120)


def test_missed_deadline_is_no_backlog_though_nobody_has_failed_the_job(market: Market) -> None:
    market.post()
    market.submit("short", deadline_secs=61)
    market.submit("long")
    market.advance(130)
    command(market)
    # Of the second epoch's end, two minutes in, only the other job is left.
    assert [(each.from_height, each.backlog) for each in epochs(market)] == [(0, 2), (60, 1)]


def test_changed_length_counts_from_where_the_running_epoch_began(market: Market) -> None:
    market.advance(125)
    command(market)
    market.configure(epoch_blocks=100)
    market.advance(75)
    command(market)
    market.configure(epoch_blocks=7)
    market.advance(10)
    command(market)
    assert [(e.from_height, e.to_height, e.blocks) for e in epochs(market)] == [
        (0, 119, 60),
        (120, 199, 100),
        (200, 209, 7),
    ]
    assert shown(market, 130)["epoch"] == 1
    assert (shown(market, 204)["from_height"], shown(market, 204)["to_height"]) == (203, 209)
    assert shown(market)["from_height"] == 210


def test_held_clock_closes_nothing(market: Market) -> None:
    market.advance(59)
    command(market)
    market.alone(lambda txn: txn.put(META, TIME_HELD))
    market.advance(600)
    by_hand(market, 1_000)
    command(market)
    assert epochs(market) == []
    assert shown(market)["ended"] is False
    market.opened.accept_clock()
    command(market)
    assert epochs(market) == [Epochs(0, 1_619, 60, 100, 0, 0)]


# What it pays.


@pytest.fixture
def working(real: Market) -> Market:
    """A market in real mode with two providers, one of them at work."""
    real.configure(initial_capacity=1000)
    real.deposit("other", ct=10)
    real.post("prov", offer_id="one", price_per_unit=2)
    real.submit("first", lengths=(1,) * 10)
    real.post("other", offer_id="two", price_per_unit=1)
    return real


def test_payout_goes_to_those_who_proved(working: Market) -> None:
    working.submit("second", lengths=(1,) * 3)
    working.prove("first", *range(7))
    working.prove("second", *range(3))
    before = working.balance("wallet/other", "IT")
    working.advance(60)
    command(working)
    (found,) = epochs(working)
    assert (found.units, found.multiplier, found.compute_it, found.paid) == (10, 115, 11, True)
    # 11 IT over 3 and 7 units: the running total is rounded down.
    assert paid(working) == [("IT", "wallet/other", 3, "0"), ("IT", "wallet/prov", 8, "0")]
    assert working.balance("wallet/other", "IT") == before + 3
    assert working.opened.due.subsidies_it == 11
    assert working.opened.due.text == "11 IT of subsidies paid"
    assert payouts(working, 0) == payouts(working, 59) == Payouts(0, 0, 11)
    assert payouts(working, 60) is None
    # The next epoch begins with nothing.
    assert working.view(lambda txn: txn.is_empty(EPOCH_UNITS.table))
    working.advance(60)
    command(working)
    assert payouts(working, 60) == Payouts(0, 0, 0)
    assert len(paid(working)) == 2


@pytest.mark.parametrize(
    ("kappa_ppm", "expected"),
    [(0, 0), (1, 0), (250_000, 2), (333_333, 3), (PPM, 11), (3 * PPM, 34)],
)
def test_payout_is_rounded_down_once(working: Market, kappa_ppm: int, expected: int) -> None:
    working.configure(kappa_cpu_sub_it_ppm=kappa_ppm)
    working.prove("first", *range(9))
    working.submit("more")
    working.prove("more")
    working.advance(60)
    command(working)
    assert (
        sum(amount for *_, amount, _ in paid(working)) == expected == epochs(working)[0].compute_it
    )


def test_payout_reaches_many_providers_and_adds_up(market: Market) -> None:
    market.configure(
        settle_mode="real",
        initial_capacity=10_000,
        slots=1_000,
        kappa_cpu_sub_it_ppm=333_333,
        fair_share_cap_ppm=PPM,
    )
    market.deposit("buyer", ct=10**6)
    for n in range(150):
        market.deposit(f"p{n}", ct=10)
        market.post(f"p{n}", offer_id=f"o{n}", units=n % 3 + 1, job_id=f"j{n}")
        market.submit(f"j{n}", lengths=(1,) * (n % 3 + 1))
        market.prove(f"j{n}", *range(n % 3 + 1))
    market.advance(60)
    command(market)
    (found,) = epochs(market)
    assert (found.units, found.compute_it) == (300, 99)
    assert sum(amount for *_, amount, _ in paid(market)) == 99
    assert {ref for *_, ref in paid(market)} == {"0"}


@pytest.mark.parametrize("mode", ["dry_run", "armed", "armed in time", "real"])
def test_payout_needs_the_mode_real_at_the_end(market: Market, mode: str) -> None:
    """By then it may be armed for a height that has passed: nobody need have turned it."""
    market.post()
    market.submit()
    market.prove()
    if mode != "dry_run":
        delay = {"armed": 61, "armed in time": 60, "real": 0}[mode]
        market.update(lambda txn: modes.arm(txn, delay))
    market.advance(600)
    command(market)
    command(market)
    is_paid = mode in ("real", "armed in time")
    (found, *_) = epochs(market)
    assert (found.compute_it, found.unpaid) == (1, None if is_paid else "mode")
    assert paid(market) == ([("IT", "wallet/prov", 1, "0")] if is_paid else [])
    document = shown(market, 0)
    assert (document["paid"], document.get("unpaid")) == (is_paid, None if is_paid else "mode")


@pytest.mark.parametrize("left", [0, 5, 11])
def test_payout_beyond_what_may_circulate_is_never_paid_and_stops_nothing(
    working: Market, left: int
) -> None:
    working.prove("first", *range(9))
    working.submit("more")
    working.prove("more")
    circulating = working.view(lambda txn: ledger.in_circulation(txn, "IT"))
    working.deposit("rich", it=AMOUNT_MAX - circulating - left)
    working.advance(60)
    command(working)
    (found,) = epochs(working)
    assert (found.compute_it, found.unpaid) == (11, None if left == 11 else "overflow")
    assert sum(amount for *_, amount, _ in paid(working)) == (11 if left == 11 else 0)


def test_payout_of_more_than_an_amount_can_be_is_cut_and_not_paid(working: Market) -> None:
    working.configure(kappa_cpu_sub_it_ppm=10**15)
    working.prove("first", *range(10))
    working.advance(60)
    command(working)
    assert epochs(working)[0].compute_it == 10 * 10**9
    by_hand(working, 60)
    working.deposit("buyer", ct=10**11)
    working.post("prov", offer_id="big", units=10**12, price_per_unit=1, job_id="big")
    working.configure(initial_capacity=10**13, fair_share_cap_ppm=PPM)
    working.submit("big", lengths=(2**20 * 10**11,))
    working.prove("big")
    working.advance(60)
    command(working)
    found = epochs(working)[-1]
    assert (found.compute_it, found.unpaid) == (AMOUNT_MAX, "overflow")


# What slept.


JOBS = st.lists(
    st.tuples(
        st.integers(1, 5),  # units
        st.integers(0, 5),  # of them proven
        st.sampled_from((61, 90, 119, 120, 121, 185, 3_000, 50_000, 80_000)),  # seconds to live
    ),
    max_size=8,
)


@settings(max_examples=effort(12, 500))
@given(
    jobs=JOBS,
    slots=st.integers(1, 10),
    capacity=st.sampled_from((1, 10)),
    lead_ms=st.integers(0, 70_000),
    work_ms=st.integers(0, 59_000),
    blocks=st.sampled_from((1, 7, 60)),
    interval_secs=st.sampled_from((1, 1, 7)),
    arm=st.sampled_from((0, 65, 200)),
    number=st.sampled_from((1, 3, 70)),
)
def test_market_that_slept_has_what_one_that_ticked_has(
    jobs: list[tuple[int, int, int]],
    slots: int,
    capacity: int,
    lead_ms: int,
    work_ms: int,
    blocks: int,
    interval_secs: int,
    arm: int,
    number: int,
) -> None:
    """Jobs wait in the queue until an absolute deadline; work was proven shortly before."""
    with temporary() as slept, temporary() as ticked:
        for market in (slept, ticked):
            market.configure(
                settle_mode="dry_run",
                slots=slots,
                min_capacity=1,
                initial_capacity=100,
                fair_share_cap_ppm=PPM,
                party_slots_pct=100,
                epoch_blocks=blocks,
                block_interval_secs=interval_secs,
            )
            market.deposit("buyer", ct=10**6)
            market.deposit("prov", ct=1_000)
            market.update(lambda txn: modes.arm(txn, arm))
            market.post()
            market.advance(lead_ms / 1000)
            for n, (units, _, secs) in enumerate(jobs):
                deadline = market.now_ms // 1000 + secs
                market.submit(f"j{n}", lengths=(1,) * units, deadline=deadline)
            record_capacity(market, capacity)
            market.advance(work_ms / 1000)
            for n, (units, proven, _) in enumerate(jobs):
                if proven and market.job(f"j{n}").state == "active":
                    market.prove(f"j{n}", *range(min(units, proven)))
        end = slept.view(chain.height) // blocks * blocks + number * blocks
        for height in range(end - (number - 1) * blocks, end + 1, blocks):
            ticked.now_ms = START_MS + height * interval_secs * 1000
            command(ticked)
        slept.now_ms = ticked.now_ms
        assert multiplier(slept) == multiplier(ticked)
        assert shown(slept) | NOT_DUE == shown(ticked) | NOT_DUE
        command(slept)
        assert epochs(slept) == epochs(ticked)
        assert multiplier(slept) == multiplier(ticked)
        assert paid(slept) == paid(ticked)
        assert shown(slept) == shown(ticked)


def busy_then_asleep(market: Market, *, pending: int = 0) -> None:
    """Some work was done, some is left with deadlines ahead, and some waits for an offer."""
    market.configure(settle_mode="real", initial_capacity=1000, fair_share_cap_ppm=PPM)
    market.deposit("buyer", ct=10**6)
    market.deposit("prov", ct=100)
    market.post()
    for n in range(50):
        market.submit(f"j{n}", lengths=(1, 1), deadline_secs=61 + 40 * n)
    for n in range(pending):
        market.submit(f"p{n}", wait=True, capability={"gpu": "none"}, deadline_secs=61 + n)
    market.prove("j0")
    market.prove("j30")


def took_secs(market: Market) -> float:
    began = time.process_time()
    command(market)
    return time.process_time() - began


# What a change may take to catch up; it takes some ten milliseconds.
SOON_SECS = 2.0


def test_year_asleep_is_caught_up_with_at_once(market: Market) -> None:
    busy_then_asleep(market, pending=200)
    market.advance(YEAR_SECS)
    assert took_secs(market) < SOON_SECS
    found = epochs(market)
    assert found[-1].to_height == YEAR_SECS - 1
    # It rose while deadlines lay ahead, and came back when there was nobody left to wait for.
    assert max(each.multiplier for each in found) > 1_000
    assert (found[-1].multiplier, found[-1].backlog) == (100, 0)
    assert len(found) < 150
    assert len(market.events("multiplier_changed")) < 150
    assert paid(market) == [("IT", "wallet/prov", 2, "0")]
    assert shown(market, YEAR_SECS // 2)["epoch"] == YEAR_SECS // 120


@pytest.mark.parametrize("interval_secs", [0, 1])
@pytest.mark.parametrize("blocks", [1_000_000, 2**62])
def test_blocks_by_hand_end_epochs_at_the_instant_of_the_command(
    market: Market, interval_secs: int, blocks: int
) -> None:
    market.configure(block_interval_secs=interval_secs, epoch_blocks=1, fair_share_cap_ppm=PPM)
    market.post()
    market.submit(lengths=(1,) * 61, deadline=START_MS // 1000 + 100)
    record_capacity(market, 1)
    market.prove("job", *range(60))
    by_hand(market, blocks)
    market.advance(5_000)  # The deadline has passed, and the work is no longer of the last minute.
    assert took_secs(market) < SOON_SECS
    of_the_blocks = [each for each in epochs(market) if each.from_height < blocks]
    assert {(each.backlog, each.utilization_pct) for each in of_the_blocks} == {(1, 100)}
    assert of_the_blocks[-1].multiplier == MULTIPLIER_MAX
    later = epochs(market)[len(of_the_blocks) :]
    assert bool(later) == (interval_secs == 1)
    assert all(each.backlog == 0 for each in later[-1:])


def test_shorter_epochs_under_a_longer_interval_are_caught_up_with_at_once(market: Market) -> None:
    """None of their heights is one that time would have made by now."""
    market.configure(epoch_blocks=10**9)
    market.post()
    market.submit()
    by_hand(market, 10**8)
    market.configure(epoch_blocks=1, block_interval_secs=86_400)
    assert took_secs(market) < SOON_SECS
    assert epochs(market)[-1].to_height == 10**8 - 1
    assert multiplier(market) == MULTIPLIER_MAX


def test_jobs_without_a_deadline_in_sight_take_the_multiplier_to_its_end(market: Market) -> None:
    market.configure(deadline_max_secs=10**9)
    market.post()
    market.submit(deadline_secs=10**9)
    market.advance(YEAR_SECS)
    command(market)
    assert multiplier(market) == MULTIPLIER_MAX
    assert len(epochs(market)) == 33


# Looking.


def test_look_shows_what_the_next_change_would_find_and_writes_nothing(working: Market) -> None:
    working.prove("first", *range(7))
    working.advance(130)
    before = contents(working)
    looked = [shown(working, height) for height in (0, 59, 60, 119, 120, None)]
    assert [(each["epoch"], each["ended"], each["due"], each["paid"]) for each in looked] == [
        *((0, True, True, False),) * 2,
        *((1, True, True, False),) * 2,
        *((2, False, True, False),) * 2,
    ]
    multipliers = [each["multiplier"] for each in looked]
    assert (payouts(working, 0), payouts(working, 120)) == (Payouts(0, 0, 8), None)
    assert working.update(lambda txn: paid_in(txn), dry_run=True) == 8
    assert working.opened.due.subsidies_it == 8
    assert contents(working) == before
    command(working)
    closed = ({"paid": True}, {"paid": True}, {}, {}, {}, {})
    assert [shown(working, height) for height in (0, 59, 60, 119, 120, None)] == [
        each | NOT_DUE | more for each, more in zip(looked, closed, strict=True)
    ]
    assert multiplier(working) == multipliers[-1] == 132


def paid_in(txn: Txn) -> int:
    return sum(p.amount for p in txn.records(POSTINGS) if p.event == "subsidy")


def test_running_epoch_is_shown_as_it_would_be_paid_by_now(working: Market) -> None:
    working.advance(61)
    command(working)
    working.prove("first", *range(5))
    working.advance(0.5)
    assert shown(working) == {
        "epoch": 1,
        "height": 61,
        "from_height": 60,
        "to_height": 119,
        "ended": False,
        "due": False,
        "multiplier": 115,
        "backlog": 5,
        "utilization_pct": 0,
        "units": 5,
        "payouts": {"storage": 0, "read": 0, "compute": 5},
        "paid": False,
    }
    assert shown(working, 119) == shown(working) | {"height": 119}


@pytest.mark.parametrize("height", [120, AMOUNT_MAX])
def test_height_that_no_epoch_has_is_not_found(market: Market, height: int) -> None:
    market.advance(60)
    command(market)
    with pytest.raises(NotFoundError, match=rf"height {height} .*60…119"):
        shown(market, height)
    assert payouts(market, height) is None


def test_height_before_the_first_epoch_is_not_found(market: Market) -> None:
    """A market of an older release begins with epochs where it was."""
    market.alone(lambda txn: txn.set_number("epoch_from", 70))
    market.advance(121)
    command(market)
    assert [(e.from_height, e.to_height) for e in epochs(market)] == [(70, 119)]
    assert shown(market, 70)["epoch"] == 1
    with pytest.raises(NotFoundError):
        shown(market, 69)
    assert payouts(market, 69) is None


def test_change_within_an_epoch_does_not_look_at_epochs(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.advance(60)
    command(market)
    monkeypatch.delattr(subsidy, "close")
    market.advance(59.999)
    command(market)
    market.advance(0.001)
    with pytest.raises(AttributeError):
        command(market)
    monkeypatch.undo()


def test_epochs_survive_a_reopen(working: Market) -> None:
    working.prove("first", *range(7))
    working.advance(61)
    working.reopen()
    command(working)
    working.reopen()
    assert (multiplier(working), payouts(working, 0)) == (115, Payouts(0, 0, 8))
