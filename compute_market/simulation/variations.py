"""A scenario with some of its keys changed, as a sweep tries them."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import product
from typing import Any

from compute_market.config.places import Place
from compute_market.config.rows import SETTINGS
from compute_market.config.toml import DecimalText
from compute_market.errors import UsageError
from compute_market.simulation import scenario_files
from compute_market.simulation.scenario import Scenario
from compute_market.text import clipped, printable

# A key, and the text of its value.
Change = tuple[str, str]
COMBINATIONS_MAX = 10_000

_GROUPS = ("providers", "buyers", "consumers")
_OWN = tuple(
    name
    for name in Scenario.__struct_fields__
    if name not in (*_GROUPS, "config", "parameters", "capacity", "outages")
)


def combinations(parameters: Sequence[str]) -> list[tuple[Change, ...]]:
    """Every combination of what `KEY=V,V…` offer, the last key changing fastest.

    Raises UsageError for a text of another form, a key that is given twice, or too many of them.
    """
    offered: dict[str, list[str]] = {}
    number = 1
    for text in parameters:
        key, separator, values = text.partition("=")
        shown = ascii(clipped(text))
        if not separator or not key or not all(values.split(",")):
            raise UsageError(f"--param {shown} is not KEY=VALUE,VALUE…")
        if key in offered:
            raise UsageError(f"--param {printable(key)} is given twice")
        offered[key] = list(dict.fromkeys(values.split(",")))
        number *= len(offered[key])
        if number > COMBINATIONS_MAX:
            raise UsageError(f"--param: more than {COMBINATIONS_MAX} combinations")
    pairs = [[(key, value) for value in values] for key, values in offered.items()]
    return list(product(*pairs))


def repeated(parameters: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each value that the texts which `combinations` takes offer more than once, with its key."""
    for text in parameters:
        key, _, values = text.partition("=")
        for value, times in Counter(values.split(",")).items():
            if times > 1:
                yield key, value


def value_of(text: str) -> Any:
    """What the text of a change means, as JSON has it."""
    value = _value(text)
    if isinstance(value, DecimalText):
        return float(value.text)
    return value if isinstance(value, int | str) else text


def scenario_with(document: dict[str, Any], changes: Sequence[Change]) -> Scenario:
    """The scenario of a document that is sound, with some keys changed.

    Raises UsageError that names the change, for a key that is unknown or a value that does not fit.
    """
    scenario = _scenario(document)
    for key, text in changes:
        document = changed(document, key, text)
        try:
            scenario = _scenario(document)
        except UsageError as error:
            # The document was sound before, and what was changed stands on no line and at no place.
            problem = re.sub(r"^--param:1: (\w+(\[\d+\])?(\.\w+)*: )?", "", error.message)
            shown = f"{clipped(printable(key))}={clipped(printable(text))}"
            raise UsageError(f"--param {shown}: {problem}", hint=error.hint) from error
    return scenario


def _scenario(document: dict[str, Any]) -> Scenario:
    config = document.get("config", {})
    lines: dict[Place, int] = {("config",): 1}
    for key, value in config.items() if isinstance(config, dict) else ():
        lines["config", key] = 1
        for inner in value if isinstance(value, dict) else ():
            lines["config", key, inner] = 1
    return scenario_files.scenario_of(document, lines, "--param")


def changed(document: dict[str, Any], key: str, text: str) -> dict[str, Any]:
    """A copy of the document of a scenario with a key set.

    A key is one of the scenario itself (`length_secs`), one of a group by the group's name
    (`greedy.count`, `greedy.arrivals.per_minute`), or a setting of the market
    (`fair_share_cap`, `scheduler.slots`). Raises UsageError for any other, with the nearest.
    """
    found: dict[str, Any] = _copied(document)
    first, _, rest = key.partition(".")
    groups = [each for each in _named(found) if each["name"] == first]
    if key in _OWN:
        _set(found, [key], text)
    elif rest and groups:
        _set(groups[0], rest.split("."), text)
    elif any(setting.name == key for setting in SETTINGS):
        _set(found.setdefault("config", {}), key.split("."), text)
    else:
        raise _unknown(found, key)
    return found


def _set(table: Any, path: Sequence[str], text: str) -> None:
    for step in path[:-1]:
        if not isinstance(table.get(step), dict):
            table[step] = {}
        table = table[step]
    table[path[-1]] = _value(text)


def _value(text: str) -> Any:
    """What a text means as the value of a key in TOML; one that means nothing is a string."""
    try:
        return tomllib.loads(f"value = {text}", parse_float=DecimalText)["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _named(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The groups of a document that have a name."""
    for kind in _GROUPS:
        groups = document.get(kind, [])
        for group in groups if isinstance(groups, list) else ():
            if isinstance(group, dict) and isinstance(group.get("name"), str):
                yield group


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _unknown(document: dict[str, Any], key: str) -> UsageError:
    names = [group["name"] for group in _named(document)]
    known = [*_OWN, *(setting.name for setting in SETTINGS)]
    near = get_close_matches(key, known, 1)
    return UsageError(
        f"--param: unknown key {clipped(printable(key))}",
        hint=f"did you mean {near[0]}?"
        if near
        else f"a setting of config.toml, one of {', '.join(_OWN)}, or GROUP.KEY of "
        f"{', '.join(names) or 'a group'}",
    )
