"""Proofs: what is accepted, what a wrong one costs, and until when."""

import pytest

from compute_market.amounts import UNIT_BYTES
from compute_market.errors import (
    AlreadyDoneError,
    ConflictError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from compute_market.jobs.prove import InvalidProof, Proven, prove
from tests.support.market import DIGEST, Market
from tests.support.state import balances, contents, receipt_of

WRONG = bytes(32)


def test_prove_in_any_order_completes_with_the_last(market: Market) -> None:
    market.post()
    market.submit(lengths=(1, UNIT_BYTES + 1, 1))
    for index, units in ((2, 1), (0, 2)):
        (proven,) = market.prove("job", index)
        assert proven.changed
        assert (proven.job.state, proven.job.units_proven) == ("active", units)
    (proven,) = market.prove("job", 1)
    assert (proven.job.state, proven.job.units_proven) == ("completed", 4)
    assert market.job().cause == "all_proven"
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
    assert DIGEST.hex() not in found.message
    assert market.score() == 4
    assert market.counter("reputation_adjust_total", "failure") == 1
    assert market.job().state == "active"
    market.prove("job", 0, 1)
    assert market.job().state == "completed"
    assert market.score() == 5


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
        lambda txn: prove(txn, "job", [(2, DIGEST), (0, WRONG), (0, DIGEST), (1, DIGEST)])
    )
    assert [type(each).__name__ for each in found] == ["Proven", "InvalidProof", "Proven", "Proven"]
    assert [each.slice_index for each in found] == [2, 0, 0, 1]
    assert found[-1].job == market.job()
    assert market.job().state == "completed"
    assert market.score() == 5


def test_prove_with_two_outputs_for_a_slice_conflicts(market: Market) -> None:
    market.post(reputation=5)
    market.submit(lengths=(1, 1))
    before = contents(market)
    with pytest.raises(ConflictError, match="slice 1 of job job is proven with another output"):
        market.update(lambda txn: prove(txn, "job", [(1, DIGEST), (1, WRONG)]))
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
    assert market.score() == 0


@pytest.mark.parametrize("digest", [DIGEST, WRONG], ids=["right", "wrong"])
def test_prove_of_a_cancelled_job_is_too_late(market: Market, digest: bytes) -> None:
    market.post()
    market.submit()
    market.cancel()
    with pytest.raises(AlreadyDoneError, match="job job is cancelled"):
        market.prove(digest=digest)
    assert market.score() == 0


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
    assert balances(real) == {
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
    assert real.score() == 1
    assert real.counter("reputation_adjust_total", "success") == 1


def test_complete_raises_a_score_no_further_than_the_limit(market: Market) -> None:
    market.post(reputation=1000)
    market.submit()
    market.prove()
    assert market.score() == 1000


# Deadlines.


def test_prove_in_the_deadline_second_is_in_time(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=70)
    market.advance(70.999)
    market.prove()
    assert market.job().state == "completed"


def test_prove_one_second_after_the_deadline_is_too_late(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=70)
    market.advance(71)
    with pytest.raises(AlreadyDoneError, match="job job is failed"):
        market.prove()


def test_prove_after_a_deadline_that_was_not_swept_is_refused(market: Market) -> None:
    market.post()
    market.submit(deadline_secs=70)
    market.advance(71)
    with pytest.raises(RefusedError, match="has passed") as caught:
        market.alone(lambda txn: prove(txn, "job", [(0, DIGEST)]))
    assert caught.value.reason == "deadline"
