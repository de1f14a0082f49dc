"""Verbs on what governs the market: params."""

from compute_market.amounts import MICRO, PPM
from tb_cli.frame.render import write_json
from tb_cli.frame.session import Session


def show(session: Session) -> None:
    """They are in units per second, as a ratio, in units, and in units per second."""
    config = session.config
    write_json(
        {
            "min_capacity": config.min_capacity,
            "fair_share_cap": config.fair_share_cap_ppm / PPM,
            "burst_quota": config.burst_quota_micro / MICRO,
            "burst_refill_rate": config.burst_refill_rate_micro / MICRO,
        }
    )
