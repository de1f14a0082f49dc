"""What a scenario says: who is there, what they do, and for how long.

Records alone; `scenario_files` reads them from TOML. Times named `*_secs` count from the start of
the simulation, other spans are lengths. Ratios are decimals from 0 to 1.
"""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct

from compute_market.amounts import AMOUNT_MAX, PPM
from compute_market.config.settings import DEFAULTS, Config
from compute_market.records import Lane, Mode, Priority
from compute_market.requests import Amount, CapabilityRequest
from compute_market.simulation.draws import Amounts

LENGTH_SECS_MAX = 10 * 366 * 86_400
COUNT_MAX = 1_000_000
START_MS = 1_800_000_000_000  # 2027-01-15, a day as good as any

Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Secs = Annotated[int, Meta(ge=0, le=LENGTH_SECS_MAX)]
Span = Annotated[int, Meta(ge=1, le=LENGTH_SECS_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]
Share = Annotated[Decimal, Meta(ge=0, le=1)]
Process = Literal["poisson", "constant", "burst", "trace"]
# What becomes of the jobs of a provider that goes away.
Leaving = Literal["finishes", "pauses", "cancels"]
# How a job fails that its provider does not do: it never proves, it cancels, or what it proves is
# wrong first.
Failure = Literal["silent", "cancels", "wrong"]


class Arrivals(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When something arrives, from `from_secs` until before `until_secs` or the end.

    `poisson` and `constant` have a rate `per_minute`; `burst` brings `size` at once, every
    `every_secs`; `trace` reads `file`, in which its own times count.
    """

    process: Process
    per_minute: Annotated[Decimal, Meta(gt=0, le=60_000_000)] | None = None
    size: Count | None = None
    every_secs: Span | None = None
    file: Annotated[str, Meta(min_length=1)] | None = None
    format: Literal["swf", "openb"] | None = None
    from_secs: Secs = 0
    until_secs: Secs | None = None

    def __post_init__(self) -> None:
        wanted = _ARRIVALS[self.process]
        for key in ("per_minute", "size", "every_secs", "file"):
            if (getattr(self, key) is None) == (key in wanted):
                verb = "needs" if key in wanted else "has no"
                raise ValueError(f"{self.process} {verb} {key}")
        if self.format is not None and self.process != "trace":
            raise ValueError(f"{self.process} has no format")
        if self.until_secs is not None and self.until_secs <= self.from_secs:
            raise ValueError(f"until_secs {self.until_secs} is not after from_secs")


_ARRIVALS: dict[Process, tuple[str, ...]] = {
    "poisson": ("per_minute",),
    "constant": ("per_minute",),
    "burst": ("size", "every_secs"),
    "trace": ("file",),
}


class PriceChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From a second on the offers of a provider cost something else."""

    at_secs: Secs
    price_per_unit: Amounts


class Providers(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of `count` providers that are alike; each draws its own numbers.

    Each has one open offer of `units` at a time: posts it when it comes, another one when that is
    used up (`restocks`), and one at the new price when its price changes.
    """

    name: Name
    count: Count = 1
    units: Amounts = 1_000
    price_per_unit: Amounts = 5
    price_changes: list[PriceChange] = []
    capability: CapabilityRequest = CapabilityRequest()
    fee_pct_ct: Annotated[int, Meta(ge=0, le=100)] = 100
    provider_bond: Amount = 1
    consumer_bond: Amount = 1
    reputation: Annotated[int, Meta(ge=-1_000, le=1_000)] = 0  # as it advertises itself
    reputation_multiplier: Share = Decimal(1)
    ct: Amount = 1_000_000  # paid into its wallet at the start
    restocks: bool = True
    unit_ms: Amounts = 1_000  # that it takes for a unit; drawn for each job
    reliability: Share = Decimal(1)  # the part of its jobs that it does
    failure: Failure = "silent"  # what becomes of the others
    serves: bool = True  # false for offers that are never served
    from_secs: Secs = 0  # when it comes
    until_secs: Secs | None = None  # when it goes for good
    up_secs: Amounts | None = None  # how long it stays before it goes away for down_secs
    down_secs: Amounts | None = None
    leaving: Leaving = "finishes"

    def __post_init__(self) -> None:
        if (self.up_secs is None) != (self.down_secs is None):
            raise ValueError("up_secs and down_secs go together")
        if self.until_secs is not None and self.until_secs <= self.from_secs:
            raise ValueError(f"until_secs {self.until_secs} is not after from_secs")


class Buyers(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of `count` buyers that are alike; each has arrivals of its own.

    A job has `slices` slices of `units` each. With `identities` a buyer goes by as many names, one
    after the other. `waits` keeps a job that no offer fits. `gives_up_secs` after it submitted a
    job that is not through, a buyer cancels it.
    """

    name: Name
    arrivals: Arrivals
    count: Count = 1
    identities: Count = 1
    slices: Amounts = 1
    units: Amounts = 1
    max_price_per_unit: Amounts = 100
    priority: Priority | dict[Priority, Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]] = "normal"
    deadline_secs: Amounts = 3_600
    lane: Lane = "industrial"
    capability: CapabilityRequest = CapabilityRequest()
    consumer_bond: Amount = 1
    provider_bond_min: Amount = 1
    waits: bool = False
    gives_up_secs: Amounts | None = None
    ct: Amount = 1_000_000_000  # paid into each of its wallets at the start
    it: Amount = 1_000_000_000

    def __post_init__(self) -> None:
        if isinstance(self.priority, dict) and not sum(self.priority.values()):
            raise ValueError("the weights of the priorities are all 0")


class FeeChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From a second on consumers pay other fees."""

    at_secs: Secs
    fee: Amounts


class Consumers(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of `count` senders of consumer transactions, which share one process of arrivals."""

    name: Name
    arrivals: Arrivals
    count: Count = 1
    fee: Amounts = 100
    fee_changes: list[FeeChange] = []
    bytes: Amounts = 250


class ParameterChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A parameter that is proposed and approved at a second; it is in force two epochs later."""

    at_secs: Secs
    key: str
    value: int | Decimal


class CapacitySample(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the market is found able to do, in units per second, at a second."""

    at_secs: Secs
    units_per_second: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]


class Outage(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A span in which nobody runs a command: what would have been submitted never is, and what
    would have been proven is when it is over."""

    from_secs: Secs
    length_secs: Span


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A market to be: everything that decides what will happen in it."""

    length_secs: Span
    providers: list[Providers]
    buyers: list[Buyers] = []
    consumers: list[Consumers] = []
    parameters: list[ParameterChange] = []
    capacity: list[CapacitySample] = []
    outages: list[Outage] = []
    seed: Annotated[int, Meta(ge=0, le=2**64 - 1)] = 1
    settlement: Mode = "real"  # from the start on; armed turns real two epochs later
    tick_secs: Span = 60  # how often what is due is done, if nothing else happens
    sample_secs: Span = 60  # how often who observes is asked to take a sample
    start_ms: Annotated[int, Meta(ge=0)] = START_MS
    config: Config = DEFAULTS

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.length_secs * 1_000


def ppm(share: Decimal) -> int:
    """A share in parts per million."""
    return int(share * PPM)
