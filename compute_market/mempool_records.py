"""The consumer pool as it is stored; see `records`."""

from msgspec import Struct


class Transaction(Struct, frozen=True, array_like=True, gc=False):
    """One transaction that waits for a block."""

    seq: int  # the number in its id
    sender: str
    fee: int
    bytes: int
    at_ms: int  # when it was admitted

    @property
    def tx_id(self) -> str:
        return f"t-{self.seq}"


class Pool(Struct, frozen=True, array_like=True, gc=False):
    """What is asked of the pool again and again, kept as it changes."""

    size: int = 0
    p50_ms: int = 0  # when the one came whose age is the median; 0 of an empty pool
    p95_ms: int = 0  # the same of the 95th percentile
    fee_p50: int = 0  # of the last fees that were admitted; 0 before the first
    fee_p90: int = 0
