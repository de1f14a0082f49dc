"""Jobs that are handed over from one provider to another, and the units that move with them."""

import pytest

from compute_market import metrics
from compute_market.errors import ConflictError, RefusedError
from compute_market.jobs import handovers, jobs
from compute_market.offers import offers
from compute_market.records import Job, Placement
from compute_market.store.schema import QUARANTINE, RECEIPTS
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.modes import go_real, to_dry_run
from tests.support.state import balances, command, contents, put_payload, receipts_of, withdraw


def hand_over(market: Market, offer_id: str = "two", job_id: str = "job") -> Job:
    return market.update(
        lambda txn: handovers.hand_over(txn, jobs.get(txn, job_id), offers.get(txn, offer_id))
    )


@pytest.fixture
def shared(real: Market) -> Market:
    """A job of four units in real mode: one is proven by `prov`, the rest was handed to `other`."""
    real.deposit("other", ct=100)
    real.post(offer_id="one", price_per_unit=10, fee_pct_ct=50, provider_bond=30)
    real.post("other", offer_id="two", price_per_unit=12, fee_pct_ct=25, provider_bond=40)
    real.submit(lengths=(1, 1, 1, 1), consumer_bond=20)
    real.prove("job", 0)
    hand_over(real)
    return real


def units(market: Market, offer_id: str) -> tuple[int, int, int]:
    offer = market.offer(offer_id)
    return offer.units_left, offer.units_reserved, offer.units_proven


def test_hand_over_moves_escrow_bond_and_units(shared: Market) -> None:
    # 1 unit at 10 (half CT) is owed to the first, 3 at 12 (a quarter CT) are held for the second.
    assert balances(shared) == {
        "supply CT": -11_100,
        "supply IT": -10_000,
        "wallet/buyer CT": 10_000 - 20 - 5 - 9,
        "wallet/buyer IT": 10_000 - 5 - 27,
        "wallet/prov CT": 1_000,
        "wallet/other CT": 60,
        "escrow/job CT": 5 + 9,
        "escrow/job IT": 5 + 27,
        "bond/job/buyer CT": 20,
        "bond/job/provider CT": 40,
    }
    assert units(shared, "one") == (999, 0, 1)
    assert units(shared, "two") == (997, 3, 0)
    job = shared.job()
    assert (job.state, job.placed.provider, job.placements_before) == ("active", "other", 1)
    assert shared.view(lambda txn: jobs.placements(txn, job)) == [
        Placement("one", "prov", 10, 50, 30, funded=True, units_proven=1),
        Placement("two", "other", 12, 25, 40, funded=True),
    ]
    assert shared.counter("scheduler_preempt_total", "success") == 1
    assert shared.violations() == []


def test_complete_after_a_hand_over_pays_each_provider_its_part(shared: Market) -> None:
    shared.prove("job", 1, 2, 3)
    assert balances(shared) == {
        "supply CT": -11_100,
        "supply IT": -10_000,
        "wallet/buyer CT": 10_000 - 5 - 9,
        "wallet/buyer IT": 10_000 - 5 - 27,
        "wallet/prov CT": 1_005,
        "wallet/prov IT": 5,
        "wallet/other CT": 109,
        "wallet/other IT": 27,
    }
    job = shared.job()
    # The second has a lower share of CT: six of those were held for nothing.
    assert (job.paid_ct, job.paid_it, job.refunded_ct, job.refunded_it) == (14, 32, 6, 0)
    assert [(r.provider, r.quote_price, r.units) for r in receipts_of(shared)] == [
        ("prov", 10, 1),
        ("other", 12, 3),
    ]
    assert units(shared, "one") == (999, 0, 1)
    assert units(shared, "two") == (997, 0, 3)
    # The one that completes it has the success.
    assert (shared.score("prov"), shared.score("other")) == (0, 1)


@pytest.mark.parametrize("end", ["cancel", "cancel by the provider", "deadline"])
def test_end_after_a_hand_over_pays_the_first_and_refunds_the_rest(
    shared: Market, end: str
) -> None:
    if end == "deadline":
        shared.advance(86_399)
        command(shared)
        shared.advance(2)
        command(shared)
    else:
        shared.cancel(by="provider" if "provider" in end else "client")
    burned = 40 if end == "deadline" else 0
    subsidy_it = 1 if end == "deadline" else 0  # An epoch has ended meanwhile.
    found = balances(shared)
    assert (found["wallet/prov CT"], found["wallet/prov IT"]) == (1_005, 5 + subsidy_it)
    assert found["wallet/other CT"] == 100 - burned
    assert (found["wallet/buyer CT"], found["wallet/buyer IT"]) == (9_995, 9_995)
    assert found.get("burned CT", 0) == burned
    assert shared.view(lambda txn: txn.size(RECEIPTS)) == 1
    # Only the provider that held it at the end is at fault.
    assert (shared.score("prov"), shared.score("other")) == (0, 0 if end == "cancel" else -1)


def test_hand_over_of_an_unfunded_job_moves_units_and_no_money(market: Market) -> None:
    market.post(offer_id="one")
    market.post("other", offer_id="two", price_per_unit=7)
    market.submit(lengths=(1, 1))
    market.prove("job", 0)
    hand_over(market)
    assert (units(market, "one"), units(market, "two")) == ((999, 0, 1), (999, 1, 0))
    market.prove("job", 1)
    assert balances(market) == {}
    assert [(r.provider, r.dry_run) for r in receipts_of(market)] == [
        ("prov", True),
        ("other", True),
    ]


def test_hand_over_leaves_a_first_provider_without_proofs_unpaid(real: Market) -> None:
    real.deposit("other", ct=100)
    real.post(offer_id="one")
    real.post("other", offer_id="two", price_per_unit=7)
    real.submit(lengths=(1, 1))
    hand_over(real)
    real.prove("job", 0, 1)
    assert [receipt.provider for receipt in receipts_of(real)] == ["other"]
    assert real.balance("wallet/prov") == 1_000
    assert real.balance("wallet/other") == 114


def test_hand_over_in_dry_run_pays_each_provider_when_real_returns(shared: Market) -> None:
    to_dry_run(shared)
    shared.prove("job", 1, 2, 3)
    assert (shared.balance("wallet/prov"), shared.balance("wallet/other")) == (1_000, 100)
    assert (shared.balance("escrow/job"), shared.balance("escrow/job", "IT")) == (14, 32)
    assert shared.violations() == []
    go_real(shared)
    assert (shared.balance("wallet/prov"), shared.balance("wallet/prov", "IT")) == (1_005, 5)
    assert (shared.balance("wallet/other"), shared.balance("wallet/other", "IT")) == (109, 27)
    assert shared.balance("escrow/job") == 0
    assert (shared.job().paid_ct, shared.job().paid_it) == (14, 32)
    paid = [
        (each.event.detail["provider"], each.event.detail["ct"])
        for each in shared.events("job_paid")
    ]
    assert paid == [("prov", 5), ("other", 9)]


@pytest.mark.parametrize("lost", [0, 1])
def test_damage_to_a_receipt_stops_nobodys_money(shared: Market, lost: int) -> None:
    to_dry_run(shared)
    shared.prove("job", 1, 2, 3)
    receipt = receipts_of(shared)[lost]
    shared.alone(lambda txn: put_payload(txn, RECEIPTS, receipt.idempotency_key, b"\xc1"))
    go_real(shared)
    assert (shared.balance("wallet/prov"), shared.balance("wallet/prov", "IT")) == (1_005, 5)
    assert (shared.balance("wallet/other"), shared.balance("wallet/other", "IT")) == (109, 27)
    assert shared.view(lambda txn: [key for key, _ in txn.scan(QUARANTINE)]) == [
        receipt.idempotency_key
    ]
    # The damage is all that is wrong; it is mended, for the check at the end.
    assert [v.detail for v in shared.violations()] == ["in quarantine"]

    def mend(txn: Txn) -> None:
        txn.write(RECEIPTS, receipt.idempotency_key, receipt)
        txn.delete(QUARANTINE, receipt.idempotency_key)
        metrics.count(txn, "receipt_corrupt_total", by=-1)

    shared.alone(mend)


@pytest.mark.parametrize(
    ("wallet", "short", "token"), [("buyer", 1, "IT"), ("buyer", 1, "CT"), ("other", 1, "CT")]
)
def test_hand_over_without_funds_is_refused_and_writes_nothing(
    real: Market, wallet: str, short: int, token: str
) -> None:
    # 4 units: 20 CT and 20 IT are held. Another split needs 40 of one token, or a bond of 40.
    fee = {"IT": 0, "CT": 100}[token]
    needs = 20 if wallet == "buyer" else 40
    real.deposit("other", ct=100)
    real.post(offer_id="one", price_per_unit=10, fee_pct_ct=50)
    real.post("other", offer_id="two", price_per_unit=10, fee_pct_ct=fee, provider_bond=40)
    real.submit(lengths=(1, 1, 1, 1))
    have = real.balance(f"wallet/{wallet}", token)
    amounts = {"ct": 0, "it": 0} | {token.lower(): have - needs + short}
    withdraw(real, wallet, **amounts)
    before = contents(real)
    with pytest.raises(RefusedError, match=f"wallet of {wallet} has {needs - 1} {token}") as caught:
        hand_over(real)
    assert caught.value.reason == "insufficient_funds"
    assert contents(real) == before
    real.deposit(wallet, **{token.lower(): short})
    assert hand_over(real).placed.provider == "other"


def test_hand_over_again_keeps_every_placement(shared: Market) -> None:
    shared.deposit("third", ct=100)
    shared.post("third", offer_id="three", price_per_unit=20, fee_pct_ct=0)
    shared.prove("job", 1)
    hand_over(shared, "three")
    assert shared.violations() == []
    shared.prove("job", 2, 3)
    assert [(r.provider, r.units) for r in receipts_of(shared)] == [
        ("prov", 1),
        ("other", 1),
        ("third", 2),
    ]
    assert shared.balance("wallet/third", "IT") == 40
    assert shared.job().paid_ct + shared.job().paid_it == 10 + 12 + 40


def test_hand_over_back_to_a_provider_at_another_price_pays_it_twice(shared: Market) -> None:
    shared.post(offer_id="three", price_per_unit=11, fee_pct_ct=100)
    shared.prove("job", 1)
    hand_over(shared, "three")
    shared.prove("job", 2, 3)
    assert shared.balance("wallet/prov") == 1_000 + 5 + 22


def test_hand_over_back_to_a_provider_at_the_same_price_is_a_collision(shared: Market) -> None:
    # Both receipts of the provider could have the same key, and one would not be paid.
    shared.prove("job", 1)
    before = contents(shared)
    with pytest.raises(ConflictError, match="provider prov has proven some of job job") as caught:
        hand_over(shared, "one")
    assert caught.value.reason == "key_collision"
    assert contents(shared) == before


def test_hand_over_of_a_job_whose_keys_are_taken_is_refused(market: Market) -> None:
    # `j-` of `1a` with `bc` and `j-1` of `ab` with `c` run together to the same text.
    market.post("c", offer_id="three", price_per_unit=7)
    market.submit("j-1", buyer="ab")
    market.post(offer_id="one")
    market.post("bc", offer_id="two", price_per_unit=7)
    market.submit("j-", buyer="1a")
    before = contents(market)
    with pytest.raises(ConflictError, match="the keys of job j-1") as caught:
        hand_over(market, "two", "j-")
    assert caught.value.reason == "key_collision"
    assert contents(market) == before


def test_hand_over_of_a_job_that_has_ended_since_is_refused(real: Market) -> None:
    real.post("prov", provider_bond=5)
    real.submit("job")
    seen = real.job("job")
    real.cancel("job")
    rival = real.post("rival", price_per_unit=4)
    with pytest.raises(RefusedError) as error:
        real.update(lambda txn: handovers.hand_over(txn, seen, rival))
    assert error.value.reason == "not_active"
    assert real.offer(rival.offer_id).units_left == rival.units
