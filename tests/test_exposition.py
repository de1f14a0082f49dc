"""The exposition: every gauge has its function, and a scrape walks no table."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from compute_market import chain, exposition
from compute_market.errors import InternalError
from compute_market.exposition import FILE_GAUGES, GAUGES, Files, check_gauges, render
from compute_market.jobs import jobs
from compute_market.jobs.submit import post_offer, submit
from compute_market.metrics import METRICS
from compute_market.settlement import modes
from compute_market.store.schema import BUNDLE_RECEIPTS, RECEIPTS, UNSETTLED, pack_u64
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from tests.support.bundles import send
from tests.support.governance import approve
from tests.support.market import Market, job_request, offer_request, slice_of


def samples(market: Market) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric → values of its labels by name → value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(market.view(render)):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_every_metric_of_the_table_is_exposed(market: Market) -> None:
    families = {f.name: f for f in text_string_to_metric_families(market.view(render))}
    assert families.keys() == {metric.name.removesuffix("_total") for metric in METRICS}


@pytest.mark.parametrize("name", [*GAUGES, *FILE_GAUGES])
def test_gauge_without_a_function_is_an_error_at_import(name: str) -> None:
    with pytest.raises(InternalError, match=rf"differ in {name}$"):
        check_gauges({*GAUGES, *FILE_GAUGES} - {name})


def test_function_without_a_gauge_is_an_error_at_import() -> None:
    with pytest.raises(InternalError, match=r"differ in unheard_of$"):
        check_gauges({*GAUGES, *FILE_GAUGES, "unheard_of"})


def test_gauges_tell_the_state(real: Market) -> None:
    real.configure(slots=2, initial_capacity=10)
    real.opened.prices.load()
    real.post(units=5, price_per_unit=4, reputation=3)
    real.post("other", units=9, price_per_unit=50)
    real.post("bad", reputation=-1)
    for n in range(3):
        real.submit(f"job-{n}", lengths=(1,))
    real.submit("pends", wait=True, capability={"gpu": "none"})
    real.prove("job-0")
    send(real)
    approve(real, "min_capacity", "5")
    real.update(lambda txn: chain.advance(txn, 120))
    approve(real, "fair_share_cap", "0.1")
    real.send(fee=2_000)
    real.send(fee=3_000)
    found = samples(real)
    expected: dict[str, dict[tuple[str, ...], float]] = {
        "industrial_backlog": {(): 2},
        "industrial_utilization": {(): 0.0},
        "industrial_price_per_unit": {(): 4},
        "industrial_multiplier": {(): 132},  # two epochs, 15 % up each
        "capacity_units_per_second": {(): 10},
        "capacity_headroom_units": {(): 597},
        "scheduler_effective_price": {("prov",): 4},
        "scheduler_active_jobs": {(): 2},
        "scheduler_slots": {("used",): 2, ("free",): 0},
        "scheduler_queue_depth": {("high",): 0, ("normal",): 0, ("low",): 0},
        "scheduler_oldest_wait_seconds": {("high",): 0, ("normal",): 0, ("low",): 0},
        "scheduler_pending_jobs": {("load",): 0, ("offer",): 1},
        "scheduler_oldest_pending_seconds": {("high",): 0, ("normal",): 0, ("low",): 0},
        "settlement_mode": {("dry_run",): 0, ("armed",): 0, ("real",): 1},
        "offers": {("open",): 3, ("exhausted",): 0, ("withdrawn",): 0},
        "offers_barred": {(): 1},
        "settle_pending_receipts": {(): 0},
        "settle_oldest_pending_seconds": {(): 0},
        "courier_oldest_pending_seconds": {(): 0},
        "tokens_in_circulation": {("ct",): 11_000, ("it",): 10_001},
        "provider_reputation_score": {("prov",): 4, ("other",): 0, ("bad",): -1},
        "active_burst_quota": {("buyer", "buyer"): 30, ("prov", "provider"): 30},
        "tb_last_run_timestamp_seconds": {(): real.now_ms / 1000},
        "clock_held": {(): 0},
        "store_oldest_job_timestamp_seconds": {(): real.now_ms // 1000},
        "courier_pending": {(): 1},
        "param_change_pending": {
            ("min_capacity",): 0,
            ("fair_share_cap",): 1,
            ("burst_refill_rate",): 0,
            ("comfort_threshold_p90",): 0,
        },
        "param_change_active": {
            ("min_capacity",): 5,
            ("fair_share_cap",): 0.25,
            ("burst_refill_rate",): 0.5,
            ("comfort_threshold_p90",): 2500,
        },
        "admission_mode": {("loose",): 0, ("tight",): 1},
        "mempool_size": {("consumer",): 2, ("industrial",): 0},
        "consumer_fee_p50": {(): 3_000},
        "consumer_fee_p90": {(): 3_000},
        "price_band_p25": {("industrial",): 4},
        "price_band_median": {("industrial",): 4},
        "price_band_p75": {("industrial",): 4},
    }
    assert {name: found[name] for name in expected} == expected
    assert expected.keys() | {"tb_build_info"} == GAUGES.keys()


def test_gauges_of_the_files_tell_what_is_given(market: Market) -> None:
    given = Files(bytes=8192, map_used=0.25, backup_ms=1_500)
    lines = market.view(lambda txn: render(txn, given)).splitlines()
    assert {
        f"{name} {number}" for name, number in zip(FILE_GAUGES, (8192.0, 0.25, 1.5), strict=True)
    } <= {*lines}
    assert not FILE_GAUGES.keys() & samples(market).keys()


def test_oldest_wait_is_that_of_the_first_in_the_queue(market: Market) -> None:
    market.configure(slots=1)
    market.post()
    market.submit("active")
    market.advance(1)
    market.submit("first", priority="low")
    market.advance(30)
    market.submit("second", priority="low")
    waits = {("high",): 0.0, ("normal",): 0.0, ("low",): 30.0}
    assert samples(market)["scheduler_oldest_wait_seconds"] == waits


def test_oldest_waits_are_of_what_waits(market: Market) -> None:
    market.post(units=100)
    for name in ("first", "second"):
        market.submit(name, wait=True, capability={"gpu": "none"})
        send(market, name)
        market.advance(10)
    found = samples(market)
    assert found["scheduler_oldest_pending_seconds"]["normal",] == 20
    assert found["courier_oldest_pending_seconds"] == {(): 20}
    market.cancel("first")
    assert samples(market)["scheduler_oldest_pending_seconds"]["normal",] == 10


def test_damaged_bundle_takes_no_other_metric_away(market: Market) -> None:
    sent = send(market)
    market.alone(lambda txn: txn.put(BUNDLE_RECEIPTS, pack_u64(sent.seq), b"garbage"))
    found = samples(market)
    assert "courier_oldest_pending_seconds" not in found
    assert found["courier_pending"] == {(): 1}
    market.alone(lambda txn: txn.write(BUNDLE_RECEIPTS, pack_u64(sent.seq), sent))


def test_waiting_jobs_are_told_by_what_kept_them_out(market: Market) -> None:
    market.submit("unfit", wait=True, capability={"gpu": "none"})
    market.submit("deferred", wait=True)
    reasons = samples(market)["scheduler_pending_jobs"]
    assert reasons == {("load",): 0, ("offer",): 2}
    market.send(fee=3_000)  # The comfort guard is tight from now on.
    market.post()
    market.update(lambda txn: None)
    assert samples(market)["scheduler_pending_jobs"] == {("load",): 1, ("offer",): 1}


def test_oldest_unpaid_receipt_is_told_unless_it_is_damaged(real: Market) -> None:
    real.post(units=100)
    real.submit("job-1")
    real.update(lambda txn: modes.to_dry_run(txn, "stopped"))
    real.prove("job-1")
    real.advance(30)
    assert samples(real)["settle_oldest_pending_seconds"] == {(): 30}
    ((_, key),) = real.view(lambda txn: list(txn.scan(UNSETTLED)))
    sound = real.view(lambda txn: txn.must_read(RECEIPTS, key))
    real.update(lambda txn: txn.put(RECEIPTS, key, b"garbage"))
    assert "settle_oldest_pending_seconds" not in samples(real)
    real.update(lambda txn: txn.write(RECEIPTS, key, sound))


def fill(market: Market, number: int) -> None:
    """So many providers, offers, buyers and jobs; every third job is done, every third pending."""
    market.configure(slots=number, initial_capacity=10**6)

    def action(txn: Txn) -> None:
        inputs = [slice_of(1)]
        for n in range(number):
            post_offer(txn, offer_request(f"prov-{n}", job_id=f"job-{n}"))
        for n in range(number):
            needs = {"gpu": "none"} if n % 3 == 0 else {}
            request = job_request(f"job-{n}", inputs, buyer=f"buyer-{n}", capability=needs)
            submit(txn, request, inputs, wait=True)

    market.update(action)


def reads(market: Market, monkeypatch: pytest.MonkeyPatch) -> int:
    """Stored values that a scrape opens."""
    opened = Table.opened
    count = 0

    def counting(table: Table[Any], key: bytes, value: bytes) -> bytes:
        nonlocal count
        count += 1
        return opened(table, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "opened", counting)
        market.view(render)
    return count


def test_scrape_reads_no_more_of_a_market_that_grew(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "SERIES_MAX", 5)
    market.advance(1)  # A height is stored once it is not 0.
    fill(market, 10)
    few = reads(market, monkeypatch)
    assert few > 20
    market.advance(1)
    fill(market, 2_000)
    assert market.view(jobs.backlog_units) > 1_300
    assert reads(market, monkeypatch) == few


def test_series_without_bound_are_the_most_recent_ones(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "SERIES_MAX", 2)
    for n in range(4):
        market.post(f"prov-{n}", job_id=f"job-{n}", reputation=n)
        market.submit(f"job-{n}", buyer=f"buyer-{n}")
        market.advance(1)
    found = samples(market)
    assert found["provider_reputation_score"] == {("prov-3",): 3, ("prov-2",): 2}
    assert set(found["scheduler_effective_price"]) == {("prov-3",), ("prov-2",)}
    assert set(found["active_burst_quota"]) == {("buyer-3", "buyer"), ("prov-3", "provider")}
    market.prove("job-0")  # Its score changes last.
    assert set(samples(market)["provider_reputation_score"]) == {("prov-0",), ("prov-3",)}
