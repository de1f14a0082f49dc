"""Scenarios as TOML: what is wrong with one is told with its file, its line and its key."""

import re
from collections.abc import Iterator
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, get_args

import msgspec

from compute_market.config import files, places
from compute_market.config.places import Place
from compute_market.config.toml import DecimalText
from compute_market.errors import UsageError
from compute_market.field_errors import matching
from compute_market.records import PRIORITIES, Lane, Mode
from compute_market.requests import CapabilityRequest
from compute_market.simulation.draws import Spread
from compute_market.simulation.scenario import (
    Arrivals,
    Buyers,
    CapacitySample,
    Consumers,
    Failure,
    FeeChange,
    Format,
    Leaving,
    Outage,
    ParameterChange,
    PriceChange,
    Process,
    Providers,
    Scenario,
)
from compute_market.text import clipped, printable

_CONFIG = "config"
_TABLES = (
    *(Scenario, Providers, PriceChange, Buyers, Arrivals, Consumers, FeeChange),
    *(ParameterChange, CapacitySample, Outage, Spread, CapabilityRequest),
)
# Every key there is, for whoever mistypes one.
_KEYS = tuple(dict.fromkeys(key for table in _TABLES for key in table.__struct_fields__))
_CHOICES = {
    "process": get_args(Process),
    "format": get_args(Format),
    "failure": get_args(Failure),
    "leaving": get_args(Leaving),
    "settlement": get_args(Mode),
    "priority": PRIORITIES,
    "lane": get_args(Lane),
}
# What msgspec calls things, and what they are in a scenario.
_TERMS = {
    "int": "a whole number",
    "decimal": "a number",
    "object": "a table",
    "array": "a list",
    "str": "a string",
    "bool": "true or false",
    "date": "a date",
    "datetime": "a date",
    "time": "a time",
    "null": "nothing",
}


def load(content: bytes | str, source: str = "scenario.toml") -> Scenario:
    """The scenario that a file holds.

    Raises UsageError with one line that names `source`, the line and the key, for anything that is
    not a known key with a value of its type and within its bounds.
    """
    return scenario_of(*places.read(content, source), source)


def scenario_of(document: dict[str, Any], lines: dict[Place, int], source: str) -> Scenario:
    """The same of a document that was read, with the line of each of its places."""
    config = document.get(_CONFIG, {})
    if not isinstance(config, dict):
        raise UsageError(f"{source}:{lines[_CONFIG,]}: config: expected a table")
    own = {key: value for key, value in document.items() if key != _CONFIG}
    try:
        scenario = msgspec.convert(_decimals(own), Scenario, builtin_types=(Decimal,))
    except msgspec.ValidationError as error:
        raise _error(str(error), source, lines) from error
    return msgspec.structs.replace(scenario, config=_settings(config, lines, source))


def _settings(config: dict[str, Any], lines: dict[Place, int], source: str) -> Any:
    """The settings that a scenario changes, under the names and bounds of `config.toml`."""
    of_config = {
        tuple(map(str, place[1:])): line for place, line in lines.items() if place[:1] == (_CONFIG,)
    }
    found = files.check(config, of_config, source)
    mode = found.get("settle_mode")
    if mode is not None:
        raise UsageError(
            f"{mode.origin}: config.settle_mode: the mode is a matter of the scenario itself",
            hint='say settlement = "dry_run", "armed" or "real" at its top',
        )
    return files.config_of(found)


def _decimals(value: Any) -> Any:
    """A document with the numbers that have decimals as such."""
    if isinstance(value, DecimalText):
        return Decimal(value.text)
    if isinstance(value, dict):
        return {key: _decimals(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_decimals(inner) for inner in value]
    return value


def _error(message: str, source: str, lines: dict[Place, int]) -> UsageError:
    """What msgspec or a record says, told of a line and a key."""
    problem, _, path = message.partition(" - at `")
    inside = re.search(r"\$[^`]*", path)
    place = tuple(_steps(inside.group() if inside else "$"))
    hint = None
    unknown = re.search("unknown field `(.*)`", problem)
    missing = re.search("missing required field `(.*)`", problem)
    own = re.match(r"([a-z_]+): ", problem)
    chosen = re.match("Invalid enum value (.*)", problem)
    pattern = re.match("Expected `str` matching regex (.*)", problem)
    if unknown:
        place, problem = (*place, unknown.group(1)), "unknown key"
        near = get_close_matches(unknown.group(1), _KEYS, n=1)
        hint = f"did you mean {near[0]}?" if near else None
    elif missing:
        problem = f"the key {missing.group(1)} is missing"
    elif own:
        place, problem = (*place, own.group(1)), problem[own.end() :]
    elif chosen and place:
        problem = f"{chosen.group(1)} is none of {', '.join(_CHOICES[str(place[-1])])}"
    elif pattern:
        problem = f"expected a string of {matching(pattern.group(1))}"
    line = next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), 1)
    name = _name(place)
    return UsageError(f"{source}:{line}: {name}{_plain(problem)}", hint=hint)


def _steps(path: str) -> Iterator[str | int]:
    """The place that a path of msgspec names, as far as it can be told: `$.providers[0].units`."""
    for key, number in re.findall(r"\.([A-Za-z_]\w*)|\[(\d+)\]", path):
        yield key or int(number)


def _name(place: Place) -> str:
    """A place as a reader of the file knows it, `providers[0].units: `; empty for the whole."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{_legible(step)}"
    return f"{text.removeprefix('.')}: " if text else ""


def _plain(problem: str) -> str:
    """What msgspec says in the words of a scenario."""

    def terms(found: re.Match[str]) -> str:
        words = [_TERMS.get(word, word) for word in found.group(1).split(" | ") if word != "null"]
        return " or ".join(dict.fromkeys(words))

    problem = problem.replace("int | decimal", "decimal")
    text = re.sub("`([a-z]+(?: \\| [a-z]+)*)`", terms, problem)
    return _legible(re.sub("^Expected", "expected", text).replace(", got ", ", found "))


def _legible(text: str) -> str:
    return clipped(printable(text))
