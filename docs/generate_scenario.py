"""Writes `scenario.md`, the tables and keys of a scenario, from the records that it is read into.

Run it with `python docs/generate_scenario.py` after a record has changed; a test compares the two.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

# What these import is found by the path above, so they stand behind it.
from msgspec import inspect as types
from type_tables import anchor, comments_of, default, sentence, value

from compute_market.requests import CapabilityRequest
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
    comments = comments_of(table)
    info = types.type_info(table)
    assert isinstance(info, types.StructType)
    for field in info.fields:
        if field.name == "config":
            yield CONFIG
            continue
        meaning = sentence(comments.get(field.name, ""))
        yield f"`{field.name}`", value(field.type, _link), default(field), meaning


def _link(table: Any) -> str:
    return f"[{'a spread' if table is Spread else 'table'}](#{anchor(HEADINGS[table])})"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
