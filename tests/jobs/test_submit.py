"""Submitting: what it does, and what the same request again does."""

from typing import Any

import pytest
from msgspec.structs import fields

from compute_market.amounts import AMOUNT_MAX, UNIT_BYTES
from compute_market.errors import (
    ConflictError,
    RefusedError,
)
from compute_market.jobs.submit import Submitted, submit
from compute_market.records import Placement, Slice
from compute_market.requests import JobRequest
from compute_market.store.txn import Txn
from tests.support.market import Market, job_request, slice_of
from tests.support.state import balances, command, contents, withdraw

WRONG = bytes(32)


def test_submit_starts_the_job_on_the_matched_offer(market: Market) -> None:
    market.post(price_per_unit=9)
    market.post("cheap", price_per_unit=4, fee_pct_ct=30, provider_bond=7)
    found = market.submit(lengths=(1, UNIT_BYTES, UNIT_BYTES + 1), deadline_secs=100)
    assert isinstance(found, Submitted)
    assert found.changed
    job = found.job
    assert (job.state, job.funded) == ("active", False)
    assert job.placement == Placement("o-2", "cheap", 4, 30, 7, funded=False)
    assert (job.units, job.slices, job.slices_proven) == (4, 3, 0)
    assert job.deadline == market.now_ms // 1000 + 100
    assert job == market.job()
    assert (market.offer("o-2").units_left, market.offer("o-2").units_reserved) == (996, 4)


def test_submit_in_real_locks_escrow_and_both_bonds(real: Market) -> None:
    real.post(price_per_unit=5, fee_pct_ct=25, provider_bond=30)
    real.submit(lengths=(1,) * 4, consumer_bond=20)
    assert balances(real) == {
        "supply CT": -11_000,
        "supply IT": -10_000,
        "wallet/buyer CT": 10_000 - 5 - 20,
        "wallet/buyer IT": 10_000 - 15,
        "wallet/prov CT": 1_000 - 30,
        "escrow/job CT": 5,
        "escrow/job IT": 15,
        "bond/job/buyer CT": 20,
        "bond/job/provider CT": 30,
    }


def test_submit_in_a_dry_run_changes_nothing(real: Market) -> None:
    real.post()
    before = contents(real)
    request = job_request("job", [slice_of(10)])
    found = real.update(lambda txn: submit(txn, request, [slice_of(10)]), dry_run=True)
    assert found.job.state == "active"
    assert contents(real) == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 86_400), ({"deadline_secs": 60}, 60), ({"deadline_secs": 2_592_000}, 2_592_000)],
)
def test_submit_counts_the_deadline_from_now(
    market: Market, given: dict[str, int], expected: int
) -> None:
    market.post()
    market.advance(0.999)
    assert market.submit(**given).job.deadline == market.now_ms // 1000 + expected


def test_submit_with_a_deadline_in_this_second_is_in_time(market: Market) -> None:
    market.configure(deadline_min_secs=0)
    market.post()
    market.advance(0.999)
    assert market.submit(deadline=market.now_ms // 1000).job.state == "active"


def test_submit_with_a_deadline_in_the_last_second_is_refused(market: Market) -> None:
    market.post()
    with pytest.raises(RefusedError, match="has passed") as caught:
        market.submit(deadline=market.now_ms // 1000 - 1)
    assert caught.value.reason == "deadline"


def test_submit_of_an_empty_slice_among_others_is_refused(market: Market) -> None:
    market.post()
    inputs = [slice_of(1, "/a"), slice_of(0, "/b")]
    with pytest.raises(RefusedError, match="/b is empty") as caught:
        market.submit(inputs=inputs)
    assert caught.value.reason == "empty_slice"


def test_submit_of_a_price_beyond_any_amount_is_refused(market: Market) -> None:
    market.post(units=100, price_per_unit=AMOUNT_MAX)
    assert market.submit("a", max_price_per_unit=AMOUNT_MAX).changed
    before = contents(market)
    told = f"^the price of the whole job {2 * AMOUNT_MAX} is outside"
    with pytest.raises(RefusedError, match=told) as caught:
        market.submit("b", max_price_per_unit=AMOUNT_MAX, lengths=(1, 1))
    assert caught.value.reason == "overflow"
    assert contents(market) == before


def test_submit_that_raises_has_not_even_noted_how_long_it_took(market: Market) -> None:
    """A bulk command lets the others of its transaction go on."""
    market.post(units=100, price_per_unit=AMOUNT_MAX)
    market.opened.engine.stopwatch = lambda: 7
    inputs = [slice_of(1), slice_of(1)]
    request = job_request("b", inputs, max_price_per_unit=AMOUNT_MAX)

    def act(txn: Txn) -> None:
        before = txn.writes
        with pytest.raises(RefusedError):
            submit(txn, request, inputs)
        assert txn.writes == before

    market.update(act)


def test_submit_of_more_units_than_any_amount_is_refused(market: Market) -> None:
    market.post()
    with pytest.raises(RefusedError, match="demand in units") as caught:
        market.submit(lengths=(AMOUNT_MAX * UNIT_BYTES, 1))
    assert caught.value.reason == "overflow"


def test_submit_by_the_only_provider_is_refused(market: Market) -> None:
    market.post("anna")
    assert market.submit(buyer="anna").reason == "capability_mismatch"


def test_submit_by_a_provider_goes_to_another_one(market: Market) -> None:
    market.post("anna", price_per_unit=1)
    market.post("ben", price_per_unit=9)
    assert market.submit(buyer="anna").job.placed.provider == "ben"


def test_submit_with_a_lower_bond_than_the_offer_asks_is_refused(market: Market) -> None:
    market.post(consumer_bond=5)
    assert market.submit(consumer_bond=4).reason == "price_mismatch"
    assert market.submit(consumer_bond=5).job.state == "active"


def test_submit_needs_the_whole_demand_of_one_offer(market: Market) -> None:
    market.post(units=3)
    market.post(units=3)
    assert market.submit(lengths=(1,) * 4).reason == "no_capacity"
    assert market.submit(lengths=(1,) * 3).job.state == "active"
    assert market.offer("o-1").state == "exhausted"


@pytest.mark.parametrize(
    ("ct", "it", "message"),
    [
        (24, 15, "wallet of buyer has 24 CT, 25 CT are needed"),
        (25, 14, "wallet of buyer has 14 IT, 15 IT are needed"),
        (24, 14, "wallet of buyer has 24 CT, 25 CT are needed"),
    ],
)
def test_submit_without_funds_names_what_is_missing(
    real: Market, ct: int, it: int, message: str
) -> None:
    real.post(price_per_unit=5, fee_pct_ct=25)
    withdraw(real, "buyer", ct=10_000 - ct, it=10_000 - it)
    before = balances(real)
    # 20 cost 5 CT and 15 IT; the bond is 20 CT.
    refused = real.submit(lengths=(1,) * 4, consumer_bond=20)
    assert (refused.reason, refused.message) == ("insufficient_funds", message)
    assert balances(real) == before
    real.deposit("buyer", ct=1, it=1)
    assert real.submit(lengths=(1,) * 4, consumer_bond=20).job.state == "active"


def test_submit_to_a_provider_without_its_bond_is_refused(real: Market) -> None:
    real.post(provider_bond=1_001)
    assert real.submit().reason == "bond_unfunded"
    assert real.counter("scheduler_match_total", "bond_unfunded") == 1
    real.deposit("prov", ct=1)
    assert real.submit().job.state == "active"


def test_submit_passes_by_a_provider_without_its_bond(real: Market) -> None:
    real.post("poor", price_per_unit=1)
    real.post("prov", price_per_unit=2)
    assert real.submit().job.placed.provider == "prov"


# Submit again.


def test_submit_again_returns_the_job_and_changes_nothing(real: Market) -> None:
    real.post()
    request: dict[str, Any] = {"lengths": (1, 2), "priority": "low", "deadline_secs": 500}
    first = real.submit(**request)
    real.advance(10)
    command(real)
    before = contents(real)
    assert real.submit(**request) == Submitted(first.job, False)
    assert contents(real) == before


@pytest.mark.parametrize("end", ["completed", "cancelled", "failed"])
def test_submit_again_returns_a_job_that_ended(market: Market, end: str) -> None:
    market.post(reputation=1)
    request = {"deadline_secs": 70}
    market.submit(**request)
    if end == "completed":
        market.prove()
    elif end == "cancelled":
        market.cancel()
    market.advance(3600)
    again = market.submit(**request)
    job, changed = again.job, again.changed
    assert (job.state, changed) == (end, False)


def test_submit_again_returns_a_pending_job(market: Market) -> None:
    market.submit(wait=True)
    assert market.submit().job.state == "pending"
    assert market.counter("scheduler_match_total", "capability_mismatch") == 1


# Every field of a request but the id: another value, and the field the conflict names.
DIFFERENCES: dict[str, tuple[dict[str, Any], str]] = {
    "buyer": ({"buyer": "other"}, "buyer"),
    "workload": ({"workload": "inference"}, "workload"),
    "slices": ({"inputs": [slice_of(10)]}, "slices"),
    "max_price_per_unit": ({"max_price_per_unit": 99}, "max_price_per_unit"),
    "capability": ({"capability": {"cpu_cores": 1}}, "capability"),
    "consumer_bond": ({"consumer_bond": 2}, "consumer_bond"),
    "deadline": ({"deadline": 1_800_086_400}, "deadline_secs"),
    "deadline_secs": ({"deadline_secs": 86_401}, "deadline_secs"),
    "priority": ({"priority": "high"}, "priority"),
    "lane": ({"lane": "consumer"}, "lane"),
    "provider_bond_min": ({"provider_bond_min": 2}, "provider_bond_min"),
    "path": ({"inputs": [slice_of(10), slice_of(10, "/slices/b")]}, "slices[1].path"),
    "length": ({"inputs": [slice_of(11), slice_of(10)]}, "slices[0].length"),
    "reference": (
        {"inputs": [slice_of(10), slice_of(10, reference=WRONG)]},
        "slices[1].reference",
    ),
}


@pytest.mark.parametrize("changed", DIFFERENCES)
def test_submit_again_with_another_field_conflicts(market: Market, changed: str) -> None:
    market.post()
    same = {"inputs": [slice_of(10), slice_of(10)]}
    market.submit(**same)
    before = contents(market)
    different, named = DIFFERENCES[changed]
    with pytest.raises(ConflictError) as caught:
        market.submit(**(same | different))
    assert caught.value.details == {"field": named}
    assert named in caught.value.message
    assert contents(market) == before


def test_every_field_of_a_request_has_its_difference() -> None:
    asked = {field.name for field in fields(JobRequest)} - {"job_id"}
    stored = {field.name for field in fields(Slice)} - {"proven_ms"}
    assert set(DIFFERENCES) == asked | stored


def test_submit_again_with_another_absolute_deadline_conflicts(market: Market) -> None:
    market.post()
    market.submit(deadline=1_800_086_400)
    with pytest.raises(ConflictError) as caught:
        market.submit(deadline=1_800_086_401)
    assert caught.value.details == {"field": "deadline"}


def test_refusal_says_whether_the_same_may_pass_later(market: Market) -> None:
    market.post(units=3)
    too_many = market.submit(lengths=(1,) * 4)
    unlike = market.submit(capability={"gpu": "A100"})
    assert (too_many.reason, too_many.error().retryable) == ("no_capacity", True)
    assert (unlike.reason, unlike.error().retryable) == ("capability_mismatch", False)
