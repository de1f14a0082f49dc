"""What a scenario says: who is there, what they do, and for how long.

Records alone; `scenario_files` reads them from TOML. Times named `*_secs` count from the start of
the simulation, other spans are lengths. Ratios are decimals from 0 to 1.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from compute_market.admission import mempool
from compute_market.amounts import AMOUNT_MAX, PPM
from compute_market.clock import EARLIEST_MS, LATEST_MS
from compute_market.config.settings import DEFAULTS
from compute_market.errors import MarketError
from compute_market.governance import parameters
from compute_market.records import DEADLINE_MAX, Lane, Mode, Priority
from compute_market.requests import Amount, CapabilityRequest
from compute_market.simulation.draws import Amounts, bounds

LENGTH_SECS_MAX = 10 * 366 * 86_400
COUNT_MAX = 1_000_000
SLICES_MAX = 10_000
UNITS_MAX = 2**40  # of a slice
_SPAN_MS_MAX = LENGTH_SECS_MAX * 1_000
_PER_MINUTE_MAX = Decimal(60_000_000)
START_MS = 1_800_000_000_000  # 2027-01-15, a day as good as any

Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Secs = Annotated[int, Meta(ge=0, le=LENGTH_SECS_MAX)]
Span = Annotated[int, Meta(ge=1, le=LENGTH_SECS_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")]
Number = int | Decimal
Process = Literal["poisson", "constant", "burst", "trace"]
Format = Literal["swf", "openb"]
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
    per_minute: Number | None = None
    size: Count | None = None
    every_secs: Span | None = None
    file: Annotated[str, Meta(min_length=1)] | None = None
    format: Format | None = None
    from_secs: Secs = 0
    until_secs: Secs | None = None

    def __post_init__(self) -> None:
        wanted = _ARRIVALS[self.process]
        for key in ("per_minute", "size", "every_secs", "file"):
            if (getattr(self, key) is None) == (key in wanted):
                verb = "is needed by" if key in wanted else "is nothing of"
                raise ValueError(f"{key}: {verb} the process {self.process}")
        if self.format is not None and self.process != "trace":
            raise ValueError(f"format: is nothing of the process {self.process}")
        if self.per_minute is not None:
            _check_decimal("per_minute", self.per_minute, Decimal("0.000001"), _PER_MINUTE_MAX)
        _check_span(self.from_secs, self.until_secs)


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

    def __post_init__(self) -> None:
        _check_amounts("price_per_unit", self.price_per_unit, 0, AMOUNT_MAX)


class Providers(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of `count` providers that are alike; each draws its own numbers.

    Each has one open offer of `units` at a time: posts it when it comes, another one in its place
    when less than half of it is left (`restocks`), and one at the new price when its price changes.
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
    reputation_multiplier: Number = 1
    ct: Amount = 1_000_000  # paid into its wallet at the start
    restocks: bool = True
    unit_ms: Amounts = 1_000  # that it takes for a unit; drawn for each job
    reliability: Number = 1  # the part of its jobs that it does
    failure: Failure = "silent"  # what becomes of the others
    serves: bool = True  # false for offers that are never served
    from_secs: Secs = 0  # when it comes
    until_secs: Secs | None = None  # when it goes for good
    up_secs: Amounts | None = None  # how long it stays before it goes away for down_secs
    down_secs: Amounts | None = None
    leaving: Leaving = "finishes"

    def __post_init__(self) -> None:
        if isinstance(self.capability.gpu, list):
            raise ValueError("capability: an offer has one GPU model, jobs may name several")
        _check_amounts("units", self.units, 1, AMOUNT_MAX)
        _check_amounts("price_per_unit", self.price_per_unit, 0, AMOUNT_MAX)
        _check_amounts("unit_ms", self.unit_ms, 0, _SPAN_MS_MAX)
        _check_decimal("reliability", self.reliability, Decimal(0), Decimal(1))
        _check_decimal("reputation_multiplier", self.reputation_multiplier, Decimal(0), Decimal(1))
        _check_span(self.from_secs, self.until_secs)
        if (self.up_secs is None) != (self.down_secs is None):
            key = "up_secs" if self.up_secs is None else "down_secs"
            raise ValueError(f"{key}: up_secs and down_secs go together")
        if self.up_secs is not None and self.down_secs is not None:
            _check_amounts("up_secs", self.up_secs, 0, LENGTH_SECS_MAX)
            _check_amounts("down_secs", self.down_secs, 0, LENGTH_SECS_MAX)


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
        _check_amounts("slices", self.slices, 1, SLICES_MAX)
        _check_amounts("units", self.units, 1, UNITS_MAX)
        _check_amounts("max_price_per_unit", self.max_price_per_unit, 0, AMOUNT_MAX)
        _check_amounts("deadline_secs", self.deadline_secs, 0, DEADLINE_MAX)
        if self.gives_up_secs is not None:
            _check_amounts("gives_up_secs", self.gives_up_secs, 0, LENGTH_SECS_MAX)
        if isinstance(self.priority, dict) and not 0 < sum(self.priority.values()) <= AMOUNT_MAX:
            raise ValueError(f"priority: the sum of the weights is outside 1…{AMOUNT_MAX}")


class FeeChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From a second on consumers pay other fees."""

    at_secs: Secs
    fee: Amounts

    def __post_init__(self) -> None:
        _check_amounts("fee", self.fee, 1, AMOUNT_MAX)


class Consumers(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of `count` senders of consumer transactions, which share one process of arrivals."""

    name: Name
    arrivals: Arrivals
    count: Count = 1
    fee: Amounts = 100
    fee_changes: list[FeeChange] = []
    bytes: Amounts = 250

    def __post_init__(self) -> None:
        _check_amounts("fee", self.fee, 1, AMOUNT_MAX)
        _check_amounts("bytes", self.bytes, 1, mempool.BYTES_MAX)
        if self.arrivals.process == "trace":
            raise ValueError("arrivals: a trace has no consumer transactions")


class ParameterChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A parameter that is proposed and approved at a second; it is in force two epochs later."""

    at_secs: Secs
    key: str
    value: Number

    def __post_init__(self) -> None:
        try:
            parameters.check_key(self.key)
        except MarketError as error:
            raise ValueError(f"key: {error.message.removeprefix('KEY: ')}") from error
        try:
            self.parsed()
        except MarketError as error:
            raise ValueError(f"value: {error.message.removeprefix('VALUE: ')}") from error

    def parsed(self) -> int:
        """The value as `Config` holds it."""
        return parameters.parse(self.key, format(Decimal(self.value), "f"))


class CapacitySample(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the market is found able to do, in units per second, at a second: as many samples at
    once as the estimate is made of, so that it is what they say."""

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
    providers: Annotated[list[Providers], Meta(min_length=1)]
    buyers: list[Buyers] = []
    consumers: list[Consumers] = []
    parameters: list[ParameterChange] = []
    capacity: list[CapacitySample] = []
    outages: list[Outage] = []
    seed: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)] = 1
    settlement: Mode = "real"  # from the start on; armed turns real two epochs later
    tick_secs: Span = 60  # how often what is due is done, if nothing else happens
    sample_secs: Span = 60  # how often who observes is asked to take a sample
    start_ms: Annotated[int, Meta(ge=EARLIEST_MS, le=LATEST_MS - _SPAN_MS_MAX)] = START_MS
    # A `Config`, whose annotations msgspec cannot evaluate: `scenario_files` reads it apart.
    config: Any = DEFAULTS

    def __post_init__(self) -> None:
        for key in ("providers", "buyers", "consumers"):
            groups = getattr(self, key)
            names = [group.name for group in groups]
            if len(set(names)) < len(names):
                twice = next(name for place, name in enumerate(names) if name in names[:place])
                raise ValueError(f"{key}: two of them have the name {twice}")
            number = sum(group.count for group in groups)
            if number > COUNT_MAX:
                raise ValueError(f"{key}: they are {number}, at most {COUNT_MAX} are allowed")

    @property
    def end_ms(self) -> int:
        return self.at_ms(self.length_secs)

    def at_ms(self, secs: int) -> int:
        """The unix milliseconds so many seconds after the start."""
        return self.start_ms + secs * 1_000


def _check_amounts(key: str, amounts: Amounts, least: int, most: int) -> None:
    low, high = bounds(amounts)
    if not least <= low <= high <= most:
        found = f"{low}…{high}" if low != high else str(low)
        hint = "" if isinstance(amounts, int) else "; least and most of a spread keep it within"
        raise ValueError(f"{key}: {found} is outside {least}…{most}{hint}")


def _check_decimal(key: str, number: Number, least: Decimal, most: Decimal) -> None:
    value = Decimal(number)
    if not value.is_finite() or not least <= value <= most:
        raise ValueError(f"{key}: {value} is outside {least}…{most}")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -6:
        raise ValueError(f"{key}: {value} has more than 6 decimals")


def _check_span(from_secs: int, until_secs: int | None) -> None:
    if until_secs is not None and until_secs <= from_secs:
        raise ValueError(f"until_secs: {until_secs} is not after from_secs {from_secs}")


def ppm(share: Number) -> int:
    """A share in parts per million."""
    return int(share * PPM)
