"""Jobs that wait are tried again when something helped, before others, and say why they wait."""

from collections.abc import Callable

import pytest

from compute_market.amounts import UNIT_BYTES
from compute_market.jobs import jobs, waiting
from compute_market.jobs.submit import submit
from compute_market.offers import offers
from compute_market.scheduler import queue
from compute_market.settlement import ledger
from compute_market.store.txn import Txn
from tests.support.market import Market, job_request, slice_of
from tests.support.modes import to_dry_run
from tests.support.state import command, improve_standing, record_capacity, states


def held_by(market: Market, job_id: str = "job") -> str | None:
    return market.view(lambda txn: waiting.present_reason(txn, jobs.get(txn, job_id))).held_by


def without_offer(market: Market) -> None:
    market.submit(wait=True)


def too_dear(market: Market) -> None:
    market.post(price_per_unit=101)
    market.submit(wait=True)


def without_units(market: Market) -> None:
    market.post(units=1, reputation=9)
    market.submit("other")
    market.submit(wait=True)


def without_standing(market: Market) -> None:
    market.post(reputation=-1)
    market.submit(wait=True)


def without_bond(market: Market) -> None:
    market.configure(settle_mode="real")
    market.deposit("buyer", ct=1000)
    market.post(provider_bond=5)
    market.submit(wait=True)


def without_funds(market: Market) -> None:
    market.configure(settle_mode="real")
    market.deposit("prov", ct=1000)
    market.submit(wait=True)
    market.post()


def without_capacity(market: Market) -> None:
    market.configure(fair_share_cap_ppm=1_000_000)
    market.submit(lengths=(6001 * UNIT_BYTES,), wait=True)
    market.post(units=7000)


def without_share(market: Market) -> None:
    market.submit(lengths=(1501 * UNIT_BYTES,), wait=True)
    market.post(units=7000)


def without_burst(market: Market) -> None:
    market.post(units=7000)
    market.submit("large", buyer="other", lengths=(1500 * UNIT_BYTES,))
    market.submit("small", buyer="other", lengths=(30 * UNIT_BYTES,))
    market.submit(wait=True, capability={"cpu_cores": 1})
    market.post(capability={"cpu_cores": 1}, units=1)


# Why a job waits → how that comes, and what helps.
REASONS: dict[str, tuple[Callable[[Market], None], Callable[[Market], object]]] = {
    "no offer": (without_offer, lambda m: m.post()),
    "price": (too_dear, lambda m: m.post("other", price_per_unit=100)),
    "units": (without_units, lambda m: m.cancel("other")),
    "reputation": (without_standing, improve_standing),
    "bond_unfunded": (without_bond, lambda m: m.deposit("prov", ct=5)),
    "funds": (without_funds, lambda m: m.deposit("buyer", ct=6)),
    "admission: capacity": (without_capacity, lambda m: record_capacity(m, 101)),
    "admission: fair_share": (without_share, lambda m: m.configure(fair_share_cap_ppm=300_000)),
    "admission: burst_exhausted": (without_burst, lambda m: m.advance(2)),
}


@pytest.mark.parametrize("reason", REASONS)
def test_job_waits_for_what_it_says_and_is_taken_once_it_came(market: Market, reason: str) -> None:
    begin, help_ = REASONS[reason]
    begin(market)
    assert held_by(market) == reason
    command(market)
    assert (market.job().state, held_by(market)) == ("pending", reason)
    help_(market)
    command(market)
    assert market.job().state == "active"


def test_mode_that_changes_takes_a_job_that_lacked_funds(market: Market) -> None:
    without_funds(market)
    to_dry_run(market)
    command(market)
    assert market.job().state == "active"


def test_job_that_the_next_change_takes_waits_for_nothing(market: Market) -> None:
    without_funds(market)
    market.deposit("buyer", ct=6)
    assert (market.job().state, held_by(market)) == ("pending", None)
    assert market.update(lambda txn: None) is None
    assert market.opened.due.matched == ("job",)
    assert market.opened.due.text == "1 waiting job placed"


def test_job_passed_over_while_it_was_overdue_is_tried_when_its_deadline_moves(
    market: Market,
) -> None:
    without_funds(market)
    market.deposit("buyer", ct=6)
    market.advance(1 + market.job().deadline - market.now_ms // 1000)
    market.opened.extend_deadlines(100)
    command(market)
    assert market.job().state == "active"


def test_deadline_that_is_missed_frees_units_for_a_job_that_waits(market: Market) -> None:
    market.post(units=1, reputation=9)
    market.submit("late", deadline_secs=60)
    market.submit(wait=True)
    market.advance(61)
    command(market)
    assert states(market, "late", "job") == ["failed", "active"]


def wait_until_it_is_late(market: Market, left: int) -> None:
    """A job that names the second of its deadline waits until so many seconds are left of it."""
    market.submit(wait=True, deadline=market.now_ms // 1000 + 600)
    market.advance(600 - left)
    command(market)


@pytest.mark.parametrize(("left", "state"), [(60, "active"), (59, "pending"), (0, "pending")])
def test_job_that_names_its_deadline_is_placed_while_there_is_time_enough(
    market: Market, left: int, state: str
) -> None:
    wait_until_it_is_late(market, left)
    market.post()
    assert market.job().state == state


def test_job_that_waited_too_long_says_so_and_costs_no_provider(real: Market) -> None:
    wait_until_it_is_late(real, 59)
    real.post()
    reason = real.view(lambda txn: waiting.present_reason(txn, jobs.get(txn, "job")))
    assert reason.held_by == "deadline"
    assert reason.message == "the deadline is 59 s ahead, at least 60 s are needed"
    real.advance(60)
    command(real)
    assert (real.job().state, real.job().cause) == ("failed", "never_started")
    assert real.events("bond_burned") == []


@pytest.mark.parametrize(
    "help_",
    [lambda m: m.opened.extend_deadlines(1), lambda m: m.configure(deadline_min_secs=59)],
    ids=["later", "less"],
)
def test_job_that_waited_too_long_is_placed_once_there_is_time_enough(
    market: Market, help_: Callable[[Market], object]
) -> None:
    wait_until_it_is_late(market, 59)
    market.post()
    help_(market)
    command(market)
    assert market.job().state == "active"


def test_job_whose_time_begins_with_it_is_placed_in_its_last_second(market: Market) -> None:
    market.submit(wait=True, deadline_secs=600)
    market.advance(600)
    market.post()
    assert (market.job().state, market.job().deadline) == ("active", market.now_ms // 1000 + 600)


def test_offer_that_goes_lets_a_job_go_to_the_second_best(market: Market) -> None:
    market.post("busy", units=7000, price_per_unit=1, offer_id="best")
    market.submit("large", buyer="other", lengths=(1500 * UNIT_BYTES,))
    market.post("free", units=7000, price_per_unit=2)
    market.submit(wait=True, lengths=(31 * UNIT_BYTES,), capability={"cpu_cores": 1})
    for provider, price in (("busy", 1), ("free", 2)):
        market.post(provider, price_per_unit=price, capability={"cpu_cores": 1}, offer_id=provider)
    assert held_by(market) == "admission: fair_share"
    market.update(lambda txn: offers.withdraw(txn, "busy"))
    command(market)
    assert market.job().placed.provider == "free"


@pytest.mark.parametrize(("priority", "winner"), [("normal", "job"), ("high", "late")])
def test_submission_does_not_take_what_a_job_that_waits_could(
    market: Market, priority: str, winner: str
) -> None:
    market.post(units=1, reputation=9)
    market.submit("first")
    market.submit(wait=True)

    def act(txn: Txn) -> None:
        from compute_market.jobs.cancel import cancel

        cancel(txn, "first", "client")
        for name in ("late", "later"):
            request = job_request(name, [slice_of(1)], priority=priority)
            submit(txn, request, [slice_of(1)], wait=True)

    market.update(act)
    active = [name for name in ("job", "late", "later") if market.job(name).state == "active"]
    assert active == [winner]


def test_pass_over_many_jobs_goes_on_with_the_next_change(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "TRIED_MAX", 3)
    market.configure(settle_mode="real")
    market.deposit("prov", ct=1000)
    market.post(units=100)
    for number in range(8):
        market.submit(f"poor-{number}", buyer="poor", wait=True, capability={"cpu_cores": 1})
    market.submit("last", buyer="poor", wait=True, capability={"cpu_cores": 1})
    market.post(capability={"cpu_cores": 1})
    market.deposit("poor", ct=6 * 4)
    taken = []
    for _ in range(4):
        command(market)
        taken.append(len(market.opened.due.matched))
    assert taken == [3, 1, 0, 0]
    market.deposit("poor", ct=1000)
    for _ in range(3):
        command(market)
    assert market.job("last").state == "active"


def test_nothing_is_written_for_jobs_that_nothing_helped(market: Market) -> None:
    market.submit(wait=True)
    command(market)

    def writes(txn: Txn) -> tuple[list[str], int]:
        before = txn.writes
        return waiting.try_again(txn), txn.writes - before

    assert market.update(writes) == ([], 0)


def test_credit_without_jobs_that_wait_leaves_no_mark(market: Market) -> None:
    market.deposit("buyer", ct=5)
    assert market.view(lambda txn: txn.number("pending_marked")) == 0
    market.submit(wait=True)
    market.update(lambda txn: ledger.tap(txn, "deposit", "buyer", {"CT": 5, "IT": 0}, None))
    assert market.view(lambda txn: txn.number("pending_marked")) == 1


def test_order_of_priority_is_the_order_of_the_passes(market: Market) -> None:
    market.post(units=1, reputation=9)
    market.submit("first")
    for job_id, priority in (("low", "low"), ("normal", "normal"), ("high", "high")):
        market.submit(job_id, priority=priority, wait=True)
    market.cancel("first")
    command(market)
    assert states(market, "low", "normal", "high") == ["pending", "pending", "active"]
    assert market.view(lambda txn: queue.active_jobs(txn)) == 1
