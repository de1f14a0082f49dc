"""Every setting: its default, its bounds, what it means, and its name in a file.

Files and variables are read in `config.files`. What a setting means is looked at only where one is
read or shown, so the annotations below are evaluated no earlier.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_type_hints

from msgspec import Struct
from msgspec.structs import replace

from compute_market.amounts import PPM, format_ppm
from compute_market.backends import BACKENDS, BackendName
from compute_market.home import PRICE_BOARD

_DAY_SECS = 86_400
_YEAR_SECS = 365 * _DAY_SECS
_BILLION = 1_000_000_000

KEY_ID_DIGITS: Final = 64  # hex

Value = int | str | tuple[str, ...]

# What a destination of bundles begins with, and how the address of a peer does.
DESTINATION_SCHEMES: Final = ("dir:", "http://", "https://", "exec:")
URL_SCHEMES: Final = ("http://", "https://")


class Setting(Struct, frozen=True, gc=False):
    """What a configuration file may say about one field of `Config`."""

    # The key, with its section before a dot: `min_capacity`, `scheduler.slots`.
    name: str
    # A decimal is written as a number or as a string and held in millionths, as are its bounds.
    kind: Literal[
        "integer",
        "decimal",
        "choice",
        "flag",
        "path",
        "file",
        "key ids",
        "urls",
        "destination",
        "key name",
    ]
    allowed: tuple[int, int] | tuple[str, ...]
    unit: str
    help: str
    field: str = ""  # the name in `Config`

    @property
    def variable(self) -> str:
        """The environment variable that overrides a file: `TB_SCHEDULER_SLOTS`."""
        return "TB_" + self.name.replace(".", "_").upper()

    @property
    def limits(self) -> str:
        """What is allowed, as a person reads it: `0…100 percent`, `"dry_run" or "real"`."""
        if self.kind == "path":
            return 'an absolute path or ""'
        if self.kind == "file":
            return "a path; a relative one is one in the home"
        if self.kind == "key ids":
            return f"a list of key ids of {KEY_ID_DIGITS} lower-case hex digits"
        if self.kind == "urls":
            return "a list of addresses that begin with http:// or https://"
        if self.kind == "destination":
            return "dir:PATH, http://HOST/…, https://HOST/… or exec:PROGRAM"
        if self.kind == "key name":
            return "the name of a key"
        if self.kind == "flag":
            return "true or false"
        if self.kind == "choice":
            return " or ".join(file_form(self, choice) for choice in self.allowed)
        least, most = (file_form(self, bound) for bound in self.allowed)
        return f"{least}…{most} {self.unit}".rstrip()


def file_form(setting: Setting, value: Value) -> str:
    """The text that stands for `value` in a configuration file, and that reads back as it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(file_form(setting, each) for each in value)}]"
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'
    if setting.kind == "integer":
        return str(value)
    text = format_ppm(value)
    return text if "." in text else f"{text}.0"


# fmt: off
class Config(Struct, frozen=True, kw_only=True, gc=False):
    """The settings in force. Ratios are ppm, units of burst are millionths of a compute unit.

    Fields stand in the order of the file.
    """

    low_priority_cap_pct: Annotated[
        int,
        Setting("low_priority_cap_pct", "integer", (0, 100), "percent",
            "The share of the slots that low-priority jobs may have. A low-priority job always\n"
            "starts when nothing else is active."),
    ] = 50
    priority_aging_secs: Annotated[
        int,
        Setting("priority_aging_secs", "integer", (0, _YEAR_SECS), "seconds",
            "A job that waited this long is ordered one priority class higher; 0 switches this\n"
            "off."),
    ] = 0
    multiplier_min_ppm: Annotated[
        int,
        Setting("reputation_multiplier_min", "decimal", (1, PPM), "",
            "The lowest reputation multiplier an offer may have."),
    ] = 500_000
    multiplier_max_ppm: Annotated[
        int,
        Setting("reputation_multiplier_max", "decimal", (1, PPM), "",
            "The highest reputation multiplier an offer may have."),
    ] = 1_000_000
    party_slots_pct: Annotated[
        int,
        Setting("party_slots_pct", "integer", (1, 100), "percent",
            "A buyer or provider that holds this share of the slots gets no further one while a\n"
            "job of others waits."),
    ] = 50
    deadline_min_secs: Annotated[
        int,
        Setting("deadline_min_secs", "integer", (0, _YEAR_SECS), "seconds",
            "The shortest time a job may leave its provider."),
    ] = 60
    deadline_max_secs: Annotated[
        int,
        Setting("deadline_max_secs", "integer", (1, 10_000 * _YEAR_SECS), "seconds",
            "The longest time a job may leave its provider, and so hold a slot."),
    ] = 2_592_000
    provider_cancel_penalty_after: Annotated[
        int,
        Setting("provider_cancel_penalty_after", "integer", (1, _BILLION), "cancels",
            "From this many cancels by one provider within the window on, part of its bond is\n"
            "lost."),
    ] = 3
    provider_cancel_window_secs: Annotated[
        int,
        Setting("provider_cancel_window_secs", "integer", (1, _YEAR_SECS), "seconds",
            "How long a cancel by a provider is held against it."),
    ] = 86_400
    provider_cancel_slash_pct: Annotated[
        int,
        Setting("provider_cancel_slash_pct", "integer", (0, 100), "percent",
            "The part of the bond that is lost."),
    ] = 10
    enable_preempt: Annotated[
        bool,
        Setting("enable_preempt", "flag", (), "",
            "Whether a new offer of a provider with a better earned score takes a running job\n"
            "over."),
    ] = False
    preempt_min_delta: Annotated[
        int,
        Setting("preempt_min_delta", "integer", (1, 2_000), "points",
            "By how much the earned score of the new provider must be the higher one."),
    ] = 10
    reputation_decay_ppm: Annotated[
        int,
        Setting("provider_reputation_decay", "decimal", (0, PPM), "",
            "The part of its score a provider loses with each period without a change; 0 switches\n"
            "this off."),
    ] = 50_000
    reputation_decay_period_secs: Annotated[
        int,
        Setting("provider_reputation_decay_period_secs", "integer", (1, _YEAR_SECS), "seconds",
            "The period of that decay."),
    ] = 86_400
    reputation_retention_secs: Annotated[
        int,
        Setting("provider_reputation_retention", "integer", (60, 100 * _YEAR_SECS), "seconds",
            "A provider whose score was zero for longer than this is forgotten."),
    ] = 604_800
    reputation_gossip: Annotated[
        bool,
        Setting("reputation_gossip", "flag", (), "",
            "Whether scores are told to peers, and theirs are listened to."),
    ] = True
    courier_dest: Annotated[
        str,
        Setting("courier_dest", "destination", (), "",
            "Where bundles go that name no destination. A relative directory is one in the home."),
    ] = "dir:outbox"
    courier_reward_ct: Annotated[
        int,
        Setting("courier_reward_ct", "integer", (0, _BILLION), "CT",
            "What the sender of a bundle earns once it has arrived, while settlement is real."),
    ] = 1
    courier_max_attempts: Annotated[
        int,
        Setting("courier_max_attempts", "integer", (1, 1_000), "attempts",
            "How often one flush tries to forward a bundle."),
    ] = 5
    courier_backoff_ms: Annotated[
        int,
        Setting("courier_backoff_ms", "integer", (0, 3_600_000), "milliseconds",
            "The wait after the first failed attempt; each further one is twice as long."),
    ] = 100
    courier_timeout_secs: Annotated[
        int,
        Setting("courier_timeout_secs", "integer", (1, _DAY_SECS), "seconds",
            "How long a destination may take without progress before an attempt has failed."),
    ] = 30
    courier_lease_secs: Annotated[
        int,
        Setting("courier_lease_secs", "integer", (1, _DAY_SECS), "seconds",
            "How long a flush has a bundle for itself; one that died blocks it no longer."),
    ] = 300
    courier_retention_secs: Annotated[
        int,
        Setting("courier_retention_secs", "integer", (0, 100 * _YEAR_SECS), "seconds",
            "How long an acknowledged bundle and its receipt are kept."),
    ] = 604_800
    settle_mode: Annotated[
        Literal["dry_run", "real"],
        Setting("settle_mode", "choice", ("dry_run", "real"), "",
            "The settlement mode of a new, empty store. A store that has a mode keeps it."),
    ] = "dry_run"
    initial_capacity: Annotated[
        int,
        Setting("initial_capacity", "integer", (1, _BILLION), "units per second",
            "The capacity assumed before any was recorded."),
    ] = 100
    min_capacity: Annotated[
        int,
        Setting("min_capacity", "integer", (1, 10_000), "units per second",
            "No industrial job is admitted while the estimated capacity is below this."),
    ] = 10
    fair_share_cap_ppm: Annotated[
        int,
        Setting("fair_share_cap", "decimal", (10_000, PPM), "",
            "The share of a minute's capacity one buyer or one provider may use without bursting."),
    ] = 250_000
    burst_quota_micro: Annotated[
        int,
        Setting("burst_quota", "decimal", (0, _BILLION * PPM), "units",
            "What one buyer or one provider may use beyond its fair share at once."),
    ] = 30_000_000
    burst_refill_rate_micro: Annotated[
        int,
        Setting("burst_refill_rate", "decimal", (0, PPM), "units per second",
            "How fast a used burst quota comes back."),
    ] = 500_000
    comfort_threshold_p90: Annotated[
        int,
        Setting("comfort_threshold_p90", "integer", (500, 25_000), "fee",
            "No industrial job is admitted while the 90th percentile of the last consumer fees is\n"
            "above this."),
    ] = 2_500
    comfort_max_age_p95_ms: Annotated[
        int,
        Setting("comfort_max_age_p95_ms", "integer", (0, 86_400_000), "milliseconds",
            "Nor while a twentieth of the consumer pool has waited longer than this; 0 switches\n"
            "this off."),
    ] = 30_000
    block_tx_capacity: Annotated[
        int,
        Setting("block_tx_capacity", "integer", (1, 1_000_000), "transactions",
            "How many consumer transactions a block takes out of the pool."),
    ] = 1_024
    mempool_lane_limit: Annotated[
        int,
        Setting("mempool_lane_limit", "integer", (1, 65_536), "transactions",
            "How many consumer transactions the pool holds; beyond that the one with the lowest\n"
            "fee per byte has to go."),
    ] = 1_024
    mempool_sender_limit: Annotated[
        int,
        Setting("mempool_sender_limit", "integer", (1, 65_536), "transactions",
            "How many of them may be of one sender."),
    ] = 16
    price_board_path: Annotated[
        str,
        Setting("price_board_path", "file", (), "",
            "Where the price board is kept. Deleting the file clears the board."),
    ] = PRICE_BOARD
    price_board_window: Annotated[
        int,
        Setting("price_board_window", "integer", (1, 10_000), "prices",
            "How many prices of each lane the price board looks back on."),
    ] = 100
    price_board_save_interval: Annotated[
        int,
        Setting("price_board_save_interval", "integer", (1, _DAY_SECS), "seconds",
            "How often a command that runs for long saves the price board."),
    ] = 30
    kappa_cpu_sub_it_ppm: Annotated[
        int,
        Setting("kappa_cpu_sub_it", "decimal", (0, _BILLION * PPM), "IT per unit",
            "What the subsidy pays for a proven compute unit at a multiplier of 100, while\n"
            "settlement is real; 0 switches payouts off."),
    ] = 1_000_000
    block_interval_secs: Annotated[
        int,
        Setting("block_interval_secs", "integer", (0, _DAY_SECS), "seconds",
            "The time from one block height to the next; with 0 the height moves only by hand."),
    ] = 1
    epoch_blocks: Annotated[
        int,
        Setting("epoch_blocks", "integer", (1, _BILLION), "blocks",
            "The length of an epoch."),
    ] = 60
    bid_reveal_window: Annotated[
        int,
        Setting("bid_reveal_window", "integer", (2, _BILLION), "blocks",
            "How long after the height it was signed at a sealed bid may be revealed."),
    ] = 100
    bid_bond_ct: Annotated[
        int,
        Setting("bid_bond_ct", "integer", (0, _BILLION), "CT",
            "What a sealed bid costs its owner when it is not revealed in time."),
    ] = 1
    log_retention_secs: Annotated[
        int,
        Setting("log_retention_secs", "integer", (3_600, 100 * _YEAR_SECS), "seconds",
            "How long an event stays in the log."),
    ] = 7_776_000
    outage_secs: Annotated[
        int,
        Setting("outage_secs", "integer", (1, _YEAR_SECS), "seconds",
            "When no command ran for longer than this, a job whose deadline fell into that gap\n"
            "fails without fault."),
    ] = 3_600
    clock_tolerance_secs: Annotated[
        int,
        Setting("clock_tolerance_secs", "integer", (1, _DAY_SECS), "seconds",
            "How far the clock may be behind market time, or move ahead of the boot clock, before\n"
            "it is not believed."),
    ] = 300
    lock_timeout_secs: Annotated[
        float,
        Setting("lock_timeout_secs", "integer", (0, _DAY_SECS), "seconds",
            "How long a command waits for another one that is writing."),
    ] = 30
    map_size_gib: Annotated[
        int,
        Setting("map_size_gib", "integer", (1, 1_048_576), "GiB",
            "The address space reserved for the store, hence its largest size. It takes no room\n"
            "on disk before it is used."),
    ] = 64
    backend: Annotated[
        BackendName,
        Setting("backend", "choice", BACKENDS, "",
            "Where slices are hashed. With auto it is the GPU where `compute calibrate` found it\n"
            "faster, else the CPU."),
    ] = "auto"
    slice_root: Annotated[
        str,
        Setting("slice_root", "path", (), "",
            "The directory in which the slices of jobs must be, all links followed. Without one a\n"
            "job file may name any file that you can read."),
    ] = ""
    slots: Annotated[
        int,
        Setting("scheduler.slots", "integer", (1, 1_000_000), "jobs",
            "How many jobs may be active at once."),
    ] = 64
    net_trusted: Annotated[
        tuple[str, ...],
        Setting("net.trusted", "key ids", (), "",
            "The keys of other markets whose receipts may be imported, which in the mode real\n"
            "moves money, and whose bundles, acknowledgements and scores are believed."),
    ] = ()
    net_peers: Annotated[
        tuple[str, ...],
        Setting("net.peers", "urls", (), "",
            "The addresses of other markets, to which `net reputation sync` tells scores."),
    ] = ()
    net_key: Annotated[
        str,
        Setting("net.key", "key name", (), "",
            "The key of one's own that signs what goes to other markets. It is made when it is\n"
            "needed first."),
    ] = "node"
    # fmt: on

    @property
    def score_terms(self) -> int:
        """What decides when time alone changes a score, as one number that is never 0: decay in
        ppm, its period in 32 bits of seconds, retention in 40."""
        period = self.reputation_decay_ppm << 32 | self.reputation_decay_period_secs
        return period << 40 | self.reputation_retention_secs


def rows() -> tuple[Setting, ...]:
    """What a file may say, in the order of the fields of `Config`."""
    hints = get_type_hints(Config, include_extras=True)
    return tuple(replace(hint.__metadata__[0], field=field) for field, hint in hints.items())


DEFAULTS = Config()
