"""Crossings: what a score or a wallet that changes does to the shelves of offers."""

from typing import Any

import pytest

from compute_market.jobs import drafts
from compute_market.offers import offers, posting, standing
from compute_market.records import Offer
from compute_market.scheduler import matching
from compute_market.scheduler.matching import Match
from compute_market.settlement import ledger
from compute_market.store.schema import BOOK, HEADS, OFFERS, PROVIDER_OFFERS
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support.market import Market, job_request, offer_request, slice_of

INDEX = (OFFERS, BOOK, HEADS, PROVIDER_OFFERS)


def post(txn: Txn, provider: str = "prov", **fields: Any) -> Offer:
    return posting.post(txn, offer_request(provider, **fields))[0]


def index(txn: Txn) -> dict[str, list[tuple[bytes, bytes]]]:
    return {table.name: list(txn.scan(table)) for table in INDEX}


def winner(txn: Txn, *, real: bool, **fields: Any) -> str:
    """The offer a job of one unit goes to, or the name of the failure."""
    job = drafts.sketch(job_request("job", [slice_of(1)], **fields), [slice_of(1)])
    found = matching.match(txn, job, real=real)
    return found.offer.offer_id if isinstance(found, Match) else found.result


def tap(txn: Txn, event: Any, owner: str, ct: int) -> None:
    ledger.tap(txn, event, owner, {"CT": ct, "IT": 0}, None)


def shelves(market: Market) -> dict[str, str | None]:
    return market.view(lambda txn: {o.offer_id: o.shelf for o in offers.listed(txn)})


@pytest.fixture
def rewritten(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Table and key of everything written to the offers and their index."""
    found: list[tuple[str, bytes]] = []

    def note(name: str) -> None:
        real = getattr(Txn, name)

        def noting(self: Txn, table: Table[Any], key: bytes, *rest: Any) -> Any:
            if table in INDEX:
                found.append((table.name, key))
            return real(self, table, key, *rest)

        monkeypatch.setattr(Txn, name, noting)

    for name in ("put", "write", "delete"):
        note(name)
    return found


# Scores.


def test_score_that_crosses_nothing_rewrites_nothing(
    market: Market, rewritten: list[tuple[str, bytes]]
) -> None:
    def action(txn: Txn) -> int:
        for number in range(200):
            post(txn, reputation=1, price_per_unit=1 + number)
        for number in range(200):
            post(txn, "low", reputation=-2, price_per_unit=1 + number)
        rewritten.clear()
        writes = txn.writes
        for provider, delta in [("prov", -1), ("prov", 1), ("low", 1), ("low", -1), ("new", -1)]:
            standing.record_outcome(txn, provider, delta)
        return txn.writes - writes

    assert market.update(action, dry_run=True) <= 5 * 6
    assert rewritten == []


def test_score_that_crosses_zero_takes_every_offer_out_and_brings_it_back(market: Market) -> None:
    def action(txn: Txn) -> list[str]:
        post(txn, price_per_unit=1)
        post(txn, price_per_unit=2, job_id="job")
        post(txn, "rival", price_per_unit=9)
        full = post(txn, price_per_unit=3)
        offers.reserve(txn, full, full.units_left)
        offers.withdraw(txn, post(txn, price_per_unit=4).offer_id)
        before = index(txn)
        found = [winner(txn, real=False)]
        standing.record_outcome(txn, "prov", -1)
        found += [winner(txn, real=False), winner(txn, real=False, max_price_per_unit=8)]
        standing.record_outcome(txn, "prov", +1)
        found.append(winner(txn, real=False))
        assert index(txn) == before
        return found

    found = market.update(action, dry_run=True)
    assert found == ["o-1", "o-3", "price_mismatch", "o-1"]


def test_offer_posted_in_bad_standing_comes_in_when_the_score_recovers(market: Market) -> None:
    market.post("prov", reputation=-1)
    assert market.submit("a").reason == "reputation_failure"
    market.update(lambda txn: standing.record_outcome(txn, "prov", +1))
    assert market.submit("b").job.placed.offer_id == "o-1"


def test_units_that_return_in_bad_standing_are_matched_only_after_it(market: Market) -> None:
    market.post("prov", units=1)
    market.submit("a")
    market.update(lambda txn: standing.record_outcome(txn, "prov", -1))
    market.cancel("a")
    assert market.submit("b").reason == "reputation_failure"
    market.update(lambda txn: standing.record_outcome(txn, "prov", +1))
    assert market.submit("b").job.placed.offer_id == "o-1"


def test_bad_standing_goes_before_funds_and_units(market: Market) -> None:
    market.post("prov", units=1, provider_bond=5)
    assert shelves(market) == {"o-1": "unfunded"}
    market.submit("a")
    assert shelves(market) == {"o-1": "exhausted"}
    market.update(lambda txn: standing.record_outcome(txn, "prov", -1))
    assert shelves(market) == {"o-1": "barred"}
    market.deposit("prov", ct=5)
    assert shelves(market) == {"o-1": "barred"}
    market.update(lambda txn: standing.record_outcome(txn, "prov", +1))
    assert shelves(market) == {"o-1": "exhausted"}
    market.cancel("a")
    assert shelves(market) == {"o-1": "open"}


# Wallets.


@pytest.fixture
def ladder(market: Market) -> Market:
    """A provider with offers of bonds 1, 3, 5, 5 and 9, another of one, and nobody has money."""
    for bond in (1, 3, 5, 5, 9):
        market.post("prov", provider_bond=bond)
    market.post("pro", provider_bond=1)
    market.post("prov2", provider_bond=1)
    return market


def funded(market: Market) -> set[str]:
    return {offer_id for offer_id, shelf in shelves(market).items() if shelf == "open"}


def test_offer_of_a_provider_who_cannot_pay_stands_on_its_own_shelf(ladder: Market) -> None:
    assert set(shelves(ladder).values()) == {"unfunded"}
    assert offers.document(ladder.offer("o-1"))["shelf"] == "unfunded"
    assert ladder.offer("o-1").state == "open"


def test_deposit_and_withdrawal_move_exactly_the_offers_they_cross(
    ladder: Market, rewritten: list[tuple[str, bytes]]
) -> None:
    def moved() -> set[str]:
        return {key.decode() for table, key in rewritten if table == "offers"}

    steps: list[tuple[Any, int, set[str], set[str]]] = [
        ("deposit", 1, {"o-1"}, {"o-1"}),
        ("deposit", 1, set(), {"o-1"}),
        ("deposit", 3, {"o-2", "o-3", "o-4"}, {"o-1", "o-2", "o-3", "o-4"}),
        ("withdraw", 1, {"o-3", "o-4"}, {"o-1", "o-2"}),
        ("withdraw", 1, set(), {"o-1", "o-2"}),
        ("deposit", 100, {"o-3", "o-4", "o-5"}, {"o-1", "o-2", "o-3", "o-4", "o-5"}),
        ("withdraw", 103, {"o-1", "o-2", "o-3", "o-4", "o-5"}, set()),
    ]
    for event, ct, crossed, open_ in steps:
        rewritten.clear()
        ladder.update(lambda txn, event=event, ct=ct: tap(txn, event, "prov", ct))
        assert moved() == crossed, (event, ct)
        assert funded(ladder) == open_


def test_wallet_that_crosses_nothing_rewrites_nothing(
    ladder: Market, rewritten: list[tuple[str, bytes]]
) -> None:
    ladder.deposit("prov", ct=6)
    rewritten.clear()
    ladder.deposit("prov", ct=2)
    ladder.deposit("prov", it=1_000)
    ladder.deposit("nobody", ct=1_000)
    # There and back within one transaction.
    ladder.update(lambda txn: (tap(txn, "withdraw", "prov", 8), tap(txn, "deposit", "prov", 8)))
    assert rewritten == []


def test_bond_that_is_locked_and_released_moves_the_offers_it_crosses(market: Market) -> None:
    market.configure(settle_mode="real")
    market.deposit("buyer", ct=1_000)
    market.deposit("prov", ct=5)
    market.post("prov", provider_bond=3)
    market.post("prov", provider_bond=2, price_per_unit=9)
    assert market.submit("a").job.placed.offer_id == "o-1"
    assert shelves(market) == {"o-1": "unfunded", "o-2": "open"}
    assert market.submit("b").job.placed.offer_id == "o-2"
    assert shelves(market) == {"o-1": "unfunded", "o-2": "unfunded"}
    assert market.submit("c").reason == "bond_unfunded"
    market.cancel("a")
    assert shelves(market) == {"o-1": "open", "o-2": "open"}
    # What it earns counts as well: 9 CT for the unit, and its bond.
    market.prove("b")
    assert market.balance("wallet/prov") == 14
    assert market.submit("c").job.placed.offer_id == "o-1"


def test_bond_that_is_burned_leaves_its_offer_unfunded(market: Market) -> None:
    market.configure(settle_mode="real")
    market.deposit("buyer", ct=1_000)
    market.deposit("prov", ct=3)
    market.post("prov", provider_bond=3, reputation=5)
    market.submit("a", deadline_secs=70)
    market.advance(71)
    market.update(lambda txn: None)
    assert market.job("a").state == "failed"
    assert shelves(market) == {"o-1": "unfunded"}


@pytest.mark.parametrize("mode", ["dry_run", "armed"])
def test_unfunded_offer_is_taken_where_no_money_moves(market: Market, mode: str) -> None:
    if mode == "armed":
        market.opened.arm(1_000)
    market.post("poor", provider_bond=50, price_per_unit=3)
    market.post("rich", provider_bond=50, price_per_unit=4)
    market.deposit("rich", ct=50)
    assert shelves(market) == {"o-1": "unfunded", "o-2": "open"}
    assert market.submit("a").job.placed.offer_id == "o-1"


def test_unfunded_offer_is_passed_over_in_real(real: Market) -> None:
    real.post("poor", provider_bond=50, price_per_unit=3)
    real.post("prov", provider_bond=50, price_per_unit=4)
    assert real.submit("a").job.placed.offer_id == "o-2"
    real.deposit("poor", ct=49)
    assert real.submit("b").job.placed.offer_id == "o-2"
    real.deposit("poor", ct=1)
    assert real.submit("c").job.placed.offer_id == "o-1"


def test_match_sees_a_crossing_of_its_own_transaction(market: Market) -> None:
    def action(txn: Txn) -> list[str]:
        post(txn, "one", provider_bond=5, price_per_unit=1)
        post(txn, "two", provider_bond=1, price_per_unit=2)
        tap(txn, "deposit", "two", 1)
        found = [winner(txn, real=True)]
        tap(txn, "deposit", "one", 5)
        found.append(winner(txn, real=True))
        tap(txn, "withdraw", "one", 1)
        found.append(winner(txn, real=True))
        tap(txn, "withdraw", "two", 1)
        return [*found, winner(txn, real=True)]

    assert market.update(action) == ["o-2", "o-1", "o-2", "bond_unfunded"]
    assert shelves(market) == {"o-1": "unfunded", "o-2": "unfunded"}


def test_offer_posted_after_a_deposit_of_its_own_transaction_is_open(market: Market) -> None:
    def action(txn: Txn) -> str | None:
        tap(txn, "deposit", "prov", 5)
        return post(txn, provider_bond=5).shelf

    assert market.update(action) == "open"
    assert shelves(market) == {"o-1": "open"}


def test_many_deposits_look_at_no_offer_they_do_not_cross(
    market: Market, rewritten: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []
    named = offers.named

    def noting(txn: Txn, offer_id: bytes) -> Offer:
        looked.append(offer_id)
        return named(txn, offer_id)

    market.update(lambda txn: [post(txn, provider_bond=bond) for bond in range(1, 301)])
    monkeypatch.setattr(offers, "named", noting)
    market.deposit("prov", ct=100)
    assert len(looked) == 100
    for _ in range(10):
        market.deposit("prov", ct=1)
    assert len(looked) == 110


def test_wallet_that_crosses_and_crosses_back_leaves_no_offer_behind(market: Market) -> None:
    """An offer that is posted in between stood where the wallet was then."""
    request = offer_request("poor", provider_bond=5)

    def act(txn: Txn) -> None:
        ledger.tap(txn, "deposit", "poor", {"CT": 5, "IT": 0}, None)
        posting.post(txn, request)
        ledger.tap(txn, "withdraw", "poor", {"CT": 5, "IT": 0}, None)

    market.update(act)
    assert market.offer("o-1").shelf == "unfunded"
