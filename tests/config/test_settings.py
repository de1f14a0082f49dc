"""Settings: their defaults are those of the documents, and each has one row."""

import msgspec
import pytest

from compute_market.config.rows import SETTINGS
from compute_market.config.settings import DEFAULTS, Config


def test_defaults_are_those_of_the_documents() -> None:
    assert msgspec.structs.asdict(DEFAULTS) == {
        "slots": 64,
        "low_priority_cap_pct": 50,
        "priority_aging_secs": 0,
        "party_slots_pct": 50,
        "deadline_min_secs": 60,
        "deadline_max_secs": 2_592_000,
        "multiplier_min_ppm": 500_000,
        "multiplier_max_ppm": 1_000_000,
        "provider_cancel_penalty_after": 3,
        "provider_cancel_window_secs": 86_400,
        "provider_cancel_slash_pct": 10,
        "settle_mode": "dry_run",
        "initial_capacity": 100,
        "min_capacity": 10,
        "fair_share_cap_ppm": 250_000,
        "burst_quota_micro": 30_000_000,
        "burst_refill_rate_micro": 500_000,
        "block_interval_secs": 1,
        "epoch_blocks": 60,
        "bid_reveal_window": 100,
        "bid_bond_ct": 1,
        "log_retention_secs": 7_776_000,
        "outage_secs": 3_600,
        "clock_tolerance_secs": 300,
        "lock_timeout_secs": 30,
        "map_size_gib": 64,
        "backend": "auto",
        "slice_root": "",
        "net_trusted": (),
        "net_peers": (),
        "net_key": "node",
        "enable_preempt": False,
        "preempt_min_delta": 10,
        "reputation_decay_ppm": 50_000,
        "reputation_decay_period_secs": 86_400,
        "reputation_retention_secs": 604_800,
        "reputation_gossip": True,
        "courier_dest": "dir:outbox",
        "courier_reward_ct": 1,
        "courier_max_attempts": 5,
        "courier_backoff_ms": 100,
        "courier_timeout_secs": 30,
        "courier_lease_secs": 300,
        "courier_retention_secs": 604_800,
        "comfort_threshold_p90": 2_500,
        "comfort_max_age_p95_ms": 30_000,
        "block_tx_capacity": 1_024,
        "mempool_lane_limit": 1_024,
        "mempool_sender_limit": 16,
        "price_board_path": "state/price_board.v2.bin",
        "price_board_window": 100,
        "price_board_save_interval": 30,
        "kappa_cpu_sub_it_ppm": 1_000_000,
    }


def test_settings_cover_every_field_in_its_order() -> None:
    assert tuple(setting.field for setting in SETTINGS) == Config.__struct_fields__
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)


def test_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        DEFAULTS.slots = 1  # type: ignore[misc]
