"""Bundles that other markets bring: taken once, refused for good reasons, never counted twice."""

from typing import Any

import pytest

from compute_market.courier import deliveries
from compute_market.courier.deliveries import Brought
from compute_market.courier.envelope import Taken
from compute_market.errors import RefusedError
from tests.support.deliveries import bring, entry, envelope_of, handoff
from tests.support.importing import OTHERS, THEIRS, trust
from tests.support.market import Market
from tests.support.receipt_file import KEY, OTHER_KEY


@pytest.fixture(autouse=True)
def believes(market: Market) -> None:
    trust(market, KEY)


def count(market: Market) -> int:
    return len(market.view(lambda txn: list(deliveries.deliveries(txn))))


def test_bundle_is_taken_and_remembered(market: Market) -> None:
    sent = entry(7)
    (brought,) = bring(market, sent)
    assert brought == Brought(Taken(7, sent.bundle_hash, "taken"), is_new=True)
    delivery = market.view(lambda txn: deliveries.find(txn, THEIRS, 7))
    assert delivery is not None
    assert (delivery.sender, delivery.size, delivery.key_id) == ("alice", sent.size, KEY.key_id)
    assert delivery.received_ms == market.now_ms
    (logged,) = market.events("bundle_received")
    assert logged.event.detail == {"bundle": "0000000000000007", "market": THEIRS.hex()}


def test_bundle_that_was_seen_is_acknowledged_again(market: Market) -> None:
    bring(market, entry())
    market.advance(60)
    (again,) = bring(market, entry())
    assert (again.taken.outcome, again.is_new) == ("taken", False)
    assert (count(market), len(market.events("bundle_received"))) == (1, 1)


def test_same_id_of_another_market_is_another_bundle(market: Market) -> None:
    bring(market, entry())
    (other,) = bring(market, entry(content=b"other"), market_id=OTHERS)
    assert other.is_new
    assert count(market) == 2


@pytest.mark.parametrize("fields", [{"content": b"other"}, {"sender": "bob"}, {"size": 9}], ids=str)
def test_same_id_with_other_content_is_refused(market: Market, fields: dict[str, Any]) -> None:
    bring(market, entry())
    (other,) = bring(market, entry(**fields))
    assert (other.taken.outcome, other.is_new) == ("refused", False)
    assert "exists with" in (other.taken.error or "")
    assert count(market) == 1


def test_bundle_sent_on_by_another_way_is_the_same(market: Market) -> None:
    bring(market, entry())
    (again,) = bring(market, entry(dest="http://host/", sent_ms=5))
    assert (again.taken.outcome, again.is_new) == ("taken", False)


def test_bundle_of_a_key_that_is_not_trusted_is_refused(market: Market) -> None:
    with pytest.raises(RefusedError, match="not trusted"):
        bring(market, entry(), key=OTHER_KEY)
    assert count(market) == 0


def test_handoff_of_an_unknown_or_live_job_is_taken(market: Market) -> None:
    market.post()
    market.submit("live")
    one, two = bring(market, handoff(1, "unknown"), handoff(2, "live"))
    assert one.is_new
    assert two.is_new


def test_handoff_of_an_ended_job_is_refused_however_often(market: Market) -> None:
    market.post()
    for job_id in ("gone", "done"):
        market.submit(job_id)
        market.prove(job_id) if job_id == "done" else market.cancel(job_id)
    for _ in range(2):
        for number, (job_id, state) in enumerate((("gone", "cancelled"), ("done", "completed"))):
            (brought,) = bring(market, handoff(number, job_id))
            assert (brought.taken.outcome, brought.is_new) == ("refused", False)
            assert brought.taken.error == (
                f"job {job_id} is {state}: nothing of it is left to hand over"
            )
        market.reopen()
        market.advance(10**6)
    assert count(market) == 0


def test_handoff_that_was_taken_is_acknowledged_after_its_job_has_ended(market: Market) -> None:
    market.post()
    market.submit("job")
    bring(market, handoff(1, "job"))
    market.cancel("job")
    (again,) = bring(market, handoff(1, "job"))
    assert (again.taken.outcome, again.is_new) == ("taken", False)


def test_what_is_answered_at_once_needs_not_be_read(market: Market) -> None:
    bring(market, entry(1))
    found = envelope_of(entry(1), entry(2))
    seen, new = (
        market.view(lambda txn: deliveries.wanted(txn, found, each))  # noqa: B023 - at once
        for each in found.entries
    )
    assert seen is not None
    assert seen.taken.outcome == "taken"
    assert new is None
