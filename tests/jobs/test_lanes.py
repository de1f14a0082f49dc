"""How many jobs wait in each lane, and which of them are deferred."""

from compute_market.amounts import UNIT_BYTES
from compute_market.jobs import lanes
from compute_market.records import Lane
from tests.support.market import Market
from tests.support.state import record_capacity


def counts(market: Market, lane: Lane) -> tuple[int, int, int, int]:
    """Queued, pending, deferred, and those that wait without the deferred."""
    asked = (lanes.queued_in, lanes.pending_in, lanes.deferred_in, lanes.waiting_in)
    return market.view(lambda txn: tuple(each(txn, lane) for each in asked))  # type: ignore[return-value]


def test_jobs_that_wait_are_counted_by_lane(market: Market) -> None:
    market.configure(slots=1)
    market.post(offer_id="main")
    market.submit("runs")
    for n, lane in enumerate(("industrial", "consumer", "consumer")):
        market.submit(f"queued-{n}", lane=lane)
        market.submit(f"pending-{n}", lane=lane, wait=True, capability={"gpu": "none has it"})
    assert counts(market, "industrial") == (1, 1, 0, 2)
    assert counts(market, "consumer") == (2, 2, 0, 4)

    market.prove("runs")
    market.cancel("queued-2")
    market.cancel("pending-1")
    assert counts(market, "industrial") == (0, 1, 0, 1)
    assert counts(market, "consumer") == (1, 1, 0, 2)

    market.post(offer_id="gpu", capability={"gpu": "none has it", "gpu_count": 1})
    assert counts(market, "industrial") == (1, 0, 0, 1)
    assert counts(market, "consumer") == (2, 0, 0, 2)


def test_a_job_that_only_the_load_keeps_out_is_deferred(market: Market) -> None:
    market.configure(fair_share_cap_ppm=1_000_000)
    market.submit(lengths=(6001 * UNIT_BYTES,), wait=True)
    assert counts(market, "industrial") == (0, 1, 0, 1)
    market.post("prov", offer_id="big", units=7000)
    assert counts(market, "industrial") == (0, 1, 1, 0)
    record_capacity(market, 1000)
    assert market.job().state == "active"
    assert counts(market, "industrial") == (0, 0, 0, 0)


def test_a_deferred_job_that_ends_or_loses_its_offer_is_deferred_no_more(market: Market) -> None:
    market.configure(fair_share_cap_ppm=1_000_000)
    for job_id in ("one", "two"):
        market.submit(job_id, lengths=(6001 * UNIT_BYTES,), wait=True, lane="consumer")
    market.post("prov", offer_id="big", units=7000)
    assert counts(market, "consumer") == (0, 2, 2, 0)
    market.cancel("one")
    assert counts(market, "consumer") == (0, 1, 1, 0)
    market.submit("small", max_price_per_unit=5, lengths=(1000 * UNIT_BYTES,))
    market.update(lambda txn: setattr(txn, "helped", True))
    market.update(lambda txn: None)
    assert counts(market, "consumer") == (0, 1, 0, 1)
    assert market.violations() == []
