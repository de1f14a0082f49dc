"""The rows for the table in README.md."""

from datetime import date
from typing import Any


def table(ends: list[dict[str, Any]], quick: bool) -> str:
    """One row for each claim of each part, and what became of the parts."""
    device = next((end["measured"]["device"] for end in ends if _knows_device(end)), "no device")
    lines = [f"{device}, {date.today()}{', quick: sizes are small' if quick else ''}", ""]
    lines += ["| claim | bound | measured | command |", "|---|---|---|---|"]
    label = "`gpu.py --quick`" if quick else "`gpu.py`"
    for end in ends:
        for claim, bound, measured in end["rows"]:
            lines.append(f"| {claim} | {bound} | {measured} | {label}, {end['backend']} |")
    lines.append("")
    lines += [
        f"{end['part']}: {end['status']}" + (f", {end['reason']}" if end["reason"] else "")
        for end in ends
    ]
    return "\n".join(lines) + "\n"


def _knows_device(end: dict[str, Any]) -> bool:
    return "device" in end.get("measured", {})
