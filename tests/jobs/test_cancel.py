"""Cancelling, by the buyer or by the provider."""

import pytest

from compute_market.admission import capacity, shares
from compute_market.amounts import MICRO, UNIT_BYTES, split
from compute_market.errors import (
    NotFoundError,
    RefusedError,
)
from compute_market.offers import offers
from compute_market.store.schema import PROVIDER_CANCELS
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.state import balances, command, contents, receipt_of


@pytest.mark.parametrize("state", ["pending", "queued", "active"])
def test_cancel_by_the_client_refunds_everything(real: Market, state: str) -> None:
    real.configure(slots=1)
    real.post(units=1 if state == "pending" else 2, provider_bond=30, fee_pct_ct=50)
    if state != "active":
        real.submit("first")
    before, offer = balances(real), real.offer("o-1")
    real.submit(consumer_bond=20, wait=True)
    assert real.job().state == state
    real.advance(1)
    found = real.cancel()
    assert (found.outcome, found.text) == ("cancelled", "cancelled job job")
    job = real.job()
    assert (job.state, job.ended_by, job.cause) == (
        "cancelled",
        "client",
        "cancelled_by_client",
    )
    assert job.ended_at == real.now_ms // 1000
    assert balances(real) == before
    assert real.offer("o-1") == offer
    assert real.score() == 0
    assert real.counter("scheduler_cancel_total", "client") == 1
    assert receipt_of(real) is None


def test_cancel_after_every_partial_proof_pays_and_refunds_the_exact_split(real: Market) -> None:
    real.post(price_per_unit=5, fee_pct_ct=25)
    for proven in range(4):
        real.deposit("buyer", ct=10_000 - real.balance("wallet/buyer"))
        real.deposit("buyer", it=10_000 - real.balance("wallet/buyer", "IT"))
        earned = real.balance("wallet/prov"), real.balance("wallet/prov", "IT")
        job_id = f"job-{proven}"
        real.submit(job_id, lengths=(1,) * 4, consumer_bond=20)
        if proven:
            real.prove(job_id, *range(proven))
        real.cancel(job_id)
        ct, it = split(5 * proven, 25)
        assert real.balance("wallet/prov") == earned[0] + ct
        assert real.balance("wallet/prov", "IT") == earned[1] + it
        assert real.balance("wallet/buyer") == 10_000 - ct
        assert real.balance("wallet/buyer", "IT") == 10_000 - it
        job = real.job(job_id)
        assert (job.paid_ct, job.paid_it) == (ct, it)
        assert (job.refunded_ct, job.refunded_it) == (5 - ct, 15 - it)


def test_cancel_by_the_provider_costs_it_a_point(real: Market) -> None:
    real.post(reputation=3)
    before = balances(real)
    real.submit()
    real.cancel(by="provider")
    assert (real.job().ended_by, real.job().cause) == ("provider", "cancelled_by_provider")
    assert real.score() == 2
    assert balances(real) == before
    assert real.counter("scheduler_cancel_total", "provider") == 1


def test_cancel_of_a_pending_job_by_a_provider_is_refused(market: Market) -> None:
    market.submit(wait=True)
    before = contents(market)
    with pytest.raises(RefusedError, match="job job is pending, no provider holds it"):
        market.cancel(by="provider")
    assert contents(market) == before


def test_cancel_by_the_provider_burns_a_tenth_from_the_third_on(real: Market) -> None:
    real.post(reputation=10, provider_bond=11)
    for n, burned in enumerate((0, 0, 2, 4)):  # a tenth of 11, rounded up
        real.submit(f"job-{n}")
        real.cancel(f"job-{n}", by="provider")
        real.advance(60)
        assert real.balance("burned") == burned
    assert real.balance("wallet/prov") == 996
    assert real.counter("slashing_burn_ct_total") == 4
    assert real.counter("compute_market_fee_split", "ct", "burned") == 4


@pytest.mark.parametrize(("gap_secs", "burned"), [(43_200, 1), (43_200.001, 0)])
def test_cancel_by_the_provider_counts_within_the_window(
    real: Market, gap_secs: float, burned: int
) -> None:
    real.post(reputation=10, provider_bond=10)
    for n in range(3):
        real.submit(f"job-{n}")
        real.cancel(f"job-{n}", by="provider")
        if n < 2:
            real.advance(gap_secs)
    assert real.balance("burned") == burned


def test_cancels_before_the_window_do_not_count_however_many(real: Market) -> None:
    real.post(reputation=1000, provider_bond=10)
    real.configure(provider_cancel_penalty_after=1000)
    for n in range(70):
        real.submit(f"job-{n}")
        real.cancel(f"job-{n}", by="provider")
    real.advance(86_401)
    real.configure(provider_cancel_penalty_after=2)
    real.submit()
    real.cancel(by="provider")
    assert real.balance("burned") == 0


def test_cancels_by_the_client_and_of_others_do_not_count(real: Market) -> None:
    real.deposit("other", ct=100)
    real.post(reputation=10, provider_bond=10)
    for n, by in enumerate(("client", "provider", "client", "provider")):
        real.submit(f"job-{n}")
        real.cancel(f"job-{n}", by=by)
        assert real.job(f"job-{n}").placed.provider == "prov"
    real.post("other", price_per_unit=1, reputation=10, provider_bond=10)
    real.submit("job-of-other")
    assert real.cancel("job-of-other", by="provider").job.placed.provider == "other"
    assert real.balance("burned") == 0


def test_cancel_is_not_counted_for_a_provider_whose_name_begins_alike(real: Market) -> None:
    real.deposit("prov2", ct=100)
    real.post("prov2", price_per_unit=1, reputation=10, provider_bond=10, units=2)
    for n in range(2):
        real.submit(f"job-{n}")
        assert real.cancel(f"job-{n}", by="provider").job.placed.provider == "prov2"
    real.update(lambda txn: offers.withdraw(txn, "o-1"))
    real.post("prov", reputation=10, provider_bond=10)
    real.submit()
    assert real.cancel(by="provider").job.placed.provider == "prov"
    assert real.balance("burned") == 0


def test_cancels_that_no_longer_count_are_forgotten(real: Market) -> None:
    real.post(reputation=1000)
    for n in range(5):
        real.submit(f"job-{n}")
        real.cancel(f"job-{n}", by="provider")
        real.advance(86_401)
    assert real.view(lambda txn: txn.size(PROVIDER_CANCELS)) == 1


def test_cancel_penalty_follows_the_configuration(real: Market) -> None:
    real.configure(provider_cancel_penalty_after=1, provider_cancel_slash_pct=100)
    real.post(reputation=10, provider_bond=10)
    real.submit()
    real.cancel(by="provider")
    assert (real.balance("burned"), real.balance("wallet/prov")) == (10, 990)


def test_cancel_of_an_unfunded_job_burns_nothing(market: Market) -> None:
    market.configure(provider_cancel_penalty_after=1)
    market.post(reputation=10, provider_bond=10)
    market.submit()
    market.cancel(by="provider")
    assert balances(market) == {}


@pytest.mark.parametrize("by", ["client", "provider"])
def test_cancel_again_changes_nothing(real: Market, by: str) -> None:
    real.post()
    real.submit()
    real.cancel()
    before = contents(real)
    found = real.cancel(by=by)
    assert (found.outcome, found.text) == ("already_cancelled", "job already cancelled")
    assert contents(real) == before


@pytest.mark.parametrize("by", ["client", "provider"])
@pytest.mark.parametrize("end", ["completed", "failed"])
def test_cancel_of_a_job_that_ended_changes_nothing(real: Market, end: str, by: str) -> None:
    real.post()
    real.submit(deadline_secs=70)
    if end == "completed":
        real.prove()
    real.advance(71)
    command(real)
    before = contents(real)
    found = real.cancel(by=by)
    assert (found.outcome, found.text) == ("already_done", f"job already {end}")
    assert contents(real) == before


def test_cancel_of_an_unknown_job_is_refused(market: Market) -> None:
    with pytest.raises(NotFoundError, match="job nobody does not exist"):
        market.cancel("nobody")


# What was charged for a job that never ran.


def parties(market: Market) -> dict[str, tuple[int, int]]:
    """Usage and burst bucket of each party and of the market, in whole units."""

    def read(txn: Txn) -> dict[str, tuple[int, int]]:
        every = [capacity.whole_market(txn), *shares.recent(txn)]
        return {
            each.identity: (each.used_micro // MICRO, each.burst_micro // MICRO) for each in every
        }

    return market.view(read)


@pytest.fixture
def waiting(market: Market) -> Market:
    """A market in which jobs wait behind one of one unit."""
    market.configure(slots=1)
    market.post(units=9000)
    market.submit("first", buyer="other")
    return market


@pytest.mark.parametrize("by", ["client", "provider"])
def test_cancel_before_the_start_gives_usage_and_burst_back(waiting: Market, by: str) -> None:
    waiting.submit("large", lengths=(1499 * UNIT_BYTES,))
    before = parties(waiting)
    waiting.submit(lengths=(20 * UNIT_BYTES,))
    assert parties(waiting)["prov"] == (1520, 10)
    waiting.cancel(by=by)
    assert parties(waiting) == before
    waiting.cancel("large", by=by)
    assert parties(waiting) == {"": (1, 30), "other": (1, 30), "prov": (1, 30), "buyer": (0, 30)}


def test_cancel_after_the_start_gives_nothing_back(market: Market) -> None:
    market.post()
    market.submit(lengths=(20 * UNIT_BYTES,))
    before = parties(market)
    market.cancel()
    assert parties(market) == before


def test_cancel_gives_back_no_more_than_still_counts(waiting: Market) -> None:
    waiting.submit(lengths=(100 * UNIT_BYTES,))
    waiting.advance(30)
    waiting.submit("second", lengths=(10 * UNIT_BYTES,))
    assert parties(waiting)["buyer"] == (60, 30)
    waiting.cancel()
    assert parties(waiting)["buyer"] == (10, 30)
    waiting.advance(59)
    assert parties(waiting)["buyer"] == (0, 30)


def test_cancel_late_fills_no_bucket_twice(waiting: Market) -> None:
    waiting.submit("large", lengths=(1499 * UNIT_BYTES,))
    waiting.submit(lengths=(20 * UNIT_BYTES,))
    waiting.advance(20)  # Half of it is back by itself.
    waiting.submit("late", lengths=(5 * UNIT_BYTES,))
    assert parties(waiting)["buyer"][1] == 20
    waiting.cancel()
    assert parties(waiting)["buyer"][1] == 30


def test_cancel_lets_in_what_its_share_kept_out(waiting: Market) -> None:
    waiting.submit("large", lengths=(1499 * UNIT_BYTES,))
    assert waiting.submit(lengths=(31 * UNIT_BYTES,)).reason == "fair_share"
    waiting.cancel("large")
    assert waiting.submit(lengths=(31 * UNIT_BYTES,)).job.state == "queued"
