"""The life of a job: submit, match, prove, cancel, expire; what each costs whom."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from msgspec.structs import fields

from compute_market import metrics
from compute_market.admission import admission
from compute_market.amounts import AMOUNT_MAX, UNIT_BYTES, split
from compute_market.errors import (
    AlreadyDoneError,
    ConflictError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.jobs import lifecycle
from compute_market.jobs.lifecycle import InvalidProof, Proven, Submitted
from compute_market.offers import offers
from compute_market.records import Receipt, Refused, Slice, Usage, replace
from compute_market.reputation import reputation
from compute_market.requests import JobRequest
from compute_market.settlement import ledger, receipts
from compute_market.store.schema import TABLES
from compute_market.store.store import Txn
from tests.support.market import DIGEST, Market, job_request, offer_request, slice_of

WRONG = bytes(32)


def command(market: Market) -> None:
    market.update(lambda txn: None)


def score(market: Market, provider: str = "prov") -> int:
    return market.view(lambda txn: reputation.score(txn, provider))


def holdings(market: Market) -> dict[str, int]:
    """Every account that is not empty: `wallet/prov CT` → balance; supply and burned included."""

    def read(txn: Txn) -> dict[str, int]:
        return {
            f"{account} {token}": amount
            for token in ledger.TOKENS
            for account, amount in ledger.balances(txn, token)
        }

    return market.view(read)


def receipt_of(market: Market, job_id: str = "job") -> Receipt | None:
    return market.view(lambda txn: receipts.of_job(txn, market.job(job_id)))


def contents(market: Market, *left_out: str) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every byte of the store, by table."""
    return market.view(
        lambda txn: {table: list(txn.scan(table)) for table in TABLES if table not in left_out}
    )


def withdraw(market: Market, owner: str, ct: int = 0, it: int = 0) -> None:
    market.update(lambda txn: ledger.tap(txn, "withdraw", owner, {"CT": ct, "IT": it}, None))


def states(market: Market, *job_ids: str) -> list[str]:
    return [market.job(job_id).state for job_id in job_ids]


# Submit: the order of the checks.


class Rung(NamedTuple):
    """One reason to say no, and what takes it away."""

    reason: str
    world: Callable[[Market], None] = lambda market: None
    request: dict[str, Any] | None = None


def record_capacity(market: Market, units: int) -> None:
    for _ in range(admission.CAPACITY_SAMPLES):
        market.update(lambda txn: admission.record_capacity(txn, market.config, units))


def improve_standing(market: Market) -> None:
    market.update(lambda txn: offers.record_outcome(txn, "prov", +1))


def take_the_keys(market: Market) -> None:
    """Let another job hold the receipt keys that `job` of `buyer` would have."""
    market.submit("holder", wait=True, capability={"gpu": "none has it"})
    holder = replace(market.job("holder"), job_id="jo", buyer="bbuyer")
    market.update(lambda txn: receipts.claim(txn, holder, "prov", 5))


def drain_the_bucket(market: Market) -> None:
    usage = Usage(0, 29_000_000, market.now_ms)
    market.update(lambda txn: txn.write("usage", b"buyer\0buyer", usage))


def hopeless(market: Market) -> dict[str, Any]:
    """A market, and a request that is refused there for every reason there is."""
    market.configure(settle_mode="real", initial_capacity=10, fair_share_cap_ppm=10_000)
    market.submit("taken", wait=True, capability={"gpu": "none has it"})
    take_the_keys(market)
    drain_the_bucket(market)
    terms = {"units": 35, "provider_bond": 100, "consumer_bond": 50, "fee_pct_ct": 50}
    market.post(reputation=-1, capability={"cpu_cores": 4}, **terms)
    return {
        "job_id": "taken",
        "lengths": (0,),
        "consumer_bond": 0,
        "deadline": 1,
        "capability": {"cpu_cores": 64},
        "max_price_per_unit": 4,
    }


# Each reason must show as soon as those above it are taken away.
LADDER = (
    Rung("conflict", request={"job_id": "job"}),
    Rung("empty_slice", request={"lengths": (40 * UNIT_BYTES,)}),
    Rung("consumer_bond_too_low", request={"consumer_bond": 50}),
    Rung("deadline", request={"deadline": 1_900_000_000}),
    Rung("capability_mismatch", request={"capability": {"cpu_cores": 4}}),
    Rung("reputation_failure", improve_standing),
    Rung("price_mismatch", request={"max_price_per_unit": 5}),
    Rung("no_capacity", request={"lengths": (35 * UNIT_BYTES,)}),
    Rung("bond_unfunded", lambda market: market.deposit("prov", ct=100)),
    Rung("key_collision", request={"job_id": "another"}),
    Rung("capacity", lambda market: record_capacity(market, 40)),
    Rung("fair_share", request={"lengths": (30 * UNIT_BYTES,)}),
    Rung("burst_exhausted", request={"lengths": (29 * UNIT_BYTES,)}),
    Rung("insufficient_funds", lambda market: market.deposit("buyer", ct=123, it=72)),
    Rung("admitted"),
)
VERDICTS = {*metrics.MATCH_RESULTS[1:], "capacity", "fair_share", "burst_exhausted"} | {
    "insufficient_funds"
}
STEPS = pytest.mark.parametrize("step", range(len(LADDER)), ids=[rung.reason for rung in LADDER])


def climbed(market: Market, step: int) -> dict[str, Any]:
    """The hopeless case without its first reasons; the request that is left."""
    request = hopeless(market)
    for rung in LADDER[:step]:
        rung.world(market)
        request |= rung.request or {}
    return request


def reason_of(market: Market, request: dict[str, Any]) -> str:
    """Why a request is refused, be it by a verdict or by an error, or `admitted`."""
    try:
        found = market.submit(**request)
    except MarketError as error:
        return error.reason or error.token
    return found.reason if isinstance(found, Refused) else "admitted"


@STEPS
def test_submit_names_the_first_reason_in_order(market: Market, step: int) -> None:
    request = climbed(market, step)
    assert reason_of(market, request) == LADDER[step].reason


def test_ladder_has_a_rung_for_every_verdict() -> None:
    reasons = [rung.reason for rung in LADDER]
    assert len(set(reasons)) == len(reasons)
    assert set(reasons) >= VERDICTS
    ((_, rejected),) = metrics.BY_NAME["industrial_rejected_total"].labels
    assert set(reasons) >= {*rejected, *metrics.MATCH_RESULTS} - {"SLA", "success"}


@STEPS
def test_refuse_uses_up_nothing(market: Market, step: int) -> None:
    request = climbed(market, step)
    # What a refusal leaves behind on purpose: its count, its line in the log, its statistics.
    remembered = ("counters", "decisions", "utilization", "effective_prices", "meta")
    before = contents(market, *remembered)
    if reason_of(market, request) != "admitted":
        assert contents(market, *remembered) == before
        assert market.view(lambda txn: txn.number("job_seq")) == 2
        assert market.view(lambda txn: txn.number("queue_seq")) == 0
    else:
        assert contents(market, *remembered) != before


@STEPS
def test_refuse_by_a_verdict_is_logged_and_counted(market: Market, step: int) -> None:
    request = climbed(market, step)
    reason = LADDER[step].reason
    logged = market.view(lambda txn: txn.size("decisions"))
    counted = {
        "match": market.counter("scheduler_match_total", reason)
        if reason in metrics.MATCH_RESULTS
        else market.counter("scheduler_match_total", "success"),
        "rejected": sum(
            market.counter("industrial_rejected_total", each)
            for each in ("capacity", "fair_share", "burst_exhausted")
        ),
    }
    before = contents(market)
    reason_of(market, request)
    if reason not in (*VERDICTS, "admitted"):
        assert contents(market) == before  # An error is not remembered.
        return
    decision = market.view(lambda txn: list(txn.records("decisions"))[-1])
    assert market.view(lambda txn: txn.size("decisions")) == logged + 1
    assert (decision.job_id, decision.buyer) == (request["job_id"], "buyer")
    assert decision.units == request["lengths"][0] // UNIT_BYTES
    assert decision.verdict == ("admitted" if reason == "admitted" else "refused")
    assert (decision.reason, decision.mode) == (reason, "loose")
    result = reason if reason in metrics.MATCH_RESULTS else "success"
    assert market.counter("scheduler_match_total", result) == counted["match"] + 1
    rejected = sum(
        market.counter("industrial_rejected_total", each)
        for each in ("capacity", "fair_share", "burst_exhausted")
    )
    by_admission = reason in ("capacity", "fair_share", "burst_exhausted")
    assert rejected == counted["rejected"] + by_admission


def test_refused_id_can_be_used_for_another_job(market: Market) -> None:
    market.post()
    assert market.submit("job", max_price_per_unit=1).reason == "price_mismatch"
    assert market.submit("job", buyer="somebody else").job.state == "active"


# Submit: what it does.


def test_submit_starts_the_job_on_the_matched_offer(market: Market) -> None:
    market.post(price_per_unit=9)
    market.post("cheap", price_per_unit=4, fee_pct_ct=30, provider_bond=7)
    found = market.submit(lengths=(1, UNIT_BYTES, UNIT_BYTES + 1), deadline_secs=100)
    assert isinstance(found, Submitted)
    assert found.changed
    job = found.job
    assert (job.state, job.provider, job.offer_id) == ("active", "cheap", "o-2")
    assert (job.price_per_unit, job.fee_pct_ct, job.provider_bond) == (4, 30, 7)
    assert (job.units, job.slices, job.slices_proven) == (4, 3, 0)
    assert job.deadline == market.now_ms // 1000 + 100
    assert job == market.job()
    assert (market.offer("o-2").units_left, market.offer("o-2").units_reserved) == (996, 4)


def test_submit_in_real_locks_escrow_and_both_bonds(real: Market) -> None:
    real.post(price_per_unit=5, fee_pct_ct=25, provider_bond=30)
    real.submit(lengths=(1,) * 4, consumer_bond=20)
    assert holdings(real) == {
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
    found = real.update(
        lambda txn: lifecycle.submit(txn, real.config, request, [slice_of(10)]), dry_run=True
    )
    assert found.job.state == "active"
    assert contents(real) == before


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 86_400), ({"deadline_secs": 7}, 7), ({"deadline_secs": 0}, 0)]
)
def test_submit_counts_the_deadline_from_now(
    market: Market, given: dict[str, int], expected: int
) -> None:
    market.post()
    market.advance(0.999)
    assert market.submit(**given).job.deadline == market.now_ms // 1000 + expected


def test_submit_with_a_deadline_in_this_second_is_in_time(market: Market) -> None:
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
    with pytest.raises(RefusedError) as caught:
        market.submit("b", max_price_per_unit=AMOUNT_MAX, lengths=(1, 1))
    assert caught.value.reason == "overflow"
    assert contents(market) == before


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
    assert market.submit(buyer="anna").job.provider == "ben"


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
    before = holdings(real)
    # 20 cost 5 CT and 15 IT; the bond is 20 CT.
    refused = real.submit(lengths=(1,) * 4, consumer_bond=20)
    assert (refused.reason, refused.message) == ("insufficient_funds", message)
    assert holdings(real) == before
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
    assert real.submit().job.provider == "prov"


# Submit again.


def test_submit_again_returns_the_job_and_changes_nothing(real: Market) -> None:
    real.post()
    request: dict[str, Any] = {"lengths": (1, 2), "priority": "low", "deadline_secs": 50}
    first = real.submit(**request)
    real.advance(10)
    command(real)
    before = contents(real)
    assert real.submit(**request) == (first.job, False)
    assert contents(real) == before


@pytest.mark.parametrize("end", ["completed", "cancelled", "failed"])
def test_submit_again_returns_a_job_that_ended(market: Market, end: str) -> None:
    market.post(reputation=1)
    request = {"deadline_secs": 10}
    market.submit(**request)
    if end == "completed":
        market.prove()
    elif end == "cancelled":
        market.cancel()
    market.advance(3600)
    job, changed = market.submit(**request)
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
    assert f"job job exists with {named} " in caught.value.message
    assert contents(market) == before


def test_every_field_of_a_request_has_its_difference() -> None:
    asked = {field.name for field in fields(JobRequest)} - {"job_id"}
    stored = {field.name for field in fields(Slice)} - {"proven_ms"}
    assert set(DIFFERENCES) == asked | stored


def test_submit_again_with_another_absolute_deadline_conflicts(market: Market) -> None:
    market.post()
    market.submit(deadline=1_900_000_000)
    with pytest.raises(ConflictError) as caught:
        market.submit(deadline=1_900_000_001)
    assert caught.value.details == {"field": "deadline"}


# Jobs that wait for a match.


def test_submit_with_wait_keeps_a_job_without_a_match(market: Market) -> None:
    found = market.submit(wait=True)
    assert (found.job.state, found.changed) == ("pending", True)
    decision = market.view(lambda txn: list(txn.records("decisions"))[-1])
    assert (decision.verdict, decision.reason) == ("pending", "capability_mismatch")
    assert market.counter("industrial_admitted_total") == 0


def test_submit_with_wait_does_not_keep_a_job_that_admission_refuses(market: Market) -> None:
    market.post()
    refused = market.submit(lengths=(101 * UNIT_BYTES,), wait=True)
    assert refused.reason == "capacity"
    assert market.view(lambda txn: txn.size("jobs")) == 0


def test_post_matches_a_pending_job(market: Market) -> None:
    market.submit(wait=True)
    posted = market.update(
        lambda txn: lifecycle.post_offer(txn, market.config, offer_request(units=10))
    )
    assert posted.matched == ["job"]
    assert (posted.offer.units_left, posted.offer.units_reserved) == (9, 1)
    assert market.job().state == "active"
    assert market.counter("industrial_admitted_total") == 1


def test_post_leaves_pending_what_it_does_not_fit(market: Market) -> None:
    market.submit("gpu", wait=True, capability={"gpu": "a"})
    market.submit("any", wait=True)
    market.post()
    assert states(market, "gpu", "any") == ["pending", "active"]


def test_post_again_tries_nothing(market: Market) -> None:
    market.post(offer_id="o")
    market.submit("first", wait=True)
    market.update(lambda txn: offers.withdraw(txn, "o"))
    market.submit("second", wait=True)
    posted = market.update(
        lambda txn: lifecycle.post_offer(txn, market.config, offer_request(offer_id="o"))
    )
    assert (posted.changed, posted.matched) == (False, [])
    assert market.job("second").state == "pending"


def test_post_serves_pending_jobs_in_queue_order(market: Market) -> None:
    for job_id, priority in (
        ("low", "low"),
        ("normal-1", "normal"),
        ("normal-2", "normal"),
        ("high", "high"),
    ):
        market.submit(job_id, priority=priority, wait=True)
    posted = market.update(
        lambda txn: lifecycle.post_offer(txn, market.config, offer_request(units=3))
    )
    assert posted.matched == ["high", "normal-1", "normal-2"]
    assert posted.offer.state == "exhausted"
    assert market.job("low").state == "pending"


def test_post_serves_a_smaller_job_behind_one_that_does_not_fit(market: Market) -> None:
    market.submit("large", lengths=(1,) * 5, wait=True)
    market.submit("small", wait=True)
    market.post(units=4)
    assert states(market, "large", "small") == ["pending", "active"]


def test_match_tries_every_pending_job_again(market: Market) -> None:
    market.post(reputation=-1)
    market.submit("b", wait=True)
    market.submit("a", wait=True)
    improve_standing(market)
    assert states(market, "a", "b") == ["pending", "pending"]
    matched = market.update(lambda txn: lifecycle.match_pending(txn, market.config))
    assert matched == ["b", "a"]
    assert states(market, "a", "b") == ["active", "active"]
    assert market.update(lambda txn: lifecycle.match_pending(txn, market.config)) == []


def test_match_leaves_pending_what_admission_refuses(market: Market) -> None:
    market.submit("large", lengths=(101 * UNIT_BYTES,), wait=True)
    market.post()
    assert market.job("large").state == "pending"
    record_capacity(market, 101)
    assert market.update(lambda txn: lifecycle.match_pending(txn, market.config)) == ["large"]


def test_match_in_real_leaves_pending_what_nobody_can_pay(real: Market) -> None:
    real.submit(buyer="poor", wait=True)
    real.post(price_per_unit=5)
    assert real.job().state == "pending"
    real.deposit("poor", ct=6)
    assert real.update(lambda txn: lifecycle.match_pending(txn, real.config)) == ["job"]
    assert real.balance("escrow/job") == 5


def test_match_takes_a_directed_offer_for_its_job_only(market: Market) -> None:
    market.submit("other", wait=True)
    market.submit("mine", wait=True)
    market.post(job_id="mine")
    assert states(market, "other", "mine") == ["pending", "active"]


# Proofs.


def test_prove_in_any_order_completes_with_the_last(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, UNIT_BYTES + 1, 1))
    for index, units in ((2, 1), (0, 2)):
        (proven,) = market.prove("job", index)
        assert proven.changed
        assert (proven.job.state, proven.job.units_proven) == ("active", units)
    (proven,) = market.prove("job", 1)
    assert (proven.job.state, proven.job.units_proven) == ("completed", 4)
    assert market.job().cause == "all slices proven"
    assert market.counter("industrial_units_total") == 4


def test_prove_again_changes_nothing(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, 1))
    market.prove("job", 0)
    before = contents(market)
    assert market.prove("job", 0) == [Proven(market.job(), 0, False)]
    assert contents(market) == before


def test_prove_again_after_the_end_changes_nothing(market: Market) -> None:
    market.post()
    market.submit()
    market.prove()
    before = contents(market)
    assert market.prove() == [Proven(market.job(), 0, False)]
    assert contents(market) == before


def test_prove_of_one_slice_twice_in_a_call_counts_once(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, 1))
    found = market.prove("job", 0, 0)
    assert [each.changed for each in found] == [True, False]
    assert market.job().units_proven == 1


def test_prove_with_a_wrong_output_costs_a_point_and_leaves_the_slice_open(market: Market) -> None:
    market.post(reputation=5)
    market.submit(lengths=(1, 1))
    (found,) = market.prove("job", 1, digest=WRONG)
    assert isinstance(found, InvalidProof)
    assert (found.slice_index, found.job.slices_proven) == (1, 0)
    assert WRONG.hex() in found.message
    assert DIGEST.hex() in found.message
    assert score(market) == 4
    assert market.counter("reputation_adjust_total", "failure") == 1
    assert market.job().state == "active"
    market.prove("job", 0, 1)
    assert market.job().state == "completed"
    assert score(market) == 5


def test_prove_with_a_wrong_output_below_zero_hides_the_offers(market: Market) -> None:
    market.post(reputation=0)
    market.submit(lengths=(1, 1))
    market.prove("job", 0, digest=WRONG)
    assert market.submit("other").reason == "reputation_failure"
    market.prove("job", 0, 1)
    assert market.submit("other").job.state == "active"


def test_prove_of_several_slices_gives_each_its_verdict(market: Market) -> None:
    market.post(reputation=5)
    market.submit(lengths=(1, 1, 1))
    found = market.update(
        lambda txn: lifecycle.prove(
            txn, market.config, "job", [(2, DIGEST), (0, WRONG), (0, DIGEST), (1, DIGEST)]
        )
    )
    assert [type(each).__name__ for each in found] == ["Proven", "InvalidProof", "Proven", "Proven"]
    assert [each.slice_index for each in found] == [2, 0, 0, 1]
    assert found[-1].job == market.job()
    assert market.job().state == "completed"
    assert score(market) == 5


def test_prove_with_two_outputs_for_a_slice_conflicts(market: Market) -> None:
    market.post(reputation=5)
    market.submit(lengths=(1, 1))
    before = contents(market)
    with pytest.raises(ConflictError, match="slice 1 of job job is proven with another output"):
        market.update(
            lambda txn: lifecycle.prove(txn, market.config, "job", [(1, DIGEST), (1, WRONG)])
        )
    assert contents(market) == before


@pytest.mark.parametrize("index", [-1, 2, 2**40])
def test_prove_of_an_index_the_job_does_not_have_is_refused(market: Market, index: int) -> None:
    market.post()
    market.submit(lengths=(1, 1))
    before = contents(market)
    with pytest.raises(UsageError, match=f"job job has no slice {index}") as caught:
        market.prove("job", 0, index)
    assert "0…1" in (caught.value.hint or "")
    assert contents(market) == before


def test_prove_of_a_proven_slice_with_another_output_conflicts(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, 1))
    market.prove("job", 0)
    before = contents(market)
    with pytest.raises(ConflictError, match="slice 0 of job job is proven with another output"):
        market.prove("job", 0, digest=WRONG)
    assert contents(market) == before


def test_prove_of_an_unknown_job_is_refused(market: Market) -> None:
    with pytest.raises(NotFoundError, match="job nobody does not exist"):
        market.prove("nobody")


@pytest.mark.parametrize("state", ["pending", "queued"])
def test_prove_of_a_job_that_does_not_run_is_refused(market: Market, state: str) -> None:
    market.configure(slots=1)
    market.post(units=1 if state == "pending" else 2)
    market.submit("first")
    market.submit(wait=True)
    with pytest.raises(RefusedError, match=f"job job is {state}") as caught:
        market.prove()
    assert caught.value.reason == "not_active"
    assert score(market) == 0


@pytest.mark.parametrize("digest", [DIGEST, WRONG], ids=["right", "wrong"])
def test_prove_of_a_cancelled_job_is_too_late(market: Market, digest: bytes) -> None:
    market.post()
    market.submit()
    market.cancel()
    with pytest.raises(AlreadyDoneError, match="job job is cancelled"):
        market.prove(digest=digest)
    assert score(market) == 0


def test_prove_of_the_last_slice_settles_everything_at_once(real: Market) -> None:
    real.configure(slots=1)
    real.post(price_per_unit=5, fee_pct_ct=25, provider_bond=30)
    real.submit(lengths=(1, 1, 1, 1), consumer_bond=20)
    real.submit("next")
    real.prove("job", 0, 1, 2)
    assert real.job("next").state == "queued"
    real.prove("job", 3)
    assert real.job().state == "completed"
    assert real.job("next").state == "active"
    real.cancel("next")
    assert holdings(real) == {
        "supply CT": -11_000,
        "supply IT": -10_000,
        "wallet/buyer CT": 9_995,
        "wallet/buyer IT": 9_985,
        "wallet/prov CT": 1_005,
        "wallet/prov IT": 15,
    }
    receipt = receipt_of(real)
    assert receipt is not None
    assert (receipt.units, receipt.quote_price, receipt.dry_run) == (4, 5, False)
    assert score(real) == 1
    assert real.counter("reputation_adjust_total", "success") == 1


def test_complete_raises_a_score_no_further_than_the_limit(market: Market) -> None:
    market.post(reputation=1000)
    market.submit()
    market.prove()
    assert score(market) == 1000


# Deadlines.


def test_prove_in_the_deadline_second_is_in_time(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=10)
    market.advance(10.999)
    market.prove()
    assert market.job().state == "completed"


def test_prove_one_second_after_the_deadline_is_too_late(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=10)
    market.advance(11)
    with pytest.raises(AlreadyDoneError, match="job job is failed"):
        market.prove()


def test_prove_after_a_deadline_that_was_not_swept_is_refused(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=10)
    market.advance(11)
    with pytest.raises(RefusedError, match="has passed") as caught:
        market.store.update(
            lambda txn: lifecycle.prove(txn, market.config, "job", [(0, DIGEST)]),
            now_ms=market.now_ms,
        )
    assert caught.value.reason == "deadline"


def test_miss_of_an_active_job_costs_the_provider_its_bond_and_a_point(real: Market) -> None:
    real.post(price_per_unit=5, fee_pct_ct=25, provider_bond=30, reputation=3)
    real.submit(lengths=(1, 1, 1, 1), consumer_bond=20, deadline_secs=10)
    real.prove("job", 2)
    real.advance(11)
    command(real)
    job = real.job()
    assert (job.state, job.ended_by, job.cause) == ("failed", "deadline", "deadline missed")
    assert job.ended_at == real.now_ms // 1000
    # 5 of 20 are paid as (2, 3); the rest of (5, 15) and the buyer's bond go back.
    assert holdings(real) == {
        "supply CT": -11_000,
        "supply IT": -10_000,
        "wallet/buyer CT": 9_998,
        "wallet/buyer IT": 9_997,
        "wallet/prov CT": 972,
        "wallet/prov IT": 3,
        "burned CT": 30,
    }
    assert score(real) == 2
    assert real.counter("industrial_rejected_total", "SLA") == 1
    assert real.counter("slashing_burn_ct_total") == 30
    assert (real.offer("o-1").units_left, real.offer("o-1").units_proven) == (999, 1)
    receipt = receipt_of(real)
    assert receipt is not None
    assert receipt.units == 1


@pytest.mark.parametrize("state", ["queued", "pending"])
def test_miss_of_a_job_that_never_ran_costs_nobody_anything(real: Market, state: str) -> None:
    real.configure(slots=1)
    real.post(units=1 if state == "pending" else 2, provider_bond=30)
    real.submit("first")
    before = holdings(real)
    real.submit(deadline_secs=10, wait=True)
    assert real.job().state == state
    real.advance(11)
    command(real)
    job = real.job()
    assert (job.state, job.ended_by) == ("failed", "deadline")
    assert job.cause == "deadline passed before a start"
    assert holdings(real) == before
    assert score(real) == 0
    assert real.counter("industrial_rejected_total", "SLA") == 0
    assert receipt_of(real) is None


def test_miss_in_dry_run_costs_a_point_and_no_money(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=10)
    market.advance(11)
    command(market)
    assert score(market) == -1
    assert holdings(market) == {}
    assert market.counter("industrial_rejected_total", "SLA") == 1


def test_expire_names_the_oldest_deadlines_up_to_a_limit(market: Market) -> None:
    market.post()
    for job_id, secs in (("c", 9), ("a", 8), ("b", 7), ("d", 100)):
        market.submit(job_id, deadline_secs=secs)
    market.advance(50)

    def expire(limit: int) -> list[str]:
        return market.store.update(
            lambda txn: lifecycle.expire(txn, market.config, limit), now_ms=market.now_ms
        )

    assert expire(2) == ["b", "a"]
    assert expire(2) == ["c"]
    assert expire(2) == []


def submit_many(market: Market, jobs: int, **fields: Any) -> None:
    """Jobs that all have the same deadline, more than one command sweeps."""
    market.configure(burst_quota_micro=10**12)
    inputs = [slice_of(1)]

    def action(txn: Txn) -> None:
        for n in range(jobs):
            request = job_request(f"job-{n:03}", inputs, deadline_secs=10, **fields)
            lifecycle.submit(txn, market.config, request, inputs, wait=True)

    market.update(action)


def live_jobs(market: Market) -> int:
    return market.view(lambda txn: txn.size("deadlines"))


@pytest.mark.parametrize("slots", [1000, 1], ids=["active", "queued"])
def test_sweep_fails_at_most_256_jobs_a_command(market: Market, slots: int) -> None:
    market.configure(slots=slots)
    market.post(reputation=1000)
    submit_many(market, 600)
    market.advance(11)
    for left in (600 - 256, 600 - 512, 0, 0):
        command(market)
        assert live_jobs(market) == left
    assert market.counter("industrial_rejected_total", "SLA") == min(slots, 600)


def test_sweep_does_not_start_a_job_whose_deadline_has_passed(market: Market) -> None:
    # One job runs, 299 wait. Only the one that ran is its provider's fault, however many
    # commands it takes to sweep the others.
    market.configure(slots=1)
    market.post(reputation=1000)
    submit_many(market, 300)
    market.advance(11)
    for _ in range(50):
        command(market)
    assert live_jobs(market) == 0
    assert market.counter("industrial_rejected_total", "SLA") == 1
    assert score(market) == 999


def test_post_does_not_match_a_job_whose_deadline_has_passed(market: Market) -> None:
    submit_many(market, 300)
    market.advance(11)
    posted = market.update(
        lambda txn: lifecycle.post_offer(txn, market.config, offer_request(reputation=1000))
    )
    assert posted.matched == []


def test_is_due_once_a_deadline_has_passed(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=10)

    def due() -> bool:
        return market.view(lambda txn: lifecycle.is_due(txn, market.config))

    market.advance(10.999)
    assert not due()
    market.advance(0.001)
    assert due()
    command(market)
    assert not due()


# Cancel.


@pytest.mark.parametrize("state", ["pending", "queued", "active"])
def test_cancel_by_the_client_refunds_everything(real: Market, state: str) -> None:
    real.configure(slots=1)
    real.post(units=1 if state == "pending" else 2, provider_bond=30, fee_pct_ct=50)
    if state != "active":
        real.submit("first")
    before, offer = holdings(real), real.offer("o-1")
    real.submit(consumer_bond=20, wait=True)
    assert real.job().state == state
    real.advance(1)
    found = real.cancel()
    assert (found.outcome, found.text) == ("cancelled", "cancelled job job")
    job = real.job()
    assert (job.state, job.ended_by, job.cause) == (
        "cancelled",
        "client",
        "cancelled by the client",
    )
    assert job.ended_at == real.now_ms // 1000
    assert holdings(real) == before
    assert real.offer("o-1") == offer
    assert score(real) == 0
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
    before = holdings(real)
    real.submit()
    real.cancel(by="provider")
    assert (real.job().ended_by, real.job().cause) == ("provider", "cancelled by the provider")
    assert score(real) == 2
    assert holdings(real) == before
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
    for n, (by, provider) in enumerate(
        [("client", "prov"), ("provider", "prov"), ("client", "prov"), ("provider", "prov")]
    ):
        real.submit(f"job-{n}")
        real.cancel(f"job-{n}", by=by)
        assert provider == real.job(f"job-{n}").provider
    real.post("other", price_per_unit=1, reputation=10, provider_bond=10)
    real.submit("job-of-other")
    assert real.cancel("job-of-other", by="provider").job.provider == "other"
    assert real.balance("burned") == 0


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
    assert holdings(market) == {}


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
    real.submit(deadline_secs=10)
    if end == "completed":
        real.prove()
    real.advance(11)
    command(real)
    before = contents(real)
    found = real.cancel(by=by)
    assert (found.outcome, found.text) == ("already_done", f"job already {end}")
    assert contents(real) == before


def test_cancel_of_an_unknown_job_is_refused(market: Market) -> None:
    with pytest.raises(NotFoundError, match="job nobody does not exist"):
        market.cancel("nobody")


# Offers that are withdrawn while a job holds them.


def withdraw_offer(market: Market, offer_id: str = "o-1") -> None:
    market.update(lambda txn: offers.withdraw(txn, offer_id))


def test_withdrawn_offer_takes_no_job(market: Market) -> None:
    market.post()
    withdraw_offer(market)
    assert market.submit().reason == "capability_mismatch"


def test_withdrawn_offer_lets_its_jobs_finish(real: Market) -> None:
    real.configure(slots=1)
    real.post()
    real.submit("a")
    real.submit("b")
    withdraw_offer(real)
    real.prove("a")
    real.prove("b")
    assert states(real, "a", "b") == ["completed", "completed"]
    assert real.balance("wallet/prov") == 1_010


def test_withdrawn_offer_does_not_sell_returned_units(market: Market) -> None:
    market.post(units=2)
    market.submit(lengths=(1, 1))
    withdraw_offer(market)
    market.cancel()
    assert market.offer("o-1").state == "withdrawn"
    assert market.submit("other").reason == "capability_mismatch"


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_returned_units_are_sold_again(market: Market, end: str) -> None:
    market.post(units=3, reputation=10)
    market.submit(lengths=(1, 1, 1), deadline_secs=10)
    market.prove("job", 0)
    assert market.submit("other", lengths=(1, 1)).reason == "no_capacity"
    if end == "cancel":
        market.cancel()
    else:
        market.advance(11)
    assert market.submit("other", lengths=(1, 1)).job.state == "active"
    offer = market.offer("o-1")
    assert (offer.units_left, offer.units_reserved, offer.units_proven) == (0, 2, 1)


# What the market did in the last minute.


def test_demand_shows_backlog_and_the_last_minutes_work(market: Market) -> None:
    market.configure(slots=1, initial_capacity=10)
    market.post(price_per_unit=3)
    market.submit("a", lengths=(1,) * 6)
    market.submit("b", lengths=(1,) * 3)
    market.submit("c", lengths=(1,), capability={"cpu_cores": 9}, wait=True)
    market.prove("a", 0)
    market.advance(1)
    market.prove("a", 1, 2)

    def demand() -> dict[str, Any]:
        return market.view(lambda txn: lifecycle.demand(txn, market.config))

    assert demand() == {
        "industrial_backlog": 6,
        "industrial_utilization": 0.01,  # 3 of 600, half up
        "industrial_units_total": 3,
        "industrial_price_per_unit": 3,
    }
    market.advance(58.999)
    assert demand()["industrial_utilization"] == 0.01
    market.advance(0.001)  # The first unit is a minute old: 2 of 600.
    assert demand()["industrial_utilization"] == 0.0


def test_demand_of_an_empty_market_is_zero(market: Market) -> None:
    assert market.view(lambda txn: lifecycle.demand(txn, market.config)) == {
        "industrial_backlog": 0,
        "industrial_utilization": 0.0,
        "industrial_units_total": 0,
        "industrial_price_per_unit": 0,
    }
