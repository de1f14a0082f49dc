"""Who takes how much, and all there is of one party."""

import pytest

from compute_market import parties
from compute_market.admission import capacity
from compute_market.errors import NotFoundError
from compute_market.settlement import ledger
from tests.support.market import Market


def test_largest_are_those_of_the_last_minute_by_what_they_use(market: Market) -> None:
    market.configure(slots=2)
    market.post(units=10_000)
    market.submit("small", buyer="bob", lengths=(1_000_000,))
    market.submit("large", buyer="alice", lengths=(5_000_000,))
    found = market.view(lambda txn: parties.largest(txn, 10))
    assert [(each["identity"], each["role"], each["used"], each["slots"]) for each in found] == [
        *(("prov", "provider", 6, 2), ("alice", "buyer", 5, 1)),
        ("bob", "buyer", 1, 1),
    ]
    estimate = market.view(capacity.estimate)
    assert found[1]["share_ppm"] == 5 * 10**6 // (estimate * 60)
    assert market.view(lambda txn: parties.largest(txn, 1)) == found[:1]
    market.advance(60)
    assert market.view(lambda txn: parties.largest(txn, 10)) == []
    recent = market.view(lambda txn: parties.recent(txn, 2))
    assert {each["used"] for each in recent} == {0}


def test_party_is_shown_with_the_newest_of_each_kind(market: Market) -> None:
    # The postings of an owner stand between those of others.
    for owner in ("prov", "pro", "prov2", "prow"):
        for amount in (1, 2, 3):
            market.deposit(owner, ct=amount)
    market.post(offer_id="one")
    market.post(offer_id="two")
    market.post("prov2", offer_id="three")
    found = market.view(lambda txn: parties.document(txn, "prov", 2))
    assert [each["amount"] for each in found["postings"]] == [3, 2]
    assert [each["offer_id"] for each in found["offers"]] == ["one", "two"]
    assert found["wallet"]["ct"] == 6
    assert found["score"]["score"] == 0
    for owner in ("pro", "prov2", "prow"):
        newest = market.view(lambda txn, owner=owner: ledger.newest(txn, owner, 9))
        assert (
            newest == market.view(lambda txn, owner=owner: ledger.history(txn, owner, 0, 9))[::-1]
        )


def test_party_that_nobody_knows_is_not_found(market: Market) -> None:
    market.post()
    with pytest.raises(NotFoundError, match="party nobody does not exist"):
        market.view(lambda txn: parties.document(txn, "nobody", 2))


def test_party_is_known_by_what_the_log_says_of_it(market: Market) -> None:
    market.submit("refused", buyer="unlucky")
    assert market.view(lambda txn: parties.document(txn, "unlucky", 2))["usage"] == []
