"""Faults of the buyer, and what each costs whom."""

import pytest

from compute_market.errors import NotFoundError
from compute_market.jobs import faults
from compute_market.records import Fault
from compute_market.store.schema import META
from tests.support.market import DIGEST, Market
from tests.support.modes import to_dry_run
from tests.support.state import balances, command, contents, receipt_of, states


def tell(market: Market, fault: Fault, *, job_id: str = "job", index: int = 0) -> str:
    """Tell of a fault; the state of the job then."""
    return market.update(lambda txn: faults.tell(txn, job_id, fault, index)).state


def started(market: Market) -> None:
    """A funded job with one of four slices proven, at 5 a unit, 25 % of it in CT."""
    market.post(price_per_unit=5, fee_pct_ct=25, provider_bond=30, reputation=3)
    market.submit(lengths=(1, 1, 1, 1), consumer_bond=20)
    market.prove("job", 2)


def test_changed_slice_ends_the_job_at_the_cost_of_its_buyer(real: Market) -> None:
    started(real)
    assert tell(real, "slice_changed") == "failed"
    job = real.job()
    assert (job.state, job.ended_by, job.cause) == ("failed", "client", "slice_changed")
    # 5 of 20 are paid as (2, 3); of the buyer's 20 + 20 the rest of the escrow comes back.
    assert balances(real) == {
        "supply CT": -11_000,
        "supply IT": -10_000,
        "wallet/buyer CT": 9_978,
        "wallet/buyer IT": 9_997,
        "wallet/prov CT": 1_002,
        "wallet/prov IT": 3,
        "burned CT": 20,
    }
    assert real.score() == 3
    assert real.counter("slashing_burn_ct_total") == 20
    assert real.counter("bonds_burned_total", "buyer") == 1
    assert real.counter("industrial_rejected_total", "SLA") == 0
    assert (real.offer("o-1").units_left, real.offer("o-1").units_proven) == (999, 1)
    receipt = receipt_of(real)
    assert receipt is not None
    assert receipt.units == 1
    (burned,) = real.events("bond_burned")
    assert (burned.event.owner, burned.event.detail) == (
        "buyer",
        {"ct": 20, "cause": faults.BURN_EVENT},
    )


def test_changed_slice_gives_the_slot_to_the_next(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    market.submit("a")
    market.submit("b")
    assert tell(market, "slice_changed", job_id="a") == "failed"
    assert states(market, "a", "b") == ["failed", "active"]


def test_changed_slice_burns_a_true_bond_in_every_mode(real: Market) -> None:
    started(real)
    to_dry_run(real)
    assert tell(real, "slice_changed") == "failed"
    assert balances(real)["burned CT"] == 20


def test_changed_slice_of_an_unfunded_job_moves_no_money(market: Market) -> None:
    market.post(reputation=3)
    market.submit()
    assert tell(market, "slice_changed") == "failed"
    assert (market.job().cause, market.score()) == ("slice_changed", 3)
    assert balances(market) == {}


@pytest.mark.parametrize("fault", ["slice_changed", "slice_unreadable"])
def test_fault_of_a_job_that_is_not_active_changes_nothing(real: Market, fault: Fault) -> None:
    started(real)
    real.cancel()
    real.submit("waits", wait=True, capability={"cpu_cores": 9})
    before = contents(real, META)
    for job_id, state in (("job", "cancelled"), ("waits", "pending")):
        assert tell(real, fault, job_id=job_id) == state
    assert contents(real, META) == before


def miss_the_deadline(market: Market) -> None:
    """Let it pass while the market is there."""
    market.advance(86_000)
    command(market)
    market.advance(401)
    command(market)


@pytest.mark.parametrize("fault", ["slice_changed", "slice_unreadable"])
def test_fault_of_an_unknown_job_is_not_found(market: Market, fault: Fault) -> None:
    with pytest.raises(NotFoundError):
        tell(market, fault, job_id="nope")


def test_unreadable_slice_ends_the_job_at_its_deadline_without_fault(real: Market) -> None:
    started(real)
    assert tell(real, "slice_unreadable", index=1) == "active"
    assert real.opened.job("job")["unreadable_slice"] == 1
    miss_the_deadline(real)
    job = real.job()
    assert (job.state, job.ended_by, job.cause) == ("failed", "deadline", "slice_unreadable")
    # What was proven also earned a subsidy of 1 IT when its epoch ended.
    assert balances(real) == {
        "supply CT": -11_000,
        "supply IT": -10_001,
        "wallet/buyer CT": 9_998,
        "wallet/buyer IT": 9_997,
        "wallet/prov CT": 1_002,
        "wallet/prov IT": 3 + 1,
    }
    assert real.score() == 3
    assert real.counter("industrial_rejected_total", "SLA") == 0


def test_unreadable_slice_is_told_once(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, 1))
    for index in (1, 1, 0):
        tell(market, "slice_unreadable", index=index)
    told = [logged.event.detail for logged in market.events("slice_unreadable")]
    assert told == [{"slice": 1}, {"slice": 0}]


@pytest.mark.parametrize(("proven", "cause"), [(1, "deadline_missed"), (0, "slice_unreadable")])
def test_proof_of_the_slice_that_could_not_be_read_makes_it_good(
    market: Market, proven: int, cause: str
) -> None:
    market.post()
    market.submit(lengths=(1, 1, 1))
    tell(market, "slice_unreadable", index=1)
    market.prove("job", proven, digest=DIGEST)
    miss_the_deadline(market)
    assert market.job().cause == cause
