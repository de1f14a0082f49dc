"""The metric table and the counters behind it.

Counters live in the store and are incremented in the transaction of their event, so a process that
lives thirty milliseconds loses nothing and a replay counts nothing. Gauges are derived from the
state when they are read (`exposition`).
"""

from collections.abc import Iterator
from functools import cache
from typing import Literal

from msgspec import Struct

from compute_market.errors import InternalError
from compute_market.records import (
    LANES,
    MATCH_RESULTS,
    OFFER_STATES,
    PARAMETER_KEYS,
    PRIORITIES,
    SETTLE_MODES,
)
from compute_market.store.schema import COUNTERS
from compute_market.store.txn import Txn


class Metric(Struct, frozen=True, gc=False):
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    # Label name → allowed values; an empty tuple means unbounded (the exposition limits those).
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()


METRICS = (
    Metric("industrial_backlog", "gauge", "Unproven units of queued and active jobs."),
    Metric(
        "industrial_utilization",
        "gauge",
        "Units proven in the last 60 s over the capacity of 60 s.",
    ),
    Metric("industrial_price_per_unit", "gauge", "Effective price of the last match."),
    Metric(
        "industrial_multiplier",
        "gauge",
        "What the subsidy of an epoch is multiplied by, in percent.",
    ),
    Metric("industrial_units_total", "counter", "Units of accepted slices."),
    Metric("industrial_admitted_total", "counter", "Jobs admitted."),
    Metric("industrial_deferred_total", "counter", "Jobs kept out by the present load alone."),
    Metric(
        "industrial_rejected_total",
        "counter",
        "Jobs refused by admission, and deadlines missed by providers (SLA).",
        (("reason", ("capacity", "fair_share", "burst_exhausted", "comfort_guard", "SLA")),),
    ),
    Metric(
        "admission_mode",
        "gauge",
        "1 for the state that the comfort guard is in, 0 for the other.",
        (("mode", ("loose", "tight")),),
    ),
    Metric(
        "mempool_size",
        "gauge",
        "Consumer transactions that wait for a block, and industrial jobs for a slot.",
        (("lane", ("consumer", "industrial")),),
    ),
    Metric("consumer_fee_p50", "gauge", "Median of the last 50 consumer fees."),
    Metric("consumer_fee_p90", "gauge", "90th percentile of the last 50 consumer fees."),
    Metric("capacity_units_per_second", "gauge", "Estimate of the capacity."),
    Metric("capacity_headroom_units", "gauge", "Units that may still be admitted now."),
    Metric(
        "param_change_pending",
        "gauge",
        "Approved proposals that wait for their height.",
        (("key", PARAMETER_KEYS),),
    ),
    Metric(
        "param_change_active",
        "gauge",
        "Value in force of a parameter that proposals may change.",
        (("key", PARAMETER_KEYS),),
    ),
    Metric(
        "active_burst_quota",
        "gauge",
        "Units left in the burst bucket.",
        (("role", ("buyer", "provider")), ("identity", ())),
    ),
    Metric(
        "scheduler_match_total",
        "counter",
        "Matches by the furthest stage any offer reached.",
        (("result", MATCH_RESULTS),),
    ),
    Metric(
        "scheduler_effective_price",
        "gauge",
        "Effective price of the provider's last match.",
        (("provider", ()),),
    ),
    Metric("scheduler_active_jobs", "gauge", "Size of the active set."),
    Metric("scheduler_slots", "gauge", "Slots for active jobs.", (("state", ("used", "free")),)),
    Metric("offers", "gauge", "Offers by state.", (("state", OFFER_STATES),)),
    Metric("offers_barred", "gauge", "Offers of providers in bad standing."),
    Metric(
        "tokens_in_circulation",
        "gauge",
        "What was paid into wallets and not out again, burned tokens included.",
        (("token", ("ct", "it")),),
    ),
    Metric(
        "scheduler_queue_depth",
        "gauge",
        "Jobs waiting for a slot.",
        (("priority", PRIORITIES),),
    ),
    Metric(
        "scheduler_oldest_wait_seconds",
        "gauge",
        "How long the first of the jobs that wait for a slot has done so, 0 without any.",
        (("priority", PRIORITIES),),
    ),
    Metric(
        "scheduler_pending_jobs",
        "gauge",
        "Jobs waiting for an offer: whether the present load alone kept them out when they were "
        "tried last, or an offer or the money was missing.",
        (("reason", ("load", "offer")),),
    ),
    Metric(
        "scheduler_oldest_pending_seconds",
        "gauge",
        "How long the first of the jobs that wait for an offer has done so, 0 without any.",
        (("priority", PRIORITIES),),
    ),
    Metric(
        "settlement_mode",
        "gauge",
        "1 for the settlement mode, 0 for the others.",
        (("mode", SETTLE_MODES),),
    ),
    Metric("settle_pending_receipts", "gauge", "Receipts waiting for the mode to be real."),
    Metric(
        "settle_oldest_pending_seconds",
        "gauge",
        "How long the first of the receipts that wait has done so, 0 without any.",
    ),
    Metric("provider_reputation_score", "gauge", "Score, -1000 to 1000.", (("provider", ()),)),
    Metric(
        "scheduler_accelerator_miss_total",
        "counter",
        "Accelerator jobs that no offer's capability fits.",
    ),
    Metric(
        "scheduler_priority_miss_total",
        "counter",
        "High and normal jobs that started after more than 5 s in the queue.",
    ),
    Metric(
        "scheduler_cancel_total",
        "counter",
        "Cancelled jobs.",
        (("reason", ("client", "provider", "preempted")),),
    ),
    Metric(
        "scheduler_preempt_total",
        "counter",
        "Active jobs handed over to another provider, and handovers that failed.",
        (("reason", ("success", "handoff_failed")),),
    ),
    Metric("scheduler_match_latency_seconds", "histogram", "Time of one match."),
    Metric(
        "match_loop_latency_seconds", "histogram", "Time of one pass over pending and queued jobs."
    ),
    Metric(
        "reputation_adjust_total",
        "counter",
        "Changes of a provider's score by the outcome of a job.",
        (("result", ("success", "failure")),),
    ),
    Metric(
        "reputation_gossip_total",
        "counter",
        "Scores told by other markets.",
        (("result", ("applied", "ignored")),),
    ),
    Metric("courier_flush_attempt_total", "counter", "Attempts to forward a bundle."),
    Metric("courier_flush_failure_total", "counter", "Attempts to forward a bundle that failed."),
    Metric("courier_pending", "gauge", "Bundles that no destination has acknowledged."),
    Metric(
        "courier_oldest_pending_seconds",
        "gauge",
        "How long ago the first of those bundles was sent, 0 without any.",
    ),
    Metric("matches_total", "counter", "Receipts first stored.", (("dry_run", ("true", "false")),)),
    Metric("settle_applied_total", "counter", "Receipts paid."),
    Metric(
        "settle_failed_total",
        "counter",
        "Receipts that could not be paid.",
        (("reason", ("insufficient_funds", "overflow")),),
    ),
    Metric(
        "settle_mode_change_total",
        "counter",
        "Changes of the settlement mode.",
        (("to", SETTLE_MODES),),
    ),
    Metric("receipt_corrupt_total", "counter", "Stored receipts found damaged and quarantined."),
    Metric(
        "receipt_persist_fail_total",
        "counter",
        "Receipts that could not be stored, with all of the change that they were of: the disk or "
        "the data file was full. As far as a later change could be stored that counts them.",
    ),
    Metric("slashing_burn_ct_total", "counter", "CT of bonds burned."),
    Metric(
        "bonds_burned_total",
        "counter",
        "Bonds of which some was burned: of providers, of buyers, and of bids not revealed.",
        (("of", ("provider", "buyer", "bidder")),),
    ),
    Metric(
        "compute_market_fee_split",
        "counter",
        "Amounts that left escrows and bonds.",
        (("token", ("ct", "it")), ("kind", ("paid", "refunded", "burned"))),
    ),
    Metric(
        "tb_last_run_timestamp_seconds",
        "gauge",
        "Market time in Unix seconds of the last command that wrote.",
    ),
    Metric(
        "price_band_p25",
        "gauge",
        "Effective price below which a quarter of the last matches were.",
        (("lane", LANES),),
    ),
    Metric(
        "price_band_median",
        "gauge",
        "Median effective price of the last matches.",
        (("lane", LANES),),
    ),
    Metric(
        "price_band_p75",
        "gauge",
        "Effective price below which three quarters of the last matches were.",
        (("lane", LANES),),
    ),
    Metric(
        "price_board_load_total",
        "counter",
        "Price boards loaded for a change.",
        (("result", ("success", "missing", "damaged")),),
    ),
    Metric(
        "price_board_save_total",
        "counter",
        "Price boards saved, as far as a later change has seen them, and those that could not be.",
        (("result", ("success", "failed")),),
    ),
    Metric("store_bytes", "gauge", "Bytes of the data file."),
    Metric(
        "store_map_used_ratio",
        "gauge",
        "Part of what the data file may grow to that is in use, 0 to 1.",
    ),
    Metric(
        "store_last_backup_timestamp_seconds",
        "gauge",
        "Unix seconds of the last backup of the home, 0 without one.",
    ),
    Metric(
        "store_oldest_job_timestamp_seconds",
        "gauge",
        "When the first of the ended jobs ended that are not archived.",
    ),
    Metric("clock_held", "gauge", "1 while the clock is not believed and nothing falls due."),
    Metric("tb_build_info", "gauge", "Always 1; carries the version.", (("version", ()),)),
)

BY_NAME = {metric.name: metric for metric in METRICS}

# Upper bounds of the latency histograms in seconds; +Inf follows.
LATENCY_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
_BOUNDS_NS = tuple(int(bound * 1e9) for bound in LATENCY_BOUNDS_S)


def count(txn: Txn, name: str, *values: str, by: int = 1) -> None:
    """Increment a counter. `values` are its label values in the order of the table."""
    if by:
        txn.add(COUNTERS, _key(name, values), by)


def value(txn: Txn, name: str, *values: str) -> int:
    """The present value of one series of a counter."""
    return txn.sum(COUNTERS, _key(name, values))


@cache
def _key(name: str, values: tuple[str, ...]) -> bytes:
    """The key of one series. All labels of counters are bounded, and so is the cache."""
    labels = BY_NAME[name].labels
    if len(values) != len(labels) or any(
        value not in allowed for value, (_, allowed) in zip(values, labels, strict=True)
    ):
        raise InternalError(f"metric {name} has no series {values}")
    return "\0".join((name, *values)).encode()


def series(txn: Txn, name: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """All series of a counter that were ever incremented, as (label values, value)."""
    prefix = name.encode()
    for key, number in txn.sums(COUNTERS, prefix).items():
        first, *values = key.decode().split("\0")
        if first == name:
            yield tuple(values), number


def observe(txn: Txn, name: str, elapsed_ns: int) -> None:
    """Add one latency to a histogram."""
    buckets, sum_ns = _histogram_keys(name)
    place = 0
    for bound_ns in _BOUNDS_NS:
        if elapsed_ns <= bound_ns:
            break
        place += 1
    txn.add(COUNTERS, buckets[place], 1)
    txn.add(COUNTERS, sum_ns, elapsed_ns)


def histogram(txn: Txn, name: str) -> tuple[list[int], int]:
    """Observations per bucket (not cumulative, the last is +Inf) and their sum in nanoseconds."""
    buckets, sum_ns = _histogram_keys(name)
    return [txn.sum(COUNTERS, key) for key in buckets], txn.sum(COUNTERS, sum_ns)


@cache
def _histogram_keys(name: str) -> tuple[list[bytes], bytes]:
    """The keys of the buckets and of the sum."""
    bounds = range(len(LATENCY_BOUNDS_S) + 1)
    buckets = [f"{name}\0le\0{bound:02d}".encode() for bound in bounds]
    return buckets, f"{name}\0sum_ns".encode()
