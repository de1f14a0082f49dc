"""Epochs of the subsidy as they are stored; see `records`."""

from typing import Literal

from msgspec import Struct

# Why a payout was not paid.
Unpaid = Literal["mode", "overflow"]


class Epochs(Struct, frozen=True, array_like=True, gc=False):
    """One epoch that has ended, or several in a row that ended alike and in which nothing was
    proven; stored under the height at which the first began."""

    from_height: int
    to_height: int  # the last height of the last one
    blocks: int  # `epoch_blocks` when they ended
    multiplier: int  # percent, as the sample at the end has made it
    backlog: int  # units, at the end
    utilization_pct: int  # of the last minute
    units: int = 0  # proven in it
    kappa_ppm: int = 0  # IT per unit that was paid for at a multiplier of 100; 0 without units
    compute_it: int = 0  # the payout, at most 2^63-1
    unpaid: Unpaid | None = None

    @property
    def paid(self) -> bool:
        """Whether there was a payout, and it went to wallets."""
        return self.compute_it > 0 and self.unpaid is None


class Payouts(Struct, frozen=True, gc=False):
    """What an epoch pays, in IT. Of storage and of reads a compute market knows nothing."""

    storage: int
    read: int
    compute: int
