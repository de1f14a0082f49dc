"""What each dashboard shows: a row of panels for each thing that an operator asks.

Expressions name series as Prometheus has them. The market that is looked at is put into each of
them by `dashboards`, and so is what a panel means: the help of its metrics.
"""

from typing import Final, Literal, NamedTuple

Kind = Literal["lines", "stack", "number", "state"]


class Panel(NamedTuple):
    title: str
    unit: str  # as Grafana calls it
    queries: dict[str, str]  # legend, without the market → expression
    kind: Kind = "lines"
    alert: str = ""  # of a number: the alert from whose threshold on it is bad
    empty: str = ""  # of a number: what is shown where there is none


class Board(NamedTuple):
    name: str
    title: str
    about: str
    panels: tuple[Panel, ...]


def _rate(series: str, by: str = "") -> str:
    """Events a second of each market, summed over all labels but those of `by`."""
    rated = f"rate({series}[$__rate_interval])"
    return f"sum by (instance, {by}) ({rated})" if by else rated


def _quantile(q: float, histogram: str) -> str:
    rated = f"rate({histogram}_bucket[$__rate_interval])"
    return f"histogram_quantile({q}, sum by (instance, le) ({rated}))"


BOARDS: Final = (
    Board(
        "fees",
        "fee health",
        "What consumers pay and wait for, and whether that keeps industrial jobs out.",
        (
            Panel("Comfort guard", "none", {"{{mode}}": "admission_mode == 1"}, "state"),
            Panel(
                "Consumer fees and the threshold",
                "short",
                {
                    "median": "consumer_fee_p50",
                    "90th percentile": "consumer_fee_p90",
                    "threshold": 'param_change_active{key="comfort_threshold_p90"}',
                },
            ),
            Panel("Pool of each lane", "short", {"{{lane}}": "mempool_size"}),
        ),
    ),
    Board(
        "admission",
        "throttling and admission",
        "Who is let in, who is not, and what is left of the capacity.",
        (
            Panel(
                "Jobs admitted, deferred and refused a second",
                "ops",
                {
                    "admitted": _rate("industrial_admitted_total"),
                    "deferred": _rate("industrial_deferred_total"),
                    # A deadline that was missed is of a job that was admitted.
                    "{{reason}}": _rate('industrial_rejected_total{reason!="SLA"}', "reason"),
                },
                "stack",
            ),
            Panel(
                "Part of the jobs that is deferred",
                "percentunit",
                {
                    "deferred": "rate(industrial_deferred_total[15m]) / "
                    "(rate(industrial_admitted_total[15m]) + rate(industrial_deferred_total[15m]))"
                },
            ),
            Panel(
                "Capacity and headroom",
                "short",
                {
                    "capacity of a minute": "60 * capacity_units_per_second",
                    "headroom": "capacity_headroom_units",
                    "backlog": "industrial_backlog",
                },
            ),
            Panel("Utilization", "percentunit", {"utilization": "industrial_utilization"}),
            Panel("Units proven a second", "short", {"units": _rate("industrial_units_total")}),
            Panel(
                "Least burst quotas left",
                "short",
                {"{{role}} {{identity}}": "bottomk by (instance) (10, active_burst_quota)"},
            ),
            Panel("Parameters in force", "short", {"{{key}}": "param_change_active"}, "number"),
            Panel("Proposals that wait", "short", {"{{key}}": "param_change_pending"}, "number"),
        ),
    ),
    Board(
        "scheduler",
        "queue and scheduler",
        "Which jobs wait for what, and how long it takes to place one.",
        (
            Panel("Jobs that wait for a slot", "short", {"{{priority}}": "scheduler_queue_depth"}),
            Panel("Oldest wait", "s", {"{{priority}}": "scheduler_oldest_wait_seconds"}),
            Panel(
                "Jobs that wait for an offer",
                "short",
                {"{{reason}}": "scheduler_pending_jobs"},
                "stack",
            ),
            Panel(
                "Oldest wait for an offer",
                "s",
                {"{{priority}}": "scheduler_oldest_pending_seconds"},
            ),
            Panel(
                "Slots",
                "short",
                {"{{state}}": "scheduler_slots", "active jobs": "scheduler_active_jobs"},
            ),
            Panel(
                "Matches a second by outcome",
                "ops",
                {"{{result}}": _rate("scheduler_match_total", "result")},
                "stack",
            ),
            Panel(
                "Time of one match",
                "s",
                {
                    "median": _quantile(0.5, "scheduler_match_latency_seconds"),
                    "99th percentile": _quantile(0.99, "scheduler_match_latency_seconds"),
                },
            ),
            Panel(
                "Time of one pass",
                "s",
                {
                    "median": _quantile(0.5, "match_loop_latency_seconds"),
                    "99th percentile": _quantile(0.99, "match_loop_latency_seconds"),
                },
            ),
            Panel(
                "Jobs that came too late or found no accelerator",
                "ops",
                {
                    "late": _rate("scheduler_priority_miss_total"),
                    "no accelerator": _rate("scheduler_accelerator_miss_total"),
                },
            ),
            Panel(
                "Jobs cancelled a second",
                "ops",
                {"{{reason}}": _rate("scheduler_cancel_total", "reason")},
                "stack",
            ),
            Panel(
                "Handovers a second",
                "ops",
                {"{{reason}}": _rate("scheduler_preempt_total", "reason")},
                "stack",
            ),
        ),
    ),
    Board(
        "prices",
        "prices and offers",
        "What a unit costs, and what is on offer.",
        (
            Panel(
                "Price bands",
                "short",
                {
                    "{{lane}} 25 %": "price_band_p25",
                    "{{lane}} median": "price_band_median",
                    "{{lane}} 75 %": "price_band_p75",
                },
            ),
            Panel("Price of the last match", "short", {"price": "industrial_price_per_unit"}),
            Panel(
                "Dearest providers",
                "short",
                {"{{provider}}": "topk by (instance) (10, scheduler_effective_price)"},
            ),
            Panel(
                "Offers",
                "short",
                {"{{state}}": "offers", "barred": "offers_barred"},
            ),
            Panel(
                "Price boards loaded and saved",
                "short",
                {
                    "loaded {{result}}": "increase(price_board_load_total[$__rate_interval])",
                    "saved {{result}}": "increase(price_board_save_total[$__rate_interval])",
                },
                "stack",
            ),
        ),
    ),
    Board(
        "settlement",
        "settlement and money",
        "Whether money moves, and where it went.",
        (
            Panel("Settlement mode", "none", {"{{mode}}": "settlement_mode == 1"}, "state"),
            Panel(
                "Receipts first stored a second",
                "ops",
                {"dry run {{dry_run}}": _rate("matches_total", "dry_run")},
                "stack",
            ),
            Panel(
                "Receipts paid, and not, a second",
                "ops",
                {
                    "paid": _rate("settle_applied_total"),
                    "{{reason}}": _rate("settle_failed_total", "reason"),
                },
            ),
            Panel("Receipts that wait", "short", {"receipts": "settle_pending_receipts"}),
            Panel("Oldest receipt that waits", "s", {"waits": "settle_oldest_pending_seconds"}),
            Panel(
                "Changes of the mode",
                "short",
                {"to {{to}}": "increase(settle_mode_change_total[$__rate_interval])"},
                "stack",
            ),
            Panel(
                "Amounts that left escrows and bonds a second",
                "short",
                {"{{token}} {{kind}}": _rate("compute_market_fee_split_total", "token, kind")},
                "stack",
            ),
            Panel("CT of bonds burned", "short", {"CT": "slashing_burn_ct_total"}),
            Panel("Bonds burned", "short", {"of {{of}}": "bonds_burned_total"}),
            Panel("Tokens in circulation", "short", {"{{token}}": "tokens_in_circulation"}),
            Panel("Multiplier of the subsidy", "percent", {"multiplier": "industrial_multiplier"}),
            Panel(
                "Receipts found damaged, and not stored",
                "short",
                {"damaged": "receipt_corrupt_total", "not stored": "receipt_persist_fail_total"},
            ),
        ),
    ),
    Board(
        "courier",
        "courier",
        "Bundles that go to other markets.",
        (
            Panel("Bundles that wait", "short", {"bundles": "courier_pending"}),
            Panel("Oldest bundle that waits", "s", {"waits": "courier_oldest_pending_seconds"}),
            Panel(
                "Attempts to forward a second",
                "ops",
                {
                    "all": _rate("courier_flush_attempt_total"),
                    "failed": _rate("courier_flush_failure_total"),
                },
            ),
            Panel(
                "Part of the attempts that fails",
                "percentunit",
                {
                    "failed": "increase(courier_flush_failure_total[30m]) / "
                    "increase(courier_flush_attempt_total[30m])"
                },
            ),
        ),
    ),
    Board(
        "reputation",
        "reputation",
        "Who keeps what was promised.",
        (
            Panel(
                "Lowest scores",
                "short",
                {"{{provider}}": "bottomk by (instance) (10, provider_reputation_score)"},
            ),
            Panel(
                "Changes of scores a second",
                "ops",
                {"{{result}}": _rate("reputation_adjust_total", "result")},
                "stack",
            ),
            Panel(
                "Scores told by other markets a second",
                "ops",
                {"{{result}}": _rate("reputation_gossip_total", "result")},
                "stack",
            ),
            Panel(
                "Deadlines missed",
                "short",
                {"jobs": 'increase(industrial_rejected_total{reason="SLA"}[$__rate_interval])'},
            ),
        ),
    ),
    Board(
        "operation",
        "store and operation",
        "Whether the market runs at all, and on what.",
        (
            Panel(
                "Last change",
                "s",
                {"ago": "time() - tb_last_run_timestamp_seconds"},
                "number",
                alert="NothingRuns",
            ),
            Panel(
                "Last backup",
                "s",
                # 0 stands for no backup, which was not made in 1970.
                {"ago": "time() - (store_last_backup_timestamp_seconds > 0)"},
                "number",
                alert="BackupOld",
                empty="none",
            ),
            Panel(
                "Oldest ended job",
                "s",
                {"ago": "time() - store_oldest_job_timestamp_seconds"},
                "number",
                empty="none",
            ),
            Panel("Clock held", "bool_yes_no", {"held": "clock_held"}, "number", "ClockHeld"),
            Panel("Version", "none", {"{{version}}": "tb_build_info"}, "state"),
            Panel("Data file", "bytes", {"bytes": "store_bytes"}),
            Panel("Part of the map in use", "percentunit", {"used": "store_map_used_ratio"}),
        ),
    ),
)
