"""Every alert: when it fires, what that means in this market, and what to look at first.

Ranges and waits are written in full, in the units of Prometheus, so that a test can shorten them.
Thresholds of seconds are compared with market time and are numbers.
"""

import re
from typing import Final, Literal, NamedTuple

# Money, data or time is lost; it is to be looked at the same day; it is good to know.
Severity = Literal["critical", "warning", "info"]

_THRESHOLD: Final = re.compile(r"(?:>|==|<) (\d+(?:\.\d+)?)")


class Alert(NamedTuple):
    name: str
    expr: str
    wait: str  # how long the expression must hold
    severity: Severity
    summary: str
    means: str
    look: str  # the first command to run

    @property
    def threshold(self) -> float:
        """The number that its expression compares with first."""
        found = _THRESHOLD.search(self.expr)
        assert found is not None, f"{self.name} compares with no number"
        return float(found[1])

    @property
    def anchor(self) -> str:
        """That of its section in the runbooks."""
        return self.name.lower()


def _rose(series: str, within: str = "1h") -> str:
    """Whether a counter rose lately.

    Not `increase`: where a backup is restored counters drop, and the whole of what is left would
    be taken for the increase.
    """
    return f"changes({series}[{within}]) > resets({series}[{within}])"


def _unless_restored(over: str, *series: str) -> str:
    """What an expression of increases and rates is silent for: counters that dropped meanwhile."""
    dropped = " + ".join(f"resets({each}[{over}])" for each in series)
    return f"\nunless {dropped} > 0"


_REFUSED: Final = 'industrial_rejected_total{reason=~"capacity|fair_share|burst_exhausted"}'
_UNMATCHED: Final = 'scheduler_match_total{result!="success"}'

GROUPS: Final[dict[str, tuple[Alert, ...]]] = {
    "operation": (
        Alert(
            "MarketUnseen",
            'up{job="compute-market"} == 0 or absent(tb_build_info)',
            "5m",
            "critical",
            "Nothing is heard of the market.",
            "The server is down or cannot be reached, or no textfile is collected: no other alert "
            "can fire.",
            "tb-cli status",
        ),
        Alert(
            "NothingRuns",
            "time() - tb_last_run_timestamp_seconds > 600\nunless clock_held == 1",
            "1m",
            "critical",
            "Nothing has changed the market for ten minutes.",
            "The timer of `tick` is dead, or `tick` fails: deadlines, arming and subsidies that "
            "are due are not done.",
            "tb-cli status",
        ),
        Alert(
            "ClockHeld",
            "clock_held == 1",
            "1m",
            "critical",
            "The clock is not believed.",
            "Market time stands still and nothing falls due until the clock is right or accepted.",
            "tb-cli compute-market clock",
        ),
        Alert(
            "StoreNearlyFull",
            "store_map_used_ratio > 0.8",
            "5m",
            "critical",
            "The data file has used 80 % of what it may grow to.",
            "Once nothing is left every change fails with code 8, and nothing is written.",
            "tb-cli state info",
        ),
        Alert(
            "BackupOld",
            "time() - store_last_backup_timestamp_seconds > 129600",
            "1h",
            "warning",
            "There is no backup of the last 36 hours.",
            "What came after the last backup is lost with the disk.",
            "tb-cli state info",
        ),
    ),
    "settlement": (
        Alert(
            "SettlementFell",
            'settlement_mode{mode="dry_run"} == 1\n'
            'and ignoring (mode, to) (settle_mode_change_total{to="real"} > 0\n'
            "or ignoring (to) settle_applied_total > 0)",
            "0m",
            "critical",
            "Money moved, and moves no longer.",
            "The settlement mode fell to dry_run: receipts are recorded, and nobody is paid.",
            "tb-cli compute-market settle status",
        ),
        Alert(
            "SettlementFailures",
            _rose("settle_failed_total"),
            "0m",
            "critical",
            "A receipt could not be paid.",
            "A receipt of another market found its buyer without the money; the mode fell to "
            "dry_run with it.",
            "tb-cli compute-market settle status",
        ),
        Alert(
            "ReceiptsWait",
            "settle_oldest_pending_seconds > 3600",
            "0m",
            "warning",
            "A receipt has waited for more than an hour to be paid.",
            "Money is held for them in escrow until the mode is real.",
            "tb-cli compute-market settle status",
        ),
        Alert(
            "ReceiptsNotStored",
            _rose("receipt_persist_fail_total"),
            "0m",
            "critical",
            "A receipt could not be stored.",
            "The disk or the data file was full: what was proven counts for nothing until it is "
            "proven again.",
            "tb-cli state info",
        ),
        Alert(
            "ReceiptsCorrupt",
            _rose("receipt_corrupt_total"),
            "0m",
            "critical",
            "A stored receipt was damaged and put into quarantine.",
            "The disk or the memory fails: other records may be damaged as well.",
            "tb-cli state check",
        ),
    ),
    "admission": (
        Alert(
            "ComfortBreached",
            'admission_mode{mode="tight"} == 1',
            "10m",
            "warning",
            "The comfort guard has been tight for ten minutes.",
            "Consumers pay or wait too much, so no industrial job is let in.",
            "tb-cli mempool stats",
        ),
        Alert(
            "JobsDeferred",
            "rate(industrial_deferred_total[15m])\n"
            "/ (rate(industrial_admitted_total[15m]) + rate(industrial_deferred_total[15m])) > 0.3"
            + _unless_restored("15m", "industrial_admitted_total", "industrial_deferred_total"),
            "5m",
            "warning",
            "More than 30 % of the jobs are kept out by the present load.",
            "They would fit an idle market: the capacity is too small, or recorded too low.",
            "tb-cli compute-market capacity show",
        ),
        Alert(
            "JobsRefused",
            f"sum without (reason)\n(increase({_REFUSED}[15m])) > 10\n"
            f"unless sum without (reason)\n(resets({_REFUSED}[15m])) > 0",
            "0m",
            "warning",
            "More than ten jobs were refused in fifteen minutes.",
            "Somebody submits more than the share of a party or the whole capacity.",
            "tb-cli compute-market capacity show",
        ),
        Alert(
            "NoHeadroom",
            "capacity_headroom_units / (60 * capacity_units_per_second) < 0.1",
            "10m",
            "warning",
            "Less than a tenth of a minute's capacity is left.",
            "Jobs of any size are about to be refused.",
            "tb-cli compute-market capacity show",
        ),
    ),
    "scheduler": (
        Alert(
            "QueueStands",
            "sum without (priority) (scheduler_queue_depth) > 0\n"
            "and increase(industrial_units_total[30m]) == 0",
            "15m",
            "warning",
            "Jobs wait for a slot, and no work is proven.",
            "Active jobs hold the slots, and nobody executes them.",
            "tb-cli compute list --state active",
        ),
        Alert(
            "JobsWaitLong",
            "scheduler_oldest_wait_seconds > 3600",
            "0m",
            "warning",
            "A job has waited for a slot for more than an hour.",
            "There are too few slots for the jobs, or low jobs have used up their share.",
            "tb-cli compute queue",
        ),
        Alert(
            "SlotsFull",
            'scheduler_slots{state="free"} == 0',
            "30m",
            "info",
            "No slot has been free for half an hour.",
            "New jobs wait even where offers have units left.",
            "tb-cli compute list --state active",
        ),
        Alert(
            "PriorityJobsLate",
            _rose("scheduler_priority_miss_total", "15m"),
            "0m",
            "warning",
            "A high or normal job waited more than five seconds for its slot.",
            "Slots are scarce even for those who should come first.",
            "tb-cli compute queue",
        ),
        Alert(
            "JobsFindNoOffer",
            "scheduler_oldest_pending_seconds > 3600",
            "0m",
            "warning",
            "A job has waited for an offer for more than an hour.",
            "Offers are missing, too dear or in bad standing, or a buyer lacks the money.",
            "tb-cli compute queue",
        ),
        Alert(
            "MatchesFail",
            f"sum without (result) (increase({_UNMATCHED}[15m])) > 10\n"
            f"unless sum without (result) (resets({_UNMATCHED}[15m])) > 0",
            "0m",
            "warning",
            "More than ten matches found no offer in fifteen minutes.",
            "What is asked for is not offered: which stage fails is in the label `result`.",
            "tb-cli compute stats",
        ),
    ),
    "offers": (
        Alert(
            "NothingToBuy",
            'offers{state="open"} == 0',
            "15m",
            "warning",
            "There is no open offer.",
            "Every offer is exhausted or withdrawn, so no job can be placed.",
            "tb-cli compute offer list",
        ),
        Alert(
            "ProvidersBarred",
            "offers_barred > 0",
            "1h",
            "warning",
            "Offers of providers in bad standing are not matched.",
            "Their score is below zero, until time or an operator lifts it.",
            "tb-cli net reputation show",
        ),
        Alert(
            "PricesJumped",
            "price_band_median > 2 * (price_band_median offset 1h)",
            "0m",
            "info",
            "The median price is more than twice that of an hour ago.",
            "Cheap offers have run out, or somebody has taken the market.",
            "tb-cli compute-market prices show",
        ),
        Alert(
            "PriceBoardLost",
            _rose('price_board_save_total{result="failed"}')
            + "\nor "
            + _rose('price_board_load_total{result="damaged"}'),
            "0m",
            "warning",
            "The price board could not be saved, or was damaged.",
            "Bands and suggested bids rest on fewer prices than there were; no money is concerned.",
            "tb-cli compute-market prices show",
        ),
    ),
    "reputation": (
        Alert(
            "DeadlinesMissed",
            _rose('industrial_rejected_total{reason="SLA"}'),
            "0m",
            "warning",
            "A provider missed a deadline.",
            "The job failed and its buyer got the money back; the provider lost standing.",
            "tb-cli compute list --state failed",
        ),
        Alert(
            "SlaSlashesRising",
            _rose('bonds_burned_total{of="provider"}'),
            "0m",
            "critical",
            "Bonds of providers were burned.",
            "CT left the market for good, for deadlines missed or too many cancelled jobs.",
            "tb-cli log --event bond_burned --since 2h",
        ),
        Alert(
            "ProvidersFail",
            'increase(reputation_adjust_total{result="failure"}[1h])\n'
            '> ignoring (result) increase(reputation_adjust_total{result="success"}[1h])\n'
            "unless sum without (result) (resets(reputation_adjust_total[1h])) > 0",
            "15m",
            "warning",
            "More jobs fail than succeed.",
            "Scores fall; providers are on the way to being barred.",
            "tb-cli net reputation show",
        ),
    ),
    "courier": (
        Alert(
            "CourierFailing",
            "increase(courier_flush_failure_total[30m]) "
            "/ increase(courier_flush_attempt_total[30m]) > 0.5"
            + _unless_restored("30m", "courier_flush_failure_total", "courier_flush_attempt_total"),
            "5m",
            "warning",
            "More than half of the attempts to forward a bundle fail.",
            "The destination is down, refuses the bundles, or does not trust this market's key.",
            "tb-cli compute courier list --pending",
        ),
        Alert(
            "BundlesWait",
            "courier_oldest_pending_seconds > 7200",
            "5m",
            "warning",
            "A bundle has waited for more than two hours to be acknowledged.",
            "The timer of `courier flush` is dead, or nobody acknowledges.",
            "tb-cli compute courier list --pending",
        ),
    ),
}

ALERTS: Final = tuple(alert for group in GROUPS.values() for alert in group)

# What alerts ask for that is not of this market: Prometheus makes it of every target.
FOREIGN: Final = frozenset(("up",))

_RANGE: Final = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smhd])")


def shortened(alert: Alert, ranges: str, wait: str) -> Alert:
    """It with all ranges and offsets of one length, for a test that cannot wait for hours."""
    return alert._replace(expr=_RANGE.sub(ranges, alert.expr), wait=wait)
