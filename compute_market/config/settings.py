"""The settings in force: the field of each, and its default.

What a setting means, and what may be written for one, is in `config.rows`. Annotations are never
evaluated: every command imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from compute_market.home import PRICE_BOARD

if TYPE_CHECKING:
    from typing import Literal

    from compute_market.backends import BackendName


class Config(Struct, frozen=True, kw_only=True, gc=False):
    """The settings in force. Ratios are ppm, units of burst are millionths of a compute unit.

    Fields stand in the order of the file.
    """

    low_priority_cap_pct: int = 50
    priority_aging_secs: int = 0
    multiplier_min_ppm: int = 500_000
    multiplier_max_ppm: int = 1_000_000
    party_slots_pct: int = 50
    deadline_min_secs: int = 60
    deadline_max_secs: int = 2_592_000
    provider_cancel_penalty_after: int = 3
    provider_cancel_window_secs: int = 86_400
    provider_cancel_slash_pct: int = 10
    enable_preempt: bool = False
    preempt_min_delta: int = 10
    reputation_decay_ppm: int = 50_000
    reputation_decay_period_secs: int = 86_400
    reputation_retention_secs: int = 604_800
    reputation_gossip: bool = True
    courier_dest: str = "dir:outbox"
    courier_reward_ct: int = 1
    courier_max_attempts: int = 5
    courier_backoff_ms: int = 100
    courier_timeout_secs: int = 30
    courier_lease_secs: int = 300
    courier_retention_secs: int = 604_800
    settle_mode: Literal["dry_run", "real"] = "dry_run"
    initial_capacity: int = 100
    min_capacity: int = 10
    fair_share_cap_ppm: int = 250_000
    burst_quota_micro: int = 30_000_000
    burst_refill_rate_micro: int = 500_000
    comfort_threshold_p90: int = 2_500
    comfort_max_age_p95_ms: int = 30_000
    block_tx_capacity: int = 1_024
    mempool_lane_limit: int = 1_024
    mempool_sender_limit: int = 16
    price_board_path: str = PRICE_BOARD
    price_board_window: int = 100
    price_board_save_interval: int = 30
    kappa_cpu_sub_it_ppm: int = 1_000_000
    block_interval_secs: int = 1
    epoch_blocks: int = 60
    bid_reveal_window: int = 100
    bid_bond_ct: int = 1
    log_retention_secs: int = 7_776_000
    outage_secs: int = 3_600
    clock_tolerance_secs: int = 300
    lock_timeout_secs: float = 30
    map_size_gib: int = 64
    backend: BackendName = "auto"
    slice_root: str = ""
    slots: int = 64
    net_trusted: tuple[str, ...] = ()
    net_peers: tuple[str, ...] = ()
    net_key: str = "node"

    @property
    def score_terms(self) -> int:
        """What decides when time alone changes a score, as one number that is never 0: decay in
        ppm, its period in 32 bits of seconds, retention in 40."""
        period = self.reputation_decay_ppm << 32 | self.reputation_decay_period_secs
        return period << 40 | self.reputation_retention_secs


DEFAULTS = Config()
