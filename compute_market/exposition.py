"""The Prometheus exposition: counters from the store, gauges derived from the state.

A scrape walks no table: what is summed is kept as it changes, and of series without bound it reads
the most recent. What only the files of the home tell is looked up by the caller (`Files`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from msgspec import Struct

from compute_market import __version__, clock, metrics
from compute_market.admission import capacity, comfort, mempool, shares
from compute_market.amounts import MICRO
from compute_market.courier import courier
from compute_market.errors import InternalError
from compute_market.governance import governance, parameters
from compute_market.jobs import demand, jobs, lanes, listed
from compute_market.offers import board, offers
from compute_market.records import LANES, OFFER_STATES, PRIORITIES, SETTLE_MODES
from compute_market.reputation import reputation
from compute_market.scheduler import outcomes, queue
from compute_market.settlement import ledger, modes, receipts
from compute_market.store.schema import BUNDLES_PENDING, PENDING, UNSETTLED
from compute_market.store.txn import Txn
from compute_market.subsidy import subsidy

# Series of one metric with an unbounded label: the most recent ones.
SERIES_MAX: Final = 1000

Samples = Iterable[tuple[tuple[str, ...], float]]


class Files(Struct, frozen=True, gc=False):
    """What the files of a home tell beside what is stored in them."""

    bytes: int  # of the data file
    map_used: float  # part of the map, 0 to 1
    backup_ms: int  # when the last backup was made, in unix milliseconds; 0 without one


def _one(value: Callable[[Txn], float]) -> Callable[[Txn], Samples]:
    """A gauge without labels."""
    return lambda txn: [((), value(txn))]


def _slots(txn: Txn) -> Samples:
    used = queue.active_jobs(txn)
    return [(("used",), used), (("free",), max(0, txn.config.slots - used))]


def _waits(txn: Txn) -> Samples:
    return [((each,), queue.oldest_wait_ms(txn, each) / 1000) for each in PRIORITIES]


def _pending(txn: Txn) -> Samples:
    deferred = sum(lanes.deferred_in(txn, lane) for lane in LANES)
    return [(("load",), deferred), (("offer",), txn.size(PENDING) - deferred)]


def _age(of: Callable[[Txn], int | None]) -> Callable[[Txn], Samples]:
    """Seconds of a wait in milliseconds; what a damaged record does not tell has no sample."""

    def samples(txn: Txn) -> Samples:
        found_ms = of(txn)
        return [] if found_ms is None else [((), found_ms / 1000)]

    return samples


def _mode(txn: Txn) -> Samples:
    mode = modes.state(txn).mode
    return [((each,), each == mode) for each in SETTLE_MODES]


def _guard(txn: Txn) -> Samples:
    mode = comfort.mode(txn)
    return [((each,), each == mode) for each in comfort.GUARDS]


def _oldest_job(txn: Txn) -> Samples:
    first = listed.first_ended(txn)
    return [] if first is None else [((), first[0])]


def _bursts(txn: Txn) -> Samples:
    return [
        ((each.role, each.identity), each.burst_micro / MICRO)
        for each in islice(shares.recent(txn), SERIES_MAX)
    ]


def _by_key(found: Mapping[str, float]) -> Samples:
    return [((key,), number) for key, number in found.items()]


def _prices(txn: Txn) -> Samples:
    recent = islice(outcomes.recent_prices(txn), SERIES_MAX)
    return [((provider,), price) for provider, price in recent]


def _scores(txn: Txn) -> Samples:
    recent = islice(reputation.recent(txn), SERIES_MAX)
    return [((provider,), score) for provider, score in recent]


def _bands(which: Callable[[board.Bands], int]) -> Callable[[Txn], Samples]:
    """A band of each lane that has one."""

    def samples(txn: Txn) -> Samples:
        found = [(lane, board.bands(txn, lane)) for lane in LANES]
        return [((lane,), which(bands)) for lane, bands in found if bands is not None]

    return samples


GAUGES: Final[dict[str, Callable[[Txn], Samples]]] = {
    "industrial_backlog": _one(jobs.backlog_units),
    "industrial_utilization": _one(lambda txn: demand.utilization_pct(txn) / 100),
    "industrial_price_per_unit": _one(lambda txn: outcomes.last_effective_price(txn) or 0),
    "industrial_multiplier": _one(subsidy.multiplier),
    "admission_mode": _guard,
    "mempool_size": lambda txn: [
        (("consumer",), mempool.present(txn).size),
        (("industrial",), lanes.queued_in(txn, "industrial")),
    ],
    "consumer_fee_p50": _one(lambda txn: mempool.stored(txn).fee_p50),
    "consumer_fee_p90": _one(lambda txn: mempool.stored(txn).fee_p90),
    "capacity_units_per_second": _one(capacity.estimate),
    "capacity_headroom_units": _one(lambda txn: capacity.headroom_micro(txn) / MICRO),
    "param_change_pending": lambda txn: _by_key(governance.pending(txn)),
    "param_change_active": lambda txn: _by_key(parameters.numbers(txn.config)),
    "active_burst_quota": _bursts,
    "scheduler_effective_price": _prices,
    "scheduler_active_jobs": _one(queue.active_jobs),
    "scheduler_slots": _slots,
    "scheduler_queue_depth": lambda txn: [((p,), queue.depth(txn, p)) for p in PRIORITIES],
    "scheduler_oldest_wait_seconds": _waits,
    "scheduler_pending_jobs": _pending,
    "scheduler_oldest_pending_seconds": lambda txn: [
        ((each,), queue.oldest_pending_ms(txn, each) / 1000) for each in PRIORITIES
    ],
    "offers": lambda txn: [((s,), offers.count_of(txn, f"state {s}")) for s in OFFER_STATES],
    "offers_barred": _one(lambda txn: offers.count_of(txn, "shelf barred")),
    "settlement_mode": _mode,
    "settle_pending_receipts": _one(lambda txn: txn.size(UNSETTLED)),
    "settle_oldest_pending_seconds": _age(receipts.oldest_wait_ms),
    "tokens_in_circulation": lambda txn: [
        ((token.lower(),), ledger.in_circulation(txn, token)) for token in ledger.TOKENS
    ],
    "provider_reputation_score": _scores,
    "price_band_p25": _bands(lambda bands: bands.p25),
    "price_band_median": _bands(lambda bands: bands.median),
    "price_band_p75": _bands(lambda bands: bands.p75),
    "courier_pending": _one(lambda txn: txn.size(BUNDLES_PENDING)),
    "courier_oldest_pending_seconds": _age(courier.oldest_wait_ms),
    "tb_last_run_timestamp_seconds": _one(lambda txn: txn.number(clock.LAST_RUN) / 1000),
    "store_oldest_job_timestamp_seconds": _oldest_job,
    "clock_held": _one(lambda txn: not txn.timely),
    "tb_build_info": lambda txn: [((__version__,), 1)],
}
FILE_GAUGES: Final[dict[str, Callable[[Files], float]]] = {
    "store_bytes": lambda files: files.bytes,
    "store_map_used_ratio": lambda files: files.map_used,
    "store_last_backup_timestamp_seconds": lambda files: files.backup_ms / 1000,
}


def check_gauges(gauges: Iterable[str]) -> None:
    """Raise InternalError unless every gauge of the metric table has its function here.

    Called when this module is imported: a gauge that is forgotten must not be silently absent.
    """
    named = {metric.name for metric in metrics.METRICS if metric.kind == "gauge"}
    wrong = named.symmetric_difference(gauges)
    if wrong:
        raise InternalError(f"gauges and the metric table differ in {', '.join(sorted(wrong))}")


check_gauges([*GAUGES, *FILE_GAUGES])


def render(txn: Txn, files: Files | None = None) -> str:
    """Every metric of the table in the Prometheus text format, without time stamps.

    Its labels are sorted by the client library; counters end in `_total`. Without `files` the
    gauges that they tell have no samples.
    """
    text, _ = render_for(txn, "", files)
    return text.decode()


def render_for(txn: Txn, accept: str, files: Files | None = None) -> tuple[bytes, str]:
    """The same in the format that an Accept header asks for, and the type of that.

    It is OpenMetrics where that is asked for, else the text format.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import choose_encoder
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
                for values, number in _samples(txn, files, metric):
                    family.add_metric(values, number)
                yield family

    # A registry of its own: the default one adds the metrics of this short-lived process.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Market())
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _samples(txn: Txn, files: Files | None, metric: metrics.Metric) -> Samples:
    if metric.name in FILE_GAUGES:
        return [] if files is None else [((), FILE_GAUGES[metric.name](files))]
    if metric.kind == "gauge":
        return GAUGES[metric.name](txn)
    stored = dict(metrics.series(txn, metric.name))
    for values in _bounded_series(metric):
        stored.setdefault(values, 0)
    return sorted(stored.items())


def _bounded_series(metric: metrics.Metric) -> list[tuple[str, ...]]:
    """Every series of a metric whose labels are bounded, so that rates start at zero."""
    found: list[tuple[str, ...]] = [()]
    for _, allowed in metric.labels:
        found = [(*values, value) for values in found for value in allowed]
    return found


def _cumulative(txn: Txn, name: str) -> tuple[list[tuple[str, float]], float]:
    counts, sum_ns = metrics.histogram(txn, name)
    bounds = [*map(str, metrics.LATENCY_BOUNDS_S), "+Inf"]
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets, sum_ns / 1e9
