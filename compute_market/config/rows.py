"""What each setting means, its bounds, and its name in a file: one row per field of `Config`.

Files and variables are read in `config.files`. A home where neither sets anything needs none of
this, and one in which something does reads it with each command: annotations are not evaluated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from compute_market.amounts import PPM, format_ppm
from compute_market.backends import BACKENDS

if TYPE_CHECKING:
    from typing import Literal

_DAY_SECS = 86_400
_YEAR_SECS = 365 * _DAY_SECS
_BILLION = 1_000_000_000

KEY_ID_DIGITS: Final = 64  # hex

VARIABLES: Final = "TB_"  # what the names of all variables begin with

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
    field_name: str = ""  # the name in `Config`, where it is another one

    @property
    def field(self) -> str:
        """The name in `Config`."""
        return self.field_name or self.name

    @property
    def variable(self) -> str:
        """The environment variable that overrides a file: `TB_SCHEDULER_SLOTS`."""
        return VARIABLES + self.name.replace(".", "_").upper()

    @property
    def limits(self) -> str:
        """What is allowed, as a person reads it: `0…100 percent`, `"dry_run" or "real"`."""
        if self.kind == "path":
            return 'an absolute path or ""'
        if self.kind == "file":
            return "the path of a file, relative to the home or absolute, without ~"
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


def json_form(setting: Setting, value: Value) -> bool | int | float | str | list[str]:
    """The same value as JSON has it; six decimals are exact in a number."""
    if isinstance(value, tuple):
        return list(value)
    return value / PPM if setting.kind == "decimal" and isinstance(value, int) else value


# fmt: off
# In the order of the fields of `Config`.
SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "low_priority_cap_pct", "integer", (0, 100), "percent",
        "The share of the slots that low-priority jobs may have. A low-priority job always\n"
        "starts when nothing else is active.",
    ),
    Setting(
        "priority_aging_secs", "integer", (0, _YEAR_SECS), "seconds",
        "A job that waited this long is ordered one priority class higher; 0 switches this\n"
        "off.",
    ),
    Setting(
        "reputation_multiplier_min", "decimal", (1, PPM), "",
        "The lowest reputation multiplier an offer may have.",
        field_name="multiplier_min_ppm",
    ),
    Setting(
        "reputation_multiplier_max", "decimal", (1, PPM), "",
        "The highest reputation multiplier an offer may have.",
        field_name="multiplier_max_ppm",
    ),
    Setting(
        "party_slots_pct", "integer", (1, 100), "percent",
        "A buyer or provider that holds this share of the slots gets no further one while a\n"
        "job of others waits.",
    ),
    Setting(
        "deadline_min_secs", "integer", (0, _YEAR_SECS), "seconds",
        "The shortest time a job may leave its provider.",
    ),
    Setting(
        "deadline_max_secs", "integer", (1, 10_000 * _YEAR_SECS), "seconds",
        "The longest time a job may leave its provider, and so hold a slot.",
    ),
    Setting(
        "provider_cancel_penalty_after", "integer", (1, _BILLION), "cancels",
        "From this many cancels by one provider within the window on, part of its bond is\n"
        "lost.",
    ),
    Setting(
        "provider_cancel_window_secs", "integer", (1, _YEAR_SECS), "seconds",
        "How long a cancel by a provider is held against it.",
    ),
    Setting(
        "provider_cancel_slash_pct", "integer", (0, 100), "percent",
        "The part of the bond that is lost.",
    ),
    Setting(
        "enable_preempt", "flag", (), "",
        "Whether a new offer of a provider with a better earned score takes a running job\n"
        "over.",
    ),
    Setting(
        "preempt_min_delta", "integer", (1, 2_000), "points",
        "By how much the earned score of the new provider must be the higher one.",
    ),
    Setting(
        "provider_reputation_decay", "decimal", (0, PPM), "",
        "The part of its score a provider loses with each period without a change; 0 switches\n"
        "this off.",
        field_name="reputation_decay_ppm",
    ),
    Setting(
        "provider_reputation_decay_period_secs", "integer", (1, _YEAR_SECS), "seconds",
        "The period of that decay.",
        field_name="reputation_decay_period_secs",
    ),
    Setting(
        "provider_reputation_retention", "integer", (60, 100 * _YEAR_SECS), "seconds",
        "A provider whose score was zero for longer than this is forgotten.",
        field_name="reputation_retention_secs",
    ),
    Setting(
        "reputation_gossip", "flag", (), "",
        "Whether scores are told to peers, and theirs are listened to.",
    ),
    Setting(
        "courier_dest", "destination", (), "",
        "Where bundles go that name no destination. A relative directory is one in the home.",
    ),
    Setting(
        "courier_reward_ct", "integer", (0, _BILLION), "CT",
        "What the sender of a bundle earns once it has arrived, while settlement is real.",
    ),
    Setting(
        "courier_max_attempts", "integer", (1, 1_000), "attempts",
        "How often one flush tries to forward a bundle.",
    ),
    Setting(
        "courier_backoff_ms", "integer", (0, 3_600_000), "milliseconds",
        "The wait after the first failed attempt; each further one is twice as long.",
    ),
    Setting(
        "courier_timeout_secs", "integer", (1, _DAY_SECS), "seconds",
        "How long a destination may take without progress before an attempt has failed.",
    ),
    Setting(
        "courier_lease_secs", "integer", (1, _DAY_SECS), "seconds",
        "How long a flush has a bundle for itself; one that died blocks it no longer.",
    ),
    Setting(
        "courier_retention_secs", "integer", (0, 100 * _YEAR_SECS), "seconds",
        "How long an acknowledged bundle and its receipt are kept.",
    ),
    Setting(
        "settle_mode", "choice", ("dry_run", "real"), "",
        "The settlement mode of a new, empty store. A store that has a mode keeps it.",
    ),
    Setting(
        "initial_capacity", "integer", (1, _BILLION), "units per second",
        "The capacity assumed before any was recorded.",
    ),
    Setting(
        "min_capacity", "integer", (1, 10_000), "units per second",
        "No industrial job is admitted while the estimated capacity is below this.",
    ),
    Setting(
        "fair_share_cap", "decimal", (10_000, PPM), "",
        "The share of a minute's capacity one buyer or one provider may use without bursting.",
        field_name="fair_share_cap_ppm",
    ),
    Setting(
        "burst_quota", "decimal", (0, _BILLION * PPM), "units",
        "What one buyer or one provider may use beyond its fair share at once.",
        field_name="burst_quota_micro",
    ),
    Setting(
        "burst_refill_rate", "decimal", (0, PPM), "units per second",
        "How fast a used burst quota comes back.",
        field_name="burst_refill_rate_micro",
    ),
    Setting(
        "comfort_threshold_p90", "integer", (500, 25_000), "",
        "No industrial job is admitted while the 90th percentile of the last consumer fees is\n"
        "above this.",
    ),
    Setting(
        "comfort_max_age_p95_ms", "integer", (0, 86_400_000), "milliseconds",
        "Nor while a twentieth of the consumer pool has waited longer than this; 0 switches\n"
        "this off.",
    ),
    Setting(
        "block_tx_capacity", "integer", (1, 1_000_000), "transactions",
        "How many consumer transactions a block takes out of the pool.",
    ),
    Setting(
        "mempool_lane_limit", "integer", (1, 65_536), "transactions",
        "How many consumer transactions the pool holds; beyond that the one with the lowest\n"
        "fee per byte has to go.",
    ),
    Setting(
        "mempool_sender_limit", "integer", (1, 65_536), "transactions",
        "How many of them may be of one sender.",
    ),
    Setting(
        "price_board_path", "file", (), "",
        "Where the price board is kept. Deleting the file clears the board.",
    ),
    Setting(
        "price_board_window", "integer", (1, 10_000), "prices",
        "How many prices of each lane the price board looks back on.",
    ),
    Setting(
        "price_board_save_interval", "integer", (1, _DAY_SECS), "seconds",
        "How often a command that runs for long saves the price board.",
    ),
    Setting(
        "kappa_cpu_sub_it", "decimal", (0, _BILLION * PPM), "IT per unit",
        "What the subsidy pays for a proven compute unit at a multiplier of 100, while\n"
        "settlement is real; 0 switches payouts off.",
        field_name="kappa_cpu_sub_it_ppm",
    ),
    Setting(
        "block_interval_secs", "integer", (0, _DAY_SECS), "seconds",
        "The time from one block height to the next; with 0 the height moves only by hand.",
    ),
    Setting(
        "epoch_blocks", "integer", (1, _BILLION), "blocks",
        "The length of an epoch.",
    ),
    Setting(
        "bid_reveal_window", "integer", (2, _BILLION), "blocks",
        "How long after the height it was signed at a sealed bid may be revealed.",
    ),
    Setting(
        "bid_bond_ct", "integer", (0, _BILLION), "CT",
        "What a sealed bid costs its owner when it is not revealed in time.",
    ),
    Setting(
        "log_retention_secs", "integer", (3_600, 100 * _YEAR_SECS), "seconds",
        "How long an event stays in the log.",
    ),
    Setting(
        "outage_secs", "integer", (1, _YEAR_SECS), "seconds",
        "When no command ran for longer than this, a job whose deadline fell into that gap\n"
        "fails without fault.",
    ),
    Setting(
        "clock_tolerance_secs", "integer", (1, _DAY_SECS), "seconds",
        "How far the clock may be behind market time, or move ahead of the boot clock, before\n"
        "it is not believed.",
    ),
    Setting(
        "lock_timeout_secs", "integer", (0, _DAY_SECS), "seconds",
        "How long a command waits for another one that is writing.",
    ),
    Setting(
        "map_size_gib", "integer", (1, 1_048_576), "GiB",
        "The address space reserved for the store, hence its largest size. It takes no room\n"
        "on disk before it is used.",
    ),
    Setting(
        "backend", "choice", BACKENDS, "",
        "Where slices are hashed. With auto it is the GPU where `compute calibrate` found it\n"
        "faster, else the CPU.",
    ),
    Setting(
        "slice_root", "path", (), "",
        "The directory in which the slices of jobs must be, all links followed. Without one a\n"
        "job file may name any file that you can read.",
    ),
    Setting(
        "scheduler.slots", "integer", (1, 1_000_000), "jobs",
        "How many jobs may be active at once.",
        field_name="slots",
    ),
    Setting(
        "net.trusted", "key ids", (), "",
        "The keys of other markets whose receipts may be imported, which in the mode real\n"
        "moves money, and whose bundles, acknowledgements and scores are believed.",
        field_name="net_trusted",
    ),
    Setting(
        "net.peers", "urls", (), "",
        "The addresses of other markets, to which `net reputation sync` tells scores.",
        field_name="net_peers",
    ),
    Setting(
        "net.key", "key name", (), "",
        "The key of one's own that signs what goes to other markets. It is made when it is\n"
        "needed first.",
        field_name="net_key",
    ),
)
# fmt: on
