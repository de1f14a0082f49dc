"""Market time: what a reading of the clock is made into, and what happens while it is in doubt.

A clock here is the wall clock, the boot it is read in, and the boot clock.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute_market import chain, clock, events
from compute_market import market as front
from compute_market.admission import shares
from compute_market.clock import EARLIEST_MS, LATEST_MS, TIME_HELD, Reading, Time
from compute_market.engine import Engine
from compute_market.errors import BusyError
from compute_market.home import WRITE_LOCK
from compute_market.jobs import demand
from compute_market.records import Usage
from compute_market.settlement import modes
from compute_market.store.schema import (
    META,
    PROVIDER_CANCELS,
    THROUGHPUT,
    USAGE,
    USAGE_RECENT,
    id_prefix,
    pack_u64,
)
from compute_market.store.store import Store
from compute_market.store.txn import Txn
from tests.support.market import START_MS, Market
from tests.support.state import balances, command, contents

HOUR = 3600
YEAR = 365 * 86_400
TOLERANCE = 300


class Machine:
    """The clocks of a machine: time passes on both, and the wall clock can be set."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.boot: str | None = "boot-1"
        self.boot_ms = 5_000
        market.opened.engine.clock = self.read

    def read(self) -> Reading:
        boot_ms = None if self.boot is None else self.boot_ms
        return Reading(self.market.now_ms, self.boot, boot_ms)

    def passes(self, seconds: float) -> None:
        self.market.advance(seconds)
        self.boot_ms += round(seconds * 1000)

    def is_set(self, seconds: float) -> None:
        self.market.advance(seconds)

    def boots(self, seconds: float = 60) -> None:
        """It is off for a while, and is another boot then."""
        self.market.advance(seconds)
        self.boot, self.boot_ms = "boot-2", 1_000


@pytest.fixture
def machine(real: Market) -> Machine:
    """A market in which much will fall due: a job, an armed mode, usage that fades."""
    machine = Machine(real)
    real.post(provider_bond=30, reputation=5)
    real.submit(deadline_secs=1000)
    return machine


def now_of(market: Market) -> int:
    """Market time as a change sees it, in seconds since the start."""
    return (market.update(lambda txn: txn.now_ms) - START_MS) // 1000


def looked_at(market: Market) -> Time:
    market.view(lambda txn: None)
    assert market.opened.time is not None
    return market.opened.time


def state_of(market: Market) -> tuple[str, int, dict[str, int]]:
    return market.job().state, market.score(), balances(market)


# Market time.


def test_time_is_that_of_the_clock_as_long_as_it_goes_on(machine: Machine) -> None:
    market = machine.market
    for passed, now in ((0, 0), (10, 10), (290, 300), (HOUR, 300 + HOUR)):
        machine.passes(passed)
        assert (now_of(market), looked_at(market).doubt) == (now, None)


@pytest.mark.parametrize("back", [1, 60, TOLERANCE])
def test_time_stands_while_the_clock_was_set_back_a_little(machine: Machine, back: int) -> None:
    market = machine.market
    machine.passes(500)
    command(market)
    machine.is_set(-back)
    assert (now_of(market), looked_at(market).doubt) == (500, None)
    machine.passes(back)
    assert now_of(market) == 500
    machine.passes(1)
    assert now_of(market) == 501


@pytest.mark.parametrize("boot", ["boot-1", None, "boot-2"])
def test_clock_that_is_far_behind_is_not_believed(machine: Machine, boot: str | None) -> None:
    market = machine.market
    command(market)
    machine.is_set(-TOLERANCE - 0.001)
    machine.boot = boot
    time = looked_at(market)
    assert (time.doubt, time.off_ms, time.now_ms) == ("behind", 300_001, START_MS)
    assert now_of(market) == 0
    machine.passes(0.001)
    assert looked_at(market).doubt is None


@pytest.mark.parametrize("ahead", [TOLERANCE + 1, 10 * YEAR])
def test_clock_that_leaps_ahead_within_one_boot_is_not_believed(
    machine: Machine, ahead: int
) -> None:
    market = machine.market
    machine.passes(10)
    command(market)
    machine.passes(5)
    machine.is_set(ahead)
    for _ in range(3):  # However often it is asked, and whoever wrote meanwhile.
        assert now_of(market) == 10
        time = looked_at(market)
        assert (time.doubt, time.off_ms // 1000) == ("ahead", ahead)
    machine.is_set(-ahead)
    assert (now_of(market), looked_at(market).doubt) == (15, None)


def test_clock_that_is_corrected_a_little_is_believed_again_and_again(machine: Machine) -> None:
    """Each correction is measured from the one before."""
    market = machine.market
    for number in range(1, 6):
        machine.is_set(TOLERANCE)
        assert now_of(market) == number * TOLERANCE
        assert looked_at(market).doubt is None


@pytest.mark.parametrize("boot", [None, "boot-2"])
def test_clock_that_went_ahead_over_another_boot_or_none_is_believed(
    machine: Machine, boot: str | None
) -> None:
    market = machine.market
    command(market)
    machine.is_set(HOUR)
    machine.boot = boot
    assert (now_of(market), looked_at(market).doubt) == (HOUR, None)


def test_clock_that_was_ahead_is_measured_in_the_next_boot_too(machine: Machine) -> None:
    market = machine.market
    machine.boots()
    command(market)
    machine.is_set(HOUR)
    assert (now_of(market), looked_at(market).doubt) == (60, "ahead")


@pytest.mark.parametrize(
    ("wall_ms", "words"),
    [
        (-1, "before 2020"),
        (0, "before 2020"),
        (EARLIEST_MS - 1, "before 2020"),
        (LATEST_MS, "after 2199"),
        (2**63, "after 2199"),
    ],
)
def test_clock_that_was_never_set_is_refused(machine: Machine, wall_ms: int, words: str) -> None:
    market = machine.market
    before = contents(market)
    now_ms, market.now_ms = market.now_ms, wall_ms
    for attempt in (market.update, market.view):
        with pytest.raises(BusyError, match=words) as caught:
            attempt(lambda txn: None)
        assert caught.value.reason == "clock"
    market.now_ms = now_ms
    assert contents(market) == before


@pytest.mark.parametrize("wall_ms", [EARLIEST_MS, LATEST_MS - 1])
def test_clock_at_the_ends_of_what_can_be_is_read(market: Market, wall_ms: int) -> None:
    market.now_ms = wall_ms
    assert market.view(lambda txn: txn.now_ms) == wall_ms


def test_time_of_a_new_market_begins_with_the_clock(market: Market) -> None:
    """Whatever the clock was when it was made."""
    market.advance(-HOUR)
    assert now_of(market) == -HOUR


# What does not happen meanwhile.

DOUBTS: dict[str, Callable[[Machine], object]] = {
    "behind": lambda machine: machine.is_set(-HOUR),
    "ahead": lambda machine: machine.is_set(10 * YEAR),
    "held": lambda machine: machine.market.alone(lambda txn: txn.put(META, TIME_HELD)),
}
EACH_DOUBT = pytest.mark.parametrize("doubt", DOUBTS)


@EACH_DOUBT
def test_nothing_falls_due_while_the_clock_is_in_doubt(machine: Machine, doubt: str) -> None:
    market = machine.market
    market.update(lambda txn: modes.to_dry_run(txn, "for a test"))
    market.opened.arm(100)
    used = market.view(lambda txn: shares.party(txn, "buyer", "buyer"))
    before, height = state_of(market), market.view(chain.height)
    DOUBTS[doubt](machine)
    for _ in range(2):
        machine.passes(2000)
        if doubt == "behind":
            machine.is_set(-2000)
        assert looked_at(market).doubt == doubt
        command(market)
        assert market.opened.due.text == ""
        market.opened.tick()
    assert state_of(market) == before
    assert market.view(lambda txn: modes.state(txn).mode) == "armed"
    assert market.view(chain.height) == height
    assert market.view(lambda txn: shares.party(txn, "buyer", "buyer")) == used
    assert not market.opened.job("job")["overdue"]


@EACH_DOUBT
def test_changes_are_made_at_the_last_time_while_the_clock_is_in_doubt(
    machine: Machine, doubt: str
) -> None:
    market = machine.market
    machine.passes(7)
    command(market)
    DOUBTS[doubt](machine)
    market.post("other", provider_bond=1)
    market.submit("more", deadline_secs=60)
    market.prove("more")
    job = market.job("more")
    assert (job.state, job.submitted_at, job.ended_at) == ("completed", *[START_MS // 1000 + 7] * 2)
    assert market.events()[-1].at_ms == START_MS + 7_000


@EACH_DOUBT
def test_look_while_the_clock_is_in_doubt_changes_nothing(machine: Machine, doubt: str) -> None:
    market = machine.market
    DOUBTS[doubt](machine)
    before = contents(market)
    time = looked_at(market)
    assert time.doubt == doubt
    assert market.view(lambda txn: (txn.now_ms, txn.timely)) == (START_MS, False)
    assert contents(market) == before


@EACH_DOUBT
def test_doubt_is_told_in_one_line(machine: Machine, doubt: str) -> None:
    DOUBTS[doubt](machine)
    assert (
        looked_at(machine.market).text
        == {
            "behind": "the clock is 3600 s behind market time: nothing falls due; "
            "see `tb-cli compute-market clock`",
            "ahead": "the clock went ahead by 315360000 s: nothing falls due; "
            "see `tb-cli compute-market clock`",
            "held": "time is held since a restore: nothing falls due; "
            "see `tb-cli compute-market clock`",
        }[doubt]
    )


def test_clock_that_is_right_again_brings_what_was_due(machine: Machine) -> None:
    market = machine.market
    machine.is_set(10 * YEAR)
    machine.passes(1001)
    command(market)
    assert market.job().state == "active"
    machine.is_set(-10 * YEAR)
    command(market)
    assert market.job().cause == "deadline_missed"


# Accepting the clock.


@EACH_DOUBT
def test_accept_lets_time_go_on(machine: Machine, doubt: str) -> None:
    market = machine.market
    DOUBTS[doubt](machine)
    assert market.opened.accept_clock()
    assert looked_at(market).doubt is None
    then = now_of(market)
    assert then == (10 * YEAR if doubt == "ahead" else 0)
    machine.passes(HOUR)
    assert (now_of(market), looked_at(market).doubt) == (then + HOUR, None)
    (told,) = market.events("clock_accepted")
    assert told.event.detail["doubt"] == doubt
    assert not market.opened.accept_clock()


def test_accept_of_a_clock_that_is_believed_changes_nothing(machine: Machine) -> None:
    market = machine.market
    command(market)
    before = contents(market)
    assert not market.opened.accept_clock()
    assert contents(market) == before


def test_accept_of_a_leap_costs_nobody_anything(machine: Machine) -> None:
    """Nobody could prove anything in a time that was skipped, however short it was."""
    market = machine.market
    funds = {name: n for name, n in balances(market).items() if name.startswith("wallet")}
    machine.passes(500)
    command(market)
    machine.is_set(501)
    market.opened.accept_clock()
    command(market)
    assert (market.job().state, market.job().cause, market.score()) == ("failed", "outage", 5)
    found = balances(market)
    assert found["wallet/prov CT"] == funds["wallet/prov CT"] + 30
    assert "burned CT" not in found


def test_time_goes_on_ahead_of_a_clock_that_was_set_back_and_accepted(machine: Machine) -> None:
    market = machine.market
    machine.passes(HOUR)
    command(market)
    machine.is_set(-HOUR)
    market.opened.accept_clock()
    machine.passes(500)
    assert now_of(market) == HOUR + 500
    # From there on it is measured as before.
    machine.is_set(-TOLERANCE - 1)
    assert looked_at(market).doubt == "behind"
    machine.is_set(2 * TOLERANCE + 2)
    assert looked_at(market).doubt == "ahead"
    machine.is_set(-TOLERANCE - 1)
    assert looked_at(market).doubt is None


def test_time_is_that_of_the_clock_once_it_has_caught_up_in_another_boot(machine: Machine) -> None:
    market = machine.market
    machine.passes(HOUR)
    command(market)
    machine.is_set(-HOUR)
    market.opened.accept_clock()
    machine.boots(60)
    assert now_of(market) == HOUR + 60
    machine.is_set(HOUR)  # It is right again, and that boot does not tell from what.
    machine.boot = "boot-3"
    assert now_of(market) == HOUR + 60
    machine.passes(10)
    assert now_of(market) == HOUR + 70
    assert looked_at(market).kept.ahead_ms == 0


def test_document_shows_the_clocks_and_what_is_made_of_them(machine: Machine) -> None:
    market = machine.market
    command(market)
    machine.passes(2)
    machine.is_set(HOUR)

    def read(txn: Txn) -> dict[str, Any]:
        return clock.document(txn, clock.judge(txn, machine.read()))

    assert market.view(read) == {
        "wall_ms": START_MS + 3_602_000,
        "boot_id": "boot-1",
        "boot_ms": 7_000,
        "market_ms": START_MS,
        "last_run_ms": START_MS,
        "believed": False,
        "doubt": "ahead",
        "off_ms": 3_600_000,
        "ahead_ms": 0,
        "last_outage": None,
    }
    market.opened.accept_clock()
    shown = market.view(read)
    assert (shown["believed"], shown["market_ms"]) == (True, START_MS + 3_602_000)
    assert shown["last_outage"] == {"from_ms": START_MS, "until_ms": START_MS + 3_602_000}


def test_clock_that_is_damaged_is_named(machine: Machine) -> None:
    market = machine.market
    market.alone(lambda txn: txn.put(META, b"clock", b"\xc1"))
    with pytest.raises(Exception, match="table meta, key b'clock'"):
        command(market)
    market.alone(lambda txn: txn.delete(META, b"clock"))


# What a clock that was ahead has left in the future, from before it was doubted.


def test_usage_from_the_future_counts_as_now_and_fades_from_the_next_tick_on(
    market: Market,
) -> None:
    future_ms = START_MS + 10 * YEAR * 1000
    market.post()
    market.submit()

    def put(txn: Txn) -> None:
        for key in (b"buyer\0buyer", b"provider\0prov", b"market\0"):
            txn.write(USAGE, key, Usage(60_000_000, 5_000_000, future_ms))
        for key, _ in txn.collect(USAGE_RECENT, 9):
            txn.delete(USAGE_RECENT, key)
            txn.put(USAGE_RECENT, pack_u64(future_ms) + key[8:])

    def used(role: Any, identity: str) -> tuple[int, int]:
        party = market.view(lambda txn: shares.party(txn, role, identity))
        return party.used_micro, party.burst_micro

    market.alone(put)
    market.advance(30)
    assert used("buyer", "buyer") == (60_000_000, 5_000_000)
    market.opened.tick()
    assert used("buyer", "buyer") == (60_000_000, 5_000_000)
    market.advance(30)
    for party in (("buyer", "buyer"), ("provider", "prov"), ("market", "")):
        assert used(*party) == (30_000_000, 20_000_000)


def test_cancels_from_the_future_count_as_now_and_are_forgotten_in_time(real: Market) -> None:
    real.post(provider_bond=10, reputation=10)
    future = id_prefix("prov") + pack_u64(START_MS + YEAR * 1000)

    def put(txn: Txn) -> None:
        for name in (b"x", b"y"):
            txn.put(PROVIDER_CANCELS, future + name)

    def burned_by_a_cancel(job_id: str) -> int:
        before = real.balance("burned")
        real.submit(job_id)
        real.cancel(job_id, by="provider")
        return real.balance("burned") - before

    real.alone(put)
    assert burned_by_a_cancel("third") == 1
    real.advance(86_401)
    assert burned_by_a_cancel("first") == 0


def test_work_from_the_future_is_not_that_of_the_last_minute(market: Market) -> None:
    market.configure(initial_capacity=10)
    market.post()
    market.submit(lengths=(1, 1))
    future = pack_u64(START_MS // 1000 + HOUR)
    market.alone(lambda txn: txn.put(THROUGHPUT, future, pack_u64(600)))
    assert market.view(demand.utilization_pct) == 0
    market.prove("job", 0)
    assert market.view(lambda txn: txn.get(THROUGHPUT, future)) is None


# An outage.


def away(market: Market, seconds: float, **fields: Any) -> None:
    """A job that runs, and a market in which nothing is changed for a while."""
    market.post(provider_bond=30, reputation=5)
    market.submit(**fields)
    market.advance(seconds)


@pytest.mark.parametrize(
    ("gap", "deadline_secs", "cause"),
    [
        (HOUR, 60, "deadline_missed"),
        (HOUR + 0.001, 60, "outage"),
        (HOUR + 1, HOUR, "outage"),
        (HOUR + 1, 0, "outage"),
    ],
)
def test_deadline_that_falls_into_an_outage_is_nobodys_fault(
    real: Market, gap: float, deadline_secs: int, cause: str
) -> None:
    real.configure(deadline_min_secs=0)
    before = balances(real)
    away(real, gap, deadline_secs=deadline_secs)
    command(real)
    job = real.job()
    assert (job.state, job.ended_by, job.cause) == ("failed", "deadline", cause)
    at_fault = cause == "deadline_missed"
    assert real.score() == 5 - at_fault
    assert real.counter("industrial_rejected_total", "SLA") == at_fault
    assert real.offer("o-1").units_left == 1000
    assert real.opened.due.away == (not at_fault)
    if not at_fault:
        assert balances(real) == before


def test_deadline_before_or_after_an_outage_is_the_providers_fault(real: Market) -> None:
    real.post(reputation=9)
    real.submit("before", deadline_secs=60)
    real.submit("after", deadline_secs=HOUR + 120)
    real.advance(61)
    real.opened.engine.update(lambda txn: None, sweep_limit=0)
    real.advance(HOUR + 1)
    command(real)
    real.advance(120)
    command(real)
    assert [real.job(name).cause for name in ("before", "after")] == ["deadline_missed"] * 2
    assert real.score() == 7


def test_outage_pays_what_was_proven_and_refunds_the_rest(real: Market) -> None:
    real.post(price_per_unit=5, fee_pct_ct=25, provider_bond=30)
    real.submit(lengths=(1, 1, 1, 1), consumer_bond=20, deadline_secs=60)
    real.prove("job", 2)
    real.advance(2 * HOUR)
    command(real)
    found = balances(real)
    assert (found["wallet/buyer CT"], found["wallet/buyer IT"]) == (9_998, 9_997)
    assert (found["wallet/prov CT"], found["wallet/prov IT"]) == (1_002, 3 + 1)  # and a subsidy
    assert "burned CT" not in found


def test_outage_that_takes_many_commands_to_clear_is_nobodys_fault_to_the_last(
    real: Market,
) -> None:
    real.post(reputation=9)
    for number in range(3):
        real.submit(f"job-{number}", deadline_secs=60 + number)
    real.advance(2 * HOUR)
    for number in range(3):
        # A second outage meanwhile does not make it forget the first.
        real.opened.engine.update(lambda txn: None, sweep_limit=1)
        assert real.job(f"job-{number}").cause == "outage"
        real.advance(2 * HOUR if number else 10)
    assert real.score() == 9


def test_outage_is_as_long_as_the_setting_says(real: Market) -> None:
    real.configure(outage_secs=60, deadline_min_secs=0)
    away(real, 61, deadline_secs=30)
    command(real)
    assert real.job().cause == "outage"


def test_looking_does_not_end_an_outage(real: Market) -> None:
    away(real, HOUR - 1, deadline_secs=60)
    real.job()
    real.update(lambda txn: None, dry_run=True)
    real.advance(2)
    command(real)
    assert real.job().cause == "outage"


# Moving deadlines.


def test_extend_moves_the_deadline_of_every_live_job_and_no_other(real: Market) -> None:
    real.configure(slots=1)
    real.post(units=2)
    real.submit("done", deadline_secs=100)
    real.prove("done")
    for name in ("runs", "waits", "pends"):
        real.submit(name, deadline_secs=100, wait=True)
    deadline = real.job("runs").deadline
    real.advance(50)
    assert real.opened.extend_deadlines(1000) == 2 + 1
    for name in ("runs", "waits", "pends"):
        assert real.job(name).deadline == deadline + 1000
        assert real.view(lambda txn, n=name: events.history(txn, real.job(n)))[-1].event.event == (
            "deadline_extended"
        )
    assert real.job("done").deadline == deadline
    real.advance(1000)
    command(real)
    assert real.job("runs").state == "active"
    real.advance(51)
    command(real)
    assert real.job("runs").cause == "deadline_missed"


def test_extend_goes_no_further_than_the_year_9999(market: Market) -> None:
    market.post()
    market.submit()
    for _ in range(2):
        assert market.opened.extend_deadlines(253_402_300_799) == 1
        assert market.job().deadline == 253_402_300_799


def test_extend_lets_time_go_on_that_a_restore_holds(machine: Machine) -> None:
    """A backup of two days ago is restored: who extends by that fails nobody."""
    market = machine.market
    market.alone(lambda txn: txn.put(META, TIME_HELD))
    machine.passes(2 * 86_400)
    command(market)
    assert (market.job().state, looked_at(market).doubt) == ("active", "held")
    market.opened.extend_deadlines(2 * 86_400)
    assert looked_at(market).doubt is None
    assert now_of(market) == 2 * 86_400
    assert market.job().state == "active"
    machine.passes(1001)
    command(market)
    assert market.job().cause == "deadline_missed"


def test_accept_after_a_restore_fails_without_fault_what_is_overdue(machine: Machine) -> None:
    market = machine.market
    market.alone(lambda txn: txn.put(META, TIME_HELD))
    machine.passes(2 * 86_400)
    market.opened.accept_clock()
    command(market)
    assert (market.job().cause, market.score()) == ("outage", 5)


def test_clock_is_asked_once_the_write_lock_is_had(tmp_path: Path) -> None:
    """Whoever waited for it longer than the tolerance would be behind the one it waited for."""
    market = Market(tmp_path / "market")
    command(market)
    market.store.close()
    lock = os.open(market.path / WRITE_LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def sleep(_: float) -> None:
        market.advance(TOLERANCE + 1)
        fcntl.flock(lock, fcntl.LOCK_UN)

    store = Store.open(str(market.path), sleep=sleep)
    market.opened = front.Market(Engine(store, clock=lambda: market.now_ms))
    assert now_of(market) == TOLERANCE + 1
    store.close()
    os.close(lock)
