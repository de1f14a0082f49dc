"""For every alert, series over which it fires and series over which it does not.

Values are those of promtool: `0+2x30` begins at 0 and adds 2 a minute, thirty times.
"""

from typing import Final, NamedTuple


class Case(NamedTuple):
    """At `at` the alert fires over `fires`, and over `quiet` it does not; both are by series."""

    at: str
    fires: dict[str, str]
    quiet: dict[str, str]
    labels: tuple[dict[str, str], ...] = ({},)  # of each that fires, beside those of any
    # An alert about what is absent does not fire beside a market that is there.
    is_apart: bool = False


CASES: Final[dict[str, Case]] = {
    "MarketUnseen": Case(
        "10m",
        {"up": "1 0x20"},
        {"up": "1x20", 'tb_build_info{version="1"}': "1x20"},
        # Nor has any other target told of a market.
        ({}, {"instance": "", "job": ""}),
        is_apart=True,
    ),
    "NothingRuns": Case(
        "20m",
        {"tb_last_run_timestamp_seconds": "0x30"},
        {"tb_last_run_timestamp_seconds": "0x30", "clock_held": "1x30"},
    ),
    "ClockHeld": Case("5m", {"clock_held": "1x10"}, {"clock_held": "1x4 0x6"}),
    "StoreNearlyFull": Case(
        "10m", {"store_map_used_ratio": "0.81x20"}, {"store_map_used_ratio": "0.8x20"}
    ),
    # Here time begins at 0.
    "BackupOld": Case(
        "65m",
        {"store_last_backup_timestamp_seconds": "-129600x100"},
        {"store_last_backup_timestamp_seconds": "-129600x50 0x50"},
    ),
    "SettlementFell": Case(
        "5m",
        {
            'settlement_mode{mode="dry_run"}': "0 1x20",
            'settlement_mode{mode="real"}': "1 0x20",
            'settle_mode_change_total{to="real"}': "1x20",
            "settle_applied_total": "0x20",
        },
        # Nobody was ever paid.
        {
            'settlement_mode{mode="dry_run"}': "1x20",
            'settle_mode_change_total{to="real"}': "0x20",
            'settle_mode_change_total{to="dry_run"}': "1x20",
            "settle_applied_total": "0x20",
        },
        ({"mode": "dry_run"},),
    ),
    "SettlementFailures": Case(
        "10m",
        {'settle_failed_total{reason="insufficient_funds"}': "0 1x20"},
        {'settle_failed_total{reason="insufficient_funds"}': "1x20"},
        ({"reason": "insufficient_funds"},),
    ),
    "ReceiptsWait": Case(
        "65m",
        {"settle_oldest_pending_seconds": "0+60x120"},
        {"settle_oldest_pending_seconds": "0+60x60 0x60", "settle_pending_receipts": "3x120"},
    ),
    "ReceiptsNotStored": Case(
        "10m", {"receipt_persist_fail_total": "0 1x20"}, {"receipt_persist_fail_total": "1x20"}
    ),
    "ReceiptsCorrupt": Case(
        "10m", {"receipt_corrupt_total": "0 1x20"}, {"receipt_corrupt_total": "1x20"}
    ),
    "ComfortBreached": Case(
        "15m",
        {'admission_mode{mode="tight"}': "1x20", 'admission_mode{mode="loose"}': "0x20"},
        {'admission_mode{mode="tight"}': "1x9 0x11", 'admission_mode{mode="loose"}': "0x9 1x11"},
        ({"mode": "tight"},),
    ),
    "JobsDeferred": Case(
        "20m",
        {"industrial_admitted_total": "0+6x30", "industrial_deferred_total": "0+4x30"},
        {"industrial_admitted_total": "0+7x30", "industrial_deferred_total": "0+3x30"},
    ),
    "JobsRefused": Case(
        "20m",
        {
            'industrial_rejected_total{reason="capacity"}': "0+1x30",
            'industrial_rejected_total{reason="SLA"}': "0+9x30",
        },
        {
            'industrial_rejected_total{reason="capacity"}': "0+0.6x30",
            'industrial_rejected_total{reason="SLA"}': "0+9x30",
        },
    ),
    "NoHeadroom": Case(
        "15m",
        {"capacity_headroom_units": "59x20", "capacity_units_per_second": "10x20"},
        {"capacity_headroom_units": "60x20", "capacity_units_per_second": "10x20"},
    ),
    "QueueStands": Case(
        "30m",
        {
            'scheduler_queue_depth{priority="high"}': "0x60",
            'scheduler_queue_depth{priority="low"}': "2x60",
            "industrial_units_total": "70x60",
        },
        {
            'scheduler_queue_depth{priority="high"}': "0x60",
            'scheduler_queue_depth{priority="low"}': "2x60",
            "industrial_units_total": "70+1x60",
        },
    ),
    "JobsWaitLong": Case(
        "5m",
        {'scheduler_oldest_wait_seconds{priority="low"}': "3601x10"},
        {'scheduler_oldest_wait_seconds{priority="low"}': "3600x10"},
        ({"priority": "low"},),
    ),
    "SlotsFull": Case(
        "35m",
        {'scheduler_slots{state="free"}': "0x60", 'scheduler_slots{state="used"}': "64x60"},
        {'scheduler_slots{state="free"}': "1x60", 'scheduler_slots{state="used"}': "0x60"},
        ({"state": "free"},),
    ),
    "PriorityJobsLate": Case(
        "10m",
        {"scheduler_priority_miss_total": "0 2x20"},
        {"scheduler_priority_miss_total": "2x20"},
    ),
    "JobsFindNoOffer": Case(
        "65m",
        {'scheduler_oldest_pending_seconds{priority="low"}': "0+60x120"},
        # One after the other, each for a moment.
        {
            'scheduler_oldest_pending_seconds{priority="low"}': "10x120",
            'scheduler_pending_jobs{reason="offer"}': "1x120",
        },
        ({"priority": "low"},),
    ),
    "MatchesFail": Case(
        "20m",
        {
            'scheduler_match_total{result="price_mismatch"}': "0+1x30",
            'scheduler_match_total{result="success"}': "0+9x30",
        },
        {
            'scheduler_match_total{result="price_mismatch"}': "0+0.6x30",
            'scheduler_match_total{result="success"}': "0+9x30",
        },
    ),
    "NothingToBuy": Case(
        "20m",
        {'offers{state="open"}': "0x30", 'offers{state="exhausted"}': "3x30"},
        {'offers{state="open"}': "1x30", 'offers{state="exhausted"}': "0x30"},
        ({"state": "open"},),
    ),
    "ProvidersBarred": Case("65m", {"offers_barred": "1x120"}, {"offers_barred": "1x40 0x80"}),
    "PricesJumped": Case(
        "65m",
        {'price_band_median{lane="industrial"}': "100x60 201x60"},
        {'price_band_median{lane="industrial"}': "100x60 200x60"},
        ({"lane": "industrial"},),
    ),
    "PriceBoardLost": Case(
        "10m",
        {
            'price_board_save_total{result="failed"}': "0 1x20",
            'price_board_load_total{result="damaged"}': "0 1x20",
        },
        {
            'price_board_save_total{result="success"}': "0+1x20",
            'price_board_save_total{result="failed"}': "1x20",
            'price_board_load_total{result="damaged"}': "1x20",
        },
        ({"result": "failed"}, {"result": "damaged"}),
    ),
    "DeadlinesMissed": Case(
        "10m",
        {'industrial_rejected_total{reason="SLA"}': "0 1x20"},
        {
            'industrial_rejected_total{reason="SLA"}': "1x20",
            'industrial_rejected_total{reason="capacity"}': "0+1x20",
        },
        ({"reason": "SLA"},),
    ),
    "SlaSlashesRising": Case(
        "10m",
        {'bonds_burned_total{of="provider"}': "0 1x20"},
        {
            'bonds_burned_total{of="provider"}': "1x20",
            'bonds_burned_total{of="buyer"}': "0 1x20",
            'bonds_burned_total{of="bidder"}': "0 1x20",
        },
        ({"of": "provider"},),
    ),
    "ProvidersFail": Case(
        "30m",
        {
            'reputation_adjust_total{result="failure"}': "0+2x60",
            'reputation_adjust_total{result="success"}': "0+1x60",
        },
        {
            'reputation_adjust_total{result="failure"}': "0+1x60",
            'reputation_adjust_total{result="success"}': "0+1x60",
        },
    ),
    "CourierFailing": Case(
        "35m",
        {"courier_flush_attempt_total": "0+5x60", "courier_flush_failure_total": "0+3x60"},
        {"courier_flush_attempt_total": "0+6x60", "courier_flush_failure_total": "0+3x60"},
    ),
    "BundlesWait": Case(
        "130m",
        {"courier_oldest_pending_seconds": "0+60x240"},
        {"courier_oldest_pending_seconds": "0+60x120 30x120", "courier_pending": "1x240"},
    ),
}
