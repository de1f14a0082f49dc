"""The Prometheus exposition: counters from the store, gauges derived from the state."""

from collections.abc import Iterator
from heapq import nlargest

from compute_market import __version__, metrics
from compute_market.admission import admission
from compute_market.admission.admission import MICRO
from compute_market.config.settings import Config
from compute_market.jobs import lifecycle
from compute_market.records import PRIORITIES
from compute_market.reputation import reputation
from compute_market.scheduler import matching as scheduler
from compute_market.scheduler import queue
from compute_market.store.store import Txn

# Series of one metric with an unbounded label: the most recent ones.
SERIES_MAX = 1000

Samples = Iterator[tuple[tuple[str, ...], float]]


def render(txn: Txn, config: Config) -> str:
    """Every metric of the table in the Prometheus text format, without time stamps.

    Its labels are sorted by the client library; counters end in `_total`.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector

    class Market(Collector):
        def describe(self) -> list[Metric]:
            return []  # Registering must not read the state.

        def collect(self) -> Iterator[Metric]:
            for metric in metrics.METRICS:
                names = [label for label, _ in metric.labels]
                if metric.kind == "histogram":
                    histogram = HistogramMetricFamily(metric.name, metric.help)
                    buckets, sum_s = _cumulative(txn, metric.name)
                    histogram.add_metric([], buckets=buckets, sum_value=sum_s)
                    yield histogram
                    continue
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = kind(metric.name, metric.help, labels=names)
                for values, number in _samples(txn, config, metric):
                    family.add_metric(values, number)
                yield family

    # A registry of its own: the default one adds the metrics of this short-lived process.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Market())
    return generate_latest(registry).decode()


def _samples(txn: Txn, config: Config, metric: metrics.Metric) -> Samples:
    if metric.kind == "gauge":
        yield from _gauge(txn, config, metric.name)
        return
    stored = dict(metrics.series(txn, metric.name))
    for values in _bounded_series(metric):
        stored.setdefault(values, 0)
    yield from sorted(stored.items())


def _bounded_series(metric: metrics.Metric) -> list[tuple[str, ...]]:
    """Every series of a metric whose labels are bounded, so that rates start at zero."""
    found: list[tuple[str, ...]] = [()]
    for _, allowed in metric.labels:
        found = [(*values, value) for values in found for value in allowed]
    return found


def _gauge(txn: Txn, config: Config, name: str) -> Samples:
    if name in ("industrial_backlog", "industrial_utilization", "industrial_price_per_unit"):
        yield (), lifecycle.demand(txn, config)[name]
    elif name == "active_burst_quota":
        recent = nlargest(SERIES_MAX, admission.known_parties(txn))
        for _, role, identity in recent:
            yield (role, identity), admission.burst_left(txn, config, role, identity) / MICRO
    elif name == "scheduler_effective_price":
        for _, provider, price in nlargest(SERIES_MAX, scheduler.effective_prices(txn)):
            yield (provider,), price
    elif name == "scheduler_active_jobs":
        yield (), queue.active_jobs(txn)
    elif name == "scheduler_queue_depth":
        for priority in PRIORITIES:
            yield (priority,), queue.depth(txn, priority)
    elif name == "scheduler_pending_jobs":
        yield (), txn.size("pending")
    elif name == "settle_pending_receipts":
        yield (), txn.size("unsettled")
    elif name == "provider_reputation_score":
        for _, provider, score in nlargest(SERIES_MAX, reputation.recent(txn)):
            yield (provider,), score
    elif name == "tb_last_run_timestamp_seconds":
        yield (), txn.number("last_run_ms") / 1000
    elif name == "tb_build_info":
        yield (__version__,), 1


def _cumulative(txn: Txn, name: str) -> tuple[list[tuple[str, float]], float]:
    counts, sum_ns = metrics.histogram(txn, name)
    bounds = [*map(str, metrics.LATENCY_BOUNDS_S), "+Inf"]
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets, sum_ns / 1e9
