"""The jobs that live now, as they are listed."""

from compute_market import events
from compute_market.events import Selection
from compute_market.jobs import present
from compute_market.offers import offers
from compute_market.settlement import receipts
from compute_market.subsidy import subsidy
from tests.support.market import Market
from tests.support.state import three_receipts


def test_jobs_are_listed_by_how_they_stand(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    market.submit("runs")
    market.submit("waits-low", priority="low")
    market.advance(3)
    market.submit("waits-high", priority="high")
    market.submit("unplaced", wait=True, capability={"gpu": "none"})
    assert [each["job_id"] for each in market.view(lambda txn: present.running(txn, 9))] == ["runs"]
    queued = market.view(lambda txn: present.queued(txn, 9))
    assert [(each["job_id"], each["place"], each["held_by"]) for each in queued] == [
        *(("waits-high", 1, "slots"), ("waits-low", 2, "slots")),
    ]
    assert [each["waited_ms"] for each in queued] == [0, 3000]
    (unplaced,) = market.view(lambda txn: present.unplaced(txn, 9))
    assert (unplaced["job_id"], unplaced["held_by"]) == ("unplaced", "no offer")
    assert market.view(lambda txn: present.reason(txn, market.job("runs"))) == {}
    market.cancel("waits-low")
    market.prove("runs")
    ended = market.view(lambda txn: present.ended(txn, 9))
    assert [(each["job_id"], each["cause"]) for each in ended] == [
        *(("runs", "all_proven"), ("waits-low", "cancelled_by_client")),
    ]
    assert market.view(lambda txn: present.ended(txn, 1)) == ended[:1]


def test_newest_receipts_are_those_of_the_listing_turned_round(market: Market) -> None:
    three_receipts(market)
    listed = market.view(lambda txn: receipts.page(txn, 0, 9))
    assert market.view(lambda txn: receipts.newest(txn, 9)) == listed[::-1]
    assert market.view(lambda txn: receipts.newest(txn, 1)) == listed[-1:]
    assert market.view(lambda txn: receipts.newest(txn, 9, before=listed[-1][0])) == listed[-2::-1]


def test_recent_events_are_looked_for_no_further_than_asked(market: Market) -> None:
    three_receipts(market)
    selection = Selection(names=("job_completed",))
    found = market.view(lambda txn: events.recent(txn, selection, 2, 1000))
    assert [each.event.job_id for each in found] == ["job-2", "job-1"]
    assert market.view(lambda txn: events.recent(txn, selection, 2, 3)) == found[:1]


def test_history_has_the_last_events_up_to_a_limit(market: Market) -> None:
    three_receipts(market)
    job = market.job("job-1")
    whole = market.view(lambda txn: events.history(txn, job))
    assert market.view(lambda txn: events.history(txn, job, 2)) == whole[-2:]


def test_offers_are_listed_by_shelf_each_once(market: Market) -> None:
    market.post(offer_id="plain")
    market.post(
        "other",
        offer_id="rich",
        capability={"gpu": "A", "accelerator": "B", "accelerator_memory_mb": 1, "gpu_count": 1},
    )
    market.post("poor", offer_id="unpaid", provider_bond=9)
    found = market.view(lambda txn: offers.ids_on_shelf(txn, "unfunded", 9))
    assert sorted(each.decode() for each in found) == ["plain", "rich", "unpaid"]
    assert len(market.view(lambda txn: offers.ids_on_shelf(txn, "unfunded", 2))) == 2
    assert market.view(lambda txn: offers.ids_on_shelf(txn, "barred", 9)) == []


def test_newest_epochs_come_first(market: Market) -> None:
    market.post()
    for number in range(3):
        market.submit(f"job-{number}", lengths=(3_000_000,))
        market.prove(f"job-{number}")
        market.advance(121)
    market.update(lambda txn: None)
    found = market.view(lambda txn: subsidy.newest(txn, 2))
    assert len(found) == 2
    assert found[0]["from_height"] == found[1]["to_height"] + 1
