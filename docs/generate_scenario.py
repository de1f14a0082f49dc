"""Writes `scenario.md`, the tables and keys of a scenario, from the records that it is read into.

Run it with `python docs/generate_scenario.py` after a record has changed; a test compares the two.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

# What these import is found by the path above, so they stand behind it.
import msgspec  # noqa: E402
from msgspec import inspect as types  # noqa: E402

from compute_market.requests import CapabilityRequest  # noqa: E402
from compute_market.simulation.draws import Spread  # noqa: E402
from compute_market.simulation.scenario import (  # noqa: E402
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

TARGET = ROOT / "docs" / "scenario.md"
# The heading of each table, in the order of the page.
HEADINGS: dict[Any, str] = {
    Scenario: "The scenario itself",
    Providers: "[[providers]]",
    PriceChange: "price_changes of providers",
    Buyers: "[[buyers]]",
    Arrivals: "arrivals",
    Consumers: "[[consumers]]",
    FeeChange: "fee_changes of consumers",
    ParameterChange: "[[parameters]]",
    CapacitySample: "[[capacity]]",
    Outage: "[[outages]]",
    Spread: "Spreads",
    CapabilityRequest: "capability",
}
INTRODUCTION = """\
# Keys of a scenario

This page is generated from the records that a scenario is read into, by
`python docs/generate_scenario.py`. [Simulation](simulation.md) shows how to write one.

Where a spread may stand, a plain number may as well: it is the same each time.
"""
CONFIG = (
    "`config`",
    "table",
    "",
    "Settings of the market, as in `config.toml`, where they are not the defaults.",
)


def render() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for table, heading in HEADINGS.items():
        lines += [f"## {heading}", "", *_said(table), "", "| key | value | default | |"]
        lines += ["|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in _rows(table)]
        lines.append("")
    return "\n".join(lines)


def _said(table: Any) -> list[str]:
    text = " ".join(inspect.cleandoc(table.__doc__).split())
    return [text]


def _rows(table: Any) -> Iterator[tuple[str, ...]]:
    comments = dict(re.findall(r"^    (\w+):.*?  # (.*)$", inspect.getsource(table), re.MULTILINE))
    info = types.type_info(table)
    assert isinstance(info, types.StructType)
    for field in info.fields:
        if field.name == "config":
            yield CONFIG
            continue
        meaning = comments.get(field.name, "")
        yield (
            f"`{field.name}`",
            _value(field.type),
            _default(field),
            meaning[:1].upper() + meaning[1:],
        )


def _default(field: types.Field) -> str:
    if field.default_factory is not types.NODEFAULT:
        found = field.default_factory()
        return f"`{msgspec.json.encode(found).decode()}`" if found == [] else ""
    if field.default is types.NODEFAULT:
        return "*needed*"
    if field.default is None:
        return "none"
    if isinstance(field.default, msgspec.Struct):
        return "none"
    return f"`{msgspec.json.encode(field.default).decode()}`".replace('`"', "`").replace('"`', "`")


def _value(kind: types.Type) -> str:
    """What a key takes, in words."""
    if isinstance(kind, types.UnionType):
        parts = [_value(each) for each in kind.types if not isinstance(each, types.NoneType)]
        if "number" in parts:
            parts.remove("whole number")
        return " or ".join(parts)
    if isinstance(kind, types.StructType):
        name = HEADINGS[kind.cls]
        anchor = re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")
        return f"[{'a spread' if kind.cls is Spread else 'table'}](#{anchor})"
    if isinstance(kind, types.ListType):
        return f"list of: {_value(kind.item_type)}"
    if isinstance(kind, types.DictType):
        return f"table of {_value(kind.key_type)} to {_value(kind.value_type)}"
    if isinstance(kind, types.LiteralType):
        return ", ".join(f"`{each}`" for each in sorted(kind.values, key=str))
    words = {
        types.IntType: "whole number",
        types.DecimalType: "number",
        types.BoolType: "`true`, `false`",
        types.StrType: "text",
        types.AnyType: "anything",
    }
    return words[type(kind)] + _bounds(kind)


def _bounds(kind: Any) -> str:
    least, most = (getattr(kind, name, None) for name in ("ge", "le"))
    above = getattr(kind, "gt", None)
    if above is not None:
        return f" above {above}" + ("" if most is None else f", at most {most}")
    if least is None and most is None:
        return ""
    if most is None or most >= 2**63 - 1:
        return f", {least} or more"
    return f", {least}…{most}"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
