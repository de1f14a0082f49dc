"""The metric table, and the counters and histograms in the store."""

import re
from typing import Any

import pytest

from compute_market import metrics
from compute_market.errors import InternalError
from compute_market.jobs.work import work
from compute_market.metrics import LATENCY_BOUNDS_S, METRICS
from compute_market.store.schema import COUNTERS
from tests.support.market import Market

NS = 1_000_000_000


def test_metric_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
        assert metric.kind in ("counter", "gauge", "histogram"), metric
        if metric.kind != "counter":
            assert not metric.name.endswith("_total")
        # These suffixes belong to the series a histogram is exposed as.
        assert not metric.name.endswith(("_bucket", "_count", "_sum", "_created"))
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")
        assert len(metric.help) > 5, metric
        assert metric.help.endswith("."), metric
        assert metric.help == metric.help.strip()
        for label, allowed in metric.labels:
            assert re.fullmatch(r"[a-z][a-z_]*", label), metric
            assert label not in ("le", "quantile", "job", "instance"), metric
            assert len(set(allowed)) == len(allowed), metric


def test_metric_names_are_unique_when_exposed() -> None:
    exposed = [metric.name.removesuffix("_total") for metric in METRICS]
    assert len(set(exposed)) == len(exposed)
    assert list(metrics.BY_NAME) == [metric.name for metric in METRICS]


def test_counters_without_the_suffix_are_the_known_one() -> None:
    bare = [m.name for m in METRICS if m.kind == "counter" and not m.name.endswith("_total")]
    assert bare == ["compute_market_fee_split"]


def test_count_adds_to_one_series(market: Market) -> None:
    def count(txn: Any) -> int:
        metrics.count(txn, "scheduler_match_total", "success")
        metrics.count(txn, "scheduler_match_total", "success", by=2)
        metrics.count(txn, "scheduler_match_total", "no_capacity")
        return metrics.value(txn, "scheduler_match_total", "success")

    assert [market.update(count), market.update(count)] == [3, 6]
    assert market.counter("scheduler_match_total", "success") == 6
    assert market.counter("scheduler_match_total", "no_capacity") == 2
    assert market.counter("scheduler_match_total", "price_mismatch") == 0


def test_count_of_nothing_makes_no_series(market: Market) -> None:
    market.update(lambda txn: metrics.count(txn, "industrial_deferred_total", by=0))
    assert market.view(lambda txn: list(metrics.series(txn, "industrial_deferred_total"))) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("scheduler_match_total", ("sucess",)),
        ("scheduler_match_total", ()),
        ("scheduler_match_total", ("success", "success")),
        ("industrial_admitted_total", ("extra",)),
        ("compute_market_fee_split", ("ct", "stolen")),
        ("compute_market_fee_split", ("paid", "ct")),
    ],
)
def test_count_of_an_unknown_series_fails(
    market: Market, name: str, values: tuple[str, ...]
) -> None:
    with pytest.raises(InternalError, match=name):
        market.update(lambda txn: metrics.count(txn, name, *values))
    assert market.view(lambda txn: list(metrics.series(txn, name))) == []


def test_series_lists_every_label_combination(market: Market) -> None:
    def count(txn: Any) -> list[tuple[tuple[str, ...], int]]:
        metrics.count(txn, "compute_market_fee_split", "it", "paid", by=7)
        metrics.count(txn, "compute_market_fee_split", "ct", "refunded")
        metrics.count(txn, "industrial_admitted_total")
        return list(metrics.series(txn, "compute_market_fee_split"))

    expected = [(("ct", "refunded"), 1), (("it", "paid"), 7)]
    # These amounts never moved, which the audit would see: nothing is kept.
    assert market.update(count, dry_run=True) == expected


def test_series_of_a_name_leaves_out_longer_names(market: Market) -> None:
    def count(txn: Any) -> list[tuple[tuple[str, ...], int]]:
        txn.add(COUNTERS, b"industrial_admitted_total_more", 5)
        metrics.count(txn, "industrial_admitted_total", by=2)
        return list(metrics.series(txn, "industrial_admitted_total"))

    assert market.update(count) == [((), 2)]


@pytest.mark.parametrize(
    ("elapsed_ns", "bucket"),
    [
        (0, 0),
        *((round(bound * NS), i) for i, bound in enumerate(LATENCY_BOUNDS_S)),
        *((round(bound * NS) + 1, i + 1) for i, bound in enumerate(LATENCY_BOUNDS_S)),
        (3600 * NS, len(LATENCY_BOUNDS_S)),
    ],
)
def test_observe_counts_in_the_first_bucket_that_holds(
    market: Market, elapsed_ns: int, bucket: int
) -> None:
    name = "scheduler_match_latency_seconds"
    market.update(lambda txn: metrics.observe(txn, name, elapsed_ns))
    buckets, sum_ns = market.view(lambda txn: metrics.histogram(txn, name))
    assert len(buckets) == len(LATENCY_BOUNDS_S) + 1
    assert [i for i, count in enumerate(buckets) if count] == [bucket]
    assert sum_ns == elapsed_ns


def test_observe_adds_up(market: Market) -> None:
    name = "match_loop_latency_seconds"
    for elapsed_ns in (NS, NS, 5):
        market.update(lambda txn, ns=elapsed_ns: metrics.observe(txn, name, ns))
    buckets, sum_ns = market.view(lambda txn: metrics.histogram(txn, name))
    assert (sum(buckets), buckets[0], sum_ns) == (3, 1, 2 * NS + 5)


def test_working_the_queue_observes_how_long_it_took(market: Market) -> None:
    ticks = iter((1_000, 4_000))
    market.store.update(
        work, now_ms=market.now_ms, config=market.config, stopwatch=lambda: next(ticks)
    )
    buckets, sum_ns = market.view(lambda txn: metrics.histogram(txn, "match_loop_latency_seconds"))
    assert (sum(buckets), sum_ns) == (1, 3_000)


def test_latency_bounds_ascend() -> None:
    assert list(LATENCY_BOUNDS_S) == sorted(set(LATENCY_BOUNDS_S))
