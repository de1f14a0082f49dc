"""The settings that govern a market, as `params` shows them."""

from typing import Any

from compute_market.amounts import MICRO, PPM
from compute_market.config.settings import Config


def document(config: Config) -> dict[str, Any]:
    """The parameters of settings: in units per second, as a ratio, in units, in units per second.

    Those of a transaction are the ones in force.
    """
    return {
        "min_capacity": config.min_capacity,
        "fair_share_cap": config.fair_share_cap_ppm / PPM,
        "burst_quota": config.burst_quota_micro / MICRO,
        "burst_refill_rate": config.burst_refill_rate_micro / MICRO,
    }
