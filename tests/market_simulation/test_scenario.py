"""Scenario files: what they say, and what is wrong with one, told of its file, line and key."""

import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.config.settings import DEFAULTS
from compute_market.errors import UsageError, exit_code
from compute_market.records import replace
from compute_market.requests import CapabilityRequest
from compute_market.simulation import scenario as records
from compute_market.simulation.draws import Spread
from compute_market.simulation.scenario import (
    Arrivals,
    Buyers,
    CapacitySample,
    Consumers,
    FeeChange,
    Outage,
    ParameterChange,
    PriceChange,
    Providers,
    Scenario,
)
from compute_market.simulation.scenario_files import load

# Every key there is.
WHOLE = """\
length_secs = 3_600
seed = 7
settlement = "armed"
tick_secs = 30
sample_secs = 20
start_ms = 1_700_000_000_000

[config]
enable_preempt = true
fair_share_cap = 0.1

[config.scheduler]
slots = 8

[[providers]]
name = "steady"
count = 3
units = { least = 5, most = 9 }
price_per_unit = 7
price_changes = [{ at_secs = 60, price_per_unit = { values = [8, 9], weights = [1, 2] } }]
capability = { cpu_cores = 4, gpu = "A10" }
fee_pct_ct = 50
provider_bond = 2
consumer_bond = 3
reputation = 10
reputation_multiplier = 0.9
ct = 1_000
restocks = false
unit_ms = { mean = 400, most = 9_000 }
reliability = 0.95
failure = "wrong"
serves = false
from_secs = 10
until_secs = 900
up_secs = 100
down_secs = { least = 5, most = 10 }
leaving = "pauses"

[[buyers]]
name = "b"
count = 2
identities = 4
slices = 2
units = 3
max_price_per_unit = 40
priority = { high = 1, low = 2 }
deadline_secs = 600
lane = "consumer"
consumer_bond = 5
provider_bond_min = 6
waits = true
gives_up_secs = 50
ct = 11
it = 12
arrivals = { process = "poisson", per_minute = 2.5, from_secs = 1, until_secs = 2 }

[buyers.capability]
cpu_cores = 2

[[buyers]]
name = "traced"

[buyers.arrivals]
process = "trace"
file = "jobs.swf"
format = "swf"

[[consumers]]
name = "c"
count = 9
fee = 10
bytes = { least = 1, most = 2 }
arrivals = { process = "burst", size = 2, every_secs = 3 }

[[consumers.fee_changes]]
at_secs = 4
fee = 5_000

[[parameters]]
at_secs = 5
key = "fair_share_cap"
value = 0.25

[[capacity]]
at_secs = 6
units_per_second = 500

[[outages]]
from_secs = 7
length_secs = 8
"""


def test_load_reads_every_key() -> None:
    assert load(WHOLE.encode(), "s.toml") == Scenario(
        length_secs=3_600,
        seed=7,
        settlement="armed",
        tick_secs=30,
        sample_secs=20,
        start_ms=1_700_000_000_000,
        config=replace(DEFAULTS, enable_preempt=True, fair_share_cap_ppm=100_000, slots=8),
        providers=[
            Providers(
                name="steady",
                count=3,
                units=Spread(least=5, most=9),
                price_per_unit=7,
                price_changes=[
                    PriceChange(at_secs=60, price_per_unit=Spread(values=[8, 9], weights=[1, 2]))
                ],
                capability=CapabilityRequest(cpu_cores=4, gpu="A10"),
                fee_pct_ct=50,
                provider_bond=2,
                consumer_bond=3,
                reputation=10,
                reputation_multiplier=Decimal("0.9"),
                ct=1_000,
                restocks=False,
                unit_ms=Spread(mean=400, most=9_000),
                reliability=Decimal("0.95"),
                failure="wrong",
                serves=False,
                from_secs=10,
                until_secs=900,
                up_secs=100,
                down_secs=Spread(least=5, most=10),
                leaving="pauses",
            )
        ],
        buyers=[
            Buyers(
                name="b",
                count=2,
                identities=4,
                slices=2,
                units=3,
                max_price_per_unit=40,
                priority={"high": 1, "low": 2},
                deadline_secs=600,
                lane="consumer",
                consumer_bond=5,
                provider_bond_min=6,
                waits=True,
                gives_up_secs=50,
                ct=11,
                it=12,
                arrivals=Arrivals(
                    process="poisson", per_minute=Decimal("2.5"), from_secs=1, until_secs=2
                ),
                capability=CapabilityRequest(cpu_cores=2),
            ),
            Buyers(
                name="traced",
                arrivals=Arrivals(process="trace", file="jobs.swf", format="swf"),
            ),
        ],
        consumers=[
            Consumers(
                name="c",
                count=9,
                fee=10,
                bytes=Spread(least=1, most=2),
                arrivals=Arrivals(process="burst", size=2, every_secs=3),
                fee_changes=[FeeChange(at_secs=4, fee=5_000)],
            )
        ],
        parameters=[ParameterChange(at_secs=5, key="fair_share_cap", value=Decimal("0.25"))],
        capacity=[CapacitySample(at_secs=6, units_per_second=500)],
        outages=[Outage(from_secs=7, length_secs=8)],
    )


def test_whole_scenario_names_every_key() -> None:
    tables = [each for each in vars(records).values() if isinstance(each, type)]
    keys = {
        key
        for table in tables
        if issubclass(table, msgspec.Struct) and table.__module__ == records.__name__
        for key in table.__struct_fields__
    }
    named = set(re.findall(r"(\w+) =|\[(?:\w+\.)?(\w+)\]", WHOLE))
    assert keys <= {name for pair in named for name in pair}


def test_load_of_little_leaves_the_rest_at_what_is_usual() -> None:
    found = load('length_secs = 60\n[[providers]]\nname = "p"\n')
    assert found == Scenario(length_secs=60, providers=[Providers(name="p")])


LENGTH = "length_secs = 60\n"
PROVIDER = '[[providers]]\nname = "p"\n'
BUYER = '[[buyers]]\nname = "b"\narrivals = { process = "poisson", per_minute = 1 }\n'
NUMBER_MAX = 2**63 - 1


def of_provider(line: str) -> str:
    return LENGTH + PROVIDER + line


def of_buyer(line: str) -> str:
    return of_provider("\n") + BUYER + line


def arriving(table: str) -> str:
    return of_provider(f'[[buyers]]\nname = "b"\narrivals = {{ {table} }}')


def changing(lines: str) -> str:
    return of_provider(f"[[parameters]]\n{lines}")


BAD = [
    ("", "1: the key length_secs is missing"),
    (LENGTH, "1: the key providers is missing"),
    (LENGTH + "providers = []", "2: providers: expected a list of length >= 1"),
    (LENGTH + "providers = 3", "2: providers: expected a list, found a whole number"),
    (LENGTH + "[providers]", "2: providers: expected a list, found a table"),
    (PROVIDER + "[x]\ny = 1", "3: x: unknown key"),
    ("length_secs = 0\n" + PROVIDER, "1: length_secs: expected a whole number >= 1"),
    ("length_secs = -5\n" + PROVIDER, "1: length_secs: expected a whole number >= 1"),
    ("length_secs = 1e3\n" + PROVIDER, "1: length_secs: expected a whole number, found a number"),
    (f"length_secs = {10**30}\n{PROVIDER}", "1: length_secs: expected a whole number <= 316224000"),
    (f"{LENGTH}seed = -1\n{PROVIDER}", "2: seed: expected a whole number >= 0"),
    (f"{LENGTH}seed = {2**63}\n{PROVIDER}", f"2: seed: expected a whole number <= {NUMBER_MAX}"),
    (
        f'{LENGTH}settlement = "wild"\n{PROVIDER}',
        "2: settlement: 'wild' is none of dry_run, armed, real",
    ),
    (LENGTH + "[[providers]]\ncount = 2", "2: providers[0]: the key name is missing"),
    (LENGTH + "[[providers]]\nname = 3", "3: providers[0].name: expected a string, found a whole"),
    (of_provider(PROVIDER + "x = 1"), "6: providers[1].x: unknown key"),
    (of_provider("cuont = 2"), "4: providers[0].cuont: unknown key"),
    (
        LENGTH + '[[providers]]\nname = "a b"',
        "3: providers[0].name: expected a string of letters, digits and _.-, the first a letter",
    ),
    (of_provider("count = 0"), "4: providers[0].count: expected a whole number >= 1"),
    (of_provider("count = true"), "4: providers[0].count: expected a whole number, found true or"),
    (of_provider("units = 0"), f"4: providers[0].units: 0 is outside 1…{NUMBER_MAX}"),
    (
        of_provider("units = [1]"),
        "4: providers[0].units: expected a whole number or a table, found",
    ),
    (of_provider(f"units = {2**63}"), f"4: providers[0].units: {2**63} is outside 1…{NUMBER_MAX}"),
    (
        of_provider("units = { mean = 4 }"),
        f"4: providers[0].units: 0…180 is outside 1…{NUMBER_MAX};",
    ),
    (
        of_provider("units = { least = 3, most = 1 }"),
        "4: providers[0].units.least: 3 is above most",
    ),
    (of_provider("units = { lest = 3 }"), "4: providers[0].units.lest: unknown key"),
    (
        of_provider('units = { values = ["a"] }'),
        "4: providers[0].units.values[0]: expected a whole",
    ),
    (of_provider("price_per_unit = -1"), "4: providers[0].price_per_unit: -1 is outside 0…"),
    (of_provider(f"ct = {2**63}"), f"4: providers[0].ct: expected a whole number <= {NUMBER_MAX}"),
    (of_provider("ct = 2027-01-01"), "4: providers[0].ct: expected a whole number, found a date"),
    (of_provider("reliability = 1.5"), "4: providers[0].reliability: 1.5 is outside 0…1"),
    (of_provider("reliability = nan"), "4: providers[0].reliability: NaN is outside 0…1"),
    (of_provider("reliability = -0.1"), "4: providers[0].reliability: -0.1 is outside 0…1"),
    (
        of_provider("reliability = 0.1234567"),
        "4: providers[0].reliability: 0.1234567 has more than",
    ),
    (
        of_provider('reliability = "1"'),
        "4: providers[0].reliability: expected a number, found a st",
    ),
    (of_provider("up_secs = 5"), "2: providers[0].down_secs: up_secs and down_secs go together"),
    (
        of_provider("from_secs = 5\nuntil_secs = 5"),
        "5: providers[0].until_secs: 5 is not after from",
    ),
    (
        of_provider('leaving = "runs"'),
        "4: providers[0].leaving: 'runs' is none of finishes, pauses, cancels",
    ),
    (f"{LENGTH}start_ms = 1\n{PROVIDER}", "2: start_ms: expected a whole number >= 1577836800000"),
    (
        of_provider('capability = { gpu = ["A10", "T4"] }'),
        "4: providers[0].capability: an offer ha",
    ),
    (of_provider("[providers.capability]\nx = 1"), "5: providers[0].capability.x: unknown key"),
    (
        of_provider("[[providers.price_changes]]\nat_secs = 1\n[[providers.price_changes]]\n"),
        "4: providers[0].price_changes[0]: the key price_per_unit is missing",
    ),
    (
        of_provider(
            "[[providers.price_changes]]\nat_secs = 1\nprice_per_unit = 1\n"
            "[[providers.price_changes]]\nat_secs = -1"
        ),
        "8: providers[0].price_changes[1].at_secs: expected a whole number >= 0",
    ),
    (of_provider('"\\u001b[31m" = 1'), "4: providers[0].\\x1b[31m: unknown key"),
    (of_provider(PROVIDER), "2: providers: two of them have the name p"),
    (
        of_provider('[[providers]]\nname = "q"\ncount = 1_000_000'),
        "2: providers: they are 1000001, at most 1000000 are allowed",
    ),
    (arriving(""), "6: buyers[0].arrivals: the key process is missing"),
    (
        arriving('process = "rare"'),
        "6: buyers[0].arrivals.process: 'rare' is none of poisson, constant, burst, trace",
    ),
    (arriving('process = "poisson"'), "6: buyers[0].arrivals.per_minute: is needed by the process"),
    (
        arriving('process = "poisson", per_minute = -1'),
        "6: buyers[0].arrivals.per_minute: -1 is outside 0.000001…60000000",
    ),
    (
        arriving('process = "constant", per_minute = 0'),
        "6: buyers[0].arrivals.per_minute: 0 is outside 0.000001…60000000",
    ),
    (
        arriving('process = "poisson", per_minute = 1, size = 2'),
        "6: buyers[0].arrivals.size: is nothing of the process poisson",
    ),
    (arriving('process = "trace"'), "6: buyers[0].arrivals.file: is needed by the process trace"),
    (
        arriving('process = "constant", per_minute = 1, format = "swf"'),
        "6: buyers[0].arrivals.format: is nothing of the process constant",
    ),
    (
        arriving('process = "constant", per_minute = 1, from_secs = 2, until_secs = 1'),
        "6: buyers[0].arrivals.until_secs: 1 is not after from_secs 2",
    ),
    (of_provider('\n[[buyers]]\nname = "b"'), "5: buyers[0]: the key arrivals is missing"),
    (of_buyer("priority = { hi = 1 }"), "8: buyers[0].priority: 'hi' is none of high, normal, low"),
    (of_buyer("priority = { high = -1 }"), "8: buyers[0].priority: expected a whole number >= 0"),
    (
        of_buyer("priority = { high = 0 }"),
        "8: buyers[0].priority: the sum of the weights is outsid",
    ),
    (of_buyer('lane = "fast"'), "8: buyers[0].lane: 'fast' is none of industrial, consumer"),
    (of_buyer("waits = 1"), "8: buyers[0].waits: expected true or false, found a whole number"),
    (of_buyer("slices = 20_000"), "8: buyers[0].slices: 20000 is outside 1…10000"),
    (of_buyer("deadline_secs = -1"), "8: buyers[0].deadline_secs: -1 is outside 0…253402300799"),
    (
        of_buyer(
            "[[consumers]]\nname = 'c'\nfee = 0\narrivals = { process = 'trace', file = 'x' }"
        ),
        "10: consumers[0].fee: 0 is outside 1…",
    ),
    (
        of_buyer("[[consumers]]\nname = 'c'\narrivals = { process = 'trace', file = 'x' }"),
        "10: consumers[0].arrivals: a trace has no consumer transactions",
    ),
    (of_buyer("[[outages]]\nfrom_secs = 1"), "8: outages[0]: the key length_secs is missing"),
    (
        of_buyer("[[capacity]]\nat_secs = 1\nunits_per_second = -1"),
        "10: capacity[0].units_per_second",
    ),
    (
        changing('at_secs = 1\nkey = "slots"\nvalue = 1'),
        "6: parameters[0].key: 'slots' is none of ",
    ),
    (
        changing('at_secs = 1\nkey = "burst_quota"\nvalue = 1'),
        "6: parameters[0].key: burst_quota is read-only",
    ),
    (
        changing('at_secs = 1\nkey = "fair_share_cap"\nvalue = 7'),
        "7: parameters[0].value: fair_share_cap: '7' is not 0.01…1.0",
    ),
    (
        changing('at_secs = 1\nkey = "min_capacity"\nvalue = 1.5'),
        "7: parameters[0].value: min_capacity: expected a whole number",
    ),
    (
        changing('at_secs = 1\nkey = "min_capacity"\nvalue = "1"'),
        "7: parameters[0].value: expected a number, found a string",
    ),
    (f"config = 1\n{LENGTH}{PROVIDER}", "1: config: expected a table"),
    (of_provider("[config]\nslots = 8"), "5: unknown key slots"),
    (of_provider("[config]\nfair_share_cap = 7"), "5: fair_share_cap: 7 is not 0.01…1.0"),
    (
        of_provider('[config]\nsettle_mode = "real"'),
        "5: config.settle_mode: the mode is a matter of",
    ),
    ("x = [1", "1: not valid TOML: Unclosed array"),
    (b"# \xff", "1: not UTF-8 text: byte 0xff at offset 2"),
]


@pytest.mark.parametrize(("content", "told"), BAD)
def test_load_tells_file_line_and_key(content: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(content, "s.toml")
    assert caught.value.message.startswith(f"s.toml:{told}")
    assert caught.value.exit_code == exit_code("usage")


@pytest.mark.parametrize(
    ("line", "hint"), [("cuont = 2", "did you mean count?"), ("zzzzzzz = 2", None)]
)
def test_load_knows_the_key_that_was_meant(line: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        load(of_provider(line), "s.toml")
    assert caught.value.hint == hint


@given(st.data())
def test_load_of_a_file_with_one_line_lost_or_garbled_is_a_scenario_or_an_error(
    data: st.DataObject,
) -> None:
    lines = WHOLE.split("\n")
    place = data.draw(st.integers(0, len(lines) - 1))
    lines[place] = data.draw(st.sampled_from(["", "x", lines[place] * 2, lines[place][:-1], "= 1"]))
    assert (problem_of("\n".join(lines)) or "s.toml:").startswith("s.toml:")


def problem_of(content: str) -> str | None:
    try:
        load(content, "s.toml")
    except UsageError as error:
        return error.message
    return None
